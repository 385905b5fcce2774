"""Dataset folders: read as they are, split by place, refused where they contradict themselves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.dataset import DatasetSettings, open_dataset, place_of
from models.errors import DatasetError, FormatNotBuilt


def write_frame(folder: Path, stem: str, mask: np.ndarray, tail: str = "") -> None:
    for name in ("frames", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    image = np.zeros((*mask.shape[:2], 3), np.uint8)
    image[..., 2] = 200
    cv2.imwrite(str(folder / "frames" / f"{stem}.png"), image)
    cv2.imwrite(str(folder / "masks" / f"{stem}{tail}.png"), mask)


@pytest.mark.parametrize("tail", ["", "_mask"])
def test_frames_and_masks_are_paired_and_read_as_rgb(tmp_path, tail):
    mask = np.full((20, 30), 2, np.uint8)
    mask[0, 0] = 255
    write_frame(tmp_path, "2020-0209-a", mask, tail)
    (sample,) = open_dataset(tmp_path).samples
    assert (sample.pixels()[0, 0] == [200, 0, 0]).all()
    assert (sample.indices(3, (20, 30)) == mask).all()
    assert sample.place == "20200209"


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.full((20, 31), 1, np.uint8), "31×20 px, its image 30×20"),
        (np.full((20, 30), 7, np.uint8), "class 7; known are 0 to 2"),
        (np.zeros((20, 30, 3), np.uint8), "one-band"),
    ],
    ids=["size", "unknown class", "colours"],
)
def test_masks_that_do_not_fit_are_refused(tmp_path, mask, message):
    write_frame(tmp_path, "a", mask)
    sample = open_dataset(tmp_path).samples[0]
    with pytest.raises(DatasetError, match=message):
        sample.indices(3, (20, 30))


def test_a_frame_without_a_mask_is_named(tmp_path):
    write_frame(tmp_path, "a", np.zeros((4, 4), np.uint8))
    (tmp_path / "masks" / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"a\.png has no mask"):
        open_dataset(tmp_path)


def test_an_unreadable_frame_is_named(tmp_path):
    write_frame(tmp_path, "a", np.zeros((4, 4), np.uint8))
    (tmp_path / "frames" / "a.png").write_bytes(b"not an image")
    with pytest.raises(DatasetError, match=r"a\.png"):
        open_dataset(tmp_path).samples[0].pixels()


@pytest.mark.parametrize(
    ("stem", "settings", "place"),
    [
        ("2018-10-06_14.33.51-DSC06379", {}, "20181006"),
        ("2018-1006-135601-DSC04277", {}, "20181006"),
        ("2014_0905_133718d", {}, "20140905"),
        ("hill_0007", {}, "hill"),
        ("w17_003", {"place_pattern": r"^(w\d+)_"}, "w17"),
        ("x9", {"places": {"x9": "quarry"}}, "quarry"),
        ("x9", {"place": "everywhere"}, "everywhere"),
    ],
)
def test_the_place_of_a_name(stem, settings, place):
    assert place_of(stem, DatasetSettings(**settings)) == place


def test_splits_never_cut_a_place(tmp_path):
    for stem in ("a_1", "a_2", "b_1", "c_1"):
        write_frame(tmp_path, stem, np.zeros((4, 4), np.uint8))
    data = open_dataset(tmp_path)
    kept, held = data.elsewhere({"a"}), data.at({"a"})
    assert {s.place for s in kept} == {"b", "c"}
    assert [s.name for s in held] == ["a_1", "a_2"]
    with pytest.raises(DatasetError, match="no place 'd'"):
        data.at({"d"})


def test_other_layouts_are_refused_with_a_way_out(tmp_path):
    (tmp_path / "annotations.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FormatNotBuilt, match="COCO or YOLO") as caught:
        open_dataset(tmp_path)
    assert caught.value.exit_code == 5
    with pytest.raises(DatasetError, match="no dataset folder"):
        open_dataset(tmp_path / "nowhere")
    (tmp_path / "annotations.json").unlink()
    with pytest.raises(DatasetError, match="neither frames/ nor"):
        open_dataset(tmp_path)


def test_chips_are_cut_from_their_sheet(tmp_path):
    sheet = np.zeros((96, 144, 3), np.uint8)
    sheet[48:, 96:] = (1, 2, 3)
    cv2.imwrite(str(tmp_path / "s.png"), sheet[..., ::-1])
    rows = "sheet,row,col,label,kind,part\ns.png,1,2,1,mine,train\ns.png,5,0,0,none,val\n"
    (tmp_path / "index.csv").write_text(rows, encoding="utf-8")
    data = open_dataset(tmp_path)
    assert data.kind == "chips"
    assert (data.samples[0].pixels() == [1, 2, 3]).all()
    assert data.samples[0].label == 1
    assert data.samples[1].part == "val"
    with pytest.raises(DatasetError, match="row 5"):
        data.samples[1].pixels()


@pytest.mark.real_data
def test_the_real_folders_read(shared_data):
    coast = open_dataset(shared_data / "training" / "coast_water")
    assert len(coast.samples) == 106
    assert len(coast.places) == 9
    sample = coast.samples[0]
    image = sample.pixels()
    assert set(np.unique(sample.indices(3, image.shape[:2]))) <= {0, 1, 2}
    chips = open_dataset(shared_data / "training" / "mining_chips")
    assert len(chips.samples) == 11691
    assert chips.samples[0].pixels().shape == (48, 48, 3)
