"""The ortho against exact per-pixel rays on a rough terrain, and its masks."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import shapely
from pyproj import CRS

from calibration.camera import Camera
from calibration.geodesy import MapFrame
from calibration.rig import Clock, Mount, Rig
from calibration.rotations import A_BODY_CAM, r_from_ypr
from gossan.errors import UserError
from onboard.place.coverage import footprint_polygon
from onboard.place.grid import Grid
from onboard.place.ortho import apply_map, backward_map, footprint, frame_grid, orthorectify
from onboard.place.ortho_view import FrameView
from onboard.place.terrain import GridTerrain, PlaneTerrain, Terrain
from onboard.records import Floats, Poses

MAP = MapFrame(CRS.from_epsg(32615))
X0, Y0, GROUND = 576700.0, 5188160.0, 300.0
CAMERA = Camera(
    "opencv", 800, 600, 1000.0, 1005.0, 405.3, 297.1, (-0.05, 0.02, 0.001, -0.0005, 0.001)
)
RIG = Rig(camera=CAMERA, mount=Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0)))


def pose_at(
    yaw: float = 0.0,
    pitch: float = -90.0,
    roll: float = 0.0,
    agl: float = 100.0,
    v: tuple[float, float, float] = (0.0, 0.0, 0.0),
    omega: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Poses:
    lat, lon = MAP.to_geographic([X0], [Y0])
    r = r_from_ypr(*np.radians([[yaw], [pitch], [roll]])) @ A_BODY_CAM
    nan3, zero = np.full((1, 3), np.nan), np.zeros((1, 3))
    return Poses(
        ("f.jpg",), lat, lon, np.array([GROUND + agl]), "ellipsoid", r, np.full((1, 3, 3), np.nan),
        np.array([v]) if any(v) else nan3, np.array([omega]) if any(omega) else nan3,
        zero, np.zeros(1), np.zeros(1), zero, np.zeros(1), np.array([np.nan]), ((),),
    )  # fmt: skip


def ridge_and_spikes(seed: int = 3, post: float = 1.0, size_m: float = 400.0) -> GridTerrain:
    """A rough ground with a sharp ridge, single-post spikes and a pit."""
    rng = np.random.default_rng(seed)
    n = int(size_m / post) + 1
    z = GROUND + np.zeros((n, n))
    for wave, height in ((80.0, 4.0), (25.0, 1.5), (9.0, 0.4), (4.0, 0.15)):
        a, b, c, d = rng.uniform(0, 2 * np.pi, 4)
        i, j = np.mgrid[:n, :n] * post * 2 * np.pi / wave
        z += height * np.sin(i * np.cos(a) + j * np.sin(a) + b) * np.cos(j * np.cos(c) + d)
    i, j = np.mgrid[:n, :n] * post
    for middle, lean in ((178.0, 0.3), (135.0, -0.2), (225.0, 0.1)):
        z += np.maximum(0.0, 25.0 - 6.0 * np.abs(i - middle - lean * (j - 200.0)))
    for row, col, height in ((n // 2 + 11, n // 2 + 17, 10.0), (n // 2 - 20, n // 2 - 9, 6.0)):
        z[row, col] += height
    return GridTerrain(z, X0 - size_m / 2 + 0.37, Y0 + size_m / 2 + 0.21, post, -post)


def interpolated(
    pose: Poses, terrain: Terrain, grid: Grid, rig: Rig = RIG, surface: str = "linear"
) -> tuple[Floats, Floats, np.ndarray]:
    """Returns interpolated and exact source pixels of all output pixels in the frame."""
    back = backward_map(pose, rig, terrain, MAP, grid, dem_resampling=surface)  # type: ignore[arg-type]
    guess = np.stack(back.maps(slice(None)), -1).astype(float)
    col, row = np.meshgrid(np.arange(grid.width), np.arange(grid.height))
    exact = back.source_px(np.stack([col.ravel(), row.ravel()], 1)).reshape(guess.shape)
    hidden = back.occluded()
    seen = back.inside(guess.astype(np.float32))
    return guess, exact, seen & ~(np.zeros_like(seen) if hidden is None else hidden)


CASES = [
    pytest.param(0.0, -90.0, 0.0, id="nadir"),
    pytest.param(37.0, -60.0, 0.0, id="oblique"),
    pytest.param(200.0, -75.0, 12.0, id="banked"),
]


@pytest.mark.parametrize(("yaw", "pitch", "roll"), CASES)
def test_map_deviates_at_most_half_a_pixel(yaw: float, pitch: float, roll: float) -> None:
    pose, terrain = pose_at(yaw, pitch, roll), ridge_and_spikes()
    grid = frame_grid(pose, RIG, terrain, MAP, 0.1)
    guess, exact, seen = interpolated(pose, terrain, grid)
    assert seen.mean() > 0.3
    off = np.hypot(*np.moveaxis(guess - exact, -1, 0))[seen]
    assert np.isfinite(off).all()
    assert off.max() <= 0.5, f"{off.max():.2f} px"


def test_a_blind_lattice_of_16_px_fails_the_same_test() -> None:
    pose, terrain = pose_at(), ridge_and_spikes()
    grid = frame_grid(pose, RIG, terrain, MAP, 0.1)
    _, exact, seen = interpolated(pose, terrain, grid)
    coarse = exact[::16, ::16].astype(np.float32)
    i, j = np.arange(grid.height) / 16.0, np.arange(grid.width) / 16.0
    a = np.clip(i.astype(int), 0, coarse.shape[0] - 2)
    b = np.clip(j.astype(int), 0, coarse.shape[1] - 2)
    u, v = (i - a)[:, None, None], (j - b)[None, :, None]
    north = coarse[a][:, b] * (1 - v) + coarse[a][:, b + 1] * v
    south = coarse[a + 1][:, b] * (1 - v) + coarse[a + 1][:, b + 1] * v
    off = np.hypot(*np.moveaxis(north * (1 - u) + south * u - exact, -1, 0))
    assert np.nanmax(off[seen]) > 3.0


@pytest.mark.parametrize(("yaw", "pitch", "roll"), CASES)
def test_rays_of_seen_pixels_meet_their_ground_first(yaw: float, pitch: float, roll: float) -> None:
    """Each pixel's ray, cast on its own, lands on that pixel, or the pixel is marked hidden."""
    pose, terrain = pose_at(yaw, pitch, roll), ridge_and_spikes()
    grid = frame_grid(pose, RIG, terrain, MAP, 0.2)
    back = backward_map(pose, RIG, terrain, MAP, grid)
    rng = np.random.default_rng(5)
    uv = np.stack([rng.integers(0, grid.width, 40000), rng.integers(0, grid.height, 40000)], 1)
    source = back.source_px(uv)
    inside = CAMERA.inside(source) & np.isfinite(source).all(axis=1)
    uv, source = uv[inside], source[inside]
    ground = back.view.to_ground(source)
    miss_m = np.hypot(*(ground[:, :2] - grid.to_map(uv)).T)
    really_hidden = miss_m > 0.25
    occluded = back.occluded()
    flagged = np.zeros(len(uv), bool) if occluded is None else occluded[uv[:, 1], uv[:, 0]]
    assert really_hidden.sum() > 200 or pitch == -90.0
    # Seen pixels lie where their ray lands; hidden ones are known, but for the rim of a shadow.
    assert (really_hidden & ~flagged).mean() < 0.002
    assert (flagged & ~really_hidden).mean() < 0.01
    assert np.quantile(miss_m[~flagged], 0.99) < 0.02


