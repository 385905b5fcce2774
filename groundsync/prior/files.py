"""The prior folder: weights.csv, posterior.tif and evaluation.json, written and read."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyproj import CRS
from rasterio.errors import RasterioIOError

from gossan.console import plain
from groundsync.errors import ExportError, PriorError
from groundsync.grid import ProjectGrid
from groundsync.prior.run import PriorResult
from groundsync.prior.settings import Layer, Priors, Surface
from groundsync.prior.weights import ClassWeights

SCHEMA = 1
POSTERIOR, WEIGHTS, EVALUATION = "posterior.tif", "weights.csv", "evaluation.json"
COLUMNS = [
    "layer",
    "class",
    "lower",
    "upper",
    "group",
    "area_km2",
    "n",
    "weight",
    "weight_sd",
    "weight_minus",
    "weight_minus_sd",
    "contrast",
    "contrast_sd",
    "studentised",
]


@dataclass(frozen=True, slots=True)
class PriorMap:
    """What the drone's evidence starts from.

    Attributes:
        name: The study's name.
        grid: The project grid.
        probability: (height, width) that a cell holds an occurrence; NaN outside the study area.
        sigma: (height, width) its standard deviation.
        surface: What a deposit shows at the surface, by class.
        evaluation: evaluation.json.
    """

    name: str
    grid: ProjectGrid
    probability: NDArray[np.float32]
    sigma: NDArray[np.float32]
    surface: tuple[Surface, ...]
    evaluation: dict[str, Any]


def write_prior(result: PriorResult, priors: Priors, out: Path) -> dict[str, Any]:
    """Writes the three files, each whole or not at all, and returns evaluation.json's content.

    Raises:
        ExportError: The folder cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        _replace(out / WEIGHTS, weights_csv(result).encode())
        write_map(out / POSTERIOR, result.grid, result.probability, result.sigma)
        content = evaluation(result, priors)
        _replace(out / EVALUATION, (json.dumps(content, indent=2, ensure_ascii=False)).encode())
    except OSError as error:
        raise ExportError(
            f"cannot write to {out}: {error.strerror or error}", "check the folder and its space"
        ) from error
    return content


def read_prior(folder: Path) -> PriorMap:
    """Returns what ``write_prior`` wrote.

    Raises:
        PriorError: A file is missing, damaged, or of a later version.
    """
    try:
        content: dict[str, Any] = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
        with rasterio.open(folder / POSTERIOR) as data:
            probability, sigma = data.read(1), data.read(2)
            t, crs = data.transform, CRS.from_user_input(data.crs.to_wkt())
            grid = ProjectGrid(crs, t.c, t.f, t.a, data.width, data.height)
        if content["schema"] > SCHEMA:
            raise PriorError(f"{folder} is of version {content['schema']}", "update Gossan")
        surface = tuple(Surface.model_validate(s) for s in content["surface"])
    except (OSError, RasterioIOError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise PriorError(
            f"{folder} is no prior folder: {error}", "run gossan groundsync prior again"
        ) from error
    return PriorMap(content["name"], grid, probability, sigma, surface, content)


def evaluation(result: PriorResult, priors: Priors) -> dict[str, Any]:
    """Returns how far to trust the prior, with JSON's types only."""
    grid, block, test = result.grid, result.block, result.independence
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "name": priors.name,
        "method": "summed smoothed weights of evidence, Poisson recalibration",
        "crs": grid.crs.to_string(),
        "cell_m": grid.cell_m,
        "cells": int(result.studied.sum()),
        "area_km2": float(result.studied.sum() * grid.cell_km2),
        "unit_cell_km2": priors.area.unit_cell_km2,
        "unique_conditions": len(result.conditions),
        "t_over_n": block.t_over_n,
        "raw_t_over_n": block.raw_t_over_n,
        "auc_block": block.auc,
        "auc_random": result.random.auc,
        "information_gain_bits": block.information_gain_bits,
        "information_gain_random_bits": result.random.information_gain_bits,
        "ci_rejected": test.rejected,
        "independence": asdict(test),
        "rate": {
            "intercept": result.rate.intercept,
            "slope": result.rate.slope,
            "covariance": result.rate.covariance,
        },
        "validation": {
            "block_km": result.block_km,
            "folds": [asdict(f) for f in block.folds],
            "skipped_folds": block.skipped,
            "seed": priors.model.seed,
        },
        "occurrences": {
            **_source(priors.occurrences),
            "used": result.training.used,
            "outside_area": result.training.outside,
            "sharing_a_cell": result.training.shared,
        },
        "layers": [
            _layer_entry(layer, weights, notes.notes)
            for layer, weights, notes in zip(
                priors.layers, result.weights, result.layers, strict=True
            )
        ],
        "surface": [s.model_dump(by_alias=True) for s in priors.surface],
        "notes": list(notes(result)),
    }
    plain_content: dict[str, Any] = plain(content)
    return plain_content


