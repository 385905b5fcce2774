"""The prior from beginning to end: study area, layers, weights, rate, validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gossan.console import progress
from groundsync.grid import Bools, ProjectGrid
from groundsync.prior.area import Training, study_area, training
from groundsync.prior.conditions import Conditions, find_conditions
from groundsync.prior.layers import ClassedLayer, read_layer
from groundsync.prior.model import (
    Independence,
    PoissonRate,
    fit_poisson,
    independence,
    score,
    weigh_layers,
)
from groundsync.prior.settings import Priors
from groundsync.prior.validate import Validation, block_folds, cross_validate, random_folds
from groundsync.prior.weights import ClassWeights


@dataclass(frozen=True, slots=True)
class PriorResult:
    """All that the layers say.

    Attributes:
        grid: The project grid.
        studied: (height, width) True inside the study area.
        training: What it learned from.
        layers: The layers as classes.
        conditions: Their unique conditions.
        weights: Weights of every layer.
        rate: Occurrences per km² as a function of the summed weights.
        independence: Test of conditional independence.
        block: Validation on held-out blocks.
        random: Validation on held-out random cells.
        block_km: Side of the blocks used.
        probability: (height, width) that a cell holds at least one occurrence; NaN outside.
        sigma: (height, width) its standard deviation; NaN outside.
        bare_cells: Studied cells where every layer is missing.
    """

    grid: ProjectGrid
    studied: Bools
    training: Training
    layers: tuple[ClassedLayer, ...]
    conditions: Conditions
    weights: tuple[ClassWeights, ...]
    rate: PoissonRate
    independence: Independence
    block: Validation
    random: Validation
    block_km: float
    probability: NDArray[np.float32]
    sigma: NDArray[np.float32]
    bare_cells: int


def compute_prior(priors: Priors, folder: Path) -> PriorResult:
    """Returns the prior that a priors.toml asks for.

    Holds one 32-bit layer, all layers as 16-bit classes and a 32-bit condition per cell: about
    2 bytes per cell and layer, and 30 more per cell while it works.

    Args:
        priors: The settings.
        folder: Where their relative paths start.

    Raises:
        GridError: The study area cannot be used.
        LayerError: A layer cannot be used.
        OccurrenceError: There are too few occurrences.
    """
    grid, studied = study_area(priors.area, folder)
    known = training(priors.occurrences, folder, grid, studied)
    layers = tuple(
        read_layer(layer, folder, grid, studied)
        for layer in progress(priors.layers, "reading layers")
    )
    conditions = find_conditions(layers, studied)
    area_km2, n = conditions.cells() * grid.cell_km2, conditions.sums(known.count)
    model, unit = priors.model, priors.area.unit_cell_km2
    weights = weigh_layers(
        layers, conditions, area_km2, n, unit_cell_km2=unit, merge_rare=model.merge_rare
    )
    summed = score(weights, conditions)
    rate = fit_poisson(summed.value, area_km2, n)
    probability, sigma = rate.probability(summed, grid.cell_km2)
    blocks, block_km = block_folds(grid, studied, model.block_km, model.folds, model.seed)
    block, random = (
        cross_validate(
            layers,
            conditions,
            known.count,
            fold_of_cell,
            cell_km2=grid.cell_km2,
            unit_cell_km2=unit,
            merge_rare=model.merge_rare,
        )
        for fold_of_cell in (blocks, random_folds(studied, model.folds, model.seed))
    )
    return PriorResult(
        grid,
        studied,
        known,
        layers,
        conditions,
        weights,
        rate,
        independence(summed, area_km2, float(n.sum()), unit),
        block,
        random,
        block_km,
        conditions.paint(probability),
        conditions.paint(sigma),
        int(conditions.cells()[(conditions.codes < 0).all(axis=1)].sum()),
    )
