"""A telemetry log once it is decoded, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from onboard.clocks import BootClock
from onboard.place.trajectory import PoseBuffer
from onboard.sources.telemetry import CameraEvent


@dataclass(slots=True)
class Telemetry:
    """A whole log, decoded.

    Attributes:
        path: The log.
        buffer: Poses by boot time.
        clock: Boot time against the log's receive times (UNIX ns), and the autopilot's UTC.
        events: Camera events, stale repeats left out.
        messages: Number of messages taken in.
        skipped_bytes: Bytes that were no whole message.
        notes: What is worth saying about it.
    """

    path: Path
    buffer: PoseBuffer = field(default_factory=PoseBuffer)
    clock: BootClock = field(default_factory=BootClock)
    events: list[CameraEvent] = field(default_factory=list)
    messages: int = 0
    skipped_bytes: int = 0
    notes: list[str] = field(default_factory=list)
