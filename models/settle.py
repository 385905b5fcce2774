"""What held-out places settle: temperature, energy gate, and what a region must reach."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.dataset import Sample
from models.decode import Region, Regions, grid_of, probabilities, regions_of
from models.evaluate import Tally, match_regions
from models.labels import IGNORE
from models.manifest import Head
from models.predict import Predictor
from models.trust import energy, energy_gate, fit_temperature

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]

LEVELS = np.round(np.arange(0.50, 0.991, 0.01), 2)


@dataclass(frozen=True, slots=True)
class Looked:
    """One held-out frame and what the network answered.

    Attributes:
        logits: (rows, cols, classes) of one head.
        truth: (h, w) the mask.
    """

    logits: Floats
    truth: Pixels


def look(predictor: Predictor, name: str, samples: Iterable[Sample]) -> list[Looked]:
    """Returns the answers of one head on frames with masks."""
    classes = len(predictor.manifest.heads[name].classes)
    looked = []
    for sample in samples:
        image = sample.pixels()
        truth = sample.indices(classes, image.shape[:2])
        looked.append(Looked(predictor.logits(image)[name], truth))
    return looked


def settle(head: Head, looked: list[Looked], gsd_m: float | None, alarms_per_km2: float) -> Head:
    """Returns the head with its temperature and, where it reports, gate and levels, fitted.

    Args:
        head: As exported.
        looked: Held-out answers.
        gsd_m: Ground sample distance of the held-out frames.
        alarms_per_km2: False alarms per km² that each reported class may make.
    """
    logits, labels, energies = _cells(head, looked)
    temperature = fit_temperature(logits, labels)
    settled = head.model_copy(update={"temperature": temperature, "calibrated": True})
    known = energy(energies, temperature)
    if head.report and gsd_m is not None:
        least = choose_least(settled, looked, gsd_m, alarms_per_km2)
        settled = settled.model_copy(update={"least_probability": least})
    return settled.model_copy(update={"energy_max": round(energy_gate(known), 4)})


def choose_least(
    head: Head, looked: list[Looked], gsd_m: float, alarms_per_km2: float
) -> dict[str, float]:
    """Returns per reported class the lowest level that keeps within the false alarms allowed."""
    km2 = sum(one.truth.size for one in looked) * gsd_m**2 / 1e6
    open_head = head.model_copy(update={"least_probability": {}})
    wrong: dict[str, list[float]] = {kind: [] for kind in head.report}
    for one in looked:
        grid = grid_of(np.ones(one.truth.shape, bool), head.stride)
        p = probabilities(one.logits, open_head, grid)
        for region in regions_of("", open_head, one.logits, p, grid):
            if _is_false(region, one.truth, open_head, gsd_m):
                wrong[region.class_name].append(region.probability)
    allowed = alarms_per_km2 * km2
    chosen = {}
    for kind, found in wrong.items():
        alarms = np.array(found)
        fits = [float(p) for p in LEVELS if (alarms >= p).sum() <= allowed]
        chosen[kind] = fits[0] if fits else float(LEVELS[-1])
    return chosen


def _is_false(region: Region, truth: Pixels, head: Head, gsd_m: float) -> bool:
    tally = Tally(np.zeros((1, 1), np.int64))
    match_regions(tally, Regions.from_rows([region], True), truth, head, gsd_m)
    return bool(tally.false_alarms)


def _cells(head: Head, looked: list[Looked]) -> tuple[Floats, Ints, Floats]:
    """Returns cells' logits and labels at their middles, and the logits the gate is fitted on.

    The gate is fitted on cells of the reported classes, or on all cells where none is reported.
    """
    logits, labels = [], []
    s = head.stride
    for one in looked:
        truth = one.truth[s // 2 :: s, s // 2 :: s]
        known = truth != IGNORE
        logits.append(one.logits[: truth.shape[0], : truth.shape[1]][known])
        labels.append(truth[known].astype(np.int64))
    z, y = np.concatenate(logits), np.concatenate(labels)
    told = np.isin(y, [head.classes.index(kind) for kind in head.report])
    return z, y, z[told] if told.any() else z
