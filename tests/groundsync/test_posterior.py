"""Belief after the looks: by hand, bit-identical where nobody looked, better in simulation."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS
from shapely import box

from groundsync.grid import ProjectGrid
from groundsync.ledger import Ledger, Sensor, look_llr, visit
from groundsync.posterior import ASSUMED, Expression, flat_prior, log_bayes_factor, prior_on, update
from groundsync.prior.files import PriorMap

GRID = ProjectGrid(CRS.from_epsg(32611), 0.0, 100.0, 10.0, 10, 10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_where_nobody_looked_the_prior_stays_bit_for_bit(dtype: type) -> None:
    rng = np.random.default_rng(1)
    p = rng.uniform(1e-6, 0.3, GRID.shape).astype(dtype)
    s = (p * 0.3).astype(dtype)
    p[0, 0] = np.nan
    ledger = Ledger()
    half = visit(GRID, "f", Sensor("m", "c", 0.7, 3.0), [box(0, 0, 50, 100)], [])
    ledger.put(half)
    after = update(p, s, {"c": ledger.total("c", 100)}, {})
    assert after.probability.dtype == dtype
    assert after.probability[:, 5:].tobytes() == p[:, 5:].tobytes()
    assert after.sigma[:, 5:].tobytes() == s[:, 5:].tobytes()
    assert np.isnan(after.probability[0, 0])
    assert (after.probability[1:, :5] < p[1:, :5]).all()
    untouched = update(p, s, {"c": Ledger().total("c", 100)}, {})
    assert untouched.probability.tobytes() == p.tobytes()


def test_an_empty_look_by_hand() -> None:
    """P = 0.2; f·p_d = 0.75 so L = ¼; P(Z|Y) = 0.6, P(Z|¬Y) = 0.1.

    P(empty | Y) = 0.6·¼ + 0.4 = 0.55, P(empty | ¬Y) = 0.1·¼ + 0.9 = 0.925;
    P' = 0.2·0.55 / (0.2·0.55 + 0.8·0.925) = 0.11/0.85.
    """
    llr = look_llr(np.array([1.0]), np.array([False]), 0.75, 0.01)
    assert llr[0] == pytest.approx(log(0.25))
    after = update(np.array([[0.2]]), np.array([[0.05]]), {"c": llr}, {"c": Expression(0.6, 0.1)})
    assert after.probability[0, 0] == pytest.approx(0.11 / 0.85, rel=1e-12)
    p1 = 0.11 / 0.85
    assert after.sigma[0, 0] == pytest.approx(0.05 * p1 * (1 - p1) / (0.2 * 0.8))


def test_sigma_is_carried_as_a_small_change_of_the_prior() -> None:
    llr = np.array([1.7])
    p, d = 0.1, 1e-6
    low, high = (
        update(np.array([[q]]), np.array([[d]]), {"c": llr}, {}).probability[0, 0]
        for q in (p - d, p + d)
    )
    carried = update(np.array([[p]]), np.array([[d]]), {"c": llr}, {}).sigma[0, 0]
    assert carried == pytest.approx((high - low) / 2, rel=1e-6)


@given(st.floats(-50.0, 800.0), st.floats(0.1, 0.9), st.floats(0.001, 0.09))
def test_no_number_of_looks_says_more_than_the_expression_can(
    llr: float, deposit: float, barren: float
) -> None:
    e = Expression(deposit, barren)
    factor = float(log_bayes_factor(np.array([llr]), e)[0])
    assert log((1 - deposit) / (1 - barren)) - 1e-9 <= factor <= log(deposit / barren) + 1e-9


def test_an_uninformative_look_changes_nothing_at_all() -> None:
    assert log_bayes_factor(np.zeros(3), ASSUMED).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("deposit", "barren"),
    [pytest.param(0.1, 0.2, id="turned-round"), pytest.param(1.0, 0.2, id="certain")],
)
def test_impossible_expressions_are_refused(deposit: float, barren: float) -> None:
    with pytest.raises(ValueError, match="needed"):
        Expression(deposit, barren)


def test_coverage_aware_belief_beats_the_alternatives() -> None:
    """A simulated district: log-loss of the posterior below that of simpler readings."""
    rng = np.random.default_rng(17)
    n, p_d, lam, e = 60_000, 0.7, 0.02, Expression(0.6, 0.03)
    prior = rng.beta(1.0, 20.0, n)
    y = rng.random(n) < prior
    z = rng.random(n) < np.where(y, e.p_given_deposit, e.p_given_barren)
    f = np.where(rng.random(n) < 0.5, rng.random(n), 0.0)
    report = (rng.random(n) < 1 - (1 - f * p_d * z) * (1 - lam)) & (f > 0)
    llr = look_llr(f, report, p_d, lam)

    def loss(belief: np.ndarray) -> float:
        b = np.clip(belief, 1e-9, 1 - 1e-9)
        return float(-np.mean(np.where(y, np.log(b), np.log(1 - b))))

    def belief(evidence: np.ndarray) -> np.ndarray:
        s = np.zeros((1, n))
        after = update(prior[None], s, {"c": evidence}, {"c": e})
        return np.asarray(after.probability[0])

    aware = loss(belief(llr))
    positives = loss(belief(np.where(report, llr, 0.0)))
    absent = loss(belief(look_llr(np.ones(n), report, p_d, lam)))
    truth = loss(np.where(report, 0.999, prior))
    assert aware < positives < absent < truth
    assert aware < loss(prior) - 0.002


def test_a_finer_grid_expects_as_many() -> None:
    coarse = ProjectGrid(GRID.crs, 0.0, 100.0, 50.0, 2, 2)
    p = np.array([[0.2, 0.01], [np.nan, 0.5]], dtype=np.float32)
    on, s = prior_on(PriorMap("x", coarse, p, p * np.float32(0.1), (), {}), GRID)
    assert np.isnan(on[5:, :5]).all()
    assert -np.log1p(-on[:5, :5]).sum() == pytest.approx(-np.log1p(-0.2), rel=1e-6)
    same, sigma = prior_on(PriorMap("x", coarse, p, p, (), {}), coarse)
    assert np.array_equal(same, p, equal_nan=True)
    assert np.array_equal(sigma, p, equal_nan=True)
    q = 0.2 + 1e-4
    assert s[0, 0] / 0.02 == pytest.approx(
        (1 - (1 - q) ** 0.04 - (1 - (1 - 0.2) ** 0.04)) / 1e-4, rel=1e-2
    )


@pytest.mark.parametrize("share", [1.0, 1 / 25, 1 / 400])
def test_belief_at_a_sighting_does_not_depend_on_the_cell(share: float) -> None:
    """P(Y) = 0.001 in the whole cell: P(Y | Z) = 0.5·0.001/(0.5·0.001 + 0.03·0.999)."""
    e = Expression(0.5, 0.03).on_share(share)
    p = -np.expm1(share * np.log1p(-0.001))
    after = update(np.array([[p]]), np.zeros((1, 1)), {"c": np.array([60.0])}, {"c": e})
    assert after.probability[0, 0] == pytest.approx(0.0005 / (0.0005 + 0.02997), rel=0.03)


def test_outside_the_prior_is_unknown() -> None:
    small = ProjectGrid(GRID.crs, 0.0, 100.0, 10.0, 3, 10)
    p = np.full(small.shape, 0.1, dtype=np.float32)
    on, _ = prior_on(PriorMap("x", small, p, p, (), {}), GRID)
    assert np.isfinite(on[:, :3]).all()
    assert np.isnan(on[:, 3:]).all()


def test_a_flat_prior_is_flat() -> None:
    p, s = flat_prior(GRID, 0.01)
    assert (p == 0.01).all()
    assert s[0, 0] == pytest.approx(0.0099)
