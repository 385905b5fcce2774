"""The Earth: height datums, geoid heights, map projections, local frames.

Heights are ellipsoidal (WGS84) inside. A map offset of a local east-north-up vector is
k·R/(R+h)·Rz(γ)·ENU with k the point scale factor, γ the convergence (grid yaw = true yaw − γ),
R the Gaussian mean radius and h the ground's ellipsoidal height; ``model="plane"`` leaves out k,
the height factor and the Earth's curvature.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError as ProjCrsError
from pyproj.exceptions import ProjError

from calibration.errors import CrsError, DatumError

Floats = NDArray[np.float64]
MapModel = Literal["earth", "plane"]

WGS84_A_M = 6378137.0
WGS84_F = 1.0 / 298.257223563
WGS84_E2 = WGS84_F * (2.0 - WGS84_F)
HEIGHT_DATUMS = ("ellipsoid", "egm96", "egm2008", "takeoff", "same")

CONVERGENCE_STEP_DEG = 1e-4
EGM96_FILE = Path(__file__).with_name("egm96.npz")


# ---- heights -------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _egm96() -> tuple[Floats, Floats]:
    """Returns the corner (south, west, steps, degrees) and the (721, 1441) grid, closed in lon."""
    with np.load(EGM96_FILE) as stored:
        low, high = stored["planes"].astype(np.uint16)
        corner = stored["corner"].astype(np.float64)
    delta = (low | (high << 8)).astype(np.uint16).view(np.int16).astype(np.int64)
    grid = np.cumsum(np.cumsum(delta, axis=0), axis=1) / 100.0
    return corner, np.hstack([grid, grid[:, :1]])


def geoid_m(lat_deg: ArrayLike, lon_deg: ArrayLike) -> Floats:
    """Returns the EGM96 geoid's height above the WGS84 ellipsoid, bilinear in the 15′ grid, metres.

    NaN where the position is NaN.
    """
    (south, west, step_lat, step_lon), grid = _egm96()
    lat, lon = np.broadcast_arrays(np.asarray(lat_deg, float), np.asarray(lon_deg, float))
    row = np.clip((lat - south) / step_lat, 0.0, grid.shape[0] - 1.0)
    col = np.mod(lon - west, 360.0) / step_lon
    unknown = ~(np.isfinite(row) & np.isfinite(col))
    row, col = np.where(unknown, 0.0, row), np.where(unknown, 0.0, col)
    i = np.minimum(row.astype(np.int64), grid.shape[0] - 2)
    j = np.minimum(col.astype(np.int64), grid.shape[1] - 2)
    u, v = row - i, col - j
    south_row = grid[i, j] * (1 - v) + grid[i, j + 1] * v
    north_row = grid[i + 1, j] * (1 - v) + grid[i + 1, j + 1] * v
    return np.asarray(np.where(unknown, np.nan, south_row * (1 - u) + north_row * u))


def to_ellipsoid_m(
    alt_m: ArrayLike,
    datum: str,
    lat_deg: ArrayLike,
    lon_deg: ArrayLike,
    takeoff_alt_m_ellipsoid: float | None = None,
) -> Floats:
    """Returns heights above the WGS84 ellipsoid, metres.

    Args:
        alt_m: Heights above ``datum``.
        datum: ``ellipsoid``, ``egm96``, ``egm2008`` or ``takeoff``.
        lat_deg: Where, WGS84.
        lon_deg: Where, WGS84.
        takeoff_alt_m_ellipsoid: Height of the take-off point, needed for ``takeoff``.

    Raises:
        DatumError: The datum cannot be converted with what is known.
    """
    alt = np.asarray(alt_m, dtype=np.float64)
    if datum == "ellipsoid":
        return alt
    if datum == "egm96":
        return np.asarray(alt + geoid_m(lat_deg, lon_deg))
    if datum == "egm2008":
        return _from_egm2008(alt, lat_deg, lon_deg)
    if datum == "takeoff" and takeoff_alt_m_ellipsoid is not None:
        return np.asarray(alt + takeoff_alt_m_ellipsoid)
    if datum == "takeoff":
        raise DatumError(
            "heights above the take-off point, whose own height is not known",
            "give heights with a datum, or a DEM that shares their datum: --dem-datum takeoff",
        )
    raise DatumError(
        f"heights above '{datum}' cannot be turned into ellipsoidal heights",
        f"name their datum: one of {', '.join(HEIGHT_DATUMS)}",
    )


def _from_egm2008(alt_m: Floats, lat_deg: ArrayLike, lon_deg: ArrayLike) -> Floats:
    """Returns ellipsoidal heights through PROJ's EGM2008 grid, which the user provides."""
    lat, lon, alt = np.broadcast_arrays(
        np.asarray(lat_deg, float), np.asarray(lon_deg, float), alt_m
    )
    step = "+proj=vgridshift +grids=us_nga_egm08_25.tif +multiplier=1"
    pipeline = f"+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad +step {step}"
    try:
        _, _, up = Transformer.from_pipeline(pipeline).transform(lon, lat, alt, errcheck=True)
    except ProjError as error:
        raise DatumError(
            f"heights above EGM2008 need PROJ's grid us_nga_egm08_25.tif: {error}",
            "put us_nga_egm08_25.tif into PROJ's user folder (pyproj.datadir.get_user_data_dir())",
        ) from error
    return np.asarray(up, dtype=np.float64)


