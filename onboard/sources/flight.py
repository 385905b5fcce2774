"""A flight folder as a source: its kept frames with the poses as flown or as last refined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from calibration.rig import Rig
from onboard.clocks import BootClock
from onboard.records import Frame, Poses
from onboard.sources.pixels import load_pixels
from onboard.sources.source import Flag, flag

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
        log = folder / "telemetry.tlog"
        self.telemetry: Path | None = log if log.is_file() else None
        self.has_telemetry = self.telemetry is not None

    def frames(self) -> Iterator[Frame]:
        """Yields the flight's frames in order; those not kept have no file."""
        yield from self._frames

    def load_pixels(self, frame: Frame) -> Frame:
        """Returns the frame with its pixels."""
        return load_pixels(frame)

    def poses(self, rig: Rig | None) -> Poses:  # noqa: ARG002 - they are the camera's already
        """Returns the poses that the flight keeps; frames without one are flagged."""
        known = set(self._poses.frame)
        for frame in self._frames:
            missing = flag(frame.name, "no_telemetry")
            if frame.name not in known and missing not in self.flagged:
                self.flagged.append(missing)
        return self._poses

    def _reader(self) -> FlightReader:
        from onboard.keep.read import FlightReader

        return FlightReader(self.folder)
