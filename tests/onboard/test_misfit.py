"""Neighbour misfit: zero with true poses, the injected error with false ones; real frames too."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyproj import CRS

from calibration.camera import Camera
from calibration.geodesy import MapFrame
from calibration.rig import Mount, Rig, load_rig
from calibration.rotations import A_BODY_CAM, r_from_ypr
from onboard.image_matches import consistent
from onboard.misfit import neighbour_misfit
from onboard.place.ortho_view import FrameView
from onboard.place.terrain import PlaneTerrain
from onboard.records import Frame, Poses
from onboard.sources.open import open_source

MAP = MapFrame(CRS.from_epsg(32655))
CAMERA = Camera("opencv", 640, 480, 500.0, 500.0, 320.0, 240.0, (-0.1, 0.03))
RIG = Rig(camera=CAMERA, mount=Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0)))
GROUND = PlaneTerrain(600.0)
X, Y = 690000.0, 6080000.0
RIGS = Path(__file__).resolve().parents[2] / "calibration" / "rigs"


def poses(x: list[float], yaw_deg: float = 0.0) -> Poses:
    n = len(x)
    lat, lon = MAP.to_geographic(np.add(x, X), np.full(n, Y))
    r = np.tile(r_from_ypr(np.radians(yaw_deg), -np.pi / 2, 0.0) @ A_BODY_CAM, (n, 1, 1))
    nans, zero = np.full((n, 3), np.nan), np.zeros((n, 3))
    names = tuple(f"f{i}.png" for i in range(n))
    return Poses(
        names, lat, lon, np.full(n, 680.0), "ellipsoid", r, np.full((n, 3, 3), np.nan), nans, nans,
        zero, np.zeros(n), np.zeros(n), zero, np.zeros(n), np.full(n, np.nan), ((),) * n,
    )  # fmt: skip


@dataclass
class Painted:
    """Frames of a textured plane, as a source."""

    images: dict[str, np.ndarray]
    flagged: list[object] = field(default_factory=list)

    def frames(self) -> list[Frame]:
        return [Frame(name, i) for i, name in enumerate(self.images)]

    def load_pixels(self, frame: Frame) -> Frame:
        return replace(frame, pixels=self.images[frame.name])


def painted(true: Poses) -> Painted:
    """Renders a random texture (0.25 m to the cell) as the poses see it."""
    rng = np.random.default_rng(2)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (900, 900)).astype(np.uint8), (0, 0), 1.2)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    u, v = np.meshgrid(np.arange(640), np.arange(480))
    uv = np.stack([u.ravel(), v.ravel()], axis=1)
    images = {}
    for i, name in enumerate(true.frame):
        at = FrameView.of(true.take([i]), RIG, GROUND, MAP).to_ground(uv)[:, :2] - (X, Y)
        where = (at / 0.25 + 450).astype(np.float32).reshape(480, 640, 2)
        grey = cv2.remap(texture, where, None, cv2.INTER_LINEAR)
        images[name] = np.repeat(grey[..., None], 3, axis=2)
    return Painted(images)


def test_true_poses_agree_and_false_ones_show_their_error() -> None:
    true = poses([-15.0, 0.0, 15.0], yaw_deg=30.0)
    source = painted(true)
    right = neighbour_misfit(source, true, RIG, GROUND, MAP)  # type: ignore[arg-type]
    assert right.ties > 100
    assert right.median_m < 0.06
    assert [p.first for p in right.pairs] == ["f0.png", "f1.png"]
    # 0.1 s late at 15 m/s moves a frame 1.5 m; neighbours flown the other way disagree by twice it
    moved = poses([-15.0 + 1.5, 0.0 - 1.5, 15.0 + 1.5], yaw_deg=30.0)
    wrong = neighbour_misfit(source, moved, RIG, GROUND, MAP)  # type: ignore[arg-type]
    assert wrong.median_m == pytest.approx(3.0, abs=0.15)
    assert wrong.ties == right.ties, "the poses must not filter the matches"


def test_frames_that_do_not_overlap_are_named() -> None:
    true = poses([-80.0, 80.0])
    result = neighbour_misfit(painted(true), true, RIG, GROUND, MAP)  # type: ignore[arg-type]
    assert result.ties == 0
    assert np.isnan(result.median_m)
    assert "too few" in result.skipped[0]


def test_image_geometry_alone_throws_out_false_matches() -> None:
    rng = np.random.default_rng(1)
    a = rng.uniform(-0.5, 0.5, (200, 2))
    b = a @ np.array([[0.9, 0.1], [-0.1, 0.9]]) + 0.05
    b[:60] = rng.uniform(-0.5, 0.5, (60, 2))
    keep = consistent(a, b, 0.002)
    assert keep[60:].mean() > 0.95
    assert keep[:60].mean() < 0.05


@pytest.mark.real_data
def test_cuav_clock_offset_shows(shared_data: Path) -> None:
    """Four real frames with the flight's log: the camera's -0.3 s shows in the misfit."""
    folder = shared_data / "imagery" / "cuav_cmac_2018"
    rig = load_rig(RIGS / "cuav_picam_v2.toml")
    found = {}
    for offset in (0.0, -0.3):
        late = replace(rig, clock=replace(rig.clock, offset_s=offset))
        source = open_source(folder, late)
        placed = source.poses(late)
        some = placed.take([0, 1, 2, 3])
        map_frame = MapFrame.utm(float(some.lat_deg[0]), float(some.lon_deg[0]))
        ground = PlaneTerrain(610.1, some.height_datum)
        found[offset] = neighbour_misfit(source, some, late, ground, map_frame)
    assert min(m.ties for m in found.values()) > 150
    assert found[0.0].median_m > 1.5 * found[-0.3].median_m
    assert found[-0.3].median_m < 1.1
