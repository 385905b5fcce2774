"""Pixels to ground points with their covariance, its causes and the bias states behind it.

Where the ground is flat to the footprint of the error the covariance is propagated linearly; where
it is not, each cause is moved by ±√3 σ and its ray meets the ground again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from calibration.geodesy import LocalMap, MapFrame, to_ellipsoid_m
from calibration.rig import Rig
from calibration.rotations import ENU_FROM_NED, rot_exp
from onboard.errors import PoseError
from onboard.place.ellipses import ce90_m, ellipse, principal_variances
from onboard.place.error_budget import ROOT3, Look, Push, displacement, ground_normal, pushes
from onboard.place.first_hit import HIT, STATUS_FLAGS, Hits, first_hit, plane_hit
from onboard.place.surface import PlaneTerrain, Terrain
from onboard.records import CHI2_2_P90, Floats, GroundPoints, HeightDatum, Ints, Poses

__all__ = ["ce90_m", "ellipse", "first_hit", "geotag", "row_time_s", "scene_centres"]

POINTS_AT_ONCE = 65_536
SIGMA_POINTS_AT_ONCE = 200_000
ROUGH_SHARE = 0.05
"""The ground counts as flat to the footprint while, on eight points of the linear 90 % ellipse, its
departure from the tangent plane moves the ray's hit by at most this share of the ellipse."""

