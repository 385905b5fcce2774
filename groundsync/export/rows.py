"""What the exports say of each target, detection and polygon: the same names in every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from shapely import Point, Polygon
from shapely.geometry.base import BaseGeometry

from calibration.geodesy import MapFrame
from groundsync.rank import RankedTarget
from groundsync.view import CoverageView, DetectionView, GapView, ProjectView

ELLIPSE_POINTS = 72

Value = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Sheet:
    """One layer of an export.

    Attributes:
        name: Layer name.
        about: What is in it, one sentence.
        kind: ``Point`` or ``MultiPolygon``.
        columns: Names and types of the fields, in order.
        rows: n rows of field values.
        shapes: n geometries in the project's CRS.
    """

    name: str
    about: str
    kind: str
    columns: tuple[tuple[str, type], ...]
    rows: tuple[tuple[Value, ...], ...]
    shapes: tuple[BaseGeometry, ...]

    def table(self) -> dict[str, list[Value]]:
        """Returns the fields as columns."""
        names = [name for name, _ in self.columns]
        return {name: [row[i] for row in self.rows] for i, name in enumerate(names)}


TARGET_COLUMNS: tuple[tuple[str, type], ...] = (
    ("rank", int),
    ("target_id", str),
    ("class_name", str),
    ("score", float),
    ("probability", float),
    ("calibrated", bool),
    ("prior", float),
    ("prior_assumed", bool),
    ("posterior", float),
    ("posterior_sigma", float),
    ("lat_deg", float),
    ("lon_deg", float),
    ("alt_m", float),
    ("height_datum", str),
    ("x_m", float),
    ("y_m", float),
    ("var_e_m2", float),
    ("var_n_m2", float),
    ("cov_en_m2", float),
    ("ce90_m", float),
    ("ellipse_major_m", float),
    ("ellipse_minor_m", float),
    ("ellipse_azimuth_deg", float),
    ("area_m2", float),
    ("looks", int),
    ("misses", int),
    ("flights", str),
    ("coverage", float),
    ("ood", bool),
    ("remedy", str),
    ("reasons", str),
    ("before_next", str),
    ("evidence", str),
)


def target_row(one: RankedTarget) -> tuple[Value, ...]:
    """Returns the fields of ``TARGET_COLUMNS``; lengths to mm, probabilities as they are."""
    t, cov = one.target, one.target.cov_total_m2
    major, minor, azimuth = t.ellipse90
    evidence = ", ".join(
        f"{e.flight_id}/{e.track_id} ({e.looks} looks, {e.best_frame})" for e in t.evidence
    )
    return (
        one.rank,
        t.target_id,
        t.class_name,
        round(one.score, 6),
        t.probability,
        t.calibrated,
        one.place.prior,
        one.place.prior_assumed,
        one.posterior,
        one.posterior_sigma,
        round(t.lat_deg, 9),
        round(t.lon_deg, 9),
        round(t.alt_m, 3),
        t.height_datum,
        round(t.x_m, 3),
        round(t.y_m, 3),
        float(cov[0, 0]),
        float(cov[1, 1]),
        float(cov[0, 1]),
        round(t.ce90_m, 3),
        round(major, 3),
        round(minor, 3),
        round(azimuth, 2),
        round(t.area_m2, 3),
        t.looks,
        t.misses,
        ", ".join(t.flights),
        round(one.place.coverage, 4),
        t.ood,
        t.remedy,
        "; ".join(one.reasons),
        one.before_next,
        evidence,
    )


def target_properties(one: RankedTarget) -> dict[str, Any]:
    """Returns a target's fields by name; ``reasons`` and ``evidence`` as lists."""
    names = [name for name, _ in TARGET_COLUMNS]
    properties: dict[str, Any] = dict(zip(names, target_row(one), strict=True))
    properties["reasons"] = list(one.reasons)
    properties["flights"] = list(one.target.flights)
    properties["evidence"] = [
        {
            "flight_id": e.flight_id,
            "track_id": e.track_id,
            "model_hash": e.model_hash,
            "looks": e.looks,
            "misses": e.misses,
            "probability": e.probability,
            "calibrated": e.calibrated,
            "ce90_m": round(e.ce90_m, 3),
            "best_frame": e.best_frame,
        }
        for e in one.target.evidence
    ]
    return properties


