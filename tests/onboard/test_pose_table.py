from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.camera import Camera
from calibration.errors import TableError
from calibration.geodesy import ecef_from_geodetic
from calibration.rig import Defaults, Mount, Rig
from calibration.rotations import r_from_ypr, r_ned_cam_from_ypr, rot_log
from onboard.sources.pose_table import pose_index, read_poses, write_poses

CAMERA = Camera("opencv", 640, 480, 500.0, 500.0, 319.5, 239.5)
DOWN = Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0), lever_arm_m=np.array([0.3, -0.2, 0.1]))
RIG = Rig(CAMERA, DOWN, defaults=Defaults(sigma_e_m=0.11, bias_e_m=0.22, bias_heading_deg=3.0))
HEAD = "frame,lat_deg,lon_deg,alt_m_ellipsoid,yaw_deg,pitch_deg,roll_deg"


def table(folder: Path, text: str) -> Path:
    path = folder / "poses.csv"
    path.write_text(text)
    return path


def test_camera_angles_are_final(tmp_path: Path) -> None:
    poses = read_poses(table(tmp_path, f"{HEAD}\na.jpg,46,7,500,10,-60,2\n"), RIG)
    expected = r_ned_cam_from_ypr(*np.radians([10.0, -60.0, 2.0]))
    np.testing.assert_allclose(poses.r_ned_cam[0], expected)
    assert (poses.lat_deg[0], poses.lon_deg[0], poses.alt_m[0]) == (46.0, 7.0, 500.0)
    assert np.isnan(poses.r_ned_body).all()


def test_body_angles_get_mount_and_lever_arm(tmp_path: Path) -> None:
    head = HEAD.replace("yaw_deg,pitch_deg,roll_deg", "body_yaw_deg,body_pitch_deg,body_roll_deg")
    poses = read_poses(table(tmp_path, f"{head}\na.jpg,46,7,500,90,0,0\n"), RIG)
    np.testing.assert_allclose(
        poses.r_ned_cam[0], r_ned_cam_from_ypr(*np.radians([90.0, -90.0, 0.0])), atol=1e-12
    )
    # flying east: forward is east, right is south, down is down
    start, end = (
        ecef_from_geodetic(46, 7, 500),
        ecef_from_geodetic(poses.lat_deg[0], poses.lon_deg[0], poses.alt_m[0]),
    )
    assert np.linalg.norm(end - start) == pytest.approx(np.linalg.norm([0.3, 0.2, 0.1]), abs=1e-6)
    assert poses.alt_m[0] == pytest.approx(499.9, abs=1e-6)
    assert poses.lat_deg[0] > 46.0
    assert poses.lon_deg[0] > 7.0


def test_stated_sigmas_are_the_whole_and_others_come_from_the_rig(tmp_path: Path) -> None:
    head = f"{HEAD},sigma_e_m,sigma_n_m,sigma_heading_deg"
    text = f"{head}\na,46,7,1,0,-90,0,0.5,,0\nb,46,7,1,0,-90,0,,0,\n"
    poses = read_poses(table(tmp_path, text), RIG)
    np.testing.assert_allclose(poses.sigma_enu_m[:, 0], [0.5, 0.11])
    np.testing.assert_allclose(poses.bias_enu_m[:, 0], [0.0, 0.22])
    np.testing.assert_allclose(poses.sigma_enu_m[:, 1], [RIG.defaults.sigma_n_m, 0.0])
    np.testing.assert_allclose(poses.bias_enu_m[:, 1], [RIG.defaults.bias_n_m, 0.0])
    np.testing.assert_allclose(np.degrees(poses.bias_heading_rad), [0.0, 3.0])
    np.testing.assert_allclose(np.degrees(poses.sigma_tilt_rad), RIG.defaults.sigma_tilt_deg)


angle = st.floats(-180, 180)