def test_keys_surface_deviates_at_most_a_tenth_of_a_pixel() -> None:
    pose, terrain = pose_at(20.0, -80.0), ridge_and_spikes()
    grid = frame_grid(pose, RIG, terrain, MAP, 0.1)
    guess, exact, seen = interpolated(pose, terrain, grid, surface="cubic")
    off = np.hypot(*np.moveaxis(guess - exact, -1, 0))[seen]
    assert off.max() <= 0.1, f"{off.max():.2f} px"
    assert np.abs(exact - interpolated(pose, terrain, grid)[1])[seen].max() > 0.5


def test_rolling_shutter_uses_each_row_s_own_pose() -> None:
    pose = pose_at(yaw=90.0, v=(0.0, 20.0, -1.0), omega=(0.3, -0.2, 0.4))
    rig = replace(RIG, clock=Clock(readout_s=0.03))
    terrain = ridge_and_spikes()
    grid = frame_grid(pose, rig, terrain, MAP, 0.1)
    guess, exact, seen = interpolated(pose, terrain, grid, rig)
    assert np.hypot(*np.moveaxis(guess - exact, -1, 0))[seen].max() <= 0.5
    view = FrameView.of(pose, rig, terrain, MAP)
    uv = np.array([[100.0, 5.0], [400.0, 299.5], [700.0, 590.0]])
    assert np.allclose(view.to_pixel(*view.to_ground(uv).T), uv, atol=1e-3)
    # The last row is exposed 15 ms after the middle one: 0.3 m further east.
    still = FrameView.of(pose_at(yaw=90.0), rig, terrain, MAP)
    origin, _ = view.rays_enu(np.array([[400.0, 599.0]]))
    assert origin[0, 0] - still.centre_m[0] == pytest.approx(0.3, abs=0.01)
    assert np.abs(view.to_ground(uv) - still.to_ground(uv))[2].max() > 0.2