def ellipse_polygon(one: RankedTarget, map_frame: MapFrame) -> Polygon:
    """Returns the outline that holds 90 % of the target's position error, project CRS."""
    t = one.target
    major, minor, azimuth = t.ellipse90
    a, along = np.linspace(0.0, 2.0 * np.pi, ELLIPSE_POINTS, endpoint=False), np.radians(azimuth)
    u, v = major * np.cos(a), minor * np.sin(a)
    east = u * np.sin(along) + v * np.cos(along)
    north = u * np.cos(along) - v * np.sin(along)
    local = map_frame.local(t.lat_deg, t.lon_deg)
    height = t.alt_m if t.height_datum == "ellipsoid" and np.isfinite(t.alt_m) else 0.0
    dx, dy = map_frame.offset(local, east, north, height)
    return Polygon(np.column_stack([t.x_m + dx, t.y_m + dy]))


def sheets(view: ProjectView) -> tuple[Sheet, ...]:
    """Returns every layer of the export, in the order in which a map stacks them."""
    map_frame = MapFrame(view.crs)
    return (
        _targets(view),
        _ellipses(view, map_frame),
        _detections(view, map_frame),
        _gaps(view),
        _coverage(view),
    )


def _targets(view: ProjectView) -> Sheet:
    return Sheet(
        "targets",
        "Ranked targets with their evidence and reasons",
        "Point",
        TARGET_COLUMNS,
        tuple(target_row(one) for one in view.targets),
        tuple(Point(one.target.x_m, one.target.y_m) for one in view.targets),
    )


def _ellipses(view: ProjectView, map_frame: MapFrame) -> Sheet:
    columns = (("rank", int), ("target_id", str), ("class_name", str), ("ce90_m", float))
    rows = tuple(
        (one.rank, one.target.target_id, one.target.class_name, round(one.target.ce90_m, 3))
        for one in view.targets
    )
    shapes = tuple(ellipse_polygon(one, map_frame) for one in view.targets)
    about = "Where each target lies with 90 % probability"
    return Sheet("ellipses", about, "MultiPolygon", columns, rows, shapes)


def _detections(view: ProjectView, map_frame: MapFrame) -> Sheet:
    columns = (
        ("flight_id", str),
        ("frame", str),
        ("number", int),
        ("class_name", str),
        ("probability", float),
        ("calibrated", bool),
        ("ood", bool),
        ("lat_deg", float),
        ("lon_deg", float),
        ("ce90_m", float),
        ("area_m2", float),
        ("model_hash", str),
    )
    placed = [
        d
        for d in sorted(view.detections, key=lambda d: (d.flight_id, d.frame, d.number))
        if np.isfinite([d.lat_deg, d.lon_deg]).all()
    ]
    x, y = map_frame.to_map([d.lat_deg for d in placed], [d.lon_deg for d in placed])
    rows = tuple(_detection_row(d) for d in placed)
    shapes = tuple(Point(a, b) for a, b in zip(x.tolist(), y.tolist(), strict=True))
    return Sheet("detections", "What was seen in single frames", "Point", columns, rows, shapes)


def _detection_row(d: DetectionView) -> tuple[Value, ...]:
    return (
        d.flight_id,
        d.frame,
        d.number,
        d.class_name,
        d.probability,
        d.calibrated,
        d.ood,
        round(d.lat_deg, 9),
        round(d.lon_deg, 9),
        round(d.ce90_m, 3),
        round(d.area_m2, 3),
        d.model_hash,
    )


def _gaps(view: ProjectView) -> Sheet:
    columns = (("flight_id", str), ("reason", str), ("area_m2", float))
    kept = sorted(
        (g for g in view.gaps if not g.geometry.is_empty),
        key=lambda g: (g.flight_id, -g.geometry.area, g.geometry.wkb),
    )
    rows = tuple(_gap_row(g) for g in kept)
    shapes = tuple(g.geometry for g in kept)
    return Sheet("gaps", "Planned ground that was not seen", "MultiPolygon", columns, rows, shapes)


def _gap_row(g: GapView) -> tuple[Value, ...]:
    return g.flight_id, g.reason, round(float(g.geometry.area), 1)


def _coverage(view: ProjectView) -> Sheet:
    columns = (("flight_id", str), ("scanned", bool), ("gsd_m", float), ("area_m2", float))
    kept = sorted(
        (c for c in view.coverage if not c.geometry.is_empty),
        key=lambda c: (c.flight_id, not c.scanned, c.geometry.wkb),
    )
    rows = tuple(_coverage_row(c) for c in kept)
    shapes = tuple(c.geometry for c in kept)
    about = "Ground that was imaged at good quality"
    return Sheet("coverage", about, "MultiPolygon", columns, rows, shapes)


def _coverage_row(c: CoverageView) -> tuple[Value, ...]:
    return c.flight_id, c.scanned, round(c.gsd_m, 4), round(float(c.geometry.area), 1)
