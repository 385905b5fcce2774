"""Lays patches on the painted ground: anomalies, look-alikes, vehicles with their shadows."""

from __future__ import annotations

import numpy as np

from onboard.simulator.anomalies import Patch
from onboard.simulator.canvas import Canvas, Sun
from onboard.simulator.family import CLASSES
from onboard.simulator.noise import Floats32, Window, fractal, smoothstep

VEHICLE_HEIGHT_M = 1.7
SHADOW_REACH_M = 4.0


def lay_patches(canvas: Canvas, patches: list[Patch], lacunarity: float, sun: Sun) -> None:
    """Lays all patches that reach into the canvas, look-alikes first."""
    for patch in _in_reach(patches, canvas.window):
        reach = patch.reach_m + (2.5 if patch.material == "vehicle" else 0.2)
        part = canvas.around(patch.x_m, patch.y_m, reach)
        if part is not None:
            _lay_patch(patch, part, lacunarity, sun)


def _in_reach(patches: list[Patch], window: Window) -> list[Patch]:
    west, south, east, north = window.bounds_m
    near = []
    for patch in patches:
        r = patch.reach_m + SHADOW_REACH_M
        if west - r < patch.x_m < east + r and south - r < patch.y_m < north + r:
            near.append(patch)
    return sorted(near, key=lambda p: (p.is_anomaly, p.patch_id))


def _lay_patch(patch: Patch, part: Canvas, lacunarity: float, sun: Sun) -> None:
    """Lays one patch; ``part`` is the canvas around it."""
    window = part.window
    coarse = fractal(window, patch.seed, max(0.5, patch.radius_m * 0.8), 0.2, 0.7, lacunarity)
    alpha = patch.opacity(window, coarse)
    if patch.material == "vehicle":
        _lay_vehicle(patch, part, alpha, sun)
        return
    fine = fractal(window, patch.seed + 3, 0.45, 0.14, 0.8, lacunarity)
    mix = smoothstep(-0.9, 0.9, coarse)[..., None]
    colour = patch.colours[0] * (1 - mix) + patch.colours[1] * mix
    rough = 0.16 if patch.material == "dark_disturbed" else 0.1
    part.lay(colour * np.clip(1 + rough * fine, 0.6, 1.5)[..., None], alpha)
    if patch.material in ("dark_disturbed", "green_rock"):
        part.bumps[...] += alpha * 0.03 * fine
    if patch.is_anomaly:
        part.label[alpha > part.opacity] = CLASSES.index(patch.material)
        np.maximum(part.opacity, alpha, out=part.opacity)
    elif patch.material in ("shrub_clump", "green_rock"):
        part.opacity[...] *= 1 - alpha


def _lay_vehicle(patch: Patch, part: Canvas, alpha: Floats32, sun: Sun) -> None:
    """Paints a white box with dark glass and its shadow."""
    window = part.window
    reach = VEHICLE_HEIGHT_M / np.tan(sun.elevation_rad)
    for share in np.linspace(0.1, 1, 8):
        moved = Window(
            window.x0_m + share * reach * np.sin(sun.azimuth_rad),
            window.y0_m + share * reach * np.cos(sun.azimuth_rad),
            window.gsd_m,
            window.width,
            window.height,
        )
        part.shade(np.asarray(0.95 * patch.opacity(moved, alpha), dtype=np.float32))
    c, s = np.cos(patch.azimuth_rad), np.sin(patch.azimuth_rad)
    along = c * (window.x_m - patch.x_m)[None, :] + s * (window.y_m - patch.y_m)[:, None]
    glass = smoothstep(0.25, 0.2, np.abs(np.abs(along - 0.3).astype(np.float32) - 0.9))
    part.lay(patch.colours[0] * (1 - 0.85 * glass[..., None]), alpha)
    part.lift(alpha)
