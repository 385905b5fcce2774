"""Paints the ground: soils, gravel, outcrop, wash, tracks, shrubs, patches, light and shadow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onboard.simulator.anomalies import Patch
from onboard.simulator.family import CLASSES, Family
from onboard.simulator.noise import (
    Floats32,
    Window,
    fractal,
    hash_uniform,
    octave,
    smoothstep,
)
from onboard.simulator.relief import Relief, surface_in

Floats = NDArray[np.float64]

CELL_M = 2.4
"""One shrub or boulder at most stands in each cell of this size."""

MARGIN_M = 4.0
"""Things up to this far outside a window may reach into it (shadows too)."""


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the light comes from.

    Attributes:
        azimuth_rad: Clockwise from map north.
        elevation_rad: Above the horizon.
        ambient: Share of sky light on flat ground.
    """

    azimuth_rad: float
    elevation_rad: float
    ambient: float

    @property
    def enu(self) -> Floats:
        """(3,) unit vector towards the sun."""
        c = np.cos(self.elevation_rad)
        s, n = np.sin(self.azimuth_rad), np.cos(self.azimuth_rad)
        return np.array([c * s, c * n, np.sin(self.elevation_rad)])


@dataclass(frozen=True, slots=True)
class Cover:
    """The recipe of a world's ground cover.

    Attributes:
        family: Where its colours and textures come from.
        seed: Hash of its textures.
        soils: (3, 3) linear reflectances that the soil mixes.
        rocks: (2, 3) of outcrop.
        wash: (3,) of the dry wash.
        shrubs: (2, 3) of shrubs.
        gain: Octave gain of its textures.
        shrub_share: Share of cells with a shrub, on average.
        boulder_share: Share of cells with a boulder.
        outcrop: Threshold of the outcrop noise; higher is rarer.
        wash_m: Spacing of the washes.
        tracks: (n, 3) lines a·x + b·y = c (metres from the world's middle) of vehicle tracks.
        centre_xy_m: The world's middle.
    """

    family: Family
    seed: int
    soils: Floats32
    rocks: Floats32
    wash: Floats32
    shrubs: Floats32
    gain: float
    shrub_share: float
    boulder_share: float
    outcrop: float
    wash_m: float
    tracks: Floats
    centre_xy_m: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Painted:
    """A painted window.

    Attributes:
        radiance: (h, w, 3) linear, 1 = white in full sun on flat ground.
        opacity: (h, w) of the anomalies, before shrubs.
        label: (h, w) uint8 class index of the anomaly that is on top; 0 none.
        hidden: (h, w) opacity of the shrubs.
    """

    radiance: Floats32
    opacity: Floats32
    label: NDArray[np.uint8]
    hidden: Floats32


def draw_cover(family: Family, rng: np.random.Generator, centre_xy_m: tuple[float, float]) -> Cover:
    """Returns a random recipe of the family."""
    angle = rng.uniform(0, np.pi, 2)
    lines = np.stack([np.cos(angle), np.sin(angle), rng.uniform(-90, 90, 2)], axis=1)
    return Cover(
        family=family,
        seed=int(rng.integers(2**30)) ^ family.salt,
        soils=np.stack([family.colour("soil", rng) for _ in range(3)]),
        rocks=np.stack([family.colour("rock", rng) for _ in range(2)]),
        wash=family.colour("wash", rng),
        shrubs=np.stack([family.colour("shrub", rng) for _ in range(2)]),
        gain=family.draw(family.gain, rng),
        shrub_share=float(rng.uniform(0.08, 0.3)),
        boulder_share=float(rng.uniform(0.01, 0.06)),
        outcrop=float(rng.uniform(1.0, 2.0)),
        wash_m=float(rng.uniform(90, 160)),
        tracks=lines,
        centre_xy_m=centre_xy_m,
    )


def paint(
    cover: Cover, relief: Relief, lit: Floats, patches: list[Patch], sun: Sun, window: Window
) -> Painted:
    """Returns the painted ground of a window."""
    albedo, bumps = _bare_ground(cover, relief, window)
    opacity = np.zeros((window.height, window.width), dtype=np.float32)
    label = np.zeros((window.height, window.width), dtype=np.uint8)
    shadow = np.ones((window.height, window.width), dtype=np.float32)
    for patch in _in_reach(patches, window):
        _lay_patch(patch, cover, window, albedo, bumps, opacity, label, shadow, sun)
    hidden = _plant_cells(cover, window, albedo, shadow, sun)
    light = _light(relief, lit, bumps, sun, window)
    sky = np.array([0.92, 1.0, 1.14], dtype=np.float32)
    sunny = (light * shadow)[..., None] * np.float32(1 - sun.ambient)
    radiance = albedo * (sunny + np.float32(sun.ambient) * sky * (0.7 + 0.3 * shadow[..., None]))
    return Painted(radiance, opacity, label, hidden)


