"""A flight of the project read whole, on the project's map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS

from calibration.geodesy import MapFrame
from groundsync.catalogue import FlightRow
from groundsync.targets import FlightTracks
from onboard.keep.flight import FlightHeader
from onboard.keep.read import FlightReader
from onboard.records import Detections, Footprint, Track


@dataclass(frozen=True)
class Flown:
    """One flight, read whole.

    Attributes:
        row: Its row in the catalogue.
        header: Its identity.
        tracks: Its tracks.
        footprints: What its frames imaged, on the project's map.
        detections: What was seen in each scanned frame.
        dropped: What was dropped, by reason.
    """

    row: FlightRow
    header: FlightHeader
    tracks: tuple[Track, ...]
    footprints: tuple[Footprint, ...]
    detections: tuple[Detections, ...]
    dropped: Counter[str]

    @property
    def for_targets(self) -> FlightTracks:
        """Its tracks as the fusion of targets takes them."""
        calibrated = bool(self.detections) and all(d.calibrated for d in self.detections)
        return FlightTracks(self.row.flight_id, self.row.model_hash, calibrated, self.tracks)


def read_flown(project: Path, row: FlightRow, map_frame: MapFrame) -> Flown:
    """Returns a flight read whole, its footprints on the project's map."""
    with FlightReader(project / row.folder) as reader:
        dropped: Counter[str] = Counter()
        for record in reader.frames():
            dropped.update(record.dropped)
        footprints = _on_map(reader.footprints(), CRS.from_wkt(row.crs_wkt), map_frame)
        return Flown(
            row,
            reader.header,
            tuple(reader.tracks()),
            footprints,
            tuple(reader.detections()),
            dropped,
        )


def _on_map(
    footprints: Sequence[Footprint], crs: CRS, map_frame: MapFrame
) -> tuple[Footprint, ...]:
    """Returns footprints on the project's map, moved there where the flight had another."""
    if crs.equals(map_frame.crs):
        return tuple(footprints)
    own = MapFrame(crs)

    def moved(ring: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(map_frame.to_map(*own.to_geographic(*ring.T)))

    return tuple(
        Footprint(
            f.frame,
            moved(f.polygon_map_m),
            tuple(moved(hole) for hole in f.holes_map_m),
            f.gsd_m,
            f.quality,
            f.scanned,
        )
        for f in footprints
    )
