"""Resampling a strip gives what the map says, at the sizes that fly."""

from __future__ import annotations

import numpy as np
import pytest

from onboard.place.ortho_resample import ImageResampling, resample

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("bands", [1, 3, 5])
@pytest.mark.parametrize("how", ["linear", "cubic"])
@pytest.mark.parametrize("size", [(24, 40), (960, 1280)], ids=["small", "frame"])
def test_whole_pixels_come_back_as_they_are(
    size: tuple[int, int], how: ImageResampling, bands: int
) -> None:
    source = RNG.integers(0, 255, (*size, bands), np.uint8)
    u, v = np.meshgrid(np.arange(size[1] - 1, -1, -1.0), np.arange(min(96, size[0])))
    strip = np.stack([u, v + 3], axis=-1).astype(np.float32)
    out = np.empty((*u.shape, bands), np.uint8)
    resample(source, strip, how, out)
    rows = np.minimum(np.arange(len(u)) + 3, size[0] - 1)
    np.testing.assert_array_equal(out, source[rows, ::-1])
