"""Real recordings through the real commands, as a user gives them; what other tests leave out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

pytestmark = pytest.mark.real_data
RIGS = Path(__file__).resolve().parents[1] / "calibration" / "rigs"
FLAGGED = {"frame", "reason", "remedy"}


def gossan(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs the command line and checks its exit code."""
    command = [sys.executable, "-m", "gossan", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def answer(*arguments: object) -> dict[str, Any]:
    """Returns the JSON object of a command."""
    found: dict[str, Any] = json.loads(gossan(*arguments, "--json").stdout)
    return found


@pytest.mark.slow
def test_all_of_brighton_is_placed_and_only_the_turned_frame_is_flagged(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "imagery" / "brighton_beach"
    out = answer(
        "onboard", "replay", folder / "images", "--rig", RIGS / "brighton_fc300s.toml",
        "--dem", folder / "dsm_0p25m.tif", "--dem-datum", "same", "--model", "none",
        "--no-orthos", "--gsd", "0.2", "--out", tmp_path / "flight",
    )  # fmt: skip
    assert {"frames", "placed", "notes", "flagged", "detections", "alerts", "misfit_m", "ties"} <= (
        set(out)
    )
    assert (out["frames"], out["placed"]) == (12, 12)
    assert {item["frame"] for item in out["flagged"]} == {"DJI_0026.JPG"}
    assert all(set(item) == FLAGGED and item["remedy"] for item in out["flagged"])
    assert out["ties"] > 300
    assert 0.2 < out["misfit_m"]["median"] < 1.5 < out["misfit_m"]["p90"]
    again = answer("onboard", "inspect", tmp_path / "flight")
    assert (again["frames"], again["placed"]) == (12, 12), "the flight folder is a source, too"


@pytest.mark.slow
def test_cmac_offset_by_a_rig_of_ones_own_shows_in_the_misfit(
    shared_data: Path, tmp_path: Path
) -> None:
    text = (RIGS / "cuav_picam_v2.toml").read_text()
    assert "offset_s = 0.0" in text
    (tmp_path / "late.toml").write_text(text.replace("offset_s = 0.0", "offset_s = -0.3"))
    found = {}
    for name, rig in (("as it is", RIGS / "cuav_picam_v2.toml"), ("late", tmp_path / "late.toml")):
        found[name] = answer(
            "onboard", "replay", shared_data / "imagery" / "cuav_cmac_2018", "--rig", rig,
            "--model", "none", "--no-orthos", "--out", tmp_path / name,
        )  # fmt: skip
        assert (found[name]["frames"], found[name]["placed"]) == (12, 12)
    before, after = (found[name]["misfit_m"]["median"] for name in ("as it is", "late"))
    assert found["as it is"]["ties"] == found["late"]["ties"] > 1000, "the poses choose no ties"
    assert 1.5 < before < 3.0
    assert 0.4 < after < 1.3


def test_an_odm_reconstruction_gives_orthos_that_overlay(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "imagery" / "orthority_odm_tuniu"
    refused = gossan(
        "onboard", "ortho", folder, "--rig", RIGS / "tuniu_fc6310r.toml",
        "--dem", folder / "odm_dem" / "dsm.tif", "--out", tmp_path / "x", "--json", code=1,
    )  # fmt: skip
    assert "--alt-datum" in refused.stderr
    out = answer(
        "onboard", "ortho", folder, "--rig", RIGS / "tuniu_fc6310r.toml",
        "--dem", folder / "odm_dem" / "dsm.tif", "--dem-datum", "same",
        "--gsd", "0.25", "--out", tmp_path / "o",
    )  # fmt: skip
    assert (out["frames"], out["placed"], out["written"]) == (4, 4, 4)
    assert out["flagged"] == []
    assert "poses from reconstruction.json" in out["notes"]
    one, two, both = overlap(
        tmp_path / "o" / "100_0005_0140.tif", tmp_path / "o" / "100_0005_0142.tif"
    )
    assert both.sum() > 50_000
    aligned = likeness(one, two, both)
    assert aligned > 0.7
    for dy, dx in ((0, 8), (8, 0), (0, -8), (-8, 0)):
        assert likeness(one, np.roll(two, (dy, dx), (0, 1)), both) < aligned - 0.05, "2 m off"


def overlap(a: Path, b: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the green bands of two orthos where both lie, and where both saw."""
    with rasterio.open(a) as one, rasterio.open(b) as two:
        left, top = max(one.bounds.left, two.bounds.left), min(one.bounds.top, two.bounds.top)
        right = min(one.bounds.right, two.bounds.right)
        bottom = max(one.bounds.bottom, two.bounds.bottom)
        windows = [r.window(left, bottom, right, top) for r in (one, two)]
        bands = [
            r.read(2, window=w).astype(float) for r, w in zip((one, two), windows, strict=True)
        ]
        seen = [r.dataset_mask(window=w) > 0 for r, w in zip((one, two), windows, strict=True)]
    return bands[0], bands[1], seen[0] & seen[1]


def likeness(one: np.ndarray, two: np.ndarray, where: np.ndarray) -> float:
    return float(np.corrcoef(one[where], two[where])[0, 1])


@pytest.mark.parametrize(
    ("name", "frames", "placed"),
    [
        ("brighton_beach", 12, 12),
        ("cuav_cmac_2018", 12, 12),
        ("orthority_odm_tuniu", 4, 4),
        ("bad_frames", 2, 0),
        ("finse_oblique", 1, 0),
        ("picam_v2_calib", 10, 0),
        ("gopro_karma_video", 13, 13),
    ],
)
def test_inspect_says_what_is_there(shared_data: Path, name: str, frames: int, placed: int) -> None:
    out = answer("onboard", "inspect", shared_data / "imagery" / name)
    assert {"frames", "placed", "notes", "flagged"} <= set(out)
    assert (out["frames"], out["placed"]) == (frames, placed)
    assert all(set(item) == FLAGGED and item["remedy"] for item in out["flagged"])
    assert len({item["frame"] for item in out["flagged"]}) >= frames - placed, "each says why"


@pytest.mark.parametrize(("name", "code"), [("dji_srt", 1), ("misb_klv", 1)])
def test_inspect_says_what_it_cannot_read(shared_data: Path, name: str, code: int) -> None:
    done = gossan("onboard", "inspect", shared_data / "imagery" / name, code=code)
    assert name in done.stderr
    assert "what to do: " in done.stderr
