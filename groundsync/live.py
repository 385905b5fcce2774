"""Flights that are still arriving: what the map shows of them before they are whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import CRS

from calibration.geodesy import MapFrame
from gossan.errors import GossanError
from groundsync.receive import live_rows
from onboard.keep.flight import list_flights, read_header
from onboard.keep.rows import record_of
from onboard.records import Alert, Detections, Footprint, Track

log = logging.getLogger(__name__)

Feature = dict[str, Any]


@dataclass
class ArrivingFlight:
    """What has arrived of one flight; the newest word on a frame, track or alert counts."""

    flight_id: str
    frame: MapFrame
    last_bundle: int = -1
    footprints: dict[str, Footprint] = field(default_factory=dict)
    detections: dict[str, Detections] = field(default_factory=dict)
    tracks: dict[int, Track] = field(default_factory=dict)
    alerts: dict[int, Alert] = field(default_factory=dict)

    def take(self, rows: Iterable[tuple[int, str, dict[str, Any]]]) -> None:
        """Takes rows as they arrived; one that cannot be read is logged and left out."""
        for number, kind, row in rows:
            self.last_bundle = max(self.last_bundle, number)
            if kind not in ("footprint", "detections", "track", "alert"):
                continue
            try:
                record = record_of(kind, row)
            except ValueError as error:
                log.warning("live_row_unreadable flight=%s kind=%s %s", self.flight_id, kind, error)
                continue
            match record:
                case Footprint():
                    self.footprints[record.frame] = record
                case Detections():
                    self.detections[record.frame] = record
                case Track():
                    self.tracks[record.track_id] = record
                case Alert():
                    self.alerts[record.alert_id] = record


@dataclass(frozen=True, slots=True)
class LiveState:
    """What is arriving, in short.

    Attributes:
        revision: Changes with every arrival.
        summary: One line; empty where nothing is arriving.
        alerts: The alerts, newest first.
        bounds: West, south, east, north in degrees; ``None`` where nothing was imaged.
    """

    revision: str
    summary: str
    alerts: tuple[str, ...]
    bounds: tuple[float, float, float, float] | None


class LiveFlights:
    """The flights of a project that are still arriving, kept up to date as rows come in."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self._known: dict[str, ArrivingFlight] = {}

    def state(self, exclude: Collection[str]) -> LiveState:
        """Returns what is arriving but for the flights named."""
        flights = list(self._refresh(exclude))
        outlines = [ring for f in flights for ring in _outlines(f)]
        points = np.concatenate(outlines) if outlines else np.empty((0, 2))
        bounds = (*points.min(axis=0), *points.max(axis=0)) if len(points) else None
        parts = [
            f"{f.flight_id}: {len(f.footprints)} frames, {len(f.tracks)} tracks, arriving now"
            for f in flights
        ]
        alerts = [a.text for f in flights for _, a in sorted(f.alerts.items(), reverse=True)]
        return LiveState(
            revision="-".join(str(f.last_bundle) for f in flights),
            summary="; ".join(parts),
            alerts=tuple(alerts),
            bounds=None if bounds is None else tuple(float(b) for b in bounds),  # type: ignore[arg-type]
        )

    def features(self, layer: str, exclude: Collection[str]) -> list[Feature]:
        """Returns the GeoJSON features of a layer that are arriving."""
        make = _MAKERS.get(layer)
        if make is None:
            return []
        return [feature for flight in self._refresh(exclude) for feature in make(flight)]

    def _refresh(self, exclude: Collection[str]) -> Iterator[ArrivingFlight]:
        for folder in list_flights(self.project / "flights"):
            flight_id = folder.name
            if flight_id in exclude or not (folder / "rows").is_dir():
                self._known.pop(flight_id, None)
                continue
            flight = self._known.get(flight_id) or self._open(folder)
            if flight is not None:
                self._known[flight_id] = flight
                flight.take(live_rows(self.project, flight_id, flight.last_bundle))
                yield flight

    def _open(self, folder: Path) -> ArrivingFlight | None:
        try:
            wkt = read_header(folder).crs_wkt
        except GossanError as error:
            log.warning("live_flight_unreadable folder=%s %s", folder, error)
            return None
        return ArrivingFlight(folder.name, MapFrame(CRS.from_wkt(wkt))) if wkt else None


def _outlines(flight: ArrivingFlight) -> Iterator[np.ndarray[Any, np.dtype[np.float64]]]:
    """Yields (m, 2) longitude, latitude outlines of the imaged ground."""
    for footprint in flight.footprints.values():
        if len(footprint.polygon_map_m) >= 3:
            lat, lon = flight.frame.to_geographic(*footprint.polygon_map_m.T)
            yield np.column_stack([lon, lat])


def _coverage(flight: ArrivingFlight) -> Iterator[Feature]:
    for ring in _outlines(flight):
        closed = [*ring.tolist(), ring[0].tolist()]
        yield _feature({"type": "Polygon", "coordinates": [closed]}, flight=flight.flight_id)


def _detections(flight: ArrivingFlight) -> Iterator[Feature]:
    for found in flight.detections.values():
        for i, name in enumerate(found.class_name):
            lon, lat = float(found.ground.lon_deg[i]), float(found.ground.lat_deg[i])
            if np.isfinite([lon, lat]).all():
                point = {"type": "Point", "coordinates": [lon, lat]}
                yield _feature(point, class_name=name, frame=found.frame, flight=flight.flight_id)


def _feature(geometry: dict[str, Any], **properties: Any) -> Feature:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


_MAKERS: dict[str, Callable[[ArrivingFlight], Iterator[Feature]]] = {
    "coverage": _coverage,
    "detections": _detections,
}
