"""What a flight could not tell of its rig, and what flying would."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onboard.drape import SHARED
from onboard.fit_flight import KINDS, Fit

TOLD = 0.7
"""A value is told where its σ shrank below this share of what was assumed before."""
TIED = 0.9
"""Two values are not separated where their correlation is larger."""
SURPRISE = 3.0
GROWN = 2.0

NAMES = {
    "right": "boresight about the camera's right (pitch)",
    "down": "boresight about the camera's down (roll)",
    "forward": "boresight about the camera's axis (yaw, with the compass's error)",
    "clock": "the clock",
    "up": "the common height",
    "focal": "the focal length",
}
KIND_NAMES = ("position", "height", "tilt", "heading")

ALONE = {
    "right": "fly overlapping lines in opposite directions",
    "down": "fly overlapping lines in opposite directions",
    "forward": "fly crossing lines; more overlap along the line helps, too",
    "clock": "fly turns, or one line at another speed",
    "up": "fly the same ground at a second height, or over relief",
    "focal": "fly the same ground at a second height",
}
TOGETHER = {
    frozenset(("right", "clock")): "fly one line at another speed or height, or turn while imaging",
    frozenset(("down", "clock")): "fly one line at another speed or height, or turn while imaging",
    frozenset(("up", "focal")): "fly the same ground at a second height",
    frozenset(("right", "up")): "fly crossing lines over the same ground",
    frozenset(("down", "up")): "fly crossing lines over the same ground",
}


def advice(fit: Fit, free: tuple[str, ...]) -> Iterator[str]:
    """Yields one line for each value not told, pair not separated, surprise and poor σ."""
    for name in untold(fit, free):
        yield f"{NAMES[name]} was not told by this flight: {ALONE[name]}"
    for one, two, correlation in unseparated(fit, free):
        remedy = TOGETHER.get(frozenset((one, two)), ALONE[one])
        yield f"{NAMES[one]} and {NAMES[two]} move together ({correlation:+.2f}): {remedy}"
    for name in free:
        i = SHARED.index(name)
        before = np.sqrt(fit.prior_covariance[i, i])
        if before > 0 and abs(fit.shared[i]) > SURPRISE * before:
            yield (
                f"{NAMES[name]} came out {abs(fit.shared[i]) / before:.1f} σ from what the rig "
                "says: check that it is this flight's rig"
            )
    for name, times in zip(KIND_NAMES, fit.growth, strict=True):
        if times > GROWN:
            yield f"frames err in {name} {times:.1f} times more than stated"
    if not fit.settled:
        yield "the adjustment did not settle: take its values with care, give more overlap"
    assert len(KIND_NAMES) == len(KINDS)  # noqa: S101


def untold(fit: Fit, free: tuple[str, ...]) -> list[str]:
    """Returns which values the flight told no better than was known before."""
    before, after = np.diag(fit.prior_covariance), np.diag(fit.covariance)
    index = {name: SHARED.index(name) for name in free}
    return [name for name, i in index.items() if after[i] > TOLD**2 * before[i]]


def unseparated(fit: Fit, free: tuple[str, ...]) -> list[tuple[str, str, float]]:
    """Returns pairs of values that the flight tells together only, with their correlation."""
    sigma = np.sqrt(np.diag(fit.covariance))
    found = []
    for a, one in enumerate(free):
        for two in free[a + 1 :]:
            i, j = SHARED.index(one), SHARED.index(two)
            if sigma[i] > 0 and sigma[j] > 0:
                correlation = float(fit.covariance[i, j] / (sigma[i] * sigma[j]))
                if abs(correlation) > TIED:
                    found.append((one, two, correlation))
    return found
