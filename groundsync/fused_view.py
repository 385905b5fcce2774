"""The view of a fused project that exports, report and map read."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from calibration.geodesy import MapFrame
from groundsync.belief import Belief
from groundsync.flown import Flown
from groundsync.rank import RankedTarget
from groundsync.targets import FusedTargets
from groundsync.view import (
    BeliefView,
    CoverageView,
    DetectionView,
    FlightView,
    GapView,
    ProjectView,
)
from onboard.place.ellipses import ce90_m

MIN_GAP_M2 = 4.0


def make_view(
    name: str,
    map_frame: MapFrame,
    flown: Sequence[Flown],
    fused: FusedTargets,
    ranked: tuple[RankedTarget, ...],
    belief: Belief,
    notes: Sequence[str],
) -> ProjectView:
    """Returns the view of a fused project.

    Args:
        name: The project's name.
        map_frame: Its map.
        flown: Its flights.
        fused: Their targets.
        ranked: The same, ranked.
        belief: Prior and posterior.
        notes: What a reader must know.
    """
    planned = _planned(flown, map_frame)
    coverage = [view for flight in flown for view in _coverage_of(flight)]
    return ProjectView(
        name=name,
        crs=map_frame.crs,
        targets=ranked,
        flights=tuple(_flight_view(flight, map_frame) for flight in flown),
        detections=tuple(d for flight in flown for d in _detections_of(flight)),
        coverage=tuple(coverage),
        gaps=tuple(_gaps(planned, coverage)),
        planned=planned,
        belief=BeliefView(
            belief.grid,
            belief.prior,
            belief.posterior,
            assumed=belief.study is None,
            name=belief.study.name if belief.study else "",
            evaluation=belief.study.evaluation if belief.study else {},
        ),
        left_out=tuple(sorted(fused.left_out.items())),
        notes=tuple(notes),
        software=f"gossan {version('gossan')}",
    )


def _coverage_of(flight: Flown) -> list[CoverageView]:
    """Returns what the flight imaged well: what was scanned, and what was only kept."""
    views = []
    for scanned in (True, False):
        kept = [f for f in flight.footprints if f.quality == "good" and f.scanned == scanned]
        polygons = [
            shapely.make_valid(Polygon(f.polygon_map_m, f.holes_map_m))
            for f in kept
            if len(f.polygon_map_m) >= 3
        ]
        if polygons:
            gsd_m = float(np.nanmedian([f.gsd_m for f in kept]))
            views.append(
                CoverageView(flight.row.flight_id, shapely.union_all(polygons), gsd_m, scanned)
            )
    return views


def _planned(flown: Sequence[Flown], map_frame: MapFrame) -> BaseGeometry | None:
    areas = [
        Polygon(np.column_stack(map_frame.to_map(*np.array(f.header.planned_area_deg).T)))
        for f in flown
        if len(f.header.planned_area_deg) >= 3
    ]
    return shapely.union_all(areas) if areas else None


def _gaps(planned: BaseGeometry | None, coverage: Sequence[CoverageView]) -> list[GapView]:
    if planned is None:
        return []
    imaged = shapely.union_all([c.geometry for c in coverage])
    scanned = shapely.union_all([c.geometry for c in coverage if c.scanned])
    missing = {
        "not imaged": planned.difference(imaged),
        "not scanned": planned.intersection(imaged).difference(scanned),
    }
    return [
        GapView("", part, reason)
        for reason, area in missing.items()
        for part in shapely.get_parts(area)
        if part.area >= MIN_GAP_M2
    ]


def _flight_view(flight: Flown, map_frame: MapFrame) -> FlightView:
    row, header = flight.row, flight.header
    imaged = shapely.union_all([c.geometry for c in _coverage_of(flight)])
    plan = _planned([flight], map_frame)
    share = imaged.intersection(plan).area / plan.area if plan is not None else None
    return FlightView(
        flight_id=row.flight_id,
        started_utc=row.started_utc,
        state=row.state,
        model_name=header.model_name,
        model_hash=row.model_hash,
        rig_hash=row.rig_hash,
        frames=row.frames,
        placed=row.placed,
        scanned=row.scanned,
        detections=row.detections,
        tracks=row.tracks,
        alerts=row.alerts,
        covered_km2=imaged.area / 1e6,
        planned_km2=None if plan is None else plan.area / 1e6,
        covered_share=share,
        dropped=tuple(sorted(flight.dropped.items())),
        notes=(*header.notes, *([row.note] if row.note else [])),
    )


def _detections_of(flight: Flown) -> list[DetectionView]:
    views = []
    for found in flight.detections:
        ground = found.ground
        radius_m = ce90_m(ground.cov_total_m2) if len(found) else np.zeros(0)
        views += [
            DetectionView(
                flight_id=flight.row.flight_id,
                frame=found.frame,
                number=i,
                class_name=name,
                probability=float(found.probability[i]),
                calibrated=found.calibrated,
                ood=bool(found.ood[i]),
                lat_deg=float(ground.lat_deg[i]),
                lon_deg=float(ground.lon_deg[i]),
                ce90_m=float(radius_m[i]),
                area_m2=float(found.area_m2[i]),
                model_hash=found.model_hash,
            )
            for i, name in enumerate(found.class_name)
            if np.isfinite(ground.lat_deg[i])
        ]
    return views