# ---- earth-centred -------------------------------------------------------------------------------


def mean_radius_m(lat_deg: ArrayLike) -> Floats:
    """Returns the Gaussian mean radius of curvature √(MN) at a latitude, metres."""
    w2 = 1.0 - WGS84_E2 * np.sin(np.radians(np.asarray(lat_deg, float))) ** 2
    return np.asarray(WGS84_A_M * np.sqrt(1.0 - WGS84_E2) / w2)


def r_ecef_enu(lat_deg: ArrayLike, lon_deg: ArrayLike) -> Floats:
    """Returns the (..., 3, 3) rotations local east-north-up → earth-centred."""
    lat, lon = np.broadcast_arrays(np.radians(lat_deg), np.radians(lon_deg))
    sp, cp, sl, cl = np.sin(lat), np.cos(lat), np.sin(lon), np.cos(lon)
    zero = np.zeros_like(sp)
    east = np.stack([-sl, cl, zero], axis=-1)
    north = np.stack([-sp * cl, -sp * sl, cp], axis=-1)
    up = np.stack([cp * cl, cp * sl, sp], axis=-1)
    return np.stack([east, north, up], axis=-1)


def ecef_from_geodetic(lat_deg: ArrayLike, lon_deg: ArrayLike, alt_m: ArrayLike) -> Floats:
    """Returns (..., 3) earth-centred coordinates of WGS84 positions, metres."""
    lat, lon, alt = np.broadcast_arrays(
        np.radians(lat_deg), np.radians(lon_deg), np.asarray(alt_m, float)
    )
    n = WGS84_A_M / np.sqrt(1.0 - WGS84_E2 * np.sin(lat) ** 2)
    flat = (n + alt) * np.cos(lat)
    return np.stack(
        [flat * np.cos(lon), flat * np.sin(lon), (n * (1.0 - WGS84_E2) + alt) * np.sin(lat)],
        axis=-1,
    )


