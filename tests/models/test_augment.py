"""Augmentation: masks follow their pixels, and planted colours are what their class says."""

from __future__ import annotations

import numpy as np
import pytest

from models.augment import crop, recolour, weather
from models.composite import MINERAL, ground, plant_patches
from models.labels import ANOMALY, IGNORE


def test_the_mask_turns_and_scales_with_its_image():
    rng = np.random.default_rng(0)
    image = np.full((300, 400, 3), 50, np.uint8)
    mask = np.zeros((300, 400), np.uint8)
    image[100:160, 200:280] = 200
    mask[100:160, 200:280] = 1
    for _ in range(20):
        pixels, labels = crop(image, mask, rng, 128, centre=(240, 130))
        bright = pixels[..., 0] > 125
        agree = bright == (labels == 1)
        assert agree[labels != IGNORE].mean() > 0.97
        assert (labels == 1).any()


def test_what_lies_outside_the_image_is_black_and_ignored():
    rng = np.random.default_rng(0)
    image, mask = np.full((300, 400, 3), 50, np.uint8), np.zeros((300, 400), np.uint8)
    pixels, labels = crop(image, mask, rng, 128, centre=(0, 0))
    outside = labels == IGNORE
    assert 0.5 < outside.mean() < 0.95
    assert (pixels[outside] == 0).mean() > 0.97
    assert (pixels[~outside] == 50).mean() > 0.97


def test_weather_changes_light_but_neither_shape_nor_unseen_ground():
    rng = np.random.default_rng(1)
    image = ground(rng, 64)
    image[:10] = 0
    changed = [weather(image, rng) for _ in range(10)]
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    assert all((c[:10] == 0).all() for c in changed)
    assert np.std([c[20:].mean() for c in changed]) > 3


def test_recolouring_keeps_what_it_is_told_to_keep():
    rng = np.random.default_rng(2)
    image = ground(rng, 64)
    keep = np.zeros((64, 64), bool)
    keep[20:30] = True
    out = recolour(image, keep, rng)
    assert (out[keep] == image[keep]).all()
    assert (out[~keep] != image[~keep]).mean() > 0.3


@pytest.mark.parametrize("kind", ANOMALY[1:])
def test_planted_patches_have_the_colour_of_their_class(kind):
    rng = np.random.default_rng(3)
    index = ANOMALY.index(kind)
    inside, outside = [], []
    for _ in range(12):
        image, mask = plant_patches(ground(rng, 128), np.zeros((128, 128), np.uint8), rng, 4)
        inside.append(image[mask == index])
        outside.append(image[mask == 0])
    pixels, rest = np.concatenate(inside).astype(float), np.concatenate(outside).astype(float)
    assert len(pixels) > 50
    value = pixels.max(axis=1).mean() / 255
    low, high = MINERAL[kind].value
    assert low - 0.12 < value < high + 0.12
    if kind == "iron_oxide":
        assert (pixels[:, 0] - pixels[:, 2]).mean() > (rest[:, 0] - rest[:, 2]).mean() + 30