def test_image_lands_where_it_belongs() -> None:
    """A frame painted from the map's own coordinates comes back as those coordinates."""
    pose, terrain = pose_at(30.0, -70.0), ridge_and_spikes()
    view = FrameView.of(pose, RIG, terrain, MAP)
    col, row = np.meshgrid(np.arange(0, 800, 2), np.arange(0, 600, 2))
    # uint16, so that a step of 1 is 4 mm
    ground = view.to_ground(np.stack([col.ravel(), row.ravel()], 1))
    paint = np.nan_to_num((ground[:, :2] - (X0 - 130, Y0 - 130)) / 0.004).reshape(300, 400, 2)
    pixels = np.repeat(np.repeat(paint, 2, 0), 2, 1).astype(np.uint16)
    grid = frame_grid(pose, RIG, terrain, MAP, 0.5)
    ortho = orthorectify(pixels, pose, RIG, terrain, MAP, grid)
    x, y = np.meshgrid(grid.x_m, grid.y_m)
    off = ortho.image * 0.004 + (X0 - 130, Y0 - 130) - np.stack([x, y], -1)
    far = np.hypot(*np.moveaxis(off, -1, 0))[ortho.mask]
    assert ortho.image.dtype == np.uint16
    assert np.median(far) < 0.15  # the paint is blocks of two pixels, 0.1-0.2 m
    assert (ortho.image[~ortho.mask] == 0).all()


@pytest.mark.parametrize("shape", [(600, 800), (600, 800, 3), (600, 800, 5)])
def test_any_number_of_bands_and_depth(shape: tuple[int, ...]) -> None:
    pixels = np.full(shape, 1234, np.uint16)
    grid = frame_grid(pose_at(), RIG, PlaneTerrain(GROUND), MAP, 0.5)
    for kind in ("linear", "cubic"):
        ortho = orthorectify(
            pixels, pose_at(), RIG, PlaneTerrain(GROUND), MAP, grid, resampling=kind  # type: ignore[arg-type]
        )  # fmt: skip
        assert ortho.image.shape == (grid.height, grid.width, *shape[2:])
        assert (ortho.image[ortho.mask] == 1234).all()


