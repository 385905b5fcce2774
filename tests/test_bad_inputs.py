"""Bad input at the front door: each a clear error with its exit code, or a counted flag."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from bad_world import POSES, RIG, write_dem, write_survey

from gossan.cli import main

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "models" / "zoo" / "surface-rgb"
Change = Callable[[Path], object]

REPLAY = (
    "onboard replay frames --rig rig.toml --poses poses.csv --dem dem.tif --dem-datum ellipsoid "
    "--model none --no-misfit --out flight --json"
)
ORTHO = (
    "onboard ortho frames --rig rig.toml --poses poses.csv --dem dem.tif --dem-datum ellipsoid "
    "--out orthos --json"
)
GEOTAG = (
    "onboard geotag points.csv --rig rig.toml --poses poses.csv --dem dem.tif "
    "--dem-datum ellipsoid --out out.csv --json"
)
PLACERS = [
    pytest.param(REPLAY, id="replay"),
    pytest.param(ORTHO, id="ortho"),
    pytest.param(GEOTAG, id="geotag"),
]


class Gossan:
    """The front door, called in the survey's folder; a traceback escapes and fails the test."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder = folder
        self._patch = monkeypatch
        self._capture = capsys

    def __call__(self, line: str) -> tuple[int, str, str]:
        """Returns exit code, stdout and stderr of a command line."""
        self._patch.chdir(self.folder)
        self._patch.setattr(sys, "argv", ["gossan", *line.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        said = self._capture.readouterr()
        assert "Traceback" not in said.err
        code = ended.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    def refuses(self, line: str, code: int, *parts: str) -> None:
        """Checks that a command ends with a code, and that its message holds these parts."""
        ended, out, err = self(line)
        assert (ended, out) == (code, ""), err
        if code != 2:
            assert err.count("error: ") == 1
            assert "what to do: " in err
        for part in parts:
            assert part in err


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Gossan:
    return Gossan(write_survey(tmp_path / "survey"), monkeypatch, capsys)


def without(line: str, *options: str) -> str:
    """Takes options and their values out of a command line."""
    words = line.split()
    for option in options:
        at = words.index(option)
        del words[at : at + 2]
    return " ".join(words)


def put(name: str, content: str | bytes) -> Change:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def drop(name: str) -> Change:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize("line", PLACERS)
def test_the_survey_itself_is_good(survey: Gossan, line: str) -> None:
    code, out, err = survey(line)
    assert code == 0, err
    assert json.loads(out)["placed"] in (2, 3)


GROUND: list[object] = [
    pytest.param(drop("dem.tif"), ("dem.tif", "--dem"), id="no such DEM"),
    pytest.param(
        lambda f: write_dem(f / "dem.tif", None), ("dem.tif", "CRS"), id="DEM without CRS"
    ),
    pytest.param(put("dem.tif", "hello"), ("dem.tif", "GeoTIFF"), id="DEM is no raster"),
]
RIGS: list[object] = [
    pytest.param(drop("rig.toml"), ("rig.toml",), id="no such rig"),
    pytest.param(put("rig.toml", "[camera\n"), ("line 1", "mend that line"), id="rig is no TOML"),
    pytest.param(
        put("rig.toml", RIG.replace("fx_px", "fx_pxl")),
        ("line 5", "'camera.fx_pxl'", "did you mean 'fx_px'?"),
        id="misspelt key",
    ),
    pytest.param(
        put("rig.toml", RIG + "zoom = 2\n"), ("'mount.zoom'", "known keys"), id="unknown key"
    ),
    pytest.param(
        put("rig.toml", RIG.replace("fx_px = 100.0", "fx_px = -100.0")),
        ("line 5", "-100.0"),
        id="negative focal length",
    ),
    pytest.param(
        put("rig.toml", RIG.replace("fx_px = 100.0", "fx_px = nan")),
        ("line 5", "nan"),
        id="focal length NaN",
    ),
]
TABLES: list[object] = [
    pytest.param(drop("poses.csv"), ("poses.csv",), id="no such table"),
    pytest.param(put("poses.csv", ""), ("poses.csv is empty",), id="empty"),
    pytest.param(put("poses.csv", POSES.splitlines()[0] + "\n"), ("row",), id="header only"),
    pytest.param(
        put("poses.csv", POSES.replace("f0", "é0").encode("latin-1")),
        ("poses.csv", "UTF-8"),
        id="Latin-1",
    ),
    pytest.param(put("poses.csv", POSES.encode("utf-16")), ("poses.csv", "UTF-8"), id="UTF-16"),
    pytest.param(
        put("poses.csv", POSES.replace("1550", "nan")),
        ("line 2", "alt_m_ellipsoid", "'nan'"),
        id="height NaN",
    ),
    pytest.param(
        put("poses.csv", POSES.replace("1550", "high")), ("line 2", "'high'"), id="height is a word"
    ),
    pytest.param(
        put("poses.csv", POSES.replace("37.53,", "137.53,")),
        ("line 2", "'137.53'", "-90 to 90"),
        id="latitude 137",
    ),
    pytest.param(
        put(
            "poses.csv",
            POSES.replace("roll_deg", "roll_deg,sigma_e_m").replace("-90,0", "-90,0,-1"),
        ),
        ("line 2", "sigma_e_m", "'-1'"),
        id="negative sigma",
    ),
    pytest.param(
        put("poses.csv", POSES.replace("f1.jpg", "f0.jpg")),
        ("line 3", "'f0.jpg'", "line 2"),
        id="frame named twice",
    ),
    pytest.param(
        put("poses.csv", POSES.replace("yaw_deg", "heading")),
        ("'yaw_deg'", "heading"),
        id="column missing",
    ),
    pytest.param(
        put(
            "poses.csv",
            POSES.replace("roll_deg\n", "roll_deg\n\n").replace(",1550,0,-90,0\nf1", ",1550\nf1"),
        ),
        ("line 3", "'yaw_deg'"),
        id="short row",
    ),
]


@pytest.mark.parametrize(("change", "parts"), GROUND + RIGS + TABLES)
@pytest.mark.parametrize("line", PLACERS)
def test_what_cannot_be_used_is_named(
    survey: Gossan, line: str, change: Change, parts: tuple[str, ...]
) -> None:
    change(survey.folder)
    survey.refuses(line, 1, *parts)
    assert not {"flight", "orthos", "out.csv"} & {p.name for p in survey.folder.iterdir()}


@pytest.mark.parametrize("line", PLACERS)
def test_a_dem_without_vertical_datum_asks_for_it(survey: Gossan, line: str) -> None:
    survey.refuses(without(line, "--dem-datum"), 1, "dem.tif", "heights", "--dem-datum ellipsoid")


@pytest.mark.parametrize("line", [REPLAY, ORTHO], ids=["replay", "ortho"])
@pytest.mark.parametrize(
    ("change", "parts"),
    [
        pytest.param(lambda _: None, ("frames", "--poses"), id="frames without poses"),
        pytest.param(
            put("frames/x.tlog", os.urandom(4000)), ("x.tlog", "4000 bytes"), id="log of noise"
        ),
    ],
)
def test_frames_without_poses_say_what_to_give(
    survey: Gossan, line: str, change: Change, parts: tuple[str, ...]
) -> None:
    change(survey.folder)
    code = 4 if "x.tlog" in parts else 1
    survey.refuses(without(line, "--poses"), code, *parts)


@pytest.mark.parametrize("line", PLACERS)
def test_a_dem_that_does_not_cover_the_flight_places_nothing(survey: Gossan, line: str) -> None:
    write_dem(survey.folder / "dem.tif", east_m=5000.0)
    code, out, err = survey(line)
    if line == ORTHO:
        assert code == 1
        assert "check that the DEM covers the flight" in err
        return
    answer = json.loads(out)
    assert (code, answer["placed"]) == (0, 0)
    if line == GEOTAG:
        assert answer["flags"] == {"outside_dem": 2}
    else:
        assert {(f["frame"], f["reason"]) for f in answer["flagged"]} == {
            (f"f{i}.jpg", "no_ground") for i in range(3)
        }


@pytest.mark.parametrize("line", [REPLAY, ORTHO], ids=["replay", "ortho"])
@pytest.mark.parametrize(
    "content", [b"\xff\xd8 no image", b"", b"text"], ids=["cut", "empty", "text"]
)
def test_an_unreadable_image_is_flagged_and_the_rest_goes_on(
    survey: Gossan, line: str, content: bytes
) -> None:
    (survey.folder / "frames" / "f1.jpg").write_bytes(content)
    code, out, err = survey(line)
    answer = json.loads(out)
    assert code == 0, err
    assert [(f["frame"], f["reason"]) for f in answer["flagged"]] == [("f1.jpg", "unreadable")]
    assert answer["flagged"][0]["remedy"]
    assert answer["placed" if line == REPLAY else "written"] == 2


def test_a_rig_of_another_image_size_is_named_for_each_frame(survey: Gossan) -> None:
    (survey.folder / "rig.toml").write_text(RIG.replace("width_px = 128", "width_px = 640"))
    survey.refuses(ORTHO, 1, "128 x 96 pixels", "640 x 96", "use the rig of this camera")
    code, out, _ = survey(REPLAY)
    answer = json.loads(out)
    assert (code, answer["placed"]) == (0, 0)
    assert {f["reason"] for f in answer["flagged"]} == {"size_differs"}
    assert "use the rig of this camera" in answer["flagged"][0]["remedy"]


def test_two_frames_of_one_stem_do_not_overwrite_each_other(survey: Gossan) -> None:
    frames = survey.folder / "frames"
    shutil.copy(frames / "f1.jpg", frames / "f1.jpeg")
    code, out, _ = survey(ORTHO)
    answer = json.loads(out)
    assert (code, answer["written"]) == (0, 3)
    assert [f["reason"] for f in answer["flagged"]] == ["name_taken"]


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(f"{REPLAY} --gsd", id="replay gsd"),
        pytest.param(f"{ORTHO} --gsd", id="ortho gsd"),
        pytest.param("onboard simulate --out s --height", id="simulate height"),
    ],
)
def test_numbers_that_are_none_are_usage_errors(survey: Gossan, line: str, value: str) -> None:
    survey.refuses(f"{line} {value}", 2, line.split()[-1], value)


