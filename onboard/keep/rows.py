"""Records as rows and back: the one form they have in ``flight.db`` and on the wire.

A row is a dict of JSON's types: arrays are nested lists, NaN is null, infinities are the strings
``inf`` and ``-inf``. Numbers keep every bit. In the database nested values are JSON text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from onboard.keep.health import HealthEvent
from onboard.records import (
    Alert,
    ClockTie,
    Detections,
    Floats,
    Footprint,
    Frame,
    FrameRecord,
    GroundPoints,
    Poses,
    Track,
    UtcQuality,
)

Row = dict[str, Any]

_POSE_SHAPES = {"r_ned_cam": (3, 3), "r_ned_body": (3, 3)}
_POSE_ARRAYS = tuple(f.name for f in fields(Poses) if f.name not in ("frame", "flags"))
_TRACK_ARRAYS = ("cov_random_m2", "sensitivity_m")


def frame_row(record: FrameRecord) -> Row:
    """Returns the row of the frame itself."""
    frame = record.frame
    return {
        "name": frame.name,
        "seq": frame.seq,
        "t_mono_ns": frame.t_mono_ns,
        "t_boot_s": _number(frame.t_boot_s),
        "path": None if frame.path is None else str(frame.path),
        "flags": list(frame.flags),
        "kept_path": record.kept_path,
        "kept_sha256": record.kept_sha256,
        "stage_ms": {k: _number(v) for k, v in record.stage_ms.items()},
        "dropped": list(record.dropped),
    }


def frame_of(row: Row) -> FrameRecord:
    """Returns the frame's record, without what was found in it."""
    frame = Frame(
        name=row["name"],
        seq=row["seq"],
        t_mono_ns=row["t_mono_ns"],
        t_boot_s=_float(row["t_boot_s"]),
        path=None if row["path"] is None else Path(row["path"]),
        flags=tuple(row["flags"]),
    )
    return FrameRecord(
        frame=frame,
        kept_path=row["kept_path"],
        kept_sha256=row["kept_sha256"],
        stage_ms={k: _float(v) for k, v in row["stage_ms"].items()},
        dropped=tuple(row["dropped"]),
    )


def pose_row(pose: Poses) -> Row:
    """Returns the row of one pose."""
    row: Row = {"frame": pose.frame[0], "flags": list(pose.flags[0])}
    for name in _POSE_ARRAYS:
        value = getattr(pose, name)
        row[name] = value if name == "height_datum" else _plain(value[0])
    return row


def poses_of(rows: Sequence[Row]) -> Poses:
    """Returns the poses of these rows, which share one height datum."""
    n = len(rows)
    columns: dict[str, Any] = {
        "frame": tuple(row["frame"] for row in rows),
        "flags": tuple(tuple(row["flags"]) for row in rows),
        "height_datum": rows[0]["height_datum"] if rows else "ellipsoid",
    }
    for name in _POSE_ARRAYS:
        if name != "height_datum":
            shape = _POSE_SHAPES.get(name, (3,) if "enu" in name or "ned" in name else ())
            columns[name] = array_of([row[name] for row in rows], (n, *shape))
    return Poses(**columns)


def scan_row(found: Detections) -> Row:
    """Returns what all detections of a frame share; it stands also where nothing was found."""
    return {
        "frame": found.frame,
        "model_hash": found.model_hash,
        "calibrated": bool(found.calibrated),
        "height_datum": found.ground.height_datum,
        "bias_names": list(found.ground.bias_names),
        "cause_names": list(found.ground.cause_names),
    }


def detection_rows(found: Detections) -> list[Row]:
    """Returns one row per detection of a frame."""
    ground = found.ground
    return [
        {
            "frame": found.frame,
            "number": i,
            "class_name": found.class_name[i],
            "probability": _number(found.probability[i]),
            "ood": bool(found.ood[i]),
            "inside": bool(found.inside[i]),
            "area_m2": _number(found.area_m2[i]),
            "centroid_px": _plain(found.centroid_px[i]),
            "polygon_px": _plain(found.polygon_px[i]),
            "polygon_map_m": _plain(found.polygon_map_m[i]),
            "lat_deg": _number(ground.lat_deg[i]),
            "lon_deg": _number(ground.lon_deg[i]),
            "alt_m": _number(ground.alt_m[i]),
            "x_m": _number(ground.x_m[i]),
            "y_m": _number(ground.y_m[i]),
            "cov_random_m2": _plain(ground.cov_random_m2[i]),
            "sensitivity_m": _plain(ground.sensitivity_m[i]),
            "cause_share": _plain(ground.cause_share[i]),
            "flags": list(ground.flags[i]),
        }
        for i in range(len(found))
    ]


def detections_of(scan: Row, rows: Sequence[Row]) -> Detections:
    """Returns the detections of a frame from its scan row and its detection rows, in order."""
    n, k, c = len(rows), len(scan["bias_names"]), len(scan["cause_names"])

    def column(name: str, *shape: int) -> Floats:
        return array_of([row[name] for row in rows], (n, *shape))

    ground = GroundPoints(
        lat_deg=column("lat_deg"),
        lon_deg=column("lon_deg"),
        alt_m=column("alt_m"),
        height_datum=scan["height_datum"],
        x_m=column("x_m"),
        y_m=column("y_m"),
        cov_random_m2=column("cov_random_m2", 2, 2),
        sensitivity_m=column("sensitivity_m", 2, k),
        bias_names=tuple(scan["bias_names"]),
        cause_names=tuple(scan["cause_names"]),
        cause_share=column("cause_share", c),
        flags=tuple(tuple(row["flags"]) for row in rows),
    )
    return Detections(
        frame=scan["frame"],
        class_name=tuple(row["class_name"] for row in rows),
        probability=column("probability"),
        calibrated=bool(scan["calibrated"]),
        ood=np.array([row["ood"] for row in rows], dtype=np.bool_),
        area_m2=column("area_m2"),
        polygon_px=tuple(array_of(row["polygon_px"], (-1, 2)) for row in rows),
        centroid_px=column("centroid_px", 2),
        ground=ground,
        polygon_map_m=tuple(array_of(row["polygon_map_m"], (-1, 2)) for row in rows),
        model_hash=scan["model_hash"],
        inside=np.array([row["inside"] for row in rows], dtype=np.bool_),
    )


