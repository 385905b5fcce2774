"""The painted ground as one large picture, kept in a file that several processes can map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onboard.simulator.noise import Window
from onboard.simulator.world import World

GSD_M = 0.07
BLOCK_PX = 768
BRIGHTEST = 1.4
"""Radiance of the value 255; values are its square root, so that shadows keep their tones."""


@dataclass(frozen=True, slots=True)
class GroundRaster:
    """Radiance of the ground around a survey.

    Attributes:
        window: Its pixels.
        values: (h, w, 3) uint8, 255·√(radiance / BRIGHTEST).
    """

    window: Window
    values: NDArray[np.uint8]

    @property
    def mean_radiance(self) -> float:
        """Of every eighth pixel."""
        sample = np.asarray(self.values[::8, ::8], dtype=np.float32) / 255
        return float((sample * sample).mean() * BRIGHTEST)


def paint_raster(
    world: World,
    bounds_m: tuple[float, float, float, float],
    path: Path | None = None,
    gsd_m: float = GSD_M,
    note: Callable[[float], None] | None = None,
) -> GroundRaster:
    """Returns the ground within west, south, east, north; kept in a ``.npy`` where asked for.

    A file that is already there is mapped, not painted again.
    """
    west, south, east, north = bounds_m
    width, height = int(np.ceil((east - west) / gsd_m)), int(np.ceil((north - south) / gsd_m))
    window = Window(west + gsd_m / 2, north - gsd_m / 2, gsd_m, width, height)
    shape = (height, width, 3)
    if path is not None and path.exists():
        return GroundRaster(window, np.load(path, mmap_mode="r"))
    values: NDArray[np.uint8]
    if path is None:
        values = np.empty(shape, dtype=np.uint8)
    else:
        values = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    for row in range(0, height, BLOCK_PX):
        for col in range(0, width, BLOCK_PX):
            part = world.paint(window.part(row, col, BLOCK_PX, BLOCK_PX)).radiance
            h, w = part.shape[:2]
            root = np.sqrt(np.clip(part / np.float32(BRIGHTEST), 0, 1)) * np.float32(255)
            values[row : row + h, col : col + w] = np.round(root).astype(np.uint8)
        if note:
            note(min(1.0, (row + BLOCK_PX) / height))
    if isinstance(values, np.memmap):
        values.flush()
    return GroundRaster(window, values)