def geodetic_from_ecef(xyz_m: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Returns latitude, longitude in degrees and ellipsoidal height in metres (Bowring 1976)."""
    x, y, z = np.moveaxis(np.asarray(xyz_m, float), -1, 0)
    p = np.hypot(x, y)
    b = WGS84_A_M * (1.0 - WGS84_F)
    beta = np.arctan2(z * WGS84_A_M, p * b)
    ep2 = WGS84_E2 / (1.0 - WGS84_E2)
    lat = np.zeros_like(p)
    for _ in range(3):
        lat = np.arctan2(
            z + ep2 * b * np.sin(beta) ** 3, p - WGS84_E2 * WGS84_A_M * np.cos(beta) ** 3
        )
        beta = np.arctan2((1.0 - WGS84_F) * np.sin(lat), np.cos(lat))
    n = WGS84_A_M / np.sqrt(1.0 - WGS84_E2 * np.sin(lat) ** 2)
    alt = p * np.cos(lat) + z * np.sin(lat) - WGS84_A_M**2 / n
    return np.degrees(lat), np.degrees(np.arctan2(y, x)), alt


def offset_enu(
    lat_deg: ArrayLike, lon_deg: ArrayLike, alt_m: ArrayLike, enu_m: ArrayLike
) -> tuple[Floats, Floats, Floats]:
    """Returns the WGS84 position (lat, lon, ellipsoidal height) moved by local ENU vectors."""
    start = ecef_from_geodetic(lat_deg, lon_deg, alt_m)
    turn = r_ecef_enu(lat_deg, lon_deg)
    moved = start + (turn @ np.asarray(enu_m, float)[..., None])[..., 0]
    return geodetic_from_ecef(moved)


# ---- maps ----------------------------------------------------------------------------------------


def utm_crs(lat_deg: float, lon_deg: float) -> CRS:
    """Returns the WGS84 UTM CRS whose zone holds a position (Norway's and Svalbard's included)."""
    lon = (lon_deg + 180.0) % 360.0 - 180.0
    zone = int((lon + 180.0) // 6.0) + 1
    if 56.0 <= lat_deg < 64.0 and 3.0 <= lon < 12.0:
        zone = 32
    if 72.0 <= lat_deg < 84.0 and 0.0 <= lon < 42.0:
        zone = 31 + 2 * int((lon + 3.0) // 12.0)
    return CRS.from_epsg((32600 if lat_deg >= 0 else 32700) + zone)


def horizontal_crs(crs: CRS) -> CRS:
    """Returns the horizontal part of a CRS (itself, where it is not compound)."""
    current = crs.source_crs if crs.is_bound and crs.source_crs else crs
    for part in current.sub_crs_list:
        if part.is_projected or part.is_geographic:
            return horizontal_crs(part)
    return current.to_2d() if len(current.axis_info) == 3 else current


@lru_cache(maxsize=64)
def _parameters(wkt: str) -> tuple[object, ...]:
    crs = CRS.from_wkt(wkt)
    base = crs.geodetic_crs
    ellipsoid = crs.ellipsoid
    operation = crs.coordinate_operation
    values = sorted(
        (p.code or p.name.lower(), _si(p.value, p.unit_conversion_factor))
        for p in (operation.params if operation else [])
    )
    method = (operation.method_code or operation.method_name.lower()) if operation else ""
    axes = tuple(round(axis.unit_conversion_factor, 12) for axis in crs.axis_info[:2])
    return (
        crs.is_projected,
        str(method),
        tuple((str(code), round(value, 9)) for code, value in values),
        axes,
        round(ellipsoid.semi_major_metre, 4) if ellipsoid else None,
        round(ellipsoid.inverse_flattening, 6) if ellipsoid else None,
        _datum_key(base),
    )


def _si(value: float | str, factor: float | None) -> float:
    return float(value) * float(factor or 1.0)


def _datum_key(base: CRS | None) -> str:
    """Returns a datum's name without the punctuation and prefixes in which files differ."""
    if base is None or base.datum is None:
        return ""
    letters = "".join(c for c in base.datum.name.lower() if c.isalnum())
    if letters.startswith(("worldgeodeticsystem1984", "wgs84", "wgs1984", "dwgs1984")):
        return "wgs84"
    return letters.removeprefix("d").removesuffix("ensemble")


def same_horizontal(a: CRS, b: CRS) -> bool:
    """Returns whether two CRSs put x and y at the same place: by their parameters, never by name.

    Axis order is not compared (coordinates here are always x, y); heights are left out.
    """
    first, second = horizontal_crs(a), horizontal_crs(b)
    return first == second or _parameters(first.to_wkt()) == _parameters(second.to_wkt())


def parse_crs(text: str, what: str = "--crs") -> CRS:
    """Returns the CRS that a user named (EPSG code, WKT, PROJ string).

    Raises:
        CrsError: It is no CRS that PROJ knows.
    """
    try:
        return CRS.from_user_input(text)
    except ProjCrsError as error:
        raise CrsError(f"{what} {text!r} is no known CRS", "for example EPSG:32632") from error


@lru_cache(maxsize=64)
def _transformers(wkt: str) -> tuple[Transformer, Transformer]:
    crs = CRS.from_wkt(wkt)
    return (
        Transformer.from_crs(4326, crs, always_xy=True),
        Transformer.from_crs(crs, 4326, always_xy=True),
    )


@dataclass(frozen=True, slots=True)
class LocalMap:
    """How a map lies at n places.

    Attributes:
        convergence_rad: (n,) γ, grid yaw = true yaw − γ.
        scale: (n,) point scale factor k (1 on a plane map).
        radius_m: (n,) Gaussian mean radius R (infinite on a plane map).
    """

    convergence_rad: Floats
    scale: Floats
    radius_m: Floats

    def take(self, index: NDArray[np.int64]) -> LocalMap:
        """Returns the places at these indices."""
        return LocalMap(self.convergence_rad[index], self.scale[index], self.radius_m[index])


@dataclass(frozen=True, slots=True)
class MapFrame:
    """The projected map on which everything lies, x east and y north in metres.

    Attributes:
        crs: A projected CRS in metres; its horizontal part is used.
        model: ``earth``, or ``plane`` for poses and DEM of one photogrammetric frame.
    """

    crs: CRS
    model: MapModel = "earth"
    _wkt: str = ""

    def __post_init__(self) -> None:
        flat = horizontal_crs(self.crs)
        if not flat.is_projected or any(
            abs(axis.unit_conversion_factor - 1.0) > 1e-9 for axis in flat.axis_info[:2]
        ):
            raise CrsError(
                f"the map's CRS '{self.crs.name}' is not projected in metres",
                "name a projected CRS, for example the UTM zone: --crs EPSG:32632",
            )
        object.__setattr__(self, "crs", flat)
        object.__setattr__(self, "_wkt", flat.to_wkt())

    @classmethod
    def utm(cls, lat_deg: float, lon_deg: float, model: MapModel = "earth") -> MapFrame:
        """Returns the map of the UTM zone of a position."""
        return cls(utm_crs(lat_deg, lon_deg), model)

    def to_map(self, lat_deg: ArrayLike, lon_deg: ArrayLike) -> tuple[Floats, Floats]:
        """Returns map x, y in metres of WGS84 positions."""
        x, y = _transformers(self._wkt)[0].transform(
            np.asarray(lon_deg, float), np.asarray(lat_deg, float)
        )
        return _finite(x), _finite(y)

    def to_geographic(self, x_m: ArrayLike, y_m: ArrayLike) -> tuple[Floats, Floats]:
        """Returns WGS84 latitude, longitude in degrees of map positions."""
        lon, lat = _transformers(self._wkt)[1].transform(
            np.asarray(x_m, float), np.asarray(y_m, float)
        )
        return _finite(lat), _finite(lon)

    def local(self, lat_deg: ArrayLike, lon_deg: ArrayLike) -> LocalMap:
        """Returns convergence, scale and radius at n positions, by central differences."""
        lat = np.atleast_1d(np.asarray(lat_deg, float))
        lon = np.atleast_1d(np.asarray(lon_deg, float))
        d = CONVERGENCE_STEP_DEG
        step_n = np.array([d, -d, 0.0, 0.0])[:, None]
        step_e = np.array([0.0, 0.0, d, -d])[:, None]
        x, y = self.to_map(lat + step_n, lon + step_e)
        w2 = 1.0 - WGS84_E2 * np.sin(np.radians(lat)) ** 2
        north_m = 2.0 * np.radians(d) * WGS84_A_M * (1.0 - WGS84_E2) / w2**1.5
        east_m = 2.0 * np.radians(d) * WGS84_A_M * np.cos(np.radians(lat)) / np.sqrt(w2)
        xn, yn = (x[0] - x[1]) / north_m, (y[0] - y[1]) / north_m
        xe, ye = (x[2] - x[3]) / east_m, (y[2] - y[3]) / east_m
        convergence = np.arctan2(ye - xn, xe + yn)
        if self.model == "plane":
            return LocalMap(convergence, np.ones_like(lat), np.full_like(lat, np.inf))
        return LocalMap(convergence, np.sqrt(np.abs(xe * yn - xn * ye)), mean_radius_m(lat))

    def offset(
        self, local: LocalMap, east_m: ArrayLike, north_m: ArrayLike, ground_alt_m: ArrayLike
    ) -> tuple[Floats, Floats]:
        """Returns map offsets k·R/(R+h)·Rz(γ)·(east, north), metres.

        Args:
            local: The map at the n places of origin.
            east_m: (n,) true east.
            north_m: (n,) true north.
            ground_alt_m: (n,) ellipsoidal height h at which the offset lies.
        """
        factor = local.scale / (1.0 + np.asarray(ground_alt_m, float) / local.radius_m)
        c, s = np.cos(local.convergence_rad) * factor, np.sin(local.convergence_rad) * factor
        east, north = np.asarray(east_m, float), np.asarray(north_m, float)
        return np.asarray(c * east - s * north), np.asarray(s * east + c * north)

    def enu_from_map_rotation(self, local: LocalMap) -> Floats:
        """Returns the (n, 2, 2) rotations of map vectors into true east, north: Rz(−γ)."""
        c, s = np.cos(local.convergence_rad), np.sin(local.convergence_rad)
        return np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], axis=-2)


def _finite(values: ArrayLike) -> Floats:
    """Returns PROJ's output with its infinities (outside the projection) as NaN."""
    out = np.asarray(values, dtype=np.float64)
    return np.asarray(np.where(np.isfinite(out), out, np.nan))