@settings(deadline=None)
@given(st.lists(st.tuples(angle, st.floats(-90, 90), angle), min_size=1, max_size=4))
def test_write_then_read_is_the_same_poses(tmp_path_factory: pytest.TempPathFactory, ypr) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("poses")
    rows = "".join(f"f{i}.jpg,46.1,7.2,500,{y},{p},{r}\n" for i, (y, p, r) in enumerate(ypr))
    first = read_poses(table(folder, f"{HEAD}\n{rows}"), RIG)
    write_poses(folder / "again.csv", first)
    again = read_poses(folder / "again.csv", RIG)
    turn = rot_log(first.r_ned_cam @ np.swapaxes(again.r_ned_cam, 1, 2))
    assert np.abs(turn).max() < 1e-7
    assert again.frame == first.frame
    assert again.height_datum == first.height_datum
    for name in ("lat_deg", "lon_deg", "alt_m", "sigma_enu_m", "bias_enu_m", "bias_heading_rad"):
        np.testing.assert_allclose(getattr(again, name), getattr(first, name), atol=1e-6)


@pytest.mark.parametrize(
    ("column", "datum"),
    [("alt_m_geoid", "egm96"), ("alt_m_same", "same"), ("alt_m_takeoff", "takeoff")],
)
def test_height_columns_say_their_datum(column: str, datum: str, tmp_path: Path) -> None:
    text = f"{HEAD.replace('alt_m_ellipsoid', column)}\na,46,7,1,0,-90,0\n"
    assert read_poses(table(tmp_path, text), RIG).height_datum == datum


def test_heights_without_a_datum_need_the_option(tmp_path: Path) -> None:
    path = table(tmp_path, f"{HEAD.replace('alt_m_ellipsoid', 'alt_m')}\na,46,7,1,0,-90,0\n")
    with pytest.raises(TableError) as error:
        read_poses(path, RIG)
    assert "--alt-datum" in error.value.hint
    assert read_poses(path, RIG, "egm96").height_datum == "egm96"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        (f"{HEAD}\na,46,7,x,0,-90,0\n", ["line 2", "'x'"]),
        (f"{HEAD}\na,46,7,1,0,-90,0\nb,96,7,1,0,-90,0\n", ["line 3", "lat_deg", "90"]),
        (f"{HEAD}\na,46,7,,0,-90,0\n", ["line 2", "alt_m_ellipsoid"]),
        (f"{HEAD}\na,46,7,nan,0,-90,0\n", ["line 2", "nan"]),
        (f"{HEAD}\na,46,7,1,0,-90,0\na,46,7,1,0,-90,0\n", ["line 3", "line 2"]),
        (f"{HEAD}\na,46,7,1,0,-90,0,5\n", ["line 2", "8 cells"]),
        (HEAD.replace("pitch_deg", "pich_deg") + "\na,46,7,1,0,-90,0\n", ["pitch_deg", "pich_deg"]),
        (f"{HEAD},sigma_e_m\na,46,7,1,0,-90,0,-1\n", ["sigma_e_m", "-1"]),
        (f"{HEAD},alt_m_geoid\na,46,7,1,0,-90,0,1\n", ["alt_m_geoid", "alt_m_ellipsoid"]),
    ],
    ids=["empty", "no number", "latitude", "empty cell", "nan", "twice", "cells", "misspelt",
         "negative sigma", "two heights"],
)  # fmt: skip
def test_bad_tables_say_line_and_value(text: str, words: list[str], tmp_path: Path) -> None:
    with pytest.raises(TableError) as error:
        read_poses(table(tmp_path, text), RIG)
    said = f"{error.value} {error.value.hint}"
    assert all(word in said for word in words), said


def test_body_attitude_behind_a_gimbal_is_refused(tmp_path: Path) -> None:
    head = HEAD.replace("yaw_deg,pitch_deg,roll_deg", "body_yaw_deg,body_pitch_deg,body_roll_deg")
    path = table(tmp_path, f"{head}\na.jpg,46,7,500,90,0,0\n")
    with pytest.raises(TableError, match="gimbal"):
        read_poses(path, Rig(CAMERA, Mount("gimbal", np.eye(3))))


def test_frames_match_by_name_then_by_stem(tmp_path: Path) -> None:
    text = f"{HEAD}\na.jpg,46,7,1,0,-90,0\nb.jpg,46,7,1,0,-90,0\nb.tif,46,7,1,0,-90,0\n"
    poses = read_poses(table(tmp_path, text), RIG)
    names = ["a.jpg", "a.tif", "folder/a.jpg", "b.tif", "b.png", "c.jpg"]
    assert pose_index(poses, names).tolist() == [0, 0, 0, 2, -1, -1]
