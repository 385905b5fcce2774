"""Error ellipses and circles of bivariate normal distributions."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from onboard.records import CHI2_2_P90, Floats

RATIOS = 1025
ANGLES = 256


def ce90_m(cov: Floats) -> Floats:
    """Returns the (n,) radii of the circles that hold 90 % of bivariate normals; exact to 1e-6.

    With principal variances σ² and q²σ², P(r) = 1 − ⟨exp(−r²/2σ²(cos²ψ + q² sin²ψ))⟩ averaged over
    ψ; tabled over q, whence r = σ·f(q) with f from 1.645 (a line) to 2.146 (a circle).

    Args:
        cov: (n, 2, 2) or (2, 2) covariances.
    """
    large, small = principal_variances(np.asarray(cov, dtype=np.float64))
    q = np.sqrt(small / np.where(large > 0, large, 1.0))
    ratios, radii = _ce90_table()
    return np.asarray(np.sqrt(large) * np.interp(q, ratios, radii))


def ellipse(cov: Floats, p: float = 0.9) -> tuple[Floats, Floats, Floats]:
    """Returns semi-major and semi-minor axis (m) and azimuth (° from true north) of p-ellipses.

    Args:
        cov: (n, 2, 2) or (2, 2) covariances, true east/north.
        p: The probability inside.
    """
    cov = np.asarray(cov, dtype=np.float64)
    large, small = principal_variances(cov)
    chi2 = CHI2_2_P90 if p == 0.9 else -2.0 * np.log(1.0 - p)
    azimuth = 0.5 * np.arctan2(2 * cov[..., 0, 1], cov[..., 1, 1] - cov[..., 0, 0])
    return np.sqrt(chi2 * large), np.sqrt(chi2 * small), np.degrees(azimuth) % 180.0


def principal_variances(cov: Floats) -> tuple[Floats, Floats]:
    """Returns the larger and the smaller eigenvalue of (..., 2, 2) covariances."""
    half = 0.5 * (cov[..., 0, 0] + cov[..., 1, 1])
    spread = np.hypot(0.5 * (cov[..., 0, 0] - cov[..., 1, 1]), cov[..., 0, 1])
    return half + spread, np.maximum(half - spread, 0.0)


@lru_cache(maxsize=1)
def _ce90_table() -> tuple[Floats, Floats]:
    """Returns ratios q and the radii f(q) that hold 90 %, by Newton's method."""
    q = np.linspace(0.0, 1.0, RATIOS)
    psi = (np.arange(ANGLES) + 0.5) * 2.0 * np.pi / ANGLES
    spread = np.cos(psi) ** 2 + (q[:, None] * np.sin(psi)) ** 2
    r = np.linspace(1.645, 2.146, RATIOS)
    for _ in range(8):
        outside = np.exp(-0.5 * r[:, None] ** 2 / spread)
        density = (r[:, None] / spread * outside).mean(axis=1)
        r = r + (outside.mean(axis=1) - 0.1) / density
    return q, r
