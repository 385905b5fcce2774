"""The two families of worlds: what training may see, and what only tests see.

The families share no colour endmember, no range of terrain parameters and no texture recipe: every
colour is drawn from a small box around an anchor, and no training box touches a test box; every
terrain parameter has a test interval that lies between two training intervals; textures differ in
lacunarity, gain and hash. The classes mean the same in both: the nature of the minerals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onboard.simulator.errors import SimulatorError

FamilyName = Literal["train", "test"]
Colour = tuple[int, int, int]
Range = tuple[float, float]

CLASSES = ("none", "iron_oxide", "bleached_quartz", "dark_disturbed")
"""Class names by the index used in masks; 255 is ignored."""

IGNORE = 255


@dataclass(frozen=True, slots=True)
class Family:
    """What the worlds of one family are drawn from.

    Attributes:
        name: ``train`` or ``test``.
        salt: Hash salt of all its textures.
        colours: Anchors of each material, sRGB.
        colour_jitter: Half size of the box around each anchor, sRGB units.
        spectral_slope: Intervals of the terrain's spectral exponent.
        relief_m: Intervals of the terrain's σ.
        gully_m: Intervals of the gullies' spacing.
        lacunarity: Spacing ratio of the textures' octaves.
        gain: Intervals of the textures' octave gain.
    """

    name: FamilyName
    salt: int
    colours: dict[str, tuple[Colour, ...]]
    colour_jitter: int
    spectral_slope: tuple[Range, ...]
    relief_m: tuple[Range, ...]
    gully_m: tuple[Range, ...]
    lacunarity: float
    gain: tuple[Range, ...]

    def draw(self, ranges: tuple[Range, ...], rng: np.random.Generator) -> float:
        """Returns a number from one of the intervals."""
        low, high = ranges[int(rng.integers(len(ranges)))]
        return float(rng.uniform(low, high))

    def colour(self, material: str, rng: np.random.Generator) -> NDArray[np.float32]:
        """Returns (3,) linear reflectance of one endmember of a material."""
        anchors = self.colours[material]
        anchor = np.array(anchors[int(rng.integers(len(anchors)))], dtype=float)
        return linear(anchor + rng.uniform(-self.colour_jitter, self.colour_jitter, 3))


def linear(srgb: NDArray[np.float64]) -> NDArray[np.float32]:
    """Returns linear reflectance of sRGB values 0-255 (IEC 61966-2-1)."""
    c = np.clip(srgb, 0, 255) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4).astype(np.float32)


TRAIN = Family(
    name="train",
    salt=0x51ED,
    colours={
        "soil": (
            (178, 152, 122),
            (152, 126, 102),
            (190, 172, 146),
            (142, 112, 90),
            (162, 148, 132),
            (128, 118, 108),
            (170, 134, 104),
            (146, 136, 112),
        ),
        "rock": (
            (134, 126, 116),
            (120, 120, 108),
            (150, 138, 124),
            (128, 116, 110),
            (114, 116, 120),
            (138, 134, 116),
        ),
        "shrub": ((66, 74, 44), (84, 88, 58), (58, 62, 46), (96, 98, 76), (74, 70, 44)),
        "wash": ((198, 182, 156), (186, 166, 138), (176, 164, 146)),
        "playa": ((206, 194, 172), (196, 180, 156), (210, 202, 188)),
        "red_soil": ((172, 122, 92), (158, 116, 90), (166, 130, 106)),
        "green_rock": ((104, 116, 92), (122, 130, 112), (92, 102, 88)),
        "iron_oxide": (
            (142, 60, 36),
            (118, 50, 34),
            (156, 80, 40),
            (182, 118, 46),
            (164, 98, 34),
            (134, 74, 50),
        ),
        "bleached_quartz": ((238, 232, 220), (226, 214, 192), (242, 240, 238), (230, 222, 212)),
        "dark_disturbed": ((60, 54, 56), (72, 60, 52), (50, 52, 58), (44, 42, 42), (74, 68, 76)),
    },
    colour_jitter=4,
    spectral_slope=((1.9, 2.15), (2.5, 2.75)),
    relief_m=((2.0, 4.0), (6.5, 9.0)),
    gully_m=((50.0, 80.0), (120.0, 170.0)),
    lacunarity=2.0,
    gain=((0.5, 0.57), (0.66, 0.72)),
)

TEST = Family(
    name="test",
    salt=0xA3B7,
    colours={
        "soil": ((166, 140, 114), (182, 162, 134), (152, 138, 122), (138, 124, 100)),
        "rock": ((124, 124, 122), (142, 126, 108), (122, 108, 98)),
        "shrub": ((75, 81, 51), (88, 84, 66), (62, 72, 56)),
        "wash": ((188, 174, 150), (196, 170, 144)),
        "playa": ((200, 188, 164), (206, 192, 182)),
        "red_soil": ((164, 122, 98), (174, 132, 98)),
        "green_rock": ((112, 122, 102), (98, 112, 100)),
        "iron_oxide": ((130, 58, 42), (148, 70, 44), (170, 108, 42), (150, 88, 46)),
        "bleached_quartz": ((232, 224, 204), (236, 232, 230)),
        "dark_disturbed": ((64, 60, 66), (62, 50, 46), (54, 46, 48)),
    },
    colour_jitter=1,
    spectral_slope=((2.2, 2.45),),
    relief_m=((4.5, 6.0),),
    gully_m=((86.0, 112.0),),
    lacunarity=1.83,
    gain=((0.59, 0.64),),
)

FAMILIES: dict[str, Family] = {"train": TRAIN, "test": TEST}


def family_of(name: str) -> Family:
    """Returns a family by its name.

    Raises:
        SimulatorError: There is no such family.
    """
    if name not in FAMILIES:
        raise SimulatorError(f"no family of worlds is called {name!r}", "take train or test")
    return FAMILIES[name]
