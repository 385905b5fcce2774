"""Replay of real frames: placed, orthocorrected, flagged; twice is once; clear refusals."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from gossan.errors import GossanError, UserError
from onboard.cli.replay import replay as replay_command
from onboard.keep.flight import is_closed, read_header
from onboard.keep.read import FlightReader
from onboard.replay import ReplayOptions, replay
from onboard.survey_scene import Ground

ROOT = Path(__file__).resolve().parents[2]
RIGS = ROOT / "calibration" / "rigs"
CMAC = "imagery/cuav_cmac_2018"
BRIGHTON = "imagery/brighton_beach"


def with_offset(rig: Path, folder: Path, offset_s: float) -> Path:
    path = folder / f"offset_{offset_s}.toml"
    text = re.sub(r"(?m)^offset_s = .*$", f"offset_s = {offset_s}", rig.read_text())
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def cmac(shared_data, tmp_path_factory):
    """The twelve frames through the command line, with the model."""
    out = tmp_path_factory.mktemp("cmac") / "flight"
    rig = RIGS / "cuav_picam_v2.toml"
    arguments = [str(shared_data / CMAC), "--rig", str(rig), "--out", str(out), "--json"]
    done = CliRunner().invoke(replay_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out, json.loads(done.stdout)


@pytest.mark.real_data
def test_every_cmac_frame_is_placed_on_the_ground(cmac):
    out, payload = cmac
    assert (payload["frames"], payload["placed"], payload["scanned"]) == (12, 12, 12)
    assert payload["flagged"] == []
    with FlightReader(out) as flight:
        poses, prints = flight.poses(), flight.footprints()
        assert flight.header.source == "replay"
    assert np.abs(poses.lat_deg + 35.363).max() < 0.003
    areas = [cv2.contourArea(p.polygon_map_m.astype(np.float32) % 10_000) for p in prints]
    assert 2000 < min(areas) < max(areas) < 40_000
    assert is_closed(out)


@pytest.mark.real_data
def test_without_a_dem_it_says_so(cmac):
    _, payload = cmac
    assert any("plane at the take-off height" in note for note in payload["notes"])
    assert any(note.startswith("frame times: UTC stamp") for note in payload["notes"])


@pytest.mark.real_data
def test_orthos_are_cogs_that_overlap(cmac):
    out, _ = cmac
    orthos = sorted((out / "orthos").glob("*.tif"))
    assert len(orthos) == 12
    bounds = []
    for path in orthos:
        with rasterio.open(path) as raster:
            assert raster.crs.to_epsg() == 32755
            assert raster.profile["tiled"]
            assert raster.dataset_mask().any()
            assert (raster.read().max(axis=(1, 2)) > 0).all()
            bounds.append(raster.bounds)
    assert all(a.left < b.right and b.left < a.right for a, b in itertools.pairwise(bounds))


@pytest.mark.real_data
def test_the_camera_offset_halves_the_misfit(cmac, shared_data, tmp_path):
    _, payload = cmac
    late = replay(
        ReplayOptions(
            source=shared_data / CMAC,
            rig=with_offset(RIGS / "cuav_picam_v2.toml", tmp_path, -0.3),
            out=tmp_path / "flight",
            model="none",
            orthos=False,
        )
    )
    before, after = payload["misfit_m"], late.payload()["misfit_m"]
    assert payload["ties"] > 500
    assert 1.5 < before["median"] < 3.5
    assert after["median"] < 0.6 * before["median"]
    assert after["p90"] < 0.5 * before["p90"]


@pytest.fixture(scope="module")
def brighton(shared_data, tmp_path_factory):
    """Three frames of Brighton beach, the turned one among them, at 10 cm."""
    folder = tmp_path_factory.mktemp("brighton")
    images = folder / "images"
    images.mkdir()
    for name in ("DJI_0026.JPG", "DJI_0031.JPG", "DJI_0032.JPG"):
        source = shared_data / BRIGHTON / "images" / name
        if source.exists():
            shutil.copy(source, images)
    options = ReplayOptions(
        source=images,
        rig=RIGS / "brighton_fc300s.toml",
        out=folder / "flight",
        ground=Ground(shared_data / BRIGHTON / "dsm_0p25m.tif", "same"),
        model="none",
        gsd_m=0.1,
        misfit=False,
    )
    return options, replay(options)


@pytest.mark.real_data
def test_brighton_is_placed_in_the_unnamed_datum_it_shares_with_its_dsm(brighton):
    options, result = brighton
    assert result.placed == result.frames >= 2
    with FlightReader(options.out) as flight:
        assert flight.poses().height_datum == "same"
    assert {f.frame for f in result.flagged} == {"DJI_0026.JPG"}
    assert all(f.remedy for f in result.flagged)


@pytest.mark.real_data
def test_brighton_without_a_datum_is_refused(brighton, shared_data, tmp_path):
    options, _ = brighton
    ground = Ground(shared_data / BRIGHTON / "dsm_0p25m.tif")
    with pytest.raises(GossanError, match="heights are above") as caught:
        replay(ReplayOptions(options.source, options.rig, tmp_path / "x", ground=ground))
    assert "--alt-datum" in caught.value.hint or "--dem-datum" in caught.value.hint
    assert not (tmp_path / "x").exists()


@pytest.mark.real_data
def test_photos_without_a_dem_stand_above_their_take_off(brighton, tmp_path):
    options, _ = brighton
    result = replay(
        ReplayOptions(
            options.source, options.rig, tmp_path / "f", model="none", gsd_m=0.2, misfit=False
        )
    )
    assert result.placed == result.frames
    assert any("plane at the take-off height (0.0 m takeoff" in note for note in result.notes)


def write_frames(folder: Path, n: int = 3) -> Path:
    """A strip of synthetic frames with a pose table, on a plane."""
    folder.mkdir()
    rng = np.random.default_rng(3)
    rows = ["frame,lat_deg,lon_deg,alt_m_takeoff,yaw_deg,pitch_deg,roll_deg"]
    for i in range(n):
        image = rng.integers(80, 160, (96, 128, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"f{i}.jpg"), image)
        rows.append(f"f{i}.jpg,37.53,{-117.19 + i * 1e-4},50.0,0,-90,0")
    (folder / "poses.csv").write_text("\n".join(rows) + "\n")
    (folder / "rig.toml").write_text(
        '[camera]\nmodel="opencv"\nwidth_px=128\nheight_px=96\nfx_px=100\nfy_px=100\ncx_px=63.5\n'
        'cy_px=47.5\n[mount]\ntype="fixed"\nyaw_deg=0\npitch_deg=-90\nroll_deg=0\n'
    )
    return folder


def options_for(folder: Path, out: Path, **more) -> ReplayOptions:
    return ReplayOptions(
        folder, folder / "rig.toml", out, poses=folder / "poses.csv", model="none", misfit=False,
        **more,
    )  # fmt: skip


def rows_of(folder: Path) -> dict:
    with FlightReader(folder) as flight:
        records = flight.frames()
        return {
            "frames": [(r.frame.name, r.kept_sha256, r.dropped) for r in records],
            "prints": [r.footprint.polygon_map_m.tolist() for r in records],
            "poses": flight.poses().lat_deg.tolist(),
            "id": flight.header.flight_id,
        }


def test_twice_is_once(tmp_path):
    folder = write_frames(tmp_path / "source")
    out = tmp_path / "flight"
    replay(options_for(folder, out))
    first = rows_of(out)
    replay(options_for(folder, out))
    assert rows_of(out) == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flight", "source"]


def test_another_flight_or_folder_is_left_alone(tmp_path):
    folder = write_frames(tmp_path / "source")
    other = write_frames(tmp_path / "other", 2)
    out = tmp_path / "flight"
    replay(options_for(folder, out))
    with pytest.raises(UserError, match="already holds the flight"):
        replay(options_for(other, out))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "x.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        replay(options_for(folder, tmp_path / "notes"))
    with pytest.raises(UserError, match="source itself"):
        replay(options_for(folder, folder))
    assert read_header(out).flight_id.startswith("source-")


def test_a_flight_folder_replays_as_the_same_flight(tmp_path):
    folder = write_frames(tmp_path / "source")
    replay(options_for(folder, tmp_path / "one"))
    again = replay(
        ReplayOptions(
            tmp_path / "one", folder / "rig.toml", tmp_path / "two", poses=folder / "poses.csv",
            model="none", misfit=False,
        )
    )  # fmt: skip
    assert again.placed == 3
    assert rows_of(tmp_path / "two")["prints"] == rows_of(tmp_path / "one")["prints"]


def test_an_unreadable_frame_is_flagged_and_the_rest_goes_on(tmp_path):
    folder = write_frames(tmp_path / "source")
    (folder / "f1.jpg").write_bytes(b"\xff\xd8 not an image")
    result = replay(options_for(folder, tmp_path / "flight"))
    assert (result.frames, result.placed) == (3, 2)
    assert [(f.frame, f.reason) for f in result.flagged] == [("f1.jpg", "unreadable")]
    with FlightReader(tmp_path / "flight") as flight:
        dropped = {r.frame.name: r.dropped for r in flight.frames()}
    assert dropped["f1.jpg"]
    assert dropped["f0.jpg"] == ()


def test_a_frame_of_another_size_is_flagged_with_why(tmp_path):
    folder = write_frames(tmp_path / "source")
    cv2.imwrite(str(folder / "f2.jpg"), np.full((50, 50, 3), 120, np.uint8))
    result = replay(options_for(folder, tmp_path / "flight"))
    assert result.placed == 2
    assert [f.frame for f in result.flagged] == ["f2.jpg"]
    assert any("50 x 50" in note for note in result.notes)


def test_a_plan_gives_coverage_and_gaps(tmp_path):
    folder = write_frames(tmp_path / "source")
    plan = tmp_path / "plan.geojson"
    ring = [[-117.1902, 37.5299], [-117.188, 37.5299], [-117.188, 37.5301], [-117.1902, 37.5301]]
    plan.write_text(json.dumps({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}))
    result = replay(options_for(folder, tmp_path / "flight", plan=plan))
    assert 10 < result.coverage["percent"] < 60
    assert result.coverage["gaps"] >= 1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        pytest.param({"model": "no-such-model"}, "no-such-model", id="model"),
        pytest.param({"rig": Path("/nowhere/rig.toml")}, "rig.toml", id="rig"),
        pytest.param(
            {"ground": Ground(Path("/nowhere/dem.tif"), "ellipsoid")}, "dem.tif", id="dem"
        ),
        pytest.param({"source": Path("/nowhere")}, "nowhere", id="source"),
    ],
)
def test_what_cannot_be_used_is_refused_and_leaves_nothing(tmp_path, change, match):
    from dataclasses import replace

    folder = write_frames(tmp_path / "source")
    options = replace(options_for(folder, tmp_path / "flight"), **change)
    with pytest.raises(GossanError, match=match):
        replay(options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]
