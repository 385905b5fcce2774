"""Plays a recorded link over UDP as the autopilot would have spoken it."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("MAVLINK20", "1")
from pymavlink.dialects.v20 import ardupilotmega as mav


def records(path: Path) -> Iterator[tuple[float, bytes]]:
    """Yields (UNIX seconds, packed message) of a tlog."""
    data = path.read_bytes()
    at = 0
    while at + 8 + 12 <= len(data):
        (t_us,) = struct.unpack_from(">Q", data, at)
        length, flags = data[at + 9], data[at + 10]
        size = length + 12 + (13 if flags & 1 else 0)
        if data[at + 8] == 0xFE:
            size = length + 8
        yield t_us * 1e-6, data[at + 8 : at + 8 + size]
        at += 8 + size


class TlogPlayer:
    """Sends one system's messages of a tlog to a UDP port, faster than they came.

    Args:
        received: How many messages the other side has taken in: where it is far behind (a busy
            machine), the player waits, as loopback has no flow control.
    """

    def __init__(
        self,
        path: Path,
        port: int,
        speed: float,
        source: tuple[int, int] = (1, 1),
        received: Callable[[], int] | None = None,
    ):
        self.received = received
        self.path = path
        self.speed = speed
        self.source = source
        self.sent = 0
        self.heard: list[mav.MAVLink_message] = []
        self._port = port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._parser = mav.MAVLink(None)
        self._parser.robust_parsing = True

    def play(self, stop: threading.Event | None = None, start_s: float = 0.0, end_s: float = 1e9):
        """Plays the log's seconds [start, end) after its first message."""
        first = None
        begun = time.monotonic()
        for t_s, packed in records(self.path):
            first = t_s if first is None else first
            if not start_s <= t_s - first < end_s or not self._from_source(packed):
                continue
            due = begun + (t_s - first - start_s) / self.speed
            while (wait := due - time.monotonic()) > 0:
                time.sleep(min(wait, 0.02))
                self.listen()
            if stop is not None and stop.is_set():
                return
            self._socket.sendto(packed, ("127.0.0.1", self._port))
            self.sent += 1
            while self.received is not None and self.sent - self.received() > 300:
                time.sleep(0.005)
            if self.sent % 50 == 0:
                time.sleep(0.0005)
                self.listen()

    def listen(self) -> None:
        """Takes what the other side has sent."""
        while True:
            try:
                data = self._socket.recv(65536)
            except (BlockingIOError, ConnectionRefusedError):
                return
            self.heard += self._parser.parse_buffer(data) or []

    def close(self) -> None:
        self._socket.close()

    def _from_source(self, packed: bytes) -> bool:
        source = (packed[5], packed[6]) if packed[0] == 0xFD else (packed[3], packed[4])
        return source == self.source
