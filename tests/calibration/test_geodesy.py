from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Proj, Transformer

from calibration.errors import CrsError, DatumError
from calibration.geodesy import (
    MapFrame,
    ecef_from_geodetic,
    geodetic_from_ecef,
    geoid_m,
    offset_enu,
    parse_crs,
    r_ecef_enu,
    same_horizontal,
    to_ellipsoid_m,
    utm_crs,
)

latitude = st.floats(-80, 80)
longitude = st.floats(-180, 180)
height = st.floats(-500, 9000)


@pytest.mark.parametrize(
    ("lat", "lon", "expected"),
    # posts of NGA's own 15-minute file, one of them across the date line's seam
    [(0.0, 0.0, 17.16), (4.25, 73.25, -96.24), (90.0, 0.0, 13.61), (0.0, 180.0, 21.15)],
    ids=["gulf of guinea", "maldives", "north pole", "date line"],
)
def test_geoid_heights(lat: float, lon: float, expected: float) -> None:
    assert float(geoid_m(lat, lon)) == pytest.approx(expected, abs=0.02)


@given(latitude, longitude)
def test_geoid_is_periodic_and_continuous(lat: float, lon: float) -> None:
    assert float(geoid_m(lat, lon)) == pytest.approx(float(geoid_m(lat, lon + 360.0)), abs=1e-6)
    assert float(geoid_m(lat, lon)) == pytest.approx(float(geoid_m(lat, lon + 1e-7)), abs=1e-4)


def test_geoid_of_unknown_place_is_unknown() -> None:
    assert np.isnan(geoid_m(np.nan, 3.0))


@given(latitude, longitude, height)
def test_ecef_round_trip(lat: float, lon: float, alt: float) -> None:
    back = geodetic_from_ecef(ecef_from_geodetic(lat, lon, alt))
    assert float(back[0]) == pytest.approx(lat, abs=1e-10)
    assert float((back[1] - lon + 180) % 360 - 180) == pytest.approx(0.0, abs=1e-9)
    assert float(back[2]) == pytest.approx(alt, abs=1e-6)


@given(latitude, longitude, height)
def test_offset_moves_by_the_local_vector(lat: float, lon: float, alt: float) -> None:
    enu = np.array([120.0, -80.0, 35.0])
    there = ecef_from_geodetic(*offset_enu(lat, lon, alt, enu))
    off = there - ecef_from_geodetic(lat, lon, alt)
    np.testing.assert_allclose(r_ecef_enu(lat, lon).T @ off, enu, atol=1e-6)


@given(st.floats(-75, 75), st.floats(-2.9, 2.9))
def test_map_offsets_meet_earth_centred_ones(lat: float, lon_off: float) -> None:
    """k·R/(R+h)·Rz(γ)·ENU against the same vector walked in earth-centred coordinates."""
    lon, alt = 9.0 + lon_off, 1200.0
    frame = MapFrame(utm_crs(lat, 9.0))
    enu = np.array([300.0, 400.0, 0.0])
    end_lat, end_lon, end_alt = offset_enu(lat, lon, alt, enu)
    x0, y0 = frame.to_map(lat, lon)
    dx, dy = frame.offset(frame.local(lat, lon), enu[0], enu[1], end_alt)
    x1, y1 = frame.to_map(end_lat, end_lon)
    assert np.hypot(x1 - x0 - dx[0], y1 - y0 - dy[0]) < 0.01
    drop = float(end_alt) - alt
    assert drop == pytest.approx(500.0**2 / (2 * 6.371e6), rel=0.02)


@pytest.mark.parametrize("lat", [-45.0, 3.0, 60.0])
def test_convergence_and_scale_are_projs_own(lat: float) -> None:
    frame = MapFrame(utm_crs(lat, 9.0))
    local = frame.local([lat], [11.2])
    factors = Proj(frame.crs).get_factors(11.2, lat)
    assert local.convergence_rad[0] == pytest.approx(
        np.radians(factors.meridian_convergence), abs=1e-8
    )
    assert local.scale[0] == pytest.approx(factors.meridional_scale, abs=1e-8)
    assert np.sign(local.convergence_rad[0]) == np.sign(lat)


