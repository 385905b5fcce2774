"""The bytes of a MAVLink link: UDP, TCP or a serial port behind one small protocol."""

from __future__ import annotations

import errno
import os
import select
import socket
import termios
import tty
from typing import Protocol

from gossan.errors import HardwareError, SettingsError

FORMS = (
    "udpin:HOST:PORT (listen), udpout:HOST:PORT (send first), tcp:HOST:PORT or serial:DEVICE:BAUD"
)
READ_BYTES = 65536
DATAGRAMS_AT_ONCE = 64


class Wire(Protocol):
    """Bytes in both directions."""

    def read(self, timeout_s: float) -> bytes:
        """Returns what has arrived, waiting at most ``timeout_s``; empty where nothing did."""

    def write(self, data: bytes) -> None:
        """Sends one packed message; what cannot be sent now is lost, as on a radio."""

    def close(self) -> None:
        """Closes the port."""


def open_wire(link: str) -> Wire:
    """Opens a connection string.

    Args:
        link: ``udpin:HOST:PORT`` (``udp:`` means the same), ``udpout:HOST:PORT``,
            ``tcp:HOST:PORT`` or ``serial:DEVICE:BAUD``.

    Raises:
        SettingsError: The string has none of these forms.
        HardwareError: The port cannot be opened.
    """
    kind, address, number = _split(link)
    try:
        if kind == "serial":
            return SerialWire(address, number)
        if kind == "tcp":
            return TcpWire(address, number)
        return UdpWire(address, number, listens=kind in ("udp", "udpin"))
    except OSError as error:
        raise HardwareError(
            f"cannot open the MAVLink link {link}: {error.strerror or error}",
            "check the cable and the port; a serial port needs the group dialout",
        ) from error


def check_link(link: str) -> None:
    """Raises SettingsError where a connection string cannot be understood."""
    _split(link)


def _split(link: str) -> tuple[str, str, int]:
    kind, _, rest = link.partition(":")
    address, _, number = rest.rpartition(":")
    if kind not in ("udp", "udpin", "udpout", "tcp", "serial") or not address:
        raise SettingsError(f"[vehicle] link {link!r} is no connection string", f"use {FORMS}")
    if not number.isdigit() or (kind != "serial" and not 0 < int(number) < 65536):
        raise SettingsError(f"[vehicle] link {link!r}: {number!r} is no port or baud rate", FORMS)
    return kind, address, int(number)


class UdpWire:
    """A UDP socket that listens (and answers whoever spoke last) or speaks first."""

    def __init__(self, host: str, port: int, listens: bool) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._peer: tuple[str, int] | None = None
        if listens:
            self._socket.bind((host, port))
        else:
            self._peer = (host, port)
        self._socket.setblocking(False)

    @property
    def port(self) -> int:
        """The local port."""
        return int(self._socket.getsockname()[1])

    def read(self, timeout_s: float) -> bytes:
        """Returns the datagrams that have arrived, joined."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return b""
        found: list[bytes] = []
        for _ in range(DATAGRAMS_AT_ONCE):
            try:
                data, self._peer = self._socket.recvfrom(READ_BYTES)
            except (BlockingIOError, ConnectionError):
                break
            found.append(data)
        return b"".join(found)

    def write(self, data: bytes) -> None:
        """Sends to the peer, once there is one."""
        if self._peer is None:
            return
        try:
            self._socket.sendto(data, self._peer)
        except (BlockingIOError, ConnectionError):
            return
        except OSError as error:
            if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOBUFS):
                raise

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


class TcpWire:
    """A TCP client."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=3.0)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, timeout_s: float) -> bytes:
        """Returns what has arrived."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            return b""
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the other side closed the connection")
        return data

    def write(self, data: bytes) -> None:
        """Sends all of it."""
        self._socket.sendall(data)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


class SerialWire:
    """A serial port in raw mode, 8N1, without flow control."""

    def __init__(self, device: str, baud: int) -> None:
        speed = getattr(termios, f"B{baud}", None)
        if speed is None:
            raise SettingsError(f"{baud} is no baud rate of this machine", "115200 or 921600")
        self._fd = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            tty.setraw(self._fd)
            mode = termios.tcgetattr(self._fd)
            mode[2] = (mode[2] | termios.CLOCAL | termios.CREAD) & ~termios.CRTSCTS
            mode[4] = mode[5] = speed
            termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        except termios.error as error:
            os.close(self._fd)
            raise HardwareError(f"{device} is no serial port: {error}", "check the name") from error

    def read(self, timeout_s: float) -> bytes:
        """Returns what has arrived."""
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return b""
        data = os.read(self._fd, READ_BYTES)
        if not data:
            raise ConnectionResetError("the serial port hung up")
        return data

    def write(self, data: bytes) -> None:
        """Sends what the port takes now; a full port loses the rest."""
        try:
            os.write(self._fd, data)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Closes the port."""
        os.close(self._fd)
