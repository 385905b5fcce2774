"""The simulated geology that anomalies follow: lithology from noise, faults as straight lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onboard.simulator.noise import Window, octave

Floats = NDArray[np.float64]

UNITS = ("alluvium", "limestone", "rhyolite_tuff", "altered_volcanic")
_FAVOUR_OF_UNIT = np.array([0.12, 0.2, 0.45, 1.0])


class Geology:
    """Lithology and faults around a world.

    Args:
        seed: Which geology.
        centre_xy_m: The world's middle.
    """

    def __init__(self, seed: int, centre_xy_m: tuple[float, float]) -> None:
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.centre_xy_m = centre_xy_m
        angle = rng.uniform(0.3, 0.9) + rng.normal(0, 0.15, 9)
        offset = np.array([*rng.uniform(-60, 60, 1), *rng.uniform(-2000, 2000, 8)])
        self.faults = np.stack([np.cos(angle), np.sin(angle), offset], axis=1)

    def unit_index(self, window: Window) -> NDArray[np.int64]:
        """Returns (h, w) indices into UNITS."""
        field = octave(window, 420.0, self.seed + 1) + 0.5 * octave(window, 150.0, self.seed + 2)
        return np.asarray(np.digitize(field, (-0.75, 0.0, 0.75)), dtype=np.int64)

    def fault_distance_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns the distance to the nearest fault."""
        dx, dy = np.asarray(x_m) - self.centre_xy_m[0], np.asarray(y_m) - self.centre_xy_m[1]
        across = [np.abs(a * dx + b * dy - c) for a, b, c in self.faults]
        return np.asarray(np.min(across, axis=0))

    def favour_in(self, window: Window) -> Floats:
        """Returns (h, w) relative frequency of anomalies, at most 1."""
        x, y = np.meshgrid(window.x_m, window.y_m)
        near_fault = 0.25 + 0.75 * np.exp(-self.fault_distance_m(x, y) / 60.0)
        return np.asarray(_FAVOUR_OF_UNIT[self.unit_index(window)] * near_fault)

    def favour(self, x_m: float, y_m: float) -> float:
        """Returns the relative frequency of anomalies at a point."""
        return float(self.favour_in(Window(x_m, y_m, 1.0, 1, 1))[0, 0])
