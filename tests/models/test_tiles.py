"""Tiling: every pixel answered once, by a tile that sees its surroundings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.manifest import Tiling
from models.tiles import plan, tile_size, tiled

TILING = Tiling(sizes_px=(64, 128), halo_px=32)


@given(height=st.integers(1, 500), width=st.integers(1, 500))
@settings(max_examples=60, deadline=None)
def test_inner_parts_cover_the_image_exactly_once(height, width):
    size = tile_size(height, width, TILING)
    count = np.zeros((height, width), int)
    for tile in plan(height, width, size, 32):
        y0, y1, x0, x1 = tile.inner
        count[y0:y1, x0:x1] += 1
        assert tile.top % 32 == 0
        assert tile.left % 32 == 0
        assert y0 - tile.top >= (32 if tile.top else 0)
        assert tile.top + size - y1 >= (32 if y1 < height else 0)
    assert (count == 1).all()


@pytest.mark.parametrize("shape", [(50, 60), (128, 128), (300, 200), (129, 401)])
def test_a_local_answer_does_not_depend_on_the_tiles(shape):
    rng = np.random.default_rng(3)
    image = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
    rows, cols = -(-shape[0] // 8), -(-shape[1] // 8)
    padded = np.zeros((rows * 8, cols * 8), np.uint8)
    padded[: shape[0], : shape[1]] = image[..., 0]
    truth = padded.reshape(rows, 8, cols, 8).mean(axis=(1, 3), dtype=np.float64)

    def run(tile):
        n = tile.shape[0] // 8
        mean = tile[..., 0].reshape(n, 8, n, 8).mean(axis=(1, 3), dtype=np.float64)
        return {"mean": mean[..., None].astype(np.float32)}

    out = tiled(image, None, TILING, run, {"mean": 8})["mean"]
    assert out[..., 0] == pytest.approx(truth, abs=1e-4)


def test_tiles_without_seen_ground_are_not_run():
    seen = np.zeros((300, 300), bool)
    seen[:40, :40] = True
    runs = []

    def run(tile):
        runs.append(1)
        n = tile.shape[0] // 8
        return {"x": np.ones((n, n, 1), np.float32)}

    tiled(np.zeros((300, 300, 3), np.uint8), seen, TILING, run, {"x": 8})
    assert len(runs) == 1
