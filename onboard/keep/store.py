"""What is written of a flight, in the one thread that may: one durable commit per frame."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from gossan.errors import GossanError
from onboard.keep import rows
from onboard.keep.commit import (
    announce,
    files_of,
    put_health,
    put_record,
    put_segment,
    put_tie,
)
from onboard.keep.database import FlightDatabase, WriterLock
from onboard.keep.errors import DiskFullError, StoreError
from onboard.keep.flight import COVERAGE, DATABASE, MANIFEST, read_header
from onboard.keep.health import HealthEvent
from onboard.keep.landing import write_coverage, write_pose_table
from onboard.keep.mend import (
    Recovery,
    adopt_files,
    adopt_segments,
    missing_files,
    remove_temporary,
)
from onboard.keep.segments import SEGMENT_NS, KeptFile, write_final_manifest, write_segment
from onboard.records import Alert, ClockTie, FrameRecord

log = logging.getLogger(__name__)

RETRY_NS = 5 * 10**9


@dataclass(frozen=True, slots=True)
class NextIds:
    """Where counting goes on after an interruption."""

    seq: int
    track_id: int
    alert_id: int


class FlightStore:
    """The one writer of a flight. Make it, use it and close it in one thread.

    Store before tell: :meth:`commit_frame` returns the alerts that are now safe; only those may
    be told, and then :meth:`mark_told` is called.

    Args:
        folder: A folder made by :func:`onboard.keep.flight.create_flight`; one that was
            interrupted is mended first, one that was closed is opened again.
        now_ns: The monotonic clock.
        give_room: Called when a row finds the disk full, as
            :meth:`onboard.keep.space.SpaceGuard.release_reserve`; where it returns True the row is
            tried once more.

    Attributes:
        folder: The flight folder.
        recovery: What was found on opening.
        segment_failures: How often a segment could not be closed when it was due.

    Raises:
        FlightBusyError: Another process writes this flight.
        NewerSchemaError: A newer version wrote it.
    """

    def __init__(
        self,
        folder: Path,
        now_ns: Callable[[], int] = time.monotonic_ns,
        give_room: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder = folder
        self.flight_id = read_header(folder).flight_id
        self._now_ns, self._give_room = now_ns, give_room
        self._lock = WriterLock(folder)
        try:
            self._db = FlightDatabase(folder / DATABASE)
            self._opened_ns = now_ns()
            self._segment_due_ns = self._opened_ns + SEGMENT_NS
            self._segment = self.segment_failures = 0
            self.recovery = self._mend()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(final=error is None)

    def commit_frame(
        self, record: FrameRecord, chips: Iterable[tuple[str, str]] = ()
    ) -> tuple[Alert, ...]:
        """Commits all that one frame adds; durable when this returns.

        The same frame may come again (scanned after landing, say): what is new is added and
        replaced, what is absent the second time is not taken away.

        Args:
            record: The frame and what was found.
            chips: Path and SHA-256 of thumbnails that were kept for it.

        Returns:
            The alerts that may now be told, in their order: those that were not told before.

        Raises:
            DiskFullError: There is no room; nothing of it was committed.
            StoreError: The database refuses; nothing of it was committed.
        """
        kept = [self._kept_file(path, digest, "chip") for path, digest in chips]
        if record.kept_path:
            kept.append(self._kept_file(record.kept_path, record.kept_sha256, "frame"))
        try:
            self._commit(record, kept)
        except DiskFullError:
            if not self._give_room():
                raise
            log.warning("reserve_given_up flight=%s", self.flight_id)
            self._commit(record, kept)
        self.tick()
        return self._untold(record.alerts)

    def mark_told(self, alert_id: int, t_mono_ns: int) -> None:
        """Notes that an alert was told; the first time counts.

        Raises:
            StoreError: No such alert is stored: it must not have been told.
        """
        with self._db.transaction():
            changed = self._db.run(
                "UPDATE alerts SET told = ? WHERE alert_id = ? AND told IS NULL",
                (t_mono_ns, alert_id),
            )
            if changed:
                announce(self._db, "alert", str(alert_id))
        stored = "SELECT 1 FROM alerts WHERE alert_id = ?"
        if not changed and self._db.value(stored, (alert_id,)) is None:
            raise StoreError(f"alert {alert_id} is not stored", "commit its frame before telling")

    def untold_alerts(self) -> tuple[Alert, ...]:
        """Returns the stored alerts that nobody was told, after an interruption for example."""
        found = self._db.rows("SELECT * FROM alerts WHERE told IS NULL ORDER BY alert_id")
        return tuple(rows.alert_of(row) for row in found)

    def add_ties(self, ties: Iterable[ClockTie]) -> None:
        """Commits clock ties."""
        with self._db.transaction():
            for tie in ties:
                put_tie(self._db, tie)
        self.tick()

    def add_health(self, event: HealthEvent) -> None:
        """Commits a health event."""
        with self._db.transaction():
            put_health(self._db, event)
        self.tick()

    def set_meta(self, key: str, value: str) -> None:
        """Commits a note about the flight."""
        with self._db.transaction():
            self._db.put("meta", {"key": key, "value": value})

    def set_landed(self, t_mono_ns: int, coverage_geojson: bytes | None = None) -> None:
        """Notes the landing and writes ``coverage.geojson``, the one given or a plain one."""
        self.set_meta("landed_mono_ns", str(t_mono_ns))
        write_coverage(self.folder, coverage_geojson)

    def next_ids(self) -> NextIds:
        """Returns where frames, tracks and alerts go on counting."""

        def after(column: str, table: str) -> int:
            highest = self._db.value(f"SELECT max({column}) FROM {table}")  # noqa: S608
            return 0 if highest is None else int(highest) + 1

        return NextIds(after("seq", "frames"), after("track_id", "tracks"), self._next_alert())

    def committed_frames(self) -> frozenset[str]:
        """Returns the names of all frames that are committed."""
        return frozenset(str(row["name"]) for row in self._db.rows("SELECT name FROM frames"))

    def tick(self) -> None:
        """Closes the segment when its minute is over; called by every commit.

        Where the disk refuses, the segment stays open and is tried again: no row waits for it.
        """
        if self._now_ns() < self._segment_due_ns:
            return
        try:
            self._close_segment(recovered=False)
        except (GossanError, OSError) as error:
            self._segment_due_ns = self._now_ns() + RETRY_NS
            self.segment_failures += 1
            log.warning("segment_not_closed number=%d error=%s", self._segment, error)

    def close(self, final: bool = True) -> None:
        """Ends writing. With ``final`` the flight is closed: tables, last segment, manifest.

        Closing what was closed changes nothing but the manifest, which is written again.
        """
        try:
            if final:
                self._finish()
            else:
                self.set_meta("state", "paused")
        finally:
            self._db.close()
            self._lock.release()
        if final:
            write_final_manifest(self.folder, self.flight_id)

    def _commit(self, record: FrameRecord, kept: Iterable[KeptFile]) -> None:
        with self._db.transaction():
            put_record(self._db, record, kept, self._segment)

    def _finish(self) -> None:
        for write in (write_pose_table, _write_missing_coverage):
            try:
                write(self.folder)
            except (GossanError, ImportError, OSError, ValueError) as error:
                log.warning("landing_table_failed table=%s error=%s", write.__name__, error)
                with contextlib.suppress(GossanError):
                    self.add_health(_event(self._now_ns(), "landing_table_failed", str(error)))
        self._close_segment(recovered=False)
        self.set_meta("state", "closed")
        self._db.fold()

    def _untold(self, alerts: Iterable[Alert]) -> tuple[Alert, ...]:
        wanted = {alert.alert_id for alert in alerts}
        return tuple(a for a in self.untold_alerts() if a.alert_id in wanted) if wanted else ()

    def _next_alert(self) -> int:
        highest = self._db.value("SELECT max(alert_id) FROM alerts")
        return 0 if highest is None else int(highest) + 1

    def _kept_file(self, path: str, digest: str, kind: str) -> KeptFile:
        try:
            size = (self.folder / path).stat().st_size
        except OSError as error:
            raise StoreError(f"{path} should have been kept: {error.strerror}") from error
        return KeptFile(path, digest, size, kind)

    def _close_segment(self, recovered: bool) -> int | None:
        """Closes the open segment, if there is anything in it; returns its number."""
        number, span = self._segment, (self._opened_ns, self._now_ns())
        files = files_of(self._db, number)
        if files:
            manifest = write_segment(self.folder, self.flight_id, number, files, span, recovered)
            put_segment(self._db, number, manifest, len(files), recovered)
            self._segment = number + 1
        self._opened_ns = self._now_ns()
        self._segment_due_ns = self._opened_ns + SEGMENT_NS
        return number if files else None

    def _mend(self) -> Recovery:
        """Brings folder and database to agree after whatever happened before."""
        interrupted = self._db.value("SELECT value FROM meta WHERE key = 'state'") == "open"
        (self.folder / MANIFEST).unlink(missing_ok=True)
        self.set_meta("state", "open")
        self.set_meta("flight_id", self.flight_id)
        self._segment = adopt_segments(self.folder, self._db)
        found = Recovery(
            interrupted=interrupted,
            frames=int(self._db.value("SELECT count(*) FROM frames")),
            temp_removed=remove_temporary(self.folder),
            missing=missing_files(self.folder, self._db),
            adopted=adopt_files(self.folder, self._db, self._segment),
            segment=self._close_segment(recovered=True) if interrupted else None,
        )
        if interrupted:
            log.warning("flight_recovered flight=%s found=%s", self.flight_id, found)
            self.add_health(found.event(self._now_ns()))
        return found


def recover(folder: Path) -> Recovery:
    """Mends a flight after a kill, without closing it, and returns what was found."""
    store = FlightStore(folder)
    store.close(final=False)
    return store.recovery


def _write_missing_coverage(folder: Path) -> bool:
    return (folder / COVERAGE).exists() or write_coverage(folder)


def _event(t_mono_ns: int, code: str, text: str) -> HealthEvent:
    return HealthEvent(t_mono_ns, "keep", "warning", code, text)
