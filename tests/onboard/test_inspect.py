"""``inspect``: bad frames never stop it, turned frames are found by their neighbours."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from PIL.ExifTags import Base

from gossan.errors import UserError
from onboard.cli.inspect import inspect
from onboard.inspect import inspect_source
from onboard.sources.source import FLAG_CODES

DJI = 'xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/"'
RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
GSD_M = 0.1
SIZE = (480, 360)


def ground() -> np.ndarray:
    """A texture with detail at all sizes."""
    rng = np.random.default_rng(6)
    out = np.zeros((1500, 2200), np.float32)
    for size in (4, 8, 16, 40, 120):
        coarse = rng.normal(size=(1500 // size + 2, 2200 // size + 2)).astype(np.float32)
        out += cv2.resize(coarse, (2200, 1500), interpolation=cv2.INTER_CUBIC)
    fine = rng.normal(size=out.shape).astype(np.float32) * 0.3
    scaled = (out + fine - out.min()) / (out.max() - out.min()) * 200 + 20
    return np.repeat(np.clip(scaled, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def take(
    path: Path,
    world: np.ndarray,
    x_px: float,
    y_px: float,
    yaw_deg: float,
    turned: int = 0,
    said_yaw_deg: float | None = None,
    software: str = "v01",
) -> None:
    """A nadir photo of the world (north up), its top to ``yaw_deg``; then turned by quarters."""
    c, s = np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg))
    w, h = SIZE
    centre = np.array([w / 2 - 0.5, h / 2 - 0.5])
    turn = np.array([[c, -s], [s, c]])
    shift = np.array([x_px, y_px]) - turn @ centre
    m = np.hstack([turn, shift[:, None]])
    image = cv2.warpAffine(world, m, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    image = np.ascontiguousarray(np.rot90(image, -turned))
    lat = 46.8 - y_px * GSD_M / 111_170.0
    lon = -92.0 + x_px * GSD_M / 76_240.0
    said = yaw_deg if said_yaw_deg is None else said_yaw_deg
    xmp = (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {RDF}><rdf:Description {DJI} '
        f'drone-dji:GpsLatitude="{lat:.9f}" drone-dji:GpsLongitude="{lon:.9f}" '
        f'drone-dji:AbsoluteAltitude="200" drone-dji:GimbalYawDegree="{said:.1f}" '
        'drone-dji:GimbalPitchDegree="-90" drone-dji:GimbalRollDegree="0"/></rdf:RDF></x:xmpmeta>'
    )
    exif = Image.Exif()
    exif[Base.Software] = software
    Image.fromarray(image).save(path, xmp=xmp.encode(), exif=exif, quality=92)


def found(folder: Path) -> set[tuple[str, str]]:
    report = inspect_source(folder, alt_datum="same")
    return {(f.frame, f.reason) for f in report.flagged}


@pytest.fixture(scope="module")
def world() -> np.ndarray:
    return ground()


def lines(folder: Path, world: np.ndarray, turned: dict[int, int], **kwargs: object) -> None:
    """Two opposite lines of overlapping photos."""
    for i in range(8):
        x, y, yaw = (400 + 150 * i, 500, 90.0) if i < 4 else (400 + 150 * (7 - i), 680, 270.0)
        take(folder / f"p{i}.jpg", world, x, y, yaw + 3 * (i % 3), turned.get(i, 0), **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_frames_are_found_and_clean_ones_are_not(
    tmp_path: Path, world: np.ndarray, quarters: int
) -> None:
    lines(tmp_path, world, {2: quarters, 6: 2})
    assert found(tmp_path) == {("p2.jpg", "turned"), ("p6.jpg", "turned")}


def test_oblique_frames_take_part(tmp_path: Path, world: np.ndarray) -> None:
    """Frames that look to one side along a line: one turned against its neighbours."""
    lines(tmp_path, world, {1: 2})
    for path in tmp_path.iterdir():
        data = path.read_bytes().replace(b'GimbalPitchDegree="-90"', b'GimbalPitchDegree="-50"')
        path.write_bytes(data)
    assert found(tmp_path) == {("p1.jpg", "turned")}


def test_a_clean_set_stays_clean_even_if_saved_again(tmp_path: Path, world: np.ndarray) -> None:
    lines(tmp_path, world, {}, software="IrfanView 4.5")
    report = inspect_source(tmp_path, alt_datum="same")
    assert report.flagged == []
    assert any("confirmed by neighbours" in note for note in report.notes)


def test_of_two_alone_the_saved_one_is_to_blame(tmp_path: Path, world: np.ndarray) -> None:
    take(tmp_path / "a.jpg", world, 500, 500, 90.0)
    take(tmp_path / "b.jpg", world, 600, 520, 92.0, turned=2)
    assert found(tmp_path) == {("a.jpg", "yaw_contradicts"), ("b.jpg", "yaw_contradicts")}
    take(tmp_path / "b.jpg", world, 600, 520, 92.0, turned=2, software="Windows Photo Viewer")
    assert found(tmp_path) == {("b.jpg", "turned")}


def test_no_bad_frame_stops_the_rest(tmp_path: Path, world: np.ndarray) -> None:
    lines(tmp_path, world, {})
    whole = (tmp_path / "p1.jpg").read_bytes()
    (tmp_path / "p1.jpg").write_bytes(whole[: len(whole) // 3])
    (tmp_path / "p8.jpg").write_bytes(b"")
    (tmp_path / "p9.jpg").write_bytes(b"\xff\xd8" + bytes(1000))
    image = cv2.GaussianBlur(cv2.imread(str(tmp_path / "p0.jpg")), (0, 0), 4)
    cv2.imwrite(str(tmp_path / "q_blurred.jpg"), image)
    smear = cv2.blur(cv2.imread(str(tmp_path / "p0.jpg")), (25, 1))
    cv2.imwrite(str(tmp_path / "q_smeared.jpg"), smear)
    cv2.imwrite(str(tmp_path / "q_dark.png"), image // 40)
    flags = found(tmp_path)
    reasons: dict[str, set[str]] = {}
    for frame, reason in flags:
        reasons.setdefault(frame, set()).add(reason)
    assert "unreadable" in reasons["p1.jpg"]
    assert "unreadable" in reasons["p8.jpg"]
    assert "unreadable" in reasons["p9.jpg"]
    assert "blurred" in reasons["q_blurred.jpg"]
    assert "blurred" in reasons["q_smeared.jpg"]
    assert "dark" in reasons["q_dark.png"]
    assert not {"p0.jpg", "p2.jpg", "p3.jpg", "p4.jpg", "p5.jpg", "p6.jpg", "p7.jpg"} & set(reasons)


def test_json_for_machines(tmp_path: Path, world: np.ndarray) -> None:
    lines(tmp_path, world, {3: 2})
    run = CliRunner().invoke(inspect, [str(tmp_path), "--json"])
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    assert (told["frames"], told["placed"]) == (8, 8)
    assert [f["reason"] for f in told["flagged"]] == ["turned"]
    assert set(told["flagged"][0]) == {"frame", "reason", "remedy"}
    assert told["where"]["height_datum"] == "unknown"
    west, south, east, north = told["where"]["bbox"]
    assert west < east
    assert south < north
    assert any("--alt-datum" in note for note in told["notes"])
    human = CliRunner().invoke(inspect, [str(tmp_path), "--quick"])
    assert "8 frames, 8 placed" in human.stdout


def test_nothing_there() -> None:
    with pytest.raises(UserError):
        inspect_source(Path("/nowhere/at/all"))


@pytest.mark.parametrize("code", FLAG_CODES)
def test_every_code_is_documented(code: str) -> None:
    page = Path(__file__).parents[2] / "docs/sources.md"
    assert f"`{code}`" in page.read_text(encoding="utf-8")
    assert FLAG_CODES[code].remedy


def test_brighton_only_the_turned_frame(shared_data: Path) -> None:
    report = inspect_source(shared_data / "imagery/brighton_beach/images")
    assert (report.frames, report.placed) == (12, 12)
    assert [(f.frame, f.reason) for f in report.flagged] == [("DJI_0026.JPG", "turned")]


def test_brighton_without_the_viewers_trace(shared_data: Path, tmp_path: Path) -> None:
    """The picture alone gives it away: nothing in the tags says who turned it."""
    for path in sorted((shared_data / "imagery/brighton_beach/images").iterdir()):
        data = path.read_bytes().replace(
            b"Microsoft Windows Photo Viewer", b"v01.23.4920".ljust(30)
        )
        (tmp_path / path.name).write_bytes(data)
    assert found(tmp_path) == {("DJI_0026.JPG", "turned")}


def test_bad_frames(shared_data: Path) -> None:
    flags = found(shared_data / "imagery/bad_frames")
    assert ("DJI_20251001132715_0396_D_POOR_SHARPNESS.JPG", "blurred") in flags
    assert ("DJI_20251001213509_0003_D_LENS_CAP.JPG", "dark") in flags


@pytest.mark.parametrize("where", ["imagery/cuav_cmac_2018", "imagery/orthority_odm_tuniu/images"])
def test_real_clean_sets_are_clean(shared_data: Path, where: str) -> None:
    report = inspect_source(shared_data / where)
    assert report.placed == report.frames > 0
    assert report.flagged == []


def test_other_kinds_of_frames_are_not_blurred(shared_data: Path, tmp_path: Path) -> None:
    for path in sorted((shared_data / "training/coast_water/frames").iterdir())[:30]:
        (tmp_path / path.name).symlink_to(path)
    assert {r for _, r in found(tmp_path)} <= {"no_gps", "no_attitude", "resaved"}
