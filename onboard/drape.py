"""Ties draped on the ground: the gaps between their two places, and what moves them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.adjust import CORRECTIONS, Gaps
from calibration.geodesy import MapFrame
from calibration.rig import Rig
from calibration.rotations import ENU_FROM_NED, rot_exp
from onboard.image_matches import matched_px
from onboard.place.aim import Aim, ground_normal
from onboard.place.first_hit import first_hit
from onboard.place.geotag import row_time_s, scene_centres
from onboard.place.spread import moved
from onboard.place.terrain import Terrain
from onboard.records import Floats, Ints, Poses
from onboard.ties import Ties

SHARED = ("right", "down", "forward", "clock", "up", "focal")
"""What all frames share: turns about the camera's axes (rad), how late the camera is (s), how much
higher the cameras are than stated (m), how much longer the focal length is (px)."""

MATCH_PX = 0.7
"""σ of a match along each axis, in pixels of the matched image."""
CELL_POSTS = 10
PLANE_CELL_M = 50.0
"""Ground heights err together over so many posts, or metres where a plane stands in for a DEM."""
ROUGHNESS = 0.2
"""σ of heights within a cell, as a share of the DEM's."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What the ties are draped on.

    Attributes:
        rig: The camera as it is now taken to be mounted and timed.
        terrain: The ground.
        map_frame: The map.
    """

    rig: Rig
    terrain: Terrain
    map_frame: MapFrame


@dataclass(frozen=True, slots=True)
class Places:
    """Where one end of n ties lies, and how corrections move it; local east, north.

    Attributes:
        xy_m: (n, 2) map.
        by_frame: (n, 2, 6).
        by_shared: (n, 2, k).
        by_pixel: (n, 2, 2) metres per source pixel.
        by_lift: (n, 2) metres per metre that the ground is raised.
        to_enu: (n, 2, 2) map to true east, north.
    """

    xy_m: Floats
    by_frame: Floats
    by_shared: Floats
    by_pixel: Floats
    by_lift: Floats
    to_enu: Floats


def drape(ties: Ties, poses: Poses, frames: Floats, up_m: float, scene: Scene) -> tuple[Gaps, Ints]:
    """Returns the gaps of the ties whose both ends meet the ground, and which those are.

    Args:
        ties: Rows of ``poses``.
        poses: As placed with the scene's rig.
        frames: (f, 6) present corrections of the frames.
        up_m: Present correction of all heights.
        scene: Rig, ground, map.
    """
    one = places(ties.uv_first, ties.first, poses, frames, up_m, scene)
    two = places(ties.uv_second, ties.second, poses, frames, up_m, scene)
    good = np.flatnonzero(np.isfinite(one.xy_m).all(axis=1) & np.isfinite(two.xy_m).all(axis=1))
    gap = (one.to_enu[good] @ (one.xy_m - two.xy_m)[good][..., None])[..., 0]
    lift = (one.by_lift - two.by_lift)[good]
    gaps = Gaps(
        ties.first[good],
        ties.second[good],
        gap,
        one.by_frame[good],
        two.by_frame[good],
        one.by_shared[good] - two.by_shared[good],
        _cells(one.xy_m[good], scene.terrain),
        lift,
        _noise(one.by_pixel[good], two.by_pixel[good], lift, scene),
    )
    return gaps, good


def places(
    uv: Floats, index: Ints, poses: Poses, frames: Floats, up_m: float, scene: Scene
) -> Places:
    """Returns where pixels of corrected frames meet the ground; NaN where they do not."""
    rig, map_frame = scene.rig, scene.map_frame
    local = map_frame.local(poses.lat_deg, poses.lon_deg).take(index)
    t = row_time_s(uv[:, 1], rig)[:, None]
    v = np.nan_to_num(poses.v_ned_mps[index]) @ ENU_FROM_NED.T
    omega = np.nan_to_num(poses.omega_ned_rps[index]) @ ENU_FROM_NED.T
    r_enu_cam = rot_exp(frames[index, 3:] + t * omega) @ (ENU_FROM_NED @ poses.r_ned_cam[index])
    shift = frames[index, :3] + t * v + np.array([0.0, 0.0, up_m])
    centres = scene_centres(poses, map_frame, scene.terrain.datum)[index]
    origin = moved(map_frame, local, centres, shift)
    sight = rig.camera.sight(uv)
    rays = (r_enu_cam @ sight.rays()[..., None])[..., 0]
    hits = first_hit(scene.terrain, map_frame, origin, local, rays)
    xy = np.stack([hits.x_m, hits.y_m])
    to_enu = map_frame.enu_from_map_rotation(local)
    far = np.nan_to_num(hits.range_m, nan=1.0)
    reach = rays[:, :2].T * (far / np.linalg.norm(rays, axis=1))
    normal = ground_normal(scene.terrain, np.nan_to_num(xy), far, to_enu, local.radius_m, reach)
    aim = Aim.of(rays, far, normal)
    fx = ("fx_px", "fy_px")
    by_focal = sight.by_intrinsics(fx) @ np.array([1.0, rig.camera.fy_px / rig.camera.fx_px])
    per_px = r_enu_cam @ sight.by_pixel()
    one = np.ones(len(uv))
    shared = [aim.turn(r_enu_cam[:, :, axis].T) for axis in range(3)]
    shared += [
        aim.move(v.T) + aim.turn(omega.T),
        aim.along(2, one),
        aim.bend((r_enu_cam @ by_focal[..., None])[..., 0].T),
    ]
    frame = [aim.along(axis, one) for axis in range(3)]
    frame += [aim.about(axis, one) for axis in range(3)]
    assert len(frame) == CORRECTIONS  # noqa: S101
    return Places(
        xy.T,
        _columns(aim, frame),
        _columns(aim, shared),
        _columns(aim, [aim.bend(per_px[:, :, axis].T) for axis in (0, 1)]),
        aim.moved(aim.lift(one)).T,
        to_enu,
    )


def _columns(aim: Aim, shifts: list[Floats]) -> Floats:
    """Returns the (n, 2, k) displacements of ground points by k shifts."""
    return np.stack([aim.moved(shift).T for shift in shifts], axis=2)


def _noise(one: Floats, two: Floats, lift: Floats, scene: Scene) -> Floats:
    """Returns (n, 2, 2) covariances of the gaps: matching in both frames, rough ground."""
    sigma_px = MATCH_PX * matched_px(scene.rig.camera)
    noise = sigma_px**2 * (one @ np.swapaxes(one, 1, 2) + two @ np.swapaxes(two, 1, 2))
    rough_m = ROUGHNESS * scene.terrain.sigma_m
    return np.asarray(noise + rough_m**2 * lift[:, :, None] * lift[:, None, :])


def _cells(xy_m: Floats, terrain: Terrain) -> Ints:
    """Returns (n,) numbers of the cells over which ground heights err together."""
    cell_m = PLANE_CELL_M if terrain.is_plane else CELL_POSTS * terrain.post_m
    cell = np.floor(xy_m / cell_m).astype(np.int64)
    _, which = np.unique(cell, axis=0, return_inverse=True)
    return np.asarray(which.ravel(), np.int64)
