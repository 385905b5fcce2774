"""What is planted in a world: anomalies with their truth, and the look-alikes that are none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onboard.simulator.family import CLASSES, Family
from onboard.simulator.noise import Floats32, Window, smoothstep

Floats = NDArray[np.float64]

LOOK_ALIKES = ("red_soil", "green_rock", "playa", "vehicle", "shrub_clump")
_HARMONICS = 7


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch of ground cover with an irregular outline.

    Attributes:
        patch_id: Counts up within the world.
        material: A class of CLASSES, or one of LOOK_ALIKES.
        x_m: Map x of its middle.
        y_m: Map y of its middle.
        radius_m: Mean radius before stretching.
        stretch: Length over width.
        azimuth_rad: Direction of its length, counter-clockwise from map east.
        harmonics: (2, 7) amplitudes of cosine and sine of the outline's radius.
        edge: Width of the outline's transition over the radius.
        mottle: How far texture eats into the outline, over the radius.
        strength: Largest opacity.
        colours: (2, 3) linear reflectances that it mixes.
        seed: Hash of its texture.
    """

    patch_id: int
    material: str
    x_m: float
    y_m: float
    radius_m: float
    stretch: float
    azimuth_rad: float
    harmonics: Floats
    edge: float
    mottle: float
    strength: float
    colours: Floats32
    seed: int

    @property
    def is_anomaly(self) -> bool:
        """Whether it is one of the classes that the survey looks for."""
        return self.material in CLASSES[1:]

    @property
    def reach_m(self) -> float:
        """Radius of a circle that holds all of it."""
        swell = 1 + float(np.hypot(self.harmonics[0], self.harmonics[1]).sum())
        return self.radius_m * math.sqrt(self.stretch) * swell * (1 + self.edge + self.mottle)

    def opacity(self, window: Window, texture: Floats32) -> Floats32:
        """Returns (h, w) opacity on a window, given unit-variance texture there."""
        dx = (window.x_m - self.x_m)[None, :]
        dy = (window.y_m - self.y_m)[:, None]
        c, s = np.cos(self.azimuth_rad), np.sin(self.azimuth_rad)
        along = (c * dx + s * dy) / np.sqrt(self.stretch)
        across = (-s * dx + c * dy) * np.sqrt(self.stretch)
        if self.material == "vehicle":
            inside = self.radius_m - np.maximum(np.abs(along), np.abs(across))
            return smoothstep(-0.03, 0.03, inside.astype(np.float32))
        angle = np.arctan2(across, along)
        k = np.arange(1, _HARMONICS + 1)[:, None, None]
        outline = (
            1
            + np.einsum("k,kij->ij", self.harmonics[0], np.cos(k * angle))
            + np.einsum("k,kij->ij", self.harmonics[1], np.sin(k * angle))
        )
        inside = 1 - np.hypot(along, across) / (self.radius_m * outline)
        inside = inside + self.mottle * np.clip(texture, -2, 2)
        return np.float32(self.strength) * smoothstep(
            -self.edge / 2, self.edge / 2, inside.astype(np.float32)
        )


def grow_patch(
    family: Family,
    rng: np.random.Generator,
    patch_id: int,
    material: str,
    xy_m: tuple[float, float],
    diameter_m: float,
) -> Patch:
    """Returns a patch of a material at a map point, irregular in the way of its material."""
    soft = material in ("red_soil", "playa")
    k = np.arange(1, _HARMONICS + 1)
    amplitude = 0.24 * k**-0.9
    harmonics = rng.normal(0, 1, (2, _HARMONICS)) * amplitude
    harmonics[:, 0] *= 0.3
    total = np.hypot(*harmonics).sum()
    harmonics *= min(1.0, 0.6 / max(total, 1e-9))
    colours = _colours(family, rng, material)
    return Patch(
        patch_id=patch_id,
        material=material,
        x_m=xy_m[0],
        y_m=xy_m[1],
        radius_m=diameter_m / 2,
        stretch=2.2 if material == "vehicle" else float(np.exp(rng.uniform(0, np.log(2.4)))),
        azimuth_rad=float(rng.uniform(0, np.pi)),
        harmonics=harmonics,
        edge=float(rng.uniform(0.9, 1.4)) if soft else float(rng.uniform(0.15, 0.4)),
        mottle=0.25 if soft else float(rng.uniform(0.1, 0.2)),
        strength=_strength(rng, material),
        colours=colours,
        seed=int(rng.integers(2**31)),
    )


def _strength(rng: np.random.Generator, material: str) -> float:
    if material == "red_soil":
        return float(rng.uniform(0.35, 0.75))
    if material == "playa":
        return float(rng.uniform(0.5, 0.85))
    return float(rng.uniform(0.78, 0.97)) if material in CLASSES else 1.0


def _colours(family: Family, rng: np.random.Generator, material: str) -> Floats32:
    if material == "vehicle":
        grey = rng.uniform(0.72, 0.86)
        return np.full((2, 3), grey, dtype=np.float32) * np.array([1, 1.0, 1.02], np.float32)
    known = "shrub" if material == "shrub_clump" else material
    return np.stack([family.colour(known, rng), family.colour(known, rng)])


def draw_diameter(rng: np.random.Generator, material: str) -> float:
    """Returns a diameter in metres that is usual for the material."""
    low, high = {
        "red_soil": (6.0, 25.0),
        "playa": (7.0, 28.0),
        "green_rock": (0.5, 6.0),
        "vehicle": (2.9, 3.4),
        "shrub_clump": (1.5, 6.0),
        "dark_disturbed": (1.0, 8.0),
    }.get(material, (0.5, 8.0))
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
