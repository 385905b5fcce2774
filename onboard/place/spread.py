"""How causes of error spread ground points: linearly, or by sigma points on the DEM."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from calibration.geodesy import LocalMap, MapFrame
from onboard.place.aim import Aim, on_ground
from onboard.place.error_budget import Cause
from onboard.place.first_hit import Hits, first_hit, plane_hit
from onboard.place.surface import PlaneTerrain, Terrain
from onboard.records import CHI2_2_P90, Floats, Ints

ROOT3 = float(np.sqrt(3.0))
"""Sigma points lie at ±√3 σ: they then match a normal distribution's fourth moment."""
ROUGH_SHARE = 0.05
"""The ground counts as flat to the footprint while, at the four ends of the linear 90 % ellipse's
axes, its departure from the tangent plane moves the ray's hit by at most this share of the
ellipse."""

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

    def hit(self, origin: Floats, local: LocalMap, rays: Floats) -> Hits:
        """Returns the first ground that rays meet."""
        if self.alt_m is not None:
            return plane_hit(self.alt_m, self.map_frame, origin, local, rays)
        return first_hit(self.terrain, self.map_frame, origin, local, rays)


@dataclass(frozen=True, slots=True)
class Errors:
    """Displacements of n points, true east and north.

    Attributes:
        random: (2, 2, n) covariance of what is random from look to look.
        sensitivity: (k, 2, n) metres per σ of each bias state.
        states: k names.
        by_cause: (c, n) each cause's share of the variance, m².
        rough: (n,) True where sigma points were used.
    """

    random: Floats
    sensitivity: Floats
    states: tuple[str, ...]
    by_cause: Floats
    rough: np.ndarray


@dataclass(frozen=True, slots=True)
class Landing:
    """n rays and where they met the ground.

    Attributes:
        ground: The ground.
        origin: (n, 3) map x, y and height where the rays start.
        rays: (n, 3) local ENU.
        local: The map at their starts.
        xy: (2, n) map x, y where they landed.
        to_enu: (n, 2, 2) map to true east, north.
        normal: (3, n) the ground's normals.
    """

    ground: Ground
    origin: Floats
    rays: Floats
    local: LocalMap
    xy: Floats
    to_enu: Floats
    normal: Floats

    def take(self, i: Ints) -> Landing:
        """Returns the rays at these indices."""
        return Landing(
            self.ground.take(i), self.origin[i], self.rays[i], self.local.take(i),
            self.xy[:, i], self.to_enu[i], self.normal[:, i],
        )  # fmt: skip


def spread(landing: Landing, aim: Aim, causes: list[Cause]) -> Errors:
    """Returns the displacements by all causes: linear where the ground is flat to the footprint.

    Where it is not, the ray is moved sideways by ±√3 σ along the two principal axes of all causes
    together, and meets the ground again.
    """
    n = len(aim.range_m)
    random, total = _shift_covariances(causes, n)
    errors = _errors(aim.ground, random, causes)
    rough = _is_rough(landing, aim, total)
    again = np.flatnonzero(rough)
    if len(again):
        shifts = [replace(cause, shift=cause.shift[:, again]) for cause in causes]
        bent = _meet_again(
            landing.take(again), aim.take(again), random[:, again], total[:, again], shifts
        )
        errors.random[..., again] = bent.random
        errors.sensitivity[..., again] = bent.sensitivity
        errors.by_cause[:, again] = bent.by_cause
    errors.rough[:] = rough
    return errors


def facing(aim: Aim, normal: Floats) -> Floats:
    """Returns (n,) cosines between the rays and the ground's normals; 0 grazes."""
    e, f = aim.first, aim.second
    down = [f[1] * e[2] - f[2] * e[1], f[2] * e[0] - f[0] * e[2], f[0] * e[1] - f[1] * e[0]]
    size = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
    return np.asarray(sum(d * m for d, m in zip(down, normal, strict=True)) / size)


def _shift_covariances(causes: list[Cause], n: int) -> tuple[Floats, Floats]:
    """Returns (3, n) xx, xy, yy of the random shifts, and of all."""
    random, total = np.zeros((3, n)), np.zeros((3, n))
    for cause in causes:
        a, b = cause.shift
        for k, (one, two) in enumerate(((a, a), (a, b), (b, b))):
            part = one * two
            total[k] += part
            if not cause.state:
                random[k] += part
    return random, total


def _errors(ground: Floats, random: Floats, causes: list[Cause]) -> Errors:
    """Returns the displacements that shifts cause through (2, 2, n) ground matrices."""
    n = ground.shape[2]
    states = tuple(cause.state for cause in causes if cause.state)
    sensitivity = np.empty((len(states), 2, n))
    by_cause = np.zeros((len(CAUSES), n))
    state = 0
    for cause in causes:
        east, north = on_ground(ground, cause.shift)
        by_cause[CAUSES.index(cause.name)] += east * east + north * north
        if cause.state:
            sensitivity[state, 0], sensitivity[state, 1] = east, north
            state += 1
    covariance = _through(ground, random)
    return Errors(covariance, sensitivity, states, by_cause, np.zeros(n, np.bool_))


