"""Which object is which file of which flight, and the flight folders laid out from them."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import sqlite_utils
from sqlite_utils.migrations import Migrations

from groundsync.blobs import Blobs
from groundsync.sync_errors import ForeignFlightError
from onboard.keep.files import make_folder

log = logging.getLogger(__name__)

MIGRATIONS = Migrations("gossan-receive")
COPIED = ("flight.db", "flight.toml", "manifest.json")
"""Files that others may open for writing: copied, never linked to the object."""


@MIGRATIONS()
def m001_receive(db: sqlite_utils.Database) -> None:
    """The first schema."""
    db.table("flights").create(
        {"flight_id": str, "client": str, "manifest_sha256": str}, pk="flight_id"
    )
    columns = {"flight_id": str, "path": str, "sha256": str, "size_bytes": int, "kind": str}
    columns.update({"laid": int, "arrived": int})
    db.table("bindings").create(columns, pk=("flight_id", "path"))
    db.table("bindings").create_index(["sha256"])


@dataclass(frozen=True, slots=True)
class Binding:
    """One file of a flight: its path and the object that is its content."""

    flight_id: str
    path: str
    sha256: str
    size_bytes: int
    kind: str


class Bindings:
    """The register of what drones announced; laid out under ``flights/`` as objects complete.

    It may be used from several threads.

    Args:
        project: The project folder.
        blobs: Its objects.
    """

    def __init__(self, project: Path, blobs: Blobs) -> None:
        self._flights = project / "flights"
        make_folder(self._flights)
        self._blobs = blobs
        self._lock = threading.Lock()
        path = project / "receive.db"
        self._db = sqlite3.connect(
            path, isolation_level=None, timeout=10.0, check_same_thread=False
        )
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        MIGRATIONS.apply(sqlite_utils.Database(self._db))

    def close(self) -> None:
        """Closes the register."""
        self._db.close()

    def claim(self, flight_id: str, client: str) -> None:
        """Notes that a flight is this drone's.

        Raises:
            ForeignFlightError: It is another's.
        """
        with self._lock:
            self._db.execute(
                "INSERT INTO flights VALUES (?, ?, '') ON CONFLICT DO NOTHING", (flight_id, client)
            )
            owner = self._db.execute(
                "SELECT client FROM flights WHERE flight_id = ?", (flight_id,)
            ).fetchone()[0]
        if owner != client:
            raise ForeignFlightError(
                f"flight {flight_id} was begun by another drone", "give flights unique names"
            )

    def bind(self, bindings: Iterable[Binding]) -> None:
        """Notes durably which object is to be which file; the newest word counts."""
        values = [(b.flight_id, b.path, b.sha256, b.size_bytes, b.kind) for b in bindings]
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany(
                    "INSERT INTO bindings VALUES (?,?,?,?,?,0,0) ON CONFLICT(flight_id,path) DO "
                    "UPDATE SET sha256=excluded.sha256, size_bytes=excluded.size_bytes, "
                    "kind=excluded.kind, laid=0 WHERE sha256 != excluded.sha256",
                    values,
                )
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def of_object(self, sha256: str, client: str) -> list[Binding]:
        """Returns the files that this drone announced with this object."""
        sql = (
            "SELECT b.* FROM bindings b JOIN flights f USING (flight_id) "
            "WHERE b.sha256 = ? AND f.client = ?"
        )
        return self._select(sql, (sha256, client))

    def note_manifest(self, flight_id: str, sha256: str) -> None:
        """Notes that a flight is whole, by this manifest."""
        with self._lock:
            self._db.execute(
                "UPDATE flights SET manifest_sha256 = ? WHERE flight_id = ?", (sha256, flight_id)
            )

    def lay(self, binding: Binding) -> bool:
        """Puts a file in its flight's folder if its object is complete; returns whether it lies."""
        if not self._blobs.has(binding.sha256):
            return False
        target = self._flights / binding.flight_id / binding.path
        with self._lock:
            laid = self._db.execute(
                "SELECT laid FROM bindings WHERE flight_id=? AND path=? AND sha256=?",
                (binding.flight_id, binding.path, binding.sha256),
            ).fetchone()
            if laid is None:
                return False
            if not (laid[0] and target.is_file()):
                _place(self._blobs.path(binding.sha256), target)
                self._db.execute(
                    "UPDATE bindings SET laid=1, arrived=(SELECT max(arrived)+1 FROM bindings) "
                    "WHERE flight_id=? AND path=? AND sha256=?",
                    (binding.flight_id, binding.path, binding.sha256),
                )
        return True

    def lay_all(self) -> int:
        """Lays what a kill left between object and folder; returns how many files."""
        waiting = self._select("SELECT * FROM bindings WHERE laid = 0", ())
        laid = sum(self.lay(binding) for binding in waiting)
        if laid:
            log.info("laid_after_restart files=%d", laid)
        return laid

    def _select(self, sql: str, values: tuple[object, ...]) -> list[Binding]:
        with self._lock:
            found = self._db.execute(sql, values).fetchall()
        names = ("flight_id", "path", "sha256", "size_bytes", "kind")
        return [Binding(*(row[name] for name in names)) for row in found]


def arrivals(project: Path, flight_id: str, folder: str, after: int) -> list[tuple[int, Path]]:
    """Returns what has arrived of a folder of a flight, in the order of arrival.

    Args:
        project: The project folder.
        flight_id: The flight.
        folder: The part of the flight folder, ``rows`` for example.
        after: Only what arrived later than the file with this number.

    Returns:
        The number of each arrival, rising over the whole project, and the file.
    """
    path = project / "receive.db"
    if not path.is_file():
        return []
    sql = (
        "SELECT arrived, path FROM bindings WHERE flight_id = ? AND laid = 1 AND arrived > ? "
        "AND path LIKE ? || '/%' ORDER BY arrived"
    )
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as db:
        found = db.execute(sql, (flight_id, max(after, 0), folder)).fetchall()
    return [(int(n), project / "flights" / flight_id / name) for n, name in found]


def _place(source: Path, target: Path) -> None:
    """Links or copies an object to a file's place, in one step for whoever reads there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = target.with_name(f".{target.name}.laying")
    temp.unlink(missing_ok=True)
    try:
        if target.name in COPIED:
            raise OSError("to be copied")
        os.link(source, temp)
    except OSError:  # file systems without links, and what others may open for writing
        shutil.copyfile(source, temp)
    temp.replace(target)
