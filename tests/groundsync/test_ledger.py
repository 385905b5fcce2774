"""The ledger: by hand, idempotent, order-free, removable."""

from __future__ import annotations

from itertools import permutations
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS
from shapely import box

from groundsync.grid import ProjectGrid
from groundsync.ledger import (
    Ledger,
    Sensor,
    Sighting,
    VisitKey,
    look_llr,
    looked_at,
    sensor_of,
    visit,
)
from onboard.records import Footprint

GRID = ProjectGrid(CRS.from_epsg(32611), 0.0, 100.0, 10.0, 10, 10)
SENSOR = Sensor("abc", "iron_oxide", 0.8, 5.0, "simulated")


def footprint(x0: float, x1: float, **changes: object) -> Footprint:
    outline = np.array([(x0, 0.0), (x1, 0.0), (x1, 100.0), (x0, 100.0)])
    return Footprint("f.jpg", outline, (), 0.05, **({"scanned": True} | changes))  # type: ignore[arg-type]


def test_a_look_by_hand() -> None:
    """f = ½, p_d = 0.8, λ = 0.01: q₁ = 1 − 0.6·0.99 = 0.406."""
    llr = look_llr(np.array([0.5, 0.5]), np.array([True, False]), 0.8, 0.01)
    assert llr[0] == pytest.approx(log(0.406 / 0.01))
    assert llr[1] == pytest.approx(log((1 - 0.406) / 0.99))


def test_no_coverage_adds_exactly_nothing() -> None:
    llr = look_llr(np.zeros(2), np.array([True, False]), 0.8, 0.01)
    assert llr.tolist() == [0.0, 0.0]
    assert not np.signbit(llr).any()


@given(st.floats(0.0, 1.0), st.floats(0.01, 0.99), st.floats(1e-6, 0.5))
def test_a_report_speaks_for_and_an_empty_look_against(f: float, p: float, lam: float) -> None:
    found, empty = look_llr(np.array([f, f]), np.array([True, False]), p, lam)
    assert empty <= 0.0 <= found
    q1, q0 = 1 - (1 - f * p) * (1 - lam), lam
    assert found == pytest.approx(log(q1 / q0), rel=1e-6, abs=1e-9)
    assert empty == pytest.approx(log((1 - q1) / (1 - q0)), rel=1e-6, abs=1e-9)


def test_false_alarms_count_per_cell() -> None:
    """5 per km² in a cell of 0.0001 km²: 1 − exp(−0.0005)."""
    assert SENSOR.false_alarm(GRID.cell_km2) == pytest.approx(4.998750208e-4)


def test_only_scanned_frames_of_good_quality_are_looks() -> None:
    outlines, dropped = looked_at(
        [
            footprint(0, 10),
            footprint(10, 20, scanned=False),
            footprint(20, 30, quality="blurred"),
        ]
    )
    assert len(outlines) == 1
    assert dropped == {"not scanned": 1, "blurred": 1}


def test_a_visit_looks_only_where_it_looked() -> None:
    outlines, _ = looked_at([footprint(0, 25)])
    v = visit(GRID, "f1", SENSOR, outlines, [])
    assert v.cells.size == 30
    half = v.cells % 10 == 2
    assert np.allclose(v.fraction[half], 0.5)
    assert np.allclose(v.llr[half], np.log(1 - 0.4))
    assert np.allclose(v.llr[~half], np.log(1 - 0.8))


def test_what_an_ellipse_reaches_was_not_seen_empty() -> None:
    outlines, _ = looked_at([footprint(0, 100)])
    at = Sighting(45.0, 55.0, np.eye(2) * 25.0)
    v = visit(GRID, "f1", SENSOR, outlines, [at])
    seen = dict(zip(v.cells.tolist(), v.llr.tolist(), strict=True))
    assert seen[44] > 5.0
    assert 43 not in seen
    assert 54 not in seen
    assert seen[42] < 0.0, "two cells away"
    assert v.undecided == 4 + 4
    sharp = visit(GRID, "f1", SENSOR, outlines, [Sighting(45.0, 55.0, np.eye(2) * 0.01)])
    assert sharp.undecided == 0


def three_visits() -> list[object]:
    strips = [(0, 35), (20, 60), (55, 100)]
    return [
        visit(GRID, f"f{i}", SENSOR, [box(a, 0, b, 100)], [Sighting(25.0, 5.0, np.eye(2))])
        for i, (a, b) in enumerate(strips)
    ]


def test_the_order_of_filing_does_not_matter_to_the_last_bit() -> None:
    totals = []
    for order in permutations(three_visits()):
        ledger = Ledger()
        for v in order:
            ledger.put(v)
        totals.append(ledger.total("iron_oxide", 100).tobytes())
    assert len(set(totals)) == 1


def test_twice_is_once_and_a_flight_can_be_taken_out() -> None:
    a, b, _ = three_visits()
    ledger = Ledger()
    ledger.put(a)
    before = ledger.total("iron_oxide", 100).copy()
    ledger.put(b)
    ledger.put(b)
    assert len(ledger.visits) == 2
    assert (ledger.total("iron_oxide", 100) != before).any()
    assert ledger.remove_flight("f1") == 1
    assert (ledger.total("iron_oxide", 100) == before).all()
    assert ledger.remove_flight("f1") == 0


def test_classes_are_kept_apart() -> None:
    ledger = Ledger()
    ledger.put(visit(GRID, "f1", SENSOR, [box(0, 0, 100, 100)], []))
    assert ledger.classes() == ("iron_oxide",)
    assert not ledger.total("quartz", 100).any()
    assert VisitKey("f1", "abc", "iron_oxide") in ledger.visits
    assert ledger.seen(100).min() == 1.0


@pytest.mark.parametrize(
    ("size", "p"),
    [
        pytest.param(0.5, 0.2, id="below-the-smallest"),
        pytest.param(4.0, 0.6, id="on-an-edge"),
        pytest.param(1e4, 0.9, id="above-the-largest"),
    ],
)
def test_detectability_goes_by_size(size: float, p: float) -> None:
    bins = {"1": 0.2, "4": 0.6, "16": 0.9}
    assert sensor_of("m", "c", bins, 2.0, "simulated", size).p_detect == p


def test_certain_detection_is_refused() -> None:
    with pytest.raises(ValueError, match="p_detect"):
        Sensor("m", "c", 1.0, 2.0)
    assert sensor_of("m", "c", {"1": 1.0}, 2.0, "simulated").p_detect < 1.0
