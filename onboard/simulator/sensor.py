"""Turns light into an 8-bit image as a small camera does: vignette, blur, noise, tone, JPEG."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from onboard.simulator.noise import Floats32

Image8 = NDArray[np.uint8]

_TONES = 4096


@dataclass(frozen=True, slots=True)
class Sensor:
    """What a camera adds to the light.

    Attributes:
        exposure: Gain on radiance before clipping at 1.
        balance: (3,) gains of red, green, blue.
        vignette: Loss of light in the corners.
        blur_px: σ of lens, motion and demosaicing together.
        full_well_e: Electrons at full scale (shot noise).
        read_e: σ of read noise, electrons.
        jpeg_quality: Of the files.
    """

    exposure: float = 0.9
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    vignette: float = 0.25
    blur_px: float = 0.55
    full_well_e: float = 9000.0
    read_e: float = 8.0
    jpeg_quality: int = 92


def draw_sensor(rng: np.random.Generator, exposure: float) -> Sensor:
    """Returns a random camera whose exposure scatters about the given one."""
    return Sensor(
        exposure=exposure * float(np.exp(rng.normal(0, 0.12))),
        balance=(float(rng.normal(1, 0.03)), 1.0, float(rng.normal(1, 0.03))),
        vignette=float(rng.uniform(0.1, 0.4)),
        blur_px=float(rng.uniform(0.35, 0.9)),
        full_well_e=float(rng.uniform(4000, 16000)),
        read_e=float(rng.uniform(4, 14)),
        jpeg_quality=int(rng.integers(82, 96)),
    )


def auto_exposure(mean_radiance: float) -> float:
    """Returns the exposure that brings mean ground to a usual level."""
    return 0.24 / max(mean_radiance, 1e-3)


def vignette_field(height: int, width: int, loss: float) -> Floats32:
    """Returns (h, w) transmission: 1 in the middle, 1 − loss in the corners, falling as r²."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    return np.asarray(1 - np.float32(loss) * (x * x + y * y) / 2)


def expose(
    radiance: Floats32, sensor: Sensor, transmission: Floats32, rng: np.random.Generator
) -> Image8:
    """Returns the RGB uint8 image of a linear (h, w, 3) radiance."""
    gain = np.asarray(sensor.balance, dtype=np.float32) * np.float32(sensor.exposure)
    light = radiance * (transmission[..., None] * gain)
    if sensor.blur_px > 0:
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), sensor.blur_px), dtype=np.float32)
    light = np.clip(light, 0, 1.2)
    noise = _noise(light.shape, rng)
    well = np.float32(sensor.full_well_e)
    sigma = np.sqrt(light / well + np.float32((sensor.read_e / sensor.full_well_e) ** 2))
    return tone(light + noise * sigma)


def tone(light: Floats32) -> Image8:
    """Returns sRGB-encoded uint8 values of linear light 0-1 (IEC 61966-2-1)."""
    index = np.clip(light * np.float32(_TONES - 1), 0, _TONES - 1).astype(np.uint16)
    return np.asarray(_TONE_TABLE[index])


def jpeg(image: Image8, quality: int) -> bytes:
    """Returns the JPEG file of an RGB image."""
    ok, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    if not ok:
        raise ValueError("cv2.imencode refused the frame")
    return bytes(data)


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> Floats32:
    """Returns unit normal noise cut from a fixed field at a random place (drawing it is slow)."""
    size = int(np.prod(shape))
    start = int(rng.integers(_NOISE.size))
    repeats = -(-(start + size) // _NOISE.size)
    return np.tile(_NOISE, repeats)[start : start + size].reshape(shape)


def _tone_table() -> Image8:
    c = np.linspace(0, 1, _TONES)
    s = np.where(c <= 0.0031308, 12.92 * c, 1.055 * c ** (1 / 2.4) - 0.055)
    return np.round(255 * s).astype(np.uint8)


_TONE_TABLE = _tone_table()
_NOISE = np.random.default_rng(7).standard_normal(1_500_007, dtype=np.float32)
