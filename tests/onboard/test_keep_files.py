"""Kept files: pixels untouched, pose in EXIF and XMP, whole or absent, safe names."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD

from calibration.geodesy import geoid_m
from calibration.rotations import r_from_ypr, r_ned_cam_from_ypr
from onboard.keep.errors import DiskFullError, FlightNameError
from onboard.keep.exif import splice_pose
from onboard.keep.files import keep_chip, keep_frame, safe_name, safe_relative, write_durably
from onboard.records import HeightDatum, Poses

NADIR = (40.0, -90.0, 0.0)


def pose(
    ypr_deg: tuple[float, float, float] = NADIR,
    lat: float = -33.512345678,
    lon: float = 138.25,
    alt: float = 412.5,
    datum: HeightDatum = "ellipsoid",
) -> Poses:
    yaw, pitch, roll = (np.radians([angle]) for angle in ypr_deg)
    return Poses(
        frame=("a.jpg",),
        lat_deg=np.array([lat]),
        lon_deg=np.array([lon]),
        alt_m=np.array([alt]),
        height_datum=datum,
        r_ned_cam=r_ned_cam_from_ypr(yaw, pitch, roll),
        r_ned_body=np.full((1, 3, 3), np.nan),
        v_ned_mps=np.full((1, 3), np.nan),
        omega_ned_rps=np.full((1, 3), np.nan),
        sigma_enu_m=np.array([[3.0, 4.0, 1.5]]),
        sigma_tilt_rad=np.radians([2.0]),
        sigma_heading_rad=np.radians([3.0]),
        bias_enu_m=np.zeros((1, 3)),
        bias_heading_rad=np.radians([4.0]),
        t_boot_s=np.array([1.0]),
        flags=((),),
    )


def encoded(kind: str) -> bytes:
    rng = np.random.default_rng(5)
    ok, content = cv2.imencode(kind, rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
    assert ok
    return bytes(content)


def xmp_of(content: bytes) -> dict[str, float]:
    found = re.findall(rb"<Camera:(\w+)>([-0-9.]+)<", content)
    return {name.decode(): float(value) for name, value in found}


@pytest.mark.parametrize("kind", [".jpg", ".png"])
@pytest.mark.parametrize(
    ("lat", "lon"), [(-33.512345678, 138.25), (51.0, -0.000001), (0.0, 179.999999)]
)
def test_position_reads_back_in_pillow_and_pixels_are_the_same(
    kind: str, lat: float, lon: float
) -> None:
    plain = encoded(kind)
    spliced = splice_pose(plain, pose(lat=lat, lon=lon), 1_700_000_000.25)
    with Image.open(io.BytesIO(spliced)) as image, Image.open(io.BytesIO(plain)) as before:
        assert np.array_equal(np.asarray(image), np.asarray(before))
        exif = image.getexif()
    gps = exif.get_ifd(IFD.GPSInfo)

    def degrees(tag: GPS, ref: GPS) -> float:
        d, m, s = (float(v) for v in gps[tag])
        return (d + m / 60 + s / 3600) * (-1 if gps[ref] in "SW" else 1)

    assert degrees(GPS.GPSLatitude, GPS.GPSLatitudeRef) == pytest.approx(lat, abs=2e-10)
    assert degrees(GPS.GPSLongitude, GPS.GPSLongitudeRef) == pytest.approx(lon, abs=2e-10)
    above_sea = 412.5 - float(geoid_m(lat, lon))
    assert float(gps[GPS.GPSAltitude]) == pytest.approx(above_sea, abs=1e-3)
    assert exif.get_ifd(IFD.Exif)[0x9003] == "2023:11:14 22:13:20"
    assert exif.get_ifd(IFD.Exif)[0x9291] == "250"


@pytest.mark.parametrize(
    ("ypr", "pix4d"),
    [
        pytest.param((40.0, -90.0, 0.0), (40.0, 0.0, 0.0), id="nadir"),
        pytest.param((120.0, -60.0, 0.0), (120.0, 30.0, 0.0), id="oblique"),
        pytest.param((120.0, -60.0, 5.0), None, id="oblique and rolled"),
        pytest.param((300.0, -90.0, 4.0), (304.0, 0.0, 0.0), id="rolled at nadir is a turn"),
        pytest.param((10.0, -5.0, -3.0), None, id="nearly level"),
    ],
)
def test_pix4d_angles(
    ypr: tuple[float, float, float], pix4d: tuple[float, float, float] | None
) -> None:
    placed = pose(ypr)
    found = xmp_of(splice_pose(encoded(".jpg"), placed))
    angles = [found[name] for name in ("Yaw", "Pitch", "Roll")]
    if pix4d:
        assert angles == pytest.approx(pix4d, abs=1e-5)
    down = r_ned_cam_from_ypr(0.0, np.radians(-90.0), 0.0)
    assert r_from_ypr(*np.radians(angles)) @ down == pytest.approx(placed.r_ned_cam[0], abs=1e-7)
    assert found["GPSXYAccuracy"] == pytest.approx(np.sqrt(12.5), abs=1e-5)
    assert found["GPSZAccuracy"] == pytest.approx(1.5)
    assert found["IMUYawAccuracy"] == pytest.approx(5.0, abs=1e-5)
    assert found["IMUPitchAccuracy"] == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("kind", [".jpg", ".png"])
def test_splicing_only_adds_bytes_in_one_place(kind: str) -> None:
    plain = encoded(kind)
    spliced = splice_pose(plain, pose())
    added = len(spliced) - len(plain)
    start = next(i for i, (a, b) in enumerate(zip(plain, spliced, strict=False)) if a != b)
    for at in range(start, -1, -1):
        if spliced[:at] + spliced[at + added :] == plain:
            return
    raise AssertionError("other bytes were changed")


def test_own_metadata_of_an_original_stays() -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=exif)
    spliced = splice_pose(stream.getvalue(), pose())
    assert spliced.count(b"Exif\x00\x00") == 1
    with Image.open(io.BytesIO(spliced)) as image:
        assert image.getexif()[0x010F] == "Maker"
    assert xmp_of(spliced)["Pitch"] == pytest.approx(0.0, abs=1e-5)
    assert splice_pose(spliced, pose((0.0, -45.0, 0.0))) == spliced


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xd8", b"\xff\xd8\xff\xe1\x00", b"II*\x00 a TIFF", b"\x89PNG\r\n\x1a\n"],
    ids=["empty", "marker", "cut", "tiff", "png head"],
)
def test_damaged_and_other_files_pass_through(content: bytes) -> None:
    assert splice_pose(content, pose()).startswith(content)


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_it_without_a_warning(tmp_path: Path) -> None:
    keep_frame(tmp_path, "a.jpg", encoded(".jpg"), pose((120.0, -60.0, 0.0)), 1_700_000_000.25)
    path = str(tmp_path / "frames/a.jpg")
    tags = ["-XMP-Camera:Pitch", "-GPSLatitude", "-GPSDateTime", "-validate", "-warning"]
    command = ["exiftool", "-json", "-n", "-a", *tags, path]
    (said,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert said["Pitch"] == pytest.approx(30.0)
    assert said["GPSLatitude"] == pytest.approx(-33.512345678, abs=1e-9)
    assert said["GPSDateTime"] == "2023:11:14 22:13:20.25Z"
    assert all("ExifImage" in text for text in _listed(said.get("Warning", [])))


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@pytest.mark.real_data
def test_a_real_frame_gets_a_pose(shared_data: Path, tmp_path: Path) -> None:
    source = next((shared_data / "imagery" / "cuav_cmac_2018").rglob("*.jpg"))
    plain = source.read_bytes()
    path, digest = keep_frame(tmp_path, source.name, plain, pose())
    kept = (tmp_path / path).read_bytes()
    assert hashlib.sha256(kept).hexdigest() == digest
    assert np.array_equal(
        cv2.imdecode(np.frombuffer(kept, np.uint8), cv2.IMREAD_IGNORE_ORIENTATION | 1),
        cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_IGNORE_ORIENTATION | 1),
    )


def test_kept_without_a_pose_is_the_very_file(tmp_path: Path) -> None:
    path, digest = keep_frame(tmp_path, "a.jpg", b"anything")
    assert (tmp_path / path).read_bytes() == b"anything"
    assert digest == hashlib.sha256(b"anything").hexdigest()
    chip, _ = keep_chip(tmp_path, 12, b"chip")
    assert re.fullmatch(r"chips/000012_[0-9a-f]{8}\.jpg", chip)


def test_full_disk_leaves_the_old_file_and_no_scrap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    write_durably(path, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match="no room"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "bad", ["/etc/x", "../x", "a/../b", "", "a//b", ".x", "a/b/c/d/e", "ä", "a\n"]
)
def test_unsafe_paths_are_refused(bad: str) -> None:
    with pytest.raises(FlightNameError):
        safe_relative(bad)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../x.jpg", "x.jpg"),
        ("a b.jpg", "a_b.jpg"),
        ("..", "unnamed"),
        ("DJI_1.JPG", "DJI_1.JPG"),
    ],
)
def test_frames_get_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe
