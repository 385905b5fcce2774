"""Ground that nobody flew: random textures and planted patches with known class, for training."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from models.labels import ANOMALY, IGNORE

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Colours:
    """A box of colours: intervals of hue (degrees), saturation and value."""

    hue_deg: tuple[float, float]
    saturation: tuple[float, float]
    value: tuple[float, float]

    def draw(self, rng: np.random.Generator) -> Floats:
        """Returns one colour, RGB 0-255."""
        hue = rng.uniform(*self.hue_deg) / 360 % 1
        rgb = colorsys.hsv_to_rgb(hue, rng.uniform(*self.saturation), rng.uniform(*self.value))
        return np.asarray(rgb, np.float32) * 255


SOIL = Colours((15, 55), (0.05, 0.45), (0.35, 0.8))
ROCK = Colours((0, 360), (0.0, 0.18), (0.3, 0.62))
PALE = Colours((25, 50), (0.05, 0.25), (0.65, 0.83))
PLANT = Colours((50, 95), (0.25, 0.55), (0.2, 0.45))
MINERAL = {
    "iron_oxide": Colours((4, 38), (0.56, 0.85), (0.42, 0.75)),
    "bleached_quartz": Colours((25, 55), (0.0, 0.17), (0.88, 1.0)),
    "dark_disturbed": Colours((0, 360), (0.0, 0.25), (0.15, 0.31)),
}


def noise(rng: np.random.Generator, size: int, wavelength_px: float, gain: float) -> Floats:
    """Returns (size, size) fractal noise of about unit σ, its longest wave as given."""
    total = np.zeros((size, size), np.float32)
    amplitude, wave = 1.0, wavelength_px
    while wave >= 2:
        cells = int(np.ceil(size / wave)) + 3
        lattice = rng.standard_normal((cells, cells), dtype=np.float32)
        x, y = rng.uniform(0, 1, 2)
        affine = np.array([[wave, 0, -(1 + x) * wave], [0, wave, -(1 + y) * wave]])
        part = cv2.warpAffine(lattice, affine, (size, size), flags=cv2.INTER_CUBIC)
        total += np.float32(amplitude) * part
        amplitude, wave = amplitude * gain, wave / rng.uniform(1.8, 2.4)
    return np.asarray((total - total.mean()) / (total.std() + 1e-6), np.float32)


def ground(rng: np.random.Generator, size: int) -> Pixels:
    """Returns (size, size, 3) random ground: soils and rocks that grade or break, and plants."""
    kinds = [SOIL, SOIL, ROCK, PALE]
    picture = np.broadcast_to(SOIL.draw(rng), (size, size, 3)).astype(np.float32)
    for _ in range(int(rng.integers(1, 4))):
        field = noise(rng, size, float(rng.uniform(30, 300)), float(rng.uniform(0.4, 0.75)))
        sharp = np.float32(np.exp(rng.uniform(0, 3)))
        share = 1 / (1 + np.exp(-np.clip(sharp * (field - np.float32(rng.normal())), -30, 30)))
        other = kinds[int(rng.integers(len(kinds)))].draw(rng)
        picture = picture + share[..., None] * (other - picture)
    relief = noise(rng, size, float(rng.uniform(4, 60)), float(rng.uniform(0.5, 0.9)))
    picture *= np.exp(np.float32(rng.uniform(0.02, 0.14)) * relief)[..., None]
    return _plants(np.asarray(np.clip(picture, 1, 255), np.uint8), rng)


def plant_patches(
    image: Pixels, mask: Pixels, rng: np.random.Generator, count: int
) -> tuple[Pixels, Pixels]:
    """Returns the image with mineral patches laid over its ground, and their mask.

    Patches keep a part of the ground's texture and have ragged, mixed edges. Ground that already
    looks like bleached quartz becomes ignored, not a negative.

    Args:
        image: (n, n, 3) RGB ground.
        mask: (n, n) 0 where the ground is known to be none, 255 where it is not.
        rng: Random numbers.
        count: How many patches.
    """
    out, labels = image.astype(np.float32), mask.copy()
    labels[(image.min(axis=2) > 205) & (labels == 0)] = IGNORE
    light = image.astype(np.float32).mean(axis=2)
    texture = light / (cv2.GaussianBlur(light, (0, 0), 6) + 8)
    for _ in range(count):
        index = int(rng.integers(1, len(ANOMALY)))
        cover, at = _place(_shape(rng), rng, image.shape[0])
        first, second = (MINERAL[ANOMALY[index]].draw(rng) for _ in range(2))
        mix = np.clip(0.5 + 0.4 * noise(rng, max(cover.shape), 12, 0.7), 0, 1)[..., None]
        colour = first + mix[: cover.shape[0], : cover.shape[1]] * (second - first)
        rough = np.power(np.clip(texture[at], 0.5, 1.6), np.float32(rng.uniform(0.2, 1.0)))
        opaque = cover * np.float32(rng.uniform(0.8, 1.0))
        out[at] += opaque[..., None] * (colour * rough[..., None] - out[at])
        labels[at][cover > 0.5] = index
        labels[at][(cover > 0.15) & (cover <= 0.5)] = IGNORE
    labels[~image.any(axis=2)] = IGNORE
    return np.asarray(np.clip(out, 1, 255), np.uint8), labels


def _shape(rng: np.random.Generator) -> Floats:
    """Returns (n, n) cover 0-1 of one ragged, perhaps elongated patch."""
    radius = float(np.exp(rng.uniform(np.log(2.0), np.log(45.0))))
    stretch = float(np.exp(rng.uniform(0, 1.2)))
    size = int(2.8 * radius * stretch) + 6
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) - np.float32(size / 2)
    along = (x * np.cos(angle) + y * np.sin(angle)) / stretch
    across = (y * np.cos(angle) - x * np.sin(angle)) * stretch
    ragged = noise(rng, size, max(4.0, 1.5 * radius), 0.6)
    distance = np.sqrt(along**2 + across**2) / radius + np.float32(rng.uniform(0, 0.3)) * ragged
    edge = float(rng.uniform(0.4, 2.5)) / radius
    return np.asarray(np.clip(0.5 - (distance - 1) / edge, 0, 1), np.float32)


def _place(
    cover: Floats, rng: np.random.Generator, size: int
) -> tuple[Floats, tuple[slice, slice]]:
    """Returns the part of a patch that falls on a (size, size) picture, and where."""
    n = cover.shape[0]
    top, left = (int(v) for v in rng.integers(-n // 2, size - n // 2, 2))
    rows = slice(max(top, 0), min(top + n, size))
    cols = slice(max(left, 0), min(left + n, size))
    part = cover[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
    return part, (rows, cols)


def _plants(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Returns the ground with bushes, stones and their shadows dotted over it."""
    size = image.shape[0]
    shade = (image * np.float32(rng.uniform(0.35, 0.6))).astype(np.uint8)
    toward = rng.uniform(-1.5, 1.5, 2)
    spots = np.zeros((size, size), np.uint8)
    shadow = np.zeros((size, size), np.uint8)
    colours = np.zeros((size, size, 3), np.uint8)
    for _ in range(int(rng.integers(0, 60))):
        x, y = (int(v) for v in rng.uniform(0, size, 2))
        radius = int(rng.uniform(1, 9))
        kind = PLANT if rng.random() < 0.75 else ROCK
        colour = tuple(float(v) for v in kind.draw(rng))
        drop = (round(x + toward[0] * radius), round(y + toward[1] * radius))
        cv2.circle(shadow, drop, radius, (255,), -1)
        cv2.circle(spots, (x, y), radius, (255,), -1)
        cv2.circle(colours, (x, y), radius, colour, -1)
    out = _blend(image, shade, shadow)
    return _blend(out, colours, spots)


def _blend(under: Pixels, over: Pixels, where: Pixels) -> Pixels:
    share = cv2.GaussianBlur(where, (0, 0), 0.7).astype(np.float32)[..., None] / 255
    return np.asarray(np.clip(under + share * (over.astype(np.float32) - under), 1, 255), np.uint8)
