"""The GPU's ortho is the CPU's, to 1 DN; without a GPU the CPU serves."""

from __future__ import annotations

import numpy as np
import pytest
from test_ortho import CAMERA, MAP, RIG, pose_at, ridge_and_spikes

from onboard.place import ortho_gpu
from onboard.place.ortho import frame_grid, orthorectify

on_gpu = pytest.mark.skipif(not ortho_gpu.ready(), reason="CuPy finds no device here")


def picture(dtype, bands):
    rng = np.random.default_rng(1)
    shape = (CAMERA.height_px, CAMERA.width_px, *((bands,) if bands > 1 else ()))
    return rng.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


@on_gpu
@pytest.mark.parametrize(("dtype", "bands"), [(np.uint8, 3), (np.uint8, 1), (np.uint16, 4)])
@pytest.mark.parametrize("resampling", ["linear", "cubic"])
@pytest.mark.parametrize("pitch", [-90.0, -50.0])
def test_the_gpu_agrees_with_the_cpu(monkeypatch, dtype, bands, resampling, pitch):
    terrain, pose, pixels = ridge_and_spikes(), pose_at(20.0, pitch, 3.0), picture(dtype, bands)
    grid = frame_grid(pose, RIG, terrain, MAP, 0.15)
    gpu = orthorectify(pixels, pose, RIG, terrain, MAP, grid, resampling=resampling)
    monkeypatch.setattr(ortho_gpu, "ready", lambda: False)
    cpu = orthorectify(pixels, pose, RIG, terrain, MAP, grid, resampling=resampling)
    assert (gpu.mask == cpu.mask).mean() > 0.9999
    assert (gpu.occluded == cpu.occluded).mean() > 0.9999
    both = gpu.mask & cpu.mask
    assert both.sum() > 100_000
    apart = np.abs(gpu.image.astype(int) - cpu.image)[both]
    if dtype == np.uint8:
        assert apart.max() <= 1
    else:
        assert apart.max() <= 65535 / 255
    assert (gpu.image[~gpu.mask] == 0).all()


def test_what_the_kernel_does_not_take_goes_to_the_cpu():
    assert ortho_gpu.serves(picture(np.uint8, 3))
    assert not ortho_gpu.serves(np.zeros((4, 4, 5), np.uint8))
    assert not ortho_gpu.serves(np.zeros((4, 4), np.float32))
