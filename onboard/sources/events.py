"""A telemetry log alone: its camera events stand for the frames that are not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from calibration.rig import Rig
from onboard.records import Frame, Poses
from onboard.sources.decoded import Telemetry
from onboard.sources.frame_times import FrameTimes, events_of_one_kind
from onboard.sources.gpmf import is_gpmf, read_gpmf
from onboard.sources.logged import poses_from_log
from onboard.sources.pixels import load_pixels
from onboard.sources.source import Flag
from onboard.sources.telemetry_log import read_telemetry


class EventSource:
    """Camera events of a log, placed; there are no pixels."""

    kind = "a telemetry log without frames"
    has_telemetry = True

    def __init__(self, log: Telemetry) -> None:
        self.name = log.path.name
        self.telemetry: Path | None = log.path
        self.log = log
        self.flagged: list[Flag] = []
        events = events_of_one_kind(self.log.events)
        self.notes: list[str] = [*self.log.notes, f"{len(events)} camera events, no frames"]
        stamps = np.array([e.t_boot_s for e in events])
        epoch = events[0].epoch if events else -1
        self.times = FrameTimes(stamps, epoch, "camera events")
        self._names = [f"{log.path.stem}_{e.img_idx:05d}" for e in events]

    def frames(self) -> Iterator[Frame]:
        """Yields one frame per camera event, without a file."""
        for seq, (name, t_s) in enumerate(zip(self._names, self.times.t_boot_s, strict=True)):
            yield Frame(name, seq, t_boot_s=float(t_s))

    def load_pixels(self, frame: Frame) -> Frame:
        """Raises DamagedFrame: there are none."""
        return load_pixels(frame)

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses at the events."""
        return poses_from_log(self, self.log, self.times, self._names, rig)


def open_log(log: Path) -> EventSource:
    """Returns a log's camera events as a source; a bare GPMF track has none."""
    gpmf = read_gpmf(log) if is_gpmf(log) else None
    return EventSource(gpmf[0] if gpmf else read_telemetry(log))
