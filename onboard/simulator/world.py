"""A simulated piece of ground with known truth: relief, cover, light and what is planted in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from onboard.simulator.anomalies import LOOK_ALIKES, Patch, draw_diameter, grow_patch
from onboard.simulator.canvas import Sun
from onboard.simulator.family import CLASSES, family_of
from onboard.simulator.geology import Geology
from onboard.simulator.ground_cover import Painted, draw_cover, paint
from onboard.simulator.noise import Window
from onboard.simulator.relief import make_relief, sunlit

Floats = NDArray[np.float64]

MAP_EPSG = 32611
CENTRE_LAT_DEG = 37.53
CENTRE_LON_DEG = -117.19
"""Worlds lie near Cuprite, Nevada, in UTM zone 11 north; heights are above the ellipsoid."""

_LOOK_ALIKE_SHARE = (0.2, 0.32, 0.16, 0.1, 0.22)
_CLEAR_M = 2.0


def centre_xy_m() -> tuple[float, float]:
    """Returns the worlds' middle on the map, whole metres."""
    to_map = Transformer.from_crs(4326, MAP_EPSG, always_xy=True)
    x, y = to_map.transform(CENTRE_LON_DEG, CENTRE_LAT_DEG)
    return float(round(x)), float(round(y))


class World:
    """Ground of known truth, the same for the same seed.

    Args:
        seed: Which world.
        family: ``train`` or ``test``.
        size_m: Side of the square around the middle that has relief.
        planted_m: (width, height) of the rectangle around the middle where things are planted.
        anomalies_per_ha: Density of anomalies.
        look_alikes_per_ha: Density of look-alikes.
    """

    def __init__(
        self,
        seed: int,
        family: str = "train",
        size_m: float = 512.0,
        planted_m: tuple[float, float] = (300.0, 220.0),
        anomalies_per_ha: float = 4.0,
        look_alikes_per_ha: float = 8.0,
    ) -> None:
        self.seed = seed
        self.family = family_of(family)
        self.centre_xy_m = centre_xy_m()
        rng = np.random.default_rng([seed, self.family.salt])
        self.relief = make_relief(self.family, rng, self.centre_xy_m, size_m)
        self.cover = draw_cover(self.family, rng, self.centre_xy_m)
        self.sun = Sun(
            float(rng.uniform(0, 2 * np.pi)),
            float(np.radians(rng.uniform(32, 68))),
            float(rng.uniform(0.2, 0.34)),
        )
        self.geology = Geology(int(rng.integers(2**30)), self.centre_xy_m)
        self.patches = self._plant(rng, planted_m, anomalies_per_ha, look_alikes_per_ha)
        self.lit = sunlit(self.relief, self.sun.enu)

    @property
    def anomalies(self) -> list[Patch]:
        """The planted anomalies."""
        return [patch for patch in self.patches if patch.is_anomaly]

    def height_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns the true height above the ellipsoid."""
        return self.relief.height_m(x_m, y_m)

    def paint(self, window: Window) -> Painted:
        """Returns the true ground on a window."""
        return paint(self.cover, self.relief, self.lit, self.patches, self.sun, window)

    def _plant(
        self,
        rng: np.random.Generator,
        planted_m: tuple[float, float],
        anomalies_per_ha: float,
        look_alikes_per_ha: float,
    ) -> list[Patch]:
        hectares = planted_m[0] * planted_m[1] / 1e4
        patches: list[Patch] = []
        wanted = [
            *rng.choice(LOOK_ALIKES, round(hectares * look_alikes_per_ha), p=_LOOK_ALIKE_SHARE),
            *rng.choice(CLASSES[1:], max(3, round(hectares * anomalies_per_ha))),
        ]
        for material in wanted:
            diameter = draw_diameter(rng, str(material))
            place = self._free_place(rng, planted_m, patches, str(material), diameter)
            if place is not None:
                patches.append(
                    grow_patch(self.family, rng, len(patches), str(material), place, diameter)
                )
        return patches

    def _free_place(
        self,
        rng: np.random.Generator,
        planted_m: tuple[float, float],
        patches: list[Patch],
        material: str,
        diameter_m: float,
    ) -> tuple[float, float] | None:
        """Returns a place clear of hard-edged neighbours; anomalies go where geology favours."""
        half = np.array(planted_m) / 2
        is_anomaly = material in CLASSES
        for _ in range(60):
            x, y = np.array(self.centre_xy_m) + rng.uniform(-half, half)
            if is_anomaly and rng.uniform() > self.geology.favour(x, y):
                continue
            near = (
                np.hypot(p.x_m - x, p.y_m - y) < p.reach_m + diameter_m + _CLEAR_M
                for p in patches
                if p.material not in ("red_soil", "playa")
            )
            if not any(near):
                return float(x), float(y)
        return None
