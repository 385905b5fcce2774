"""How much frames turned against each other by what they show, for the clock."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from calibration.clock_match import Turns
from calibration.geodesy import MapFrame
from calibration.rig import Rig
from calibration.rotations import ENU_FROM_NED
from onboard.drape import Scene, places
from onboard.place.geotag import scene_centres
from onboard.place.terrain import Terrain
from onboard.records import Floats, Ints, Poses
from onboard.ties import Ties

LEAST_POINTS = 12
REPROJECTION_PX = 4.0
SIGMA_RAD = float(np.radians(0.1))
"""σ of a rotation between two frames by some dozens of points."""


def image_turns(ties: Ties, poses: Poses, rig: Rig, terrain: Terrain, map_frame: MapFrame) -> Turns:
    """Returns the rotations between neighbouring frames.

    One frame's points are put on the ground by its pose as it stands; the other's pose follows from
    them. An error of the first pose moves both, so their relative rotation stays.
    """
    zero = np.zeros((len(poses), 6))
    scene = Scene(rig, terrain, map_frame)
    rows, rotations = [], []
    for a, b, mine in _pairs(ties):
        pair = ties.take(mine)
        ground = places(pair.uv_first, pair.first, poses, zero, 0.0, scene)
        known = np.isfinite(ground.xy_m).all(axis=1)
        if known.sum() < LEAST_POINTS:
            continue
        centre = scene_centres(poses, map_frame, terrain.datum)[a]
        z = terrain.height_m(*ground.xy_m[known].T)
        enu = np.column_stack([ground.xy_m[known] - centre[:2], z - centre[2]])
        enu[:, :2] = (ground.to_enu[known] @ enu[:, :2, None])[..., 0]
        plane = rig.camera.unproject(pair.uv_second[known])
        r_cam_enu = _seen_from(enu, plane, rig.camera.fx_px)
        if r_cam_enu is None:
            continue
        first = ENU_FROM_NED @ poses.r_ned_cam[a]
        rows.append((a, b))
        rotations.append(first.T @ r_cam_enu.T)
    if not rows:
        return Turns(np.zeros(0), np.zeros(0), np.zeros((0, 3, 3)), SIGMA_RAD)
    index = np.array(rows)
    stamps = poses.t_boot_s - rig.clock.offset_s
    return Turns(stamps[index[:, 0]], stamps[index[:, 1]], np.stack(rotations), SIGMA_RAD)


def turning_camera(
    poses_at: Callable[[Floats], Poses | None],
) -> Callable[[Floats], Floats]:
    """Returns the function that gives camera → NED at stamps; NaN where telemetry has none."""

    def camera_at(t_s: Floats) -> Floats:
        out = np.full((len(t_s), 3, 3), np.nan)
        found = poses_at(t_s)
        if found is not None and len(found):
            out[np.array([int(name) for name in found.frame])] = found.r_ned_cam
        return out

    return camera_at


def _pairs(ties: Ties) -> list[tuple[int, int, Ints]]:
    """Returns neighbours in order with the indices of their ties."""
    next_to = np.flatnonzero(ties.second == ties.first + 1)
    return [
        (int(a), int(a) + 1, next_to[ties.first[next_to] == a])
        for a in np.unique(ties.first[next_to])
    ]


def _seen_from(enu_m: Floats, rays: Floats, focal_px: float) -> Floats | None:
    """Returns the rotation local ENU → camera of the frame that sees ground points along rays."""
    with np.errstate(divide="ignore", invalid="ignore"):
        plane = rays[:, :2] / rays[:, 2:]
    good = np.isfinite(plane).all(axis=1)
    if good.sum() < LEAST_POINTS:
        return None
    middle = enu_m[good].mean(axis=0)
    try:
        found, turn, _, inliers = cv2.solvePnPRansac(
            enu_m[good] - middle, plane[good] * focal_px, np.diag([focal_px, focal_px, 1.0]), None,
            reprojectionError=REPROJECTION_PX, iterationsCount=200, confidence=0.999,
        )  # fmt: skip
    except cv2.error:
        return None
    if not found or inliers is None or len(inliers) < LEAST_POINTS:
        return None
    return np.asarray(cv2.Rodrigues(turn)[0], np.float64)