@pytest.mark.parametrize("line", PLACERS)
@pytest.mark.parametrize("value", ["-1", "nan"])
def test_a_sigma_below_zero_is_a_usage_error(survey: Gossan, line: str, value: str) -> None:
    survey.refuses(f"{line} --dem-sigma {value}", 2, "--dem-sigma", value)


@pytest.mark.parametrize(
    ("line", "out"),
    [
        pytest.param(REPLAY, "flight", id="replay"),
        pytest.param(ORTHO, "orthos", id="ortho"),
        pytest.param(GEOTAG, "out.csv", id="geotag"),
    ],
)
def test_an_out_that_cannot_be_is_refused_and_left_alone(
    survey: Gossan, line: str, out: str
) -> None:
    mine = survey.folder / out
    if line == GEOTAG:
        mine.mkdir()
    else:
        mine.write_text("mine")
    survey.refuses(line, 1, out)
    assert mine.is_dir() if line == GEOTAG else mine.read_text() == "mine"
    (survey.folder / "file").write_text("")
    survey.refuses(line.replace(f"--out {out}", f"--out file/{out}"), 1, "file/", "give another")


@pytest.mark.parametrize(
    ("points", "parts"),
    [
        pytest.param("", ("points.csv is empty",), id="empty"),
        pytest.param("frame,x_px,y_px\nf0.jpg,nan,4\n", ("line 2", "x_px", "'nan'"), id="NaN"),
        pytest.param("frame,x_px,y_px\nf0.jpg,left,4\n", ("line 2", "'left'"), id="word"),
        pytest.param(
            "frame,x_px,y_px,sigma_px\nf0.jpg,1,4,-2\n", ("sigma_px", "'-2'"), id="negative sigma"
        ),
        pytest.param(
            "frame,x_px,y_px\né.jpg,1,4\n".encode("latin-1"), ("points.csv", "UTF-8"), id="Latin-1"
        ),
    ],
)
def test_points_that_cannot_be_read_are_named(
    survey: Gossan, points: str | bytes, parts: tuple[str, ...]
) -> None:
    put("points.csv", points)(survey.folder)
    survey.refuses(GEOTAG, 1, *parts)