def _in_reach(patches: list[Patch], window: Window) -> list[Patch]:
    west, south, east, north = window.bounds_m
    near = []
    for patch in patches:
        r = patch.reach_m + MARGIN_M
        if west - r < patch.x_m < east + r and south - r < patch.y_m < north + r:
            near.append(patch)
    return sorted(near, key=lambda p: (p.is_anomaly, p.patch_id))


def _bare_ground(cover: Cover, relief: Relief, window: Window) -> tuple[Floats32, Floats32]:
    """Returns albedo (h, w, 3) and micro-relief (h, w) of soil, gravel, outcrop, wash, tracks."""
    lac, gain, seed = cover.family.lacunarity, cover.gain, cover.seed
    wide = fractal(window, seed + 1, 60.0, 6.0, gain, lac)
    mid = fractal(window, seed + 2, 9.0, 0.7, gain, lac)
    fine = fractal(window, seed + 3, 0.9, 0.14, 0.8, lac)
    share = smoothstep(-1.1, 1.1, wide + 0.45 * mid)[..., None]
    third = smoothstep(0.1, 1.8, octave(window, 23.0, seed + 4) + 0.5 * mid)[..., None]
    albedo = cover.soils[0] * (1 - share) + cover.soils[1] * share
    albedo = albedo * (1 - 0.8 * third) + cover.soils[2] * (0.8 * third)
    albedo *= (1 + 0.09 * mid + 0.085 * fine)[..., None]
    bumps = 0.03 * mid + 0.012 * fine
    gravel = smoothstep(0.2, 1.4, octave(window, 14.0, seed + 5))
    stones = fractal(window, seed + 6, 0.32, 0.14, 0.9, lac)
    albedo *= (1 + gravel * np.clip(0.22 * stones, -0.35, 0.3))[..., None]
    bumps += 0.02 * gravel * stones
    _, ex, ny = surface_in(relief, window)
    steep = np.hypot(ex, ny)
    cracks = 1 - np.abs(fractal(window, seed + 8, 3.2, 0.3, 0.62, lac))
    bare = np.asarray(0.9 * wide + 0.5 * mid + 2.0 * steep + 0.25 * cracks, dtype=np.float32)
    rock = smoothstep(cover.outcrop, cover.outcrop + 0.5, bare)
    tone = smoothstep(-1, 1, octave(window, 4.0, seed + 9))[..., None]
    stone = cover.rocks[0] * (1 - tone) + cover.rocks[1] * tone
    stone = stone * (0.86 + 0.16 * cracks + 0.06 * fine)[..., None]
    albedo = albedo * (1 - rock[..., None]) + stone * rock[..., None]
    bumps += rock * 0.10 * cracks
    _wash_and_tracks(cover, window, albedo, bumps, mid, fine)
    return np.maximum(albedo, np.float32(0.01)), bumps


def _wash_and_tracks(
    cover: Cover, window: Window, albedo: Floats32, bumps: Floats32, mid: Floats32, fine: Floats32
) -> None:
    """Paints the dry wash and the wheel tracks into albedo and micro-relief."""
    bend = octave(window, cover.wash_m, cover.seed + 11)
    bed = smoothstep(0.055, 0.02, np.abs(bend + 0.03 * mid).astype(np.float32))[
        ..., None
    ] * np.float32(0.85)
    albedo += bed * (cover.wash * (1 + 0.05 * fine[..., None]) - albedo)
    bumps *= 1 - 0.6 * bed[..., 0]
    x = (window.x_m - cover.centre_xy_m[0]).astype(np.float32)[None, :]
    y = (window.y_m - cover.centre_xy_m[1]).astype(np.float32)[:, None]
    sway = 6 * octave(window, 70.0, cover.seed + 12) + 0.08 * mid
    for a, b, c in cover.tracks:
        across = np.abs(np.float32(a) * x + np.float32(b) * y - np.float32(c) + sway)
        if float(across.min()) > 2:
            continue
        rut = smoothstep(0.28, 0.12, np.abs(across - 0.8)) * (0.55 + 0.2 * np.clip(mid, -1, 1))
        pale = 1.22 * cover.soils.mean(axis=0)
        albedo += rut[..., None] * (pale - albedo)
        bumps -= 0.02 * rut


