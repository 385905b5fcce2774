"""Unique conditions: cells that are alike in every layer, counted once instead of one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundsync.errors import LayerError
from groundsync.grid import Bools, Floats, Ints
from groundsync.prior.layers import ClassedLayer

NOT_STUDIED = -1


@dataclass(frozen=True, slots=True)
class Conditions:
    """m combinations of classes that occur in the study area.

    Attributes:
        codes: (m, layers) class numbers, −1 where the layer is missing.
        of_cell: (height, width) condition of each cell, −1 outside the study area.
    """

    codes: NDArray[np.int16]
    of_cell: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.codes)

    def sums(self, values: NDArray[np.generic], cells: Bools | None = None) -> Floats:
        """Returns (m,) sums of a (height, width) array over the cells of each condition."""
        kept = self.of_cell >= 0 if cells is None else (self.of_cell >= 0) & cells
        weights = np.asarray(values, dtype=np.float64)[kept]
        sums = np.bincount(self.of_cell[kept], weights=weights, minlength=len(self))
        return sums.astype(np.float64)

    def cells(self, cells: Bools | None = None) -> Floats:
        """Returns (m,) numbers of cells of each condition."""
        kept = self.of_cell >= 0 if cells is None else (self.of_cell >= 0) & cells
        return np.bincount(self.of_cell[kept], minlength=len(self)).astype(np.float64)

    def paint(self, values: Floats) -> NDArray[np.float32]:
        """Returns a (height, width) float32 map of one value per condition, NaN elsewhere."""
        painted = np.full(self.of_cell.shape, np.nan, dtype=np.float32)
        studied = self.of_cell >= 0
        painted[studied] = values.astype(np.float32)[self.of_cell[studied]]
        return painted


def find_conditions(layers: Sequence[ClassedLayer], studied: Bools) -> Conditions:
    """Returns the unique conditions of the layers over the studied cells.

    Raises:
        LayerError: The layers have so many classes that their combinations cannot be numbered.
    """
    radix = [len(layer.labels) + 1 for layer in layers]
    if np.prod([float(r) for r in radix]) > 2.0**62:
        raise LayerError(
            f"{len(layers)} layers with {sum(radix)} classes have too many combinations",
            "use fewer bins or fewer layers",
        )
    key: Ints = np.zeros(int(studied.sum()), dtype=np.int64)
    for layer, size in zip(layers, radix, strict=True):
        key *= size
        key += layer.codes[studied].astype(np.int64) + 1
    keys, inverse = np.unique(key, return_inverse=True)
    of_cell = np.full(studied.shape, NOT_STUDIED, dtype=np.int32)
    of_cell[studied] = inverse
    codes = np.empty((len(keys), len(layers)), dtype=np.int16)
    for column in range(len(layers) - 1, -1, -1):
        keys, code = np.divmod(keys, radix[column])
        codes[:, column] = code - 1
    return Conditions(codes, of_cell)
