"""The schema of ``flight.db``: named, ordered migrations, and a refusal of newer files."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import sqlite_utils
from sqlite_utils.migrations import Migrations

from onboard.keep.errors import DamagedFlightError, NewerSchemaError

MIGRATION_SET = "gossan-flight"
flight_migrations = Migrations(MIGRATION_SET)

KEYS: dict[str, tuple[str, ...]] = {
    "meta": ("key",),
    "frames": ("name",),
    "poses": ("frame",),
    "footprints": ("frame",),
    "scans": ("frame",),
    "detections": ("frame", "number"),
    "tracks": ("track_id",),
    "alerts": ("alert_id",),
    "files": ("path",),
    "segments": ("number",),
}
"""The key of each table whose rows may be written twice; the others only grow."""


@flight_migrations()
def m001_flight(db: sqlite_utils.Database) -> None:
    """The first schema."""
    number, text, whole = float, str, int
    db.table("meta").create({"key": text, "value": text}, pk="key")
    db.table("clock_ties").create(
        {
            **dict.fromkeys(("id", "t_mono_ns", "epoch"), whole),
            **dict.fromkeys(("t_boot_s", "rtt_s", "t_utc_s"), number),
            "utc_quality": text,
        },
        pk="id",
    )
    db.table("frames").create(
        {
            "name": text,
            **dict.fromkeys(("seq", "t_mono_ns"), whole),
            "t_boot_s": number,
            **dict.fromkeys(
                ("path", "flags", "kept_path", "kept_sha256", "stage_ms", "dropped"), text
            ),
        },
        pk="name",
    )
    db.table("frames").create_index(["seq"])
    db.table("poses").create(
        {
            "frame": text,
            **dict.fromkeys(("lat_deg", "lon_deg", "alt_m"), number),
            "height_datum": text,
            **dict.fromkeys(("sigma_tilt_rad", "sigma_heading_rad"), number),
            **dict.fromkeys(("bias_heading_rad", "t_boot_s"), number),
            **dict.fromkeys(("r_ned_cam", "r_ned_body", "v_ned_mps", "omega_ned_rps"), text),
            **dict.fromkeys(("sigma_enu_m", "bias_enu_m", "flags"), text),
        },
        pk="frame",
    )
    db.table("footprints").create(
        {
            "frame": text,
            "gsd_m": number,
            "quality": text,
            "scanned": whole,
            "polygon_map_m": text,
            "holes_map_m": text,
        },
        pk="frame",
    )
    db.table("scans").create(
        {
            "frame": text,
            "model_hash": text,
            "calibrated": whole,
            "height_datum": text,
            "bias_names": text,
            "cause_names": text,
        },
        pk="frame",
    )
    _create_detections(db)
    _create_tracks(db)
    db.table("alerts").create(
        {
            **dict.fromkeys(("alert_id", "track_id", "t_mono_ns", "severity"), whole),
            "text": text,
            "told": whole,
        },
        pk="alert_id",
    )
    db.table("health").create(
        {
            **dict.fromkeys(("id", "t_mono_ns"), whole),
            **dict.fromkeys(("stage", "level", "code", "text"), text),
            "count": whole,
        },
        pk="id",
    )
    db.table("files").create(
        {"path": text, "sha256": text, "size_bytes": whole, "kind": text, "segment": whole},
        pk="path",
    )
    db.table("segments").create(
        {"number": whole, "manifest_sha256": text, "files": whole, "recovered": whole},
        pk="number",
    )
    db.table("outbox").create({"id": whole, "kind": text, "ref": text}, pk="id")


def _create_detections(db: sqlite_utils.Database) -> None:
    numbers = ("probability", "area_m2", "lat_deg", "lon_deg", "alt_m", "x_m", "y_m")
    arrays = ("centroid_px", "polygon_px", "polygon_map_m", "cov_random_m2", "sensitivity_m")
    db.table("detections").create(
        {
            "frame": str,
            "number": int,
            "class_name": str,
            **dict.fromkeys(numbers, float),
            **dict.fromkeys(("ood", "inside"), int),
            **dict.fromkeys((*arrays, "cause_share", "flags"), str),
        },
        pk=("frame", "number"),
    )


def _create_tracks(db: sqlite_utils.Database) -> None:
    numbers = ("probability", "lat_deg", "lon_deg", "alt_m", "x_m", "y_m", "area_m2")
    texts = ("first_frame", "last_frame", "best_frame", "remedy")
    db.table("tracks").create(
        {
            "track_id": int,
            **dict.fromkeys(("class_name", "state", "height_datum"), str),
            **dict.fromkeys(("looks", "misses", "ood"), int),
            **dict.fromkeys(numbers, float),
            **dict.fromkeys(("cov_random_m2", "sensitivity_m", "bias_names"), str),
            **dict.fromkeys(texts, str),
        },
        pk="track_id",
    )


def migrate(path: Path) -> None:
    """Brings a flight database to this version's schema, or makes it.

    Raises:
        NewerSchemaError: A newer version wrote it.
        DamagedFlightError: It is no database.
    """
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        refuse_newer(connection, path)
        flight_migrations.apply(sqlite_utils.Database(connection))


def refuse_newer(connection: sqlite3.Connection, path: Path) -> None:
    """Raises NewerSchemaError where the database has migrations that this version does not know."""
    known = {migration.name for migration in flight_migrations._migrations}
    try:
        rows = connection.execute(
            "SELECT name FROM _sqlite_migrations WHERE migration_set = ?", (MIGRATION_SET,)
        ).fetchall()
    except sqlite3.OperationalError:
        return
    except sqlite3.DatabaseError as error:
        raise DamagedFlightError(f"{path} is no SQLite database: {error}") from error
    unknown = sorted({str(row[0]) for row in rows} - known)
    if unknown:
        raise NewerSchemaError(
            f"{path} was written by a newer Gossan (schema step {unknown[-1]})",
            "update this installation, or read it where it was written",
        )
