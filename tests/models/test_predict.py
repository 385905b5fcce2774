"""The zoo's network through the one door: image in, regions out."""

from __future__ import annotations

import numpy as np
import pytest

from models.composite import ground
from models.errors import ModelError
from models.predict import Predictor


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.open("surface-rgb", threads=1, provider="cpu")


@pytest.fixture(scope="module")
def soil() -> np.ndarray:
    rng = np.random.default_rng(5)
    base = np.array([150, 125, 100]) + rng.normal(0, 6, (256, 256, 1))
    return np.clip(base, 1, 255).astype(np.uint8)


@pytest.mark.parametrize("radius_px", [6, 20])
def test_a_rust_coloured_patch_is_found_where_it_is(predictor, soil, radius_px):
    image = soil.copy()
    y, x = np.mgrid[0:256, 0:256]
    inside = np.hypot(x - 150, y - 90) < radius_px
    grain = image[inside].astype(float).mean(axis=1, keepdims=True) / 125
    image[inside] = np.clip(np.array([146.0, 66.0, 38.0]) * grain, 1, 255)
    regions = predictor.predict(image).regions
    rust = [i for i, name in enumerate(regions.class_name) if name == "iron_oxide"]
    assert len(rust) == 1
    assert regions.centroid_px[rust[0]] == pytest.approx([150, 90], abs=2.5)
    assert not regions.touches_edge[rust[0]]


def test_unseen_ground_holds_nothing(predictor, soil):
    image = soil.copy()
    image[100:140, 100:140] = (150, 65, 35)
    seen = np.ones((256, 256), bool)
    seen[80:160, 80:160] = False
    prediction = predictor.predict(image, seen)
    assert "iron_oxide" not in prediction.regions.class_name
    assert (prediction.heads["anomaly"][25:35, 25:35] == 0).all()
    nothing = predictor.predict(image, np.zeros_like(seen))
    assert len(nothing.regions) == 0


def test_tiles_answer_like_the_whole_image(predictor):
    rng = np.random.default_rng(2)
    image = ground(rng, 1024)
    whole = predictor.logits(image)["anomaly"].argmax(axis=2)
    wide = np.zeros((1024, 1400, 3), np.uint8)
    wide[:, :1024] = image
    wide[:, 1024:] = image[:, :376][:, ::-1]
    tiled = predictor.logits(wide)["anomaly"][:, : 992 // 4].argmax(axis=2)
    assert (tiled != whole[:, : 992 // 4]).mean() < 0.002


@pytest.mark.parametrize("shape", [(100, 300), (33, 40), (1030, 500)])
def test_grids_cover_images_of_any_shape(predictor, shape):
    prediction = predictor.predict(np.full((*shape, 3), 120, np.uint8))
    for name, head in predictor.manifest.heads.items():
        rows, cols = (-(-n // head.stride) for n in shape)
        assert prediction.heads[name].shape == (rows, cols, len(head.classes))
        assert prediction.heads[name].sum(axis=2) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "image",
    [np.zeros((64, 64, 3), np.uint16), np.zeros((64, 64), np.uint8), np.zeros((9, 9, 5), np.uint8)],
    ids=["16 bit", "one band", "five bands"],
)
def test_images_of_another_kind_are_refused(predictor, image):
    with pytest.raises(ModelError, match="uint8"):
        predictor.predict(image)


def test_the_same_image_gives_the_same_answer(predictor, soil):
    first, second = predictor.logits(soil), predictor.logits(soil)
    assert all((first[name] == second[name]).all() for name in first)