def track_row(track: Track) -> Row:
    """Returns the row of a track."""
    row = {item.name: getattr(track, item.name) for item in fields(track)}
    row = {name: _number(v) if isinstance(v, float) else v for name, v in row.items()}
    for name in _TRACK_ARRAYS:
        row[name] = _plain(row[name])
    return {**row, "bias_names": list(track.bias_names), "ood": bool(track.ood)}


def track_of(row: Row) -> Track:
    """Returns the track of a row."""
    known = {item.name: row[item.name] for item in fields(Track)}
    for name in ("probability", "lat_deg", "lon_deg", "alt_m", "x_m", "y_m", "area_m2"):
        known[name] = _float(known[name])
    k = len(row["bias_names"])
    known["cov_random_m2"] = array_of(row["cov_random_m2"], (2, 2))
    known["sensitivity_m"] = array_of(row["sensitivity_m"], (2, k))
    known["bias_names"] = tuple(row["bias_names"])
    known["ood"] = bool(row["ood"])
    return Track(**known)


def footprint_row(footprint: Footprint) -> Row:
    """Returns the row of a footprint."""
    return {
        "frame": footprint.frame,
        "gsd_m": _number(footprint.gsd_m),
        "quality": footprint.quality,
        "scanned": bool(footprint.scanned),
        "polygon_map_m": _plain(footprint.polygon_map_m),
        "holes_map_m": [_plain(hole) for hole in footprint.holes_map_m],
    }


def footprint_of(row: Row) -> Footprint:
    """Returns the footprint of a row."""
    return Footprint(
        frame=row["frame"],
        polygon_map_m=array_of(row["polygon_map_m"], (-1, 2)),
        holes_map_m=tuple(array_of(hole, (-1, 2)) for hole in row["holes_map_m"]),
        gsd_m=_float(row["gsd_m"]),
        quality=row["quality"],
        scanned=bool(row["scanned"]),
    )


def flat_row(record: Alert | HealthEvent | ClockTie) -> Row:
    """Returns the row of a record that has no arrays."""
    row = {item.name: getattr(record, item.name) for item in fields(record)}
    return {name: _number(v) if isinstance(v, float) else v for name, v in row.items()}


def alert_of(row: Row) -> Alert:
    """Returns the alert of a row."""
    return Alert(**{item.name: row[item.name] for item in fields(Alert)})


def health_of(row: Row) -> HealthEvent:
    """Returns the health event of a row."""
    return HealthEvent(**{item.name: row[item.name] for item in fields(HealthEvent)})


def tie_of(row: Row) -> ClockTie:
    """Returns the clock tie of a row."""
    known = {item.name: row[item.name] for item in fields(ClockTie)}
    for name in ("t_boot_s", "rtt_s", "t_utc_s"):
        known[name] = _float(known[name])
    return ClockTie(**{**known, "utc_quality": UtcQuality(row["utc_quality"])})


def detections_row(found: Detections) -> Row:
    """Returns all detections of a frame as one row, for the wire."""
    return {**scan_row(found), "detections": detection_rows(found)}


_DECODERS: dict[str, Callable[[Row], object]] = {
    "frame": frame_of,
    "pose": lambda row: poses_of([row]),
    "detections": lambda row: detections_of(row, row["detections"]),
    "track": track_of,
    "footprint": footprint_of,
    "alert": alert_of,
    "health": health_of,
    "tie": tie_of,
}

WIRE_KINDS = tuple(_DECODERS)


def record_of(kind: str, row: Row) -> object:
    """Returns the record of a wire row of this kind.

    Raises:
        ValueError: The kind is unknown or the row has not what it needs.
    """
    try:
        return _DECODERS[kind](row)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{kind!r} row cannot be read: {error!r}") from error


def to_columns(row: Mapping[str, Any]) -> Row:
    """Returns the row with nested values as JSON text, as the database holds it."""
    return {
        name: json.dumps(value, separators=(",", ":"), allow_nan=False)
        if isinstance(value, (list, dict))
        else value
        for name, value in row.items()
    }


def from_columns(columns: Mapping[str, Any], nested: frozenset[str]) -> Row:
    """Returns the row of database columns, of which ``nested`` hold JSON text."""
    return {
        name: json.loads(value) if name in nested and value is not None else value
        for name, value in columns.items()
    }


def array_of(value: Any, shape: tuple[int, ...]) -> Floats:
    """Returns nested lists as an array of float64 of this shape."""
    return np.array(value, dtype=np.float64).reshape(shape)


def _plain(array: Any) -> Any:
    """Returns an array as nested lists of JSON's types."""
    values = np.asarray(array, dtype=np.float64)
    if np.isfinite(values).all():
        return values.tolist()
    return _replace(values.tolist())


def _replace(value: Any) -> Any:
    return [_replace(v) for v in value] if isinstance(value, list) else _number(value)


def _number(value: float) -> float | str | None:
    number = float(value)
    if math.isnan(number):
        return None
    return number if math.isfinite(number) else str(number)


def _float(value: float | str | None) -> float:
    return math.nan if value is None else float(value)
