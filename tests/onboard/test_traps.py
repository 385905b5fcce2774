"""Traps in real data: each is flagged for its own reason, clean frames are not, no batch stops.

The frames are real; each trap is laid into one of them as the world lays it: a tag changed, a file
cut, a photo scaled by a program that keeps the tags.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from onboard.cli.replay import replay
from onboard.inspect import inspect_source
from onboard.sources.open import open_source

Change = Callable[[Image.Image, Image.Exif], Image.Image]
Lay = Callable[[Path], None]

BLURRED = "DJI_20251001132715_0396_D_POOR_SHARPNESS.JPG"
CAPPED = "DJI_20251001213509_0003_D_LENS_CAP.JPG"
FULL_WIDTH_PX = 4000
PX_PER_INCH = FULL_WIDTH_PX / 6.4 * 25.4
"""Focal plane resolution of a sensor 6.4 mm wide at full size, as the 35-mm equivalent has it."""


def saved(path: Path, change: Change) -> None:
    """Saves a photo with changed tags, everything else as it was."""
    with Image.open(path) as image:
        exif, xmp = image.getexif(), image.info.get("xmp", b"")
        changed = change(image, exif)
        changed.save(path, "JPEG", exif=exif, xmp=xmp, quality=95)


def no_gps(image: Image.Image, exif: Image.Exif) -> Image.Image:
    for tag in (GPS.GPSLatitude, GPS.GPSLongitude, GPS.GPSAltitude):
        del exif.get_ifd(IFD.GPSInfo)[tag]
    return image


def zero_gps(image: Image.Image, exif: Image.Exif) -> Image.Image:
    exif.get_ifd(IFD.GPSInfo).update({GPS.GPSLatitude: (0, 0, 0), GPS.GPSLongitude: (0, 0, 0)})
    return image


def void_gps(image: Image.Image, exif: Image.Exif) -> Image.Image:
    exif.get_ifd(IFD.GPSInfo)[GPS.GPSStatus] = "V"
    return image


def oriented(image: Image.Image, exif: Image.Exif) -> Image.Image:
    exif[Base.Orientation] = 6
    return image


def says_its_focal_plane(image: Image.Image, exif: Image.Exif) -> Image.Image:
    exif.get_ifd(IFD.Exif).update(
        {Base.FocalPlaneXResolution: PX_PER_INCH, Base.FocalPlaneResolutionUnit: 2}
    )
    return image


def resized(image: Image.Image, exif: Image.Exif) -> Image.Image:
    says_its_focal_plane(image, exif)
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def repeat_fix_of(earlier: str) -> Lay:
    def lay(path: Path) -> None:
        with Image.open(path.with_name(earlier)) as image:
            fix = dict(image.getexif().get_ifd(IFD.GPSInfo))

        def change(image: Image.Image, exif: Image.Exif) -> Image.Image:
            exif.get_ifd(IFD.GPSInfo).update(fix)
            return image

        saved(path, change)

    return lay


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def by(change: Change) -> Lay:
    return lambda path: saved(path, change)


TRAPS: dict[str, tuple[Lay, str]] = {
    "DJI_0020.JPG": (repeat_fix_of("DJI_0019.JPG"), "repeated_fix"),
    "DJI_0021.JPG": (by(no_gps), "no_gps"),
    "DJI_0022.JPG": (by(zero_gps), "gps_void"),
    "DJI_0023.JPG": (by(void_gps), "gps_void"),
    "DJI_0031.JPG": (by(oriented), "exif_rotated"),
    "DJI_0032.JPG": (by(resized), "stale_focal"),
    "DJI_0033.JPG": (cut, "unreadable"),
}


@pytest.fixture(scope="module")
def brighton(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos, eight of them with a trap, and two that no eye would keep."""
    folder = tmp_path_factory.mktemp("brighton")
    imagery = shared_data / "imagery"
    for path in [*imagery.glob("brighton_beach/images/*.JPG"), *imagery.glob("bad_frames/*.JPG")]:
        shutil.copyfile(path, folder / path.name)
    for name, (lay, _) in TRAPS.items():
        lay(folder / name)
    saved(folder / "DJI_0030.JPG", says_its_focal_plane)  # whole, and still clean
    return folder


