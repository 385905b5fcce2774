"""Coverage: areas, gaps and cell fractions by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import shapely
from pyproj import CRS

from calibration.geodesy import MapFrame
from onboard.place.coverage import Coverage, cell_fractions, footprint_polygon
from onboard.records import Footprint

FRAME = MapFrame(CRS.from_epsg(32632))


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)


def seen(name: str, outline: np.ndarray, gsd: float = 0.1, **kind: object) -> Footprint:
    return Footprint(name, outline, kind.pop("holes", ()), gsd, **kind)  # type: ignore[arg-type]


def test_percent_and_gaps_of_a_plan() -> None:
    cover = Coverage(FRAME, shapely.box(0, 0, 100, 100))
    assert cover.percent() == 0.0
    cover.add(seen("a", box(-10, 0, 50, 100)))
    cover.add(seen("b", box(40, 0, 75, 100)))
    assert cover.percent() == pytest.approx(75.0)
    (gap,) = cover.gaps()
    assert gap.area == pytest.approx(2500.0)
    assert cover.area_m2() == pytest.approx(8500.0)


def test_occlusions_and_bad_frames_do_not_count() -> None:
    cover = Coverage(FRAME, shapely.box(0, 0, 100, 100))
    cover.add(seen("a", box(0, 0, 100, 100), holes=(box(10, 10, 30, 20),)))
    assert not cover.add(seen("b", box(0, 0, 100, 100), quality="blurred"))
    assert not cover.add(seen("c", np.zeros((0, 2))))
    assert cover.percent() == pytest.approx(98.0)
    assert cover.not_counted == {"blurred": 1, "empty": 1}
    assert cover.gaps()[0].area == pytest.approx(200.0)


def test_slivers_are_no_gaps() -> None:
    cover = Coverage(FRAME, shapely.box(0, 0, 100, 100))
    cover.add(seen("a", box(0, 0, 99.8, 100)))
    assert cover.gaps() == []
    assert len(cover.gaps(sliver_m=0.1)) == 1


def test_without_a_plan_percent_is_unknown() -> None:
    cover = Coverage(FRAME)
    cover.add(seen("a", box(0, 0, 1, 1)))
    assert math.isnan(cover.percent())
    assert cover.gaps() == []


def test_cell_fractions_are_exact() -> None:
    x, y = np.meshgrid([5.0, 15.0, 25.0, 500.0], [5.0])
    fractions = cell_fractions(shapely.box(0, 0, 17.5, 5), x, y, 10.0)
    assert fractions[0].tolist() == pytest.approx([0.5, 0.375, 0.0, 0.0])
    assert fractions[0, 3] == 0.0
    assert cell_fractions(shapely.box(-50, -50, 50, 50), x, y, 10.0)[0, 0] == 1.0


def test_finest_gsd_and_looks_at_points() -> None:
    cover = Coverage(FRAME)
    cover.add(seen("a", box(0, 0, 10, 10), gsd=0.2))
    cover.add(seen("b", box(5, 0, 15, 10), gsd=0.1))
    x, y = np.array([2.0, 7.0, 12.0, 30.0]), np.full(4, 5.0)
    assert cover.finest_gsd_m(x, y)[:3].tolist() == [0.2, 0.1, 0.1]
    assert np.isnan(cover.finest_gsd_m(x, y)[3])
    assert cover.looks(x, y).tolist() == [1, 2, 1, 0]
    assert cover.area_by_gsd_m2((0.1, 0.2)) == {0.1: 100.0, 0.2: 150.0}


def test_many_footprints_give_the_union_of_all() -> None:
    cover = Coverage(FRAME, shapely.box(0, 0, 100, 10))
    for i in range(100):
        cover.add(seen(str(i), box(i, 0, i + 1.5, 10)))
    assert cover.counted == 100
    assert cover.percent() == pytest.approx(100.0)


def test_an_outline_that_crosses_itself_is_mended() -> None:
    bow = np.array([[0, 0], [10, 10], [10, 0], [0, 10]], float)
    assert footprint_polygon(seen("a", bow)).area == pytest.approx(50.0)
