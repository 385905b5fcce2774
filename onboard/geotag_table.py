"""A whole POINTS table placed at once: each row on its own height, the DEM, or level ground."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyproj import CRS

from calibration.geodesy import MapFrame, MapModel, to_ellipsoid_m, utm_crs
from calibration.rig import Rig
from onboard.errors import PoseError, TableError
from onboard.place.geotag import CAUSES, geotag
from onboard.place.terrain import GridTerrain, PlaneTerrain, Terrain, map_window, open_dem
from onboard.records import Floats, GroundPoints, HeightDatum, Ints, Poses
from onboard.sources.point_tables import PointTable
from onboard.sources.pose_table import pose_index

GEOID_STEPS = 3
ONE_ZONE_DEG = 6.0
"""Poses that lie no further apart than this share one UTM zone."""

DEM_REACH_M = 5_000.0


def geotag_table(
    points: PointTable,
    poses: Poses,
    rig: Rig,
    maps: Maps,
    *,
    dem: Path | None = None,
    ground_alt_m: float | None = None,
    dem_datum: HeightDatum | None = None,
    dem_sigma_m: float | None = None,
    flight_id: str = "",
) -> tuple[GroundPoints, list[str]]:
    """Returns the rows placed, in their order, and notes on what concerns all of them.

    Args:
        points: The rows.
        poses: Poses of their frames.
        rig: The camera.
        maps: The map of each pose.
        dem: DEM for rows without a height of their own.
        ground_alt_m: Level ground for them instead.
        dem_datum: What the DEM's heights, or ``ground_alt_m``, are above.
        dem_sigma_m: σ of ground heights; rows' own and level ground are exact without it.
        flight_id: Names the flight's bias states.

    Raises:
        TableError: Rows have no ground.
        PoseError: Camera and ground heights cannot be brought together.
    """
    if not len(poses):
        raise PoseError("the pose table has no rows", "one row for each frame")
    index = pose_index(poses, points.frame)
    notes = _notes(poses, rig, index)
    job = _Job(points, poses, rig, dem, ground_alt_m, dem_datum, dem_sigma_m, flight_id)
    out = _Rows(len(index))
    zone = maps.of_pose[np.maximum(index, 0)]
    for i, map_frame in enumerate(maps.frames):
        rows = np.flatnonzero(zone == i)
        if len(rows):
            notes += job.place(rows, index, map_frame, out)
    return out.points(), list(dict.fromkeys(notes))


@dataclass(frozen=True, slots=True)
class Maps:
    """Which map each pose is worked on.

    Attributes:
        frames: The maps.
        of_pose: (n,) index into ``frames`` of each pose.
    """

    frames: tuple[MapFrame, ...]
    of_pose: Ints

    @classmethod
    def for_poses(cls, poses: Poses, crs: CRS | None, model: MapModel) -> Maps:
        """Returns the named CRS; else one UTM zone, or several where poses lie far apart."""
        n = len(poses)
        if crs is not None or n == 0:
            return cls((MapFrame(crs or utm_crs(0.0, 0.0), model),), np.zeros(n, np.int64))
        lat, lon = float(np.median(poses.lat_deg)), float(np.median(poses.lon_deg))
        apart = np.abs((poses.lon_deg - lon + 180.0) % 360.0 - 180.0).max(initial=0.0)
        if apart < ONE_ZONE_DEG and np.ptp(poses.lat_deg) < ONE_ZONE_DEG:
            return cls((MapFrame.utm(lat, lon, model),), np.zeros(n, np.int64))
        zones = [utm_crs(*place) for place in zip(poses.lat_deg, poses.lon_deg, strict=True)]
        codes, of_pose = np.unique([zone.to_epsg() or 0 for zone in zones], return_inverse=True)
        return cls(tuple(MapFrame(CRS.from_epsg(int(c)), model) for c in codes), of_pose)


@dataclass(frozen=True, slots=True)
class _Job:
    """What is asked for all rows."""

    points: PointTable
    poses: Poses
    rig: Rig
    dem: Path | None
    ground_alt_m: float | None
    dem_datum: HeightDatum | None
    dem_sigma_m: float | None
    flight_id: str

    def place(self, rows: Ints, index: Ints, map_frame: MapFrame, out: _Rows) -> list[str]:
        """Places rows on one map and returns notes."""
        points = self.points
        own = np.isfinite(points.ground_alt_m[rows])
        notes: list[str] = []
        if own.any():
            sigma = self.dem_sigma_m or 0.0
            plane = PlaneTerrain(0.0, _plane_datum(points.ground_datum), sigma)
            out.put(rows[own], _on_heights(self, rows[own], index, plane, map_frame))
        rest = rows[~own]
        if len(rest):
            terrain = self._ground(map_frame, rest, notes)
            placed = geotag(
                self.poses, index[rest], points.uv[rest], points.sigma_px[rest], self.rig, terrain,
                map_frame, self.flight_id,
            )  # fmt: skip
            out.put(rest, placed)
        return notes

    def _ground(self, map_frame: MapFrame, rest: Ints, notes: list[str]) -> Terrain:
        """Returns the ground of rows without a height of their own."""
        if self.dem is not None:
            terrain = _dem_around(
                self.dem, map_frame, self.dem_datum, self.dem_sigma_m, self.rig, self.poses
            )
            notes += _dem_notes(terrain)
            return terrain
        if self.ground_alt_m is not None:
            return _level(self.ground_alt_m, self.dem_datum, self.poses, self.dem_sigma_m, notes)
        if np.isfinite(self.points.ground_alt_m).any():
            notes.append(f"{len(rest)} rows have no ground height: give --dem or --ground-alt")
            return PlaneTerrain(float("nan"), _plane_datum(self.points.ground_datum))
        raise TableError(
            f"{self.points.table.path} has no ground heights",
            "give --dem DEM.tif or --ground-alt M",
        )


def _plane_datum(ground: HeightDatum | None) -> HeightDatum:
    """Returns the datum in which rays meet heights above ``ground``."""
    return "ellipsoid" if ground in ("egm96", "egm2008", None) else ground


def _on_heights(
    job: _Job, rows: Ints, index: Ints, plane: PlaneTerrain, map_frame: MapFrame
) -> GroundPoints:
    """Returns rows on their own heights; heights above a geoid are raised where the points lie."""
    points, poses, rig = job.points, job.poses, job.rig
    at, uv = index[rows], points.uv[rows]
    alt = points.ground_alt_m[rows]
    datum = points.ground_datum
    raised = alt
    if datum in ("egm96", "egm2008"):
        lat, lon = poses.lat_deg[np.maximum(at, 0)], poses.lon_deg[np.maximum(at, 0)]
        raised = to_ellipsoid_m(alt, datum, lat, lon)
        for _ in range(GEOID_STEPS - 1):
            first = geotag(poses, at, uv, 0.0, rig, plane, map_frame, ground_alt_m=raised)
            lat = np.where(np.isfinite(first.lat_deg), first.lat_deg, lat)
            lon = np.where(np.isfinite(first.lon_deg), first.lon_deg, lon)
            raised = to_ellipsoid_m(alt, datum, lat, lon)
    return geotag(
        poses, at, uv, points.sigma_px[rows], rig, plane, map_frame, job.flight_id, raised
    )


def _level(
    alt_m: float,
    datum: HeightDatum | None,
    poses: Poses,
    sigma_m: float | None,
    notes: list[str],
) -> PlaneTerrain:
    """Returns level ground; without a datum its height is above what the cameras' are."""
    if datum is None:
        datum = poses.height_datum
        notes.append(f"--ground-alt is taken above '{datum}', as the cameras' heights are")
    if datum in ("egm96", "egm2008"):
        lat, lon = float(np.median(poses.lat_deg)), float(np.median(poses.lon_deg))
        alt_m = float(to_ellipsoid_m(alt_m, datum, lat, lon))
        datum = "ellipsoid"
    return PlaneTerrain(alt_m, datum, sigma_m or 0.0)


