"""Frames whose poses come from a telemetry log beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from calibration.rig import Rig
from onboard.place.trajectory import PoseBuffer
from onboard.records import Frame, Poses
from onboard.sources.decoded import Telemetry
from onboard.sources.frame_times import FrameTimes, find_frame_times
from onboard.sources.pixels import load_pixels
from onboard.sources.source import FLAG_CODES, Flag, Source, flag
from onboard.sources.telemetry_log import read_telemetry


class LoggedSource:
    """Image files with times, and a log.

    Args:
        files: The image files, in order.
        log: The ``.tlog`` or ``.bin``.
        name: What the source is called.
    """

    kind = "frames with a telemetry log"
    has_telemetry = True

    def __init__(self, files: Sequence[Path], log: Path, name: str) -> None:
        self.name = name
        self.telemetry: Path | None = log
        self.log = read_telemetry(log)
        self.notes: list[str] = list(self.log.notes)
        self.flagged: list[Flag] = []
        self._files = list(files)
        self.times: FrameTimes = find_frame_times(self._files, self.log)
        self.notes.append(f"frame times: {self.times.way}")
        for path, t_s in zip(self._files, self.times.t_boot_s, strict=True):
            if not math.isfinite(t_s):
                self.flagged.append(flag(path.name, "no_time"))

    def frames(self) -> Iterator[Frame]:
        """Yields the frames in order with their stamps (the rig's offset is not in them)."""
        for seq, (path, t_s) in enumerate(zip(self._files, self.times.t_boot_s, strict=True)):
            yield Frame(path.name, seq, t_boot_s=float(t_s), path=path)

    def load_pixels(self, frame: Frame) -> Frame:
        """Returns the frame with its pixels."""
        return load_pixels(frame)

    def telemetry_buffer(self) -> tuple[PoseBuffer | None, int]:
        """Returns the telemetry, and which run of the autopilot the frames belong to."""
        return self.log.buffer, self.times.epoch

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses at the exposures; frames that the log does not cover are flagged."""
        names = [p.name for p in self._files]
        return poses_from_log(self, self.log, self.times, names, rig)


def poses_from_log(
    source: Source,
    log: Telemetry,
    times: FrameTimes,
    names: Sequence[str],
    rig: Rig | None,
) -> Poses:
    """Returns poses at stamps, writing into the source's notes and flags what they say."""
    why = log.buffer.why_not(times.t_boot_s, rig, times.epoch)
    poses = log.buffer.pose_at(times.t_boot_s, names, rig, times.epoch)
    found = [
        flag(n, code) for n, code in zip(names, why, strict=True) if code and code != "no_time"
    ]
    codes = [code for mine in poses.flags for code in mine]
    everywhere = {code for code in codes if codes.count(code) == len(poses) > 1}
    for name, mine in zip(poses.frame, poses.flags, strict=True):
        found += [flag(name, code) for code in mine if code not in everywhere]
    texts = [f"all frames: {FLAG_CODES[code].meaning}" for code in sorted(everywhere)]
    source.flagged += [f for f in found if f not in source.flagged]
    source.notes += [t for t in [*texts, *log.buffer.notes] if t not in source.notes]
    return poses
