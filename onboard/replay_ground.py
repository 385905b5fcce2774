"""A recorded source with its poses and the ground under it: datums settled, plane where no DEM."""

from __future__ import annotations

import math
from pathlib import Path

from shapely.geometry.base import BaseGeometry

from calibration.errors import DatumError
from calibration.rig import Rig
from gossan.errors import UserError
from onboard.place.trajectory import PoseBuffer
from onboard.records import HeightDatum, Poses
from onboard.sources.bands import unwrapped
from onboard.sources.flight import FlightSource
from onboard.sources.logged import LoggedSource
from onboard.sources.open import open_source
from onboard.sources.source import Source
from onboard.sources.telemetry_log import read_tlog
from onboard.survey_scene import Ground, SurveyScene, make_scene, map_near


def open_with_ground(
    path: Path,
    rig: Rig,
    poses_csv: Path | None,
    ground: Ground,
    alt_datum: HeightDatum | None,
    plan: BaseGeometry | None = None,
) -> tuple[Source, Poses, SurveyScene]:
    """Returns a source, the poses of its frames, and the scene.

    A DEM whose datum is ``same`` makes heights of unnamed datum ``same``, too. Without a DEM,
    photos of unnamed datum are placed by their heights above take-off.

    Raises:
        UserError: No frame can be placed, or neither DEM nor take-off height is known.
    """
    if alt_datum is None and ground.datum == "same":
        alt_datum = "same"
    source = open_source(path, rig, poses_csv, alt_datum)
    try:
        poses = source.poses(rig)
    except DatumError:
        if ground.dem is not None or alt_datum is not None:
            raise
        source = open_source(path, rig, poses_csv, "takeoff")
        poses = source.poses(rig)
    if not len(poses):
        raise UserError(
            f"no frame of {source.name} can be placed",
            source.flagged[0].remedy if source.flagged else "give --poses POSES.csv",
        )
    takeoff = (0.0, poses.height_datum) if ground.dem else _take_off(source, poses)
    map_frame = map_near(float(poses.lat_deg[0]), float(poses.lon_deg[0]))
    return source, poses, make_scene(rig, map_frame, ground, takeoff, plan)


def _take_off(source: Source, poses: Poses) -> tuple[float, HeightDatum]:
    """Returns the height of the take-off place and its datum.

    Raises:
        UserError: It is not known.
    """
    if poses.height_datum == "takeoff":
        return 0.0, "takeoff"
    files = unwrapped(source)
    if isinstance(files, LoggedSource | FlightSource):
        buffer, _ = files.telemetry_buffer()
        if buffer is not None:
            return _take_off_of_log(files, buffer)
    raise UserError(
        f"{source.name} does not say how high its take-off place lies",
        "give the ground's heights: --dem DEM.tif",
    )


def _take_off_of_log(
    source: LoggedSource | FlightSource, buffer: PoseBuffer
) -> tuple[float, HeightDatum]:
    """Returns the vehicle's height minus its height above home, where the log says it first."""
    path = source.telemetry
    if path is not None and path.suffix.lower() == ".tlog":
        for _, message in read_tlog(path):
            if message.get_type() != "GLOBAL_POSITION_INT" or not message.lat:
                continue
            here = buffer.pose_at([message.time_boot_ms * 1e-3], ["home"], None)
            if len(here):
                return float(here.alt_m[0]) - message.relative_alt * 1e-3, here.height_datum
    first_s, _ = buffer.span_s()
    if math.isfinite(first_s):
        here = buffer.pose_at([first_s], ["first"], None)
        if len(here):
            source.notes.append("take-off height: the first position in the log")
            return float(here.alt_m[0]), here.height_datum
    raise UserError(f"{source.name} has no position", "give --dem DEM.tif")
