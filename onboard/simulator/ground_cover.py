"""Paints the ground: soils, gravel, outcrop, wash and tracks, then all that is on it, and light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onboard.simulator.anomalies import Patch
from onboard.simulator.canvas import Canvas, Sun
from onboard.simulator.family import Family
from onboard.simulator.noise import (
    Floats32,
    Window,
    fractal,
    octave,
    smoothstep,
)
from onboard.simulator.patches import lay_patches
from onboard.simulator.plants import Growth, plant
from onboard.simulator.relief import Relief, surface_in

Floats = NDArray[np.float64]


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

    @property
    def growth(self) -> Growth:
        """What grows and lies about on it."""
        return Growth(
            self.seed,
            self.family.lacunarity,
            self.shrubs,
            self.rocks,
            self.shrub_share,
            self.boulder_share,
        )


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
    canvas = Canvas.of(window, *_bare_ground(cover, relief, window))
    lay_patches(canvas, patches, cover.family.lacunarity, sun)
    plant(canvas, cover.growth, sun)
    light = _light(relief, lit, canvas.bumps, sun, window)
    sky = np.array([0.92, 1.0, 1.14], dtype=np.float32)
    sunny = (light * canvas.shadow)[..., None] * np.float32(1 - sun.ambient)
    open_sky = 0.7 + 0.3 * canvas.shadow[..., None]
    radiance = canvas.albedo * (sunny + np.float32(sun.ambient) * sky * open_sky)
    return Painted(radiance, canvas.opacity, canvas.label, canvas.hidden)


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
