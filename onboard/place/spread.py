"""How causes of error spread ground points: linearly, or by sigma points on the DEM."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from calibration.geodesy import LocalMap, MapFrame
from onboard.place.ellipses import principal_variances
from onboard.place.error_budget import ROOT3, Push, displacement, ground_normal
from onboard.place.first_hit import Hits, first_hit, plane_hit
from onboard.place.surface import PlaneTerrain, Terrain
from onboard.records import CHI2_2_P90, Floats, Ints

SIGMA_POINTS_AT_ONCE = 200_000
ROUGH_SHARE = 0.05
"""The ground counts as flat to the footprint while, on eight points of the linear 90 % ellipse, its
departure from the tangent plane moves the ray's hit by at most this share of the ellipse."""

GRAZING_COS = 0.05
CAUSES = (
    "position", "tilt", "heading", "boresight", "lever arm", "clock", "pixel", "intrinsics", "dem",
)  # fmt: skip


def moved(map_frame: MapFrame, local: LocalMap, origin: Floats, enu: Floats) -> Floats:
    """Returns map positions moved by local ENU vectors."""
    dx, dy = map_frame.offset(local, enu[:, 0], enu[:, 1], origin[:, 2])
    return np.asarray(origin + np.stack([dx, dy, enu[:, 2]], axis=1))


@dataclass(frozen=True, slots=True)
class Ground:
    """The terrain, or a height for each ray."""

    terrain: Terrain
    map_frame: MapFrame
    alt_m: Floats | None

    def take(self, i: Ints) -> Ground:
        """Returns the ground of the rays at these indices."""
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
class Errors:
    """Displacements of n points: random covariance, sensitivities, variance by cause."""

    random: Floats  # (n, 2, 2)
    sensitivity: Floats  # (n, 2, k)
    states: tuple[str, ...]
    by_cause: Floats  # (n, c)

    @classmethod
    def empty(cls, n: int, causes: list[Push]) -> Errors:
        """Returns n unknown errors with the causes' bias states."""
        states = tuple(push.state for push in causes if push.state)
        return cls(
            np.full((n, 2, 2), np.nan),
            np.full((n, 2, len(states)), np.nan),
            states,
            np.full((n, len(CAUSES)), np.nan),
        )


def spread(
    ground: Ground,
    rays: Floats,
    origin: Floats,
    local: LocalMap,
    hits: Hits,
    hit: Ints,
    causes: list[Push],
    errors: Errors,
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
    errors: Errors,
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

    ground: Ground
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
    origin = moved(aim.ground.map_frame, local, aim.origin[each], move)
    hits = aim.ground.take(each).hit(origin, local, rays, lift)
    shift = np.stack([hits.x_m, hits.y_m], axis=1) - aim.xy[each]
    shift = (aim.to_enu[each] @ shift[..., None])[..., 0]
    expected = np.concatenate([amount * linear[i] for i, amount in amounts])
    shift = np.where(np.isfinite(shift), shift, expected).reshape(len(causes), 2, m, 2)
    ahead, back = shift[:, 0], shift[:, 1]
    return list((ahead - back) / (2 * ROOT3)), list((ahead + back) / 6.0)


def _batches(index: Ints, size: int) -> list[Ints]:
    return [index[i : i + max(size, 1)] for i in range(0, len(index), max(size, 1))]
