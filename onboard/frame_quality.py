"""Whether a frame is sharp and bright enough to count as a look."""

from __future__ import annotations

import cv2
import numpy as np

from onboard.records import Floats, Image

DARK_LEVEL = 0.04
"""Median brightness below which a frame is dark, as a share of full scale."""
BLANK_SPREAD = 0.012
"""Spread of brightness (p95 − p5) below which a frame shows nothing."""
BLUR_RATIO = 0.31
"""Ratio of fine to coarse gradients below which a frame is blurred."""
WORK_PX = 1024
TILES = 4


def frame_quality(pixels: Image) -> str:
    """Returns ``good``, ``dark`` (also blank: lens cap) or ``blurred``.

    Blur is judged against the frame itself: a sharp image has gradients between neighbouring
    pixels nearly as strong as between pixels four times as far apart; a blurred one lacks the
    fine ones. Sharp ground with little texture is not blurred.

    Args:
        pixels: (h, w, bands) or (h, w), 8 or 16 bits.
    """
    grey = grey_levels(pixels)
    low, middle, high = np.quantile(grey[::8, ::8], (0.05, 0.5, 0.95))
    if middle < DARK_LEVEL or high - low < BLANK_SPREAD:
        return "dark"
    return "blurred" if fineness(grey) < BLUR_RATIO else "good"


def grey_levels(pixels: Image) -> Floats:
    """Returns the (h, w) brightness, 0-1."""
    full = float(np.iinfo(pixels.dtype).max)
    if pixels.ndim == 3:
        pixels = pixels[..., min(1, pixels.shape[2] - 1)]
    return np.asarray(pixels, np.float32) / np.float32(full)  # type: ignore[return-value]


def fineness(grey: Floats) -> float:
    """Returns the ratio of fine to coarse gradient energy, the best of the frame's tiles.

    Differences of neighbours against differences of 4-pixel means:
    0.7-1.6 for a sharp one; a Gaussian blur of 2 px leaves 0.34, a wide one 0.25.
    """
    h, w = (n // TILES // 4 * 4 for n in grey.shape)
    best = 0.0
    for i in range(TILES):
        for j in range(TILES):
            tile = grey[i * h : (i + 1) * h, j * w : (j + 1) * w]
            small = cv2.resize(tile, (w // 4, h // 4), interpolation=cv2.INTER_AREA)
            coarse = float(
                np.mean(np.abs(np.diff(small, axis=1))) + np.mean(np.abs(np.diff(small, axis=0)))
            )
            fine = float(
                np.mean(np.abs(np.diff(tile, axis=1))) + np.mean(np.abs(np.diff(tile, axis=0)))
            )
            best = max(best, fine / coarse) if coarse > 1e-4 else best
    return best
