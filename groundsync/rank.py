"""Ranking: which target first, and why, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log

from groundsync.posterior import ASSUMED, Expression
from groundsync.targets import Target

AREA_WEIGHT = 0.25
AREA_UNIT_M2 = 100.0
AREA_LIMIT = 1.0
DOUBT = -1.0
WORTH_SAYING = 0.05
LOWEST, HIGHEST = 1e-12, 1.0 - 1e-12


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of a target's place besides the target.

    Attributes:
        prior: Probability of a deposit in its cell before the drone looked.
        prior_sigma: Its standard deviation.
        prior_assumed: Whether no geology stands behind it.
        prior_mean: Mean prior of the studied cells, to compare with.
        cell_posterior: Probability of a deposit in its cell after all looks.
        coverage: Share of its cell that was imaged and scanned.
    """

    prior: float
    prior_sigma: float
    prior_assumed: bool
    prior_mean: float
    cell_posterior: float
    coverage: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What a score is made of, in units of log-odds; the first two are belief, the others rules.

    Attributes:
        prior: ln odds of a deposit before the drone looked.
        evidence: What the target adds, through the surface expression.
        area: Rule: a quarter of ln(area / 100 m²), at most ±1.
        doubt: Rule: −1 where the out-of-distribution gate doubts it.
    """

    prior: float
    evidence: float
    area: float
    doubt: float

    @property
    def score(self) -> float:
        """The sum."""
        return self.prior + self.evidence + self.area + self.doubt


@dataclass(frozen=True, slots=True)
class RankedTarget:
    """A target with its rank and the reasons for it.

    Attributes:
        rank: 1 is first.
        target: The target.
        place: What is known of its place.
        terms: What its score is made of.
        posterior: Probability of a deposit at the target, prior and target together.
        posterior_sigma: Its standard deviation: the prior's, carried through.
        expression: What was assumed of the class's surface expression.
        reasons: Why it stands where it stands, one sentence each.
        before_next: Why it stands before the next one; empty for the last.
    """

    rank: int
    target: Target
    place: Place
    terms: Terms
    posterior: float
    posterior_sigma: float
    expression: Expression
    reasons: tuple[str, ...]
    before_next: str

    @property
    def score(self) -> float:
        """What the ranking goes by."""
        return self.terms.score


def rank_targets(
    targets: Sequence[Target],
    places: Sequence[Place],
    expressions: Sequence[Expression] | None = None,
) -> tuple[RankedTarget, ...]:
    """Returns the targets in order of score, ties broken by looks, ellipse and identifier.

    Args:
        targets: The targets, in any order.
        places: What is known of each one's place.
        expressions: What each one's class says of a deposit; ``ASSUMED`` where not given.
    """
    given = expressions if expressions is not None else [ASSUMED] * len(targets)
    rows = []
    for target, place, expression in zip(targets, places, given, strict=True):
        after = deposit_probability(place.prior, target.probability, expression)
        before = _logit(place.prior)
        terms = Terms(before, _logit(after) - before, _area(target), DOUBT * target.ood)
        rows.append((target, place, expression, terms, after))
    rows.sort(key=lambda r: (-r[3].score, -r[0].looks, r[0].ce90_m, r[0].target_id))
    ranked = [
        RankedTarget(i + 1, t, p, terms, after, _sigma(t, p, e), e, _reasons(t, p, e), "")
        for i, (t, p, e, terms, after) in enumerate(rows)
    ]
    return tuple(
        _with_comparison(one, ranked[i + 1] if i + 1 < len(ranked) else None)
        for i, one in enumerate(ranked)
    )


def deposit_probability(prior: float, probability: float, expression: Expression) -> float:
    """Returns P(deposit) where a target is what it seems with some probability.

    Jeffrey's rule: p·P(Y | Z) + (1 − p)·P(Y | ¬Z), with Z the surface expression.
    """
    y = min(max(prior, LOWEST), HIGHEST)
    z1, z0 = expression.p_given_deposit, expression.p_given_barren
    seen = z1 * y / (z1 * y + z0 * (1.0 - y))
    unseen = (1.0 - z1) * y / ((1.0 - z1) * y + (1.0 - z0) * (1.0 - y))
    return probability * seen + (1.0 - probability) * unseen


def compare(one: RankedTarget, other: RankedTarget) -> str:
    """Returns why the one stands before the other, what speaks for it first."""
    differences = sorted(_differences(one, other), key=lambda d: -abs(d[0]))
    for_it = [text for value, text in differences if value > 0]
    against = [text for value, text in differences if value < 0]
    head = f"rank {one.rank} before rank {other.rank}: "
    if not differences:
        return head + _tie(one.target, other.target)
    text = head + ", ".join(for_it)
    return f"{text}; against it: {', '.join(against)}" if against else text


def _differences(one: RankedTarget, other: RankedTarget) -> list[tuple[float, str]]:
    """Returns (difference of a term, words) of every term that differs noticeably."""
    a, b, x, y = one.terms, other.terms, one.target, other.target
    found = [
        (
            a.prior - b.prior,
            f"prior geology {_p(one.place.prior)} against {_p(other.place.prior)}",
        ),
        (a.evidence - b.evidence, _evidence_words(one, other)),
        (a.area - b.area, f"area {x.area_m2:.0f} against {y.area_m2:.0f} m²"),
        (
            a.doubt - b.doubt,
            f"{'' if x.ood else f'rank {other.rank} is '}unlike what the model was trained on",
        ),
    ]
    return [(value, f"{text} ({value:+.2f})") for value, text in found if abs(value) > WORTH_SAYING]


def _evidence_words(one: RankedTarget, other: RankedTarget) -> str:
    x, y = one.target, other.target
    words = f"{_plain(x)} with {x.probability:.2f} in {x.looks} looks against "
    return words + f"{_plain(y)} with {y.probability:.2f} in {y.looks}"


def _tie(x: Target, y: Target) -> str:
    if x.looks != y.looks:
        return f"scores are alike; seen in {x.looks} looks against {y.looks}"
    if abs(x.ce90_m - y.ce90_m) > 0.01:
        return f"scores are alike; 90 % circle of {x.ce90_m:.1f} m against {y.ce90_m:.1f} m"
    return "they are alike in all that is known; the order is that of their names"


def _reasons(t: Target, p: Place, e: Expression) -> tuple[str, ...]:
    """Returns what is known of one target, in words."""
    label = "" if t.calibrated else " (uncalibrated)"
    flights = len(t.flights)
    looks = f"seen in {t.looks} looks on {flights} flight{'s' * (flights > 1)}"
    missed = f", not seen in {t.misses} that imaged the place" if t.misses else ""
    major, minor, azimuth = t.ellipse90
    said = [
        f"{_plain(t)} with probability {t.probability:.2f}{label}",
        looks + missed,
        f"area {t.area_m2:.0f} m²",
        f"90 % ellipse ± {major:.1f} m towards {azimuth:.0f}°, ± {minor:.1f} m across",
        _prior_words(p),
        f"{p.coverage:.0%} of its cell was looked at",
    ]
    if not e.source:
        said.append(
            f"assumed: {e.p_given_deposit:g} of deposits show this class at the surface, "
            f"{e.p_given_barren:g} of barren cells"
        )
    if t.ood:
        said.append("unlike what the model was trained on: look at the picture first")
    if t.remedy:
        said.append(f"to sharpen it: {t.remedy}")
    return tuple(said)


def _prior_words(p: Place) -> str:
    if p.prior_assumed:
        return f"no prior geology: {_p(p.prior)} assumed everywhere"
    against = f", {p.prior / p.prior_mean:.1f} × the area's mean" if p.prior_mean > 0 else ""
    return f"prior geology {_p(p.prior)} ± {_p(p.prior_sigma)}{against}"


def _with_comparison(one: RankedTarget, following: RankedTarget | None) -> RankedTarget:
    return replace(one, before_next=compare(one, following)) if following else one


def _sigma(target: Target, place: Place, expression: Expression) -> float:
    """Returns σ of the posterior: the prior's times the slope of Jeffrey's rule."""
    step = 1e-4 * place.prior * (1.0 - place.prior)
    if not step > 0.0:
        return 0.0
    low, high = (
        deposit_probability(place.prior + d, target.probability, expression) for d in (-step, step)
    )
    return place.prior_sigma * (high - low) / (2.0 * step)


def _area(target: Target) -> float:
    raw = AREA_WEIGHT * log(max(target.area_m2, 1e-3) / AREA_UNIT_M2)
    return min(max(raw, -AREA_LIMIT), AREA_LIMIT)


def _logit(p: float) -> float:
    bounded = min(max(p, LOWEST), HIGHEST)
    return log(bounded / (1.0 - bounded))


def _plain(target: Target) -> str:
    return target.class_name.replace("_", " ")


def _p(value: float) -> str:
    return f"{value:.2g}"
