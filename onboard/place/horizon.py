"""What the ground hides from the camera: a horizon swept outward from the point below it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from onboard.place.ortho_view import FrameView
from onboard.place.surface import GridTerrain
from onboard.records import Floats

MAX_SAMPLES = 6_000_000
ALONG, ACROSS = 8.0, 2.0
"""Samples to a post along a ray, where crests are met, and from ray to ray at the far end."""
NO_GROUND_M = -1.0e6
SECTOR_MARGIN_RAD = 0.02
TOLERANCE_M = 0.02
"""A point counts as hidden when the ground in between stands this much above its line of sight."""


@dataclass(frozen=True, slots=True)
class Horizon:
    """The steepest line of sight that the ground leaves free, by azimuth and distance.

    Attributes:
        centre_m: (2,) map x, y of the camera.
        height_m: Its height.
        radius_m: The Earth's radius (infinite on a plane map).
        start_m: Distance of the first column.
        step_m: Distance between columns.
        first_rad: Azimuth of the first row, counter-clockwise from the map's x.
        turn_rad: Azimuth between rows.
        slope: (azimuths, steps) highest (height − camera) / distance up to each distance.
    """

    centre_m: Floats
    height_m: float
    radius_m: float
    start_m: float
    step_m: float
    first_rad: float
    turn_rad: float
    slope: NDArray[np.float32]

    def hidden_by_m(self, x_m: Floats, y_m: Floats, z_m: Floats) -> Floats:
        """Returns by how many metres the ground in between stands above the line of sight.

        Measured at the point itself; negative where it is in sight, NaN where it has no height.
        """
        dx, dy = x_m - self.centre_m[0], y_m - self.centre_m[1]
        r = np.hypot(dx, dy)
        row = np.mod(np.arctan2(dy, dx) - self.first_rad, 2.0 * np.pi) / self.turn_rad
        # The ground within one step of the point is the point's own.
        col = (r - self.start_m) / self.step_m - 1.0
        free = _bilinear(self.slope, row, np.maximum(col, 0.0))
        own = z_m - self.height_m - r * r / (2.0 * self.radius_m)
        return np.asarray(np.where(col > 0, free * r - own, -1.0) - TOLERANCE_M)


def can_hide(view: FrameView, terrain: GridTerrain, reach_m: float) -> bool:
    """Returns whether any slope of the terrain is steeper than the flattest line of sight."""
    low = float(np.nanmin(terrain.z, initial=np.inf))
    above = view.centre_m[2] - float(np.nanmax(terrain.z, initial=-np.inf))
    if above <= 0 or not np.isfinite(low):
        return True
    with np.errstate(invalid="ignore"):
        steep = max(
            float(np.nanmax(np.abs(np.diff(terrain.z, axis=1)), initial=0.0)) / abs(terrain.dx),
            float(np.nanmax(np.abs(np.diff(terrain.z, axis=0)), initial=0.0)) / abs(terrain.dy),
        )
    return bool(steep * np.sqrt(2.0) > above / max(reach_m, 1e-6))


def sweep_horizon(view: FrameView, terrain: GridTerrain, xy_m: Floats) -> Horizon | None:
    """Returns the horizon around a camera as far as points (n, 2) lie, or ``None`` on tame ground.

    Heights are taken along rays of half a post's spacing at the far end, eight to a
    post along each, and accumulated outward;
    a void hides nothing.

    Args:
        view: The frame.
        terrain: Posts.
        xy_m: Map x, y of what is to be tested.
    """
    centre = view.centre_m[:2]
    d = np.hypot(*(xy_m - centre).T)
    far = float(d.max())
    if not can_hide(view, terrain, far):
        return None
    first, span = _sector(xy_m - centre)
    post = min(abs(terrain.dx), abs(terrain.dy))
    coarser = max(1.0, far / post * float(np.sqrt(span * ALONG * ACROSS / MAX_SAMPLES)))
    step = post / ALONG * coarser
    rays = max(int(np.ceil(span * far * ACROSS / (post * coarser))), 16) + 1
    r = np.arange(step, far + 2.0 * step, step, dtype=np.float32)
    turn = span / (rays - 1)
    azimuth = first + turn * np.arange(rays)
    east, north = np.cos(azimuth) / terrain.dx, np.sin(azimuth) / terrain.dy
    col = np.outer(east.astype(np.float32), r)
    row = np.outer(north.astype(np.float32), r)
    col += np.float32((centre[0] - terrain.x0) / terrain.dx)
    row += np.float32((centre[1] - terrain.y0) / terrain.dy)
    radius, base = float(view.local.radius_m[0]), float(view.centre_m[2])
    posts = np.asarray(terrain.z - base, dtype=np.float32)
    sampled = cv2.remap(
        posts, col, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=NO_GROUND_M
    )
    slope: NDArray[np.float32] = np.asarray(sampled, dtype=np.float32)
    slope -= r * r / np.float32(2.0 * radius)
    slope /= r
    np.copyto(slope, NO_GROUND_M, where=~np.isfinite(slope))
    np.maximum.accumulate(slope, axis=1, out=slope)
    return Horizon(centre, base, radius, step, step, first, turn, slope)


def _sector(offsets_m: Floats) -> tuple[float, float]:
    """Returns first azimuth and span of the sector in which points lie; the full circle if wide."""
    azimuth = np.arctan2(offsets_m[:, 1], offsets_m[:, 0])
    middle = np.arctan2(offsets_m[:, 1].mean(), offsets_m[:, 0].mean())
    away = np.mod(azimuth - middle + np.pi, 2.0 * np.pi) - np.pi
    if np.abs(away).max() > 0.75 * np.pi:
        return -np.pi, 2.0 * np.pi
    first = float(away.min()) - SECTOR_MARGIN_RAD
    return float(middle) + first, float(away.max()) + SECTOR_MARGIN_RAD - first


def _bilinear(grid: NDArray[np.float32], row: Floats, col: Floats) -> Floats:
    i = np.clip(np.floor(row).astype(np.int64), 0, grid.shape[0] - 2)
    j = np.clip(np.floor(col).astype(np.int64), 0, grid.shape[1] - 2)
    a, b = np.clip(row - i, 0.0, 1.0), np.clip(col - j, 0.0, 1.0)
    top = grid[i, j] * (1 - b) + grid[i, j + 1] * b
    below = grid[i + 1, j] * (1 - b) + grid[i + 1, j + 1] * b
    return np.asarray(top * (1 - a) + below * a)
