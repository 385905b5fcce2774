"""One position from several looks, never surer than their shared biases allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onboard.records import Floats

FLOOR_M2 = 1e-8
"""Added to each look's random variance (0.1 mm): a stated 0 must not make the system singular."""


def align_biases(
    names: Sequence[Sequence[str]], sensitivity_m: Sequence[Floats]
) -> tuple[tuple[str, ...], Floats]:
    """Returns the union of the looks' bias states, and their sensitivities to all of them.

    A state that two looks share by name is one state; a look that does not know a state has
    sensitivity 0 to it.

    Args:
        names: For each of n looks its k_i names.
        sensitivity_m: For each look its (2, k_i) sensitivities, metres per σ.

    Returns:
        The k names of the union, sorted, and (n, 2, k).
    """
    union = tuple(sorted({name for row in names for name in row}))
    column = {name: i for i, name in enumerate(union)}
    aligned = np.zeros((len(names), 2, len(union)))
    for look, (row, s) in enumerate(zip(names, sensitivity_m, strict=True)):
        for i, name in enumerate(row):
            aligned[look, :, column[name]] += np.asarray(s)[:, i]
    return union, aligned


def fuse_looks(
    xy_m: Floats, cov_random_m2: Floats, sensitivity_m: Floats
) -> tuple[Floats, Floats, Floats]:
    """Returns the best linear unbiased position of one thing from n looks at it.

    Generalised least squares with consider states: the looks' errors are e_i + S_i b with e_i
    independent and b of unit variance, the same in all looks. The full covariance
    V = diag(R_i) + S Sᵀ gives the weights W_i (they sum to the identity), and the result is again
    a look: random covariance Σ W_i R_i W_iᵀ, sensitivities Σ W_i S_i. Its total equals
    (Hᵀ V⁻¹ H)⁻¹, so it is never larger than the best single look's, and biases that all looks
    share alike are never averaged away. (Jazwinski 1970, ch. 8; Aitken 1935.)

    Args:
        xy_m: (n, 2) positions.
        cov_random_m2: (n, 2, 2) random covariances, in the positions' axes.
        sensitivity_m: (n, 2, k) metres per σ of the k states, aligned by `align_biases`.

    Returns:
        (2,) position, (2, 2) random covariance, (2, k) sensitivities.
    """
    xy, random, s = (np.asarray(a, dtype=np.float64) for a in (xy_m, cov_random_m2, sensitivity_m))
    n = len(xy)
    if n == 0:
        raise ValueError("no looks to fuse")
    if n == 1:
        return xy[0], random[0], s[0]
    weights = look_weights(random, s)
    fused_random = np.einsum("nij,njk,nlk->il", weights, random, weights)
    fused_s = np.einsum("nij,njk->ik", weights, s)
    origin = xy[0]
    fused = origin + np.einsum("nij,nj->i", weights, xy - origin)
    return fused, (fused_random + fused_random.T) / 2, fused_s


def look_weights(cov_random_m2: Floats, sensitivity_m: Floats) -> Floats:
    """Returns the (n, 2, 2) weights of n looks; they sum to the identity.

    Args:
        cov_random_m2: (n, 2, 2).
        sensitivity_m: (n, 2, k).
    """
    n = len(cov_random_m2)
    flat = np.asarray(sensitivity_m).reshape(2 * n, -1)
    v = flat @ flat.T
    for i in range(n):
        v[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] += cov_random_m2[i] + FLOOR_M2 * np.eye(2)
    h = np.tile(np.eye(2), (n, 1))
    vh = np.linalg.solve(v, h)
    w = np.linalg.solve(h.T @ vh, vh.T)
    return np.asarray(w.reshape(2, n, 2).transpose(1, 0, 2))


def relative_covariance(cov_a_m2: Floats, s_a_m: Floats, cov_b_m2: Floats, s_b_m: Floats) -> Floats:
    """Returns the covariance of the difference of two looks: shared states cancel.

    Args:
        cov_a_m2: (..., 2, 2) random covariance of the one.
        s_a_m: (..., 2, k) its sensitivities, aligned with the other's.
        cov_b_m2: (..., 2, 2) random covariance of the other.
        s_b_m: (..., 2, k) its sensitivities.
    """
    d = s_a_m - s_b_m
    return np.asarray(cov_a_m2 + cov_b_m2 + d @ np.swapaxes(d, -1, -2))