def test_each_trap_has_its_own_reason_and_no_clean_frame_any(brighton: Path) -> None:
    report = inspect_source(brighton)
    flagged = {(f.frame, f.reason) for f in report.flagged}
    assert flagged == {
        *((name, reason) for name, (_, reason) in TRAPS.items()),
        ("DJI_0026.JPG", "turned"),
        (BLURRED, "blurred"),
        (CAPPED, "dark"),
        *((name, "no_attitude") for name in (BLURRED, CAPPED)),  # they carry none
    }
    assert all(f.remedy for f in report.flagged)
    assert report.frames == 14


def test_no_trap_stops_the_batch(brighton: Path, shared_data: Path, tmp_path: Path) -> None:
    dsm = shared_data / "imagery/brighton_beach/dsm_0p25m.tif"
    rig = Path(__file__).parents[2] / "calibration/rigs/brighton_fc300s.toml"
    arguments = [brighton, "--rig", rig, "--dem", dsm, "--dem-datum", "same"]
    arguments += ["--model", "none", "--no-misfit", "--out", tmp_path / "f", "--json"]
    run = CliRunner().invoke(replay, [str(a) for a in arguments])
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    flagged = {(f["frame"], f["reason"]) for f in told["flagged"]}
    assert flagged >= {(name, reason) for name, (_, reason) in TRAPS.items()}
    assert told["frames"] == 14
    orthos = {path.stem for path in (tmp_path / "f" / "orthos").glob("*.tif")}
    assert {"DJI_0019", "DJI_0030", "DJI_0034", "DJI_0035"} <= orthos


def test_a_log_cut_short_places_what_it_covers(shared_data: Path, tmp_path: Path) -> None:
    """Frames after the cut are flagged; those before it lie where the whole log has them."""
    cmac = shared_data / "imagery/cuav_cmac_2018"
    (log,) = cmac.glob("*.tlog")
    for path in cmac.glob("*.jpg"):
        shutil.copyfile(path, tmp_path / path.name)
    whole = open_source(cmac).poses(None)
    data = log.read_bytes()
    (tmp_path / log.name).write_bytes(data[: len(data) * 3 // 10])  # among the frames
    source = open_source(tmp_path)
    poses = source.poses(None)
    lost = {f.frame for f in source.flagged if f.reason in ("no_telemetry", "extrapolated")}
    assert 0 < len(poses) < len(whole)
    assert set(whole.frame) - set(poses.frame) <= lost
    assert any("no message" in note for note in source.notes)
    kept = [whole.frame.index(name) for name in poses.frame if name not in lost]
    mine = [poses.frame.index(whole.frame[i]) for i in kept]
    np.testing.assert_allclose(poses.lat_deg[mine], whole.lat_deg[kept], atol=1e-7)


@pytest.mark.parametrize(
    ("name", "cut"), [("broken_incomplete", {19}), ("broken_incomplete2", {2, 5})]
)
def test_subtitles_cut_short_keep_their_whole_rows(
    shared_data: Path, name: str, cut: set[int]
) -> None:
    source = open_source(shared_data / "imagery/dji_srt" / f"{name}.SRT")
    assert len(list(source.frames())) > len(cut)
    assert {(f.frame, f.reason) for f in source.flagged} == {
        (f"{name}_{i:06d}", "cut_short") for i in cut
    }


@pytest.mark.parametrize("name", ["mavic_air2", "mavic_pro", "p4_rtk", "mavic_2_style"])
def test_whole_subtitles_are_not_cut(shared_data: Path, name: str) -> None:
    (path,) = (shared_data / "imagery/dji_srt").glob(f"{name}.*")
    assert "cut_short" not in {f.reason for f in open_source(path).flagged}
