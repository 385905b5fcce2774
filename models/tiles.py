"""Cutting an image into tiles of a fixed shape with a halo, and laying the answers together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.manifest import Tiling

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of an image.

    Attributes:
        top: Row of its first pixel in the image; negative where the tile begins outside.
        left: Column of its first pixel.
        inner: Rows then columns of the image that it answers for: (y0, y1, x0, x1).
    """

    top: int
    left: int
    inner: tuple[int, int, int, int]


def tile_size(height: int, width: int, tiling: Tiling) -> int:
    """Returns the smallest fixed edge that takes the image whole, else the largest edge."""
    longest = max(height, width)
    whole = [size for size in sorted(tiling.sizes_px) if size >= longest]
    return whole[0] if whole else max(tiling.sizes_px)


def plan(height: int, width: int, size: int, halo: int) -> list[Tile]:
    """Returns the tiles that cover an image, their inner parts side by side."""
    rows, cols = _starts(height, size, halo), _starts(width, size, halo)
    return [Tile(top, left, (y0, y1, x0, x1)) for top, y0, y1 in rows for left, x0, x1 in cols]


def cut(image: Pixels, tile: Tile, size: int) -> Pixels:
    """Returns the tile's pixels (size, size, bands), black outside the image."""
    y0, x0 = max(tile.top, 0), max(tile.left, 0)
    part = image[y0 : tile.top + size, x0 : tile.left + size]
    if part.shape[:2] == (size, size):
        return np.ascontiguousarray(part)
    out = np.zeros((size, size, image.shape[2]), np.uint8)
    dy, dx = y0 - tile.top, x0 - tile.left
    out[dy : dy + part.shape[0], dx : dx + part.shape[1]] = part
    return out


def tiled(
    image: Pixels,
    seen: NDArray[np.bool_] | None,
    tiling: Tiling,
    run: Callable[[Pixels], dict[str, Floats]],
    strides: dict[str, int],
) -> dict[str, Floats]:
    """Returns each output (h/stride, w/stride, classes) of a whole image.

    Args:
        image: (h, w, bands) uint8.
        seen: (h, w) True where the image shows ground; tiles without any are not run and stay 0.
        tiling: Tile edges and halo.
        run: The network: (size, size, bands) to arrays (size/stride, size/stride, classes).
        strides: Pixels per cell of each output, dividing 32.
    """
    height, width = image.shape[:2]
    size = tile_size(height, width, tiling)
    out: dict[str, Any] = {}
    for tile in plan(height, width, size, tiling.halo_px):
        y0, y1, x0, x1 = tile.inner
        if seen is not None and not seen[y0:y1, x0:x1].any():
            continue
        for name, answer in run(cut(image, tile, size)).items():
            s = strides[name]
            if name not in out:
                shape = (-(-height // s), -(-width // s), answer.shape[2])
                out[name] = np.zeros(shape, np.float32)
            rows, cols = slice(y0 // s, -(-y1 // s)), slice(x0 // s, -(-x1 // s))
            dy, dx = tile.top // s, tile.left // s
            out[name][rows, cols] = answer[
                rows.start - dy : rows.stop - dy, cols.start - dx : cols.stop - dx
            ]
    return out


def _starts(length: int, size: int, halo: int) -> list[tuple[int, int, int]]:
    """Returns (first pixel, inner begin, inner end) along one axis; all begins divide by 32."""
    if length <= size:
        return [(0, 0, length)]
    step = (size - 2 * halo) // 32 * 32
    starts = []
    begin, top = 0, 0
    while True:
        last = top + size >= length
        end = length if last else top + size - halo
        starts.append((top, begin, end))
        if last:
            return starts
        begin, top = end, top + step