def test_plane_map_leaves_out_scale_height_and_curvature() -> None:
    local = MapFrame(utm_crs(46, 7), "plane").local([46.0], [7.0])
    assert local.scale[0] == 1.0
    assert np.isinf(local.radius_m[0])
    assert local.convergence_rad[0] != 0.0


@pytest.mark.parametrize(
    ("lat", "lon", "epsg"),
    [
        (46.1, 7.9, 32632),
        (-33.8, 151.2, 32756),
        (0.0, -78.5, 32617),
        (60.6, 5.3, 32632),
        (78.2, 15.6, 32633),
        (10.0, 180.0, 32601),
        (10.0, 179.9, 32660),
    ],
    ids=["alps", "sydney", "quito", "bergen", "svalbard", "date line", "before it"],
)
def test_utm_zone(lat: float, lon: float, epsg: int) -> None:
    assert utm_crs(lat, lon).to_epsg() == epsg


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("+proj=utm +zone=32 +datum=WGS84", True),
        ("EPSG:32632+5773", True),
        (CRS(32632).to_wkt("WKT1_ESRI"), True),
        (CRS(32632).to_wkt("WKT1_GDAL").replace("WGS 84 / UTM zone 32N", "my map"), True),
        ("+proj=tmerc +lon_0=9 +k=0.9996 +x_0=500000 +datum=WGS84", True),
        ("EPSG:32633", False),
        (CRS(32633).to_wkt("WKT1_GDAL").replace("zone 33N", "zone 32N"), False),
        ("EPSG:4326", False),
    ],
    ids=["proj", "compound", "esri", "renamed", "tmerc", "zone", "misnamed", "geographic"],
)
def test_crs_are_compared_by_parameters(other: str, same: bool) -> None:
    assert same_horizontal(CRS(32632), CRS.from_user_input(other)) is same


def test_heights_are_brought_to_the_ellipsoid() -> None:
    lat, lon = 46.0, 7.0
    up = float(geoid_m(lat, lon))
    assert float(to_ellipsoid_m(100.0, "ellipsoid", lat, lon)) == 100.0
    assert float(to_ellipsoid_m(100.0, "egm96", lat, lon)) == pytest.approx(100.0 + up)
    assert float(to_ellipsoid_m(100.0, "takeoff", lat, lon, 512.0)) == 612.0


@pytest.mark.parametrize(
    ("datum", "word"), [("takeoff", "--dem-datum"), ("same", "datum"), ("egm2008", "us_nga_egm08")]
)
def test_heights_that_cannot_be_brought_say_what_to_do(datum: str, word: str) -> None:
    with pytest.raises(DatumError) as error:
        to_ellipsoid_m(100.0, datum, 46.0, 7.0)
    assert word in error.value.hint


def test_maps_must_be_projected_in_metres() -> None:
    with pytest.raises(CrsError, match="not projected"):
        MapFrame(CRS(4326))
    with pytest.raises(CrsError, match="not projected in metres"):
        MapFrame(CRS(2263))
    with pytest.raises(CrsError, match="no known CRS"):
        parse_crs("EPSG:notone")


def test_map_frame_agrees_with_proj() -> None:
    frame = MapFrame.utm(46.0, 7.0)
    x, y = frame.to_map([46.0, 46.1], [7.0, 7.1])
    expected = Transformer.from_crs(4326, 32632, always_xy=True).transform([7.0, 7.1], [46.0, 46.1])
    np.testing.assert_allclose([x, y], expected)
    lat, lon = frame.to_geographic(x, y)
    np.testing.assert_allclose([lat, lon], [[46.0, 46.1], [7.0, 7.1]], atol=1e-9)