def test_points_outside_the_image_or_of_no_frame_keep_their_rows(survey: Gossan) -> None:
    rows = "f0.jpg,-5,4000\nf0.jpg,63.5,47.5\nnobody.jpg,1,1\n"
    (survey.folder / "points.csv").write_text(f"frame,x_px,y_px\n{rows}")
    code, out, _ = survey(GEOTAG)
    answer = json.loads(out)
    assert (code, answer["points"], answer["placed"]) == (0, 3, 1)
    assert answer["flags"]["outside_image"] == 1
    assert answer["flags"]["no_pose"] == 1
    lines = (survey.folder / "out.csv").read_text().splitlines()
    assert lines[1].startswith("f0.jpg,-5,4000,,")
    assert lines[3] == "nobody.jpg,1,1,,,,,,,,no_pose"


def spoilt_model(folder: Path) -> None:
    shutil.copytree(ZOO, folder / "model")
    weights = folder / "model" / "model.onnx"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("models predict model frames/f0.jpg", id="predict"),
        pytest.param(REPLAY.replace("--model none", "--model model"), id="replay"),
    ],
)
def test_a_model_with_a_wrong_hash_is_refused_by_file(survey: Gossan, line: str) -> None:
    spoilt_model(survey.folder)
    survey.refuses(line, 4, "model/model.onnx: wrong hash", "copy the model again")
    assert not (survey.folder / "flight").exists()


