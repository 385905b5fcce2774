"""Measuring a model on a labelled folder: overlap, ranking, calibration, found and missed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from models.dataset import Dataset, Sample
from models.decode import Regions, grid_of, probabilities, regions_of
from models.errors import DatasetError, ModelError
from models.labels import IGNORE
from models.manifest import Head, Manifest
from models.predict import Predictor
from models.trust import ECE_BINS

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Pixels = NDArray[np.uint8]

BOOTSTRAPS = 400
MIN_PLACES = 5
"""From this many places on, intervals come from drawing places, below it from drawing frames."""

SMALLEST_PX = 15
SIZE_BINS_M2 = (0.15, 0.5, 2.0, 8.0)
"""Lower edges of the bins of detectability."""


@dataclass
class Tally:
    """What one sample adds to the figures; tallies add up.

    Attributes:
        confusion: (c, c) pixels, truth by row.
        bins: (3, 15) count, Σ confidence, Σ correct per confidence bin.
        found: Planted things found, by class and lower edge of their size in m².
        planted: Planted things in all, by the same.
        false_alarms: Regions that lie on no planted thing, by class.
        area_px: Labelled pixels.
    """

    confusion: Ints
    bins: Doubles = field(default_factory=lambda: np.zeros((3, ECE_BINS)))
    found: Counter[tuple[str, float]] = field(default_factory=Counter)
    planted: Counter[tuple[str, float]] = field(default_factory=Counter)
    false_alarms: Counter[str] = field(default_factory=Counter)
    area_px: int = 0


def head_for(manifest: Manifest, dataset: Dataset, wanted: str | None) -> str:
    """Returns the head that a dataset's masks belong to.

    Asked for, else named in ``dataset.toml``, else the head with the same classes, else the first.

    Raises:
        ModelError: The model has no such head.
    """
    name = wanted or dataset.settings.head
    if not name:
        classes = dataset.settings.classes
        same = [n for n, head in manifest.heads.items() if classes and head.classes == classes]
        if classes and not same:
            raise ModelError(
                f"{dataset.path.name} has the classes {', '.join(classes)}; no head of "
                f"{manifest.name} has them",
                f"say which to compare with --head; heads: {', '.join(manifest.heads)}",
            )
        name = (same or list(manifest.heads))[0]
    if name not in manifest.heads:
        raise ModelError(
            f"{manifest.name} has no head '{name}'", f"its heads: {', '.join(manifest.heads)}"
        )
    return name


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    *,
    head: str | None = None,
    samples: Iterable[Sample] | None = None,
    positive: str | None = None,
) -> dict[str, Any]:
    """Returns the figures of a model on a dataset (keys of DESIGN's ``evaluate --json``).

    Args:
        predictor: The model.
        dataset: The folder.
        head: Which head to compare; see ``head_for``.
        samples: Only these, instead of all.
        positive: For chips: the class whose mean probability is the chip's score.
    """
    chosen = list(dataset.samples if samples is None else samples)
    if not chosen:
        raise DatasetError(f"no sample of {dataset.path.name} is left to evaluate")
    name = head_for(predictor.manifest, dataset, head)
    if dataset.kind == "chips":
        return _evaluate_chips(predictor, name, chosen, positive)
    gsd = dataset.settings.gsd_m
    tallies = [tally(predictor, name, sample, gsd) for sample in chosen]
    spec = predictor.manifest.heads[name]
    result: dict[str, Any] = {"n": len(chosen), "head": name, **summary(tallies, spec.classes)}
    places = [sample.place for sample in chosen]
    result["places"] = len(set(places))

    def miou_of(index: Ints) -> float:
        return miou(_sum([tallies[i].confusion for i in index]))

    result["miou_ci"] = bootstrap(miou_of, places)
    if spec.report and gsd is not None:
        result.update(detection_figures(tallies, gsd))
    result["simulated"] = dataset.settings.simulated
    result["calibrated"] = spec.calibrated
    return result


def tally(predictor: Predictor, name: str, sample: Sample, gsd_m: float | None) -> Tally:
    """Returns what one frame with a mask adds to the figures of a head."""
    image = sample.pixels()
    head = predictor.manifest.heads[name]
    truth = sample.indices(len(head.classes), image.shape[:2])
    logits = predictor.logits(image)[name]
    grid = grid_of(np.ones(truth.shape, bool), head.stride)
    p = probabilities(logits, head, grid)
    full = enlarge(p, head.stride, truth.shape)
    best = full.argmax(axis=2)
    known = truth != IGNORE
    c = len(head.classes)
    pairs = truth[known].astype(np.int64) * c + best[known]
    out = Tally(np.bincount(pairs, minlength=c * c).reshape(c, c).astype(np.int64))
    out.area_px = int(known.sum())
    thin = (slice(None, None, 4), slice(None, None, 4))
    some = known[thin]
    confidence = full[thin].max(axis=2)[some]
    _fill_bins(out.bins, confidence, (best[thin] == truth[thin])[some])
    if head.report and gsd_m is not None:
        rows = regions_of(name, head, logits, p, grid)
        match_regions(out, Regions.from_rows(rows, head.calibrated), truth, head, gsd_m)
    return out


def enlarge(p: Floats, stride: int, shape: tuple[int, int]) -> Floats:
    """Returns (h, w, c) of a (rows, cols, c) grid, bilinear between the cells' centres."""
    size = (p.shape[1] * stride, p.shape[0] * stride)
    layers = [
        cv2.resize(np.ascontiguousarray(p[..., k]), size, interpolation=cv2.INTER_LINEAR)
        for k in range(p.shape[2])
    ]
    return np.asarray(np.stack(layers, axis=2)[: shape[0], : shape[1]], np.float32)


def summary(tallies: list[Tally], classes: tuple[str, ...]) -> dict[str, Any]:
    """Returns mIoU, IoU by class, accuracy and ECE of added tallies."""
    confusion = _sum([t.confusion for t in tallies])
    iou = iou_by_class(confusion)
    bins = _sum([t.bins for t in tallies])
    gap = np.abs(bins[2] - bins[1]).sum() / max(bins[0].sum(), 1)
    return {
        "miou": miou(confusion),
        "iou_by_class": {name: float(v) for name, v in zip(classes, iou, strict=True)},
        "accuracy": float(np.trace(confusion) / max(confusion.sum(), 1)),
        "ece": float(gap),
    }


def iou_by_class(confusion: Ints) -> Doubles:
    """Returns intersection over union per class; NaN where it occurs nowhere."""
    both = np.diag(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(both / union)


def miou(confusion: Ints) -> float:
    """Returns the mean IoU over the classes that occur in the truth."""
    occurs = confusion.sum(axis=1) > 0
    return float(iou_by_class(confusion)[occurs].mean()) if occurs.any() else float("nan")


def match_regions(out: Tally, regions: Regions, truth: Pixels, head: Head, gsd_m: float) -> None:
    """Counts planted things found and regions that lie on nothing planted.

    A planted thing is a component of one class of at least 15 pixels. It is found where a region
    of its class overlaps it. A region that meets no planted pixel of any class, nor an ambiguous
    one, within one output cell is a false alarm.
    """
    drawn = {name: np.zeros(truth.shape, np.uint8) for name in head.report}
    near = cv2.dilate((truth != 0).astype(np.uint8), np.ones((2 * head.stride + 1,) * 2, np.uint8))
    for kind, polygon in zip(regions.class_name, regions.polygon_px, strict=True):
        one = np.zeros(truth.shape, np.uint8)
        cv2.fillPoly(one, [polygon.astype(np.int32)], (1,))
        drawn[kind] |= one
        if not (near[one > 0]).any():
            out.false_alarms[kind] += 1
    for kind in head.report:
        mask = (truth == head.classes.index(kind)).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        for k in range(1, count):
            size = int(stats[k, cv2.CC_STAT_AREA])
            if size < SMALLEST_PX:
                continue
            edge = max(b for b in SIZE_BINS_M2 if b <= size * gsd_m**2 + 1e-9)
            out.planted[kind, edge] += 1
            out.found[kind, edge] += int(drawn[kind][labels == k].any())


def detection_figures(tallies: list[Tally], gsd_m: float) -> dict[str, Any]:
    """Returns found and planted, false alarms per km², by class and size."""
    km2 = sum(t.area_px for t in tallies) * gsd_m**2 / 1e6
    planted: Counter[tuple[str, float]] = sum((t.planted for t in tallies), Counter())
    found: Counter[tuple[str, float]] = sum((t.found for t in tallies), Counter())
    alarms: Counter[str] = sum((t.false_alarms for t in tallies), Counter())
    kinds = sorted({kind for kind, _ in planted} | set(alarms))
    by_class = {
        kind: {
            "found": sum(n for (k, _), n in found.items() if k == kind),
            "planted": sum(n for (k, _), n in planted.items() if k == kind),
            "false_alarms": alarms[kind],
            "p_detect_by_size_m2": {
                str(b): found[kind, b] / planted[kind, b] for b in SIZE_BINS_M2 if planted[kind, b]
            },
        }
        for kind in kinds
    }
    return {
        "planted": planted.total(),
        "found": found.total(),
        "km2": km2,
        "false_alarms": alarms.total(),
        "false_alarms_per_km2": alarms.total() / km2 if km2 else None,
        "by_class": by_class,
    }


def bootstrap(figure: Callable[[Ints], float], places: list[str], seed: int = 0) -> list[float]:
    """Returns the 95 % interval of a figure, drawing places (frames where these are few)."""
    names = sorted(set(places))
    groups = [np.array([i for i, p in enumerate(places) if p == name]) for name in names]
    if len(names) < MIN_PLACES:
        groups = [np.array([i]) for i in range(len(places))]
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(BOOTSTRAPS):
        drawn = rng.integers(0, len(groups), len(groups))
        values.append(figure(np.concatenate([groups[i] for i in drawn])))
    low, high = np.nanquantile(values, [0.025, 0.975])
    return [float(low), float(high)]


def roc_auc(score: Doubles, truth: NDArray[np.bool_]) -> float:
    """Returns the area under the ROC curve (ties count half)."""
    from_low = np.argsort(np.argsort(score, kind="stable"), kind="stable") + 1.0
    values, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.bincount(inverse, weights=from_low) / counts)[inverse] if len(values) else from_low
    p, n = int(truth.sum()), int((~truth).sum())
    if not p or not n:
        return float("nan")
    return float((ranks[truth].sum() - p * (p + 1) / 2) / (p * n))


def average_precision(score: Doubles, truth: NDArray[np.bool_]) -> float:
    """Returns Σ (recall step · precision) from the highest score down, ties taken together."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.append(np.diff(score[order]) != 0, True)
    tp, total = hits[last], np.flatnonzero(last) + 1
    if not truth.any():
        return float("nan")
    steps = np.diff(np.concatenate([[0], tp])) / truth.sum()
    return float((steps * tp / total).sum())


def _evaluate_chips(
    predictor: Predictor, name: str, samples: list[Sample], positive: str | None
) -> dict[str, Any]:
    head = predictor.manifest.heads[name]
    if positive is None or positive not in head.classes:
        raise ModelError(
            f"chips need a class of head '{name}' that label 1 stands for",
            f"give --positive one of {', '.join(head.classes)}",
        )
    k = head.classes.index(positive)
    scores, labels = [], []
    for sample in samples:
        image = sample.pixels()
        grid = grid_of(np.ones(image.shape[:2], bool), head.stride)
        p = probabilities(predictor.logits(image)[name], head, grid)
        scores.append(float(p[..., k].mean()))
        labels.append(sample.label == 1)
    score, truth = np.array(scores), np.array(labels)
    called = score >= head.threshold.get(positive, 0.5)
    places = [sample.place for sample in samples]
    bins = np.zeros((3, ECE_BINS))
    _fill_bins(bins, np.where(score >= 0.5, score, 1 - score), (score >= 0.5) == truth)

    def auc_of(index: Ints) -> float:
        return roc_auc(score[index], truth[index])

    def ap_of(index: Ints) -> float:
        return average_precision(score[index], truth[index])

    return {
        "n": len(samples),
        "head": name,
        "auc": roc_auc(score, truth),
        "auc_ci": bootstrap(auc_of, places),
        "ap": average_precision(score, truth),
        "ap_ci": bootstrap(ap_of, places),
        "sensitivity": float(called[truth].mean()) if truth.any() else None,
        "specificity": float((~called)[~truth].mean()) if (~truth).any() else None,
        "accuracy": float((called == truth).mean()),
        "ece": float(np.abs(bins[2] - bins[1]).sum() / bins[0].sum()),
        "calibrated": head.calibrated,
    }


def _fill_bins(bins: Doubles, confidence: Any, correct: Any) -> None:
    index = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    for row, weights in enumerate((None, confidence, correct)):
        bins[row] += np.bincount(index, weights=weights, minlength=ECE_BINS)


def _sum(parts: list[Any]) -> Any:
    return np.sum(parts, axis=0)
