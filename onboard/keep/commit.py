"""The rows that one record becomes, and the note in the outbox for whoever sends them."""

from __future__ import annotations

from collections.abc import Iterable

from onboard.keep import rows
from onboard.keep.database import FlightDatabase
from onboard.keep.health import HealthEvent
from onboard.keep.segments import KeptFile
from onboard.records import Alert, ClockTie, FrameRecord


def put_record(
    db: FlightDatabase, record: FrameRecord, kept: Iterable[KeptFile], segment: int
) -> None:
    """Writes all that one frame adds; call it inside a transaction."""
    for alert in record.alerts:
        _put_alert(db, alert)
    _put_frame(db, record)
    for item in kept:
        put_file(db, item, segment)


def put_file(db: FlightDatabase, item: KeptFile, segment: int) -> None:
    """Lists a kept file in a segment."""
    row = {
        "path": item.path,
        "sha256": item.sha256,
        "size_bytes": item.size_bytes,
        "kind": item.kind,
        "segment": segment,
    }
    db.put("files", row)
    announce(db, "file", item.path)


def put_tie(db: FlightDatabase, tie: ClockTie) -> None:
    """Writes a clock tie."""
    db.put("clock_ties", {**rows.flat_row(tie), "utc_quality": str(tie.utc_quality)})
    announce(db, "tie", str(db.value("SELECT last_insert_rowid()")))


def put_health(db: FlightDatabase, event: HealthEvent) -> None:
    """Writes a health event."""
    db.put("health", rows.flat_row(event))
    announce(db, "health", str(db.value("SELECT last_insert_rowid()")))


def put_segment(
    db: FlightDatabase, number: int, manifest: KeptFile, files: int, recovered: bool
) -> None:
    """Lists a closed segment."""
    with db.transaction():
        row = {"number": number, "manifest_sha256": manifest.sha256, "files": files}
        db.put("segments", {**row, "recovered": recovered})
        announce(db, "segment", manifest.path)


def files_of(db: FlightDatabase, segment: int) -> list[KeptFile]:
    """Returns the kept files of a segment."""
    sql = "SELECT path, sha256, size_bytes, kind FROM files WHERE segment = ? ORDER BY path"
    return [KeptFile(**row) for row in db.rows(sql, (segment,))]


def announce(db: FlightDatabase, kind: str, ref: str) -> None:
    """Notes in the outbox that something is new or was changed."""
    db.put("outbox", {"kind": kind, "ref": ref})


def _put_alert(db: FlightDatabase, alert: Alert) -> None:
    """Writes an alert; that it was told is never taken back."""
    told = db.value("SELECT told FROM alerts WHERE alert_id = ?", (alert.alert_id,))
    db.put("alerts", {**rows.flat_row(alert), "told": alert.told if told is None else told})
    announce(db, "alert", str(alert.alert_id))


def _put_frame(db: FlightDatabase, record: FrameRecord) -> None:
    name = record.frame.name
    row = rows.frame_row(record)
    if not record.kept_path:
        before = db.rows("SELECT kept_path, kept_sha256 FROM frames WHERE name = ?", (name,))
        row.update(before[0] if before else {})
    db.put("frames", row)
    if record.pose is not None:
        db.put("poses", rows.pose_row(record.pose))
    if record.footprint is not None:
        db.put("footprints", rows.footprint_row(record.footprint))
    if record.detections is not None:
        db.run("DELETE FROM detections WHERE frame = ?", (name,))
        db.put("scans", rows.scan_row(record.detections))
        for found in rows.detection_rows(record.detections):
            db.put("detections", found)
    for track in record.tracks:
        db.put("tracks", rows.track_row(track))
        announce(db, "track", str(track.track_id))
    announce(db, "frame", name)
