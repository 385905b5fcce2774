"""One MAVLink link of the simulated autopilot over UDP: who is on the other side, what streams."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

os.environ.setdefault("MAVLINK20", "1")
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.simulator.errors import SimulatorLinkError
from onboard.simulator.telemetry import Message

FORMS = "udp:HOST:PORT or udpout:HOST:PORT (send there), udpin:HOST:PORT (wait to be spoken to)"


class Link:
    """A UDP port with one peer, per-link streams, and its own sequence numbers.

    Args:
        address: Where the other side listens, or where to listen for it.
    """

    def __init__(self, address: str) -> None:
        kind, host, port = _split(address)
        self.address = address
        self.peer: tuple[str, int] | None = None if kind == "udpin" else (host, port)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self.socket.bind((host, port) if kind == "udpin" else (_own_side(host), 0))
        except OSError as error:
            raise SimulatorLinkError(
                f"cannot use {address}: {error.strerror or error}", "is another program on it?"
            ) from error
        self.socket.setblocking(False)
        self.intervals_s: dict[str, float] = {"HEARTBEAT": 1.0}
        self.due_s: dict[str, float] = {"HEARTBEAT": 0.0}
        self.silent = False
        self.sent = 0
        self._packer = mav.MAVLink(None, srcSystem=1, srcComponent=1)
        self._parser = mav.MAVLink(None)
        self._parser.robust_parsing = True

    def send(self, message: Message) -> None:
        """Sends a message of the autopilot's own."""
        packed = message.pack(self._packer)
        self._packer.seq = (self._packer.seq + 1) % 256
        self.forward(packed)

    def forward(self, packed: bytes) -> None:
        """Sends bytes that another component packed, as a router does."""
        if self.peer is None or self.silent:
            return
        try:
            self.socket.sendto(packed, self.peer)
            self.sent += 1
        except OSError:
            return

    def receive(self) -> Iterator[Message]:
        """Yields the messages that have arrived; whoever spoke last is the peer."""
        while True:
            try:
                data, self.peer = self.socket.recvfrom(65536)
            except (BlockingIOError, ConnectionError):
                return
            for message in self._parser.parse_buffer(data) or []:
                if message.get_type() != "BAD_DATA":
                    yield message

    def set_interval(self, name: str, interval_s: float, now_s: float) -> None:
        """Starts, changes or (at 0) stops a stream of this link."""
        if interval_s <= 0:
            self.intervals_s.pop(name, None)
            self.due_s.pop(name, None)
            return
        self.intervals_s[name] = interval_s
        self.due_s[name] = now_s

    def take_due(self, now_s: float) -> list[str]:
        """Returns the streams that are due, and sets when they are due next."""
        names = [name for name, due in self.due_s.items() if due <= now_s]
        for name in names:
            step = self.intervals_s[name]
            behind = now_s - self.due_s[name]
            self.due_s[name] += step * (1 + int(behind / step))
        return names

    def close(self) -> None:
        """Closes the port."""
        self.socket.close()


def _split(address: str) -> tuple[str, str, int]:
    kind, _, rest = address.partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("udp", "udpout", "udpin") or not host or not port.isdigit():
        raise SimulatorLinkError(f"{address!r} is no link of the simulator", f"use {FORMS}")
    return kind, host, int(port)


def _own_side(host: str) -> str:
    return "127.0.0.1" if host in ("127.0.0.1", "localhost") else ""
