"""What a survey is flown over: map, ground and planned area, from settings and a first position."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from shapely.errors import ShapelyError
from shapely.geometry import MultiPolygon, Polygon, shape
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

from calibration.geodesy import MapFrame, utm_crs
from calibration.rig import Rig
from gossan.errors import SettingsError
from onboard.place.terrain import PlaneTerrain, Terrain, open_dem
from onboard.records import HeightDatum

PLANE_SIGMA_M = 5.0
"""σ of the ground's height where a plane at the take-off height stands in for a DEM."""


@dataclass(frozen=True, slots=True)
class SurveyScene:
    """Map, ground and plan of one flight.

    Attributes:
        rig: The camera and its mount.
        map_frame: The map that everything is placed in.
        terrain: The ground.
        planned_area: What should be imaged, map metres; ``None`` where no plan is known.
        notes: What concerns the whole flight.
    """

    rig: Rig
    map_frame: MapFrame
    terrain: Terrain
    planned_area: BaseGeometry | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known of the ground before the first position.

    Attributes:
        dem: A GeoTIFF, or ``None`` for a plane.
        datum: What its heights are above, where the file does not say.
        sigma_m: σ of its heights; ``None`` takes the file's or the rig's.
    """

    dem: Path | None = None
    datum: HeightDatum | None = None
    sigma_m: float | None = None


def map_near(lat_deg: float, lon_deg: float) -> MapFrame:
    """Returns the UTM map of a place."""
    return MapFrame(utm_crs(lat_deg, lon_deg))


def make_scene(
    rig: Rig,
    map_frame: MapFrame,
    ground: Ground,
    takeoff: tuple[float, HeightDatum],
    plan: tuple[tuple[float, float], ...] | BaseGeometry | None = None,
) -> SurveyScene:
    """Returns the scene of a flight.

    Args:
        rig: The camera and its mount.
        map_frame: The map.
        ground: The DEM, or none.
        takeoff: Height of the take-off place and its datum: the plane where there is no DEM.
        plan: The planned area in degrees (x longitude, y latitude), or its outline as (lat, lon).

    Raises:
        DemError: The DEM cannot be used.
    """
    area = None if plan is None else to_map(as_area(plan), map_frame)
    if ground.dem is not None:
        said = rig.defaults  # a stated sigma is the whole one; the rig's has a level besides
        sigma_m, level_m = (
            (said.sigma_dem_m, said.dem_level_m)
            if ground.sigma_m is None
            else (ground.sigma_m, 0.0)
        )
        terrain = open_dem(ground.dem, map_frame, ground.datum, sigma_m, level_sigma_m=level_m)
        return SurveyScene(rig, map_frame, terrain, area)
    alt_m, datum = takeoff
    sigma_m = PLANE_SIGMA_M if ground.sigma_m is None else ground.sigma_m
    plane = PlaneTerrain(alt_m, datum, sigma_m)
    note = (
        f"no DEM: the ground is taken as a plane at the take-off height ({alt_m:.1f} m {datum},"
        f" sigma {sigma_m:g} m)"
    )
    return SurveyScene(rig, map_frame, plane, area, (note,))


def read_plan(path: Path) -> BaseGeometry:
    """Returns the planned area of a GeoJSON file in degrees: all its polygons together.

    Raises:
        SettingsError: It cannot be read, or holds no polygon.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"[survey] plan {path} cannot be read: {error}", "give GeoJSON"
        ) from error
    try:
        features = document.get("features", [document])
        shapes = [shape(item.get("geometry", item)) for item in features]
    except (ShapelyError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"[survey] plan {path} is no GeoJSON: {error}", "give GeoJSON"
        ) from error
    areas = [item for item in shapes if isinstance(item, (Polygon, MultiPolygon))]
    if not areas:
        raise SettingsError(f"[survey] plan {path} holds no polygon", "draw the area to be imaged")
    return unary_union(areas)


def outline_deg(area: BaseGeometry) -> tuple[tuple[float, float], ...]:
    """Returns the outline of the largest part of an area in degrees, as (lat, lon) pairs."""
    parts = [p for p in getattr(area, "geoms", [area]) if isinstance(p, Polygon)]
    largest = max(parts, key=lambda p: p.area)
    return tuple((float(lat), float(lon)) for lon, lat in largest.exterior.coords)


def as_area(plan: tuple[tuple[float, float], ...] | BaseGeometry) -> BaseGeometry:
    """Returns an area in degrees (x longitude) from itself or from (lat, lon) pairs."""
    if isinstance(plan, BaseGeometry):
        return plan
    return Polygon([(lon, lat) for lat, lon in plan])


def to_map(area: BaseGeometry, map_frame: MapFrame) -> BaseGeometry:
    """Returns an area in degrees (x longitude) in map metres."""
    from shapely import transform

    def project(lon_lat: np.ndarray) -> np.ndarray:
        x, y = map_frame.to_map(lon_lat[:, 1], lon_lat[:, 0])
        return np.stack([np.asarray(x), np.asarray(y)], axis=1)

    return transform(area, project)
