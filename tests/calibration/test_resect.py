from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from calibration.camera import Camera
from calibration.errors import ControlPointError
from calibration.geodesy import MapFrame, offset_enu
from calibration.resect import ControlPoints, free_names, resect
from calibration.rig import load_rig
from calibration.rotations import ENU_FROM_NED, r_ned_cam_from_ypr, rot_log
from gossan.cli import gossan

CAMERA = Camera("opencv", 1920, 1080, 1430.0, 1430.0, 959.5, 539.5, (-0.26,))
LAT, LON, ALT = 60.59, 7.52, 1250.0
YPR = np.radians([61.0, -7.0, -0.6])


def seen_points(noise_px: float, n: int = 40, seed: int = 0) -> ControlPoints:
    """Control points in the ENU frame of the camera itself, whose centre is the origin."""
    rng = np.random.default_rng(seed)
    r_enu_cam = ENU_FROM_NED @ r_ned_cam_from_ypr(*YPR)
    uv = rng.uniform([50, 300], [1870, 1050], (n, 2))
    enu = (CAMERA.unproject(uv) * rng.uniform(30, 900, (n, 1))) @ r_enu_cam.T
    return ControlPoints("f.jpg", enu, uv + rng.normal(0, noise_px, uv.shape), np.ones(n))


def test_exact_points_give_the_exact_pose_and_camera() -> None:
    start = Camera("opencv", 1920, 1080, 1600.0, 1600.0, 959.5, 539.5)
    found = resect([seen_points(0.0)], start, ("f", "k1"))
    pose = found.poses[0]
    np.testing.assert_allclose(pose.centre_m, 0.0, atol=1e-4)
    expected = ENU_FROM_NED @ r_ned_cam_from_ypr(*YPR)
    assert np.linalg.norm(rot_log(pose.r_enu_cam @ expected.T)) < 1e-6
    assert found.camera.fx_px == pytest.approx(1430.0, abs=1e-2)
    assert found.camera.distortion[0] == pytest.approx(-0.26, abs=1e-5)
    assert pose.miss_m.max() < 1e-3


def test_covariance_is_as_wide_as_the_errors() -> None:
    expected = ENU_FROM_NED @ r_ned_cam_from_ypr(*YPR)
    chi2 = []
    for seed in range(25):
        pose = resect([seen_points(1.0, seed=seed)], CAMERA).poses[0]
        off = np.concatenate([pose.centre_m, rot_log(pose.r_enu_cam @ expected.T)])
        chi2.append(off @ np.linalg.solve(pose.covariance, off))
    assert 4.0 < np.mean(chi2) < 8.5  # six unknowns: χ² of mean 6


def test_points_left_out_are_met_as_often_as_their_ellipse_says() -> None:
    inside = total = 0
    for seed in range(6):
        pose = resect([seen_points(1.0, n=25, seed=seed)], CAMERA).poses[0]
        assert (pose.left_out_m > 0).all()
        assert np.median(pose.left_out_m) > np.median(pose.miss_m), "it is no fit"
        inside += int((pose.left_out_chi2 <= 4.605).sum())
        total += len(pose.left_out_chi2)
    assert 0.82 < inside / total < 0.97


@pytest.mark.parametrize(
    ("text", "word"), [("f,k9", "k9"), ("f,f", "twice"), ("fx,f", "twice")], ids=lambda v: v
)
def test_unknown_freedoms_are_refused(text: str, word: str) -> None:
    with pytest.raises(ControlPointError, match=word):
        free_names(text, CAMERA)