@pytest.mark.parametrize(
    ("change", "line", "code", "parts"),
    [
        pytest.param(lambda _: None, "onboard inspect nowhere", 1, ("nowhere",), id="no source"),
        pytest.param(
            lambda _: None,
            "onboard inspect rig.toml",
            1,
            ("rig.toml", "known are"),
            id="no kind of source",
        ),
        pytest.param(
            lambda _: None, "models evaluate surface-rgb nowhere", 1, ("nowhere",), id="no dataset"
        ),
        pytest.param(
            lambda _: None, "models verify nobody", 1, ("'nobody'", "surface-rgb"), id="no model"
        ),
        pytest.param(
            put("p.toml", "bogus = 1\n"),
            "groundsync prior p.toml --out p",
            1,
            ("p.toml, line 1", "'bogus'"),
            id="prior's unknown key",
        ),
        pytest.param(
            lambda f: (f / "d").mkdir(),
            "groundsync fuse --data d",
            1,
            ("no complete, placed flight", "ingest"),
            id="nothing to fuse",
        ),
        pytest.param(
            lambda f: ((f / "d").mkdir(), (f / "d" / "project.db").write_bytes(b"x" * 2048)),
            "groundsync fuse --data d",
            4,
            ("project.db", "move it away"),
            id="catalogue damaged",
        ),
        pytest.param(
            lambda _: None,
            "groundsync ingest frames --data d",
            1,
            ("--rig",),
            id="photos without a rig",
        ),
        pytest.param(
            lambda _: None,
            "groundsync serve --data d --port 99999",
            2,
            ("--port",),
            id="no such port",
        ),
        pytest.param(
            put("o.toml", '[camera]\nsorce = "x"\n'),
            "onboard run --config o.toml",
            1,
            ("o.toml, line 2", "did you mean 'source'?"),
            id="daemon's misspelt key",
        ),
        pytest.param(
            lambda _: None,
            "calibration board frames/f0.jpg --pattern 9x6 --square 0.02 --out r.toml",
            1,
            ("9×6", "inner corners"),
            id="no board",
        ),
        pytest.param(
            put(
                "g.csv",
                "frame,x_px,y_px,lat_deg,lon_deg,alt_m_ellipsoid\nf0.jpg,1,2,37.53,-117.19,1500\n",
            ),
            "calibration resect g.csv --rig rig.toml --out p.csv",
            1,
            ("f0.jpg", "4 are needed"),
            id="too few control points",
        ),
        pytest.param(
            put("plan.geojson", "{"),
            f"{REPLAY} --plan plan.geojson",
            1,
            ("plan.geojson", "GeoJSON"),
            id="plan is no JSON",
        ),
        pytest.param(
            put("plan.geojson", '{"type": "Point", "coordinates": [1, 2]}'),
            f"{REPLAY} --plan plan.geojson",
            1,
            ("polygon",),
            id="plan without area",
        ),
        pytest.param(
            lambda _: None, "onboard simulate --out rig.toml", 1, ("rig.toml",), id="out is a file"
        ),
    ],
)
def test_the_other_commands_refuse_clearly(
    survey: Gossan, change: Change, line: str, code: int, parts: tuple[str, ...]
) -> None:
    change(survey.folder)
    survey.refuses(line, code, *parts)


