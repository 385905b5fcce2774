"""What of the flights is to be sent: reads the recorder's outbox and files, fills ``uplink.db``."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from gossan.errors import GossanError
from onboard.keep.flight import DATABASE as FLIGHT_DB
from onboard.keep.flight import HEADER as FLIGHT_TOML
from onboard.keep.flight import MANIFEST as FLIGHT_MANIFEST
from onboard.keep.flight import RIG, list_flights, read_header
from onboard.keep.read import open_read_only, read_rows
from onboard.keep.rows import Row
from onboard.keep.uplink_db import (
    ALERT,
    CHIP,
    DATABASE,
    FRAME,
    HEADER,
    MANIFEST,
    OTHER,
    ROWS,
    FlightState,
    Parcel,
    UplinkDatabase,
)

log = logging.getLogger(__name__)

BUNDLE_ENTRIES = 200
FLUSH_NS = 2 * 10**9
_FILE_PRIORITY = {"frame": FRAME, "chip": CHIP}
_FRAME_TABLES = (
    ("frames", "name", "frame"),
    ("poses", "frame", "pose"),
    ("footprints", "frame", "footprint"),
)


class Planner:
    """Finds what is new in the flights and plans it; the flights are only read.

    Args:
        root: The folder that holds flights.
        db: The uplink's database.
        now_ns: The monotonic clock.

    Attributes:
        unreadable: How often a flight could not be read.
    """

    def __init__(
        self, root: Path, db: UplinkDatabase, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._root, self._db, self._now_ns = root, db, now_ns
        self._flushed_ns: dict[str, int] = {}
        self._closed: dict[str, tuple[int, int]] = {}
        self.unreadable = 0

    def refresh(self) -> bool:
        """Plans what is new; returns whether every flight is closed and wholly planned."""
        states = [self._refresh_flight(folder) for folder in list_flights(self._root)]
        return all(states)

    def _refresh_flight(self, folder: Path) -> bool:
        stamp = _stamp(folder / FLIGHT_MANIFEST)
        if stamp is not None and self._closed.get(str(folder)) == stamp:
            return True
        try:
            self._plan(folder, closed=stamp is not None)
        except (GossanError, sqlite3.Error, OSError, ValueError) as error:
            self.unreadable += 1
            log.warning("flight_unreadable folder=%s error=%s", folder.name, error)
            return False
        if stamp is not None:
            self._closed[str(folder)] = stamp
        return stamp is not None

    def _plan(self, folder: Path, closed: bool) -> None:
        flight_id = read_header(folder).flight_id
        state = self._db.flight(flight_id, folder)
        self._plan_small_file(state, FLIGHT_TOML, HEADER)
        self._plan_small_file(state, RIG, OTHER)
        with closing(open_read_only(folder / FLIGHT_DB)) as flight:
            self._plan_alerts(state, flight)
            while self._plan_rows(self._db.flight(flight_id, folder), flight, closed):
                pass
        if closed:
            self._plan_manifest(state)

    def _plan_small_file(self, state: FlightState, name: str, priority: int) -> None:
        path = state.folder / name
        if path.is_file():
            content = path.read_bytes()
            self._db.add(_parcel(state, name, content, priority))

    def _plan_alerts(self, state: FlightState, flight: sqlite3.Connection) -> None:
        """Bundles the alerts that are new, each with its track."""
        entries = _entries(flight, state.alert_cursor, "kind = 'alert'", BUNDLE_ENTRIES)
        if not entries:
            return
        lines: list[dict[str, Any]] = []
        for ref in dict.fromkeys(ref for _, _, ref in entries):
            for alert in _select(flight, "alerts", "alert_id", int(ref)):
                tracks = _select(flight, "tracks", "track_id", alert["track_id"])
                lines += [{"kind": "track", "row": row} for row in tracks]
                lines.append({"kind": "alert", "row": alert})
        self._bundle(state, lines, ALERT, [], ("alert_cursor", entries[-1][0]))

    def _plan_rows(self, state: FlightState, flight: sqlite3.Connection, closed: bool) -> bool:
        """Bundles the next rows and plans the files among them; returns whether more may come."""
        entries = _entries(flight, state.row_cursor, "kind != 'alert'", BUNDLE_ENTRIES)
        if not entries:
            return False
        full, now = len(entries) == BUNDLE_ENTRIES, self._now_ns()
        due = now - self._flushed_ns.get(state.flight_id, 0) >= FLUSH_NS
        if not (full or due or closed):
            return False
        self._flushed_ns[state.flight_id] = now
        lines: list[dict[str, Any]] = []
        files: list[Parcel] = []
        for kind, ref in dict.fromkeys((kind, ref) for _, kind, ref in entries):
            if kind in ("file", "segment"):
                files += _file_parcels(state, flight, kind, ref)
            else:
                lines += _lines(flight, kind, ref)
        self._bundle(state, lines, ROWS, files, ("row_cursor", entries[-1][0]))
        return full

    def _bundle(
        self,
        state: FlightState,
        lines: list[dict[str, Any]],
        priority: int,
        files: list[Parcel],
        cursor: tuple[str, int],
    ) -> None:
        """Plans a bundle of rows and files, and moves the cursor, in one step."""
        with self._db.transaction():
            if lines:
                number = self._db.flight(state.flight_id, state.folder).next_bundle
                text = "".join(json.dumps(x, separators=(",", ":")) + "\n" for x in lines)
                path = f"rows/{number:06d}.jsonl"
                self._db.add(_parcel(state, path, text.encode(), priority))
                self._db.set_cursor(state.flight_id, "next_bundle", number + 1)
            for parcel in files:
                self._db.add(parcel)
            self._db.set_cursor(state.flight_id, *cursor)

    def _plan_manifest(self, state: FlightState) -> None:
        """Plans every file of a closed flight, and its final manifest as the last."""
        content = (state.folder / FLIGHT_MANIFEST).read_bytes()
        manifest = _parcel(state, FLIGHT_MANIFEST, content, MANIFEST)
        if manifest.sha256 == state.manifest_sha256:
            return
        with self._db.transaction():
            for item in json.loads(content)["files"]:
                path = str(item["path"])
                priority = DATABASE if path == FLIGHT_DB else _priority_of(path)
                self._db.add(
                    Parcel(0, state.flight_id, path, item["sha256"], item["size_bytes"], priority)
                )
            self._db.add(manifest)
            self._db.set_manifest(state.flight_id, manifest.sha256)


def _priority_of(path: str) -> int:
    return {"frames": FRAME, "chips": CHIP}.get(path.split("/")[0], OTHER)


def _parcel(state: FlightState, path: str, content: bytes, priority: int) -> Parcel:
    digest = hashlib.sha256(content).hexdigest()
    return Parcel(0, state.flight_id, path, digest, len(content), priority, content)


def _entries(
    flight: sqlite3.Connection, after: int, which: str, limit: int
) -> list[tuple[int, str, str]]:
    sql = f"SELECT id, kind, ref FROM outbox WHERE id > ? AND {which} ORDER BY id LIMIT ?"  # noqa: S608
    return [(row[0], row[1], row[2]) for row in flight.execute(sql, (after, limit))]


def _lines(flight: sqlite3.Connection, kind: str, ref: str) -> Iterator[dict[str, Any]]:
    """Yields the wire rows of one outbox entry, as they stand now."""
    if kind == "frame":
        for table, key, wire in _FRAME_TABLES:
            for row in _select(flight, table, key, ref):
                yield {"kind": wire, "row": row}
        for scan in _select(flight, "scans", "frame", ref):
            found = _select(flight, "detections", "frame", ref, order="number")
            yield {"kind": "detections", "row": {**scan, "detections": found}}
        return
    table, key = {
        "track": ("tracks", "track_id"),
        "tie": ("clock_ties", "id"),
        "health": ("health", "id"),
    }[kind]
    for row in _select(flight, table, key, int(ref)):
        yield {"kind": kind, "row": row}


def _file_parcels(
    state: FlightState, flight: sqlite3.Connection, kind: str, ref: str
) -> Iterator[Parcel]:
    if kind == "segment":
        path = state.folder / ref
        if path.is_file():
            yield _parcel(state, ref, path.read_bytes(), OTHER)
        return
    for row in _select(flight, "files", "path", ref):
        priority = _FILE_PRIORITY.get(row["kind"], OTHER)
        yield Parcel(0, state.flight_id, ref, row["sha256"], row["size_bytes"], priority)


def _select(
    flight: sqlite3.Connection, table: str, key: str, value: object, order: str = "rowid"
) -> list[Row]:
    sql = f"SELECT * FROM {table} WHERE {key} = ? ORDER BY {order}"  # noqa: S608
    return read_rows(flight, table, sql, (value,))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino
