"""Where the exact nodes of a backward map lie: on DEM posts, subdivided."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onboard.records import Floats, Ints

MAX_NODE_PX = 20.0
"""Nodes are at most this many output pixels apart."""
LEAST_NODE_PX = 2.0
"""Where they would stand closer, every pixel is a node."""


@dataclass(frozen=True)
class NodeAxis:
    """Where the nodes lie along one axis of the grid.

    Attributes:
        at_px: (n,) increasing grid coordinates, fractional; they span all pixels.
        cell: (pixels,) the cell that holds each pixel.
        weight: (pixels,) how far along its cell each pixel lies, 0-1.
        starts: (n,) first pixel of each cell, and the number of pixels at the end.
    """

    at_px: Floats
    cell: Ints
    weight: NDArray[np.float32]
    starts: Ints

    @classmethod
    def of(cls, at_px: Floats, pixels: int) -> NodeAxis:
        """Returns the axis of these nodes over that many pixels."""
        at = np.asarray(at_px, np.float64)
        index = np.arange(pixels)
        cell = np.clip(np.searchsorted(at, index, side="right") - 1, 0, len(at) - 2)
        weight = (index - at[cell]) / (at[cell + 1] - at[cell])
        starts = np.searchsorted(cell, np.arange(len(at)))
        return cls(at, cell, weight.astype(np.float32), starts)

    @classmethod
    def pixels(cls, pixels: int) -> NodeAxis:
        """Returns the axis with a node on every pixel."""
        return cls.of(np.arange(max(pixels, 2), dtype=np.float64), pixels)


def post_axis(first_px: float, spacing_px: float, pixels: int) -> NodeAxis:
    """Returns nodes on DEM posts, the posts subdivided to at most 20 pixels.

    Args:
        first_px: Grid coordinate of the first post.
        spacing_px: Grid pixels between posts (above 0: increasing with the grid).
        pixels: Number of pixels along the axis. Beyond the posts the lattice goes on.
    """
    if spacing_px < LEAST_NODE_PX:
        return NodeAxis.pixels(pixels)
    step = spacing_px / np.ceil(spacing_px / MAX_NODE_PX)
    low = np.floor((0.0 - first_px) / step)
    high = max(np.ceil((pixels - 1 - first_px) / step), low + 1)
    return NodeAxis.of(first_px + step * np.arange(low, high + 1), pixels)