@pytest.mark.parametrize("value", ["nan", "inf", "far"])
def test_an_occurrence_that_is_nowhere_is_named(survey: Gossan, value: str) -> None:
    (survey.folder / "o.csv").write_text(f"x_m,y_m\n482000,4150000\n{value},4150000\n")
    (survey.folder / "p.toml").write_text(
        '[area]\ncrs = "EPSG:32611"\ncell_m = 100.0\n'
        "bounds_m = [480000.0, 4148000.0, 484000.0, 4152000.0]\n"
        '[occurrences]\npath = "o.csv"\n'
        '[[layers]]\nname = "height"\npath = "dem.tif"\nkind = "continuous"\n'
    )
    survey.refuses("groundsync prior p.toml --out p", 1, "o.csv, line 3", "x_m", f"'{value}'")


def test_a_damaged_flight_is_refused_by_ingest(survey: Gossan) -> None:
    assert survey(REPLAY)[0] == 0
    database = survey.folder / "flight" / "flight.db"
    database.write_bytes(database.read_bytes()[: database.stat().st_size // 2])
    code, out, err = survey("groundsync ingest flight --data d --json")
    assert (code, out) == (4, "")
    assert "flight.db cannot be read" in err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A 20 MB disk with 40 kB left."""
    root = tmp_path / "disk"
    root.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(root)]).returncode:
        pytest.skip("this machine refuses to mount a tmpfs")
    (root / "ballast").write_bytes(bytes(20_440 * 1024))
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


@pytest.mark.root
@pytest.mark.parametrize(
    "line",
    [
        pytest.param(REPLAY.replace("--out flight", "--out DISK/flight"), id="replay"),
        pytest.param(ORTHO.replace("--out orthos", "--out DISK/orthos --gsd 0.02"), id="ortho"),
        pytest.param("onboard simulate --out DISK/sim --lines 1 --size 32", id="simulate"),
    ],
)
def test_a_full_disk_is_said_and_nothing_half_made_stays(
    survey: Gossan, small_disk: Path, line: str
) -> None:
    code, out, err = survey(line.replace("DISK", str(small_disk)))
    assert (code, out) == (3, "")
    assert "No space left" in err or "disk" in err
    assert "what to do: " in err
    left = [p for p in small_disk.rglob("*") if p.is_file() and p.name != "ballast"]
    assert "simulate" in line or not [p for p in left if p.name == "flight.toml"]
