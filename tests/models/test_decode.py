"""Regions from synthetic logits: place, outline, edge, doubt."""

from __future__ import annotations

import numpy as np
import pytest

from models.decode import Regions, grid_of, probabilities, regions_of
from models.manifest import Head

HEAD = Head(
    output="anomaly",
    stride=4,
    classes=("none", "iron_oxide", "quartz"),
    report=("iron_oxide", "quartz"),
    threshold={"iron_oxide": 0.5, "quartz": 0.5},
)


def logits_with(
    blocks: list[tuple[int, int, int, int, int, float]], shape: tuple[int, int] = (32, 40)
) -> np.ndarray:
    """Logits (rows, cols, 3) of 'none' with blocks (row, col, height, width, class, logit)."""
    z = np.zeros((*shape, 3), np.float32)
    z[..., 0] = 6
    for r, c, h, w, k, value in blocks:
        z[r : r + h, c : c + w, 0] = 0
        z[r : r + h, c : c + w, k] = value
    return z


def decode(z: np.ndarray, head: Head = HEAD, seen: np.ndarray | None = None) -> Regions:
    full = np.ones((z.shape[0] * 4, z.shape[1] * 4), bool) if seen is None else seen
    grid = grid_of(full, head.stride)
    p = probabilities(z, head, grid)
    return Regions.from_rows(regions_of("anomaly", head, z, p, grid), True)


def test_a_block_of_cells_comes_back_where_it_is():
    found = decode(logits_with([(10, 20, 5, 3, 1, 7.0)]))
    assert found.class_name == ("iron_oxide",)
    assert found.centroid_px[0] == pytest.approx([20 * 4 + 5.5, 10 * 4 + 9.5], abs=0.01)
    assert found.area_px[0] == pytest.approx(5 * 3 * 16, rel=0.25)
    assert found.bbox_px[0] == pytest.approx([79.5, 39.5, 91.5, 59.5], abs=2.1)
    assert not found.touches_edge[0]
    assert found.probability[0] > 0.99


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([(5, 5, 2, 2, 1, 7.0), (7, 7, 2, 2, 1, 7.0)], 1),
        ([(5, 5, 2, 2, 1, 7.0), (8, 8, 2, 2, 1, 7.0)], 2),
        ([(5, 5, 2, 2, 1, 7.0), (5, 7, 2, 2, 2, 7.0)], 2),
        ([], 0),
    ],
    ids=["corners touch", "a cell apart", "two classes side by side", "nothing"],
)
def test_components_are_eight_connected_and_of_one_class(blocks, expected):
    assert len(decode(logits_with(blocks))) == expected


def test_least_probability_and_size_keep_weak_and_small_regions_out():
    z = logits_with([(5, 5, 1, 1, 1, 9.0), (15, 15, 3, 3, 1, 1.0)])
    assert len(decode(z)) == 2
    assert len(decode(z, HEAD.model_copy(update={"min_cells": 2}))) == 1
    assert len(decode(z, HEAD.model_copy(update={"least_probability": {"iron_oxide": 0.9}}))) == 1


@pytest.mark.parametrize(
    ("row", "col", "edge"), [(0, 5, True), (29, 5, True), (5, 37, True), (2, 5, False)]
)
def test_regions_at_the_border_say_so(row, col, edge):
    assert decode(logits_with([(row, col, 3, 3, 1, 7.0)])).touches_edge[0] == edge


def test_unseen_ground_holds_nothing_and_is_an_edge():
    z = logits_with([(10, 10, 4, 4, 1, 7.0), (20, 20, 4, 4, 1, 7.0)])
    seen = np.ones((128, 160), bool)
    seen[10 * 4 : 14 * 4, 12 * 4 : 14 * 4] = False
    seen[20 * 4 : 24 * 4, 20 * 4 : 24 * 4] = False
    found = decode(z, seen=seen)
    assert len(found) == 1
    assert found.touches_edge[0]
    assert found.centroid_px[0, 0] < 12 * 4


def test_the_gate_doubts_answers_that_no_class_supports():
    head = HEAD.model_copy(update={"energy_max": -3.0})
    sure, unsure = logits_with([(5, 5, 3, 3, 1, 8.0)]), logits_with([(5, 5, 3, 3, 1, 8.0)])
    unsure[5:8, 5:8] = [-4.0, 0.0, -4.0]
    assert not decode(sure, head).ood[0]
    assert decode(unsure, head).ood[0]


def test_sizes_that_the_stride_does_not_divide_stay_inside_the_image():
    z = logits_with([(24, 30, 2, 2, 1, 7.0)], (26, 32))
    seen = np.ones((102, 126), bool)
    found = decode(z, seen=seen)
    assert found.bbox_px[0, 2] <= 125.5
    assert found.bbox_px[0, 3] <= 101.5
    assert found.touches_edge[0]