@pytest.mark.parametrize("shape", [(600, 800), (600, 800, 3), (600, 800, 5)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_are_those_of_the_map(shape: tuple[int, ...], dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    grid = frame_grid(pose_at(20.0), RIG, PlaneTerrain(GROUND), MAP, 0.2)
    back = backward_map(pose_at(20.0), RIG, PlaneTerrain(GROUND), MAP, grid)
    ortho = apply_map(pixels, back)
    x, y = back.maps(slice(None))
    for band in range(1 if len(shape) == 2 else shape[2]):
        one = np.ascontiguousarray(pixels if len(shape) == 2 else pixels[..., band])
        plain = cv2.remap(one, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        ours = ortho.image if len(shape) == 2 else ortho.image[..., band]
        tolerance = 1 if dtype is np.uint8 else 64
        assert np.abs(plain.astype(int) - ours)[ortho.mask].max() <= tolerance


def test_voids_and_the_dem_s_edge_are_masked() -> None:
    terrain = ridge_and_spikes(size_m=100.0)
    z = terrain.z.copy()
    z[40:50, 55:60] = np.nan
    terrain = replace(terrain, z=z)
    grid = frame_grid(pose_at(), RIG, terrain, MAP, 0.25)
    ortho = orthorectify(
        np.full((600, 800), 255, np.uint8), pose_at(), RIG, terrain, MAP, grid
    )  # fmt: skip
    x, y = np.meshgrid(grid.x_m, grid.y_m)
    ground = np.isfinite(terrain.height_m(x, y))
    assert not (ortho.mask & ~ground).any()
    inner = ortho.mask | ortho.occluded
    assert (inner[ground]).mean() > 0.9
    void = (np.abs(x - (terrain.x0 + 57)) < 2) & (np.abs(y - (terrain.y0 - 44.5)) < 4)
    assert not ortho.mask[void].any()


def test_coarse_grids_can_average_instead_of_aliasing() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (600, 800), dtype=np.uint8)
    grid = frame_grid(pose_at(), RIG, PlaneTerrain(GROUND), MAP, 1.0)
    back = backward_map(pose_at(), RIG, PlaneTerrain(GROUND), MAP, grid)
    plain, calm = apply_map(pixels, back), apply_map(pixels, back, antialias=True)
    inner = plain.mask
    assert plain.image[inner].std() > 40
    assert calm.image[inner].std() < 15
    # nothing moves: a ramp stays where it is
    ramp = np.tile(np.linspace(0, 60000, 800).astype(np.uint16), (600, 1))
    a, b = apply_map(ramp, back), apply_map(ramp, back, antialias=True)
    assert np.abs(a.image.astype(int) - b.image)[2:-2][inner[2:-2]].max() < 400


def test_footprint_has_the_occluded_ground_as_holes() -> None:
    pose, terrain = pose_at(37.0, -50.0), ridge_and_spikes()
    shape = footprint_polygon(footprint(pose, RIG, terrain, MAP))
    grid = frame_grid(pose, RIG, terrain, MAP, 0.25)
    ortho = orthorectify(np.zeros((600, 800), np.uint8), pose, RIG, terrain, MAP, grid)
    x, y = np.meshgrid(grid.x_m, grid.y_m)
    inside = shapely.contains_xy(shape, x, y)
    assert (inside == ortho.mask).mean() > 0.985
    assert ortho.occluded.sum() > 1000
    assert inside[ortho.occluded].mean() < 0.35


def test_footprint_of_a_frame_that_sees_no_ground_says_so() -> None:
    print_ = footprint(pose_at(pitch=60.0), RIG, PlaneTerrain(GROUND), MAP)
    assert print_.quality == "no_ground"
    assert len(print_.polygon_map_m) == 0
    with pytest.raises(UserError, match="no ground"):
        frame_grid(pose_at(pitch=60.0), RIG, PlaneTerrain(GROUND), MAP)


def test_flat_footprint_is_the_frame_by_hand() -> None:
    """100 m over a plane with f = 1000 px: 0.1 m to the pixel, k and R/(R+h) on the map."""
    camera = Camera("opencv", 800, 600, 1000.0, 1000.0, 399.5, 299.5)
    print_ = footprint(
        pose_at(), replace(RIG, camera=camera), PlaneTerrain(GROUND), MapFrame(MAP.crs, "plane")
    )
    assert footprint_polygon(print_).area == pytest.approx(79.9 * 59.9, rel=1e-6)
    assert print_.gsd_m == pytest.approx(0.1, rel=1e-6)


def test_wrong_image_size_is_refused() -> None:
    grid = frame_grid(pose_at(), RIG, PlaneTerrain(GROUND), MAP, 1.0)
    with pytest.raises(UserError, match="800 x 600"):
        orthorectify(
            np.zeros((10, 10), np.uint8), pose_at(), RIG, PlaneTerrain(GROUND), MAP, grid
        )  # fmt: skip
