"""Weights of evidence: how much each class of a layer speaks for or against an occurrence.

Bonham-Carter, *Geographic Information Systems for Geoscientists* (1994), chapter 9; smoothing by
half a count per class (Jeffreys), so that a class without an occurrence is neither impossible nor
silently neutral.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from groundsync.grid import Floats, Ints
from groundsync.prior.layers import ClassedLayer

HALF = 0.5
NEARLY_ONE = 0.99
TOUCHING = 1e-9


@dataclass(frozen=True, slots=True)
class ClassWeights:
    """Weights of the k classes of one layer.

    Attributes:
        layer: The layer's name.
        labels: Names of the classes.
        group: (k,) classes of the same group share one weight.
        area_km2: (k,) area of each class.
        n: (k,) occurrences in each class.
        weight: (k,) W⁺ of the class's group.
        weight_sd: (k,) its standard deviation.
        weight_minus: (k,) weight of not being in the group.
        weight_minus_sd: (k,) its standard deviation.
        missing_km2: Area where the layer is missing.
        missing_n: Occurrences where the layer is missing.
        missing_sd: Standard deviation of the weight 0 that missing cells get.
    """

    layer: str
    labels: tuple[str, ...]
    group: Ints
    area_km2: Floats
    n: Floats
    weight: Floats
    weight_sd: Floats
    weight_minus: Floats
    weight_minus_sd: Floats
    missing_km2: float
    missing_n: float
    missing_sd: float

    @property
    def contrast(self) -> Floats:
        """(k,) W⁺ − W⁻."""
        return self.weight - self.weight_minus

    @property
    def contrast_sd(self) -> Floats:
        """(k,) standard deviation of the contrast."""
        return np.hypot(self.weight_sd, self.weight_minus_sd)

    @property
    def studentised(self) -> Floats:
        """(k,) contrast over its standard deviation."""
        return self.contrast / self.contrast_sd

    def of_codes(
        self, codes: np.ndarray[tuple[int, ...], np.dtype[np.int16]]
    ) -> tuple[Floats, Floats]:
        """Returns weights and variances for class numbers; −1 gives 0 and the missing variance."""
        weight = np.append(self.weight, 0.0)
        variance = np.append(self.weight_sd**2, self.missing_sd**2)
        return weight[codes], variance[codes]


def smoothed_weights(
    layer: ClassedLayer,
    area_km2: Floats,
    n: Floats,
    *,
    missing_km2: float = 0.0,
    missing_n: float = 0.0,
    unit_cell_km2: float = 1.0,
    merge_rare: bool = True,
) -> ClassWeights:
    """Returns smoothed weights of a layer's k classes.

    P(class | occurrence) = (n + ½)/(N + K/2) and likewise for unit cells without an occurrence,
    K the number of groups, N the occurrences where the layer is known; W⁺ is the logarithm of
    their ratio and its variance the sum of the two reciprocal smoothed counts. A missing cell gets
    weight 0 with the variance of the weights over the known area.

    Args:
        layer: Names the classes and says whether they are ordered.
        area_km2: (k,) area of each class.
        n: (k,) occurrences in each class.
        missing_km2: Area where the layer is missing.
        missing_n: Occurrences where the layer is missing.
        unit_cell_km2: The unit cell.
        merge_rare: Whether classes that expect less than half an occurrence share a weight.
    """
    ordered = bool(layer.lower) and not np.isnan(layer.lower[0])
    group = _groups(area_km2, float(n.sum()), ordered, merge_rare)
    k = int(group.max()) + 1
    deposits = tally(group, n, k)
    cells = tally(group, area_km2, k) / unit_cell_km2
    barren = np.clip(cells - deposits, 0.0, None)
    total_n, total_b = float(deposits.sum()), float(barren.sum())
    whole = (total_n + HALF * k, total_b + HALF * k)
    plus, plus_var = _log_ratio(deposits + HALF, barren + HALF, whole)
    others = HALF * max(k - 1, 1)
    minus, minus_var = _log_ratio(total_n - deposits + others, total_b - barren + others, whole)
    share = cells / cells.sum()
    mean = float(share @ plus)
    spread = float(share @ (plus - mean) ** 2)
    return ClassWeights(
        layer.name,
        layer.labels,
        group,
        area_km2,
        n,
        plus[group],
        np.sqrt(plus_var)[group],
        minus[group],
        np.sqrt(minus_var)[group],
        missing_km2,
        missing_n,
        float(np.sqrt(spread)),
    )


def tally(slot: Ints, values: Floats, size: int) -> Floats:
    """Returns (size,) sums of the values that fall into each slot."""
    return np.bincount(slot, weights=values, minlength=size).astype(np.float64)


def _log_ratio(
    deposits: Floats, barren: Floats, whole: tuple[float, float]
) -> tuple[Floats, Floats]:
    """Returns (k,) log ratios of shares of smoothed counts, and their variances."""
    ratio = np.log(deposits / whole[0]) - np.log(barren / whole[1])
    return ratio, 1.0 / deposits + 1.0 / barren


def _groups(area_km2: Floats, total_n: float, ordered: bool, merge_rare: bool) -> Ints:
    """Returns (k,) group numbers; classes that expect less than half an occurrence are merged."""
    k = len(area_km2)
    if not merge_rare or k == 1 or total_n <= 0 or area_km2.sum() <= 0:
        return np.arange(k)
    expected = total_n * area_km2 / area_km2.sum()
    return _neighbours(expected) if ordered else _pool(expected)


def _pool(expected: Floats) -> Ints:
    """Returns groups where the rarest classes share one that expects at least half."""
    order = np.argsort(expected, kind="stable")
    rare = int((expected < HALF).sum())
    if rare == 0:
        return np.arange(len(expected))
    while rare < len(expected) and expected[order[:rare]].sum() < HALF:
        rare += 1
    group = np.zeros(len(expected), dtype=np.int64)
    group[np.sort(order[rare:])] = np.arange(1, len(expected) - rare + 1)
    return group


def _neighbours(expected: Floats) -> Ints:
    """Returns groups of neighbouring bins, each expecting at least half."""
    group = np.zeros(len(expected), dtype=np.int64)
    current, held = 0, 0.0
    for i, share in enumerate(expected):
        if held >= HALF:
            current, held = current + 1, 0.0
        group[i] = current
        held += share
    if held < HALF and current > 0:
        group[group == current] = current - 1
    return group


@dataclass(frozen=True, slots=True)
class PlainWeights:
    """Unsmoothed W⁺, W⁻ and their standard deviations of k classes or thresholds.

    Attributes:
        area_km2: (k,) area, cumulated where the table is cumulative.
        n: (k,) points, cumulated likewise.
        plus: (k,) W⁺.
        plus_sd: (k,) its standard deviation.
        minus: (k,) W⁻.
        minus_sd: (k,) its standard deviation.
    """

    area_km2: Floats
    n: Floats
    plus: Floats
    plus_sd: Floats
    minus: Floats
    minus_sd: Floats

    @property
    def contrast(self) -> Floats:
        """(k,) W⁺ − W⁻."""
        return self.plus - self.minus


def plain_weights(
    area_km2: Floats,
    n: Floats,
    *,
    unit_cell_km2: float = 1.0,
    cumulative: Literal["no", "up", "down"] = "no",
) -> PlainWeights:
    """Returns unsmoothed weights as Geoscience Australia's public tables have them.

    For comparison only. A class without a point gets weight 0 with deviation 0; where everything
    lies inside, 0.99 of a point and of a unit cell is taken to be outside (ArcSDM's convention).

    Args:
        area_km2: (k,) area of each class, in rising order of class.
        n: (k,) points of each class.
        unit_cell_km2: The unit cell.
        cumulative: ``up`` sums from the first class, ``down`` from the last; the rows keep the
            order of summation.
    """
    total_area, total_n = float(area_km2.sum()) / unit_cell_km2, float(n.sum())
    step = -1 if cumulative == "down" else 1
    area, points = area_km2[::step] / unit_cell_km2, n[::step].astype(np.float64)
    if cumulative != "no":
        area, points = np.cumsum(area), np.cumsum(points)
    barren = total_area - total_n
    inside_d = np.where(points == total_n, total_n - NEARLY_ONE, np.maximum(points, NEARLY_ONE))
    outside_d = total_n - inside_d
    outside_b = barren - (area - inside_d)
    outside_b = np.where(outside_b < TOUCHING, NEARLY_ONE, outside_b)
    inside_b = barren - outside_b
    plus = np.log(inside_d / total_n) - np.log(inside_b / barren)
    minus = np.log(outside_d / total_n) - np.log(outside_b / barren)
    plus_sd = np.sqrt(1.0 / inside_d + 1.0 / inside_b)
    minus_sd = np.sqrt(1.0 / outside_d + 1.0 / outside_b)
    empty = points == 0
    for value in (plus, plus_sd, minus, minus_sd):
        value[empty] = 0.0
    return PlainWeights(area * unit_cell_km2, points, plus, plus_sd, minus, minus_sd)
