"""Weights of evidence: by hand, and against Geoscience Australia's tables."""

from __future__ import annotations

import csv
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from groundsync.prior.layers import ClassedLayer
from groundsync.prior.weights import plain_weights, smoothed_weights

NAN = float("nan")


def layer(k: int, *, ordered: bool = False) -> ClassedLayer:
    edges = tuple(range(k)) if ordered else (NAN,) * k
    empty = np.zeros((1, 1), dtype=np.int16)
    return ClassedLayer("layer", empty, tuple("abcdefghij"[:k]), edges, edges)


def test_smoothed_weights_by_hand() -> None:
    """10 occurrences in 110 km²: 8 in class a of 30 km², 2 in b of 80 km²; K = 2."""
    w = smoothed_weights(layer(2), np.array([30.0, 80.0]), np.array([8.0, 2.0]))
    assert w.weight[0] == pytest.approx(np.log((8.5 / 11) / (22.5 / 101)))
    assert w.weight[1] == pytest.approx(np.log((2.5 / 11) / (78.5 / 101)))
    assert w.weight_sd[0] == pytest.approx(np.sqrt(1 / 8.5 + 1 / 22.5))
    assert w.weight_minus[0] == pytest.approx(w.weight[1])
    assert w.contrast[0] == pytest.approx(w.weight[0] - w.weight[1])
    assert w.studentised[0] == pytest.approx(w.contrast[0] / w.contrast_sd[0])


def test_an_empty_class_speaks_against() -> None:
    w = smoothed_weights(layer(3), np.array([500.0, 300.0, 200.0]), np.array([20.0, 10.0, 0.0]))
    assert w.weight[2] == pytest.approx(np.log((0.5 / 31.5) / (200.5 / 971.5)))
    assert w.weight[2] < -2.0
    assert w.weight_sd[2] > w.weight_sd[0]


def test_a_class_too_small_to_expect_anything_says_little() -> None:
    area, n = np.array([900.0, 99.0, 0.5, 0.5]), np.array([20.0, 10.0, 0.0, 0.0])
    alone = smoothed_weights(layer(4), area, n, merge_rare=False)
    merged = smoothed_weights(layer(4), area, n, merge_rare=True)
    assert alone.weight[2] > 2.0, "smoothed alone, an empty speck looks prospective"
    assert merged.group.tolist() == [1, 0, 0, 0], "specks join the smallest class that is not one"
    assert merged.weight[2] == merged.weight[1]


@pytest.mark.parametrize(
    ("expected_share", "groups"),
    [
        pytest.param([0.5, 0.3, 0.2], [0, 1, 2], id="none-rare"),
        pytest.param([0.5, 0.01, 0.49], [0, 1, 1], id="middle-joins-upper"),
        pytest.param([0.5, 0.49, 0.01], [0, 1, 1], id="last-joins-lower"),
    ],
)
def test_rare_bins_join_their_neighbours(expected_share: list[float], groups: list[int]) -> None:
    area = 1000.0 * np.array(expected_share)
    w = smoothed_weights(layer(3, ordered=True), area, np.array([10.0, 0.0, 10.0]))
    assert w.group.tolist() == groups


def test_a_missing_cell_gets_weight_zero_and_a_variance() -> None:
    w = smoothed_weights(
        layer(2), np.array([50.0, 50.0]), np.array([9.0, 1.0]), missing_km2=20.0, missing_n=3.0
    )
    weight, variance = w.of_codes(np.array([-1, 0], dtype=np.int16))
    assert weight[0] == 0.0
    mean = 0.5 * (w.weight[0] + w.weight[1])
    assert variance[0] == pytest.approx(0.5 * np.sum((w.weight - mean) ** 2))
    assert weight[1] == w.weight[0]


def test_the_unit_cell_hardly_moves_a_weight() -> None:
    area, n = np.array([3000.0, 7000.0]), np.array([30.0, 12.0])
    coarse = smoothed_weights(layer(2), area, n, unit_cell_km2=1.0)
    fine = smoothed_weights(layer(2), area, n, unit_cell_km2=0.01)
    assert np.allclose(coarse.weight, fine.weight, atol=0.01)


@given(
    st.lists(st.tuples(st.floats(1.0, 1e4), st.integers(0, 20)), min_size=2, max_size=8),
    st.booleans(),
)
def test_weights_are_finite_and_balanced(rows: list[tuple[float, int]], merge: bool) -> None:
    area = np.array([a + n for a, n in rows])
    n = np.array([float(n) for _, n in rows])
    w = smoothed_weights(layer(len(rows)), area, n, merge_rare=merge)
    assert np.isfinite(w.weight).all()
    assert (w.weight_sd > 0).all()
    k = int(w.group.max()) + 1
    if k > 1:
        first = [int(np.flatnonzero(w.group == g)[0]) for g in range(k)]
        assert w.weight[first].min() <= 1e-9 or w.weight[first].max() >= -1e-9


TABLES = [
    pytest.param("strat_no", "StratNo_CT", "no", id="stratigraphy-87-units"),
    pytest.param("dist_breccia_m", "Dist2Breccia_CA", "up", id="breccia-cumulative"),
    pytest.param("fault_density_class", "FaultDensity_CD", "down", id="density-cumulative"),
    pytest.param("bin_Dist2Breccia", "bin_Dist2Breccia_CT", "no", id="breccia-binary"),
    pytest.param("bin_Dist2Fault", "bin_Dist2Fault_CT", "no", id="fault-binary"),
    pytest.param("bin_FaultDensity", "bin_FaultDensity_CT", "no", id="density-binary"),
    pytest.param("bin_StratNo", "bin_StratNo_CT", "no", id="stratigraphy-binary"),
]


@pytest.mark.real_data
@pytest.mark.parametrize(("raster", "table", "cumulative"), TABLES)
def test_the_public_tables_are_reproduced(
    shared_data: Path, raster: str, table: str, cumulative: str
) -> None:
    folder = shared_data / "geology" / "cloncurry_iocg"
    points = geopandas.read_file(folder / "vector" / "iocg_deposits.gpkg").geometry
    with rasterio.open(folder / "raster" / f"{raster}.tif") as data:
        band, transform = data.read(1), data.transform
    rows, cols = rasterio.transform.rowcol(transform, points.x, points.y)
    classes, code = np.unique(band, return_inverse=True)
    area = np.bincount(code.ravel()) * 0.01
    at = np.searchsorted(classes, band[np.asarray(rows), np.asarray(cols)])
    n = np.bincount(at, minlength=len(classes)).astype(float)
    w = plain_weights(area, n, unit_cell_km2=1.0, cumulative=cumulative)  # type: ignore[arg-type]
    with (folder / "reference_weights" / f"{table}.csv").open() as text:
        expected = list(csv.DictReader(text))
    columns = {
        "NO_POINTS": w.n,
        "AREA_SQ_KM": w.area_km2,
        "WPLUS": w.plus,
        "S_WPLUS": w.plus_sd,
        "WMINUS": w.minus,
        "S_WMINUS": w.minus_sd,
        "CONTRAST": w.contrast,
    }
    for name, values in columns.items():
        column = np.array([float(row[name]) for row in expected])
        assert np.abs(values - column).max() < 1e-9, name
