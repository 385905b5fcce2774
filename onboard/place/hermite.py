"""Interpolation of timed samples: cubic Hermite on vectors with rates and on rotations with rates.

On rotations the Hermite cubic runs on the rotation vector in the axes of the earlier sample, whose
rate is J_r⁻¹(φ) ω for body rates ω (right Jacobian of SO(3): Chirikjian 2012, §10.6; Solà et al.
2018, eqs. 143-144), so that attitude and rate are met at both ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.rotations import quat_conj, quat_exp, quat_log, quat_mul, skew
from onboard.records import Floats, Ints

DECAY_S = 0.3
"""Beyond the last sample an attitude rate is taken to die out within this time."""
TRUST_SPAN_S = 2.0
TRUST_LEAST = 12
"""Rates are judged by at least so many intervals, none longer than the span."""
TINY = 1e-12


class Samples:
    """Timed rows, kept sorted by time; times that come late are put where they belong."""

    def __init__(self, width: int) -> None:
        self._t = np.empty(256)
        self._x = np.empty((256, width))
        self._n = 0

    def __len__(self) -> int:
        return self._n

    @property
    def t(self) -> Floats:
        """(n,) times, rising."""
        return self._t[: self._n]

    @property
    def x(self) -> Floats:
        """(n, width) rows."""
        return self._x[: self._n]

    def add(self, t: float, row: tuple[float, ...]) -> None:
        """Adds a row; one of the same time is replaced."""
        if self._n == len(self._t):
            self._t = np.concatenate([self._t, np.empty_like(self._t)])
            self._x = np.concatenate([self._x, np.empty_like(self._x)])
        i = self._n
        if i and t <= self._t[i - 1]:
            i = int(np.searchsorted(self.t, t))
            if self._t[i] == t:
                self._x[i] = row
                return
            self._t[i + 1 : self._n + 1] = self._t[i : self._n].copy()
            self._x[i + 1 : self._n + 1] = self._x[i : self._n].copy()
        self._t[i], self._x[i] = t, row
        self._n += 1

    def forget_before(self, t: float) -> None:
        """Drops rows older than ``t``, some at a time."""
        i = int(np.searchsorted(self.t, t))
        if i > max(256, self._n // 2):
            keep = self._n - i
            self._t[:keep] = self._t[i : self._n].copy()
            self._x[:keep] = self._x[i : self._n].copy()
            self._n = keep


@dataclass(frozen=True, slots=True)
class Bracket:
    """Where m times fall among n samples.

    Attributes:
        before: (m,) index of the sample at or before each time (the first where none is).
        after: (m,) index of the sample after (the last where none is).
        gap_s: (m,) distance of the two; 0 outside the samples.
        beyond_s: (m,) how far outside the samples the time is; negative before the first.
    """

    before: Ints
    after: Ints
    gap_s: Floats
    beyond_s: Floats


def bracket(t_samples: Floats, t: Floats) -> Bracket:
    """Returns where times fall among sorted sample times (at least one sample)."""
    last = len(t_samples) - 1
    after = np.searchsorted(t_samples, t, side="right")
    before = np.clip(after - 1, 0, last)
    after = np.clip(after, 0, last)
    beyond = np.minimum(t - t_samples[0], 0.0) + np.maximum(t - t_samples[last], 0.0)
    return Bracket(before, after, t_samples[after] - t_samples[before], beyond)


def hermite(x: Floats, rate: Floats, t_samples: Floats, t: Floats) -> tuple[Floats, Floats]:
    """Returns values and rates of vectors at times; straight on beyond the ends.

    Args:
        x: (n, k) samples.
        rate: (n, k) their rates per second; NaN where unknown (then the chord's).
        t_samples: (n,) their times.
        t: (m,) times.
    """
    b = bracket(t_samples, t)
    inside = b.gap_s > 0.0
    span = np.where(inside, b.gap_s, 1.0)[:, None]
    x0, x1 = x[b.before], x[b.after]
    chord = np.where(inside[:, None], (x1 - x0) / span, 0.0)
    v0 = np.where(np.isnan(rate[b.before]), chord, rate[b.before])
    v1 = np.where(np.isnan(rate[b.after]), chord, rate[b.after])
    s = np.where(inside, (t - t_samples[b.before]) / span[:, 0], 0.0)[:, None]
    value, slope = _cubic(x1 - x0, v0, v1, span, s)
    value = np.where(inside[:, None], x0 + value, x0 + v0 * (t - t_samples[b.before])[:, None])
    return value, np.where(inside[:, None], slope, v0)


def hermite_attitude(
    q: Floats, rates: Floats, t_samples: Floats, t: Floats
) -> tuple[Floats, Floats]:
    """Returns quaternions and body rates at times.

    Args:
        q: (n, 4) unit quaternions body to world.
        rates: (n, 3) body rates, rad/s; NaN where unknown (then the chord's).
        t_samples: (n,) their times.
        t: (m,) times. Beyond the ends the rate dies out.

    A gyro's rate is trusted as far as the samples bear it out, see :func:`rate_trust`.
    """
    b = bracket(t_samples, t)
    inside = b.gap_s > 0.0
    span = np.where(inside, b.gap_s, 1.0)[:, None]
    q0 = q[b.before]
    phi1 = quat_log(quat_mul(quat_conj(q0), q[b.after]))
    chord = np.where(inside[:, None], phi1 / span, 0.0)
    w0 = np.where(np.isnan(rates[b.before]), chord, rates[b.before])
    w1 = np.where(np.isnan(rates[b.after]), chord, rates[b.after])
    trust = np.where(inside[:, None], rate_trust(q, rates, t_samples), 1.0)
    w0, w1 = chord + trust * (w0 - chord), chord + trust * (w1 - chord)
    s = np.where(inside, (t - t_samples[b.before]) / span[:, 0], 0.0)[:, None]
    v1 = (_right_jacobian_inverse(phi1) @ w1[..., None])[..., 0]
    phi, slope = _cubic(phi1, w0, v1, span, s)
    omega = (_right_jacobian(phi) @ slope[..., None])[..., 0]
    away = t - t_samples[b.before]
    fade = np.sign(away) * DECAY_S * (1.0 - np.exp(-np.abs(away) / DECAY_S))
    phi = np.where(inside[:, None], phi, w0 * fade[:, None])
    return quat_mul(q0, quat_exp(phi)), np.where(inside[:, None], omega, w0)


def rate_trust(q: Floats, rates: Floats, t_samples: Floats) -> Floats:
    """Returns (3,) how far rates at the samples speak for the time between them, 0 to 1 per axis.

    Where motion is smooth at this spacing, the mean of the two end rates equals the chord's. Rates
    that shake faster than the samples show (turbulence at 3 Hz telemetry) do not: if N is the
    shaking's variance, var(mean − chord) = N/2, and the best linear estimate (Wiener) takes the
    fraction 1 − N/var(rate − chord) of each rate's departure from the chord.
    """
    span = np.diff(t_samples)
    near = (span > 0.0) & (span <= TRUST_SPAN_S) & np.isfinite(rates[:-1] + rates[1:]).all(axis=1)
    if near.sum() < TRUST_LEAST:
        return np.ones(3)
    turn = quat_log(quat_mul(quat_conj(q[:-1][near]), q[1:][near])) / span[near][:, None]
    w0, w1 = rates[:-1][near] - turn, rates[1:][near] - turn
    shaking = 2.0 * np.mean(((w0 + w1) / 2.0) ** 2, axis=0)
    all_of_it = np.mean((w0**2 + w1**2) / 2.0, axis=0)
    return np.asarray(np.clip(1.0 - shaking / np.maximum(all_of_it, TINY), 0.0, 1.0))


def _cubic(dx: Floats, v0: Floats, v1: Floats, span: Floats, s: Floats) -> tuple[Floats, Floats]:
    """Returns the Hermite cubic from 0 to dx with end rates v0, v1, and its rate, at s in 0..1."""
    value = (3 * s**2 - 2 * s**3) * dx + span * ((s - 2 * s**2 + s**3) * v0 + (s**3 - s**2) * v1)
    slope = 6 * (s - s**2) * dx / span + (1 - 4 * s + 3 * s**2) * v0 + (3 * s**2 - 2 * s) * v1
    return value, slope


def _right_jacobian(phi: Floats) -> Floats:
    theta = np.linalg.norm(phi, axis=-1)[..., None, None]
    k = skew(phi)
    small = theta < 1e-4
    safe = np.where(small, 1.0, theta)
    a = np.where(small, 0.5 - theta**2 / 24.0, (1.0 - np.cos(safe)) / safe**2)
    b = np.where(small, 1.0 / 6.0 - theta**2 / 120.0, (safe - np.sin(safe)) / safe**3)
    return np.asarray(np.eye(3) - a * k + b * (k @ k))


def _right_jacobian_inverse(phi: Floats) -> Floats:
    theta = np.linalg.norm(phi, axis=-1)[..., None, None]
    k = skew(phi)
    small = theta < 1e-4
    safe = np.where(small, 1.0, theta)
    exact = 1.0 / safe**2 - 1.0 / (2.0 * safe * np.tan(0.5 * safe))
    return np.asarray(np.eye(3) + 0.5 * k + np.where(small, 1.0 / 12.0, exact) * (k @ k))
