"""Least squares over ties: what frames and flight must be corrected by so that ties meet.

A tie is one place seen by two frames. With the poses as they stand their rays meet the ground
apart; the gap is linear in small corrections of each frame (six) and of what all frames share
(boresight, clock, …). Both have priors: what the telemetry and the rig say of themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

CORRECTIONS = 6
"""Of each frame: projection centre east, north, up (metres), turn about east, north, up (rad)."""
CHI2_2_MEDIAN = 1.3862943611198906
"""Median of χ² with two degrees of freedom."""
GENTLE = 3.0
"""Gaps beyond this many σ lose weight (Geman-McClure)."""
AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Gaps:
    """n ties on the ground, linearised at the present corrections; east, north, metres.

    Attributes:
        first: (n,) row of the one frame.
        second: (n,) row of the other.
        gap_m: (n, 2) the first's place minus the second's.
        by_first: (n, 2, 6) how the first's place moves with its frame's corrections.
        by_second: (n, 2, 6) the second's with its.
        by_shared: (n, 2, k) how the gap moves with what is shared.
        noise_m2: (n, 2, 2) covariance of the gap by matching and by the ground's height.
    """

    first: Ints
    second: Ints
    gap_m: Floats
    by_first: Floats
    by_second: Floats
    by_shared: Floats
    noise_m2: Floats


@dataclass(frozen=True, slots=True)
class Corrections:
    """Corrections and their σ: as a prior around 0, or as found.

    Attributes:
        frames: (f, 6) of each frame.
        shared: (k,) of what is shared.
        frames_sigma: (f, 6) σ; 0 fixes a correction.
        shared_covariance: (k, k).
    """

    frames: Floats
    shared: Floats
    frames_sigma: Floats
    shared_covariance: Floats


@dataclass(frozen=True, slots=True)
class Adjusted:
    """What one step of the adjustment gave.

    Attributes:
        frames: (f, 6) corrections, the present ones included.
        shared: (k,).
        frames_sigma: (f, 6) their σ, with the ties' scale.
        shared_covariance: (k, k).
        weight: (n,) robust weights 0-1 of the ties.
        scale: How many times larger the gaps are than their stated noise.
    """

    frames: Floats
    shared: Floats
    frames_sigma: Floats
    shared_covariance: Floats
    weight: Floats
    scale: float


def adjust(gaps: Gaps, prior: Corrections, now: Corrections) -> Adjusted:
    """Returns the corrections after one Gauss-Newton step from the present ones.

    Args:
        gaps: Linearised at ``now``.
        prior: Around 0, with σ (its values are not used).
        now: The present corrections (its σ are not used).
    """
    f, k = len(prior.frames_sigma), len(prior.shared)
    root = _whitening(gaps.noise_m2)
    white = (root @ gaps.gap_m[..., None])[..., 0]
    chi2 = np.einsum("ij,ij->i", white, white)
    scale = float(np.sqrt(np.median(chi2) / CHI2_2_MEDIAN)) if len(chi2) else 1.0
    scale = max(scale, 1e-6)
    weight = 1.0 / (1.0 + chi2 / (GENTLE * scale) ** 2) ** 2
    rows = root * (np.sqrt(weight) / scale)[:, None, None]
    design = _design(gaps, rows, f, k)
    target = -(rows @ gaps.gap_m[..., None])[..., 0].ravel()
    free, stiffness = _stiffness(prior, f, k)
    here = np.concatenate([now.frames.ravel(), now.shared])[free]
    design = design[:, free]
    normal = (design.T @ design + stiffness).tocsc()
    factor = splu(normal)
    step = factor.solve(design.T @ target - stiffness @ here)
    both = np.concatenate([now.frames.ravel(), now.shared])
    both[free] += step
    variance, shared_covariance = _covariances(factor, free, f, k)
    return Adjusted(
        both[: CORRECTIONS * f].reshape(f, CORRECTIONS),
        both[CORRECTIONS * f :],
        np.sqrt(variance).reshape(f, CORRECTIONS),
        shared_covariance,
        weight,
        scale,
    )


def _whitening(noise_m2: Floats) -> Floats:
    """Returns (n, 2, 2) W with Wᵀ W the inverse of each covariance."""
    return np.asarray(np.linalg.inv(np.linalg.cholesky(noise_m2)))


def _design(gaps: Gaps, rows: Floats, f: int, k: int) -> sparse.csr_matrix:
    """Returns the (2n, 6f + k) derivatives of the whitened gaps."""
    n = len(gaps.first)
    blocks = np.concatenate(
        [rows @ gaps.by_first, -(rows @ gaps.by_second), rows @ gaps.by_shared], axis=2
    )
    own = np.arange(CORRECTIONS)
    columns = np.concatenate(
        [
            CORRECTIONS * gaps.first[:, None] + own,
            CORRECTIONS * gaps.second[:, None] + own,
            np.tile(CORRECTIONS * f + np.arange(k), (n, 1)),
        ],
        axis=1,
    )
    wide = columns.shape[1]
    at_row = np.repeat(np.arange(2 * n), wide)
    at_column = np.repeat(columns[:, None, :], 2, axis=1).ravel()
    shape = (2 * n, CORRECTIONS * f + k)
    return sparse.csr_matrix((blocks.ravel(), (at_row, at_column)), shape=shape)


def _stiffness(prior: Corrections, f: int, k: int) -> tuple[Ints, sparse.csr_matrix]:
    """Returns which corrections are free, and the prior's inverse covariance of those."""
    sigma = np.concatenate([prior.frames_sigma.ravel(), np.zeros(k)])
    free_shared = np.flatnonzero(np.diag(prior.shared_covariance) > 0)
    loose = np.flatnonzero(sigma > 0)
    held = sparse.diags(1.0 / sigma[loose] ** 2)
    known = np.linalg.inv(prior.shared_covariance[np.ix_(free_shared, free_shared)])
    free = np.concatenate([loose, CORRECTIONS * f + free_shared])
    return free, sparse.csr_matrix(sparse.block_diag([held, known]))


def _covariances(factor: object, free: Ints, f: int, k: int) -> tuple[Floats, Floats]:
    """Returns variances (6f,) of the frames' corrections and the (k, k) covariance of the rest."""
    m = len(free)
    variance, shared = np.zeros(CORRECTIONS * f), np.zeros((k, k))
    own = int((free < CORRECTIONS * f).sum())
    tail = free[own:] - CORRECTIONS * f
    for start in range(0, m, AT_ONCE):
        some = np.arange(start, min(start + AT_ONCE, m))
        unit = np.zeros((m, len(some)))
        unit[some, np.arange(len(some))] = 1.0
        columns = factor.solve(unit)  # type: ignore[attr-defined]
        mine = some < own
        variance[free[some[mine]]] = columns[some[mine], np.flatnonzero(mine)]
        if not mine.all():
            shared[np.ix_(tail, free[some[~mine]] - CORRECTIONS * f)] = columns[own:, ~mine]
    return variance, shared
