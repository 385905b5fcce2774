"""Plants shrubs and boulders, one at most in each cell, with their shadows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onboard.simulator.canvas import Canvas, Sun
from onboard.simulator.noise import Floats32, fractal, hash_uniform, smoothstep

CELL_M = 2.4
"""One shrub or boulder at most stands in each cell of this size."""

MARGIN_M = 4.0
"""Things up to this far outside a window may reach into it (shadows too)."""

GROVE_CELLS = 7


@dataclass(frozen=True, slots=True)
class Growth:
    """What grows and lies about.

    Attributes:
        seed: Hash of where and how.
        lacunarity: Of the ragged outlines.
        shrubs: (2, 3) linear reflectances between which shrubs vary.
        rocks: (2, 3) of boulders.
        shrub_share: Share of cells with a shrub, on average.
        boulder_share: Share of cells with a boulder.
    """

    seed: int
    lacunarity: float
    shrubs: Floats32
    rocks: Floats32
    shrub_share: float
    boulder_share: float


@dataclass(frozen=True, slots=True)
class _Plant:
    """One shrub or boulder; ``squat`` is its height over its radius."""

    x_m: float
    y_m: float
    radius_m: float
    squat: float
    colour: Floats32


def plant(canvas: Canvas, growth: Growth, sun: Sun) -> None:
    """Plants all cells that reach into the canvas."""
    seed = growth.seed
    ragged = fractal(canvas.window, seed + 21, 0.5, 0.14, 0.8, growth.lacunarity)
    west, south, east, north = canvas.window.bounds_m
    i = np.arange(int((west - MARGIN_M) // CELL_M), int((east + MARGIN_M) // CELL_M) + 1)
    j = np.arange(int((south - MARGIN_M) // CELL_M), int((north + MARGIN_M) // CELL_M) + 1)
    ii, jj = (g.ravel() for g in np.meshgrid(i, j))
    draws = [0.5 + 0.5 * hash_uniform(ii, jj, seed + 30 + k) for k in range(5)]
    grove = 0.5 + 0.5 * hash_uniform(ii // GROVE_CELLS, jj // GROVE_CELLS, seed + 40)
    is_shrub = draws[0] < growth.shrub_share * 2 * grove
    is_boulder = ~is_shrub & (draws[0] > 1 - growth.boulder_share)
    x = (ii + 0.15 + 0.7 * draws[1]) * CELL_M
    y = (jj + 0.15 + 0.7 * draws[2]) * CELL_M
    radius = np.where(is_shrub, 0.22 + 0.75 * draws[3] ** 2, 0.15 + 0.4 * draws[3] ** 3)
    for k in np.flatnonzero(is_shrub | is_boulder):
        kind = growth.shrubs if is_shrub[k] else growth.rocks
        colour = kind[0] + draws[4][k] * (kind[1] - kind[0])
        squat = 1.1 if is_shrub[k] else 0.9
        one = _Plant(float(x[k]), float(y[k]), float(radius[k]), squat, colour)
        _plant_one(canvas, one, ragged, sun, hides=bool(is_shrub[k]))


def _plant_one(canvas: Canvas, one: _Plant, ragged: Floats32, sun: Sun, hides: bool) -> None:
    """Draws one blob and its shadow; ``ragged`` frays its outline, shrubs hide the ground."""
    shadow_m = min(MARGIN_M, one.radius_m * one.squat / np.tan(sun.elevation_rad))
    part = canvas.around(one.x_m, one.y_m, one.radius_m * 1.4 + shadow_m)
    if part is None:
        return
    window, radius = part.window, np.float32(one.radius_m)
    dx = (window.x_m - one.x_m).astype(np.float32)[None, :]
    dy = (window.y_m - one.y_m).astype(np.float32)[:, None]
    row = round((canvas.window.y0_m - window.y0_m) / window.gsd_m)
    col = round((window.x0_m - canvas.window.x0_m) / window.gsd_m)
    rag = 0.22 * ragged[row : row + window.height, col : col + window.width]
    sx, sy = np.float32(-np.sin(sun.azimuth_rad)), np.float32(-np.cos(sun.azimuth_rad))
    along = dx * sx + dy * sy
    across = dx * sy - dy * sx
    beyond = along - np.clip(along, 0, np.float32(shadow_m))
    dark = smoothstep(-0.12, 0.12, 1 - np.hypot(beyond, across) / radius + rag)
    part.shade(np.float32(0.93) * dark)
    alpha = smoothstep(-0.12, 0.14, 1 - np.hypot(dx, dy) / radius + rag)
    crown = np.clip(1 - 0.35 * along / radius + 0.5 * rag, 0.35, 1.7)
    part.lay(one.colour * crown[..., None], alpha)
    part.lift(alpha)
    if hides:
        np.maximum(part.hidden, alpha, out=part.hidden)
