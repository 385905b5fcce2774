"""The camera's clock from rotation alone: how images turned, against how the telemetry says so.

A camera that is late by τ shows the rotations of τ ago. That needs neither heights nor positions,
and no boresight better than some degrees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.rotations import rot_log

Floats = NDArray[np.float64]

SEARCH_S = 1.5
STEP_S = 0.02
WINDOW_PAIRS = 10
"""Pairs of frames in one sliding window."""
LEAST_TURN_RAD = np.radians(1.0)
"""Pairs that turn less between each other say nothing of the clock."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Rotations between pairs of frames as the images say.

    Attributes:
        first_s: (n,) stamp of the one frame, telemetry's clock, offset 0.
        second_s: (n,) stamp of the other.
        r_first_second: (n, 3, 3) rotation from the second camera's axes to the first's.
        sigma_rad: σ of each of its angles.
    """

    first_s: Floats
    second_s: Floats
    r_first_second: Floats
    sigma_rad: float

    def take(self, index: NDArray[np.int64]) -> Turns:
        """Returns the pairs at these indices."""
        return Turns(
            self.first_s[index], self.second_s[index], self.r_first_second[index], self.sigma_rad
        )


@dataclass(frozen=True, slots=True)
class Offset:
    """A clock offset, exposure = stamp + ``offset_s``.

    Attributes:
        offset_s: The offset; NaN where nothing turned.
        sigma_s: Its σ, by the curvature at the best offset and the misfit that is left.
        pairs: Pairs of frames that told it.
        at_s: Middle of the time it belongs to.
    """

    offset_s: float
    sigma_s: float
    pairs: int
    at_s: float


def match_clock(turns: Turns, camera_at: Callable[[Floats], Floats]) -> Offset:
    """Returns the offset at which telemetry turns as the images did.

    Args:
        turns: What the images say.
        camera_at: Returns (n, 3, 3) camera → NED at n times; NaN where it is not known.
    """
    grid = np.arange(-SEARCH_S, SEARCH_S + STEP_S / 2, STEP_S)
    apart = np.stack([_apart(turns, camera_at, tau) for tau in grid])
    whole = np.isfinite(apart).all(axis=(0, 2))
    turned = np.linalg.norm(np.nan_to_num(rot_log(turns.r_first_second)), axis=1) > LEAST_TURN_RAD
    use = whole & turned
    at_s = float(np.median(turns.first_s)) if len(turns.first_s) else float("nan")
    if use.sum() < 3:
        return Offset(float("nan"), float("nan"), int(use.sum()), at_s)
    size = np.linalg.norm(apart[:, use], axis=2)
    spread = max(float(np.median(size, axis=1).min()), turns.sigma_rad)
    cost = (np.minimum(size, 3.0 * spread) ** 2).sum(axis=1)
    i = int(np.clip(cost.argmin(), 1, len(grid) - 2))
    left, here, right = cost[i - 1 : i + 2]
    bend = left - 2.0 * here + right
    if bend <= 0 or cost.argmin() in (0, len(grid) - 1):
        return Offset(float("nan"), float("nan"), int(use.sum()), at_s)
    best = grid[i] + 0.5 * STEP_S * (left - right) / bend
    curvature = bend / STEP_S**2
    per_angle = here / max(1, 3 * use.sum() - 1)
    return Offset(float(best), float(np.sqrt(2.0 * per_angle / curvature)), int(use.sum()), at_s)


def sliding_offsets(turns: Turns, camera_at: Callable[[Floats], Floats]) -> list[Offset]:
    """Returns the offset of each window of pairs, in order, half a window apart."""
    n = len(turns.first_s)
    order = np.argsort(turns.first_s)
    starts = range(0, max(1, n - WINDOW_PAIRS + 1), WINDOW_PAIRS // 2)
    windows = [order[start : start + WINDOW_PAIRS] for start in starts]
    return [match_clock(turns.take(window), camera_at) for window in windows]


def _apart(turns: Turns, camera_at: Callable[[Floats], Floats], tau_s: float) -> Floats:
    """Returns (n, 3) rotation vectors from the telemetry's turns to the images'; NaN if unknown."""
    one, two = camera_at(turns.first_s + tau_s), camera_at(turns.second_s + tau_s)
    said = np.swapaxes(one, 1, 2) @ two
    known = np.isfinite(said).all(axis=(1, 2)) & np.isfinite(turns.r_first_second).all(axis=(1, 2))
    out = np.full((len(said), 3), np.nan)
    if known.any():
        left = np.swapaxes(said[known], 1, 2) @ turns.r_first_second[known]
        out[known] = rot_log(left)
    return out
