"""Belief after the drone looked: prior geology and the ledger, through the surface expression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from groundsync.grid import Floats, ProjectGrid
from groundsync.prior.files import PriorMap

MAX_LLR = 500.0
SURE = 1e-15


@dataclass(frozen=True, slots=True)
class Expression:
    """What a deposit shows at the surface, for one class.

    Attributes:
        p_given_deposit: P(Z | Y).
        p_given_barren: P(Z | ¬Y).
        source: Where the two come from; empty where they are assumed.
    """

    p_given_deposit: float
    p_given_barren: float
    source: str = ""

    def __post_init__(self) -> None:
        if not 0.0 < self.p_given_barren < self.p_given_deposit < 1.0:
            raise ValueError(
                f"P(Z|¬Y) = {self.p_given_barren} and P(Z|Y) = {self.p_given_deposit}: "
                "0 < the first < the second < 1 is needed"
            )

    def on_share(self, share: float) -> Expression:
        """Returns the expression for cells of this share of the area it was stated for.

        Barren expressions lie about at some rate per km², so P(Z | ¬Y) shrinks with the cell; a
        deposit shows where it is, so P(Z | Y) does not. With ``prior_on`` the belief at a sighting
        then hardly depends on the cell.
        """
        barren = float(-np.expm1(share * np.log1p(-self.p_given_barren)))
        below = min(barren, 0.999 * self.p_given_deposit)
        return Expression(self.p_given_deposit, below, self.source)


ASSUMED = Expression(0.5, 0.05)


@dataclass(frozen=True, slots=True)
class Posterior:
    """Belief per cell after the looks.

    Attributes:
        probability: (height, width), in the prior's dtype.
        sigma: (height, width), in the prior's dtype: the prior's, carried through; the drone's
            parameters are taken as exact.
        log_bayes_factor: (height, width) what the looks changed, 0 where nobody looked.
    """

    probability: NDArray[np.floating[Any]]
    sigma: NDArray[np.floating[Any]]
    log_bayes_factor: Floats


def log_bayes_factor(llr: Floats, expression: Expression) -> Floats:
    """Returns ln P(looks | Y) − ln P(looks | ¬Y) from log-likelihood ratios of the expression Z.

    Surface expression is not a deposit: with L the likelihood ratio of Z, the factor is
    (1 + P(Z|Y)(L − 1)) / (1 + P(Z|¬Y)(L − 1)). It stays between (1 − P(Z|Y))/(1 − P(Z|¬Y)) and
    P(Z|Y)/P(Z|¬Y) however often one looks, and is exactly 1 where L is.
    """
    more = np.expm1(np.minimum(llr, MAX_LLR))
    with_deposit = np.log1p(expression.p_given_deposit * more)
    return np.asarray(with_deposit - np.log1p(expression.p_given_barren * more))


def update(
    probability: NDArray[np.floating[Any]],
    sigma: NDArray[np.floating[Any]],
    llr_by_class: Mapping[str, Floats],
    expressions: Mapping[str, Expression],
) -> Posterior:
    """Returns the belief after the looks; cells that nobody looked at stay bit for bit.

    Classes are independent given the deposit. σ is carried at constant odds ratio:
    σ' = σ · P'(1 − P') / (P(1 − P)).

    Args:
        probability: (height, width) prior; NaN outside the study area.
        sigma: (height, width) its standard deviation.
        llr_by_class: (height · width,) summed log-likelihood ratios of each class (the ledger's).
        expressions: By class; a class that is not there is taken as ``ASSUMED``.
    """
    factor: Floats = np.zeros(probability.shape)
    for name in sorted(llr_by_class):
        one = log_bayes_factor(llr_by_class[name], expressions.get(name, ASSUMED))
        factor += one.reshape(probability.shape)
    touched = (factor != 0.0) & np.isfinite(probability)
    before = np.clip(probability[touched].astype(np.float64), SURE, 1.0 - SURE)
    odds = np.exp(np.log(before) - np.log1p(-before) + factor[touched])
    after = odds / (1.0 + odds)
    out_p, out_s = probability.copy(), sigma.copy()
    out_p[touched] = after
    ratio = after * (1.0 - after) / (before * (1.0 - before))
    out_s[touched] = sigma[touched].astype(np.float64) * ratio
    return Posterior(out_p, out_s, factor)


def flat_prior(
    grid: ProjectGrid, probability: float, relative_sigma: float = 1.0
) -> tuple[Floats, Floats]:
    """Returns a prior that is the same everywhere, for projects without prior geology."""
    p = np.full(grid.shape, probability)
    return p, p * (1.0 - p) * relative_sigma


def prior_on(prior: PriorMap, grid: ProjectGrid) -> tuple[Floats, Floats]:
    """Returns a prior's (probability, σ) on another grid, NaN outside its study area.

    Each cell takes the occurrence rate per km² at its centre; P = 1 − exp(−λA) for its own area,
    so a finer grid expects as many occurrences.
    """
    x, y = grid.centres()
    mesh_x, mesh_y = np.meshgrid(x, y)
    if not grid.crs.equals(prior.grid.crs):
        move = Transformer.from_crs(grid.crs, prior.grid.crs, always_xy=True)
        mesh_x, mesh_y = move.transform(mesh_x, mesh_y)
    cells = prior.grid.cells(mesh_x.ravel(), mesh_y.ravel())
    p = np.where(cells >= 0, prior.probability.ravel()[cells], np.nan).astype(np.float64)
    s = np.where(cells >= 0, prior.sigma.ravel()[cells], np.nan).astype(np.float64)
    share = grid.cell_km2 / prior.grid.cell_km2
    if share == 1.0:
        return p.reshape(grid.shape), s.reshape(grid.shape)
    log_barren = np.log1p(-p) * share
    fine = -np.expm1(log_barren)
    slope = share * np.exp(log_barren) / (1.0 - p)
    return fine.reshape(grid.shape), (s * slope).reshape(grid.shape)