def _dem_around(
    dem: Path,
    map_frame: MapFrame,
    datum: HeightDatum | None,
    sigma_m: float | None,
    rig: Rig,
    poses: Poses,
) -> GridTerrain:
    window = map_window(map_frame, poses.lat_deg, poses.lon_deg, DEM_REACH_M)
    level = rig.defaults.dem_level_m if sigma_m is None else 0.0
    sigma = rig.defaults.sigma_dem_m if sigma_m is None else sigma_m
    return open_dem(dem, map_frame, datum, sigma, window, level)


def _dem_notes(terrain: GridTerrain) -> list[str]:
    notes = []
    if terrain.resampled:
        notes.append("the DEM lies in another CRS: resampled once to the map's")
    if terrain.voids:
        notes.append(f"the DEM has {terrain.voids} posts without a height")
    return notes


def _notes(poses: Poses, rig: Rig, index: Ints) -> list[str]:
    notes = []
    if rig.covariance is None:
        notes.append("the rig gives no covariance of the intrinsics: they count as exact")
    missing = int((index < 0).sum())
    if missing:
        notes.append(f"{missing} rows name frames without a pose")
    if rig.clock.sigma_s and not np.isfinite(poses.v_ned_mps).any():
        notes.append("the poses give no velocity: the clock's sigma does not count")
    return notes


class _Rows:
    """Ground points of all rows, put together from parts."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.parts: list[tuple[Ints, GroundPoints]] = []

    def put(self, rows: Ints, ground: GroundPoints) -> None:
        """Takes the points of some rows."""
        self.parts.append((rows, ground))

    def points(self) -> GroundPoints:
        """Returns all rows in order.

        Raises:
            PoseError: Rows come out in different height datums.
        """
        if len(self.parts) == 1 and len(self.parts[0][0]) == self.n:
            return self.parts[0][1]
        datums = {ground.height_datum for _, ground in self.parts}
        if len(datums) > 1:
            raise PoseError(
                f"rows would come out above {' and '.join(sorted(datums))}",
                "give all ground heights in one datum",
            )
        states = tuple(dict.fromkeys(s for _, ground in self.parts for s in ground.bias_names))
        arrays: dict[str, Floats] = {
            name: np.full(self.n, np.nan) for name in ("lat_deg", "lon_deg", "alt_m", "x_m", "y_m")
        }
        arrays["cov_random_m2"] = np.full((self.n, 2, 2), np.nan)
        arrays["cause_share"] = np.full((self.n, len(CAUSES)), np.nan)
        arrays["sensitivity_m"] = np.zeros((self.n, 2, len(states)))
        flags: list[tuple[str, ...]] = [()] * self.n
        for rows, ground in self.parts:
            for name in arrays:
                if name != "sensitivity_m":
                    arrays[name][rows] = getattr(ground, name)
            for i, state in enumerate(ground.bias_names):
                column = ground.sensitivity_m[:, :, i]
                arrays["sensitivity_m"][rows, :, states.index(state)] = column
            for row, own in zip(rows, ground.flags, strict=True):
                flags[row] = own
        return GroundPoints(
            height_datum=datums.pop() if datums else "ellipsoid",
            bias_names=states,
            cause_names=CAUSES,
            flags=tuple(flags),
            **arrays,
        )
