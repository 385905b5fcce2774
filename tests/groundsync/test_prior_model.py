"""From weights to probabilities: the Poisson fit, the independence test, validation."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import CRS

from groundsync.errors import GridError, OccurrenceError
from groundsync.grid import ProjectGrid
from groundsync.prior.conditions import Conditions, find_conditions
from groundsync.prior.layers import ClassedLayer
from groundsync.prior.model import Score, fit_poisson, independence, score, weigh_layers
from groundsync.prior.validate import block_folds, cross_validate, random_folds, success_auc

NAN = float("nan")


def coded(name: str, codes: np.ndarray, k: int) -> ClassedLayer:
    labels = tuple(str(i) for i in range(k))
    return ClassedLayer(name, codes.astype(np.int16), labels, (NAN,) * k, (NAN,) * k)


def test_poisson_fit_finds_a_saturated_answer_by_hand() -> None:
    """Two conditions, two parameters: the fitted rates are the observed ones."""
    rate = fit_poisson(np.array([0.0, 2.0]), np.array([100.0, 50.0]), np.array([4.0, 20.0]))
    assert rate.per_km2(np.array([0.0, 2.0])) == pytest.approx([0.04, 0.4], rel=1e-10)
    assert rate.slope == pytest.approx(np.log(10.0) / 2.0)
    assert rate.covariance[0, 0] == pytest.approx(1 / 4.0)
    assert rate.covariance[1, 1] == pytest.approx((1 / 4.0 + 1 / 20.0) / 4.0)


def test_poisson_fit_expects_what_it_saw() -> None:
    rng = np.random.default_rng(3)
    s, area = rng.normal(0, 2, 500), rng.uniform(0.1, 9.0, 500)
    n = rng.poisson(area * np.exp(-3.0 + 0.6 * s)).astype(float)
    rate = fit_poisson(s, area, n)
    assert rate.per_km2(s) @ area == pytest.approx(n.sum(), rel=1e-10)
    sd = np.sqrt(np.diag(rate.covariance))
    assert abs(rate.slope - 0.6) < 4 * sd[1]
    assert abs(rate.intercept + 3.0) < 4 * sd[0]


def test_a_score_that_never_varies_gives_the_mean_rate() -> None:
    rate = fit_poisson(np.zeros(3), np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0]))
    assert rate.per_km2(np.zeros(1))[0] == pytest.approx(0.5)


def test_no_occurrence_is_an_error() -> None:
    with pytest.raises(OccurrenceError):
        fit_poisson(np.zeros(2), np.ones(2), np.zeros(2))


def test_probability_does_not_depend_on_cell_size() -> None:
    rate = fit_poisson(np.array([0.0, 2.0]), np.array([100.0, 50.0]), np.array([4.0, 20.0]))
    s = Score(np.array([2.0]), np.array([0.1]))
    one, _ = rate.probability(s, 1.0)
    quarter, _ = rate.probability(s, 0.25)
    assert 1.0 - (1.0 - quarter[0]) ** 4 == pytest.approx(one[0])


def test_sigma_of_the_probability_matches_sampling() -> None:
    rate = fit_poisson(np.array([0.0, 2.0]), np.array([900.0, 500.0]), np.array([40.0, 60.0]))
    s = Score(np.array([1.5]), np.array([0.02]))
    _, sigma = rate.probability(s, 1.0)
    rng = np.random.default_rng(0)
    beta = rng.multivariate_normal([rate.intercept, rate.slope], rate.covariance, 200_000)
    drawn = rng.normal(1.5, np.sqrt(0.02), 200_000)
    p = -np.expm1(-np.exp(beta[:, 0] + beta[:, 1] * drawn))
    assert sigma[0] == pytest.approx(p.std(), rel=0.05)


def test_independence_by_hand() -> None:
    """One condition of 100 unit cells, n = 10, no weight: T = n, s(T) = T √(1/n)."""
    test = independence(Score(np.zeros(1), np.zeros(1)), np.array([100.0]), 10.0, 1.0)
    assert test.expected == pytest.approx(10.0)
    assert test.sd == pytest.approx(10.0 / np.sqrt(10.0))
    assert not test.rejected


def repeated_layers(copies: int) -> tuple[list[ClassedLayer], np.ndarray]:
    """Returns one informative layer ``copies`` times, and 60 occurrences mostly in its class 1."""
    rng = np.random.default_rng(5)
    field = np.zeros((80, 80), dtype=int)
    field[:, :16] = 1
    cells = np.where(rng.random(60) < 0.75, 1, 0)
    count = np.zeros((80, 80), dtype=np.int32)
    for hit in cells:
        row = rng.integers(0, 80)
        col = rng.integers(0, 16) if hit else rng.integers(16, 80)
        count[row, col] += 1
    return [coded(f"copy{i}", field, 2) for i in range(copies)], count


@pytest.mark.parametrize(
    ("copies", "rejected"), [pytest.param(1, False, id="one"), pytest.param(4, True, id="four")]
)
def test_layers_that_repeat_each_other_are_rejected(copies: int, rejected: bool) -> None:
    layers, count = repeated_layers(copies)
    conditions = find_conditions(layers, np.ones((80, 80), dtype=bool))
    area, n = conditions.cells(), conditions.sums(count)
    weights = weigh_layers(layers, conditions, area, n, unit_cell_km2=1.0, merge_rare=True)
    summed = score(weights, conditions)
    test = independence(summed, area, 60.0, 1.0)
    assert test.rejected is rejected
    rate = fit_poisson(summed.value, area, n)
    assert rate.per_km2(summed.value) @ area == pytest.approx(60.0)
    if copies > 1:
        assert rate.slope < 0.5, "the Poisson rate undoes the repetition"


def test_conditions_count_cells_once_and_keep_missing_apart() -> None:
    a = coded("a", np.array([[0, 0, 1], [1, -1, 0]]), 2)
    b = coded("b", np.array([[0, 0, 2], [2, 0, 1]]), 3)
    studied = np.array([[True, True, True], [True, True, False]])
    conditions = find_conditions([a, b], studied)
    rows = {tuple(c): int(k) for c, k in zip(conditions.codes, conditions.cells(), strict=True)}
    assert rows == {(0, 0): 2, (1, 2): 2, (-1, 0): 1}
    painted = conditions.paint(np.arange(len(conditions), dtype=float))
    assert np.isnan(painted[1, 2])
    assert painted[0, 0] == painted[0, 1]


@pytest.mark.parametrize(
    ("value", "auc"),
    [
        pytest.param([3.0, 2.0, 1.0], 1.0 - 0.5 * 10 / 100, id="all-in-the-best"),
        pytest.param([1.0, 1.0, 1.0], 0.5, id="all-tied"),
    ],
)
def test_auc_by_hand(value: list[float], auc: float) -> None:
    area = np.array([10.0, 30.0, 60.0])
    assert success_auc(np.array(value), area, np.array([5.0, 0.0, 0.0])) == pytest.approx(auc)


def validated(layers: list[ClassedLayer], count: np.ndarray, folds: np.ndarray) -> object:
    conditions = find_conditions(layers, np.ones(count.shape, dtype=bool))
    return cross_validate(
        layers, conditions, count, folds, cell_km2=1.0, unit_cell_km2=1.0, merge_rare=True
    )


def test_held_out_expectation_is_calibrated_where_raw_sums_are_not() -> None:
    layers, count = repeated_layers(4)
    folds = random_folds(np.ones((80, 80), dtype=bool), 5, 1)
    v = validated(layers, count, folds)
    assert v.t_over_n == pytest.approx(1.0, abs=0.05)
    assert v.raw_t_over_n > 2.0
    assert v.information_gain_bits > 0.3
    assert v.auc > 0.7


def test_a_worthless_layer_gains_nothing() -> None:
    rng = np.random.default_rng(8)
    count = (rng.random((80, 80)) < 0.01).astype(np.int32)
    layers = [coded("noise", rng.integers(0, 20, (80, 80)), 20)]
    v = validated(layers, count, random_folds(np.ones((80, 80), dtype=bool), 5, 1))
    assert v.information_gain_bits < 0.05
    assert abs(v.auc - 0.5) < 0.12


def test_blocks_are_held_out_whole_and_folds_cover_the_area() -> None:
    grid = ProjectGrid(CRS.from_epsg(32611), 0.0, 0.0, 1000.0, 60, 90)
    studied = np.ones(grid.shape, dtype=bool)
    studied[:10] = False
    folds, side = block_folds(grid, studied, 10.0, 5, 3)
    assert side == 10.0
    assert (folds[~studied] == -1).all()
    assert set(np.unique(folds[studied])) == set(range(5))
    for row in range(10, 90, 10):
        for col in range(0, 60, 10):
            assert len(np.unique(folds[row : row + 10, col : col + 10])) == 1


def test_too_few_blocks_is_an_error() -> None:
    grid = ProjectGrid(CRS.from_epsg(32611), 0.0, 0.0, 100.0, 2, 2)
    with pytest.raises(GridError, match="blocks"):
        block_folds(grid, np.ones(grid.shape, dtype=bool), 20.0, 5, 1)


def test_a_long_narrow_area_still_has_blocks_for_every_fold() -> None:
    grid = ProjectGrid(CRS.from_epsg(32611), 0.0, 0.0, 100.0, 300, 10)
    folds, side = block_folds(grid, np.ones(grid.shape, dtype=bool), 20.0, 5, 1)
    assert side < 2.0
    assert set(np.unique(folds)) == set(range(5))


def test_conditions_is_a_record() -> None:
    c = Conditions(np.zeros((1, 1), dtype=np.int16), np.zeros((2, 2), dtype=np.int32))
    assert len(c) == 1
    assert c.cells().tolist() == [4.0]