def _through(ground: Floats, s: Floats) -> Floats:
    """Returns (2, 2, n) B S Bᵀ of covariances given as (3, n)."""
    (a, b), (c, d) = ground
    xx, xy, yy = s
    out = np.empty_like(ground)
    out[0, 0] = a * a * xx + 2.0 * a * b * xy + b * b * yy
    out[1, 1] = c * c * xx + 2.0 * c * d * xy + d * d * yy
    out[0, 1] = out[1, 0] = a * c * xx + (a * d + b * c) * xy + b * d * yy
    return out


def _is_rough(landing: Landing, aim: Aim, total: Floats) -> np.ndarray:
    """Returns where the ground departs too far from its tangent plane under the 90 % ellipse."""
    terrain, n = landing.ground.surface, len(aim.range_m)
    if terrain.is_plane:
        return np.zeros(n, dtype=bool)
    x, y = landing.xy
    here = terrain.height_m(x, y)
    worst = np.zeros(n)
    turn = landing.to_enu
    for axis, sigma in _principal(total):
        enu = np.sqrt(CHI2_2_P90) * sigma * on_ground(aim.ground, axis)
        east = turn[:, 0, 0] * enu[0] + turn[:, 1, 0] * enu[1]
        north = turn[:, 0, 1] * enu[0] + turn[:, 1, 1] * enu[1]
        rise = landing.normal[0] * enu[0] + landing.normal[1] * enu[1]
        for side in (1.0, -1.0):
            off = terrain.height_m(x + side * east, y + side * north) - here + side * rise
            worst = np.fmax(worst, np.where(np.isnan(off), np.inf, np.abs(off)))
    covariance = _through(aim.ground, total)
    half = 0.5 * (covariance[0, 0] + covariance[1, 1])
    major2 = half + np.hypot(0.5 * (covariance[0, 0] - covariance[1, 1]), covariance[0, 1])
    rays = landing.rays
    flat = np.sqrt(rays[:, 0] ** 2 + rays[:, 1] ** 2) * aim.length / aim.range_m
    limit = ROUGH_SHARE * np.sqrt(CHI2_2_P90 * major2)
    level = np.sqrt(1.0 + landing.normal[0] ** 2 + landing.normal[1] ** 2)
    return np.asarray((worst * flat > limit * level * facing(aim, landing.normal)) & (major2 > 0))


def _principal(s: Floats) -> list[tuple[Floats, Floats]]:
    """Returns the two principal axes (2, n) of covariances (3, n), and the σ (n,) along them."""
    xx, xy, yy = s
    angle = 0.5 * np.arctan2(2.0 * xy, xx - yy)
    half, apart = 0.5 * (xx + yy), np.hypot(0.5 * (xx - yy), xy)
    c, d = np.cos(angle), np.sin(angle)
    large, small = np.sqrt(half + apart), np.sqrt(np.maximum(half - apart, 0.0))
    return [(np.stack([c, d]), large), (np.stack([-d, c]), small)]


def _meet_again(
    landing: Landing, aim: Aim, random: Floats, total: Floats, causes: list[Cause]
) -> Errors:
    """Returns the displacements of rays that meet the ground anew when they are shifted.

    Along each principal axis the odd part of the two landings is what the axis does to first
    order, the even part what it adds to the second moments about the point: Σ(δ₊δ₊ᵀ + δ₋δ₋ᵀ)/6 =
    odd oddᵀ + 3 even evenᵀ. Each cause has its share of an axis by its own shift along it.
    """
    axes = _principal(total)
    ground = np.zeros_like(aim.ground)
    extra, share = np.zeros((2, 2, len(aim.range_m))), np.zeros((len(CAUSES), len(aim.range_m)))
    for axis, sigma in axes:
        ahead, back = (_land(landing, aim, side * ROOT3 * sigma * axis) for side in (1.0, -1.0))
        odd, even = (ahead - back) / (2.0 * ROOT3), (ahead + back) / 6.0
        per_metre = odd / np.maximum(sigma, 1e-12)
        ground += per_metre[:, None] * axis[None, :]
        extra += 3.0 * even[:, None] * even[None, :]
        size = 3.0 * (even[0] ** 2 + even[1] ** 2) / np.maximum(sigma**2, 1e-24)
        for cause in causes:
            along = axis[0] * cause.shift[0] + axis[1] * cause.shift[1]
            share[CAUSES.index(cause.name)] += along**2 * size
    errors = _errors(ground, random, causes)
    return replace(errors, random=errors.random + extra, by_cause=errors.by_cause + share)


def _land(landing: Landing, aim: Aim, shift: Floats) -> Floats:
    """Returns where shifted rays land, (2, n) true east and north of where they did.

    Where they meet no ground the tangent plane stands in.
    """
    enu = aim.first * shift[0] + aim.second * shift[1]
    origin = moved(landing.ground.map_frame, landing.local, landing.origin, enu.T)
    hits = landing.ground.hit(origin, landing.local, landing.rays)
    dx, dy = hits.x_m - landing.xy[0], hits.y_m - landing.xy[1]
    turn = landing.to_enu
    there = np.stack(
        [turn[:, 0, 0] * dx + turn[:, 0, 1] * dy, turn[:, 1, 0] * dx + turn[:, 1, 1] * dy]
    )
    return np.where(np.isfinite(there), there, on_ground(aim.ground, shift))
