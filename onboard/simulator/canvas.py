"""The canvas that a window of ground is painted on, and the light it is painted in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onboard.simulator.noise import Floats32, Window

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the light comes from.

    Attributes:
        azimuth_rad: Clockwise from map north.
        elevation_rad: Above the horizon.
        ambient: Share of sky light on flat ground.
    """

    azimuth_rad: float
    elevation_rad: float
    ambient: float

    @property
    def enu(self) -> Floats:
        """(3,) unit vector towards the sun."""
        c = np.cos(self.elevation_rad)
        s, n = np.sin(self.azimuth_rad), np.cos(self.azimuth_rad)
        return np.array([c * s, c * n, np.sin(self.elevation_rad)])


@dataclass(frozen=True, slots=True)
class Canvas:
    """A window under the brush: its arrays are painted in place.

    Attributes:
        window: Where it is.
        albedo: (h, w, 3) linear reflectance.
        bumps: (h, w) micro-relief, metres.
        opacity: (h, w) of the anomalies, before shrubs.
        label: (h, w) class index of the anomaly that is on top; 0 none.
        shadow: (h, w) 1 in the sun, 0 where something stands between.
        hidden: (h, w) opacity of the shrubs.
    """

    window: Window
    albedo: Floats32
    bumps: Floats32
    opacity: Floats32
    label: NDArray[np.uint8]
    shadow: Floats32
    hidden: Floats32

    @classmethod
    def of(cls, window: Window, albedo: Floats32, bumps: Floats32) -> Canvas:
        """Returns a canvas of bare ground in the sun."""
        shape = window.height, window.width
        return cls(
            window,
            albedo,
            bumps,
            np.zeros(shape, dtype=np.float32),
            np.zeros(shape, dtype=np.uint8),
            np.ones(shape, dtype=np.float32),
            np.zeros(shape, dtype=np.float32),
        )

    def around(self, x_m: float, y_m: float, reach_m: float) -> Canvas | None:
        """Returns the part within reach of a point, as views; ``None`` where that is outside."""
        w, g = self.window, self.window.gsd_m
        c0 = max(0, int((x_m - reach_m - w.x0_m) / g))
        c1 = min(w.width, int((x_m + reach_m - w.x0_m) / g) + 2)
        r0 = max(0, int((w.y0_m - y_m - reach_m) / g))
        r1 = min(w.height, int((w.y0_m - y_m + reach_m) / g) + 2)
        if c1 <= c0 or r1 <= r0:
            return None
        at = slice(r0, r1), slice(c0, c1)
        return Canvas(
            w.part(r0, c0, r1 - r0, c1 - c0),
            self.albedo[at],
            self.bumps[at],
            self.opacity[at],
            self.label[at],
            self.shadow[at],
            self.hidden[at],
        )

    def lay(self, colour: Floats32, alpha: Floats32) -> None:
        """Lays a colour on the ground with an opacity (h, w)."""
        self.albedo[...] += alpha[..., None] * (colour - self.albedo)

    def shade(self, dark: Floats32) -> None:
        """Casts a shadow, 1 where it is full."""
        np.minimum(self.shadow, 1 - dark, out=self.shadow)

    def lift(self, alpha: Floats32) -> None:
        """Takes what stands above the ground out of the shadows that fall on the ground."""
        np.maximum(self.shadow, alpha, out=self.shadow)
