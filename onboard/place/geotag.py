"""Pixels to ground points with their covariance, its causes and the bias states behind it.

Where the ground is flat to the footprint of the error the covariance is propagated linearly; where
it is not, each cause is moved by ±√3 σ and its ray meets the ground again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calibration.geodesy import LocalMap, MapFrame, to_ellipsoid_m
from calibration.rig import Rig
from calibration.rotations import ENU_FROM_NED, rot_exp
from onboard.errors import PoseError
from onboard.place.ellipses import ce90_m, ellipse
from onboard.place.error_budget import Look, pushes
from onboard.place.first_hit import HIT, STATUS_FLAGS, Hits, first_hit
from onboard.place.spread import CAUSES, Errors, Ground, moved, spread
from onboard.place.surface import Terrain
from onboard.records import Floats, GroundPoints, HeightDatum, Ints, Poses

__all__ = ["CAUSES", "ce90_m", "ellipse", "first_hit", "geotag", "row_time_s", "scene_centres"]

POINTS_AT_ONCE = 16_384
LARGE_ELLIPSE_M = 50.0


def scene_centres(poses: Poses, map_frame: MapFrame, datum: HeightDatum) -> Floats:
    """Returns (n, 3) map x, y and height above ``datum`` of the projection centres.

    Raises:
        PoseError: The poses' heights cannot be brought to that datum.
    """
    x, y = map_frame.to_map(poses.lat_deg, poses.lon_deg)
    return np.stack([x, y, _heights(poses, datum)], axis=1)


def _heights(poses: Poses, datum: HeightDatum) -> Floats:
    if datum in (poses.height_datum, "same"):
        return poses.alt_m
    if datum == "ellipsoid" and poses.height_datum in ("egm96", "egm2008"):
        return to_ellipsoid_m(poses.alt_m, poses.height_datum, poses.lat_deg, poses.lon_deg)
    raise PoseError(
        f"camera heights are above '{poses.height_datum}', the ground's above '{datum}'",
        "name what the cameras' heights are above with --alt-datum, or, where both share one "
        "unnamed datum, say --dem-datum same",
    )


def row_time_s(v_px: Floats, rig: Rig) -> Floats:
    """Returns when rows were exposed, relative to the middle row."""
    height = rig.camera.height_px
    return np.asarray((np.asarray(v_px) - (height - 1) / 2.0) / height * rig.clock.readout_s)


@dataclass(frozen=True, slots=True)
class _Scene:
    """What stays the same for all pixels of a call."""

    rig: Rig
    terrain: Terrain
    map_frame: MapFrame
    poses: Poses
    centres: Floats
    local: LocalMap
    flight_id: str


def geotag(
    poses: Poses,
    pose_index: Ints,
    uv: Floats,
    sigma_px: Floats | float | None,
    rig: Rig,
    terrain: Terrain,
    map_frame: MapFrame,
    flight_id: str = "",
    ground_alt_m: Floats | None = None,
) -> GroundPoints:
    """Returns where pixels lie on the ground, with covariance, causes and bias states.

    Args:
        poses: Camera poses.
        pose_index: (n,) row of ``poses`` of each pixel; negative where its frame has no pose.
        uv: (n, 2) pixels.
        sigma_px: (n,) σ of each pixel axis; NaN or ``None`` takes the rig's.
        rig: Camera, mount, clock.
        terrain: The ground.
        map_frame: The map.
        flight_id: Names the flight's bias states.
        ground_alt_m: (n,) heights of the ground at each pixel, in the terrain's datum, which then
            take the place of the terrain (its σ still counts).

    Raises:
        PoseError: The poses' heights cannot be brought to the terrain's datum.
    """
    index = np.asarray(pose_index, dtype=np.int64)
    uv = np.asarray(uv, dtype=np.float64).reshape(-1, 2)
    centres = scene_centres(poses, map_frame, terrain.datum)
    scene = _Scene(
        rig, terrain, map_frame, poses, centres, map_frame.local(poses.lat_deg, poses.lon_deg),
        flight_id or "unnamed",
    )  # fmt: skip
    sigma = np.full(len(uv), rig.sigma_px) if sigma_px is None else np.array(sigma_px, float)
    sigma = np.broadcast_to(sigma, (len(uv),))
    sigma = np.where(np.isnan(sigma), rig.sigma_px, sigma)
    parts = [
        _geotag_part(scene, index[a:b], uv[a:b], sigma[a:b], _cut(ground_alt_m, a, b))
        for a, b in _chunks(len(uv))
    ]
    return _joined(parts, terrain.datum)


def _chunks(n: int) -> list[tuple[int, int]]:
    starts = range(0, max(n, 1), POINTS_AT_ONCE)
    return [(a, min(a + POINTS_AT_ONCE, n)) for a in starts]


def _cut(values: Floats | None, a: int, b: int) -> Floats | None:
    return None if values is None else np.asarray(values, dtype=np.float64)[a:b]


def _geotag_part(
    scene: _Scene, index: Ints, uv: Floats, sigma_px: Floats, ground_alt_m: Floats | None
) -> GroundPoints:
    rig, poses = scene.rig, scene.poses
    known = index >= 0
    safe = np.where(known, index, 0)
    if not len(poses):
        return _unplaced(scene, len(uv), "no_pose")
    origin, r_enu_cam = _at_own_row(scene, safe, uv)
    sight = rig.camera.sight(uv)
    rays = (r_enu_cam @ sight.rays()[..., None])[..., 0]
    rays[~known] = np.nan
    look = Look(uv, sigma_px, safe, poses, r_enu_cam, rays, sight)
    local = scene.local.take(safe)
    ground = Ground(scene.terrain, scene.map_frame, ground_alt_m)
    hits = ground.hit(origin, local, rays)
    causes = pushes(look, rig, scene.terrain, scene.flight_id)
    errors = Errors.empty(len(uv), causes)
    rough = np.zeros(len(uv), dtype=bool)
    grazing = np.zeros(len(uv), dtype=bool)
    hit = np.flatnonzero(hits.status == HIT)
    if len(hit):
        rough[hit], grazing[hit] = spread(
            ground.take(hit),
            rays[hit],
            origin[hit],
            local.take(hit),
            hits,
            hit,
            causes,
            errors,
        )
    return _points(scene, known, look, hits, errors, rough, grazing)


def _at_own_row(scene: _Scene, index: Ints, uv: Floats) -> tuple[Floats, Floats]:
    """Returns the projection centre on the map and camera → ENU at each pixel's own row."""
    poses = scene.poses
    origin = scene.centres[index]
    r = (ENU_FROM_NED @ poses.r_ned_cam)[index]
    if scene.rig.clock.readout_s == 0:
        return origin, r
    t = np.nan_to_num(row_time_s(uv[:, 1], scene.rig))[:, None]
    drift = t * np.nan_to_num(poses.v_ned_mps[index]) @ ENU_FROM_NED
    turned = t * np.nan_to_num(poses.omega_ned_rps[index]) @ ENU_FROM_NED
    if drift.any():
        origin = moved(scene.map_frame, scene.local.take(index), origin, drift)
    return origin, (rot_exp(turned) @ r if turned.any() else r)


