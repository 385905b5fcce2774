"""The final scorer: what was found against what was planted, the only reader of a simulated truth.

A planted anomaly counts where it is *due*: at least ``MIN_ORTHO_PX`` ortho pixels large, mostly
unoccluded, and inside ground that a scanned frame really imaged. A small, hidden or unseen one that
is found all the same is neither a find nor a false alarm.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import binom, chi2

from gossan.errors import DamagedDataError

Floats = NDArray[np.float64]

MapTransform = Callable[[Floats, Floats], tuple[Floats, Floats]]
Imaged = Callable[[Floats, Floats], NDArray[np.bool_]]

MIN_ORTHO_PX = 15.0
MAX_OCCLUDED = 0.3
GATE_M = 12.0
"""A target within this distance of a planted anomaly is the same thing; planted ones lie farther
apart than twice this, and it is several σ of a flight, so the gate flatters no ellipse."""


@dataclass(frozen=True, slots=True)
class Planted:
    """What was planted in one simulated world.

    Attributes:
        class_name: n class names.
        x_m: (n,) map x of the centroid in the flight's CRS.
        y_m: (n,) map y.
        due: (n,) True where it had to be found.
    """

    class_name: tuple[str, ...]
    x_m: Floats
    y_m: Floats
    due: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Score:
    """How a flight, or many, did.

    Attributes:
        due: Planted anomalies that had to be found.
        found: Of these, found.
        right_class: Of the found, called by their own class.
        false_alarms: Targets where nothing was planted.
        area_km2: Ground that was really looked at.
        error_m: (k,) distance from truth of each found one.
        d2: (k,) squared Mahalanobis distance of each found one.
        ce90_m: (k,) radius that each claimed.
        missed: Names of those not found, ``class at x, y``.
    """

    due: int
    found: int
    right_class: int
    false_alarms: int
    area_km2: float
    error_m: Floats
    d2: Floats
    ce90_m: Floats
    missed: tuple[str, ...] = ()

    @property
    def recall(self) -> float:
        """Share of the due that was found; NaN where nothing was due."""
        return self.found / self.due if self.due else float("nan")

    @property
    def false_alarms_per_km2(self) -> float:
        """False alarms per square kilometre looked at."""
        return self.false_alarms / self.area_km2 if self.area_km2 else float("nan")

    def inside(self, share: float) -> int:
        """Returns how many truths lie inside the ellipse that should hold ``share`` of them."""
        return int((self.d2 <= chi2.ppf(share, 2)).sum())


def score_targets(
    planted: Planted,
    class_name: Sequence[str],
    xy_m: Floats,
    cov_m2: Floats,
    ce90_m: Floats,
    area_km2: float,
) -> Score:
    """Returns the score of one flight's targets.

    Args:
        planted: The truth.
        class_name: n class names of the targets.
        xy_m: (n, 2) map x, y of the targets.
        cov_m2: (n, 2, 2) their total covariances.
        ce90_m: (n,) the radii they claim.
        area_km2: Ground looked at.
    """
    offset = xy_m[:, None, :] - np.column_stack([planted.x_m, planted.y_m])[None, :, :]
    distance = np.linalg.norm(offset, axis=2)
    rows, columns = linear_sum_assignment(np.minimum(distance, 10 * GATE_M))
    near = distance[rows, columns] <= GATE_M
    pairs = [(i, j) for i, j, ok in zip(rows, columns, near, strict=True) if ok]
    hits = [(int(i), int(j)) for i, j in pairs if planted.due[j]]
    claimed = distance.min(axis=1, initial=np.inf) <= GATE_M
    hit_columns = {j for _, j in hits}
    error = np.array([offset[i, j] for i, j in hits]).reshape(-1, 2)
    d2 = [e @ np.linalg.solve(cov_m2[i], e) for e, (i, _) in zip(error, hits, strict=True)]
    return Score(
        due=int(planted.due.sum()),
        found=len(hits),
        right_class=sum(class_name[i] == planted.class_name[j] for i, j in hits),
        false_alarms=int((~claimed).sum()),
        area_km2=area_km2,
        error_m=np.linalg.norm(error, axis=1),
        d2=np.array(d2, dtype=np.float64),
        ce90_m=np.array([ce90_m[i] for i, _ in hits], dtype=np.float64),
        missed=tuple(
            f"{planted.class_name[j]} at {planted.x_m[j]:.1f}, {planted.y_m[j]:.1f}"
            for j in np.flatnonzero(planted.due)
            if j not in hit_columns
        ),
    )


def add_scores(scores: Sequence[Score]) -> Score:
    """Returns the score of several flights together."""
    return Score(
        due=sum(s.due for s in scores),
        found=sum(s.found for s in scores),
        right_class=sum(s.right_class for s in scores),
        false_alarms=sum(s.false_alarms for s in scores),
        area_km2=sum(s.area_km2 for s in scores),
        error_m=np.concatenate([s.error_m for s in scores]),
        d2=np.concatenate([s.d2 for s in scores]),
        ce90_m=np.concatenate([s.ce90_m for s in scores]),
        missed=tuple(name for s in scores for name in s.missed),
    )


def binomial_bounds(n: float, share: float, level: float = 0.99) -> tuple[float, float]:
    """Returns the two-sided bounds of an observed share, where ``share`` is true of n draws."""
    tail = (1 - level) / 2
    whole = max(round(n), 1)
    return float(binom.ppf(tail, whole, share) / whole), float(
        binom.ppf(1 - tail, whole, share) / whole
    )


def read_planted(
    folder: Path, to_map: MapTransform, imaged: Imaged, class_names: Sequence[str]
) -> Planted:
    """Returns what was planted, with what had to be found.

    Args:
        folder: The simulated flight; its ``truth/anomalies.geojson`` is read.
        to_map: ``(lat_deg, lon_deg) -> (x_m, y_m)`` in the flight's CRS.
        imaged: ``(x_m, y_m) -> bool`` whether scanned frames imaged that place.
        class_names: Classes that can be found; others are never due.

    Raises:
        DamagedDataError: There is no truth there.
    """
    path = folder / "truth" / "anomalies.geojson"
    try:
        features = json.loads(path.read_text(encoding="utf-8"))["features"]
    except (OSError, ValueError, KeyError) as error:
        raise DamagedDataError(
            f"no truth at {path}: {error}", "simulate the flight again"
        ) from error
    rows = [feature["properties"] for feature in features]
    lat, lon = (
        np.array([row[k] for row in rows], dtype=np.float64) for k in ("lat_deg", "lon_deg")
    )
    x, y = to_map(lat, lon)
    due = [
        row["class_name"] in class_names
        and row["visible_px"] >= MIN_ORTHO_PX
        and row["occluded"] <= MAX_OCCLUDED
        for row in rows
    ]
    return Planted(
        tuple(row["class_name"] for row in rows), x, y, np.array(due, bool) & imaged(x, y)
    )
