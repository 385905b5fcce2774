"""DEM files as posts of the map, and the first ground that rays meet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from pyproj import CRS
from rasterio import Affine

from calibration.geodesy import LocalMap, MapFrame, geoid_m
from onboard.errors import DemError
from onboard.place.first_hit import BELOW_GROUND, HIT, OUTSIDE_DEM, SKY, VOID
from onboard.place.terrain import GridTerrain, PlaneTerrain, first_hit, open_dem
from onboard.records import Floats

UTM = MapFrame(CRS.from_epsg(32632))
X0, Y0 = 400_000.0, 5_100_000.0


def slope(x: Floats, y: Floats) -> Floats:
    return np.asarray(900.0 + 0.2 * (x - X0) - 0.1 * (y - Y0))


def write_dem(path: Path, crs: Any = "EPSG:32632", **more: Any) -> Path:
    """A tilted plane of 5 m posts over 1 km, in UTM."""
    tags = more.pop("tags", {})
    x = X0 + 5.0 * (np.arange(201) + 0.5)
    y = Y0 - 5.0 * (np.arange(201) + 0.5)
    z = slope(*np.meshgrid(x, y)).astype(np.float32)
    for row, col, value in more.pop("patches", []):
        z[row, col] = value
    profile = {"driver": "GTiff", "width": 201, "height": 201, "count": 1, "dtype": "float32"}
    profile |= {"crs": crs, "transform": Affine(5.0, 0.0, X0, 0.0, -5.0, Y0), **more}
    with rasterio.open(path, "w", **profile) as data:
        data.write(z, 1)
        data.update_tags(**tags)
    return path


def test_posts_are_pixel_centres_and_bilinear_between(tmp_path: Path) -> None:
    dem = open_dem(write_dem(tmp_path / "d.tif"), UTM, "ellipsoid")
    assert (dem.x0, dem.y0, dem.dx, dem.dy) == (X0 + 2.5, Y0 - 2.5, 5.0, -5.0)
    x, y = X0 + np.array([2.5, 333.3, 702.1]), Y0 - np.array([2.5, 99.9, 512.7])
    np.testing.assert_allclose(dem.height_m(x, y), slope(x, y), atol=1e-3)
    assert np.isnan(dem.height_m(X0 + 1.0, Y0 - 100.0))
    assert not dem.resampled


def test_a_window_reads_only_what_is_needed(tmp_path: Path) -> None:
    path = write_dem(tmp_path / "d.tif")
    window = (X0 + 300.0, Y0 - 400.0, X0 + 350.0, Y0 - 350.0)
    part = open_dem(path, UTM, "ellipsoid", window=window)
    assert part.z.size < 400
    assert part.label == open_dem(path, UTM, "ellipsoid").label
    assert float(part.height_m(X0 + 320.0, Y0 - 380.0)) == pytest.approx(
        slope(X0 + 320.0, Y0 - 380.0), abs=1e-3
    )


@pytest.mark.parametrize(
    ("dtype", "nodata", "value"),
    [
        ("float32", None, -9999.0),
        ("float32", -9999.0, -9999.0),
        ("float32", None, np.nan),
        ("float32", -32767.0, -32767.0),
        ("float32", None, -3.4e38),
    ],
    ids=["untagged -9999", "tagged", "nan", "-32767", "float lowest"],
)
def test_voids_are_no_heights(
    dtype: str, nodata: float | None, value: float, tmp_path: Path
) -> None:
    path = write_dem(tmp_path / "d.tif", nodata=nodata, patches=[(50, 60, value)])
    dem = open_dem(path, UTM, "ellipsoid")
    assert dem.voids == 1
    assert np.isnan(dem.height_m(X0 + 60.5 * 5, Y0 - 50.5 * 5))
    assert dem.z_range[0] > 700.0


@pytest.mark.parametrize("epsg", [32631, 4326, 25832], ids=["next zone", "geographic", "etrs89"])
def test_a_dem_in_another_crs_is_resampled_to_the_same_ground(epsg: int, tmp_path: Path) -> None:
    """A smooth surface of the place, sampled in another CRS, is the same surface on the map."""

    def surface(x: Floats, y: Floats) -> Floats:
        return np.asarray(900.0 + 30.0 * np.sin((x - X0) / 200.0) * np.cos((y - Y0) / 150.0))

    from pyproj import Transformer

    there = Transformer.from_crs(32632, epsg, always_xy=True)
    cx, cy = there.transform(X0 + 500.0, Y0 - 500.0)
    step = 5.0 if epsg != 4326 else 5e-5
    x = cx + step * (np.arange(220) - 110)
    y = cy - step * (np.arange(220) - 110)
    back = Transformer.from_crs(epsg, 32632, always_xy=True)
    z = surface(*back.transform(*np.meshgrid(x, y)))
    path = tmp_path / "other.tif"
    profile = {"driver": "GTiff", "width": 220, "height": 220, "count": 1, "dtype": "float64"}
    transform = Affine(step, 0.0, x[0] - step / 2, 0.0, -step, y[0] + step / 2)
    with rasterio.open(path, "w", crs=f"EPSG:{epsg}", transform=transform, **profile) as data:
        data.write(z, 1)
    dem = open_dem(path, UTM, "ellipsoid")
    assert dem.resampled
    rng = np.random.default_rng(0)
    px, py = X0 + 500 + rng.uniform(-150, 150, 300), Y0 - 500 + rng.uniform(-150, 150, 300)
    np.testing.assert_allclose(dem.height_m(px, py), surface(px, py), atol=0.06)


@pytest.mark.parametrize("how", ["option", "compound", "tag"])
def test_heights_above_the_geoid_become_ellipsoidal(how: str, tmp_path: Path) -> None:
    crs = "EPSG:32632+5773" if how == "compound" else "EPSG:32632"
    tags = {"VERTICAL_DATUM": "egm96"} if how == "tag" else {}
    path = write_dem(tmp_path / "d.tif", crs, tags=tags)
    dem = open_dem(path, UTM, "egm96" if how == "option" else None)
    assert dem.datum == "ellipsoid"
    x, y = X0 + 400.0, Y0 - 300.0
    expected = slope(x, y) + float(geoid_m(*UTM.to_geographic(x, y)))
    assert float(dem.height_m(x, y)) == pytest.approx(expected, abs=0.01)


def test_the_option_wins_over_the_file(tmp_path: Path) -> None:
    path = write_dem(tmp_path / "d.tif", "EPSG:32632+5773")
    assert float(open_dem(path, UTM, "ellipsoid").height_m(X0 + 400.0, Y0 - 300.0)) == (
        pytest.approx(slope(X0 + 400.0, Y0 - 300.0), abs=1e-3)
    )


@pytest.mark.parametrize("datum", ["same", "takeoff"])
def test_shared_datums_are_kept(datum: Any, tmp_path: Path) -> None:
    assert open_dem(write_dem(tmp_path / "d.tif"), UTM, datum).datum == datum


def test_feet_are_metres(tmp_path: Path) -> None:
    path = write_dem(tmp_path / "d.tif")
    with rasterio.open(path, "r+") as data:
        data.units = ("ft",)
    dem = open_dem(path, UTM, "ellipsoid")
    expected = 0.3048 * slope(X0 + 400.0, Y0 - 300.0)
    assert float(dem.height_m(X0 + 400.0, Y0 - 300.0)) == pytest.approx(expected, abs=1e-3)


def test_dems_that_cannot_be_used_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DemError, match="no DEM at") as error:
        open_dem(tmp_path / "none.tif", UTM, "ellipsoid")
    assert "--dem" in error.value.hint
    with pytest.raises(DemError, match="does not say its CRS") as error:
        open_dem(write_dem(tmp_path / "a.tif", None), UTM, "ellipsoid")
    assert "EPSG" in error.value.hint
    with pytest.raises(DemError, match="what its heights are above") as error:
        open_dem(write_dem(tmp_path / "b.tif"), UTM, None)
    assert "--dem-datum" in error.value.hint
    with pytest.raises(DemError, match="NAVD88"):
        open_dem(write_dem(tmp_path / "c.tif", "EPSG:32632+5703"), UTM, None)
    with pytest.raises(DemError, match="does not cover"):
        open_dem(write_dem(tmp_path / "d.tif"), UTM, "ellipsoid", window=(0.0, 0.0, 99.0, 99.0))
    (tmp_path / "e.tif").write_bytes(b"II*\0no raster")
    with pytest.raises(DemError, match="cannot be read"):
        open_dem(tmp_path / "e.tif", UTM, "ellipsoid")


@pytest.mark.real_data
def test_the_real_dems_ask_for_what_they_lack(shared_data: Path) -> None:
    imagery = shared_data / "imagery"
    with pytest.raises(DemError, match="CRS"):
        open_dem(imagery / "finse_oblique/time_lapse_finse_DSM_midfilled.tif", UTM, "same")
    lake = MapFrame(CRS.from_epsg(32615))
    with pytest.raises(DemError, match="above"):
        open_dem(imagery / "brighton_beach/dsm_0p25m.tif", lake, None)
    dem = open_dem(imagery / "brighton_beach/dsm_0p25m.tif", lake, "same")
    assert not dem.resampled
    assert dem.post_m == pytest.approx(0.25)


# ---- first hit -----------------------------------------------------------------------------------

FLAT = LocalMap(np.zeros(1), np.ones(1), np.full(1, np.inf))
PLANE_MAP = MapFrame(CRS.from_epsg(32632), "plane")


def hit(terrain: Any, origin: Any, ray: Any) -> Any:
    origin, ray = np.atleast_2d(np.asarray(origin, float)), np.atleast_2d(np.asarray(ray, float))
    local = FLAT.take(np.zeros(len(ray), np.int64))
    return first_hit(terrain, PLANE_MAP, np.broadcast_to(origin, ray.shape), local, ray)


def rough_grid(seed: int = 0, n: int = 241) -> GridTerrain:
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, n)).cumsum(0).cumsum(1) / 60.0 + rng.normal(0, 0.4, (n, n))
    spikes = rng.integers(0, n, (60, 2))
    z[spikes[:, 0], spikes[:, 1]] += rng.uniform(2, 25, 60)
    return GridTerrain(z, 0.0, (n - 1) * 2.0, 2.0, -2.0)


def brute_force(terrain: GridTerrain, origin: Floats, ray: Floats, far: float) -> float:
    """Slant range of the first sample under the ground, in steps of a hundredth of a post."""
    t = np.arange(0.0, far, 0.02)
    d = ray / np.linalg.norm(ray)
    x, y, h = (origin + t[:, None] * d).T
    under = h <= terrain.height_m(x, y)
    return float(t[np.argmax(under)]) if under.any() else np.nan


def test_first_hits_on_spikes_and_slopes_equal_brute_force() -> None:
    terrain = rough_grid()
    rng = np.random.default_rng(1)
    top = terrain.z_range[1]
    origin = np.array([240.0, 240.0, top + 40.0])
    azimuth, off_nadir = rng.uniform(0, 2 * np.pi, 200), np.radians(rng.uniform(0, 75, 200))
    rays = np.stack(
        [np.sin(azimuth) * np.sin(off_nadir), np.cos(azimuth) * np.sin(off_nadir),
         -np.cos(off_nadir)], axis=1,
    )  # fmt: skip
    hits = hit(terrain, origin, rays)
    expected = np.array([brute_force(terrain, origin, ray, 900.0) for ray in rays])
    seen = np.isfinite(expected)
    assert seen.sum() > 150
    np.testing.assert_array_equal(hits.status == HIT, seen)
    close = np.abs(hits.range_m[seen] - expected[seen]) < 0.05
    # a corner thinner than half a post may be passed by; nothing else may
    assert close.mean() > 0.98
    on_ground = terrain.height_m(hits.x_m, hits.y_m)
    np.testing.assert_allclose(hits.z_m[seen], on_ground[seen], atol=1e-6)


def test_the_near_side_of_a_ridge_hides_what_is_behind() -> None:
    x = np.arange(201) * 2.0
    z = np.tile(np.where((x > 150) & (x < 170), 60.0, 0.0), (201, 1))
    ridge = GridTerrain(z, 0.0, 400.0, 2.0, -2.0)
    over = hit(ridge, [20.0, 200.0, 100.0], [1.0, 0.0, -0.35])
    assert 148.0 < over.x_m[0] < 152.0
    behind = hit(ridge, [20.0, 200.0, 100.0], [1.0, 0.0, -0.25])
    assert behind.status[0] == OUTSIDE_DEM
    onto = hit(ridge, [100.0, 200.0, 100.0], [1.0, 0.0, -0.65])
    assert onto.x_m[0] == pytest.approx(100.0 + 40.0 / 0.65, abs=1e-6)


def test_rays_without_ground_say_why() -> None:
    terrain = GridTerrain(np.zeros((101, 101)), 0.0, 200.0, 2.0, -2.0)
    holed = np.zeros((101, 101))
    holed[40:60, 40:60] = np.nan
    void = GridTerrain(holed, 0.0, 200.0, 2.0, -2.0)
    cases = [
        (terrain, [100.0, 100.0, 50.0], [0.0, 0.0, 1.0], SKY),
        (terrain, [100.0, 100.0, 50.0], [1.0, 0.0, 0.01], SKY),
        (terrain, [100.0, 100.0, 50.0], [1.0, 0.0, -0.1], OUTSIDE_DEM),
        (terrain, [500.0, 100.0, 50.0], [0.0, 0.0, -1.0], OUTSIDE_DEM),
        (terrain, [100.0, 100.0, -1.0], [0.0, 0.0, -1.0], BELOW_GROUND),
        (void, [100.0, 100.0, 50.0], [0.0, 0.0, -1.0], VOID),
        (void, [60.0, 100.0, 20.0], [1.0, 0.0, -0.5], VOID),
        (PlaneTerrain(10.0), [0.0, 0.0, 5.0], [0.0, 0.0, -1.0], BELOW_GROUND),
        (PlaneTerrain(10.0), [0.0, 0.0, 50.0], [1.0, 0.0, 0.0], SKY),
    ]
    for ground, origin, ray, status in cases:
        found = hit(ground, origin, ray)
        assert found.status[0] == status
        assert np.isnan(found.x_m[0])


def test_a_camera_beside_the_dem_sees_into_it() -> None:
    terrain = GridTerrain(np.zeros((101, 101)), 0.0, 200.0, 2.0, -2.0)
    found = hit(terrain, [-50.0, 100.0, 50.0], [1.0, 0.0, -0.5])
    assert found.x_m[0] == pytest.approx(50.0)


def test_the_earth_curves_away_under_long_rays() -> None:
    lat, lon = 46.0, 9.0
    frame = MapFrame.utm(lat, lon)
    local = frame.local([lat], [lon])
    x, y = (float(v) for v in frame.to_map(lat, lon))
    ray = np.array([[1.0, 0.0, -0.1]])
    near = first_hit(PlaneTerrain(0.0), frame, np.array([[x, y, 500.0]]), local, ray)
    ground_m = near.range_m[0] * np.cos(np.arctan(0.1))
    drop = 5000.0**2 / (2 * 6.38e6)
    assert ground_m == pytest.approx(5000.0 + drop / 0.1, abs=0.5)
    n = 1201
    grid = GridTerrain(np.zeros((n, n)), x - 300.0, y + 6000.0, 10.0, -10.0)
    same = first_hit(grid, frame, np.array([[x, y, 500.0]]), local, ray)
    assert same.x_m[0] == pytest.approx(near.x_m[0], abs=1e-4)
