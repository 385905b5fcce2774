"""The scanner: what is painted on the ground comes back where it lies, in metres and in pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from pyproj import CRS

from calibration.camera import Camera
from calibration.geodesy import MapFrame
from calibration.rig import Mount, Rig
from calibration.rotations import A_BODY_CAM, r_from_ypr
from gossan.errors import DamagedDataError, UserError
from models.decode import Region, Regions
from onboard.frame_quality import frame_quality
from onboard.place.coverage import footprint_polygon
from onboard.place.ortho_view import FrameView
from onboard.place.terrain import GridTerrain, PlaneTerrain
from onboard.records import Frame, Poses
from onboard.scan import Scanner, delineation_px, eight_bits

MAP = MapFrame(CRS.from_epsg(32632))
X, Y = 500100.0, 5200100.0
CAMERA = Camera("opencv", 800, 600, 900.0, 900.0, 399.5, 299.5, (-0.05, 0.01))
RIG = Rig(camera=CAMERA, mount=Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0)), sigma_px=0.5)
PATCH = shapely.Point(X + 6.0, Y - 4.0).buffer(1.5)


def rough() -> GridTerrain:
    i, j = np.mgrid[:201, :201]
    z = 400.0 + 2.0 * np.sin(i / 7.0) + 1.5 * np.cos(j / 5.0)
    return GridTerrain(z, X - 100, Y + 100, 1.0, -1.0)


def pose_at(pitch: float = -80.0, yaw: float = 40.0) -> Poses:
    lat, lon = MAP.to_geographic([X], [Y])
    r = r_from_ypr(*np.radians([[yaw], [pitch], [0.0]])) @ A_BODY_CAM
    nan3, zero = np.full((1, 3), np.nan), np.zeros((1, 3))
    return Poses(
        ("f.jpg",), lat, lon, np.array([460.0]), "ellipsoid", r, np.full((1, 3, 3), np.nan), nan3,
        nan3, zero + 0.2, np.full(1, 0.005), np.full(1, 0.01), zero + 0.5, np.full(1, 0.01),
        np.full(1, np.nan), ((),),
    )  # fmt: skip


def rendered(pose: Poses, terrain: Any, patch: Any = PATCH) -> np.ndarray:
    """A grey textured ground with one red patch, seen pixel by pixel through exact rays."""
    u, v = np.meshgrid(np.arange(800), np.arange(600))
    uv = np.stack([u.ravel(), v.ravel()], axis=1)
    at = FrameView.of(pose, RIG, terrain, MAP).to_ground(uv)[:, :2]
    red = shapely.contains_xy(patch, *at.T).reshape(600, 800)
    rng = np.random.default_rng(1)
    coarse = cv2.resize(rng.integers(60, 120, (75, 100)).astype(np.uint8), (800, 600))
    image = np.repeat((coarse + rng.integers(0, 30, coarse.shape))[..., None], 3, axis=2)
    image = image.astype(np.uint8)
    image[red] = (220, 60, 40)
    return image


@dataclass
class RedFinder:
    """Stands in for a network: finds what is red."""

    manifest: Any = field(
        default_factory=lambda: SimpleNamespace(
            gsd_m=0.1, bands=("red", "green", "blue"), heads={"a": SimpleNamespace(stride=2)}
        )
    )
    hash: str = "abc"
    seen: Any = None

    def predict(self, image: np.ndarray, seen: np.ndarray) -> Any:
        self.seen = (image.shape, seen)
        red = ((image[..., 0].astype(int) - image[..., 2] > 90) & seen).astype(np.uint8)
        outlines, _ = cv2.findContours(red, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        rows = []
        for ring in outlines:
            shape = shapely.Polygon(ring[:, 0]).buffer(0.5)
            if shape.area < 20:
                continue
            inner = cv2.erode(np.pad(seen, 1).astype(np.uint8), np.ones((3, 3)))[1:-1, 1:-1]
            edge = bool((inner[ring[:, 0, 1], ring[:, 0, 0]] == 0).any())
            rows.append(
                Region(
                    "iron_oxide", "a", 0.9, (shape.centroid.x, shape.centroid.y),
                    shape.bounds, shape.area, np.asarray(shape.exterior.coords)[:-1], False, edge,
                )
            )  # fmt: skip
        return SimpleNamespace(regions=Regions.from_rows(rows, True))


@pytest.mark.parametrize("pitch", [-90.0, -78.0])
def test_a_patch_comes_back_where_it_lies(pitch: float) -> None:
    pose, terrain = pose_at(pitch), rough()
    frame = Frame("f.jpg", 0, pixels=rendered(pose, terrain))
    scanner = Scanner(RedFinder())  # type: ignore[arg-type]
    assert scanner.gsd_m == 0.1
    result = scanner.scan(frame, pose, RIG, terrain, MAP, "flight-1")
    found = result.detections
    assert found is not None
    assert len(found) == 1
    at = np.array([found.ground.x_m[0], found.ground.y_m[0]])
    assert np.hypot(*(at - (X + 6.0, Y - 4.0))) < 0.12
    assert found.area_m2[0] == pytest.approx(PATCH.area, rel=0.08)
    outline = shapely.Polygon(found.polygon_map_m[0])
    assert outline.intersection(PATCH).area / outline.union(PATCH).area > 0.88
    # source pixels: the outline there holds just the red pixels
    ring = shapely.Polygon(found.polygon_px[0])
    red = np.argwhere(frame.pixels[..., 0].astype(int) - frame.pixels[..., 2] > 90)[:, ::-1]
    assert shapely.contains_xy(ring.buffer(1.5), *red.T).mean() > 0.99
    assert ring.area == pytest.approx(len(red), rel=0.1)
    assert np.hypot(*(found.centroid_px[0] - red.mean(axis=0))) < 1.5
    # its covariance knows the flight's biases and the delineation
    assert any(name.startswith("flight/flight-1") for name in found.ground.bias_names)
    assert found.ground.cov_random_m2[0, 0, 0] > (0.1 * 1.5) ** 2 / 2
    assert bool(found.inside[0])
    assert found.model_hash == "abc"
    assert result.footprint.scanned
    assert result.footprint.quality == "good"
    assert {"ortho", "inference", "geotag", "footprint", "quality"} <= set(result.stage_ms)


def test_a_patch_at_the_edge_is_not_inside() -> None:
    pose, terrain = pose_at(-90.0, 0.0), PlaneTerrain(400.0)
    edge = FrameView.of(pose, RIG, terrain, MAP).to_ground(np.array([[0.0, 300.0]]))[0, :2]
    frame = Frame("f.jpg", 0, pixels=rendered(pose, terrain, shapely.Point(edge).buffer(1.5)))
    found = Scanner(RedFinder()).scan(frame, pose, RIG, terrain, MAP).detections  # type: ignore[arg-type]
    assert found is not None
    assert found.inside.tolist() == [False]


def test_without_a_model_frames_are_placed_only() -> None:
    pose, terrain = pose_at(), rough()
    frame = Frame("f.jpg", 0, pixels=rendered(pose, terrain))
    result = Scanner(None).scan(frame, pose, RIG, terrain, MAP)
    assert result.detections is None
    assert not result.footprint.scanned
    assert result.ortho is not None
    area = footprint_polygon(result.footprint).area
    assert area == pytest.approx(result.ortho.mask.sum() * result.ortho.grid.gsd_m**2, rel=0.02)


def test_a_covered_lens_is_not_scanned_and_does_not_count() -> None:
    pose, terrain = pose_at(), rough()
    frame = Frame("f.jpg", 0, pixels=np.full((600, 800, 3), 2, np.uint8))
    result = Scanner(RedFinder()).scan(frame, pose, RIG, terrain, MAP)  # type: ignore[arg-type]
    assert result.detections is None
    assert result.footprint.quality == "dark"


def test_a_frame_that_sees_no_ground_has_an_empty_footprint() -> None:
    frame = Frame("f.jpg", 0, pixels=np.full((600, 800, 3), 99, np.uint8))
    result = Scanner(None).scan(frame, pose_at(pitch=50.0), RIG, rough(), MAP)
    assert result.ortho is None
    assert result.footprint.quality == "no_ground"


def test_what_cannot_be_scanned_is_refused_clearly() -> None:
    scanner = Scanner(None)
    with pytest.raises(DamagedDataError, match="no pixels"):
        scanner.scan(Frame("f.jpg", 0), pose_at(), RIG, rough(), MAP)
    small = Frame("f.jpg", 0, pixels=np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(UserError, match="800 x 600"):
        scanner.scan(small, pose_at(), RIG, rough(), MAP)


def test_sixteen_bits_and_grey_become_what_the_model_takes() -> None:
    deep = np.full((4, 5), 0x1234, np.uint16)
    assert eight_bits(deep, 3).shape == (4, 5, 3)
    assert (eight_bits(deep, 3) == 0x12).all()
    assert eight_bits(np.zeros((4, 5, 6), np.uint8), 3).shape == (4, 5, 3)


def test_delineation_grows_with_the_thing_but_not_as_fast_as_its_area() -> None:
    small, large = delineation_px(np.array([64.0, 6400.0]), 8)
    assert 1.5 < small < 3.0
    assert small < large < 10 * small


@pytest.mark.parametrize(("sigma", "quality"), [(0.0, "good"), (4.0, "blurred")])
def test_blur_is_seen_in_the_frame_itself(sigma: float, quality: str) -> None:
    image = rendered(pose_at(), PlaneTerrain(400.0))
    blurred = cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image
    assert frame_quality(blurred) == quality


@pytest.mark.real_data
def test_real_bad_frames_are_told_apart(shared_data: Any) -> None:
    folder = shared_data / "imagery"
    verdicts = {
        path.name: frame_quality(cv2.imread(str(path)))
        for path in [
            *sorted((folder / "bad_frames").glob("*.JPG")),
            *sorted((folder / "cuav_cmac_2018").glob("*.jpg"))[:3],
            folder / "brighton_beach" / "images" / "DJI_0031.JPG",
        ]
    }
    assert [v for k, v in verdicts.items() if "SHARPNESS" in k] == ["blurred"]
    assert [v for k, v in verdicts.items() if "LENS_CAP" in k] == ["dark"]
    assert {v for k, v in verdicts.items() if "SHARP" not in k and "LENS" not in k} == {"good"}


def test_the_network_sees_noisy_frames_smoothed_where_asked() -> None:
    @dataclass
    class Watcher(RedFinder):
        shown: Any = None

        def predict(self, image: np.ndarray, seen: np.ndarray) -> Any:
            self.shown = image
            return super().predict(image, seen)

    pose, terrain = pose_at(), PlaneTerrain(400.0)
    noise = np.random.default_rng(3).normal(0, 60, (600, 800, 1))
    frame = Frame("f.jpg", 0, pixels=np.clip(120 + noise, 0, 255).astype(np.uint8).repeat(3, 2))
    plain, smooth = Watcher(), Watcher()
    Scanner(plain).scan(frame, pose, RIG, terrain, MAP)  # type: ignore[arg-type]
    asked = Scanner(smooth, denoise="guided")  # type: ignore[arg-type]
    result = asked.scan(frame, pose, RIG, terrain, MAP)
    middle = np.s_[150:350, 150:350]
    assert smooth.shown[middle].std() < 0.9 * plain.shown[middle].std()
    assert "denoise" in result.stage_ms
    assert result.ortho is not None
    np.testing.assert_array_equal(result.ortho.image[middle], plain.shown[middle])
