"""Fractal noise on hashed lattices: the same value at the same ground point at any resolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats32 = NDArray[np.float32]
Floats = NDArray[np.float64]

_SIGMA_OF_SPLINE = 0.2766
"""σ of a uniform [−1, 1] lattice after bicubic B-spline interpolation: √(0.479² / 3)."""


@dataclass(frozen=True, slots=True)
class Window:
    """A north-up pixel grid on the ground.

    Attributes:
        x0_m: Map x of the centre of pixel [0, 0].
        y0_m: Map y of the centre of pixel [0, 0].
        gsd_m: Pixel size.
        width: Columns, to the east.
        height: Rows, to the south.
    """

    x0_m: float
    y0_m: float
    gsd_m: float
    width: int
    height: int

    @property
    def x_m(self) -> Floats:
        """(width,) map x of the columns' centres."""
        return np.asarray(self.x0_m + self.gsd_m * np.arange(self.width))

    @property
    def y_m(self) -> Floats:
        """(height,) map y of the rows' centres, north first."""
        return np.asarray(self.y0_m - self.gsd_m * np.arange(self.height))

    @property
    def bounds_m(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the pixels' outer edges."""
        half = self.gsd_m / 2
        return (
            self.x0_m - half,
            self.y0_m + half - self.height * self.gsd_m,
            self.x0_m - half + self.width * self.gsd_m,
            self.y0_m + half,
        )

    def part(self, row: int, col: int, height: int, width: int) -> Window:
        """Returns the window of a block of pixels, cut at this window's edges."""
        return Window(
            self.x0_m + col * self.gsd_m,
            self.y0_m - row * self.gsd_m,
            self.gsd_m,
            min(width, self.width - col),
            min(height, self.height - row),
        )


def hash_uniform(i: NDArray[np.int64], j: NDArray[np.int64], seed: int) -> Floats32:
    """Returns a number in [−1, 1) for every integer lattice point (finaliser of MurmurHash3)."""
    mask = np.uint64(0xFFFFFFFF)
    h = (i.astype(np.uint64) * np.uint64(0x9E3779B1)) & mask
    h = h ^ ((j.astype(np.uint64) * np.uint64(0x85EBCA77)) & mask)
    h ^= np.uint64((seed * 0xC2B2AE3D + 0x27D4EB2F) & 0xFFFFFFFF)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        h ^= h >> np.uint64(shift)
        h = (h * np.uint64(factor)) & mask
    return (h.astype(np.float32) / np.float32(2**31)) - np.float32(1)


def octave(window: Window, spacing_m: float, seed: int) -> Floats32:
    """Returns (h, w) smooth noise of unit variance whose lattice has this spacing."""
    columns, weights_x = _spline_weights(window.x_m / spacing_m)
    rows, weights_y = _spline_weights(window.y_m / spacing_m)
    lattice = hash_uniform(columns[None, :], rows[:, None], seed)
    return np.asarray((weights_y @ lattice @ weights_x.T) / np.float32(_SIGMA_OF_SPLINE))


def fractal(
    window: Window,
    seed: int,
    coarsest_m: float,
    finest_m: float,
    gain: float = 0.6,
    lacunarity: float = 2.0,
) -> Floats32:
    """Returns (h, w) fractal noise of unit variance, without octaves that the grid cannot show.

    Args:
        window: Where.
        seed: Which noise.
        coarsest_m: Lattice spacing of the first octave.
        finest_m: No octave is finer than this; none is finer than two pixels either.
        gain: Amplitude of an octave over that of the coarser one before it.
        lacunarity: Spacing of an octave over that of the finer one after it.
    """
    total = np.zeros((window.height, window.width), dtype=np.float32)
    spacing, amplitude, power, k = coarsest_m, 1.0, 0.0, 0
    while spacing >= finest_m or k == 0:
        power += amplitude**2
        fade = min(1.0, max(0.0, spacing / window.gsd_m - 1.5))
        if fade > 0:
            total += np.float32(amplitude * fade) * octave(window, spacing, seed * 31 + k)
        spacing, amplitude, k = spacing / lacunarity, amplitude * gain, k + 1
    return np.asarray(total / np.float32(np.sqrt(power)))


def smoothstep(low: float, high: float, value: Floats32) -> Floats32:
    """Returns 0 below ``low``, 1 above ``high``, a smooth cubic between."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def _spline_weights(u: Floats) -> tuple[NDArray[np.int64], Floats32]:
    """Returns lattice indices (n,) and the (len(u), n) weights of the cubic B-spline at u."""
    base = np.floor(u).astype(np.int64)
    first = int(base.min()) - 1
    index = np.arange(first, int(base.max()) + 3)
    t = (u - base).astype(np.float32)
    weights = np.zeros((len(u), len(index)), dtype=np.float32)
    row = np.arange(len(u))
    parts = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    for k, part in enumerate(parts):
        weights[row, base - first - 1 + k] = part
    return index, weights