def _lay_patch(
    patch: Patch,
    cover: Cover,
    window: Window,
    albedo: Floats32,
    bumps: Floats32,
    opacity: Floats32,
    label: NDArray[np.uint8],
    shadow: Floats32,
    sun: Sun,
) -> None:
    """Lays one patch onto the ground, in place; a vehicle also casts a shadow."""
    reach = patch.reach_m + (2.5 if patch.material == "vehicle" else 0.2)
    block = _block(window, patch.x_m, patch.y_m, reach)
    if block is None:
        return
    rows, cols, part = block
    lac = cover.family.lacunarity
    coarse = fractal(part, patch.seed, max(0.5, patch.radius_m * 0.8), 0.2, 0.7, lac)
    alpha = patch.opacity(part, coarse)
    if patch.material == "vehicle":
        _lay_vehicle(patch, part, alpha, albedo[rows, cols], shadow[rows, cols], sun)
        return
    fine = fractal(part, patch.seed + 3, 0.45, 0.14, 0.8, lac)
    mix = smoothstep(-0.9, 0.9, coarse)[..., None]
    colour = patch.colours[0] * (1 - mix) + patch.colours[1] * mix
    rough = 0.16 if patch.material == "dark_disturbed" else 0.1
    colour = colour * np.clip(1 + rough * fine, 0.6, 1.5)[..., None]
    view = albedo[rows, cols]
    view += alpha[..., None] * (colour - view)
    if patch.material in ("dark_disturbed", "green_rock"):
        bumps[rows, cols] += alpha * 0.03 * fine
    if patch.is_anomaly:
        above = alpha > opacity[rows, cols]
        label[rows, cols][above] = CLASSES.index(patch.material)
        np.maximum(opacity[rows, cols], alpha, out=opacity[rows, cols])
    elif patch.material in ("shrub_clump", "vehicle", "green_rock"):
        opacity[rows, cols] *= 1 - alpha


def _lay_vehicle(
    patch: Patch, part: Window, alpha: Floats32, albedo: Floats32, shadow: Floats32, sun: Sun
) -> None:
    """Paints a white box with dark glass, its shadow 1.7 m high."""
    reach = 1.7 / np.tan(sun.elevation_rad)
    for share in np.linspace(0.1, 1, 8):
        moved = Window(
            part.x0_m + share * reach * np.sin(sun.azimuth_rad),
            part.y0_m + share * reach * np.cos(sun.azimuth_rad),
            part.gsd_m,
            part.width,
            part.height,
        )
        np.minimum(shadow, 1 - 0.95 * patch.opacity(moved, alpha), out=shadow)
    c, s = np.cos(patch.azimuth_rad), np.sin(patch.azimuth_rad)
    along = c * (part.x_m - patch.x_m)[None, :] + s * (part.y_m - patch.y_m)[:, None]
    glass = smoothstep(0.25, 0.2, np.abs(np.abs(along - 0.3).astype(np.float32) - 0.9))
    paint_rgb = patch.colours[0] * (1 - 0.85 * glass[..., None])
    albedo += alpha[..., None] * (paint_rgb - albedo)
    np.maximum(shadow, alpha, out=shadow)


