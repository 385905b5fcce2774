"""Pixels to ground points with their covariance, its causes and the bias states behind it.

Where the ground is flat to the footprint of the error the covariance is propagated linearly; where
it is not, the ray is shifted by ±√3 σ along the errors' principal axes and meets the ground again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.geodesy import LocalMap, MapFrame, to_ellipsoid_m
from calibration.rig import Rig
from calibration.rotations import ENU_FROM_NED, rot_exp
from onboard.errors import PoseError
from onboard.place.aim import Aim, ground_normal
from onboard.place.ellipses import ce90_m, ellipse
from onboard.place.error_budget import Look, causes_of
from onboard.place.first_hit import HIT, STATUS_FLAGS, Hits, first_hit
from onboard.place.spread import CAUSES, GRAZING_COS, Errors, Ground, Landing, facing, moved, spread
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
    if not len(poses):
        return _unplaced(scene, len(uv), "no_pose")
    parts = [
        _geotag_part(scene, index[a:b], uv[a:b], sigma[a:b], _cut(ground_alt_m, a, b))
        for a, b in _chunks(len(uv))
    ]
    return _points(scene, parts)


def _chunks(n: int) -> list[tuple[int, int]]:
    starts = range(0, max(n, 1), POINTS_AT_ONCE)
    return [(a, min(a + POINTS_AT_ONCE, n)) for a in starts]


def _cut(values: Floats | None, a: int, b: int) -> Floats | None:
    return None if values is None else np.asarray(values, dtype=np.float64)[a:b]


def _geotag_part(
    scene: _Scene, index: Ints, uv: Floats, sigma_px: Floats, ground_alt_m: Floats | None
) -> _Placed:
    rig, poses = scene.rig, scene.poses
    known = index >= 0
    safe = np.where(known, index, 0)
    origin, r_enu_cam = _at_own_row(scene, safe, uv)
    sight = rig.camera.sight(uv)
    rays = (r_enu_cam @ sight.rays()[..., None])[..., 0]
    rays[~known] = np.nan
    local = scene.local.take(safe)
    ground = Ground(scene.terrain, scene.map_frame, ground_alt_m)
    hits = ground.hit(origin, local, rays)
    hit = np.flatnonzero(hits.status == HIT)
    some = slice(None) if len(hit) == len(uv) else hit
    xy, far = np.stack([hits.x_m[some], hits.y_m[some]]), hits.range_m[some]
    to_enu = scene.map_frame.enu_from_map_rotation(local)[some]
    reach = np.ascontiguousarray(rays[some, :2].T)
    size = np.sqrt(np.einsum("ij,ij->i", rays[some], rays[some]))
    normal = ground_normal(
        ground.surface, xy, far, to_enu, local.radius_m[some], reach * (far / size)
    )
    aim = Aim.of(rays[some], far, normal)
    landing = Landing(
        ground.take(hit), origin[some], rays[some], local.take(hit), xy, to_enu, normal
    )
    look = Look(sigma_px[some], safe[some], poses, r_enu_cam[some], sight.take(some), aim)
    errors = spread(landing, aim, causes_of(look, rig, scene.terrain, scene.flight_id))
    grazing = facing(aim, normal) < GRAZING_COS
    return _Placed(hits, known, safe, hit, uv, errors, grazing)


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


@dataclass(frozen=True, slots=True)
class _Placed:
    """n pixels, and the errors of the m of them that met the ground.

    Attributes:
        hits: (n,) where they met it.
        known: (n,) whether the frame has a pose.
        index: (n,) its row.
        hit: (m,) rows that met the ground.
        uv: (n, 2) pixels.
        errors: (m,).
        grazing: (m,) where the ray all but runs along the ground.
    """

    hits: Hits
    known: np.ndarray
    index: Ints
    hit: Ints
    uv: Floats
    errors: Errors
    grazing: np.ndarray


def _points(scene: _Scene, parts: list[_Placed]) -> GroundPoints:
    n = sum(len(part.known) for part in parts)
    states = parts[0].errors.states
    # Hundreds of megabytes for a million points: what is written anyway is not filled before.
    random, sensitivity = np.empty((2, 2, n)), np.empty((len(states), 2, n))
    share = np.empty((len(CAUSES), n))
    flags: list[tuple[str, ...]] = []
    start = 0
    for part in parts:
        stop, errors = start + len(part.known), part.errors
        whole = len(part.hit) == len(part.known)
        at = slice(start, stop) if whole else start + part.hit
        if not whole:
            for lost in (random, sensitivity, share):
                lost[..., start:stop] = np.nan
        random[..., at], sensitivity[..., at] = errors.random, errors.sensitivity
        total = errors.by_cause.sum(axis=0)
        share[:, at] = errors.by_cause / np.where(total > 0, total, 1.0)
        flags += _flags(scene, part)
        start = stop
    x, y, z = (
        np.concatenate([getattr(part.hits, name) for part in parts])
        for name in ("x_m", "y_m", "z_m")
    )
    lat, lon = scene.map_frame.to_geographic(x, y)
    return GroundPoints(
        lat_deg=lat,
        lon_deg=lon,
        alt_m=z,
        height_datum=scene.terrain.datum,
        x_m=x,
        y_m=y,
        cov_random_m2=random.transpose(2, 0, 1),
        sensitivity_m=sensitivity.transpose(2, 1, 0),
        bias_names=states,
        cause_names=CAUSES,
        cause_share=share.T,
        flags=tuple(flags),
    )


def _flags(scene: _Scene, part: _Placed) -> list[tuple[str, ...]]:
    """Returns each point's flags; equal combinations share one tuple."""
    status, errors = part.hits.status, part.errors
    s = errors.sensitivity
    covariance = errors.random + np.einsum("kan,kbn->abn", s, s)
    codes = {
        "rough": errors.rough,
        "grazing": part.grazing,
        "large_ellipse": ellipse(covariance.transpose(2, 0, 1))[0] > LARGE_ELLIPSE_M,
    }
    key = np.where(part.known, status, len(STATUS_FLAGS)) + 256 * part.index
    for bit, where in enumerate(codes.values()):
        key[part.hit] += 16 * (where.astype(np.int64) << bit)
    outside = part.known & ~scene.rig.camera.inside(part.uv)
    key += 128 * outside
    names = [*codes, "outside_image"]
    table: dict[int, tuple[str, ...]] = {}
    for value in np.unique(key).tolist():
        frame, code = divmod(value, 256)
        kind = code % 16
        if kind == len(STATUS_FLAGS):
            table[value] = ("no_pose",)
            continue
        own = [STATUS_FLAGS[kind]] if kind != HIT else []
        own += [name for bit, name in enumerate(names) if code // 16 >> bit & 1]
        table[value] = (*own, *scene.poses.flags[frame])
    return [table[value] for value in key.tolist()]


def _unplaced(scene: _Scene, n: int, flag: str) -> GroundPoints:
    nan = np.full(n, np.nan)
    return GroundPoints(
        nan, nan, nan, scene.terrain.datum, nan, nan, np.full((n, 2, 2), np.nan),
        np.full((n, 2, 0), np.nan), (), CAUSES, np.full((n, len(CAUSES)), np.nan), ((flag,),) * n,
    )  # fmt: skip
