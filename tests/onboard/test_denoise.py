"""Noise before the network: measured right, smoothed without its edges, left alone where little."""

from __future__ import annotations

import numpy as np
import pytest

from onboard.denoise import NOISY_DN, denoised, noise_sigma, quieted


def step(sigma: float, seed: int = 0) -> np.ndarray:
    """Returns a (128, 128, 3) image: 80 left, 160 right, with noise in each band."""
    image = np.full((128, 128, 3), 80.0)
    image[:, 64:] = 160.0
    noise = np.random.default_rng(seed).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [2.0, 8.0, 15.0])
def test_noise_is_measured(sigma: float) -> None:
    grey = step(sigma)[..., 0].astype(np.float32)
    assert noise_sigma(grey) == pytest.approx(sigma, rel=0.1)


def test_noise_goes_and_the_edge_stays() -> None:
    noisy, smooth = step(15.0), denoised(step(15.0))
    assert smooth[20:108, 10:50].std() < 0.5 * noisy[20:108, 10:50].std()
    profile = smooth.mean(axis=(0, 2))
    assert profile[66] - profile[61] > 0.7 * 80
    assert profile[68:120].mean() == pytest.approx(160, abs=2)


def test_what_is_hardly_noisy_stays_as_it_is() -> None:
    quiet = step(NOISY_DN / 2)
    assert quieted(quiet) is quiet
    assert (quieted(step(2.5 * NOISY_DN)) != step(2.5 * NOISY_DN)).any()
