"""Takes sensor noise out of orthos before the network looks: a guided filter, box sums only."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Denoise = Literal["none", "guided"]

RADIUS_PX = 2
STRENGTH = 1.5
"""ε is (STRENGTH · σ)²: what varies less than the noise is smoothed, what varies more stays."""
NOISY_DN = 6.0
"""σ in the bands' mean from which denoising pays, by ``benchmarks/denoise_gain.py``."""
TO_SIGMA = 0.2088856896
"""From the mean absolute response of Immerkær's kernel to σ: √(π/2) / 6."""


def noise_sigma(grey: NDArray[np.float32]) -> float:
    """Returns the noise's σ of an (h, w) image, in its own units (Immerkær 1996).

    Its kernel is blind to planes and edges; fine texture counts as noise, so that the median of
    its response over blocks is taken.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = np.abs(cv2.filter2D(grey, cv2.CV_32F, kernel))
    rows, cols = (max(1, side // 32) for side in grey.shape)
    blocks = cv2.resize(response, (cols, rows), interpolation=cv2.INTER_AREA)
    return float(np.median(blocks)) * TO_SIGMA


def sigma_of(image: NDArray[np.uint8]) -> float:
    """Returns the noise's σ in the mean of the bands of an (h, w, bands) image."""
    return noise_sigma(np.asarray(image.mean(axis=2), np.float32))


def denoised(image: NDArray[np.uint8], sigma: float | None = None) -> NDArray[np.uint8]:
    """Returns an image (h, w, bands) smoothed where it varies no more than its noise.

    The guided filter of He, Sun and Tang (2013) with the mean of the bands as the guide: a·G + b
    in windows of 5 × 5, by box sums, so that its cost does not depend on the scene.

    Args:
        image: (h, w, bands) values of 8 bits.
        sigma: σ of the noise; found in the image itself where it is not given.
    """
    bands: NDArray[np.float32] = image.astype(np.float32)
    guide = np.asarray(bands.mean(axis=2), np.float32)
    eps = (STRENGTH * (noise_sigma(guide) if sigma is None else sigma)) ** 2
    mean_g, mean_b = _box(guide), _box(bands)
    var = _box(guide * guide) - mean_g * mean_g
    cov = _box(bands * guide[..., None]) - mean_b * mean_g[..., None]
    slope = cov / np.maximum(var + np.float32(eps), np.float32(1e-6))[..., None]
    offset = mean_b - slope * mean_g[..., None]
    out = _box(slope) * guide[..., None] + _box(offset)
    return np.asarray(np.clip(np.rint(out), 0, 255), np.uint8)


def quieted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns an image denoised where its noise is ``NOISY_DN`` or more, else as it is.

    Below, the filter costs more detail than the noise costs detections.

    Args:
        image: (h, w, bands) values of 8 bits.
    """
    sigma = sigma_of(image)
    return denoised(image, sigma) if sigma >= NOISY_DN else image


def _box(values: NDArray[np.floating]) -> NDArray[np.float32]:
    size = 2 * RADIUS_PX + 1
    found = cv2.blur(values, (size, size), borderType=cv2.BORDER_REFLECT)
    return np.asarray(found.reshape(values.shape), np.float32)
