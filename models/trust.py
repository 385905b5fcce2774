"""How far an answer can be trusted: temperature, calibration error, and a first gate on energy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

ECE_BINS = 15


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Returns class probabilities (…, c) of logits (…, c) divided by a temperature."""
    z = logits * np.float32(1.0 / temperature)
    z -= z.max(axis=-1, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(axis=-1, keepdims=True)
    return z


def energy(logits: Floats, temperature: float = 1.0) -> Floats:
    """Returns the free energy (…) of logits (…, c): high where no class is supported.

    Source: Liu et al. 2020, Energy-based out-of-distribution detection, eq. 3.
    """
    z = logits * np.float32(1.0 / temperature)
    top = z.max(axis=-1)
    total = np.exp(z - top[..., None]).sum(axis=-1)
    return np.asarray(-np.float32(temperature) * (top + np.log(total)), np.float32)


def log_loss(logits: Floats, labels: Ints, temperature: float = 1.0) -> float:
    """Returns the mean negative log-likelihood of labels (n,) under logits (n, c)."""
    z = logits.astype(np.float64) / temperature
    z -= z.max(axis=1, keepdims=True)
    own = z[np.arange(len(labels)), labels]
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - own))


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """Returns the temperature in 0.2-5 with the smallest log loss (golden section on its log).

    Source: Guo et al. 2017, On calibration of modern neural networks, section 4.2.
    """
    low, high = np.log(0.2), np.log(5.0)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(30):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if log_loss(logits, labels, float(np.exp(a))) < log_loss(logits, labels, float(np.exp(b))):
            high = b
        else:
            low = a
    return float(np.exp((low + high) / 2))


def calibration_error(confidence: Doubles, correct: Bools, bins: int = ECE_BINS) -> float:
    """Returns the expected calibration error: Σ share · |accuracy − confidence| in equal bins."""
    if not len(confidence):
        return float("nan")
    index = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    count = np.bincount(index, minlength=bins).astype(np.float64)
    gap = np.abs(
        np.bincount(index, weights=correct.astype(np.float64), minlength=bins)
        - np.bincount(index, weights=confidence, minlength=bins)
    )
    return float(gap.sum() / count.sum())


def energy_gate(held_out: Floats, share: float = 0.99) -> float:
    """Returns the energy below which this share of known, held-out answers lies."""
    return float(np.quantile(held_out, share))
