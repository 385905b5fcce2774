"""Least squares over ties: what frames and flight must be corrected by so that ties meet.

A tie is one place seen by two frames. With the poses as they stand their rays meet the ground
apart; the gap is linear in small corrections of each frame (six), of the ground's height in each
cell, and of what all frames share (boresight, clock, …). All have priors: what telemetry, DEM and
rig say of themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        cell: (n,) number of the cell of ground, from 0.
        by_lift: (n, 2) how the gap moves with that cell's height.
        noise_m2: (n, 2, 2) covariance of the gap by matching and by the roughness within a cell.
    """

    first: Ints
    second: Ints
    gap_m: Floats
    by_first: Floats
    by_second: Floats
    by_shared: Floats
    cell: Ints
    by_lift: Floats
    noise_m2: Floats


@dataclass(frozen=True, slots=True)
class Corrections:
    """Corrections and their σ: as a prior around 0, or as found.

    Attributes:
        frames: (f, 6) of each frame.
        shared: (k,) of what is shared.
        frames_sigma: (f, 6) σ; 0 fixes a correction.
        shared_covariance: (k, k).
        ground_sigma_m: σ of each cell's height; 0 fixes the ground.
    """

    frames: Floats
    shared: Floats
    frames_sigma: Floats
    shared_covariance: Floats
    ground_sigma_m: float = 0.0


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
    scale = max(float(np.sqrt(np.median(chi2) / CHI2_2_MEDIAN)) if len(chi2) else 1.0, 1e-6)
    weight = 1.0 / (1.0 + chi2 / (GENTLE * scale) ** 2) ** 2
    rows = root * (np.sqrt(weight) / scale)[:, None, None]
    target = -(rows @ gaps.gap_m[..., None])[..., 0].ravel()
    free, stiffness = _stiffness(prior, int(gaps.cell.max(initial=-1)) + 1)
    design = _design(gaps, rows, f, k)[:, free]
    here = np.zeros(design.shape[1])
    own = np.concatenate([now.frames.ravel(), now.shared])
    known = free < len(own)
    here[known] = own[free[known]]
    factor = splu((design.T @ design + stiffness).tocsc())
    step = factor.solve(design.T @ target - stiffness @ here)
    own[free[known]] += step[known]
    variance, shared_covariance = _covariances(factor, free, f, k)
    return Adjusted(
        own[: CORRECTIONS * f].reshape(f, CORRECTIONS),
        own[CORRECTIONS * f :],
        np.sqrt(variance).reshape(f, CORRECTIONS),
        shared_covariance,
        weight,
        scale,
    )


def _whitening(noise_m2: Floats) -> Floats:
    """Returns (n, 2, 2) W with Wᵀ W the inverse of each covariance."""
    return np.asarray(np.linalg.inv(np.linalg.cholesky(noise_m2)))


def _design(gaps: Gaps, rows: Floats, f: int, k: int) -> sparse.csr_matrix:
    """Returns the (2n, 6f + k + cells) derivatives of the whitened gaps."""
    n = len(gaps.first)
    parts = [rows @ gaps.by_first, -(rows @ gaps.by_second), rows @ gaps.by_shared]
    blocks = np.concatenate([*parts, rows @ gaps.by_lift[..., None]], axis=2)
    own, shared = np.arange(CORRECTIONS), CORRECTIONS * f
    columns = np.concatenate(
        [
            CORRECTIONS * gaps.first[:, None] + own,
            CORRECTIONS * gaps.second[:, None] + own,
            np.tile(shared + np.arange(k), (n, 1)),
            shared + k + gaps.cell[:, None],
        ],
        axis=1,
    )
    at_row = np.repeat(np.arange(2 * n), columns.shape[1])
    at_column = np.repeat(columns[:, None, :], 2, axis=1).ravel()
    shape = (2 * n, shared + k + int(gaps.cell.max(initial=-1)) + 1)
    return sparse.csr_matrix((blocks.ravel(), (at_row, at_column)), shape=shape)


def _stiffness(prior: Corrections, cells: int) -> tuple[Ints, sparse.csr_matrix]:
    """Returns which unknowns are free, and the prior's inverse covariance of those."""
    sigma = prior.frames_sigma.ravel()
    loose = np.flatnonzero(sigma > 0)
    shared = np.flatnonzero(np.diag(prior.shared_covariance) > 0)
    known = np.linalg.inv(prior.shared_covariance[np.ix_(shared, shared)])
    held: list[Any] = [sparse.diags(1.0 / sigma[loose] ** 2), known]
    free = [loose, len(sigma) + shared]
    if prior.ground_sigma_m > 0:
        held.append(sparse.identity(cells) / prior.ground_sigma_m**2)
        free.append(len(sigma) + len(prior.shared) + np.arange(cells))
    return np.concatenate(free), sparse.csr_matrix(sparse.block_diag(held))


def _covariances(factor: Any, free: Ints, f: int, k: int) -> tuple[Floats, Floats]:
    """Returns variances (6f,) of the frames' corrections and the (k, k) covariance of the rest."""
    m, frames = len(free), CORRECTIONS * f
    variance, shared = np.zeros(frames), np.zeros((k, k))
    of_frames = np.flatnonzero(free < frames)
    of_shared = np.flatnonzero((free >= frames) & (free < frames + k))
    for part in np.array_split(of_frames, max(1, -(-len(of_frames) // AT_ONCE))):
        columns = factor.solve(_units(m, part))
        variance[free[part]] = columns[part, np.arange(len(part))]
    where = free[of_shared] - frames
    shared[np.ix_(where, where)] = factor.solve(_units(m, of_shared))[of_shared]
    return variance, shared


def _units(m: int, rows: Ints) -> Floats:
    """Returns the (m, r) unit vectors of r rows."""
    units = np.zeros((m, len(rows)))
    units[rows, np.arange(len(rows))] = 1.0
    return units
