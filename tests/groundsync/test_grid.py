"""The project grid: cells, windows, coverage."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import CRS
from shapely import Polygon, box

from groundsync.errors import GridError
from groundsync.grid import ProjectGrid, coverage_fraction, grid_of_bounds, inside

UTM = CRS.from_epsg(32611)


@pytest.fixture
def grid() -> ProjectGrid:
    return ProjectGrid(UTM, 1000.0, 2000.0, 10.0, 30, 20)


@pytest.mark.parametrize(
    ("x", "y", "cell"),
    [
        pytest.param(1000.1, 1999.9, 0, id="upper-left"),
        pytest.param(1299.9, 1800.1, 599, id="lower-right"),
        pytest.param(1015.0, 1985.0, 31, id="second-row-and-column"),
        pytest.param(999.9, 1999.9, -1, id="left-of-it"),
        pytest.param(1300.1, 1999.9, -1, id="right-of-it"),
        pytest.param(1000.1, 2000.1, -1, id="above-it"),
    ],
)
def test_points_fall_into_their_cells(grid: ProjectGrid, x: float, y: float, cell: int) -> None:
    assert grid.cells(np.array([x]), np.array([y]))[0] == cell


def test_centres_and_transform_agree(grid: ProjectGrid) -> None:
    x, y = grid.centres()
    assert (grid.x0 + 2.5 * 10.0, grid.y0 - 3.5 * 10.0) == (x[2], y[3])
    assert (grid.transform.c, grid.transform.f, grid.transform.e) == (1000.0, 2000.0, -10.0)
    assert grid.bounds_m == (1000.0, 1800.0, 1300.0, 2000.0)


def test_windows_tile_the_grid_once(grid: ProjectGrid) -> None:
    seen = np.zeros(grid.shape, dtype=int)
    for window in grid.windows(7):
        seen[window.slices] += 1
    assert (seen == 1).all()


def test_bounds_are_moved_out_to_whole_cells() -> None:
    grid = grid_of_bounds(UTM, (0.0, 0.0, 101.0, 95.0), 10.0)
    assert (grid.width, grid.height) == (11, 10)
    assert grid.bounds_m == (0.0, -5.0, 110.0, 95.0)
    assert grid_of_bounds(UTM, (0.0, 0.0, 0.3, 0.3), 0.1).shape == (3, 3)


@pytest.mark.parametrize(
    ("crs", "bounds"),
    [
        pytest.param(CRS.from_epsg(4326), (0.0, 0.0, 1.0, 1.0), id="degrees"),
        pytest.param(UTM, (10.0, 0.0, 0.0, 10.0), id="turned-round"),
    ],
)
def test_unusable_areas_are_refused(crs: CRS, bounds: tuple[float, float, float, float]) -> None:
    with pytest.raises(GridError):
        grid_of_bounds(crs, bounds, 1.0)


def test_coverage_is_the_fraction_of_the_cell(grid: ProjectGrid) -> None:
    half = coverage_fraction(grid, [box(1000.0, 1990.0, 1005.0, 2000.0)])
    assert half[0, 0] == 0.5
    assert half.sum() == 0.5
    quarter = coverage_fraction(grid, [box(1015.0, 1975.0, 1025.0, 1985.0)])
    assert np.allclose(quarter[1:3, 1:3], 0.25)


def test_coverage_does_not_count_an_overlap_twice(grid: ProjectGrid) -> None:
    twice = coverage_fraction(grid, [box(1000, 1990, 1010, 2000), box(1000, 1990, 1005, 2000)])
    assert twice[0, 0] == 1.0


def test_a_hole_stays_unless_another_frame_fills_it(grid: ProjectGrid) -> None:
    shell = [(1000, 1900), (1100, 1900), (1100, 2000), (1000, 2000)]
    hole = [(1040, 1940), (1060, 1940), (1060, 1960), (1040, 1960)]
    holed = Polygon(shell, [hole])
    assert coverage_fraction(grid, [holed])[4, 4] == 0.0
    assert coverage_fraction(grid, [holed, box(1040, 1940, 1060, 1960)])[4, 4] == 1.0


def test_coverage_outside_the_grid_is_nothing(grid: ProjectGrid) -> None:
    assert not coverage_fraction(grid, [box(0, 0, 10, 10)]).any()
    assert not coverage_fraction(grid, []).any()


def test_coverage_does_not_depend_on_tiles() -> None:
    grid = ProjectGrid(UTM, 0.0, 1000.0, 5.0, 200, 200)
    circle = box(480, 480, 520, 520).buffer(333.0)
    fraction = coverage_fraction(grid, [circle])
    assert fraction.sum() * 25.0 == pytest.approx(circle.area, rel=1e-3)


def test_inside_takes_cell_centres(grid: ProjectGrid) -> None:
    assert inside(grid, [box(1000, 1984, 1016, 2000)]).sum() == 4
