"""What is believed of every cell: the prior, changed only where somebody looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import expm1
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from groundsync.errors import EmptyProjectError
from groundsync.flown import Flown
from groundsync.grid import ProjectGrid, coverage_fraction, grid_of_bounds
from groundsync.ledger import Ledger, Sensor, Sighting, looked_at, visit
from groundsync.posterior import Expression, flat_prior, prior_on, update
from groundsync.prior.files import PriorMap, read_prior
from groundsync.rank import Place
from groundsync.settings import ProjectSettings
from groundsync.targets import Target

PRIOR_FOLDER = "prior"
MARGIN_M = 50.0

Layer = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Belief:
    """Prior, posterior and what stands behind them."""

    grid: ProjectGrid
    prior: Layer
    prior_sigma: Layer
    posterior: Layer
    posterior_sigma: Layer
    coverage: Layer
    study: PriorMap | None
    expressions: Mapping[str, Expression]
    assumed_probability: float
    ledger: Ledger


def believe(
    project: Path,
    flown: Sequence[Flown],
    sensors: Mapping[tuple[str, str], Sensor],
    crs: CRS,
    settings: ProjectSettings,
) -> Belief:
    """Returns the belief on the project's grid: the prior, changed only where somebody looked."""
    evidence = settings.evidence
    grid = _grid(flown, crs, evidence.cell_m)
    assumed = -expm1(-evidence.prior_per_km2 * grid.cell_km2)
    folder = project / PRIOR_FOLDER
    study = read_prior(folder) if (folder / "evaluation.json").is_file() else None
    if study is None:
        prior, sigma = flat_prior(grid, assumed)
        expressions: dict[str, Expression] = {}
    else:
        prior, sigma = prior_on(study, grid)
        share = grid.cell_km2 / study.grid.cell_km2
        expressions = {
            s.class_name: Expression(s.p_given_deposit, s.p_given_barren, s.source).on_share(share)
            for s in study.surface
        }
    ledger = _ledger(flown, sensors, grid)
    n = grid.width * grid.height
    after = update(
        prior, sigma, {name: ledger.total(name, n) for name in ledger.classes()}, expressions
    )
    return Belief(
        grid,
        prior,
        sigma,
        after.probability,
        after.sigma,
        ledger.seen(n).reshape(grid.shape),
        study,
        expressions,
        assumed,
        ledger,
    )


def place_of(target: Target, belief: Belief) -> Place:
    """Returns what is known of a target's place; outside the study area the prior is assumed."""
    cell = int(belief.grid.cells(np.array([target.x_m]), np.array([target.y_m]))[0])

    def at(layer: Layer, otherwise: float) -> float:
        value = float(layer.ravel()[cell]) if cell >= 0 else float("nan")
        return value if np.isfinite(value) else otherwise

    flat = belief.assumed_probability
    known = belief.study is not None and np.isfinite(at(belief.prior, float("nan")))
    studied = belief.prior[np.isfinite(belief.prior)]
    return Place(
        prior=at(belief.prior, flat),
        prior_sigma=at(belief.prior_sigma, flat),
        prior_assumed=not known,
        prior_mean=float(studied.mean()) if studied.size else flat,
        cell_posterior=at(belief.posterior, flat),
        coverage=at(belief.coverage, 0.0),
    )


def _ledger(
    flown: Sequence[Flown], sensors: Mapping[tuple[str, str], Sensor], grid: ProjectGrid
) -> Ledger:
    ledger = Ledger()
    for flight in flown:
        outlines, _ = looked_at(flight.footprints)
        fraction = coverage_fraction(grid, outlines)
        for (model_hash, class_name), sensor in sorted(sensors.items()):
            if model_hash == flight.row.model_hash:
                seen = [
                    Sighting(t.x_m, t.y_m, t.cov_total_m2, float(np.sqrt(t.area_m2 / np.pi)))
                    for t in flight.tracks
                    if t.state == "confirmed" and t.class_name == class_name
                ]
                ledger.put(visit(grid, flight.row.flight_id, sensor, outlines, seen, fraction))
    return ledger


def _grid(flown: Sequence[Flown], crs: CRS, cell_m: float) -> ProjectGrid:
    rings = [f.polygon_map_m for flight in flown for f in flight.footprints]
    points = np.concatenate([ring for ring in rings if len(ring)] or [np.empty((0, 2))])
    if not len(points):
        raise EmptyProjectError("no flight imaged any ground", "see `gossan onboard inspect`")
    low, high = points.min(axis=0) - MARGIN_M, points.max(axis=0) + MARGIN_M
    return grid_of_bounds(crs, (low[0], low[1], high[0], high[1]), cell_m)
