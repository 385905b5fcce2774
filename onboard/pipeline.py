"""The pipeline: the only room that knows all stages; it starts, watches and ends flights.

    camera → capture → [captured] → keep → [write] → writer → flight.db → voices
                                       └→ [scan] → scan ┘
    autopilot ↔ link → tlog, clocks, poses

Queues and their overflow policies: ``captured`` drops the oldest (a camera never waits), ``scan``
moves the oldest to the flight's backlog (worked off when idle and after landing), ``write`` lets
its givers wait. Every drop is counted and shown in the status file.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

from calibration.rig import load_rig
from gossan.errors import GossanError
from onboard.config import OnboardSettings
from onboard.eyes import Eyes, open_eyes_or_blind
from onboard.health import STATUS, Health, write_status
from onboard.keep.flight import TELEMETRY
from onboard.live_align import AlignStage
from onboard.live_flight import (
    LiveFlight,
    ScanItem,
    begin_flight,
    interrupted_flights,
    resume_flight,
)
from onboard.live_telemetry import LiveTelemetry
from onboard.recorder import CAPTURED_SIZE, CaptureStage, KeepStage, Waiting
from onboard.records import ClockTie, Frame, FrameRecord, Poses, UtcQuality
from onboard.scanning import ScanStage
from onboard.sources.camera import LiveCamera, open_camera
from onboard.stages import BoundedQueue, StageThread
from onboard.status import flight_status, status_of
from onboard.survey_scene import read_plan
from onboard.tell.cot import CotVoice
from onboard.tell.mavlink import StatustextVoice, post_image_dot, post_values
from onboard.tell.teller import ConsoleVoice, Voice
from onboard.writer import Commit, Finish, WriteStage

log = logging.getLogger(__name__)

TURN_S = 0.1
STATUS_S = 1.0
VALUES_S = 2.0
SETTLE_S = 1.0
"""After landing: time for the last frames to arrive."""
CAMERA_SILENT_S = 15.0
QUIET_TURNS = 3
"""A flight is closed when nothing has been under way for so many turns."""
LIMITS_S = {
    "link": 15.0, "capture": 15.0, "keep": 30.0, "write": 60.0, "scan": 120.0, "align": 60.0,
}  # fmt: skip
"""How long a stage may go without a beat before it counts as stuck."""


class Phase(StrEnum):
    """What the daemon is doing."""

    WAITING = "waiting"
    RECORDING = "recording"
    LANDED = "landed"


class Pipeline:
    """All stages of one drone.

    Args:
        settings: The daemon's settings.
        stop: The one stop event.
        camera: Tests put their own here.
        open_eyes: Opens the model; tests put their own here.
        once: Ends (sets ``stop``) after the first flight was closed.

    Raises:
        GossanError: The rig, the plan or the camera's settings cannot be used.
    """

    def __init__(
        self,
        settings: OnboardSettings,
        stop: threading.Event,
        camera: LiveCamera | None = None,
        open_eyes: Callable[[], tuple[Eyes, GossanError | None]] | None = None,
        once: bool = False,
    ) -> None:
        self.settings = settings
        self.health = Health()
        self.phase = Phase.WAITING
        self.flight: LiveFlight | None = None
        self.flights_closed: list[str] = []
        self._stop = stop
        self._once = once
        self._tail_stop = threading.Event()
        self._landed_s = 0.0
        self._quiet = 0
        self._recording_ns = time.monotonic_ns()
        self._finish: Finish | None = None
        self._due = {"status": 0.0, "values": 0.0}
        self.last_flight: dict[str, Any] = {}
        rig = load_rig(settings.rig.file)
        self.rig = rig
        self.plan = None if settings.survey.plan is None else read_plan(settings.survey.plan)
        cam = settings.camera
        self.camera = camera or open_camera(cam.source, cam.rate_hz, cam.latency_s)
        self.telemetry = LiveTelemetry(settings.vehicle, rig, self.health)
        self.captured: BoundedQueue[Waiting] = BoundedQueue(
            "captured", CAPTURED_SIZE, "drop_oldest", self.health, self._lost
        )
        self.to_scan: BoundedQueue[ScanItem] = BoundedQueue(
            "scan", settings.survey.scan_queue, "drop_oldest", self.health, self._later
        )
        self.writer = WriteStage(self._current, self._ties, self._voices, self.health)
        self.capture = CaptureStage(self.camera, self._recording, self.captured, self.health)
        self.keep = KeepStage(
            self._current, self.telemetry, self.captured, self._commit, self.to_scan,
            self._announce, self.health, settings.survey.pose_wait_s, cam.jpeg_quality,
        )  # fmt: skip
        self.scan = ScanStage(
            settings, rig, self.plan, self._current, self.telemetry, self.to_scan,
            self._commit_scan, open_eyes or (lambda: open_eyes_or_blind(settings.model)),
            lambda: not self.keep.waiting and not self.writer.waiting, self.health,
        )  # fmt: skip
        self._first = [
            StageThread("link", self.telemetry.run, stop, self.health, LIMITS_S["link"]),
            StageThread("capture", self.capture.run, stop, self.health, LIMITS_S["capture"]),
            StageThread("scan", self.scan.run, stop, self.health, LIMITS_S["scan"]),
        ]
        if settings.survey.align_every_s > 0:
            aligning = AlignStage(settings, self._current, self.health)
            self._first.append(
                StageThread("align", aligning.run, stop, self.health, LIMITS_S["align"])
            )
        late = self._tail_stop
        self._keeping = StageThread("keep", self.keep.run, stop, self.health, LIMITS_S["keep"])
        self._writing = StageThread("write", self.writer.run, late, self.health, LIMITS_S["write"])
        self._tlog = threading.Thread(
            target=self.telemetry.tlog.run, args=(late,), name="gossan-tlog", daemon=True
        )

    # ---- life

    def start(self) -> None:
        """Takes up an interrupted flight, if there is one, and starts all stages."""
        root = self.settings.storage.root
        root.mkdir(parents=True, exist_ok=True)
        self._take_up(root)
        if self.telemetry.link is None:
            self.health.degrade(
                "link", "no_link", "no [vehicle] link: frames are not placed", "warning"
            )
        self._writing.start()
        self._tlog.start()
        self._store_found()
        for stage in (self._keeping, *self._first):
            stage.start()

    def _store_found(self) -> None:
        """Stores the frames of an interrupted flight that lay on the disk without a row."""
        if self.flight is not None:
            for record in self.flight.found:
                self._commit(record)
            self.flight.found.clear()

    def run(self, each_turn: Callable[[], None] = lambda: None) -> None:
        """Runs until the stop event; ``each_turn`` is called some ten times a second."""
        self.start()
        try:
            while not self._stop.wait(TURN_S):
                self.turn()
                each_turn()
        finally:
            self.shut_down()

    def shut_down(self) -> None:
        """Ends all stages: what was captured is kept and stored.

        A flight that is not over stays open, to be taken up; one that was to last from start to
        end (``record = "start"``) is closed.
        """
        self._stop.set()
        for stage in (*self._first, self._keeping):
            if not stage.join(20.0):
                log.error("stage_stuck_at_end stage=%s", stage.name)
        if self.settings.survey.record == "start" and self.flight is not None:
            self.telemetry.tlog.stop()
            self.writer.queue.put(Finish(final=True))
        self._tail_stop.set()
        self._writing.join(20.0)
        self._tlog.join(5.0)
        self._write_status(running=False)

    # ---- phases

    def turn(self) -> None:
        """Looks at the vehicle, moves between phases, writes status and values."""
        flying = self.telemetry.flying
        if self.phase is Phase.WAITING:
            if self.settings.survey.record == "start" or flying:
                self._begin()
        elif self.phase is Phase.RECORDING:
            if self._has_landed(flying):
                self._land()
        else:
            self._work_off(self._go_on_flying() if flying else False)
        self._watch_sources()
        self._tell_values()
        self._write_status()

    def _watch_sources(self) -> None:
        """While recording: says when the vehicle or the camera is not heard, and when again."""
        if self.phase is not Phase.RECORDING:
            return
        if self.telemetry.link is not None:
            if self.telemetry.up:
                self.health.restore("link", "link_lost")
            else:
                self.health.degrade("link", "link_lost", "frames wait to be placed from the log")
        seen_ns = max(self.capture.last_ns, self._recording_ns)
        if time.monotonic_ns() - seen_ns < CAMERA_SILENT_S * 1e9:
            self.health.restore("capture", "camera_silent")
        else:
            self.health.degrade("capture", "camera_silent", f"no frame for {CAMERA_SILENT_S:.0f} s")

    def _has_landed(self, flying: bool | None) -> bool:
        """Only a vehicle that is heard and says so has landed: a lost link is no landing."""
        if self.settings.survey.record == "start" or flying is None:
            return False
        return not flying and self.telemetry.up

    def _begin(self) -> None:
        try:
            utc = self.telemetry.clock.utc_from_boot(self.telemetry.clock.newest_boot_s)
            self.flight = begin_flight(self.settings, self.rig, self.plan, utc)
            self.telemetry.tlog.start(self.flight.folder / TELEMETRY)
        except (GossanError, OSError) as error:
            self.health.degrade("keep", "flight_not_begun", str(error))
            return
        self.health.restore("keep", "flight_not_begun")
        self.phase = Phase.RECORDING
        self._recording_ns = time.monotonic_ns()
        if utc[1] is UtcQuality.NONE:
            self.health.event("link", "warning", "utc_unknown", "names use the host's clock")

    def _take_up(self, root: Path) -> None:
        """Goes on with the newest interrupted flight; older ones are finished when it is done."""
        for folder in reversed(interrupted_flights(root)):
            try:
                flight = resume_flight(self.settings, folder)
            except (GossanError, OSError, ValueError, KeyError) as error:
                self.health.event("keep", "error", "flight_unreadable", f"{folder}: {error}")
                continue
            self.flight = flight
            self.health.event("keep", "warning", "flight_resumed", flight.flight_id)
            if not flight.other_boot:
                self.phase = Phase.RECORDING
                self.telemetry.tlog.start(folder / TELEMETRY)
            else:
                self._land()
            return

    def _land(self) -> None:
        assert self.flight is not None  # noqa: S101
        log.info("landed flight=%s", self.flight.flight_id)
        self.phase = Phase.LANDED
        self.flight.ended_ns = time.monotonic_ns()
        self._landed_s = time.monotonic()

    def _go_on_flying(self) -> bool:
        """Armed again before the flight was closed: it is still the same flight.

        Returns:
            Whether it must be closed at once: it is of another run of the host.
        """
        flight = self.flight
        if flight is None or self._finish is not None:
            return False
        if flight.other_boot:
            return True
        log.info("armed_again flight=%s", flight.flight_id)
        flight.ended_ns, flight.looked_back = None, False
        self.phase = Phase.RECORDING
        return False

    def _work_off(self, hurry: bool) -> None:
        """After landing: waits until everything is kept, scanned and stored, then closes."""
        flight = self.flight
        if flight is None or self.phase is not Phase.LANDED:
            return
        if self._finish is not None:
            if self._finish.done.is_set():
                self._closed(flight)
            return
        if time.monotonic() - self._landed_s < SETTLE_S and not hurry:
            return
        if hurry:
            self.health.count("scan.left_unscanned", len(flight.backlog))
            flight.backlog.clear()
        working = self.keep.waiting or len(self.to_scan) or flight.backlog or self.scan.busy
        working = working or self.writer.waiting or not (flight.looked_back or hurry)
        self._quiet = 0 if working else self._quiet + 1
        if self._quiet < QUIET_TURNS:
            return
        self._look_at_gaps(flight)
        self.telemetry.tlog.stop()
        self._finish = Finish(final=True)
        self.writer.queue.put(self._finish)

    def _look_at_gaps(self, flight: LiveFlight) -> None:
        processor = self.scan.processor
        if processor is None:
            return
        gaps = processor.coverage.gaps()
        flight.gaps, flight.coverage_percent = len(gaps), processor.coverage.percent()
        if math.isfinite(flight.coverage_percent):
            size = sum(gap.area for gap in gaps)
            text = f"coverage {flight.coverage_percent:.1f} %, {len(gaps)} gaps"
            text += f", {size:.0f} m2" if gaps else ""
            self.health.event("scan", "info", "coverage", text)
            if self.telemetry.up:
                self.telemetry.link_post(lambda sender: sender.statustext(6, text))
        self.health.put_event(flight.guard.summary())

    def _closed(self, flight: LiveFlight) -> None:
        log.info("flight_closed flight=%s", flight.flight_id)
        self.flights_closed.append(flight.flight_id)
        self.last_flight = flight_status(flight)
        self.scan.forget_flight()
        self.flight, self._finish = None, None
        self.phase = Phase.WAITING
        if self._once:
            self._stop.set()
        else:
            self._take_up(self.settings.storage.root)

    # ---- what stages ask and hand over

    def _current(self) -> LiveFlight | None:
        return self.flight

    def _recording(self) -> LiveFlight | None:
        settling = self.phase is Phase.LANDED and self._finish is None
        return self.flight if self.phase is Phase.RECORDING or settling else None

    def _commit(self, record: FrameRecord) -> None:
        self.writer.queue.put(Commit(record))

    def _commit_scan(self, commit: Commit) -> None:
        self.writer.queue.put(commit)

    def _lost(self, waiting: Waiting) -> None:
        name = waiting.captured.frame.name
        self.health.event("capture", "error", "frame_dropped", f"{name}: keeping is too slow")

    def _later(self, item: ScanItem) -> None:
        if self.flight is not None:
            self.flight.backlog.append(item)

    def _ties(self, since_ns: int | None) -> list[ClockTie]:
        return self.telemetry.clock.ties(since_ns)

    def _voices(self, flight: LiveFlight) -> list[Voice]:
        alerts = self.settings.alerts
        voices: list[Voice] = [ConsoleVoice()]
        if alerts.statustext and self.telemetry.link is not None:
            post = self.telemetry.link_post
            voices.insert(
                0, StatustextVoice(post, lambda: self.telemetry.up, alerts.min_interval_s)
            )
        if alerts.cot:
            voices.append(CotVoice(alerts.cot, flight.flight_id))
        return voices

    def _announce(self, frame: Frame, pose: Poses) -> None:
        if self.settings.alerts.image_dots and self.telemetry.up:
            post_image_dot(self.telemetry.link_post, frame, pose)

    # ---- what people see

    def _tell_values(self) -> None:
        now_s = time.monotonic()
        flight = self.flight
        due = now_s - self._due["values"] >= VALUES_S
        if not due or flight is None or not self.settings.alerts.values or not self.telemetry.up:
            return
        self._due["values"] = now_s
        newest_s = self.telemetry.clock.newest_boot_s
        post_values(
            self.telemetry.link_post,
            int(newest_s * 1e3) if math.isfinite(newest_s) else 0,
            {
                "gsn_found": float(flight.counts.get("alerts", 0)),
                "gsn_cover": flight.coverage_percent,
                "gsn_queue": float(len(self.to_scan) + len(flight.backlog)),
            },
        )

    def _write_status(self, running: bool = True) -> None:
        now_s = time.monotonic()
        if running and now_s - self._due["status"] < STATUS_S:
            return
        self._due["status"] = now_s
        try:
            write_status(self.settings.storage.root / STATUS, status_of(self, running))
        except OSError as error:
            self.health.event("keep", "error", "status_not_written", str(error))