def _plant_cells(
    cover: Cover, window: Window, albedo: Floats32, shadow: Floats32, sun: Sun
) -> Floats32:
    """Plants shrubs and boulders with their shadows, in place; returns what shrubs hide."""
    hidden = np.zeros((window.height, window.width), dtype=np.float32)
    ragged = fractal(window, cover.seed + 21, 0.5, 0.14, 0.8, cover.family.lacunarity)
    west, south, east, north = window.bounds_m
    i = np.arange(int((west - MARGIN_M) // CELL_M), int((east + MARGIN_M) // CELL_M) + 1)
    j = np.arange(int((south - MARGIN_M) // CELL_M), int((north + MARGIN_M) // CELL_M) + 1)
    ii, jj = (g.ravel() for g in np.meshgrid(i, j))
    draws = [0.5 + 0.5 * hash_uniform(ii, jj, cover.seed + 30 + k) for k in range(5)]
    grove = 0.5 + 0.5 * hash_uniform(ii // 7, jj // 7, cover.seed + 40)
    is_shrub = draws[0] < cover.shrub_share * 2 * grove
    is_boulder = ~is_shrub & (draws[0] > 1 - cover.boulder_share)
    x = (ii + 0.15 + 0.7 * draws[1]) * CELL_M
    y = (jj + 0.15 + 0.7 * draws[2]) * CELL_M
    radius = np.where(is_shrub, 0.22 + 0.75 * draws[3] ** 2, 0.15 + 0.4 * draws[3] ** 3)
    for k in np.flatnonzero(is_shrub | is_boulder):
        kind = cover.shrubs if is_shrub[k] else cover.rocks
        colour = kind[0] + draws[4][k] * (kind[1] - kind[0])
        squat = 1.1 if is_shrub[k] else 0.9
        alpha_at = _plant(
            window,
            float(x[k]),
            float(y[k]),
            float(radius[k]),
            squat,
            colour,
            ragged,
            albedo,
            shadow,
            sun,
        )
        if alpha_at is not None and is_shrub[k]:
            rows, cols, alpha = alpha_at
            np.maximum(hidden[rows, cols], alpha, out=hidden[rows, cols])
    return hidden


def _plant(
    window: Window,
    x_m: float,
    y_m: float,
    radius_m: float,
    squat: float,
    colour: Floats32,
    ragged: Floats32,
    albedo: Floats32,
    shadow: Floats32,
    sun: Sun,
) -> tuple[slice, slice, Floats32] | None:
    """Draws one blob and its shadow, in place; returns where it stands and its opacity."""
    reach = min(MARGIN_M, radius_m * squat / np.tan(sun.elevation_rad))
    block = _block(window, x_m, y_m, radius_m * 1.4 + reach)
    if block is None:
        return None
    rows, cols, part = block
    dx = (part.x_m - x_m).astype(np.float32)[None, :]
    dy = (part.y_m - y_m).astype(np.float32)[:, None]
    rag = 0.22 * ragged[rows, cols]
    sx, sy = -np.sin(sun.azimuth_rad), -np.cos(sun.azimuth_rad)
    along = dx * np.float32(sx) + dy * np.float32(sy)
    across = dx * np.float32(sy) - dy * np.float32(sx)
    beyond = along - np.clip(along, 0, np.float32(reach))
    dark = smoothstep(-0.12, 0.12, 1 - np.hypot(beyond, across) / np.float32(radius_m) + rag)
    np.minimum(shadow[rows, cols], 1 - np.float32(0.93) * dark, out=shadow[rows, cols])
    inside = 1 - np.hypot(dx, dy) / np.float32(radius_m)
    alpha = smoothstep(-0.12, 0.14, inside + rag)
    crown = np.clip(1 - 0.35 * along / np.float32(radius_m) + 0.5 * rag, 0.35, 1.7)
    view = albedo[rows, cols]
    view += alpha[..., None] * (colour * crown[..., None] - view)
    np.maximum(shadow[rows, cols], alpha, out=shadow[rows, cols])
    return rows, cols, alpha


def _block(
    window: Window, x_m: float, y_m: float, reach_m: float
) -> tuple[slice, slice, Window] | None:
    """Returns the rows, columns and window of the pixels within reach of a point."""
    g = window.gsd_m
    c0 = max(0, int((x_m - reach_m - window.x0_m) / g))
    c1 = min(window.width, int((x_m + reach_m - window.x0_m) / g) + 2)
    r0 = max(0, int((window.y0_m - y_m - reach_m) / g))
    r1 = min(window.height, int((window.y0_m - y_m + reach_m) / g) + 2)
    if c1 <= c0 or r1 <= r0:
        return None
    return slice(r0, r1), slice(c0, c1), window.part(r0, c0, r1 - r0, c1 - c0)


def _light(relief: Relief, lit: Floats, bumps: Floats32, sun: Sun, window: Window) -> Floats32:
    """Returns (h, w) direct light, 1 on flat ground: Lambert on relief and micro-relief."""
    _, ex, ny = surface_in(relief, window)
    lit_relief = Relief(relief.x0_m, relief.y0_m, relief.post_m, lit)
    seen, _, _ = surface_in(lit_relief, window)
    seen = np.clip(seen + np.float32(lit.mean()), 0, 1)
    by = np.zeros_like(bumps)
    bx = np.zeros_like(bumps)
    bx[:, 1:-1] = (bumps[:, 2:] - bumps[:, :-2]) / np.float32(2 * window.gsd_m)
    by[1:-1] = (bumps[:-2] - bumps[2:]) / np.float32(2 * window.gsd_m)
    sx, sy, sz = (np.float32(v) for v in sun.enu)
    gx, gy = ex + np.clip(bx, -0.5, 0.5), ny + np.clip(by, -0.5, 0.5)
    cosine = (-gx * sx - gy * sy + sz) / np.sqrt(1 + gx * gx + gy * gy)
    return np.asarray(np.clip(cosine / sz, 0, 1.8) * (0.05 + 0.95 * seen), dtype=np.float32)
