"""From weights to a probability: summed weights, the test of their independence, Poisson rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from groundsync.errors import OccurrenceError
from groundsync.grid import Floats
from groundsync.prior.conditions import Conditions
from groundsync.prior.layers import ClassedLayer
from groundsync.prior.weights import ClassWeights, smoothed_weights, tally

REJECT_Z = 1.6448536269514722
NEWTON_STEPS = 100
NEWTON_TOLERANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Score:
    """Summed weights of m conditions.

    Attributes:
        value: (m,) sum of the layers' weights.
        variance: (m,) sum of their variances, missing layers included.
    """

    value: Floats
    variance: Floats


@dataclass(frozen=True, slots=True)
class Independence:
    """Agterberg and Cheng's omnibus test of conditional independence.

    Attributes:
        expected: T, the occurrences that the summed weights expect.
        sd: s(T).
        observed: n.
        z: (T − n)/s(T).
        rejected: Whether independence is rejected at 95 %, one-sided.
    """

    expected: float
    sd: float
    observed: float
    z: float
    rejected: bool


@dataclass(frozen=True, slots=True)
class PoissonRate:
    """Occurrences per km² as a function of the score: ln λ = β₀ + β₁·score.

    Attributes:
        intercept: β₀.
        slope: β₁; below 1 where layers repeat each other.
        covariance: (2, 2) of both.
    """

    intercept: float
    slope: float
    covariance: Floats

    def per_km2(self, score: Floats) -> Floats:
        """Returns λ, occurrences per km²."""
        return np.exp(self.intercept + self.slope * score)

    def log_variance(self, score: Score) -> Floats:
        """Returns the variance of ln λ: of β, and of the weights (taken as independent)."""
        c, s = self.covariance, score.value
        of_beta = c[0, 0] + 2.0 * c[0, 1] * s + c[1, 1] * s**2
        return np.asarray(of_beta + self.slope**2 * score.variance)

    def probability(self, score: Score, cell_km2: float) -> tuple[Floats, Floats]:
        """Returns P = 1 − exp(−λA) of a cell and its standard deviation (first order)."""
        expected = self.per_km2(score.value) * cell_km2
        slope = expected * np.exp(-expected)
        return -np.expm1(-expected), slope * np.sqrt(self.log_variance(score))


def weigh_layers(
    layers: Sequence[ClassedLayer],
    conditions: Conditions,
    area_km2: Floats,
    n: Floats,
    *,
    unit_cell_km2: float,
    merge_rare: bool,
) -> tuple[ClassWeights, ...]:
    """Returns the smoothed weights of every layer.

    Args:
        layers: The layers, in the order of the conditions' columns.
        conditions: The unique conditions.
        area_km2: (m,) area of each condition.
        n: (m,) occurrences in each condition.
        unit_cell_km2: The unit cell.
        merge_rare: Whether the rarest classes share a weight.
    """
    weighed = []
    for column, layer in enumerate(layers):
        slot = conditions.codes[:, column].astype(np.int64) + 1
        size = len(layer.labels) + 1
        area = tally(slot, area_km2, size)
        count = tally(slot, n, size)
        weighed.append(
            smoothed_weights(
                layer,
                area[1:],
                count[1:],
                missing_km2=float(area[0]),
                missing_n=float(count[0]),
                unit_cell_km2=unit_cell_km2,
                merge_rare=merge_rare,
            )
        )
    return tuple(weighed)


def score(weights: Sequence[ClassWeights], conditions: Conditions) -> Score:
    """Returns the summed weights of every condition."""
    value, variance = np.zeros(len(conditions)), np.zeros(len(conditions))
    for column, layer in enumerate(weights):
        w, v = layer.of_codes(conditions.codes[:, column])
        value += w
        variance += v
    return Score(value, variance)


def independence(summed: Score, area_km2: Floats, n: float, unit_cell_km2: float) -> Independence:
    """Returns the test of conditional independence (Agterberg and Cheng 2002).

    T = Σ N_k P_k over unique conditions of N_k unit cells, s²(T) = Σ (N_k s_k)², where P_k comes
    from the summed weights alone and s_k² = P_k² (1/n + Σ s²(W)). Each condition enters with all
    its cells at once: they share their weights' errors.
    """
    cells = area_km2 / unit_cell_km2
    total = float(cells.sum())
    prior_logit = log(n / total) - log(max(1.0 - n / total, 1e-12))
    p = 1.0 / (1.0 + np.exp(-(prior_logit + summed.value)))
    sd = p * np.sqrt(1.0 / n + summed.variance)
    expected = float(cells @ p)
    expected_sd = float(np.sqrt(np.sum((cells * sd) ** 2)))
    z = (expected - n) / expected_sd if expected_sd > 0 else 0.0
    return Independence(expected, expected_sd, n, z, z > REJECT_Z)


def fit_poisson(score_value: Floats, area_km2: Floats, n: Floats) -> PoissonRate:
    """Returns the Poisson regression of counts on the score, by Newton's method to convergence.

    Maximises Σ n ln λ − Σ A λ, which is concave, so what Newton's method with step halving ends at
    is the maximum. The covariance is the inverse of the Fisher information.

    Args:
        score_value: (m,) score of each condition.
        area_km2: (m,) its area.
        n: (m,) its occurrences.

    Raises:
        OccurrenceError: There is no occurrence, or no convergence.
    """
    total, area = float(n.sum()), float(area_km2.sum())
    if total <= 0 or area <= 0:
        raise OccurrenceError("no occurrence to learn from", "widen the area or lower 'folds'")
    centre = float(n @ score_value) / total
    x = np.stack([np.ones_like(score_value), score_value - centre])
    beta = np.array([log(total / area), 0.0])
    value = _log_likelihood(beta, x, area_km2, n)
    for _ in range(NEWTON_STEPS):
        rate = area_km2 * np.exp(beta @ x)
        fisher = (x * rate) @ x.T
        if np.linalg.cond(fisher) > 1.0 / np.finfo(float).eps:
            return _constant_rate(total, area)
        step = np.linalg.solve(fisher, x @ (n - rate))
        while True:
            trial = _log_likelihood(beta + step, x, area_km2, n)
            if trial >= value or np.abs(step).max() < NEWTON_TOLERANCE:
                break
            step = step / 2.0
        beta, value = beta + step, trial
        if np.abs(step).max() < NEWTON_TOLERANCE:
            break
    else:
        raise OccurrenceError(
            f"the Poisson fit did not settle in {NEWTON_STEPS} steps",
            "drop layers or use fewer bins",
        )
    rate = area_km2 * np.exp(beta @ x)
    back = np.array([[1.0, -centre], [0.0, 1.0]])
    covariance = back @ np.linalg.inv((x * rate) @ x.T) @ back.T
    return PoissonRate(float(beta[0] - beta[1] * centre), float(beta[1]), covariance)


def _log_likelihood(beta: Floats, x: Floats, area_km2: Floats, n: Floats) -> float:
    """Returns the Poisson log-likelihood, −∞ where it overflows."""
    eta = beta @ x
    if eta.max() > 500.0:
        return -np.inf
    return float(n @ eta - area_km2 @ np.exp(eta))


def _constant_rate(total: float, area: float) -> PoissonRate:
    """Returns the rate where the score does not vary: nothing to learn from it."""
    return PoissonRate(log(total / area), 0.0, np.array([[1.0 / total, 0.0], [0.0, 0.0]]))