def notes(result: PriorResult) -> tuple[str, ...]:
    """Returns what a reader must know before believing the map."""
    said = []
    if result.independence.rejected:
        said.append(
            "layers repeat each other: summed weights alone expect "
            f"{result.independence.expected:.0f} occurrences for "
            f"{result.independence.observed:.0f}; the Poisson rate corrects the sum, not the ranks"
        )
    if result.rate.slope <= 0:
        said.append("the fitted slope is not positive: these layers do not rank this area")
    if result.block.information_gain_bits <= 0:
        said.append(
            "on held-out blocks the map is no better than a uniform rate: do not use its contrast"
        )
    if result.block.skipped:
        said.append(
            f"{result.block.skipped} folds had too few occurrences elsewhere and are left out"
        )
    if result.training.outside:
        said.append(f"{result.training.outside} occurrences lie outside the area and are left out")
    bare_km2 = result.bare_cells * result.grid.cell_km2
    if bare_km2:
        said.append(
            f"{bare_km2:.3g} km² have no layer at all and get the rate of a cell that nothing is "
            "known of: cut the area with 'polygon' or 'mask'"
        )
    if result.training.used < 30:
        said.append(f"only {result.training.used} occurrences: every figure here is rough")
    return tuple(said)


def weights_csv(result: PriorResult) -> str:
    """Returns the table of weights, one row per layer and class and one for missing cells."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for weights, layer in zip(result.weights, result.layers, strict=True):
        for i, label in enumerate(weights.labels):
            numbers = (
                weights.area_km2[i],
                weights.n[i],
                weights.weight[i],
                weights.weight_sd[i],
                weights.weight_minus[i],
                weights.weight_minus_sd[i],
                weights.contrast[i],
                weights.contrast_sd[i],
                weights.studentised[i],
            )
            edges = (_edge(layer.lower[i]), _edge(layer.upper[i]))
            row = (weights.layer, label, *edges, int(weights.group[i]), *map(_number, numbers))
            writer.writerow(row)
        missing = (weights.missing_km2, weights.missing_n, 0.0, weights.missing_sd)
        writer.writerow(
            (weights.layer, "missing", "", "", "", *map(_number, missing), "", "", "", "", "")
        )
    return text.getvalue()


def write_map(
    path: Path, grid: ProjectGrid, probability: NDArray[Any], sigma: NDArray[Any]
) -> None:
    """Writes probability and σ as a two-band float32 GeoTIFF, whole or not at all."""
    draft = path.with_name(f".{path.name}.draft.tif")
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": "float32",
        "count": 2,
        "width": grid.width,
        "height": grid.height,
        "crs": grid.crs.to_wkt(),
        "transform": grid.transform,
        "nodata": float("nan"),
        "compress": "deflate",
        "predictor": 3,
        "interleave": "band",
    }
    if min(grid.shape) >= 256:
        profile |= {"tiled": True, "blockxsize": 256, "blockysize": 256}
    with rasterio.open(draft, "w", **profile) as data:
        data.write(np.asarray(probability, dtype=np.float32), 1)
        data.write(np.asarray(sigma, dtype=np.float32), 2)
        data.set_band_description(1, "probability of at least one occurrence in the cell")
        data.set_band_description(2, "standard deviation of the probability")
    draft.replace(path)


def _layer_entry(layer: Layer, weights: ClassWeights, said: tuple[str, ...]) -> dict[str, Any]:
    best = int(np.argmax(np.abs(weights.studentised)))
    return {
        "name": layer.name,
        "kind": layer.kind,
        "classes": len(weights.labels),
        "groups": int(weights.group.max()) + 1,
        "missing_km2": weights.missing_km2,
        "strongest_class": weights.labels[best],
        "strongest_contrast": float(weights.contrast[best]),
        "strongest_studentised": float(weights.studentised[best]),
        "datum": layer.datum,
        **_source(layer),
        "notes": list(said),
    }


def _source(item: Any) -> dict[str, Any]:
    return {"path": item.path.name, "date": item.date, "licence": item.licence}


def _edge(value: float) -> str:
    return "" if np.isnan(value) else str(value)


def _number(value: float) -> str:
    return repr(float(value))


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(content)
    draft.replace(path)
