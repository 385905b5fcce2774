"""Field-like changes of labelled crops: place, scale, light, haze, blur, noise, JPEG, shadow."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from models.labels import IGNORE

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


def crop(
    image: Pixels,
    mask: Pixels,
    rng: np.random.Generator,
    size: int,
    *,
    centre: tuple[float, float] | None = None,
    scale: tuple[float, float] = (0.7, 1.5),
) -> tuple[Pixels, Pixels]:
    """Returns a turned, scaled, perhaps mirrored crop (size, size) of an image and its mask.

    What lies outside the image is black and ignored, as unseen ground is in flight.

    Args:
        image: (h, w, 3) RGB.
        mask: (h, w) class indices.
        rng: Random numbers.
        size: Edge of the crop.
        centre: x, y of the crop's middle; random inside the image where it is ``None``.
        scale: Interval of the magnification, drawn log-uniformly.
    """
    height, width = mask.shape
    x, y = centre or (rng.uniform(0, width), rng.uniform(0, height))
    factor = float(np.exp(rng.uniform(*np.log(scale))))
    angle = float(rng.uniform(0, 2 * np.pi))
    cos, sin = factor * np.cos(angle), factor * np.sin(angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    if rng.random() < 0.5:
        turn[:, 0] *= -1
    shift = size / 2 - turn @ (x, y)
    affine = np.column_stack([turn, shift])
    smooth = cv2.INTER_AREA if factor < 0.8 else cv2.INTER_LINEAR
    pixels = cv2.warpAffine(image, affine, (size, size), flags=smooth)
    labels = cv2.warpAffine(
        mask, affine, (size, size), flags=cv2.INTER_NEAREST, borderValue=(IGNORE,) * 4
    )
    return np.asarray(pixels, np.uint8), np.asarray(labels, np.uint8)


def weather(image: Pixels, rng: np.random.Generator, strength: float = 1.0) -> Pixels:
    """Returns the crop under another light, air, lens, sensor and codec.

    Args:
        image: (h, w, 3) RGB; black stays black where a whole pixel is 0.
        rng: Random numbers.
        strength: 0 leaves it as it is, 1 is the field's range.
    """
    unseen = ~image.any(axis=2)
    x = image.astype(np.float32) / 255.0
    x = _light(x, rng, strength)
    if rng.random() < 0.15 * strength:
        x = _shadow(x, rng)
    if rng.random() < 0.15 * strength:
        veil = rng.uniform(0.0, 0.12)
        x = x * (1 - veil) + veil * np.array([0.75, 0.8, 0.85], np.float32)
    if rng.random() < 0.5 * strength:
        x = np.asarray(cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.3, 0.9))), np.float32)
    sigma = rng.uniform(0.0, 0.03) * strength
    grain = rng.standard_normal(x.shape, dtype=np.float32)
    x = x + grain * np.float32(sigma) * np.sqrt(np.clip(x, 0.02, 1.0))
    out = np.asarray(np.clip(x * 255.0 + 0.5, 0, 255), np.uint8)
    if rng.random() < 0.5 * strength:
        out = _jpeg(out, int(rng.integers(60, 97)))
    out[unseen] = 0
    return out


def recolour(image: Pixels, keep: NDArray[np.bool_], rng: np.random.Generator) -> Pixels:
    """Returns the crop with other ground colours, leaving the pixels in ``keep`` as they are."""
    x = image.astype(np.float32)
    gain = np.exp(rng.normal(0.0, 0.04, 3)).astype(np.float32) * np.float32(
        np.exp(rng.normal(0, 0.08))
    )
    grey = x.mean(axis=2, keepdims=True)
    y = (grey + (x - grey) * np.float32(rng.uniform(0.9, 1.1))) * gain
    y[keep] = x[keep]
    return np.asarray(np.clip(y, 0, 255), np.uint8)


def _light(x: Floats, rng: np.random.Generator, strength: float) -> Floats:
    """Returns other exposure, white balance, contrast and tone curve."""
    exposure = np.exp(rng.normal(0.0, 0.10 * strength))
    balance = np.exp(rng.normal(0.0, 0.025 * strength, 3))
    gamma = np.exp(rng.normal(0.0, 0.06 * strength))
    colour = 1 + rng.normal(0.0, 0.06 * strength)
    y = np.power(np.clip(x * (exposure * balance).astype(np.float32), 0, 1), np.float32(gamma))
    grey = y.mean(axis=2, keepdims=True)
    return np.asarray(grey + (y - grey) * np.float32(colour), np.float32)


def _shadow(x: Floats, rng: np.random.Generator) -> Floats:
    """Returns the crop with one cast shadow, bluish and soft at its edge."""
    size = x.shape[0]
    corners = rng.uniform(-0.2 * size, 1.2 * size, (int(rng.integers(3, 6)), 2))
    shade = np.zeros(x.shape[:2], np.float32)
    cv2.fillPoly(shade, [cv2.convexHull(corners.astype(np.int32))], (1.0,))
    soft = cv2.GaussianBlur(shade, (0, 0), float(rng.uniform(0.5, 3.0)))[..., None]
    depth = rng.uniform(0.3, 0.65) * np.array([1.05, 1.0, 0.9])
    return np.asarray(x * (1 - soft * depth.astype(np.float32)), np.float32)


def _jpeg(image: Pixels, quality: int) -> Pixels:
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR), np.uint8)
