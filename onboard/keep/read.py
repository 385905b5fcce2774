"""Reading a flight folder, while it is written or later; nothing in it is ever changed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from onboard.keep import rows
from onboard.keep.errors import DamagedFlightError, FlightNotFoundError
from onboard.keep.flight import DATABASE, FlightHeader, read_header
from onboard.keep.health import HealthEvent
from onboard.keep.rows import Row
from onboard.keep.schema import refuse_newer
from onboard.records import Alert, ClockTie, Detections, Footprint, FrameRecord, Poses, Track

NESTED: dict[str, frozenset[str]] = {
    "frames": frozenset(("flags", "stage_ms", "dropped")),
    "poses": frozenset(
        (
            "flags",
            "r_ned_cam",
            "r_ned_body",
            "v_ned_mps",
            "omega_ned_rps",
            "sigma_enu_m",
            "bias_enu_m",
        )
    ),
    "footprints": frozenset(("polygon_map_m", "holes_map_m")),
    "scans": frozenset(("bias_names", "cause_names")),
    "detections": frozenset(
        (
            "centroid_px",
            "polygon_px",
            "polygon_map_m",
            "cov_random_m2",
            "sensitivity_m",
            "cause_share",
            "flags",
        )
    ),
    "tracks": frozenset(("cov_random_m2", "sensitivity_m", "bias_names")),
}
"""The columns of each table that hold JSON text."""


class FlightReader:
    """A flight folder opened for reading.

    >>> with FlightReader(folder) as flight:       # doctest: +SKIP
    ...     print(flight.header.flight_id, len(flight.poses()))

    Attributes:
        folder: The flight folder.
        header: Its identity.

    Raises:
        FlightNotFoundError: There is no flight.
        NewerSchemaError: A newer version wrote it.
        DamagedFlightError: It cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.header: FlightHeader = read_header(folder)
        self._connection = open_read_only(folder / DATABASE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the database."""
        self._connection.close()

    def meta(self) -> dict[str, str]:
        """Returns the notes of the flight database, by key."""
        return {str(row["key"]): str(row["value"]) for row in self._rows("meta", "key")}

    def frames(self) -> list[FrameRecord]:
        """Returns all frames in order of ``seq``, each with its pose, footprint and detections.

        What a frame changed in tracks and alerts is not kept per frame: see :meth:`tracks`.
        """
        poses = {row["frame"]: rows.poses_of([row]) for row in self._rows("poses", "rowid")}
        footprints = {item.frame: item for item in self.footprints()}
        found = {item.frame: item for item in self.detections()}
        records = [rows.frame_of(row) for row in self._rows("frames", "seq, name")]
        return [
            replace(
                record,
                pose=poses.get(record.frame.name),
                footprint=footprints.get(record.frame.name),
                detections=found.get(record.frame.name),
            )
            for record in records
        ]

    def poses(self) -> Poses:
        """Returns the poses of all placed frames in order of ``seq``.

        Raises:
            DamagedFlightError: They have several height datums.
        """
        found = self._rows_of(
            "poses", "SELECT p.* FROM poses p JOIN frames f ON f.name = p.frame ORDER BY f.seq"
        )
        datums = sorted({str(row["height_datum"]) for row in found})
        if len(datums) > 1:
            raise DamagedFlightError(
                f"{self.folder} mixes heights above {' and '.join(datums)}",
                "replay its source with --alt-datum",
            )
        return rows.poses_of(found)

    def detections(self) -> list[Detections]:
        """Returns one set per scanned frame, in order of ``seq``; empty ones are looks too."""
        by_frame: dict[str, list[Row]] = {}
        for row in self._rows("detections", "frame, number"):
            by_frame.setdefault(row["frame"], []).append(row)
        scans = self._rows_of(
            "scans", "SELECT s.* FROM scans s JOIN frames f ON f.name = s.frame ORDER BY f.seq"
        )
        return [rows.detections_of(scan, by_frame.get(scan["frame"], [])) for scan in scans]

    def tracks(self) -> list[Track]:
        """Returns the tracks as they last stood."""
        return [rows.track_of(row) for row in self._rows("tracks", "track_id")]

    def alerts(self) -> list[Alert]:
        """Returns the alerts, told or not."""
        return [rows.alert_of(row) for row in self._rows("alerts", "alert_id")]

    def footprints(self) -> list[Footprint]:
        """Returns what each frame imaged, in order of ``seq``."""
        sql = "SELECT p.* FROM footprints p JOIN frames f ON f.name = p.frame ORDER BY f.seq"
        return [rows.footprint_of(row) for row in self._rows_of("footprints", sql)]

    def health(self) -> list[HealthEvent]:
        """Returns the health events in their order."""
        return [rows.health_of(row) for row in self._rows("health", "id")]

    def ties(self) -> list[ClockTie]:
        """Returns the clock ties in their order."""
        return [rows.tie_of(row) for row in self._rows("clock_ties", "id")]

    def files(self) -> list[Row]:
        """Returns path, sha256, size_bytes, kind and segment of the kept files."""
        return list(self._rows("files", "rowid"))

    def chips(self) -> dict[int, Path]:
        """Returns the newest thumbnail of each track that has one."""
        chips = [Path(row["path"]) for row in self.files() if row["kind"] == "chip"]
        return {int(path.stem.split("_")[0]): self.folder / path for path in chips}

    def counts(self) -> dict[str, int]:
        """Returns the number of rows of each table of records."""
        names = ("frames", "poses", "scans", "detections", "tracks", "alerts", "health", "files")
        return {
            name: int(self._connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0])  # noqa: S608
            for name in names
        }

    def _rows(self, table: str, order: str) -> Iterator[Row]:
        yield from self._rows_of(table, f"SELECT * FROM {table} ORDER BY {order}")  # noqa: S608

    def _rows_of(self, table: str, sql: str) -> list[Row]:
        return read_rows(self._connection, table, sql)


def read_rows(
    connection: sqlite3.Connection, table: str, sql: str, values: tuple[object, ...] = ()
) -> list[Row]:
    """Returns the rows of a query on one table, its JSON columns decoded."""
    nested = NESTED.get(table, frozenset())
    return [rows.from_columns(dict(row), nested) for row in connection.execute(sql, values)]


def open_read_only(path: Path) -> sqlite3.Connection:
    """Returns a read-only connection that sees what the writer has committed.

    On a read-only medium, where no shared-memory file can be made, the closed file itself is read.

    Raises:
        FlightNotFoundError: There is no database.
        DamagedFlightError: It cannot be read.
    """
    if not path.is_file():
        raise FlightNotFoundError(f"there is no flight database at {path}")
    problem: sqlite3.Error | None = None
    uri = f"file:{quote(str(path.absolute()))}"
    wal = path.with_name(path.name + "-wal")
    for mode in ("mode=ro", *(["mode=ro&immutable=1"] * (not wal.exists()))):
        connection = sqlite3.connect(f"{uri}?{mode}", uri=True, timeout=10.0)
        connection.row_factory = sqlite3.Row
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            problem = error
            connection.close()
            continue
        with _closing_on_error(connection):
            refuse_newer(connection, path)
        return connection
    raise DamagedFlightError(
        f"{path} cannot be read: {problem}", "copy the flight again from the card"
    ) from problem


@contextlib.contextmanager
def _closing_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise
