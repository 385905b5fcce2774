from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import RigError
from calibration.rig import Mount, load_rig, write_rig
from calibration.rotations import r_from_ypr, r_ned_cam_from_ypr, ypr_from_r_ned_cam
from gossan.errors import SettingsError

RIGS = sorted((Path(__file__).parents[2] / "calibration" / "rigs").glob("*.toml"))
MINIMAL = """
[camera]
model = "opencv"
width_px = 640
height_px = 480
fx_px = 500.0
fy_px = 500.0
cx_px = 319.5
cy_px = 239.5
{camera}
[mount]
type = "gimbal"
{mount}
"""


def rig_file(folder: Path, camera: str = "", mount: str = "", more: str = "") -> Path:
    path = folder / "rig.toml"
    path.write_text(MINIMAL.format(camera=camera, mount=mount) + more)
    return path


@pytest.mark.parametrize("path", RIGS, ids=[path.stem for path in RIGS])
def test_shipped_rigs_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    rig = load_rig(path)
    again = write_rig(tmp_path / "again.toml", rig)
    assert again.hash == rig.hash
    assert again.camera == rig.camera
    np.testing.assert_allclose(again.mount.r_mount, rig.mount.r_mount, atol=1e-12)
    assert rig.about


def test_hash_follows_values_not_notes_or_layout(tmp_path: Path) -> None:
    first = load_rig(rig_file(tmp_path))
    noted = load_rig(rig_file(tmp_path, more='[about]\nwho = "me"\n# a comment\n'))
    spelled = load_rig(rig_file(tmp_path, camera="k1 = 0.0"))
    other = load_rig(rig_file(tmp_path, camera="k1 = 0.001"))
    assert first.hash == noted.hash == spelled.hash
    assert other.hash != first.hash
    assert replace(first, sigma_px=2.0).hash != first.hash
    assert first.label == f"rig/{first.hash[:8]}"


@pytest.mark.parametrize(
    ("camera", "mount", "words"),
    [
        ("fx_mm = 3.0", "", ("fx_mm", "line 10")),
        ("", "lever_arm = [0.0, 0.0, 0.0]", ("lever_arm", "lever_arm_m")),
        ("sigma_px = -1.0", "", ("sigma_px", "-1")),
        ("", "sigma_deg = [0.1, 0.1]", ("sigma_deg",)),
        ("", "yaw_deg = nan", ("yaw_deg",)),
        ('covariance_order = ["fx_px"]\ncovariance = [[1.0, 2.0]]', "", ("covariance",)),
        ('covariance_order = ["focal"]\ncovariance = [[1.0]]', "", ("focal",)),
        ('covariance_order = ["fx", "fy"]\ncovariance = [[1.0, 2.0], [2.0, 1.0]]', "",
         ("negative",)),
        ('covariance_order = ["fx", "fy"]\ncovariance = [[1.0, 0.5], [0.1, 1.0]]', "",
         ("symmetric",)),
    ],
    ids=["unknown key", "did you mean", "negative sigma", "two sigmas", "nan", "not square",
         "unknown name", "not positive", "not symmetric"],
)  # fmt: skip
def test_bad_rigs_say_where_and_what(
    camera: str, mount: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as error:
        load_rig(rig_file(tmp_path, camera, mount))
    said = f"{error.value} {error.value.hint}"
    assert all(word in said for word in words), said


def test_a_fixed_mount_needs_its_angles(tmp_path: Path) -> None:
    path = rig_file(tmp_path)
    path.write_text(path.read_text().replace('"gimbal"', '"fixed"\nyaw_deg = 0.0'))
    with pytest.raises(RigError, match="pitch_deg, roll_deg"):
        load_rig(path)


def test_fisheye_refuses_foreign_terms(tmp_path: Path) -> None:
    path = rig_file(tmp_path, camera="p1 = 0.001")
    path.write_text(path.read_text().replace('"opencv"', '"fisheye"'))
    with pytest.raises(RigError, match="p1"):
        load_rig(path)


def test_short_covariance_names_are_understood(tmp_path: Path) -> None:
    rig = load_rig(rig_file(tmp_path, 'covariance_order = ["fx"]\ncovariance = [[4.0]]'))
    assert rig.covariance_order == ("fx_px",)


angles = st.tuples(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(-3.1, 3.1))


@given(angles, angles)
def test_fixed_mount_is_the_camera_in_the_body(
    body: tuple[float, float, float], mounted: tuple[float, float, float]
) -> None:
    mount = Mount("fixed", r_from_ypr(*mounted))
    r_body = r_from_ypr(*body)
    got = mount.r_ned_cam(r_body[None])[0]
    np.testing.assert_allclose(got, r_body @ r_ned_cam_from_ypr(*mounted), atol=1e-12)


@given(angles)
def test_gimbal_mount_without_angles_changes_nothing(gimbal: tuple[float, float, float]) -> None:
    reported = r_ned_cam_from_ypr(*gimbal)
    got = Mount("gimbal", np.eye(3)).r_ned_cam(reported[None])[0]
    np.testing.assert_allclose(got, reported, atol=1e-12)


def test_nadir_mount_has_the_images_top_to_the_nose() -> None:
    mount = Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0))
    r = mount.r_ned_cam(r_from_ypr(np.radians(30.0), 0.0, 0.0)[None])[0]
    top = -r[:, 1]
    np.testing.assert_allclose(top, [np.cos(np.radians(30)), np.sin(np.radians(30)), 0], atol=1e-12)


def test_heading_bias_is_added_to_the_heading() -> None:
    mount = Mount("gimbal", np.eye(3), heading_bias_rad=np.radians(2.0))
    yaw, pitch, roll = ypr_from_r_ned_cam(
        mount.r_ned_cam(r_ned_cam_from_ypr(*np.radians([10.0, -40.0, 5.0]))[None])
    )
    np.testing.assert_allclose(np.degrees([yaw[0], pitch[0], roll[0]]), [12.0, -40.0, 5.0])
