"""The project's catalogue: which flights there are, what was made of them, and the targets.

The flight folders stay the truth; the catalogue is an index that ``ingest`` and ``fuse`` rebuild at
will. A laptop keeps it in SQLite; an office may keep it elsewhere behind the same ``Catalogue``.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from gossan.errors import DamagedDataError

FlightState = Literal["receiving", "complete", "damaged"]

migrations = Migrations("gossan.project")


@dataclass(frozen=True, slots=True)
class FlightRow:
    """One flight of the project.

    Attributes:
        flight_id: As the drone named it.
        folder: Its folder, relative to the project's.
        state: ``receiving`` while objects are outstanding.
        content_sha256: Hash of its database; two ingests of one content are one.
        crs_wkt: The CRS of its map coordinates.
        started_utc: When it began, ISO 8601; empty where no clock was trusted.
        rig_hash: The rig it flew with.
        model_hash: The model that looked; empty where none did.
        frames: Number of frames recorded.
        placed: Number of frames with a pose.
        scanned: Number of frames that the model looked at.
        detections: Number of detections.
        tracks: Number of confirmed tracks.
        alerts: Number of alerts told in flight.
        note: What is wrong with it, if anything.
    """

    flight_id: str
    folder: str
    state: FlightState
    content_sha256: str
    crs_wkt: str
    started_utc: str
    rig_hash: str
    model_hash: str
    frames: int = 0
    placed: int = 0
    scanned: int = 0
    detections: int = 0
    tracks: int = 0
    alerts: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True)
class PictureRow:
    """A picture that the map shows: a flight's mosaic, or the prior.

    Attributes:
        picture_id: Unique name.
        label: What people read.
        png: The picture, relative to the project folder.
        cog: The georeferenced raster behind it, relative to the project folder.
        corners: (lon, lat) in degrees of the top left, top right, bottom right, bottom left.
    """

    picture_id: str
    label: str
    png: str
    cog: str
    corners: tuple[tuple[float, float], ...]


class Catalogue(Protocol):
    """What the ground asks of a catalogue, whatever database keeps it."""

    def put_flight(self, row: FlightRow) -> None:
        """Adds or replaces one flight."""

    def flights(self) -> list[FlightRow]:
        """Returns all flights, by identifier."""

    def put_picture(self, row: PictureRow) -> None:
        """Adds or replaces one picture."""

    def pictures(self) -> list[PictureRow]:
        """Returns all pictures, by identifier."""

    def put_document(self, name: str, document: Any) -> None:
        """Adds or replaces one JSON document (the last fusion's results, by name)."""

    def document(self, name: str) -> Any:
        """Returns a document, or ``None``."""

    def revision(self) -> int:
        """Returns a number that rises with every change."""


@migrations()
def create_flights_pictures_documents(db: Database) -> None:
    """The first schema."""
    kinds: dict[str, Any] = {f.name: int if f.type == "int" else str for f in fields(FlightRow)}
    db.table("flights").create(kinds, pk="flight_id", strict=True)
    db.table("pictures").create(
        {"picture_id": str, "label": str, "png": str, "cog": str, "corners": str},
        pk="picture_id",
        strict=True,
    )
    db.table("documents").create({"name": str, "body": str}, pk="name", strict=True)
    db.table("changes").create({"one": int, "revision": int}, pk="one", strict=True)
    db.table("changes").insert({"one": 1, "revision": 0})


class SqliteCatalogue:
    """The catalogue of a project folder: ``project.db``."""

    def __init__(self, project: Path) -> None:
        self.path = project / "project.db"
        project.mkdir(parents=True, exist_ok=True)
        try:
            with self._transaction() as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            database = Database(self._connect())
            migrations.apply(database)
            database.close()
        except sqlite3.DatabaseError as error:
            raise DamagedDataError(
                f"{self.path} is not a project catalogue: {error}",
                "move it away; `gossan groundsync ingest` builds it again from flights/",
            ) from error

    def put_flight(self, row: FlightRow) -> None:
        """Adds or replaces one flight; the same row again changes nothing."""
        self._put("flights", asdict(row))

    def flights(self) -> list[FlightRow]:
        """Returns all flights, by identifier."""
        return [FlightRow(**row) for row in self._rows("flights", "flight_id")]

    def put_picture(self, row: PictureRow) -> None:
        """Adds or replaces one picture; the same row again changes nothing."""
        self._put("pictures", {**asdict(row), "corners": json.dumps(row.corners)})

    def pictures(self) -> list[PictureRow]:
        """Returns all pictures, by identifier."""
        rows = self._rows("pictures", "picture_id")
        return [
            PictureRow(**{**row, "corners": tuple(map(tuple, json.loads(row["corners"])))})
            for row in rows
        ]

    def put_document(self, name: str, document: Any) -> None:
        """Adds or replaces one JSON document."""
        self._put("documents", {"name": name, "body": json.dumps(document, allow_nan=False)})

    def document(self, name: str) -> Any:
        """Returns a document, or ``None``."""
        for row in self._rows("documents", "name"):
            if row["name"] == name:
                return json.loads(row["body"])
        return None

    def revision(self) -> int:
        """Returns a number that rises with every change."""
        return int(self._rows("changes", "one")[0]["revision"])

    def _put(self, table: str, row: dict[str, Any]) -> None:
        key = next(iter(row))
        if row in (old for old in self._rows(table, key) if old[key] == row[key]):
            return
        names = ", ".join(row)
        marks = ", ".join("?" for _ in row)
        with self._transaction() as connection:
            connection.execute(
                f"REPLACE INTO {table} ({names}) VALUES ({marks})",  # noqa: S608
                list(row.values()),
            )
            connection.execute("UPDATE changes SET revision = revision + 1")

    def _rows(self, table: str, order: str) -> list[dict[str, Any]]:
        connection = self._connect()
        try:
            cursor = connection.execute(f"SELECT * FROM {table} ORDER BY {order}")  # noqa: S608
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30.0)
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connect()
        try:
            with connection:
                yield connection
        finally:
            connection.close()
