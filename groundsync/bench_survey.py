"""``gossan bench survey``: many short simulated flights against what was planted in their worlds.

Each flight is simulated, replayed and fused by the commands that a user has; worlds are of the
``test`` family, whose textures, spectra and terrain no training saw.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import shapely
from pyproj import CRS
from shapely.geometry import shape

from calibration.geodesy import MapFrame
from gossan.console import emit, json_option, progress, table
from gossan.errors import GossanError
from groundsync.ledger import looked_at
from groundsync.score import (
    Score,
    add_scores,
    binomial_bounds,
    read_planted,
    score_targets,
)
from groundsync.targets import FlightTracks, Target, fuse_targets
from onboard.keep.read import FlightReader

MIN_RECALL = 0.90
MAX_FALSE_ALARMS_PER_KM2 = 5.0
SHARES = (0.5, 0.9)
CLASSES = ("iron_oxide", "bleached_quartz", "dark_disturbed")


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing that the flights must reach.

    Attributes:
        name: What is measured.
        value: What was measured.
        low: The least that passes.
        high: The most that passes.
    """

    name: str
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Whether the value lies within its bounds."""
        return self.low <= self.value <= self.high


@click.command()
@click.option("--flights", default=24, show_default=True, help="How many flights, one seed each.")
@click.option("--first-seed", default=5001, show_default=True, help="Seed of the first.")
@click.option("--model", default="surface-rgb", show_default=True, help="What looks.")
@click.option("--jobs", default=2, show_default=True, help="Flights at a time.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the flights here.")
@json_option
def survey(
    flights: int, first_seed: int, model: str, jobs: int, out: Path | None, as_json: bool
) -> None:
    """Simulated flights against planted truth.

    Exits 1 where a bar is missed: 90 % of the planted anomalies found, at most 5 false alarms per
    km², and the truth inside the 50 % and 90 % ellipses as often as they say.
    """
    with tempfile.TemporaryDirectory(prefix="gossan-survey-") as temp:
        folder = out or Path(temp)
        with ThreadPoolExecutor(jobs) as pool:
            seeds = range(first_seed, first_seed + flights)
            runs = pool.map(lambda seed: fly(seed, folder, model, keep=out is not None), seeds)
            scores = list(progress(runs, "flights", flights))
    bars = judge(scores)
    emit(_payload(scores, bars), as_json, lambda: _show(scores, bars))
    if not all(bar.passed for bar in bars):
        sys.exit(1)


def fly(seed: int, folder: Path, model: str, keep: bool) -> Score:
    """Returns the score of one simulated, replayed and fused flight."""
    source, flight = folder / f"source-{seed}", folder / f"flight-{seed}"
    if not (source / "truth" / "truth.json").is_file():  # one kept from an earlier run is the same
        _gossan("onboard", "simulate", "--out", source, "--seed", seed, "--family", "test")
    _gossan(
        *("onboard", "replay", source, "--rig", source / "rig.toml", "--dem", source / "dem.tif"),
        *("--model", model, "--no-orthos", "--no-misfit", "--out", flight),
    )
    score = score_flight(source, flight)
    if not keep:
        shutil.rmtree(source)
        shutil.rmtree(flight)
    return score


def score_flight(source: Path, flight: Path) -> Score:
    """Returns how the targets of a replayed flight agree with what was planted."""
    with FlightReader(flight) as reader:
        header = reader.header
        tracks = FlightTracks(header.flight_id, header.model_hash, False, tuple(reader.tracks()))
        outlines, _ = looked_at(reader.footprints())
    map_frame = MapFrame(CRS.from_wkt(header.crs_wkt))
    targets = fuse_targets([tracks], map_frame).targets
    return score_against_truth(source, targets, map_frame, shapely.union_all(outlines))


def score_against_truth(
    source: Path, targets: Sequence[Target], map_frame: MapFrame, imaged: shapely.Geometry
) -> Score:
    """Returns the score of targets against a simulated flight's truth.

    Args:
        source: The simulated flight.
        targets: What was found, on this map.
        map_frame: The map.
        imaged: Ground that scanned frames imaged, map metres.
    """
    due_area = imaged.intersection(_planned_area(source, map_frame))

    def is_due(x_m: np.ndarray[Any, Any], y_m: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.asarray(shapely.contains_xy(due_area, x_m, y_m))

    planted = read_planted(source, map_frame.to_map, is_due, CLASSES)
    reported = [t for t in targets if t.class_name in CLASSES]
    return score_targets(
        planted,
        [t.class_name for t in reported],
        np.array([[t.x_m, t.y_m] for t in reported]).reshape(-1, 2),
        np.array([t.cov_total_m2 for t in reported]).reshape(-1, 2, 2),
        np.array([t.ce90_m for t in reported]),
        imaged.area / 1e6,
    )


def judge(scores: Sequence[Score]) -> list[Bar]:
    """Returns the bars of many flights.

    Errors within one flight are not independent: they share its GNSS, heading, mount and clock.
    The bounds of the ellipses are therefore those of a binomial with the effective number of
    draws, n over the design effect of targets clustered in flights.
    """
    total = add_scores(scores)
    bars = [
        Bar("share of planted found", total.recall, MIN_RECALL, 1.0),
        Bar("false alarms per km2", total.false_alarms_per_km2, 0.0, MAX_FALSE_ALARMS_PER_KM2),
    ]
    for share in SHARES:
        n = len(total.d2) or float("nan")
        low, high = binomial_bounds(effective_number(scores, share), share)
        bars.append(Bar(f"inside the {share:.0%} ellipse", total.inside(share) / n, low, high))
    return bars


def effective_number(scores: Sequence[Score], share: float) -> float:
    """Returns how many independent draws the truths inside an ellipse are worth.

    The design effect 1 + (m − 1)·ρ of clusters of size m (Kish 1965), with the intra-cluster
    correlation ρ from one-way analysis of variance, at least 0.
    """
    groups = [(s.d2 <= -2.0 * np.log(1.0 - share)).astype(float) for s in scores if len(s.d2)]
    sizes = np.array([len(g) for g in groups], dtype=np.float64)
    n, k = float(sizes.sum()), len(groups)
    if k < 2 or n <= k:
        return n
    mean = float(np.concatenate(groups).mean())
    between = sum(len(g) * (g.mean() - mean) ** 2 for g in groups) / (k - 1)
    within = sum(((g - g.mean()) ** 2).sum() for g in groups) / (n - k)
    size = (n - float((sizes**2).sum()) / n) / (k - 1)
    spread = between + (size - 1.0) * within
    rho = max((between - within) / spread, 0.0) if spread > 0 else 0.0
    return n / (1.0 + (float((sizes**2).sum()) / n - 1.0) * rho)


def _planned_area(source: Path, map_frame: MapFrame) -> shapely.Geometry:
    features = json.loads((source / "plan.geojson").read_text(encoding="utf-8"))["features"]
    areas = [shape(f["geometry"]) for f in features if f["geometry"]["type"] == "Polygon"]

    def to_map(lon_lat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.column_stack(map_frame.to_map(lon_lat[:, 1], lon_lat[:, 0]))

    return shapely.transform(shapely.union_all(areas), to_map)


def _gossan(*arguments: object) -> None:
    command = [sys.executable, "-m", "gossan", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise GossanError(f"`{' '.join(command[2:])}` failed:\n{done.stderr.strip()}")


def _payload(scores: Sequence[Score], bars: Sequence[Bar]) -> dict[str, Any]:
    total = add_scores(scores)
    return {
        "flights": len(scores),
        "due": total.due,
        "found": total.found,
        "right_class": total.right_class,
        "false_alarms": total.false_alarms,
        "area_km2": total.area_km2,
        "error_m": {"median": np.median(total.error_m), "p90": np.percentile(total.error_m, 90)}
        if len(total.error_m)
        else {},
        "ce90_m_median": np.median(total.ce90_m) if len(total.ce90_m) else None,
        "effective_number": {f"{s:.0%}": effective_number(scores, s) for s in SHARES},
        "missed": total.missed,
        "bars": [{**asdict(bar), "passed": bar.passed} for bar in bars],
        "passed": all(bar.passed for bar in bars),
    }


def _show(scores: Sequence[Score], bars: Sequence[Bar]) -> None:
    total = add_scores(scores)
    click.echo(
        f"{len(scores)} flights over {total.area_km2:.2f} km2: {total.found} of {total.due} planted"
        f" found ({total.right_class} by their class), {total.false_alarms} false alarms"
    )
    if len(total.error_m):
        click.echo(
            f"position error: median {np.median(total.error_m):.2f} m, "
            f"90 % {np.percentile(total.error_m, 90):.2f} m; "
            f"claimed 90 % radius: median {np.median(total.ce90_m):.2f} m"
        )
    rows = [(b.name, b.value, b.low, b.high, "yes" if b.passed else "NO") for b in bars]
    table("", ("bar", "measured", "at least", "at most", "passed"), rows)
