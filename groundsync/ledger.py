"""The ledger of looks: what each flight's look, or empty look, says about each cell.

Log-likelihood ratios per cell, sensor and flight. Putting the same visit in again changes nothing,
the order does not matter, and a flight can be taken out again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from groundsync.grid import Bools, Floats, Ints, ProjectGrid, coverage_fraction
from onboard.place.coverage import footprint_polygon
from onboard.records import CHI2_2_P90, Footprint

MIN_FALSE_ALARM = 1e-9
TYPICAL_SIZE_M2 = 25.0


class VisitKey(NamedTuple):
    """What a visit is filed under: one flight, one sensor (a model's hash), one class."""

    flight_id: str
    sensor: str
    class_name: str


@dataclass(frozen=True, slots=True)
class Sensor:
    """How well a model sees one class.

    Attributes:
        model_hash: The model.
        class_name: The class.
        p_detect: Probability that a fully imaged expression is reported.
        false_alarms_per_km2: Reports per km² of ground that shows nothing.
        source: Where the numbers come from (``simulated``, ``assumed``, …).
    """

    model_hash: str
    class_name: str
    p_detect: float
    false_alarms_per_km2: float
    source: str = ""

    def __post_init__(self) -> None:
        if not 0.0 < self.p_detect < 1.0:
            raise ValueError(f"p_detect of {self.class_name} is {self.p_detect}, not in (0, 1)")
        if not self.false_alarms_per_km2 >= 0.0:
            raise ValueError(f"false alarms of {self.class_name}: {self.false_alarms_per_km2}")

    def false_alarm(self, cell_km2: float) -> float:
        """Returns λ, the probability of at least one false report in a cell."""
        return float(max(-np.expm1(-self.false_alarms_per_km2 * cell_km2), MIN_FALSE_ALARM))


@dataclass(frozen=True, slots=True)
class Sighting:
    """A confirmed track of the visit, on the project's map.

    Attributes:
        x_m: Map x.
        y_m: Map y.
        cov_m2: (2, 2) total covariance, map axes.
        radius_m: Half its extent on the ground.
    """

    x_m: float
    y_m: float
    cov_m2: Floats
    radius_m: float = 0.0


@dataclass(frozen=True, slots=True)
class Visit:
    """What one flight with one sensor says of one class.

    Attributes:
        key: What it is filed under.
        cells: (k,) flat cell numbers, rising, each once.
        fraction: (k,) share of the cell that was really imaged and scanned.
        detected: (k,) whether something was reported there.
        llr: (k,) ln P(report | expression) − ln P(report | none).
        undecided: How many imaged cells were left out because a sighting may lie in them.
    """

    key: VisitKey
    cells: Ints
    fraction: Floats
    detected: Bools
    llr: Floats
    undecided: int = 0

    def __post_init__(self) -> None:
        if len(self.cells) > 1 and not (np.diff(self.cells) > 0).all():
            raise ValueError("cells of a visit must rise")
        for name in ("fraction", "detected", "llr"):
            if getattr(self, name).shape != self.cells.shape:
                raise ValueError(f"{name} of a visit does not match its cells")


@dataclass
class Ledger:
    """All visits of a project.

    Attributes:
        visits: By key.
    """

    visits: dict[VisitKey, Visit] = field(default_factory=dict)

    def put(self, visit: Visit) -> None:
        """Files a visit; one under the same key is replaced."""
        self.visits[visit.key] = visit

    def remove_flight(self, flight_id: str) -> int:
        """Takes out all visits of a flight and returns how many there were."""
        gone = [key for key in self.visits if key.flight_id == flight_id]
        for key in gone:
            del self.visits[key]
        return len(gone)

    def classes(self) -> tuple[str, ...]:
        """Returns the classes that were looked for, sorted."""
        return tuple(sorted({key.class_name for key in self.visits}))

    def total(self, class_name: str, cells: int) -> Floats:
        """Returns (cells,) summed log-likelihood ratios of a class, 0 where nobody looked.

        Visits are independent given what the surface shows. They are summed in the order of their
        keys, so that the result does not depend on the order in which they were filed.
        """
        total = np.zeros(cells)
        for key in sorted(self.visits):
            if key.class_name == class_name:
                visit = self.visits[key]
                total[visit.cells] += visit.llr
        return total

    def seen(self, cells: int) -> Floats:
        """Returns (cells,) the largest share of each cell that any visit imaged."""
        seen = np.zeros(cells)
        for visit in self.visits.values():
            np.maximum.at(seen, visit.cells, visit.fraction)
        return seen


def look_llr(fraction: Floats, detected: Bools, p_detect: float, false_alarm: float) -> Floats:
    """Returns what a visit says of each cell.

    q₁ = 1 − (1 − f·p_d)(1 − λ) is the probability of a report where the surface shows the class,
    q₀ = λ where it does not. A report adds ln(q₁/q₀) = ln(1 + f·p_d·(1 − λ)/λ), none adds
    ln((1 − q₁)/(1 − q₀)) = ln(1 − f·p_d). Where nothing was imaged both are exactly 0.

    Args:
        fraction: (k,) f, share of the cell really imaged and scanned.
        detected: (k,) whether something was reported.
        p_detect: p_d.
        false_alarm: λ of a cell.
    """
    seen = np.asarray(fraction, dtype=np.float64) * p_detect
    found = np.log1p(seen * (1.0 - false_alarm) / false_alarm)
    empty = np.log1p(-seen) + 0.0
    return np.asarray(np.where(detected, found, empty))


def looked_at(footprints: Iterable[Footprint]) -> tuple[list[BaseGeometry], Counter[str]]:
    """Returns the outlines (map coordinates) that count as looks, and why the others do not.

    A frame counts where the network scanned it and its quality is good; occluded ground and voids
    are cut out.
    """
    kept: list[BaseGeometry] = []
    dropped: Counter[str] = Counter()
    for footprint in footprints:
        shape = footprint_polygon(footprint)
        if not footprint.scanned:
            dropped["not scanned"] += 1
        elif footprint.quality != "good":
            dropped[footprint.quality] += 1
        elif shape.is_empty:
            dropped["no outline"] += 1
        else:
            kept.append(shape)
    return kept, dropped


def visit(
    grid: ProjectGrid,
    flight_id: str,
    sensor: Sensor,
    outlines: Sequence[BaseGeometry],
    sightings: Sequence[Sighting],
    fraction: NDArray[np.float32] | None = None,
) -> Visit:
    """Returns what one flight says of one class, ready to be filed.

    A cell counts as a report where a confirmed track of the class lies in it. Other cells that
    its 90 % ellipse or its extent reaches are left out: it may lie there, so they were not seen
    empty.

    Args:
        grid: The project grid.
        flight_id: The flight.
        sensor: How well the model sees the class.
        outlines: What was looked at (``looked_at``), in the grid's CRS.
        sightings: Confirmed tracks of the class.
        fraction: (height, width) coverage of the outlines, if it is known already.
    """
    if fraction is None:
        fraction = coverage_fraction(grid, outlines)
    flat = fraction.ravel().astype(np.float64)
    x, y = np.array([s.x_m for s in sightings]), np.array([s.y_m for s in sightings])
    hits = grid.cells(x, y) if len(sightings) else np.zeros(0, dtype=np.int64)
    detected = np.zeros(flat.size, dtype=bool)
    detected[hits[hits >= 0]] = True
    doubtful = np.zeros(flat.size, dtype=bool)
    for sighting in sightings:
        doubtful[_reach(grid, sighting)] = True
    doubtful &= ~detected & (flat > 0)
    cells = np.flatnonzero((flat > 0) & ~doubtful)
    llr = look_llr(flat[cells], detected[cells], sensor.p_detect, sensor.false_alarm(grid.cell_km2))
    key = VisitKey(flight_id, sensor.model_hash, sensor.class_name)
    return Visit(key, cells, flat[cells], detected[cells], llr, int(doubtful.sum()))


def sensor_of(
    model_hash: str,
    class_name: str,
    p_detect_by_size: Mapping[str, float],
    false_alarms_per_km2: float,
    source: str,
    size_m2: float = TYPICAL_SIZE_M2,
) -> Sensor:
    """Returns a sensor from a manifest's detectability.

    Args:
        model_hash: The model.
        class_name: The class.
        p_detect_by_size: Probability by the smallest size (m²) of each bin, as text.
        false_alarms_per_km2: Of the class.
        source: Where the numbers come from.
        size_m2: Size of the expression looked for; the bin it falls into counts, the smallest
            bin below that.
    """
    bins = sorted((float(size), p) for size, p in p_detect_by_size.items())
    below = [p for size, p in bins if size <= size_m2] or [bins[0][1]]
    p = min(max(below[-1], 1e-6), 1.0 - 1e-6)
    return Sensor(model_hash, class_name, p, false_alarms_per_km2, source)


def _reach(grid: ProjectGrid, sighting: Sighting) -> Ints:
    """Returns the cells that the 90 % ellipse, grown by the extent, reaches into."""
    cov = sighting.cov_m2 + np.eye(2) * (sighting.radius_m**2 / CHI2_2_P90 + 1e-6)
    reach_m = float(np.sqrt(CHI2_2_P90 * np.linalg.eigvalsh(cov)[-1]))
    steps = np.arange(-ceil(reach_m / grid.cell_m) - 1, ceil(reach_m / grid.cell_m) + 2)
    rows, cols = grid.rows_cols(np.array([sighting.x_m]), np.array([sighting.y_m]))
    r, c = (a.ravel() for a in np.meshgrid(rows[0] + steps, cols[0] + steps, indexing="ij"))
    dx = grid.x0 + (c + 0.5) * grid.cell_m - sighting.x_m
    dy = grid.y0 - (r + 0.5) * grid.cell_m - sighting.y_m
    half = grid.cell_m / 2.0
    d = np.stack([v - np.clip(v, -half, half) for v in (dx, dy)])
    near = np.einsum("in,ij,jn->n", d, np.linalg.inv(cov), d) <= CHI2_2_P90
    inside = (r >= 0) & (r < grid.height) & (c >= 0) & (c < grid.width) & near
    return np.asarray(r[inside] * grid.width + c[inside])
