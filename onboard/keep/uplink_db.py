"""The uplink's own memory, ``uplink.db``: what is to be sent and what the ground has receipted."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlite_utils
from sqlite_utils.migrations import Migrations

from onboard.keep.receipt import Receipt

MIGRATIONS = Migrations("gossan-uplink")

HEADER, ALERT, ROWS, CHIP, FRAME, OTHER, DATABASE, MANIFEST = range(8)
"""The order in which things leave: smaller first."""

PENDING, ACKNOWLEDGED, FAILED, SUPERSEDED = "pending", "acknowledged", "failed", "superseded"


@MIGRATIONS()
def m001_uplink(db: sqlite_utils.Database) -> None:
    """The first schema."""
    cursors = ("alert_cursor", "row_cursor", "next_bundle", "closed")
    db.table("flights").create(
        {"flight_id": str, "folder": str, **dict.fromkeys(cursors, int), "manifest_sha256": str},
        pk="flight_id",
        defaults=dict.fromkeys(cursors, 0),
    )
    db.table("objects").create(
        {
            "id": int,
            **dict.fromkeys(("flight_id", "path", "sha256"), str),
            **dict.fromkeys(("size_bytes", "priority"), int),
            "body": bytes,
            "state": str,
            "attempts": int,
            "error": str,
            "receipt": str,
        },
        pk="id",
        defaults={"state": PENDING, "attempts": 0},
    )
    db.table("objects").create_index(["flight_id", "path", "sha256"], unique=True)
    db.table("objects").create_index(["state", "priority", "id"])
    db.table("meta").create({"key": str, "value": str}, pk="key")


@dataclass(frozen=True, slots=True)
class Parcel:
    """One object to be sent.

    Attributes:
        id: Its row.
        flight_id: Whose it is.
        path: Which file of the flight it is.
        sha256: Its name on the ground.
        size_bytes: Its size.
        priority: When it leaves.
        body: Its bytes, or ``None`` where the file holds them.
        attempts: How often it arrived as something else.
    """

    id: int
    flight_id: str
    path: str
    sha256: str
    size_bytes: int
    priority: int
    body: bytes | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class FlightState:
    """How far the sending of a flight is planned."""

    flight_id: str
    folder: Path
    alert_cursor: int
    row_cursor: int
    next_bundle: int
    manifest_sha256: str


class UplinkDatabase:
    """The uplink's database; one process and one thread has it.

    Args:
        path: Made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, timeout=10.0)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        MIGRATIONS.apply(sqlite_utils.Database(self._db))

    def close(self) -> None:
        """Closes the database."""
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits all or nothing."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def flight(self, flight_id: str, folder: Path) -> FlightState:
        """Returns how far a flight is planned; a new one begins."""
        self._db.execute(
            "INSERT INTO flights (flight_id, folder, manifest_sha256) VALUES (?, ?, '') "
            "ON CONFLICT DO UPDATE SET folder = excluded.folder",
            (flight_id, str(folder)),
        )
        row = self._db.execute("SELECT * FROM flights WHERE flight_id=?", (flight_id,)).fetchone()
        return FlightState(
            flight_id,
            folder,
            row["alert_cursor"],
            row["row_cursor"],
            row["next_bundle"],
            row["manifest_sha256"] or "",
        )

    def add(self, parcel: Parcel) -> bool:
        """Plans an object; returns whether it is new (the same object is sent once)."""
        added = self._db.execute(
            "INSERT INTO objects (flight_id, path, sha256, size_bytes, priority, body) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET state = excluded.state, "
            "body = excluded.body WHERE state = ?",
            (
                parcel.flight_id,
                parcel.path,
                parcel.sha256,
                parcel.size_bytes,
                parcel.priority,
                parcel.body,
                SUPERSEDED,
            ),
        )
        return added.rowcount > 0

    def set_cursor(self, flight_id: str, name: str, value: int) -> None:
        """Notes how far the outbox of a flight is planned."""
        if name not in ("alert_cursor", "row_cursor", "next_bundle"):
            raise ValueError(name)
        self._db.execute(
            f"UPDATE flights SET {name} = ? WHERE flight_id = ?",  # noqa: S608
            (value, flight_id),
        )

    def set_manifest(self, flight_id: str, sha256: str) -> None:
        """Notes that everything of this manifest is planned; what it replaces is dropped."""
        self._db.execute(
            "UPDATE objects SET state = ? WHERE flight_id = ? AND state IN (?, ?) AND "
            "((priority = ? AND sha256 != ?) OR path IN (SELECT path FROM objects o2 "
            "WHERE o2.flight_id = objects.flight_id AND o2.id > objects.id))",
            (SUPERSEDED, flight_id, PENDING, FAILED, MANIFEST, sha256),
        )
        self._db.execute(
            "UPDATE flights SET manifest_sha256 = ? WHERE flight_id = ?", (sha256, flight_id)
        )

    def pending(self, limit: int) -> list[Parcel]:
        """Returns the next objects to send, all of one flight, in the order they leave.

        Newer flights go before older ones where the priority is the same; a manifest waits until
        everything else of its flight is acknowledged.
        """
        sql = (
            "SELECT o.* FROM objects o JOIN flights f USING (flight_id) WHERE o.state = ? AND "
            "(o.priority < ? OR NOT EXISTS (SELECT 1 FROM objects w WHERE w.flight_id = "
            "o.flight_id AND w.state = ? AND w.priority < ?)) "
            "ORDER BY o.priority, f.rowid DESC, o.id LIMIT ?"
        )
        found = self._db.execute(sql, (PENDING, MANIFEST, PENDING, MANIFEST, limit)).fetchall()
        parcels = [_parcel(row) for row in found]
        return [p for p in parcels if p.flight_id == parcels[0].flight_id]

    def first_priority(self) -> int | None:
        """Returns the priority of what should leave next; ``None`` if nothing waits."""
        sql = "SELECT min(priority) FROM objects WHERE state = ?"
        found = self._db.execute(sql, (PENDING,)).fetchone()[0]
        return None if found is None else int(found)

    def acknowledge(self, parcel: Parcel, receipt: Receipt) -> None:
        """Keeps the ground's receipt; from now on the object is the ground's as well."""
        self._db.execute(
            "UPDATE objects SET state=?, receipt=?, body=NULL, error=NULL WHERE id=?",
            (ACKNOWLEDGED, json.dumps(receipt.to_json(), sort_keys=True), parcel.id),
        )

    def set_state(self, parcel: Parcel, state: str, error: str) -> None:
        """Notes that an object failed, waits or was replaced, and why."""
        self._db.execute(
            "UPDATE objects SET state=?, error=?, attempts=attempts+1 WHERE id=?",
            (state, error[:500], parcel.id),
        )

    def send_again(self, flight_id: str, hashes: list[str]) -> int:
        """Plans again what the ground misses after all; returns how many objects.

        What failed stays so: the manifest cannot be completed by it.
        """
        sql = (
            "UPDATE objects SET state=?, receipt=NULL WHERE flight_id=? AND state != ? "
            "AND sha256 IN (SELECT value FROM json_each(?))"
        )
        values = (PENDING, flight_id, FAILED, json.dumps(hashes))
        return self._db.execute(sql, values).rowcount

    def planned(self, flight_id: str, path: str, sha256: str) -> bool:
        """Returns whether this content of a file is planned."""
        sql = "SELECT 1 FROM objects WHERE flight_id=? AND path=? AND sha256=?"
        return self._db.execute(sql, (flight_id, path, sha256)).fetchone() is not None

    def folder(self, flight_id: str) -> Path:
        """Returns where a flight lies."""
        sql = "SELECT folder FROM flights WHERE flight_id=?"
        return Path(self._db.execute(sql, (flight_id,)).fetchone()[0])

    def retry_failed(self) -> int:
        """Lets what failed be tried again; returns how many objects."""
        sql = "UPDATE objects SET state=?, attempts=0 WHERE state=?"
        return self._db.execute(sql, (PENDING, FAILED)).rowcount

    def counts(self) -> dict[str, dict[str, int]]:
        """Returns number and bytes of objects by state."""
        sql = "SELECT state, count(*), sum(size_bytes) FROM objects GROUP BY state"
        found = {row[0]: (row[1], row[2] or 0) for row in self._db.execute(sql)}
        return {
            state: {"objects": found.get(state, (0, 0))[0], "bytes": found.get(state, (0, 0))[1]}
            for state in (PENDING, ACKNOWLEDGED, FAILED)
        }

    def acknowledged(self, flight_id: str) -> dict[str, str]:
        """Returns path and hash of what the ground has receipted of a flight, newest last."""
        sql = "SELECT path, sha256 FROM objects WHERE flight_id=? AND state=? ORDER BY id"
        rows = self._db.execute(sql, (flight_id, ACKNOWLEDGED))
        return {row["path"]: row["sha256"] for row in rows}

    def manifest_done(self, flight_id: str) -> str:
        """Returns the hash of the last manifest that the ground has receipted, else nothing."""
        sql = (
            "SELECT sha256 FROM objects WHERE flight_id=? AND state=? AND priority=? "
            "ORDER BY id DESC LIMIT 1"
        )
        row = self._db.execute(sql, (flight_id, ACKNOWLEDGED, MANIFEST)).fetchone()
        return "" if row is None else str(row[0])

    def errors(self, limit: int = 5) -> list[str]:
        """Returns the last reasons why objects are not acknowledged."""
        sql = (
            "SELECT path, error FROM objects WHERE error IS NOT NULL AND state IN (?, ?) "
            "ORDER BY id DESC LIMIT ?"
        )
        found = self._db.execute(sql, (PENDING, FAILED, limit))
        return [f"{row['path']}: {row['error']}" for row in found]

    def meta(self, key: str) -> str:
        """Returns a note, empty if there is none."""
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return "" if row is None else str(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Keeps a note."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def _parcel(row: sqlite3.Row) -> Parcel:
    names = ("id", "flight_id", "path", "sha256", "size_bytes", "priority", "body", "attempts")
    return Parcel(**{name: row[name] for name in names})
