"""The one writing connection to ``flight.db``: WAL, synchronous FULL, one transaction a commit."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onboard.keep.errors import DiskFullError, FlightBusyError, StoreError
from onboard.keep.rows import Row, to_columns
from onboard.keep.schema import KEYS, migrate

LOCK = ".writer.lock"
TIDY_S = 2.0
"""How long closing waits for readers to let it leave WAL mode."""


class WriterLock:
    """Makes sure that one process at a time writes a folder; a kill releases it.

    Raises:
        FlightBusyError: Another process holds it.
    """

    def __init__(self, folder: Path, name: str = LOCK) -> None:
        self._descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise FlightBusyError(
                f"{folder} is being written by another process", "stop that one first"
            ) from error

    def release(self) -> None:
        """Lets others write."""
        os.close(self._descriptor)


class FlightDatabase:
    """Writes rows; knows tables and keys, nothing of records.

    It belongs to the thread that makes it. Every write happens inside :meth:`transaction`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        migrate(path)
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=10.0)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Commits all or nothing; it is durable when the block has ended.

        Raises:
            DiskFullError: There is no room; nothing was written.
            StoreError: The database refuses.
        """
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise _refusal(error, self.path) from error
        except BaseException:
            self._roll_back()
            raise

    def put(self, table: str, row: Mapping[str, Any]) -> None:
        """Writes a row; one with the same key is replaced."""
        columns = to_columns(row)
        names = ",".join(columns)
        marks = ",".join("?" * len(columns))
        sql = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
        if keys := KEYS.get(table):
            rest = [name for name in columns if name not in keys]
            changes = ",".join(f"{name}=excluded.{name}" for name in rest)
            sql += f" ON CONFLICT ({','.join(keys)}) DO UPDATE SET {changes}"
        self._connection.execute(sql, tuple(columns.values()))

    def run(self, sql: str, values: tuple[object, ...] = ()) -> int:
        """Runs a statement; returns how many rows it changed."""
        return self._connection.execute(sql, values).rowcount

    def rows(self, sql: str, values: tuple[object, ...] = ()) -> list[Row]:
        """Returns the rows of a query."""
        return [dict(row) for row in self._connection.execute(sql, values)]

    def value(self, sql: str, values: tuple[object, ...] = ()) -> Any:
        """Returns the first value of the first row, or ``None``."""
        row = self._connection.execute(sql, values).fetchone()
        return None if row is None else row[0]

    def fold(self, wait_s: float = 10.0) -> None:
        """Folds the log into the one file, which then holds everything.

        A reader in the middle of a query is waited for. One that merely stays connected keeps the
        file in WAL mode, which changes nothing about its content.

        Raises:
            StoreError: A reader held the log all the time.
        """
        deadline = time.monotonic() + wait_s
        self._connection.execute("PRAGMA busy_timeout=100")
        while self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.path} cannot be closed: a reader holds it", "end that reader"
                )
            time.sleep(0.02)
        deadline = time.monotonic() + min(wait_s, TIDY_S)
        while time.monotonic() < deadline:
            with contextlib.suppress(sqlite3.OperationalError):
                if self._connection.execute("PRAGMA journal_mode=DELETE").fetchone()[0] == "delete":
                    return
            time.sleep(0.05)

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def _roll_back(self) -> None:
        if self._connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")


def _refusal(error: sqlite3.Error, path: Path) -> DiskFullError | StoreError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR_SHM"):
        return DiskFullError(f"no room in {path}: {error}", "free or change the disk after landing")
    return StoreError(f"{path} refuses the row: {error}", "check the disk; the flight folder stays")
