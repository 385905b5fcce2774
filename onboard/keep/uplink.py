"""The uplink process: sends what is recorded, in order of urgency, until the ground has all of it.

It reads the flights and never writes them. Nothing is deleted on board, with or without a receipt:
this version keeps everything.
"""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from onboard.keep.database import WriterLock
from onboard.keep.errors import UplinkRefusedError
from onboard.keep.files import make_folder, sha256_of
from onboard.keep.flight import is_closed, list_flights
from onboard.keep.uplink_db import (
    FAILED,
    MANIFEST,
    PENDING,
    SUPERSEDED,
    Parcel,
    UplinkDatabase,
)
from onboard.keep.uplink_link import ArrivedWrongError, Line, LinkDownError, RejectedError
from onboard.keep.uplink_plan import Planner

log = logging.getLogger(__name__)

STATUS_FILE = "status.json"
DATABASE_FILE = "uplink.db"
BATCH = 50
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class UplinkTask:
    """What the uplink is to do.

    Attributes:
        flights_root: The folder that holds flights.
        state_dir: Its own folder: ``uplink.db``, ``status.json``.
        url: The ground server's address.
        token: The drone's token.
        server_key: The ground's public key, hex; empty trusts the first one it shows.
        max_kbit_s: Bandwidth cap; 0 for none.
        poll_s: How often to look for something new.
        max_backoff_s: The longest pause after failures.
    """

    flights_root: Path
    state_dir: Path
    url: str
    token: str
    server_key: str = ""
    max_kbit_s: float = 0.0
    poll_s: float = 0.5
    max_backoff_s: float = 60.0


