"""The true surface of a world: fractal relief with ridges and gullies, its slope and shade."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onboard.simulator.family import Family
from onboard.simulator.noise import Floats32, Window, fractal, octave

Floats = NDArray[np.float64]

STEEPEST = 0.62
"""Largest slope (tangent) a world keeps: nadir rays then meet the surface once."""


@dataclass(frozen=True, slots=True)
class Relief:
    """Heights on square posts; the true surface is bilinear between them.

    Attributes:
        x0_m: Map x of post [0, 0], the south-western one.
        y0_m: Map y of post [0, 0].
        post_m: Spacing of the posts.
        z_m: (rows to the north, columns to the east) heights above the ellipsoid.
    """

    x0_m: float
    y0_m: float
    post_m: float
    z_m: Floats

    def height_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns the ellipsoidal height; beyond the posts that of the nearest edge."""
        rows, columns = self.z_m.shape
        u = np.clip((np.asarray(x_m) - self.x0_m) / self.post_m, 0, columns - 1.000001)
        v = np.clip((np.asarray(y_m) - self.y0_m) / self.post_m, 0, rows - 1.000001)
        i, j = u.astype(np.int64), v.astype(np.int64)
        fu, fv = u - i, v - j
        z = self.z_m
        south = z[j, i] * (1 - fu) + z[j, i + 1] * fu
        north = z[j + 1, i] * (1 - fu) + z[j + 1, i + 1] * fu
        return np.asarray(south * (1 - fv) + north * fv)


def make_relief(
    family: Family, rng: np.random.Generator, centre_xy_m: tuple[float, float], size_m: float
) -> Relief:
    """Returns the relief of a square world of ``size_m`` around a map point, posts 1 m apart.

    A power-law spectrum (Saupe's spectral synthesis) carries the hills; ridged noise adds crests
    and, where it is folded down, gullies. Heights are scaled down where slopes pass STEEPEST.
    """
    n = int(size_m) + 1
    seed = int(rng.integers(2**31))
    slope = family.draw(family.spectral_slope, rng)
    relief_m = family.draw(family.relief_m, rng)
    gully_m = family.draw(family.gully_m, rng)
    x0, y0 = centre_xy_m[0] - (n - 1) / 2, centre_xy_m[1] - (n - 1) / 2
    window = Window(x0, y0 + n - 1, 1.0, n, n)
    hills = _power_law(window, seed, slope)
    crests = 1 - np.abs(octave(window, gully_m, seed + 77) + 0.35 * hills)
    gullies = np.minimum(0, np.abs(octave(window, gully_m * 1.6, seed + 99)) - 0.25)
    rough = 0.06 * fractal(window, seed + 5, 9.0, 2.0, 0.6, family.lacunarity)
    z = np.flipud(relief_m * (hills + 0.25 * crests + 0.9 * gullies)).astype(float)
    z += np.flipud(rough)
    steepest = float(np.quantile(np.hypot(*np.gradient(z)), 0.999))
    z *= min(1.0, STEEPEST / steepest)
    tilt = rng.normal(0, 0.015, 2)
    east, north = np.meshgrid(np.arange(n) - n / 2, np.arange(n) - n / 2)
    base = 1475.0 + rng.uniform(-40, 40)
    return Relief(x0, y0, 1.0, base + z - z.mean() + tilt[0] * east + tilt[1] * north)


def _power_law(window: Window, seed: int, slope: float) -> Floats32:
    """Returns unit-variance noise whose octaves fall as wavelength^((slope−1)/2)."""
    gain = 2 ** (-(slope - 1) / 2 - 0.35)
    return fractal(window, seed, 210.0, 4.0, gain, 2.0)


def surface_in(relief: Relief, window: Window) -> tuple[Floats32, Floats32, Floats32]:
    """Returns height, slope to the east and slope to the north on a window's pixels."""
    u = np.clip((window.x_m - relief.x0_m) / relief.post_m, 0, relief.z_m.shape[1] - 1.001)
    v = np.clip((window.y_m - relief.y0_m) / relief.post_m, 0, relief.z_m.shape[0] - 1.001)
    east = np.gradient(relief.z_m, relief.post_m, axis=1)
    north = np.gradient(relief.z_m, relief.post_m, axis=0)
    wu, wv = _linear_weights(u, relief.z_m.shape[1]), _linear_weights(v, relief.z_m.shape[0])
    height, ex, ny = (
        np.asarray(wv[1] @ g[wv[0], wu[0]].astype(np.float32) @ wu[1].T)
        for g in (relief.z_m - relief.z_m.mean(), east, north)
    )
    return height, ex, ny


def _linear_weights(u: Floats, n: int) -> tuple[slice, Floats32]:
    """Returns the posts in reach and the (len(u), posts) weights of linear interpolation."""
    i = u.astype(np.int64)
    first, last = int(i.min()), min(n, int(i.max()) + 2)
    weights = np.zeros((len(u), last - first), dtype=np.float32)
    rows = np.arange(len(u))
    weights[rows, i - first] = 1 - (u - i)
    weights[rows, i - first + 1] += (u - i).astype(np.float32)
    return slice(first, last), weights


def sunlit(relief: Relief, sun_enu: Floats) -> Floats:
    """Returns 1 at posts that see the sun and 0 in cast shadow, marching 150 m towards it."""
    z = relief.z_m
    horizontal = float(np.hypot(sun_enu[0], sun_enu[1]))
    rise = float(sun_enu[2]) / max(horizontal, 1e-6)
    lit = np.ones_like(z)
    for step in range(2, 150, 4):
        de = round(step * sun_enu[0] / horizontal)
        dn = round(step * sun_enu[1] / horizontal)
        blocker = _shifted(z, dn, de) - np.hypot(de, dn) * relief.post_m * rise
        lit[blocker > z + 0.05] = 0.0
    return lit


def _shifted(z: Floats, rows: int, columns: int) -> Floats:
    """Returns z at (i + rows, j + columns), −∞ beyond its edge."""
    out = np.full_like(z, -np.inf)
    h, w = z.shape
    r0, r1 = max(0, -rows), min(h, h - rows)
    c0, c1 = max(0, -columns), min(w, w - columns)
    out[r0:r1, c0:c1] = z[r0 + rows : r1 + rows, c0 + columns : c1 + columns]
    return out
