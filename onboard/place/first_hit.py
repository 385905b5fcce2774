"""Where rays first meet the ground, for many rays at once.

A ray leaves the projection centre in local east-north-up. After a slant range t its point lies at
height h = h₀ + t·d_up + s²/2R (s the horizontal distance, R the Earth's radius: the curvature) and
at the map offset k·R/(R+h)·Rz(γ)·(east, north). Refraction is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.geodesy import LocalMap, MapFrame
from onboard.place.surface import GridTerrain, Terrain
from onboard.records import Bools, Floats, Ints

HIT, NO_RAY, SKY, OUTSIDE_DEM, VOID, BELOW_GROUND = range(6)
"""Status of a ray: placed; no ray for that pixel; never comes down; leaves the DEM or passes under
its edge; meets a void of the DEM; the camera lies under the ground."""

STATUS_FLAGS = ("", "no_ray", "sky", "outside_dem", "void", "below_ground")

MAX_STEPS = 200_000
BISECT_STEPS = 60
CLOSE_M = 1e-7
MARGIN_M = 1e-3


@dataclass(frozen=True, slots=True)
class Hits:
    """Where n rays meet the ground; NaN where they do not.

    Attributes:
        x_m: (n,) map x.
        y_m: (n,) map y.
        z_m: (n,) height in the terrain's datum.
        range_m: (n,) slant range.
        status: (n,) ``HIT`` or why not.
    """

    x_m: Floats
    y_m: Floats
    z_m: Floats
    range_m: Floats
    status: Ints


@dataclass(frozen=True, slots=True)
class _Rays:
    """Rays of unit length on the map: start, direction on the map, rise, curvature."""

    start: Floats  # (n, 3) map x, y and height
    toward: Floats  # (n, 2) map x, y per metre of slant range, before R/(R+h)
    rise: Floats  # (n,) height per metre of slant range
    bend: Floats  # (n,) s²/2R = bend · t²
    curve: Floats  # (n,) 1/R

    def take(self, i: Ints | Bools) -> _Rays:
        return _Rays(self.start[i], self.toward[i], self.rise[i], self.bend[i], self.curve[i])

    def at(self, t: Floats) -> tuple[Floats, Floats, Floats]:
        """Returns map x, y and height after slant ranges t."""
        h = self.start[:, 2] + t * (self.rise + t * self.bend)
        along = t / (1.0 + h * self.curve)
        return (
            self.start[:, 0] + along * self.toward[:, 0],
            self.start[:, 1] + along * self.toward[:, 1],
            h,
        )

    def down_to(self, height: Floats | float) -> Floats:
        """Returns the slant range at which rays first come down to a height; NaN where never."""
        c = self.start[:, 2] - height
        with np.errstate(invalid="ignore", divide="ignore"):
            root = np.sqrt(self.rise**2 - 4.0 * self.bend * c)
            t = 2.0 * c / (-self.rise + root)
        return np.where((self.rise < 0) & (c >= 0), t, np.nan)


def first_hit(
    terrain: Terrain,
    map_frame: MapFrame,
    centre_xyz: Floats,
    local: LocalMap,
    rays_enu: Floats,
) -> Hits:
    """Returns the first ground that rays meet.

    Steps of at most half a post from the near side find the first bracket, which is then closed
    to better than a micrometre.

    Args:
        terrain: The ground.
        map_frame: The map.
        centre_xyz: (n, 3) map x, y and height (terrain's datum) where the rays start.
        local: The map at the n starts.
        rays_enu: (n, 3) directions in local east-north-up, any length.
    """
    rays = _rays(map_frame, centre_xyz, local, rays_enu)
    n = len(rays.rise)
    t = np.full(n, np.nan)
    status = np.full(n, SKY, dtype=np.int64)
    usable = np.isfinite(rays.toward).all(axis=1) & np.isfinite(rays.start).all(axis=1)
    status[~usable] = NO_RAY
    index = np.flatnonzero(usable)
    if not np.isfinite(terrain.z_range[0]):
        status[index] = VOID
    elif terrain.is_plane:
        t[index], status[index] = _meet_plane(rays.take(index), terrain.z_range[0])
    else:
        t[index], status[index] = _meet_posts(rays.take(index), terrain)
    x, y, z = rays.at(t)
    return Hits(x, y, z, t, status)


def plane_hit(
    alt_m: Floats, map_frame: MapFrame, centre_xyz: Floats, local: LocalMap, rays_enu: Floats
) -> Hits:
    """Returns where rays meet ground of one height (n,) each, which bends with the Earth."""
    rays = _rays(map_frame, centre_xyz, local, rays_enu)
    t, status = _meet_plane(rays, alt_m)
    usable = np.isfinite(rays.toward).all(axis=1) & np.isfinite(rays.start).all(axis=1)
    x, y, z = rays.at(t)
    return Hits(x, y, z, t, np.where(usable & np.isfinite(alt_m), status, NO_RAY))


def _rays(map_frame: MapFrame, centre: Floats, local: LocalMap, rays_enu: Floats) -> _Rays:
    d = np.asarray(rays_enu, dtype=np.float64)
    d = d / np.sqrt(np.einsum("ij,ij->i", d, d))[:, None]
    curve = 1.0 / local.radius_m + np.zeros(len(d))
    toward = np.stack(map_frame.offset(local, d[:, 0], d[:, 1], 0.0), axis=1)
    bend = (d[:, 0] ** 2 + d[:, 1] ** 2) * curve / 2.0
    return _Rays(np.asarray(centre, dtype=np.float64), toward, d[:, 2], bend, curve)


def _meet_plane(rays: _Rays, height: Floats | float) -> tuple[Floats, Ints]:
    t = rays.down_to(height)
    below = rays.start[:, 2] < height
    status = np.where(np.isfinite(t), HIT, np.where(below, BELOW_GROUND, SKY))
    return t, status.astype(np.int64)


def _meet_posts(rays: _Rays, terrain: Terrain) -> tuple[Floats, Ints]:
    """Returns slant ranges and status of rays over a grid of posts."""
    n = len(rays.rise)
    begin, end, status = _span(rays, terrain)
    status[rays.start[:, 2] < terrain.height_m(rays.start[:, 0], rays.start[:, 1])] = BELOW_GROUND
    t_hit = np.full(n, np.nan)
    live = np.flatnonzero(status == HIT)
    status[live] = OUTSIDE_DEM
    low, high, found = _march(rays.take(live), terrain, begin[live], end[live])
    status[live] = found
    hit = found == HIT
    t, bad = _close(rays.take(live[hit]), terrain, low[hit], high[hit])
    t_hit[live[hit]] = t
    status[live[hit]] = np.where(bad, VOID, HIT)
    status[(status == OUTSIDE_DEM) & ~np.isfinite(rays.down_to(terrain.z_range[0]))] = SKY
    t_hit[status != HIT] = np.nan
    return t_hit, status


def _span(rays: _Rays, terrain: Terrain) -> tuple[Floats, Floats, Ints]:
    """Returns between which slant ranges a ray can meet the posts, and HIT where it can at all."""
    lowest, highest = terrain.z_range[0] - MARGIN_M, terrain.z_range[1] + MARGIN_M
    above = rays.start[:, 2] > highest
    begin = np.where(above, rays.down_to(highest), 0.0)
    status = np.where(np.isfinite(begin), HIT, SKY).astype(np.int64)
    end = rays.down_to(lowest)
    inside_from, inside_to = _box(rays, terrain.bounds)
    end = np.where(np.isfinite(end), end, np.inf)
    end = np.minimum(end, inside_to)
    begin = np.maximum(begin, inside_from)
    passes = np.isfinite(begin) & (begin <= end) & np.isfinite(end)
    status[(status == HIT) & ~passes] = OUTSIDE_DEM
    return begin, end, status


def _box(rays: _Rays, bounds: tuple[float, float, float, float]) -> tuple[Floats, Floats]:
    """Returns the slant ranges at which rays enter and leave the posts' bounds."""
    low = np.array(bounds[:2]) - rays.start[:, :2]
    high = np.array(bounds[2:]) - rays.start[:, :2]
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = low / rays.toward, high / rays.toward
    still = rays.toward == 0
    inside = (low <= 0) & (high >= 0)
    near = np.where(still, np.where(inside, -np.inf, np.inf), np.minimum(a, b))
    far = np.where(still, np.where(inside, np.inf, -np.inf), np.maximum(a, b))
    # R/(R+h) shortens what is above by less than a part in a thousand: reach a little further
    return np.maximum(near.max(axis=1) * (1 - 2e-3), 0.0), far.min(axis=1) * (1 + 2e-3)


def _march(
    rays: _Rays, terrain: Terrain, begin: Floats, end: Floats
) -> tuple[Floats, Floats, Ints]:
    """Returns the first brackets [above, below] of the ground, and what became of each ray."""
    n = len(begin)
    flat = np.hypot(rays.toward[:, 0], rays.toward[:, 1])
    with np.errstate(divide="ignore"):
        step = np.minimum(0.5 * terrain.post_m / flat, np.maximum(end - begin, 1e-9))
    low, high = begin.copy(), begin.copy()
    status = np.full(n, OUTSIDE_DEM, dtype=np.int64)
    gap_seen = np.zeros(n, dtype=bool)
    was_above = np.zeros(n, dtype=bool)
    over_void = np.zeros(n, dtype=bool)
    tiled = terrain if isinstance(terrain, GridTerrain) else None
    live = np.arange(n)
    for _ in range(MAX_STEPS):
        if not len(live):
            break
        part, t = rays.take(live), high[live]
        x, y, h = part.at(t)
        clear = h - terrain.height_m(x, y)
        unknown = np.isnan(clear)
        above = clear > 0
        over_void[live] = unknown & _within(x, y, terrain)
        gap_seen[live] |= over_void[live]
        below = ~unknown & ~above
        status[live[below]] = _under(was_above[live[below]], gap_seen[live[below]], t[below])
        low[live[above]], was_above[live[above]], gap_seen[live[above]] = t[above], True, False
        past = t >= end[live]
        status[live[past & ~below]] = np.where(over_void[live[past & ~below]], VOID, OUTSIDE_DEM)
        going = ~below & ~past
        ahead = _stride(part, tiled, t, step[live], (x, y, clear), flat[live])
        high[live[going]] = np.minimum(t + ahead, end[live])[going]
        live = live[going]
    return low, high, status


def _under(was_above: Bools, gap_seen: Bools, t: Floats) -> Ints:
    """Returns what a sample under the ground means: a hit only straight after one above it."""
    at_start = np.where(t <= 0.0, BELOW_GROUND, OUTSIDE_DEM)
    status = np.where(gap_seen, VOID, np.where(was_above, HIT, at_start))
    return np.asarray(status, dtype=np.int64)


def _stride(
    rays: _Rays,
    tiled: GridTerrain | None,
    t: Floats,
    step: Floats,
    place: tuple[Floats, Floats, Floats],
    flat: Floats,
) -> Floats:
    """Returns the next step: at least half a post, more where the ground cannot reach the ray.

    Within one tile side it cannot where all posts around lie lower, nor before the clearance is
    used up at the steepest slope around.
    """
    if tiled is None:
        return step
    x, y, clear = place
    top, steep = tiled.around(x, y)
    long = np.maximum(0.98 * tiled.tile_m / np.maximum(flat, 1e-9), step)
    here = rays.start[:, 2] + t * (rays.rise + t * rays.bend)
    free = here + np.minimum(0.0, long * rays.rise) > top
    closing = 1.002 * np.maximum(steep, 0.0) * flat - rays.rise
    safe = np.where(closing > 0, clear / np.maximum(closing, 1e-12), np.inf)
    safe = np.where(np.isnan(clear), 0.0, safe)
    return np.where(free, long, np.maximum(step, np.minimum(0.999 * safe, long)))


def _within(x: Floats, y: Floats, terrain: Terrain) -> Bools:
    x0, y0, x1, y1 = terrain.bounds
    return np.asarray((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))


def _close(rays: _Rays, terrain: Terrain, low: Floats, high: Floats) -> tuple[Floats, Bools]:
    """Returns the roots inside brackets (Illinois' regula falsi), and where a void came between."""

    def clear(part: _Rays, t: Floats) -> Floats:
        x, y, h = part.at(t)
        return np.asarray(h - terrain.height_m(x, y))

    low, high = low.copy(), high.copy()
    f_low, f_high = clear(rays, low), clear(rays, high)
    root, last = high.copy(), f_high.copy()
    live = np.flatnonzero(np.abs(f_high) > CLOSE_M)
    for i in range(BISECT_STEPS):
        if not len(live):
            break
        a, b, fa, fb = low[live], high[live], f_low[live], f_high[live]
        t = 0.5 * (a + b) if i % 3 == 2 else b - fb * (b - a) / (fb - fa)
        f = clear(rays.take(live), t)
        up = f > 0
        low[live], f_low[live] = np.where(up, t, a), np.where(up, f, fa)
        high[live], f_high[live] = np.where(up, b, t), np.where(up, fb, f)
        root[live], last[live] = t, f
        live = live[(np.abs(f) > CLOSE_M) & (high[live] - low[live] > CLOSE_M) & np.isfinite(f)]
    return root, np.isnan(last)
