"""The scorer: finds, misses, false alarms and ellipses, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from groundsync.bench_survey import Bar, effective_number, judge
from groundsync.score import Planted, Score, add_scores, binomial_bounds, score_targets


def planted(*rows: tuple[str, float, float, bool]) -> Planted:
    names, x, y, due = zip(*rows, strict=True)
    return Planted(names, np.array(x), np.array(y), np.array(due))


def score(truth: Planted, *found: tuple[str, float, float], sigma_m: float = 1.0) -> Score:
    xy = np.array([[x, y] for _, x, y in found]).reshape(-1, 2)
    cov = np.tile(np.eye(2) * sigma_m**2, (len(found), 1, 1))
    names = [name for name, _, _ in found]
    return score_targets(truth, names, xy, cov, np.full(len(found), 2.146 * sigma_m), 0.5)


def test_finds_misses_classes_and_false_alarms_by_hand() -> None:
    truth = planted(("iron", 0, 0, True), ("quartz", 50, 0, True), ("dark", 100, 0, True))
    found = score(truth, ("iron", 3, 4), ("iron", 51, 0), ("iron", 300, 0))
    assert (found.due, found.found, found.right_class, found.false_alarms) == (3, 2, 1, 1)
    assert found.recall == pytest.approx(2 / 3)
    assert found.false_alarms_per_km2 == pytest.approx(2.0)
    assert sorted(found.error_m) == pytest.approx([1.0, 5.0])
    assert sorted(found.d2) == pytest.approx([1.0, 25.0])
    assert found.inside(0.9) == 1
    assert found.missed == ("dark at 100.0, 0.0",)


def test_what_was_not_due_is_neither_find_nor_false_alarm() -> None:
    found = score(planted(("iron", 0, 0, False)), ("iron", 1, 0))
    assert (found.due, found.found, found.false_alarms) == (0, 0, 0)


def test_two_targets_on_one_thing_are_one_find_and_no_false_alarm() -> None:
    found = score(planted(("iron", 0, 0, True)), ("iron", 1, 0), ("iron", 2, 0))
    assert (found.found, found.false_alarms) == (1, 0)


def test_nothing_found_is_scored_and_fails() -> None:
    nothing = score(planted(("iron", 0, 0, True)))
    bars = judge([nothing, nothing])
    assert nothing.recall == 0.0
    assert not all(bar.passed for bar in bars)


def draws(rng: np.random.Generator, flights: int, each: int, scale: float, shared: float) -> list:
    """Flights whose targets share part of their error; claimed covariance is the unit matrix."""
    scores = []
    for _ in range(flights):
        common = rng.normal(0, np.sqrt(shared), 2)
        error = scale * (common + rng.normal(0, np.sqrt(1 - shared), (each, 2)))
        d2 = (error**2).sum(axis=1)
        scores.append(Score(each, each, each, 0, 1.0, np.sqrt(d2), d2, np.full(each, 2.146), ()))
    return scores


def inside_passes(bars: list[Bar]) -> list[bool]:
    return [bar.passed for bar in bars if bar.name.startswith("inside")]


def test_honest_ellipses_pass_and_small_or_large_ones_fail() -> None:
    passed = dict.fromkeys((0.5, 1.0, 2.0), 0)
    for seed in range(40):
        for scale in passed:
            scores = draws(np.random.default_rng(seed), 24, 8, scale, 0.6)
            passed[scale] += all(inside_passes(judge(scores)))
    assert passed[1.0] >= 36
    assert passed[0.5] <= 2, "ellipses twice too large"
    assert passed[2.0] <= 2, "ellipses twice too small"


def test_shared_errors_count_for_fewer_draws() -> None:
    rng = np.random.default_rng(5)
    alone = np.mean([effective_number(draws(rng, 24, 8, 1.0, 0.0), 0.5) for _ in range(20)])
    shared = np.mean([effective_number(draws(rng, 24, 8, 1.0, 0.9), 0.5) for _ in range(20)])
    assert alone > 120
    assert shared < 70


def test_bounds_are_those_of_the_binomial() -> None:
    assert binomial_bounds(200, 0.9) == pytest.approx((0.84, 0.95), abs=0.006)


def test_scores_add_up() -> None:
    one = score(planted(("iron", 0, 0, True)), ("iron", 1, 0))
    both = add_scores([one, one])
    assert (both.due, both.found, both.area_km2, len(both.d2)) == (2, 2, 1.0, 2)
