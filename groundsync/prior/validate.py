"""How far to trust the prior: held-out blocks against held-out random cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log, nan, sqrt

import numpy as np
from numpy.typing import NDArray

from groundsync.errors import GridError
from groundsync.grid import Bools, Floats, ProjectGrid
from groundsync.prior.conditions import Conditions
from groundsync.prior.layers import ClassedLayer
from groundsync.prior.model import fit_poisson, score, weigh_layers

MIN_BLOCKS_PER_FOLD = 2


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One held-out fold.

    Attributes:
        area_km2: Its area.
        observed: Occurrences in it.
        expected: Occurrences that the rest of the area expects in it.
        auc: Share of (occurrence, background) pairs ranked rightly; NaN without occurrences.
    """

    area_km2: float
    observed: float
    expected: float
    auc: float


@dataclass(frozen=True, slots=True)
class Validation:
    """Held-out behaviour over all folds.

    Attributes:
        folds: What each fold said.
        t_over_n: Expected over observed occurrences.
        raw_t_over_n: The same from summed weights alone, not recalibrated.
        auc: Area under the success-rate curve of the held-out rates, folds weighted by their
            occurrences.
        information_gain_bits: Log₂-likelihood per occurrence gained over a uniform rate.
        skipped: Folds without occurrences to learn from.
    """

    folds: tuple[FoldResult, ...]
    t_over_n: float
    raw_t_over_n: float
    auc: float
    information_gain_bits: float
    skipped: int


def block_folds(
    grid: ProjectGrid, studied: Bools, block_km: float, folds: int, seed: int
) -> tuple[NDArray[np.int16], float]:
    """Returns (height, width) fold numbers by square blocks, −1 outside, and the side used, km.

    The side is cut so that the area holds about two blocks a fold.

    Raises:
        GridError: The area has fewer blocks than folds.
    """
    most_km = sqrt(studied.sum() * grid.cell_km2 / (MIN_BLOCKS_PER_FOLD * folds))
    side = max(1, floor(min(block_km, most_km) * 1000.0 / grid.cell_m + 1e-9))
    rows = np.arange(grid.height) // side
    cols = np.arange(grid.width) // side
    block = rows[:, None] * ceil(grid.width / side) + cols[None, :]
    used = np.unique(block[studied])
    if len(used) < folds:
        raise GridError(
            f"the study area has {len(used)} blocks of {side * grid.cell_m / 1000:.3g} km, fewer "
            f"than {folds} folds",
            "lower block_km or folds in [model]",
        )
    order = np.random.default_rng(seed).permutation(len(used))
    fold_of_block = np.full(int(block.max()) + 1, -1, dtype=np.int16)
    fold_of_block[used[order]] = np.arange(len(used)) % folds
    return np.where(studied, fold_of_block[block], -1).astype(np.int16), side * grid.cell_m / 1e3


def random_folds(studied: Bools, folds: int, seed: int) -> NDArray[np.int16]:
    """Returns (height, width) fold numbers of single cells, −1 outside the study area."""
    drawn = np.random.default_rng(seed).integers(0, folds, studied.shape, dtype=np.int16)
    return np.where(studied, drawn, -1).astype(np.int16)


def cross_validate(
    layers: Sequence[ClassedLayer],
    conditions: Conditions,
    count: NDArray[np.int32],
    fold_of_cell: NDArray[np.int16],
    *,
    cell_km2: float,
    unit_cell_km2: float,
    merge_rare: bool,
) -> Validation:
    """Returns how the model does on folds it has not seen; everything is learned anew each time."""
    folds = int(fold_of_cell.max()) + 1
    results: list[FoldResult] = []
    raw, gain, skipped = 0.0, 0.0, 0
    areas = [conditions.cells(fold_of_cell == f) * cell_km2 for f in range(folds)]
    counts = [conditions.sums(count, fold_of_cell == f) for f in range(folds)]
    for f in range(folds):
        area = np.sum([areas[g] for g in range(folds) if g != f], axis=0)
        n = np.sum([counts[g] for g in range(folds) if g != f], axis=0)
        if n.sum() < 2:
            skipped += 1
            continue
        weights = weigh_layers(
            layers, conditions, area, n, unit_cell_km2=unit_cell_km2, merge_rare=merge_rare
        )
        summed = score(weights, conditions)
        rate = fit_poisson(summed.value, area, n)
        per_km2 = rate.per_km2(summed.value)
        expected = float(per_km2 @ areas[f])
        observed = float(counts[f].sum())
        auc = success_auc(per_km2, areas[f], counts[f])
        results.append(FoldResult(float(areas[f].sum()), observed, expected, auc))
        raw += _raw_expected(summed.value, area, n, areas[f], unit_cell_km2)
        gain += _gain(per_km2, areas[f], counts[f], float(n.sum() / area.sum()))
    total = sum(r.observed for r in results)
    if not total:
        return Validation(tuple(results), nan, nan, nan, nan, skipped)
    with_some = [r for r in results if r.observed]
    auc = sum(r.auc * r.observed for r in with_some) / total
    t = sum(r.expected for r in results)
    return Validation(tuple(results), t / total, raw / total, auc, gain / total, skipped)


def success_auc(value: Floats, area_km2: Floats, n: Floats) -> float:
    """Returns P(value at an occurrence > value at a random place), ties counted half.

    Args:
        value: (m,) what ranks the conditions.
        area_km2: (m,) area of each.
        n: (m,) occurrences in each.
    """
    if not n.sum() or not area_km2.sum():
        return nan
    _, level = np.unique(value, return_inverse=True)
    area, count = np.bincount(level, weights=area_km2), np.bincount(level, weights=n)
    below = np.cumsum(area) - area
    return float(count @ (below + 0.5 * area) / (count.sum() * area.sum()))


def _raw_expected(
    value: Floats, area: Floats, n: Floats, held_area: Floats, unit_cell_km2: float
) -> float:
    """Returns what summed weights alone expect in the held-out area."""
    odds = float(n.sum()) / max(float(area.sum()) / unit_cell_km2 - float(n.sum()), 1e-9)
    p = 1.0 / (1.0 + np.exp(-(log(odds) + value)))
    return float(held_area @ p) / unit_cell_km2


def _gain(per_km2: Floats, area: Floats, n: Floats, uniform_per_km2: float) -> float:
    """Returns the held-out Poisson log-likelihood gained over a uniform rate, bits."""
    model = float(n @ np.log(per_km2) - area @ per_km2)
    flat = float(n.sum() * log(uniform_per_km2) - area.sum() * uniform_per_km2)
    return (model - flat) / log(2.0)
