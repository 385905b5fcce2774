"""The scanning stage: loads frames, runs the survey processor, keeps chips; it may fail or lag.

Nothing waits for it. What it cannot take in time goes to the flight's backlog, which is worked off
when there is nothing newer, and after landing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import cv2
from shapely.geometry.base import BaseGeometry

from calibration.geodesy import MapFrame
from calibration.rig import Rig
from gossan.errors import GossanError
from onboard.config import OnboardSettings
from onboard.eyes import Eyes
from onboard.health import Health
from onboard.keep.files import keep_chip, keep_frame
from onboard.keep.flight import amend_header
from onboard.keep.read import FlightReader
from onboard.keep.space import Room
from onboard.late_poses import place_late
from onboard.live_flight import DISK, LiveFlight, ScanItem, header_crs
from onboard.live_telemetry import LiveTelemetry
from onboard.records import Frame, FrameRecord, HeightDatum, Poses
from onboard.sources.bands import corrected_frame
from onboard.sources.camera import decoded
from onboard.sources.errors import DamagedFrame
from onboard.sources.pixels import load_pixels
from onboard.stages import BoundedQueue
from onboard.survey import Step, SurveyProcessor
from onboard.survey_scene import Ground, SurveyScene, make_scene, map_near
from onboard.tell.policy import AlertPolicy
from onboard.writer import Commit

log = logging.getLogger(__name__)

LOOK_BACK_AFTER_NS = 1_500_000_000
"""After landing: the last frames have arrived and the log holds what surrounds them."""


class ScanStage:
    """Scans the frames of the current flight.

    Args:
        settings: Ground, alerts and plan.
        rig: The camera and its mount.
        plan: The planned area in degrees, or ``None``.
        flight: Tells the current flight, or ``None``.
        telemetry: Tells the take-off height.
        source: Frames to scan; the newest matter most.
        commit: Hands a record and its chips to the writer.
        open_eyes: Opens the model; called on the stage's own thread, so that recording does not
            wait for it. Gives the scanner and why it has no model.
        health: Pulse and counters.
    """

    def __init__(
        self,
        settings: OnboardSettings,
        rig: Rig,
        plan: BaseGeometry | None,
        flight: Callable[[], LiveFlight | None],
        telemetry: LiveTelemetry,
        source: BoundedQueue[ScanItem],
        commit: Callable[[Commit], None],
        open_eyes: Callable[[], tuple[Eyes, GossanError | None]],
        all_stored: Callable[[], bool],
        health: Health,
    ) -> None:
        self._settings = settings
        self._rig = rig
        self._plan = plan
        self._flight = flight
        self._telemetry = telemetry
        self._source = source
        self._commit = commit
        self._open_eyes = open_eyes
        self._all_stored = all_stored
        self._health = health
        self._eyes: Eyes | None = None
        self._processor: SurveyProcessor | None = None
        self.busy = False

    @property
    def processor(self) -> SurveyProcessor | None:
        """The current flight's processor, once its first frame was placed."""
        return self._processor

    def forget_flight(self) -> None:
        """Forgets the flight that has ended."""
        self._processor = None

    def run(self, stop: threading.Event) -> None:
        """Scans until ``stop``; what is left then is the flight's backlog."""
        if self._eyes is None:
            self._eyes = self._opened()
        while not stop.is_set():
            self.step(0.1)

    def step(self, timeout_s: float) -> None:
        """Scans one frame: the queue's, or else one of the backlog."""
        item = self._source.get(timeout_s)
        flight = self._flight()
        if item is None and flight is not None and flight.backlog:
            item = flight.backlog.popleft()
        if item is None and flight is not None and self._may_look_back(flight):
            self.busy = True
            try:
                self._look_back(flight)
            finally:
                self.busy = False
        if item is not None and flight is not None:
            self.busy = True
            try:
                self._scan(item, flight)
            finally:
                self.busy = False
        self._health.beat("scan")

    def _may_look_back(self, flight: LiveFlight) -> bool:
        """After landing, once everything that was captured is stored."""
        if flight.ended_ns is None or flight.looked_back or not self._all_stored():
            return False
        return time.monotonic_ns() - flight.ended_ns > LOOK_BACK_AFTER_NS

    def _look_back(self, flight: LiveFlight) -> None:
        """Puts frames that had no telemetry in time into the backlog, placed from the log."""
        try:
            late = place_late(flight.folder, self._rig, self._telemetry.clock.ties())
        except (GossanError, OSError, ValueError) as error:
            self._health.event("scan", "warning", "late_placing_failed", str(error))
            late = []
        flight.backlog.extend(late)
        flight.count("placed", len(late))
        if late:
            self._health.event("scan", "info", "placed_late", "from the log", len(late))
        flight.looked_back = True

    def _opened(self) -> Eyes:
        eyes, problem = self._open_eyes()
        if problem is not None:
            self._health.degrade("scan", "no_model", f"recording without scanning: {problem}")
        self._health.gauge("model", eyes.model_name)
        self._health.gauge("provider", eyes.provider)
        return eyes

    def _scan(self, item: ScanItem, flight: LiveFlight) -> None:
        begun = time.perf_counter()
        try:
            processor = self._processor or self._make_processor(item.pose, flight)
            frame = corrected_frame(pixels_of(item), self._rig)
            loaded_ms = (time.perf_counter() - begun) * 1e3
            step = processor.process(frame, item.pose, time.monotonic_ns())
        except (GossanError, ValueError, ArithmeticError, cv2.error) as error:
            self._failed(item, error)
            return
        except Exception as error:  # stage boundary: one frame never stops the flight
            log.exception("scan_failed frame=%s", item.frame.name)
            self._failed(item, error)
            return
        self._hand_on(item, flight, step, loaded_ms)
        self._health.beat("scan", output=True)

    def _hand_on(self, item: ScanItem, flight: LiveFlight, step: Step, loaded_ms: float) -> None:
        record = replace(
            step.record,
            frame=replace(step.record.frame, path=item.frame.path),
            stage_ms={"load": loaded_ms, **step.record.stage_ms},
        )
        found = 0 if record.detections is None else len(record.detections)
        if item.encoded is not None:
            record = self._keep_late(item, item.encoded, flight, found, record)
        flight.count("looked_at")
        flight.count("scanned", int(record.detections is not None))
        flight.count("detections", found)
        flight.count("alerts", len(record.alerts))
        if self._processor is not None:
            flight.coverage_percent = self._processor.coverage.percent()
        self._commit(Commit(record, self._keep_chips(flight, step.chips)))

    def _keep_late(
        self, item: ScanItem, content: bytes, flight: LiveFlight, found: int, record: FrameRecord
    ) -> FrameRecord:
        """Keeps a frame after all where something was found in it and there is some room left."""
        not_kept = replace(record, dropped=(*record.dropped, DISK))
        if not found or flight.guard.room >= Room.CRITICAL:
            return not_kept
        try:
            path, digest = keep_frame(flight.folder, item.frame.name, content, item.pose)
        except (GossanError, OSError) as error:
            self._health.event("scan", "error", "frame_not_kept", str(error))
            return not_kept
        flight.guard.not_kept["unscanned"] -= 1
        return replace(record, kept_path=path, kept_sha256=digest)

    def _keep_chips(
        self, flight: LiveFlight, chips: dict[int, bytes]
    ) -> tuple[tuple[str, str], ...]:
        kept = []
        for track_id, content in chips.items():
            try:
                kept.append(keep_chip(flight.folder, track_id, content))
            except (GossanError, OSError) as error:
                self._health.count("scan.chips_not_kept")
                self._health.event("scan", "warning", "chip_not_kept", str(error))
        return tuple(kept)

    def _failed(self, item: ScanItem, error: Exception) -> None:
        self._health.count("scan.failed")
        self._health.event("scan", "error", "scan_failed", f"{item.frame.name}: {error!r}")
        frame = replace(item.frame, pixels=None)
        if isinstance(error, DamagedFrame):
            frame = replace(frame, flags=(*frame.flags, "unreadable"))
        self._commit(Commit(FrameRecord(frame, item.pose, dropped=(f"scan: {error}",))))

    def _make_processor(self, pose: Poses, flight: LiveFlight) -> SurveyProcessor:
        """Makes the flight's processor at its first placed frame, and notes the map it uses."""
        eyes = self._eyes or self._opened()
        crs = header_crs(flight.header)
        lat, lon = float(pose.lat_deg[0]), float(pose.lon_deg[0])
        map_frame = map_near(lat, lon) if crs is None else MapFrame(crs)
        scene = self._scene(map_frame, pose)
        processor = SurveyProcessor(scene, eyes.scanner, self._policy(flight), flight.flight_id)
        if flight.resumed:
            _restore(processor, flight)
        flight.header = amend_header(
            flight.folder,
            crs_wkt=map_frame.crs.to_wkt(),
            model_hash=eyes.model_hash,
            model_name=eyes.model_name,
            dem_label=scene.terrain.label,
            notes=tuple(dict.fromkeys((*flight.header.notes, *scene.notes))),
        )
        self._processor = processor
        return processor

    def _scene(self, map_frame: MapFrame, pose: Poses) -> SurveyScene:
        """Returns the scene; a DEM that cannot be used gives way to a plane, and health says so."""
        wanted = self._settings.terrain
        ground = Ground(wanted.dem, wanted.datum, wanted.sigma_m)
        takeoff = self._take_off(pose)
        try:
            return make_scene(self._rig, map_frame, ground, takeoff, self._plan)
        except GossanError as error:
            self._health.degrade("scan", "no_dem", f"{error}; a plane stands in")
            return make_scene(self._rig, map_frame, Ground(), takeoff, self._plan)

    def _take_off(self, pose: Poses) -> tuple[float, HeightDatum]:
        known = self._telemetry.take_off()
        if known is not None:
            return known
        self._health.event(
            "scan", "warning", "take_off_unknown", "the first frame's height is used"
        )
        return float(pose.alt_m[0]), pose.height_datum

    def _policy(self, flight: LiveFlight) -> AlertPolicy:
        if not flight.resumed:
            return AlertPolicy(self._settings.alerts)
        with FlightReader(flight.folder) as reader:
            alerts = reader.alerts()
        next_id = max((alert.alert_id for alert in alerts), default=0) + 1
        return AlertPolicy(self._settings.alerts, next_id, (alert.track_id for alert in alerts))


def pixels_of(item: ScanItem) -> Frame:
    """Returns the frame with its pixels, from its bytes or its file.

    Raises:
        DamagedFrame: It cannot be decoded.
    """
    if item.encoded is None:
        return load_pixels(item.frame)
    pixels = decoded(item.encoded)
    if pixels is None:
        raise DamagedFrame(f"cannot decode {item.frame.name}", "check the camera")
    return replace(item.frame, pixels=pixels)


def _restore(processor: SurveyProcessor, flight: LiveFlight) -> None:
    with FlightReader(flight.folder) as reader:
        processor.restore(
            reader.detections(), reader.footprints(), reader.tracks(), reader.alerts()
        )
