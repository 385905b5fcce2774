"""Figures against hand-made cases, and one pass over a folder."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from models.dataset import open_dataset
from models.decode import Regions
from models.errors import ModelError
from models.evaluate import (
    Tally,
    average_precision,
    bootstrap,
    detection_figures,
    evaluate,
    head_for,
    iou_by_class,
    match_regions,
    miou,
    roc_auc,
)
from models.manifest import Head
from models.predict import Predictor

HEAD = Head(output="a", stride=4, classes=("none", "rust", "pale"), report=("rust", "pale"))


def regions(*boxes: tuple[str, int, int, int, int]) -> Regions:
    """Regions from (class, x0, y0, x1, y1)."""
    outlines = tuple(
        np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float) for _, x0, y0, x1, y1 in boxes
    )
    n = len(boxes)
    return Regions(
        class_name=tuple(b[0] for b in boxes),
        head=("a",) * n,
        probability=np.ones(n),
        calibrated=True,
        centroid_px=np.zeros((n, 2)),
        bbox_px=np.zeros((n, 4)),
        area_px=np.ones(n),
        polygon_px=outlines,
        ood=np.zeros(n, bool),
        touches_edge=np.zeros(n, bool),
    )


def test_miou_is_over_the_classes_that_occur():
    confusion = np.array([[6, 2, 0], [0, 0, 0], [1, 0, 9]])
    assert iou_by_class(confusion) == pytest.approx([6 / 9, 0, 0.9])
    assert miou(confusion) == pytest.approx((6 / 9 + 0.9) / 2)


def test_ranking_figures_by_hand():
    score = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
    truth = np.array([True, True, False, False, True])
    assert roc_auc(score, truth) == pytest.approx((2 + 1.5 + 0) / 6)
    assert average_precision(score, truth) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert np.isnan(roc_auc(score, np.ones(5, bool)))


def test_planted_things_are_found_by_a_region_of_their_class_only():
    truth = np.zeros((100, 100), np.uint8)
    truth[10:20, 10:20] = 1
    truth[50:60, 50:60] = 1
    truth[80:83, 80:83] = 1
    out = Tally(np.zeros((3, 3), np.int64))
    found = regions(("rust", 15, 15, 25, 25), ("pale", 52, 52, 55, 55), ("pale", 70, 10, 75, 15))
    match_regions(out, found, truth, HEAD, 0.1)
    figures = detection_figures([out], 0.1)
    assert figures["planted"] == 2, "nine pixels are below the smallest size"
    assert figures["found"] == 1
    assert figures["false_alarms"] == 1
    assert figures["by_class"]["pale"]["false_alarms"] == 1


def test_regions_on_ambiguous_pixels_are_no_false_alarm():
    truth = np.zeros((60, 60), np.uint8)
    truth[20:24, 20:24] = 255
    out = Tally(np.zeros((3, 3), np.int64))
    match_regions(out, regions(("rust", 26, 20, 30, 24)), truth, HEAD, 0.1)
    assert not out.false_alarms


def test_intervals_hold_the_figure_and_widen_with_fewer_places():
    values = np.random.default_rng(0).normal(0, 1, 60)
    many = bootstrap(lambda i: float(values[i].mean()), [str(k) for k in range(60)])
    few = bootstrap(lambda i: float(values[i].mean()), [str(k // 10) for k in range(60)])
    assert many[0] < values.mean() < many[1]
    spread = np.std([values[k * 10 : k * 10 + 10].mean() for k in range(6)]) / np.sqrt(6)
    assert few[1] - few[0] == pytest.approx(2 * 1.96 * spread, rel=0.25)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.open("surface-rgb", threads=1, provider="cpu")


def make_folder(tmp_path, toml: str = ""):
    for name in ("frames", "masks"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(0)
    for k in range(2):
        image = np.clip(rng.normal((150, 125, 100), 6, (128, 160, 3)), 1, 255).astype(np.uint8)
        mask = np.zeros((128, 160), np.uint8)
        image[40:70, 60:90] = (142, 62, 36)
        mask[40:70, 60:90] = 1
        cv2.imwrite(str(tmp_path / "frames" / f"p{k}_0.png"), image[..., ::-1])
        cv2.imwrite(str(tmp_path / "masks" / f"p{k}_0.png"), mask)
    (tmp_path / "dataset.toml").write_text(toml, encoding="utf-8")
    return open_dataset(tmp_path)


ANOMALY = 'classes = ["none", "iron_oxide", "bleached_quartz", "dark_disturbed"]\ngsd_m = 0.1\n'


def test_one_pass_over_a_folder(predictor, tmp_path):
    result = evaluate(predictor, make_folder(tmp_path, ANOMALY))
    assert result["head"] == "anomaly"
    assert result["n"] == 2
    assert result["planted"] == 2
    assert result["found"] == 2
    low, high = result["miou_ci"]
    assert low <= result["miou"] <= high
    assert 0.5 < result["iou_by_class"]["iron_oxide"] <= 1
    assert 0 <= result["ece"] < 0.2
    assert result["km2"] == pytest.approx(2 * 128 * 160 * 0.01 / 1e6)


def test_the_head_is_the_one_whose_classes_the_folder_has(predictor, tmp_path):
    data = make_folder(tmp_path, 'classes = ["sand", "gold"]\n')
    with pytest.raises(ModelError, match="no head of"):
        head_for(predictor.manifest, data, None)
    assert head_for(predictor.manifest, data, "surface") == "surface"
    with pytest.raises(ModelError, match="no head 'gold'"):
        head_for(predictor.manifest, data, "gold")


def test_chips_need_to_know_what_label_one_is(predictor, tmp_path):
    sheet = np.full((48, 96, 3), 120, np.uint8)
    sheet[:, :48] = (142, 62, 36)
    cv2.imwrite(str(tmp_path / "s.png"), sheet[..., ::-1])
    rows = "sheet,row,col,label\ns.png,0,0,1\ns.png,0,1,0\n"
    (tmp_path / "index.csv").write_text(rows, encoding="utf-8")
    data = open_dataset(tmp_path)
    with pytest.raises(ModelError, match="label 1 stands for"):
        evaluate(predictor, data, head="anomaly")
    result = evaluate(predictor, data, head="anomaly", positive="iron_oxide")
    assert result["auc"] == 1
    assert result["n"] == 2