def test_three_points_are_too_few() -> None:
    points = seen_points(0.0, n=3)
    with pytest.raises(ControlPointError, match="3 control points"):
        resect([points], CAMERA)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_gcps(path: Path, columns: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return path


@pytest.mark.parametrize("how", ["geographic", "projected"])
def test_the_command_finds_a_known_pose(how: str, tmp_path: Path) -> None:
    points = seen_points(0.0)
    lat, lon, alt = offset_enu(LAT, LON, ALT, points.enu_m)
    x, y = MapFrame.utm(LAT, LON).to_map(lat, lon)
    flat = (lat, lon) if how == "geographic" else (x, y)
    names = ["lat_deg", "lon_deg"] if how == "geographic" else ["x_m", "y_m"]
    rows = [
        ["f.jpg", *uv, *place]
        for uv, place in zip(points.uv, zip(*flat, alt, strict=True), strict=True)
    ]
    gcps = write_gcps(
        tmp_path / "g.csv", ["frame", "x_px", "y_px", *names, "alt_m_ellipsoid"], rows
    )
    rig = tmp_path / "rig.toml"
    rig.write_text(
        '[camera]\nmodel = "opencv"\nwidth_px = 1920\nheight_px = 1080\nfx_px = 1430.0\n'
        "fy_px = 1430.0\ncx_px = 959.5\ncy_px = 539.5\nk1 = -0.26\n"
        '[mount]\ntype = "gimbal"\n'
    )
    out = tmp_path / "poses.csv"
    command = ["calibration", "resect", str(gcps), "--rig", str(rig), "--out", str(out), "--json"]
    command += ["--crs", "EPSG:32632"] if how == "projected" else []
    result = CliRunner().invoke(gossan, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (row,) = rows_of(out)
    found = [float(row[c]) for c in ("lat_deg", "lon_deg", "alt_m_ellipsoid")]
    np.testing.assert_allclose(found, [LAT, LON, ALT], atol=1e-3, rtol=0)
    assert abs(found[0] - LAT) * 111e3 < 0.01
    angles = [float(row[c]) for c in ("yaw_deg", "pitch_deg", "roll_deg")]
    np.testing.assert_allclose(angles, np.degrees(YPR), atol=1e-4)


def test_map_coordinates_without_a_crs_are_refused(tmp_path: Path) -> None:
    columns = ["frame", "x_px", "y_px", "x_m", "y_m", "alt_m_same"]
    gcps = write_gcps(tmp_path / "g.csv", columns, [["f", 1, 2, 3, 4, 5]])
    rig = Path(__file__).parents[2] / "calibration" / "rigs" / "finse_webcam.toml"
    command = ["calibration", "resect", str(gcps), "--rig", str(rig), "--out", str(tmp_path / "p")]
    result = CliRunner().invoke(gossan, command)
    assert isinstance(result.exception, ControlPointError)
    assert "--crs" in result.exception.hint


@pytest.mark.real_data
def test_finse_webcam_is_resected_to_half_a_metre(shared_data: Path, tmp_path: Path) -> None:
    given = rows_of(shared_data / "imagery/finse_oblique/GCPs_pointagev4.csv")
    rows = [
        ["finse.jpg", p["x_img"], p["y_img"], p["x_world"], p["y_world"], p["z_world"]]
        for p in given
    ]
    columns = ["frame", "x_px", "y_px", "x_m", "y_m", "alt_m_same"]
    gcps = write_gcps(tmp_path / "g.csv", columns, rows)
    rig = Path(__file__).parents[2] / "calibration" / "rigs" / "finse_webcam.toml"
    out, rig_out = tmp_path / "poses.csv", tmp_path / "rig.toml"
    command = ["calibration", "resect", str(gcps), "--rig", str(rig), "--free", "f,k1"]
    command += ["--crs", "EPSG:32632", "--out", str(out), "--rig-out", str(rig_out), "--json"]
    result = CliRunner().invoke(gossan, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["median_m"] <= 0.6
    left_out = said["frames"]["finse.jpg"]["leave_one_out"]
    assert left_out["points"] == 45
    assert left_out["median_m"] <= 0.65
    assert 36 <= left_out["inside_90"] <= 44
    assert said["median_px"] == pytest.approx(2.8, abs=0.1)
    found = load_rig(rig_out)
    assert found.camera.fx_px == pytest.approx(1427.0, abs=3.0)
    assert found.camera.distortion[0] == pytest.approx(-0.265, abs=0.003)
    assert found.covariance_order == ("fx_px", "fy_px", "k1")
    (row,) = rows_of(out)
    assert float(row["alt_m_same"]) == pytest.approx(1214.0, abs=3.0)
