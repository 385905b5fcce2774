"""Direct georeferencing of real frames from their XMP against structure from motion."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyproj import CRS

from calibration.geodesy import MapFrame
from calibration.rig import load_rig
from calibration.rotations import ENU_FROM_NED, r_ned_cam_from_ypr
from onboard.place.geotag import geotag
from onboard.place.terrain import open_dem
from onboard.records import Floats, Poses

RIG = Path(__file__).parents[2] / "calibration" / "rigs" / "brighton_fc300s.toml"
MAP = MapFrame(CRS.from_epsg(32615))


def poses_of(frames: list[dict[str, object]], centres: Floats, r_ned_cam: Floats) -> Poses:
    n = len(frames)
    lat, lon = MAP.to_geographic(centres[:, 0], centres[:, 1])
    nan3, zero3, zero = np.full((n, 3), np.nan), np.zeros((n, 3)), np.zeros(n)
    return Poses(
        tuple(str(f["file"]) for f in frames), lat, lon, centres[:, 2], "same", r_ned_cam,
        np.full((n, 3, 3), np.nan), nan3, nan3, zero3, zero, zero, zero3, zero, zero, ((),) * n,
    )  # fmt: skip


@pytest.mark.real_data
def test_xmp_poses_meet_the_reference_where_they_should(shared_data: Path) -> None:
    folder = shared_data / "imagery" / "brighton_beach"
    given = json.loads((folder / "reference_poses.json").read_text())
    frames = [f for f in given["frames"] if (folder / "images" / f["file"]).exists()]
    frames = [f for f in frames if not f["windows_rotated_180"]]
    assert len(frames) == 11
    terrain = open_dem(folder / "dsm_0p25m.tif", MAP, "same", 0.0)
    rig = replace(load_rig(RIG), covariance=None, covariance_order=())

    true_centres = np.array([f["C_utm15n"] for f in frames])
    lat, lon = MAP.to_geographic(true_centres[:, 0], true_centres[:, 1])
    to_enu = np.zeros((len(frames), 3, 3))
    to_enu[:, 2, 2] = 1.0
    to_enu[:, :2, :2] = MAP.enu_from_map_rotation(MAP.local(lat, lon))
    r_map_cam = np.swapaxes([f["R_enu2cv_pristine"] for f in frames], 1, 2)
    truth = poses_of(frames, true_centres, ENU_FROM_NED @ to_enu @ r_map_cam)

    angles = np.radians([f["att_xmp_yaw_pitch_roll"] for f in frames]).T
    xmp = poses_of(frames, np.array([f["gps_xmp"] for f in frames]), r_ned_cam_from_ypr(*angles))

    u, v = np.meshgrid(np.linspace(200, 3800, 12), np.linspace(150, 2100, 11))
    uv = np.tile(np.column_stack([u.ravel(), v.ravel()]), (len(frames), 1))
    index = np.repeat(np.arange(len(frames)), u.size)
    where = geotag(truth, index, uv, 0.0, rig, terrain, MAP)
    direct = geotag(xmp, index, uv, 0.0, rig, terrain, MAP)
    off = np.hypot(where.x_m - direct.x_m, where.y_m - direct.y_m)
    off = off[np.isfinite(off)]
    assert len(off) > 1200
    assert np.median(off) < 1.2  # 1.79 m the usual way, 1.16 m with all that is known
    bent = replace(xmp, r_ned_cam=r_ned_cam_from_ypr(angles[0] + np.radians(0.73), *angles[1:]))
    grid_yaw = geotag(bent, index, uv, 0.0, rig, terrain, MAP)
    worse = np.hypot(where.x_m - grid_yaw.x_m, where.y_m - grid_yaw.y_m)
    assert np.nanmedian(worse) > np.median(off) + 0.1  # grid yaw: convergence left in
