from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from calibration.board import calibrate
from calibration.camera import Camera
from calibration.errors import BoardError
from calibration.rig import load_rig
from calibration.rotations import rot_exp
from calibration.views import Pattern, View, find_view
from gossan.cli import gossan

TRUE = Camera("opencv", 1280, 960, 1000.0, 1003.0, 645.0, 472.0, (-0.2, 0.06, 8e-4, -5e-4, 0.01))
WIDE = Camera("fisheye", 1280, 960, 420.0, 421.0, 642.0, 477.0, (-0.02, 0.006, -0.003, 5e-4))
PATTERN = Pattern(9, 6, 0.03)


def views_of(
    camera: Camera, count: int, tilt_deg: float = 30.0, noise_px: float = 0.1, seed: int = 0
) -> list[View]:
    rng = np.random.default_rng(seed)
    points = PATTERN.points_m()
    middle = points.mean(axis=0)
    out: list[View] = []
    while len(out) < count:
        direction = rng.uniform(0, 2 * np.pi)
        tilt = np.radians(tilt_deg) * rng.uniform(0.6, 1.0)
        turn = rot_exp(tilt * np.array([np.cos(direction), np.sin(direction), 0.0]))
        turn = turn @ rot_exp([0.0, 0.0, rng.uniform(-0.5, 0.5)])
        far = rng.uniform(0.28, 0.4) * camera.fx_px / 1000.0 + 0.05
        shift = np.array([rng.uniform(-0.4, 0.4) * far, rng.uniform(-0.3, 0.3) * far, far])
        uv = camera.project((points - middle) @ turn.T + shift)
        if np.isfinite(uv).all() and camera.inside(uv).all():
            out.append(View(f"{len(out):02d}.jpg", points, uv + rng.normal(0, noise_px, uv.shape)))
    return out


@pytest.mark.parametrize("camera", [TRUE, WIDE], ids=["opencv", "fisheye"])
def test_a_known_camera_is_found_within_its_own_sigma(camera: Camera) -> None:
    off = []
    for seed in range(4):
        found = calibrate(views_of(camera, 12, seed=seed), 1280, 960, camera.model)
        sigma = np.sqrt(np.diag(found.covariance))[:4]
        names = ("fx_px", "fy_px", "cx_px", "cy_px")
        off.append([(getattr(found.camera, n) - getattr(camera, n)) for n in names] / sigma)
        assert found.rms_px == pytest.approx(0.1 * np.sqrt(2), rel=0.1)
        assert len(found.used) == 12
    assert 0.4 < np.sqrt(np.mean(np.square(off))) < 1.8


def test_a_view_that_contradicts_the_others_is_dropped_by_name() -> None:
    views = views_of(TRUE, 12)
    bent = views[4].uv + np.random.default_rng(1).normal(0, 3.0, views[4].uv.shape)
    views[4] = View("bent.jpg", views[4].points_m, bent)
    found = calibrate(views, 1280, 960)
    assert list(found.dropped) == ["bent.jpg"]
    assert "bent.jpg" not in found.used
    assert found.camera.fx_px == pytest.approx(TRUE.fx_px, rel=0.005)


@pytest.mark.parametrize(
    ("count", "tilt", "words"),
    [(5, 30.0, "5 views"), (10, 3.0, "tilt")],
    ids=["few views", "no tilt"],
)
def test_weak_networks_are_warned_of(count: int, tilt: float, words: str) -> None:
    warnings = calibrate(views_of(TRUE, count, tilt), 1280, 960).warnings
    assert any(words in warning for warning in warnings)


def test_a_good_network_is_not_warned_of() -> None:
    assert calibrate(views_of(TRUE, 30, 35.0), 1280, 960).warnings == ()


def test_too_few_views_are_refused() -> None:
    with pytest.raises(BoardError, match="3 usable views"):
        calibrate(views_of(TRUE, 3), 1280, 960)


def drawn(kind: str, pattern: Pattern) -> np.ndarray:
    """A picture of the pattern, one square 60 px wide, on white."""
    square, edge = 60, 120
    if kind == "charuco":
        words = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)
        size = (pattern.cols + 1, pattern.rows + 1)
        board = cv2.aruco.CharucoBoard(size, pattern.square_m, 0.75 * pattern.square_m, words)
        return board.generateImage((size[0] * square + edge, size[1] * square + edge), None, 60)
    tall, wide = (pattern.rows + 1) * square + edge, (pattern.cols + 1) * square + edge
    image = np.full((tall, wide), 255, np.uint8)
    if kind == "circles":
        for x, y, _ in pattern.points_m() / pattern.square_m * square + edge:
            cv2.circle(image, (round(x), round(y)), 18, 0, -1, cv2.LINE_AA)
        return image
    for row in range(pattern.rows + 1):
        for col in range(row % 2, pattern.cols + 1, 2):
            x, y = 60 + col * square, 60 + row * square
            image[y : y + square, x : x + square] = 0
    return image


@pytest.mark.parametrize("kind", ["chess", "charuco", "circles"])
def test_patterns_are_found_where_they_are_drawn(kind: str, tmp_path: Path) -> None:
    pattern = Pattern(7, 5, 0.03, kind)  # type: ignore[arg-type]
    path = tmp_path / "board.png"
    cv2.imwrite(str(path), cv2.GaussianBlur(drawn(kind, pattern), (0, 0), 1.0))
    view, size = find_view(path, pattern)
    assert view is not None
    assert len(view.uv) == 35
    assert size[0] > size[1]
    scale, _, _, _ = np.linalg.lstsq(
        np.column_stack([view.points_m[:, :2], np.ones(35)]), view.uv, rcond=None
    )
    fitted = np.column_stack([view.points_m[:, :2], np.ones(35)]) @ scale
    assert np.abs(fitted - view.uv).max() < 0.3
    assert np.abs(np.linalg.norm(scale[:2], axis=1) * 0.03 - 60.0).max() < 0.1


@pytest.mark.real_data
def test_pi_camera_boards_give_the_published_camera(shared_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "rig.toml"
    folder = shared_data / "imagery" / "picam_v2_calib"
    command = ["calibration", "board", str(folder), "--pattern", "9x6", "--square", "0.025"]
    plot = tmp_path / "residuals.png"
    command += ["--plot", str(plot)]
    result = CliRunner().invoke(gossan, [*command, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    drawn = cv2.imread(str(plot))
    assert drawn.shape[1] > drawn.shape[0] > 600
    assert (drawn != 255).any(axis=2).mean() > 0.01
    said = json.loads(result.stdout)
    assert said["rms_px"] == pytest.approx(0.28, abs=0.005)
    assert said["fx_px"] == pytest.approx(1329.5, rel=0.01)
    assert len(said["views_used"]) == 10
    assert said["views_dropped"] == []
    rig = load_rig(out)
    assert rig.covariance is not None
    assert abs(rig.camera.fx_px - 1329.5) < 1.96 * np.sqrt(rig.covariance[0, 0])


@pytest.mark.real_data
def test_photos_without_the_pattern_are_named(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "imagery"
    images = [str(p) for p in sorted((folder / "opencv_chessboard").glob("left*.jpg"))]
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((480, 640), 90, np.uint8))
    command = ["calibration", "board", *images, str(blank), "--pattern", "9x6", "--square", "0.025"]
    result = CliRunner().invoke(gossan, [*command, "--out", str(tmp_path / "r.toml"), "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["views_dropped"] == ["blank.png"]
    assert said["fx_px"] == pytest.approx(535.9, rel=0.01)