def _points(
    scene: _Scene,
    known: np.ndarray,
    look: Look,
    hits: Hits,
    errors: Errors,
    rough: np.ndarray,
    grazing: np.ndarray,
) -> GroundPoints:
    lat, lon = scene.map_frame.to_geographic(hits.x_m, hits.y_m)
    total = errors.by_cause.sum(axis=1)
    share = errors.by_cause / np.where(total > 0, total, 1.0)[:, None]
    placed = hits.status == HIT
    cov = errors.random + errors.sensitivity @ np.swapaxes(errors.sensitivity, 1, 2)
    large = np.zeros(len(placed), dtype=bool)
    large[placed] = ellipse(cov[placed])[0] > LARGE_ELLIPSE_M
    outside = known & ~scene.rig.camera.inside(look.uv)
    codes = {
        "rough": rough,
        "grazing": grazing,
        "large_ellipse": large,
        "outside_image": outside,
    }
    flags = _flags(hits.status, known, codes, scene.poses.flags, look.index)
    return GroundPoints(
        lat_deg=lat,
        lon_deg=lon,
        alt_m=hits.z_m,
        height_datum=scene.terrain.datum,
        x_m=hits.x_m,
        y_m=hits.y_m,
        cov_random_m2=errors.random,
        sensitivity_m=errors.sensitivity,
        bias_names=errors.states,
        cause_names=CAUSES,
        cause_share=np.where(placed[:, None], share, np.nan),
        flags=flags,
    )


def _flags(
    status: Ints,
    known: np.ndarray,
    codes: dict[str, np.ndarray],
    of_pose: Sequence[tuple[str, ...]],
    index: Ints,
) -> tuple[tuple[str, ...], ...]:
    """Returns each point's flags; equal combinations share one tuple."""
    key = np.where(known, status, len(STATUS_FLAGS)) + 16 * index * (1 << len(codes))
    for bit, where in enumerate(codes.values()):
        key = key + 16 * (where.astype(np.int64) << bit)
    keys, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    table: list[tuple[str, ...]] = []
    for i in first[: len(keys)]:
        own = [STATUS_FLAGS[status[i]]] if status[i] != HIT else []
        own += [code for code, where in codes.items() if where[i]]
        table.append((*own, *of_pose[index[i]]) if known[i] else ("no_pose",))
    return tuple([table[i] for i in inverse])


def _unplaced(scene: _Scene, n: int, flag: str) -> GroundPoints:
    nan = np.full(n, np.nan)
    return GroundPoints(
        nan, nan, nan, scene.terrain.datum, nan, nan, np.full((n, 2, 2), np.nan),
        np.full((n, 2, 0), np.nan), (), CAUSES, np.full((n, len(CAUSES)), np.nan), ((flag,),) * n,
    )  # fmt: skip


def _joined(parts: list[GroundPoints], datum: HeightDatum) -> GroundPoints:
    if len(parts) == 1:
        return parts[0]
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in (
            "lat_deg", "lon_deg", "alt_m", "x_m", "y_m", "cov_random_m2", "sensitivity_m",
            "cause_share",
        )
    }  # fmt: skip
    return GroundPoints(
        height_datum=datum,
        bias_names=parts[0].bias_names,
        cause_names=CAUSES,
        flags=tuple(flag for part in parts for flag in part.flags),
        **arrays,
    )
