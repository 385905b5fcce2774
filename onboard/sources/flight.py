"""A flight folder as a source: its kept frames with the poses as flown or as last refined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from calibration.rig import Rig, load_rig
from onboard.clocks import BootClock
from onboard.place.trajectory import PoseBuffer
from onboard.records import Frame, Poses
from onboard.sources.pixels import load_pixels
from onboard.sources.source import Flag, flag
from onboard.sources.telemetry_log import read_telemetry

if TYPE_CHECKING:
    from onboard.keep.read import FlightReader


class FlightSource:
    """The kept frames of a flight folder.

    Args:
        folder: The flight folder.
    """

    kind = "a flight folder"

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self.folder = folder
        self.notes: list[str] = []
        self.flagged: list[Flag] = []
        with self._reader() as flight:
            self._frames = [
                replace(kept.frame, path=folder / kept.kept_path if kept.kept_path else None)
                for kept in flight.frames()
            ]
            self._poses = flight.poses()
            self.clock = BootClock.from_ties(flight.ties())
        flown = folder / "rig.toml"
        self._rig = load_rig(flown) if flown.is_file() else None
        self._buffer: PoseBuffer | None = None
        log = folder / "telemetry.tlog"
        self.telemetry: Path | None = log if log.is_file() else None
        self.has_telemetry = self.telemetry is not None

    def frames(self) -> Iterator[Frame]:
        """Yields the flight's frames in order; those not kept have no file."""
        yield from self._frames

    def load_pixels(self, frame: Frame) -> Frame:
        """Returns the frame with its pixels."""
        return load_pixels(frame)

    def telemetry_buffer(self) -> tuple[PoseBuffer | None, int]:
        """Returns the flight's telemetry, if it was kept, and the run its frames belong to."""
        if self._buffer is None and self.telemetry is not None:
            self._buffer = read_telemetry(self.telemetry).buffer
        return self._buffer, -1

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses that the flight keeps; frames without one are flagged.

        With a rig whose mount or clock is not the one flown, they are placed anew from the
        flight's telemetry.
        """
        known = set(self._poses.frame)
        for frame in self._frames:
            missing = flag(frame.name, "no_telemetry")
            if frame.name not in known and missing not in self.flagged:
                self.flagged.append(missing)
        if rig is None or self._as_flown(rig):
            return self._poses
        buffer, epoch = self.telemetry_buffer()
        if buffer is None:
            self._note("the flight keeps no telemetry: its poses are as flown, not by this rig")
            return self._poses
        flown = self._rig.clock.offset_s if self._rig else 0.0
        timed = np.flatnonzero(np.isfinite(self._poses.t_boot_s))
        stamps = self._poses.t_boot_s[timed] - flown
        fresh = buffer.pose_at(stamps, [self._poses.frame[i] for i in timed], rig, epoch)
        self._note("mount or clock are not as flown: placed anew from the flight's telemetry")
        return fresh

    def _as_flown(self, rig: Rig) -> bool:
        """Returns whether a rig places the flight's frames as the one it was flown with."""
        if self._rig is None:
            return True
        one, two = self._rig.mount, rig.mount
        return (
            self._rig.clock.offset_s == rig.clock.offset_s
            and one.heading_bias_rad == two.heading_bias_rad
            and one.height_bias_m == two.height_bias_m
            and np.allclose(one.r_mount, two.r_mount, rtol=0.0, atol=1e-12)
            and np.allclose(one.lever_arm_m, two.lever_arm_m, rtol=0.0, atol=1e-9)
        )

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _reader(self) -> FlightReader:
        from onboard.keep.read import FlightReader

        return FlightReader(self.folder)
