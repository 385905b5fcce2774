"""The survey that the simulated aircraft flies: parallel lines over a rectangle of the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from calibration.geodesy import MapFrame
from onboard.simulator.errors import SimulatorError

Floats = NDArray[np.float64]

LegKind = Literal["climb", "transit", "line", "land"]
RUN_IN_M = 25.0
"""Lines are entered this far before their first exposure."""


@dataclass(frozen=True, slots=True)
class FlightPlan:
    """A survey grid whose lines run along map east, flown to and fro.

    Attributes:
        centre_xy_m: Middle of the lines on the map.
        lines: How many.
        line_m: Length of each.
        spacing_m: Between neighbours.
        height_m: Flying height above the mean ground.
        speed_mps: Ground speed on the lines.
        trigger_m: Distance between exposures.
    """

    centre_xy_m: tuple[float, float]
    lines: int = 3
    line_m: float = 200.0
    spacing_m: float = 45.0
    height_m: float = 80.0
    speed_mps: float = 8.0
    trigger_m: float = 16.0

    def __post_init__(self) -> None:
        if self.lines < 1 or self.line_m < self.trigger_m:
            raise SimulatorError(
                f"{self.lines} lines of {self.line_m:g} m with an exposure every "
                f"{self.trigger_m:g} m make no survey",
                "take at least one line that is longer than the trigger distance",
            )

    @property
    def line_ends_m(self) -> Floats:
        """(lines, 2, 2) map start and end of each line as flown."""
        x, y = self.centre_xy_m
        ends = np.empty((self.lines, 2, 2))
        for k in range(self.lines):
            north = y + (k - (self.lines - 1) / 2) * self.spacing_m
            half = self.line_m / 2 * (1 if k % 2 == 0 else -1)
            ends[k] = (x - half, north), (x + half, north)
        return ends

    @property
    def home_xy_m(self) -> tuple[float, float]:
        """Where it takes off and lands: beside the start of the first line."""
        start = self.line_ends_m[0, 0]
        return float(start[0]) - 20.0, float(start[1]) - 15.0

    @property
    def area_m(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the planned area: the lines, half a spacing beyond."""
        x, y = self.centre_xy_m
        high = (self.lines - 1) * self.spacing_m / 2 + self.spacing_m / 2
        return x - self.line_m / 2, y - high, x + self.line_m / 2, y + high

    def duration_s(self) -> float:
        """Returns about how long the flight takes, take-off to landing."""
        return self.lines * (self.line_m / self.speed_mps + 14.0) + self.height_m / 2.0 + 45.0


def plan_for_minutes(centre_xy_m: tuple[float, float], minutes: float, **given: Any) -> FlightPlan:
    """Returns the plan with as many lines as fit into a flight of this length."""
    lines = 1
    while FlightPlan(centre_xy_m, lines=lines + 1, **given).duration_s() <= minutes * 60:
        lines += 1
    return FlightPlan(centre_xy_m, lines=lines, **given)


def plan_geojson(plan: FlightPlan, map_frame: MapFrame) -> dict[str, Any]:
    """Returns the planned area (a polygon) and the lines as GeoJSON in WGS84."""
    west, south, east, north = plan.area_m
    ring = [(west, south), (east, south), (east, north), (west, north), (west, south)]
    features = [_feature("Polygon", [_lonlat(ring, map_frame)], role="planned_area")]
    for k, ends in enumerate(plan.line_ends_m):
        features.append(_feature("LineString", _lonlat(ends, map_frame), role="line", line=k + 1))
    return {"type": "FeatureCollection", "features": features}


def _feature(kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def _lonlat(points: Any, map_frame: MapFrame) -> list[list[float]]:
    xy = np.asarray(points, dtype=float)
    lat, lon = map_frame.to_geographic(xy[:, 0], xy[:, 1])
    return [[round(float(a), 9), round(float(b), 9)] for a, b in zip(lon, lat, strict=True)]