def run_uplink(
    task: UplinkTask,
    stop: threading.Event,
    until_done: bool = False,
    transport: httpx.BaseTransport | None = None,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Sends until it is told to stop; returns the status as it last stood.

    Args:
        task: What to do.
        stop: Ends it.
        until_done: End also when everything of all flights is acknowledged and all are closed.
        transport: Takes the place of the network in tests.
        alive: Called whenever the loop turns, for a watchdog.

    Raises:
        FlightBusyError: Another uplink has this state folder.
    """
    make_folder(task.state_dir)
    lock = WriterLock(task.state_dir, ".uplink.lock")
    db = UplinkDatabase(task.state_dir / DATABASE_FILE)
    uplink = Uplink(task, db, stop, transport, alive)
    try:
        uplink.run(until_done)
        return uplink.write_status()
    finally:
        uplink.close()
        db.close()
        lock.release()


def read_status(state_dir: Path) -> dict[str, Any]:
    """Returns the uplink's last status; empty if it never ran.

    Keys: ``state`` (``sending``, ``idle``, ``link_down``, ``refused``,
    ``disk_failing``, ``stopped``), ``done``,
    ``acknowledged``, ``pending``, ``failed`` (each ``objects`` and ``bytes``), ``sent_bytes``,
    ``failures``, ``last_error``, ``errors``, ``t_utc_s``, ``url``.
    """
    try:
        status: dict[str, Any] = json.loads((state_dir / STATUS_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return status


class Uplink:
    """The loop: plan, send the most urgent, look again.

    Attributes:
        failures: How often the line failed, since the start.
    """

    def __init__(
        self,
        task: UplinkTask,
        db: UplinkDatabase,
        stop: threading.Event,
        transport: httpx.BaseTransport | None,
        alive: Callable[[], None],
    ) -> None:
        self._task, self._db, self._stop, self._alive = task, db, stop, alive
        self._planner = Planner(task.flights_root, db)
        known = task.server_key or db.meta("server_key")
        rate = task.max_kbit_s * 125.0
        self._line = Line(task.url, task.token, bytes.fromhex(known), rate, stop.wait, transport)
        self._state, self._last_error = "idle", ""
        self._in_a_row = self._alone = 0
        self._planned_at = self._said_at = float("-inf")
        self._everything_planned = False
        self.failures = 0
        db.retry_failed()

    def close(self) -> None:
        """Hangs up."""
        self._line.close()

    def run(self, until_done: bool) -> None:
        """Turns until it is told to stop or all is done."""
        while not self._stop.is_set():
            self._alive()
            try:
                self._plan(force=True)
                worked = self._turn()
            except (sqlite3.Error, OSError) as error:
                worked = True
                self._failed("disk_failing", f"{type(error).__name__}: {error}")
            self._say()
            if until_done and (self.done() or self._stuck()):
                break
            if not worked:
                self._stop.wait(self._task.poll_s)
        self._state = "stopped" if self._stop.is_set() else self._state

    def done(self) -> bool:
        """Returns whether everything of all flights is acknowledged, and all are closed."""
        counts = self._db.counts()
        waiting = counts[PENDING]["objects"] + counts[FAILED]["objects"]
        closed = all(is_closed(folder) for folder in list_flights(self._task.flights_root))
        return self._everything_planned and closed and not waiting

    def _stuck(self) -> bool:
        """Returns whether only what cannot be sent is left."""
        counts = self._db.counts()
        left = counts[FAILED]["objects"] > 0 and not counts[PENDING]["objects"]
        return self._everything_planned and left

    def write_status(self) -> dict[str, Any]:
        """Writes ``status.json`` and returns what it says."""
        status: dict[str, Any] = {
            "format": 1,
            "state": self._state,
            "done": self.done(),
            **self._db.counts(),
            "sent_bytes": self._line.sent_bytes,
            "failures": self.failures,
            "bad_receipts": self._line.bad_receipts,
            "unreadable": self._planner.unreadable,
            "last_error": self._last_error,
            "errors": self._db.errors(),
            "t_utc_s": round(time.time(), 3),
            "url": self._task.url,
        }
        path = self._task.state_dir / STATUS_FILE
        temp = path.with_suffix(".part")
        try:
            temp.write_text(json.dumps(status, indent=1))
            temp.replace(path)
        except OSError as error:  # a full disk must not stop the sending
            log.warning("status_not_written error=%s", error)
        return status

    def _plan(self, force: bool = False) -> None:
        """Looks for what is new, at most once per poll unless it is forced."""
        now = time.monotonic()
        if force or now - self._planned_at >= self._task.poll_s:
            self._everything_planned = self._planner.refresh()
            self._planned_at = time.monotonic()

    def _turn(self) -> bool:
        """Sends one batch; returns whether there may be more at once."""
        batch = self._db.pending(1 if self._alone else BATCH)
        if not batch:
            self._state = "idle"
            return False
        try:
            self._know_the_ground()
            self._send_batch(batch)
            self._alone = max(0, self._alone - 1)
        except RejectedError as error:
            self._rejected(batch, str(error))
        except LinkDownError as error:
            self._failed("link_down", str(error))
        except UplinkRefusedError as error:
            self._failed("refused", str(error))
        else:
            if not self._stop.is_set():
                self._state, self._last_error, self._in_a_row = "sending", "", 0
        return True

    def _know_the_ground(self) -> None:
        """Learns the ground's public key once, and refuses another one ever after."""
        if not self._line.server_key:
            key = self._line.fetch_key()
            self._line.server_key = bytes.fromhex(key)
            self._db.set_meta("server_key", key)
            log.info("ground_key_learnt key=%s", key)

    def _send_batch(self, batch: list[Parcel]) -> None:
        if batch[0].priority == MANIFEST:
            self._send_manifest(batch[0])
            return
        objects = [parcel for parcel in batch if parcel.priority != MANIFEST]
        standings = self._line.want(objects)
        for parcel, (offset, receipt) in zip(objects, standings, strict=True):
            if receipt is not None:
                self._db.acknowledge(parcel, receipt)
            elif not self._deliver(parcel, offset):
                return

    def _deliver(self, parcel: Parcel, offset: int) -> bool:
        """Sends an object to its end; returns whether the batch may go on.

        It ends early, to go on later where it was, when something more urgent waits.
        """
        astray = 0
        while not self._stop.is_set():
            self._alive()
            piece = self._piece(parcel, offset)
            if piece is None:
                return True
            try:
                now, receipt = self._line.send_piece(parcel, offset, piece)
            except ArrivedWrongError:
                return self._arrived_wrong(parcel)
            self._say()
            if receipt is not None:
                self._db.acknowledge(parcel, receipt)
                return not self._more_urgent(parcel)
            if not piece:  # the file became shorter than it was
                return self._arrived_wrong(parcel)
            astray += now != offset + len(piece)
            if astray > MAX_ATTEMPTS:
                raise LinkDownError(f"{parcel.path} does not advance beyond {now} bytes")
            offset = now
            if self._more_urgent(parcel):
                return False
        return False

    def _send_manifest(self, parcel: Parcel) -> None:
        receipt, missing = self._line.send_manifest(parcel)
        if receipt is not None:
            self._db.acknowledge(parcel, receipt)
            log.info("flight_acknowledged flight=%s", parcel.flight_id)
            return
        why = f"the ground misses {len(missing)} objects of {parcel.flight_id}"
        if not self._db.send_again(parcel.flight_id, missing):
            self._db.set_state(parcel, FAILED, why)
        raise LinkDownError(why)

    def _piece(self, parcel: Parcel, offset: int) -> bytes | None:
        """Returns the next bytes of an object; ``None`` if it can no longer be sent."""
        size = self._line.piece_bytes(hurry=not self._everything_planned)
        if parcel.body is not None:
            return parcel.body[offset : offset + size]
        try:
            with self._path(parcel).open("rb") as stream:
                stream.seek(offset)
                return stream.read(max(0, min(size, parcel.size_bytes - offset)))
        except OSError as error:
            self._db.set_state(parcel, FAILED, f"cannot be read: {error.strerror}")
            return None

    def _path(self, parcel: Parcel) -> Path:
        return self._db.folder(parcel.flight_id) / parcel.path

    def _arrived_wrong(self, parcel: Parcel) -> bool:
        """Decides about an object that arrived as something else; the batch may go on."""
        if parcel.body is None:
            path = self._path(parcel)
            found = sha256_of(path) if path.is_file() else ""
            if found != parcel.sha256:
                replaced = self._db.planned(parcel.flight_id, parcel.path, found)
                why = "the file on board is not what was recorded"
                self._db.set_state(parcel, SUPERSEDED if replaced else FAILED, why)
                return True
        state = FAILED if parcel.attempts + 1 >= MAX_ATTEMPTS else PENDING
        self._db.set_state(parcel, state, "it arrived with another hash")
        return True

    def _rejected(self, batch: list[Parcel], why: str) -> None:
        """Finds out which object of a batch the ground refuses; the others go on."""
        self.failures += 1
        if len(batch) > 1:
            self._alone = len(batch)
            return
        log.warning("object_rejected path=%s error=%s", batch[0].path, why)
        self._db.set_state(batch[0], FAILED, why)

    def _more_urgent(self, parcel: Parcel) -> bool:
        self._plan()
        first = self._db.first_priority()
        return first is not None and first < parcel.priority

    def _failed(self, state: str, why: str) -> None:
        """Notes a failure and waits, longer each time, with jitter."""
        self.failures += 1
        self._in_a_row += 1
        if why != self._last_error:
            log.warning("uplink_%s error=%s", state, why)
        self._state, self._last_error = state, why
        self._say(force=True)
        longest = min(self._task.max_backoff_s, 0.25 * 2 ** min(self._in_a_row, 16))
        until = time.monotonic() + longest * random.uniform(0.5, 1.0)  # noqa: S311
        while (left := until - time.monotonic()) > 0 and not self._stop.wait(min(left, 1.0)):
            self._alive()

    def _say(self, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._said_at >= 1.0:
            self._said_at = now
            self.write_status()
