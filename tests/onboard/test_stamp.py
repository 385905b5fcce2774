"""Poses written back: read by Pillow, exiftool, our own reader and the formulas of ODM's tools."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from PIL.ExifTags import IFD, Base

from calibration.rotations import r_ned_cam_from_ypr
from onboard.cli.stamp import stamp
from onboard.keep.restamp import restamp_pose, with_gps
from onboard.records import Poses
from onboard.sources.open import open_source
from onboard.stamp import geo_txt, omega_phi_kappa

BETTER = (
    "frame,lat_deg,lon_deg,alt_m_ellipsoid,yaw_deg,pitch_deg,roll_deg,"
    "sigma_e_m,sigma_n_m,sigma_u_m,sigma_tilt_deg,sigma_heading_deg\n"
)


@pytest.fixture
def better(tmp_path: Path) -> Path:
    path = tmp_path / "better.csv"
    path.write_text(
        BETTER
        + "DJI_0030.JPG,46.8425,-91.9943,171.25,33.25,-80.5,1.5,0.05,0.06,0.09,0.1,0.2\n"
        + "DJI_0031.JPG,46.8426,-91.9944,171.5,213.0,-90,0,0.05,0.06,0.09,0.1,0.2\n"
    )
    return path


@pytest.fixture
def photos(shared_data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("DJI_0030.JPG", "DJI_0031.JPG", "DJI_0032.JPG"):
        shutil.copyfile(shared_data / "imagery/brighton_beach/images" / name, folder / name)
    return folder


def stamped(photos: Path, better: Path, out: Path) -> dict[str, list[str]]:
    run = CliRunner().invoke(
        stamp, [str(photos), "--poses", str(better), "--out", str(out), "--json"]
    )
    assert run.exit_code == 0, run.output
    told: dict[str, list[str]] = json.loads(run.stdout)
    return told


def test_real_photos_say_their_better_pose(photos: Path, better: Path, tmp_path: Path) -> None:
    told = stamped(photos, better, tmp_path / "out")
    assert told["stamped"] == ["DJI_0030.JPG", "DJI_0031.JPG"]
    assert told["without_pose"] == ["DJI_0032.JPG"]
    again = open_source(tmp_path / "out").poses(None)
    wanted = open_source(photos, poses_csv=better).poses(None)
    assert again.frame == wanted.frame
    assert again.lat_deg == pytest.approx(wanted.lat_deg, abs=1e-9)
    assert again.alt_m == pytest.approx(wanted.alt_m, abs=2e-3)
    assert again.r_ned_cam == pytest.approx(wanted.r_ned_cam, abs=1e-7)
    assert again.height_datum == "ellipsoid"
    for name in again.frame:
        with Image.open(photos / name) as before, Image.open(tmp_path / "out" / name) as after:
            assert np.array_equal(np.asarray(before), np.asarray(after))
            old, new = before.getexif(), after.getexif()
            assert new.get_ifd(IFD.Exif)[Base.MakerNote] == old.get_ifd(IFD.Exif)[Base.MakerNote]
            assert new[Base.Model] == old[Base.Model]


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
def test_exiftool_reads_one_pose_and_no_other(photos: Path, better: Path, tmp_path: Path) -> None:
    stamped(photos, better, tmp_path / "out")
    command = ["exiftool", "-json", "-n", "-G1", "-a", str(tmp_path / "out/DJI_0031.JPG")]
    (said,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert said["GPS:GPSLatitude"] == pytest.approx(46.8426, abs=1e-8)
    assert said["XMP-Camera:Yaw"] == pytest.approx(213.0)
    assert said["XMP-Camera:Pitch"] == pytest.approx(0.0, abs=1e-5)
    assert said["XMP-Camera:GPSXYAccuracy"] == pytest.approx(0.0552, abs=1e-3)
    assert not [key for key in said if "Gimbal" in key or "FlightYaw" in key]
    assert "ExifTool:Warning" not in said


def test_originals_are_never_written_over(photos: Path, better: Path) -> None:
    run = CliRunner().invoke(stamp, [str(photos), "--poses", str(better), "--out", str(photos)])
    assert run.exit_code != 0
    assert "holds the originals" in str(run.exception)


def one(r_ned_cam: np.ndarray) -> Poses:
    n, nans = len(r_ned_cam), np.full((len(r_ned_cam), 3), np.nan)
    return Poses(
        frame=tuple(f"{i}.jpg" for i in range(n)),
        lat_deg=np.full(n, -33.5),
        lon_deg=np.full(n, 138.25),
        alt_m=np.full(n, 412.5),
        height_datum="same",
        r_ned_cam=r_ned_cam,
        r_ned_body=np.full((n, 3, 3), np.nan),
        v_ned_mps=nans,
        omega_ned_rps=nans,
        sigma_enu_m=np.full((n, 3), 3.0),
        sigma_tilt_rad=np.full(n, 0.01),
        sigma_heading_rad=np.full(n, 0.02),
        bias_enu_m=np.full((n, 3), 4.0),
        bias_heading_rad=np.zeros(n),
        t_boot_s=np.full(n, np.nan),
        flags=((),) * n,
    )


def test_omega_phi_kappa_turn_back_by_opensfms_formula() -> None:
    """R_cam_world = diag(1,-1,-1)·Rz(-κ)·Ry(-φ)·Rx(-ω), by Rodrigues vectors as OpenSfM has it."""
    rng = np.random.default_rng(3)
    angles = rng.uniform([-180, -90, -30], [180, -20, 30], (40, 3))
    r_ned_cam = np.array([r_ned_cam_from_ypr(*np.radians(a)) for a in angles])
    for r, (omega, phi, kappa) in zip(r_ned_cam, omega_phi_kappa(r_ned_cam), strict=True):
        turns = [cv2.Rodrigues(np.array(v, float))[0] for v in
                 ([-omega, 0, 0], [0, -phi, 0], [0, 0, -kappa])]  # fmt: skip
        r_cam_enu = np.diag([1.0, -1.0, -1.0]) @ turns[2] @ turns[1] @ turns[0]
        ned_from_enu = np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1.0]])
        assert ned_from_enu @ r_cam_enu.T == pytest.approx(r, abs=1e-12)


def test_geo_txt_is_what_odm_splits(tmp_path: Path) -> None:
    nadir_east = r_ned_cam_from_ypr(np.radians(90.0), np.radians(-90.0), 0.0)
    lines = geo_txt(one(nadir_east[None])).splitlines()
    assert lines[0] == "EPSG:4326"
    assert lines[1].startswith("#")
    name, x, y, z, omega, phi, kappa, flat_m, up_m = lines[2].split()
    assert (name, float(x), float(y), float(z)) == ("0.jpg", 138.25, -33.5, 412.5)
    assert [float(a) for a in (omega, phi, kappa)] == pytest.approx([0.0, 0.0, -90.0])
    assert (float(flat_m), float(up_m)) == (5.0, 5.0)


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
@pytest.mark.parametrize("has_gps", [True, False])
def test_blocks_of_either_order_get_a_gps_directory(order: str, has_gps: bool) -> None:
    rows = [(0x010F, 2, 4, b"Abc\0")] + [(0x8825, 4, 1, struct.pack(f"{order}I", 38))] * has_gps
    block = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HIH", 42, 8, len(rows))
    block += b"".join(struct.pack(f"{order}HHI", *row[:3]) + row[3] for row in rows)
    block += bytes(4) + (struct.pack(f"{order}H", 0) + bytes(4) if has_gps else b"")
    placed = one(np.eye(3)[None])
    new = with_gps(block, placed)
    assert new is not None
    exif = Image.Exif()
    exif.load(b"Exif\0\0" + new)
    gps = exif.get_ifd(IFD.GPSInfo)
    assert exif[Base.Make] == "Abc"
    assert [float(v) for v in gps[2]] == pytest.approx([33, 30, 0])
    assert gps[1] == "S"
    assert float(gps[6]) == pytest.approx(412.5)


@pytest.mark.parametrize("content", [b"II*\0 a TIFF", b"", b"\xff\xd8\xff\xe1\xff\xff12"])
def test_what_takes_no_pose_is_said(content: bytes) -> None:
    assert restamp_pose(content, one(np.eye(3)[None])) is None
