"""Capture and keep: the path of every frame to the disk, which waits for nothing but telemetry."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from gossan.errors import GossanError
from onboard.health import Health
from onboard.keep.errors import DiskFullError
from onboard.keep.files import keep_frame
from onboard.live_flight import DISK, LiveFlight, ScanItem
from onboard.live_telemetry import LiveTelemetry
from onboard.records import Frame, FrameRecord, Poses
from onboard.sources.camera import Captured, LiveCamera, encoded, numbered
from onboard.stages import BoundedQueue

log = logging.getLogger(__name__)

CAPTURED_SIZE = 64
EARLY_NS = 2_000_000_000
"""Frames exposed up to this long before the flight began are still its own."""
LOOK_AT_DISK_S = 2.0


@dataclass(frozen=True, slots=True)
class Waiting:
    """A captured frame and when it arrived."""

    captured: Captured
    arrived_s: float


class CaptureStage:
    """Reads the camera; hands on what belongs to the flight.

    Args:
        camera: The camera.
        flight: Tells the flight that is recorded now, or ``None``.
        out: Where frames go; full, it drops the oldest.
        health: Pulse and counters.
    """

    def __init__(
        self,
        camera: LiveCamera,
        flight: Callable[[], LiveFlight | None],
        out: BoundedQueue[Waiting],
        health: Health,
    ) -> None:
        self._camera = camera
        self._flight = flight
        self._out = out
        self._health = health
        self.last_ns = 0

    def run(self, stop: threading.Event) -> None:
        """Captures until ``stop``."""
        for captured in self._camera.captures(stop, lambda: self._health.beat("capture")):
            self.last_ns = time.monotonic_ns()
            self._health.beat("capture", output=True)
            flight = self._flight()
            if flight is None or not _belongs(captured, flight):
                self._health.count("capture.outside_flight")
                continue
            seq = flight.next_seq
            flight.next_seq += 1
            flight.count("frames")
            self._out.put(Waiting(numbered(captured, seq), time.monotonic()))


class KeepStage:
    """Gives frames their time and pose, keeps them, hands them to the writer and the network.

    Args:
        flight: Tells the flight that is recorded now, or ``None``.
        telemetry: Clocks and poses.
        source: Captured frames.
        commit: Hands a record to the writer.
        to_scan: Frames for the network; full, the oldest go to the flight's backlog.
        announce: Called with each kept and placed frame.
        health: Pulse and counters.
        pose_wait_s: How long a frame waits for its telemetry.
        jpeg_quality: Of frames that come as pixels.
    """

    def __init__(
        self,
        flight: Callable[[], LiveFlight | None],
        telemetry: LiveTelemetry,
        source: BoundedQueue[Waiting],
        commit: Callable[[FrameRecord], None],
        to_scan: BoundedQueue[ScanItem],
        announce: Callable[[Frame, Poses], None],
        health: Health,
        pose_wait_s: float,
        jpeg_quality: int,
    ) -> None:
        self._flight = flight
        self._telemetry = telemetry
        self._source = source
        self._commit = commit
        self._to_scan = to_scan
        self._announce = announce
        self._health = health
        self._wait_s = pose_wait_s
        self._quality = jpeg_quality
        self._pending: deque[Waiting] = deque()
        self._disk_looked_s = float("-inf")
        self._busy = 0

    @property
    def waiting(self) -> int:
        """Frames that are not yet kept."""
        return len(self._pending) + len(self._source) + self._busy

    def run(self, stop: threading.Event) -> None:
        """Keeps frames until ``stop``, and then all that still wait."""
        while not (stop.is_set() and self.waiting == 0):
            self.step(0.05, hurry=stop.is_set())

    def step(self, timeout_s: float, hurry: bool = False) -> None:
        """Takes in one frame at most and keeps those that are ready."""
        item = self._source.get(timeout_s)
        if item is not None:
            self._pending.append(item)
        self._telemetry.place_events()
        while self._pending and (hurry or self._is_ready(self._pending[0])):
            self._busy = 1
            waiting = self._pending.popleft()
            self._keep(waiting.captured)
            self._busy = 0
            self._health.beat("keep", output=True)
        self._health.beat("keep")

    def _is_ready(self, waiting: Waiting) -> bool:
        if time.monotonic() - waiting.arrived_s >= self._wait_s:
            return True
        return not self._telemetry.waits_for(waiting.captured.frame)

    def _keep(self, captured: Captured) -> None:
        flight = self._flight()
        if flight is None:
            self._health.count("keep.after_flight")
            return
        frame, pose = self._placed(captured.frame, flight)
        try:
            content = encoded(captured, self._quality)
        except GossanError as error:
            self._health.count("keep.not_encoded")
            self._health.event("keep", "error", "frame_not_encoded", str(error))
            self._commit(FrameRecord(replace(frame, pixels=None), pose, dropped=("keep: encode",)))
            return
        kept = self._write(flight, frame.name, content, pose)
        bare = replace(frame, pixels=None, path=flight.folder / kept[0] if kept[0] else frame.path)
        dropped = () if kept[0] else (DISK,)
        self._commit(
            FrameRecord(bare, pose, kept_path=kept[0], kept_sha256=kept[1], dropped=dropped)
        )
        if pose is not None:
            self._to_scan.put(ScanItem(bare, pose, None if kept[0] else content))
            if kept[0]:
                self._announce(bare, pose)

    def _placed(self, frame: Frame, flight: LiveFlight) -> tuple[Frame, Poses | None]:
        t_boot_s = self._telemetry.boot_time(frame.t_mono_ns)
        frame = replace(frame, t_boot_s=t_boot_s)
        try:
            pose = self._telemetry.pose_of(frame)
        except (GossanError, ValueError, ArithmeticError) as error:
            self._health.event("keep", "error", "pose_failed", repr(error))
            pose = None
        if pose is None:
            self._health.count("keep.not_placed")
            return replace(frame, flags=(*frame.flags, "no_telemetry")), None
        flight.count("placed")
        return frame, pose

    def _write(
        self, flight: LiveFlight, name: str, content: bytes, pose: Poses | None
    ) -> tuple[str, str]:
        """Keeps a frame; returns its path and hash, or empty strings where it was not kept."""
        self._look_at_disk(flight)
        if not flight.guard.keeps(scanned=False, detections=0):
            self._health.count("keep.not_kept")
            return "", ""
        try:
            kept = keep_frame(flight.folder, name, content, pose)
        except DiskFullError as error:
            self._health.put_event(flight.guard.failed())
            self._not_kept(error)
            return "", ""
        except (GossanError, OSError) as error:
            self._not_kept(error)
            return "", ""
        self._health.restore("keep", "frames_not_kept")
        flight.count("kept")
        return kept

    def _not_kept(self, error: Exception) -> None:
        self._health.count("keep.not_kept")
        self._health.degrade("keep", "frames_not_kept", str(error))

    def _look_at_disk(self, flight: LiveFlight) -> None:
        now_s = time.monotonic()
        if now_s - self._disk_looked_s >= LOOK_AT_DISK_S:
            self._disk_looked_s = now_s
            try:
                self._health.put_event(flight.guard.look())
            except OSError as error:
                self._health.event("keep", "error", "disk_unreadable", str(error))


def _belongs(captured: Captured, flight: LiveFlight) -> bool:
    frame = captured.frame
    if frame.name in flight.known:
        return False
    if frame.t_mono_ns is None:
        return flight.ended_ns is None
    if frame.t_mono_ns < flight.started_ns - EARLY_NS:
        return False
    return flight.ended_ns is None or frame.t_mono_ns <= flight.ended_ns
