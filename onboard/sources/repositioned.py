"""A source whose positions a post-processed trajectory replaces; its attitudes stay its own."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from calibration.rig import Rig
from onboard.place.vehicle_state import metres_per_degree
from onboard.records import Floats, Frame, Poses
from onboard.sources.errors import SourceError
from onboard.sources.exif import utc_of_name
from onboard.sources.source import Flag, Source, flag
from onboard.sources.trajectory_file import TrajectoryFile


class Repositioned:
    """Frames, attitudes and times of one source, positions of a trajectory.

    One row for each frame counts as one row for each exposure; else the frames' own UTC says
    where on the trajectory they were taken. Positions are the antenna's: the rig's lever arm,
    from there to the camera, is added where the vehicle's attitude is known.

    Args:
        source: Where frames and attitudes come from.
        trajectory: Where positions come from.
    """

    def __init__(self, source: Source, trajectory: TrajectoryFile) -> None:
        self.source = source
        self.trajectory = trajectory
        self.name = source.name
        self.kind = f"{source.kind}, with a post-processed trajectory"
        self.has_telemetry = source.has_telemetry
        self.telemetry = source.telemetry
        self.notes: list[str] = [*source.notes, trajectory.summary()]
        self.flagged: list[Flag] = list(source.flagged)

    def frames(self) -> Iterator[Frame]:
        """Yields the frames in order."""
        return self.source.frames()

    def load_pixels(self, frame: Frame) -> Frame:
        """Returns the frame with its pixels."""
        return self.source.load_pixels(frame)

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses of the frames that the trajectory covers; the others are flagged."""
        own = self.source.poses(rig)
        self.flagged += [f for f in self.source.flagged if f not in self.flagged]
        self.notes += [note for note in self.source.notes if note not in self.notes]
        lla, sigma_m = self._at_exposures(own, rig)
        covered = np.asarray(np.isfinite(lla).all(axis=1))
        for name, found in zip(own.frame, covered, strict=True):
            missing = flag(name, "not_in_trajectory")
            self.flagged += [] if found or missing in self.flagged else [missing]
        poses = own.take(np.flatnonzero(covered))
        lat, lon, alt_m = self._at_camera(poses, lla[covered], rig).T
        return replace(
            poses,
            lat_deg=lat,
            lon_deg=lon,
            alt_m=alt_m,
            height_datum="ellipsoid",
            sigma_enu_m=sigma_m[covered],
            bias_enu_m=np.zeros((len(poses), 3)),
        )

    def _at_exposures(self, own: Poses, rig: Rig | None) -> tuple[Floats, Floats]:
        names = [frame.name for frame in self.source.frames()]
        rows = self.trajectory
        if len(names) == len(rows.t_unix_s):
            self._note("as many positions as frames: taken in order, one for each exposure")
            index = [names.index(name) for name in own.frame]
            lla = np.column_stack([rows.lat_deg, rows.lon_deg, rows.alt_m])
            return lla[index], rows.sigma_enu_m[index]
        t_s = utc_of_frames(self.source, own, rig)
        if not np.isfinite(t_s).any():
            raise SourceError(
                f"{rows.path.name} has {len(rows.t_unix_s)} positions for {len(names)} frames, "
                "and nothing says in UTC when the frames were taken",
                "solve the camera's events (RTKLIB: *_events.pos), or give frames with a log, "
                "with OffsetTimeOriginal and SubSecTimeOriginal, or with UTC in their names",
            )
        return rows.at(t_s)

    def _at_camera(self, poses: Poses, lla: Floats, rig: Rig | None) -> Floats:
        lever = np.asarray(rig.mount.lever_arm_m if rig else (0.0, 0.0, 0.0), dtype=np.float64)
        if not lever.any():
            return lla
        off = poses.r_ned_body @ lever
        known = np.asarray(np.isfinite(off).all(axis=1))
        if not known.all():
            self._note("no vehicle attitude: the rig's lever arm is left out")
        off = np.where(known[:, None], off, 0.0)
        north, east = metres_per_degree(lla[:, 0], lla[:, 2])
        return np.column_stack(
            [lla[:, 0] + off[:, 0] / north, lla[:, 1] + off[:, 1] / east, lla[:, 2] - off[:, 2]]
        )

    def _note(self, text: str) -> None:
        self.notes += [] if text in self.notes else [text]


def utc_of_frames(source: Any, poses: Poses, rig: Rig | None) -> Floats:
    """Returns the (n,) UNIX times of exposures: by a log's UTC, by EXIF, else by their names."""
    clock = source.log.clock if hasattr(source, "log") else getattr(source, "clock", None)
    by_log = [clock.utc_from_boot(t_s)[0] if clock else math.nan for t_s in poses.t_boot_s]
    stamps = source.utc_times() if hasattr(source, "utc_times") else {}
    offset_s = rig.clock.offset_s if rig else 0.0
    by_stamp = [stamps.get(name, utc_of_name(name)) + offset_s for name in poses.frame]
    return np.where(np.isfinite(by_log), by_log, by_stamp)