LARGE_ELLIPSE_M = 50.0
GRAZING_COS = 0.05
CAUSES = (
    "position", "tilt", "heading", "boresight", "lever arm", "clock", "pixel", "intrinsics", "dem",
)  # fmt: skip


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
    ground = _Ground(scene.terrain, scene.map_frame, ground_alt_m)
    hits = ground.hit(origin, local, rays)
    causes = pushes(look, rig, scene.terrain, scene.flight_id)
    errors = _Errors.empty(len(uv), causes)
    rough = np.zeros(len(uv), dtype=bool)
    grazing = np.zeros(len(uv), dtype=bool)
    hit = np.flatnonzero(hits.status == HIT)
    if len(hit):
        rough[hit], grazing[hit] = _spread(
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
    moved = t * np.nan_to_num(poses.v_ned_mps[index]) @ ENU_FROM_NED
    turned = t * np.nan_to_num(poses.omega_ned_rps[index]) @ ENU_FROM_NED
    if moved.any():
        origin = _moved(scene.map_frame, scene.local.take(index), origin, moved)
    return origin, (rot_exp(turned) @ r if turned.any() else r)


def _moved(map_frame: MapFrame, local: LocalMap, origin: Floats, enu: Floats) -> Floats:
    """Returns map positions moved by local ENU vectors."""
    dx, dy = map_frame.offset(local, enu[:, 0], enu[:, 1], origin[:, 2])
    return np.asarray(origin + np.stack([dx, dy, enu[:, 2]], axis=1))


@dataclass(frozen=True, slots=True)
class _Ground:
    """The terrain, or a height for each ray."""

    terrain: Terrain
    map_frame: MapFrame
    alt_m: Floats | None

    def take(self, i: Ints) -> _Ground:
        return self if self.alt_m is None else replace(self, alt_m=self.alt_m[i])

    @property
    def surface(self) -> Terrain:
        """The terrain, or a plane for slopes where heights are given."""
        return self.terrain if self.alt_m is None else PlaneTerrain(0.0, self.terrain.datum)

    def hit(
        self, origin: Floats, local: LocalMap, rays: Floats, lift: Floats | None = None
    ) -> Hits:
        """Returns the first ground that rays meet, the ground raised by ``lift``."""
        rise = np.zeros(len(rays)) if lift is None else lift
        if self.alt_m is not None:
            return plane_hit(self.alt_m + rise, self.map_frame, origin, local, rays)
        if not rise.any():
            return first_hit(self.terrain, self.map_frame, origin, local, rays)
        lowered = origin - rise[:, None] * np.array([0.0, 0.0, 1.0])
        hits = first_hit(self.terrain, self.map_frame, lowered, local, rays)
        return replace(hits, z_m=hits.z_m + rise)


@dataclass(slots=True)
class _Errors:
    """Displacements of n points: random covariance, sensitivities, variance by cause."""

    random: Floats  # (n, 2, 2)
    sensitivity: Floats  # (n, 2, k)
    states: tuple[str, ...]
    by_cause: Floats  # (n, c)

    @classmethod
    def empty(cls, n: int, causes: list[Push]) -> _Errors:
        states = tuple(push.state for push in causes if push.state)
        return cls(
            np.full((n, 2, 2), np.nan),
            np.full((n, 2, len(states)), np.nan),
            states,
            np.full((n, len(CAUSES)), np.nan),
        )


def _spread(
    ground: _Ground,
    rays: Floats,
    origin: Floats,
    local: LocalMap,
    hits: Hits,
    hit: Ints,
    causes: list[Push],
    errors: _Errors,
) -> tuple[np.ndarray, np.ndarray]:
    """Fills ``errors`` at the rows ``hit``; returns where sigma points were used, and grazing."""
    length = hits.range_m[hit] / np.sqrt(np.einsum("ij,ij->i", rays, rays))
    to_enu = ground.map_frame.enu_from_map_rotation(local)
    xy = np.stack([hits.x_m[hit], hits.y_m[hit]], axis=1)
    reach = length[:, None] * rays[:, :2]
    normal = ground_normal(ground.surface, xy, hits.range_m[hit], to_enu, local.radius_m, reach)
    columns = [displacement(push.take(hit), rays, length, normal) for push in causes]
    _fill(errors, hit, causes, columns, None)
    unit = rays / np.linalg.norm(rays, axis=1)[:, None]
    facing = -np.einsum("ij,ij->i", normal, unit) / np.linalg.norm(normal, axis=1)
    total = errors.random[hit] + errors.sensitivity[hit] @ np.swapaxes(
        errors.sensitivity[hit], 1, 2
    )
    rough = _is_rough(ground.surface, xy, normal, unit, to_enu, total)
    for again in _batches(np.flatnonzero(rough), SIGMA_POINTS_AT_ONCE // (2 * len(causes) + 1)):
        at = hit[again]
        aim = _Aim(ground.take(again), rays[again], origin[again], local.take(again),
                   xy[again], to_enu[again])  # fmt: skip
        odd, even = _meet_again(
            aim, [push.take(at) for push in causes], [column[again] for column in columns]
        )
        _fill(errors, at, causes, odd, even)
    return rough, facing < GRAZING_COS


def _fill(
    errors: _Errors,
    rows: Ints,
    causes: list[Push],
    columns: list[Floats],
    extra: list[Floats] | None,
) -> None:
    """Sums one-σ displacements (m, 2), and what is quadratic in them, into rows of ``errors``."""
    random = np.zeros((len(rows), 2, 2))
    by_cause = np.zeros((len(rows), len(CAUSES)))
    sensitivity = np.zeros((len(rows), 2, len(errors.states)))
    state = 0
    for i, (push, column) in enumerate(zip(causes, columns, strict=True)):
        cause = CAUSES.index(push.cause)
        by_cause[:, cause] += np.einsum("ij,ij->i", column, column)
        if push.state:
            sensitivity[:, :, state] = column
            state += 1
        else:
            random += column[:, :, None] * column[:, None, :]
        if extra is not None:
            random += 3.0 * extra[i][:, :, None] * extra[i][:, None, :]
            by_cause[:, cause] += 3.0 * np.einsum("ij,ij->i", extra[i], extra[i])
    errors.random[rows], errors.sensitivity[rows] = random, sensitivity
    errors.by_cause[rows] = by_cause


def _is_rough(
    terrain: Terrain, xy: Floats, normal: Floats, unit: Floats, to_enu: Floats, cov: Floats
) -> np.ndarray:
    """Returns where the ground departs too far from its tangent plane under the 90 % ellipse."""
    if terrain.is_plane:
        return np.zeros(len(xy), dtype=bool)
    major2, _ = principal_variances(cov)
    rx, ry, corr = _conjugate_axes(cov)
    here = terrain.height_m(*xy.T)
    worst = np.zeros(len(xy))
    to_map = np.swapaxes(to_enu, 1, 2)
    for angle in np.arange(8) * np.pi / 4:
        enu = np.sqrt(CHI2_2_P90) * (np.cos(angle) * rx + np.sin(angle) * (ry + corr))
        step = (to_map @ enu[..., None])[..., 0]
        plane = here - np.einsum("ij,ij->i", normal[:, :2], enu)
        off = np.abs(terrain.height_m(*(xy + step).T) - plane)
        worst = np.maximum(worst, np.where(np.isnan(off), np.inf, off))
    facing = np.abs(np.einsum("ij,ij->i", normal, unit))
    flat = np.linalg.norm(unit[:, :2], axis=1)
    limit = ROUGH_SHARE * np.sqrt(CHI2_2_P90 * major2)
    return np.asarray((worst * flat > limit * facing) & (major2 > 0))


def _conjugate_axes(cov: Floats) -> tuple[Floats, Floats, Floats]:
    """Returns Cholesky columns of (n, 2, 2) covariances: (n, 2) each, the second split in two."""
    a = np.sqrt(np.maximum(cov[:, 0, 0], 1e-300))
    b = cov[:, 0, 1] / a
    c = np.sqrt(np.maximum(cov[:, 1, 1] - b * b, 0.0))
    zero = np.zeros_like(a)
    return np.stack([a, b], 1), np.stack([zero, c], 1), np.zeros((len(a), 2))


@dataclass(frozen=True, slots=True)
class _Aim:
    """m rays that are pushed: where they start, where they hit."""

    ground: _Ground
    rays: Floats
    origin: Floats
    local: LocalMap
    xy: Floats
    to_enu: Floats


def _meet_again(
    aim: _Aim, causes: list[Push], linear: list[Floats]
) -> tuple[list[Floats], list[Floats]]:
    """Returns odd (one σ) and even parts of each cause's displacement, rays moved by ±√3 σ.

    Second moments about the point: Σ(δ₊δ₊ᵀ + δ₋δ₋ᵀ)/6 = odd oddᵀ + 3 even evenᵀ. All pushed rays
    of all causes are traced together.
    """
    amounts = [(i, amount) for i in range(len(causes)) for amount in (ROOT3, -ROOT3)]
    pushed = [causes[i].applied(aim.rays, amount) for i, amount in amounts]
    move, rays, lift = (np.concatenate(part) for part in zip(*pushed, strict=True))
    m = len(aim.rays)
    each = np.tile(np.arange(m), len(amounts))
    local = aim.local.take(each)
    origin = _moved(aim.ground.map_frame, local, aim.origin[each], move)
    hits = aim.ground.take(each).hit(origin, local, rays, lift)
    shift = np.stack([hits.x_m, hits.y_m], axis=1) - aim.xy[each]
    shift = (aim.to_enu[each] @ shift[..., None])[..., 0]
    expected = np.concatenate([amount * linear[i] for i, amount in amounts])
    shift = np.where(np.isfinite(shift), shift, expected).reshape(len(causes), 2, m, 2)
    ahead, back = shift[:, 0], shift[:, 1]
    return list((ahead - back) / (2 * ROOT3)), list((ahead + back) / 6.0)


def _batches(index: Ints, size: int) -> list[Ints]:
    return [index[i : i + max(size, 1)] for i in range(0, len(index), max(size, 1))]


def _points(
    scene: _Scene,
    known: np.ndarray,
    look: Look,
    hits: Hits,
    errors: _Errors,
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
