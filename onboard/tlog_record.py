"""Recording of the link as a standard MAVLink log, on a thread that nothing waits for."""

from __future__ import annotations

import logging
import os
import struct
import threading
import time
from collections import deque
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

LEAD_S = 30.0
"""What came in the last half minute before recording started is kept, too."""
WAITING_LIMIT = 200_000
SYNC_S = 1.0


class TlogRecorder:
    """Writes (UNIX µs, packed message) pairs: 8 bytes big-endian, then the message.

    ``note`` never waits: it appends to a queue that ``run`` empties. Overflow policy: the oldest
    is dropped and counted.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._file: BinaryIO | None = None
        self._lock = threading.Lock()
        self._synced_s = 0.0
        self.dropped = 0
        self.written_bytes = 0
        self.failed = ""

    def note(self, t_unix_us: int, packed: bytes) -> None:
        """Takes one message of the link, received or sent."""
        self._waiting.append((t_unix_us, packed))
        if self._file is None:
            oldest_us = t_unix_us - int(LEAD_S * 1e6)
            while self._waiting and self._waiting[0][0] < oldest_us:
                self._waiting.popleft()
        if len(self._waiting) > WAITING_LIMIT:
            self._waiting.popleft()
            self.dropped += self._file is not None

    def start(self, path: Path) -> None:
        """Starts (or goes on) writing to a log."""
        with self._lock:
            self._close()
            self._file = path.open("ab")

    def stop(self) -> None:
        """Writes what waits and closes the log."""
        with self._lock:
            self._write_waiting()
            self._close()

    @property
    def recording(self) -> bool:
        """Whether a log is open."""
        return self._file is not None

    def run(self, stop: threading.Event) -> None:
        """Empties the queue until ``stop``."""
        while not stop.wait(0.2):
            with self._lock:
                self._write_waiting()
        self.stop()

    def _write_waiting(self) -> None:
        if self._file is None:
            return
        parts: list[bytes] = []
        while self._waiting:
            t_unix_us, packed = self._waiting.popleft()
            parts += (struct.pack(">Q", t_unix_us), packed)
        try:
            self._file.write(b"".join(parts))
            self._file.flush()
            self._sync()
        except OSError as error:
            self.dropped += len(parts) // 2
            if str(error) != self.failed:
                log.error("tlog_failed error=%s dropped=%d", error, self.dropped)
            self.failed = str(error)
            return
        self.failed = ""
        self.written_bytes += sum(len(part) for part in parts)

    def _sync(self) -> None:
        if self._file is not None and time.monotonic() - self._synced_s >= SYNC_S:
            os.fsync(self._file.fileno())
            self._synced_s = time.monotonic()

    def _close(self) -> None:
        if self._file is None:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            log.error("tlog_failed error=%s", error)
        self._file.close()
        self._file = None
