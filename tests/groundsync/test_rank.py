"""Ranking: deterministic, explained, by hand."""

from __future__ import annotations

from itertools import permutations
from math import log

import numpy as np
import pytest

from groundsync.posterior import Expression
from groundsync.rank import Place, deposit_probability, rank_targets
from groundsync.targets import Target

E = Expression(0.6, 0.1, "survey of 2024")


def target(name: str = "T-a", **changes: object) -> Target:
    fields: dict[str, object] = {
        "target_id": name,
        "class_name": "iron_oxide",
        "lat_deg": 37.0,
        "lon_deg": -117.0,
        "alt_m": 1500.0,
        "height_datum": "ellipsoid",
        "x_m": 0.0,
        "y_m": 0.0,
        "cov_random_m2": np.eye(2),
        "sensitivity_m": np.zeros((2, 0)),
        "bias_names": (),
        "probability": 0.9,
        "calibrated": True,
        "ood": False,
        "area_m2": 100.0,
        "looks": 4,
        "misses": 0,
        "remedy": "",
        "evidence": (),
    }
    return Target(**(fields | changes))  # type: ignore[arg-type]


def place(prior: float = 0.01, **changes: object) -> Place:
    fields: dict[str, object] = {
        "prior": prior,
        "prior_sigma": 0.3 * prior,
        "prior_assumed": False,
        "prior_mean": 0.005,
        "cell_posterior": 0.03,
        "coverage": 1.0,
    }
    return Place(**(fields | changes))  # type: ignore[arg-type]


def test_probability_of_a_deposit_by_hand() -> None:
    """P(Y) = 0.2: P(Y|Z) = 0.12/0.20 = 0.6, P(Y|¬Z) = 0.08/0.80 = 0.1; 0.9·0.6 + 0.1·0.1."""
    assert deposit_probability(0.2, 0.9, E) == pytest.approx(0.55)


def test_a_target_that_is_surely_nothing_lowers_the_odds() -> None:
    assert deposit_probability(0.2, 0.0, E) < 0.2 < deposit_probability(0.2, 1.0, E)


def test_terms_by_hand() -> None:
    (one,) = rank_targets([target(area_m2=271.828182845905)], [place(0.2)], [E])
    assert one.terms.prior == pytest.approx(log(0.25))
    assert one.terms.evidence == pytest.approx(log(0.55 / 0.45) - log(0.25))
    assert one.terms.area == pytest.approx(0.25)
    assert one.score == pytest.approx(log(0.55 / 0.45) + 0.25)
    assert one.posterior == pytest.approx(0.55)
    assert one.before_next == ""


def test_prior_geology_decides_between_equals_and_says_so() -> None:
    ranked = rank_targets([target("T-a"), target("T-b")], [place(0.001), place(0.02)], [E, E])
    assert [r.target.target_id for r in ranked] == ["T-b", "T-a"]
    assert ranked[0].before_next.startswith(
        "rank 1 before rank 2: prior geology 0.02 against 0.001"
    )
    assert "against it" not in ranked[0].before_next


def test_what_speaks_against_is_said_too() -> None:
    large_doubted = target("T-a", area_m2=900.0, ood=True, looks=9)
    small_sure = target("T-b", area_m2=10.0)
    ranked = rank_targets([large_doubted, small_sure], [place(0.02), place(0.001)], [E, E])
    words = ranked[0].before_next
    assert "prior geology" in words
    assert "against it: unlike what the model was trained on" in words
    assert words.index("prior geology") < words.index("against it")


def test_the_order_given_does_not_matter() -> None:
    rows = [(target(n, looks=k), place()) for n, k in (("T-a", 4), ("T-b", 4), ("T-c", 6))]
    orders = {
        tuple(
            r.target.target_id for r in rank_targets([t for t, _ in p], [q for _, q in p], [E] * 3)
        )
        for p in permutations(rows)
    }
    assert orders == {("T-c", "T-a", "T-b")}


def test_equals_say_that_they_are() -> None:
    ranked = rank_targets([target("T-a"), target("T-b")], [place(), place()])
    assert "alike in all that is known" in ranked[0].before_next


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"calibrated": False}, "(uncalibrated)", id="uncalibrated"),
        pytest.param({"ood": True}, "unlike what the model was trained on", id="ood"),
        pytest.param({"misses": 3}, "not seen in 3", id="misses"),
        pytest.param({"remedy": "one reverse pass"}, "one reverse pass", id="remedy"),
    ],
)
def test_reasons_name_what_matters(changes: dict[str, object], said: str) -> None:
    plain = rank_targets([target()], [place()], [E])[0].reasons
    told = rank_targets([target(**changes)], [place()], [E])[0].reasons
    assert any(said in line for line in told)
    assert not any(said in line for line in plain)


def test_an_assumed_prior_and_expression_are_called_assumed() -> None:
    (one,) = rank_targets([target()], [place(prior_assumed=True)])
    assert any("assumed everywhere" in line for line in one.reasons)
    assert any(line.startswith("assumed:") for line in one.reasons)
