"""KLV inside an MPEG transport stream (ISO/IEC 13818-1): its packets and when they were shown."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from onboard.sources.errors import DamagedTelemetryError

SYNC = 0x47
PACKET, PACKET_WITH_TIME = 188, 192
TICKS_PER_S = 90000.0
WRAP = 2**33
PAT_PID = 0
START_CODE = b"\0\0\1"
PRIVATE_DATA, METADATA = 0x06, 0x15
KLV_REGISTRATION = b"KLVA"
VIDEO_TYPES = (0x01, 0x02, 0x10, 0x1B, 0x24, 0x33)


class KlvPart(NamedTuple):
    """One part of a KLV stream.

    Attributes:
        t_s: When it was shown, after the first picture.
        timed: Whether it says so itself (synchronous metadata); else the time is that of the
            picture before it, which is right to some pictures.
        data: Its bytes.
    """

    t_s: float
    timed: bool
    data: bytes


def klv_of_stream(path: Path) -> list[KlvPart]:
    """Returns the KLV parts of a transport stream; none where it is no such stream.

    Raises:
        DamagedTelemetryError: The file cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _klv_of_stream(data)
    except ValueError:  # an empty file cannot be mapped
        return []
    except OSError as error:
        raise DamagedTelemetryError(f"cannot read {path}: {error.strerror}", "check it") from error


def _klv_of_stream(data: mmap.mmap) -> list[KlvPart]:
    stream = _Stream()
    for pid, starts, payload in _packets(data, *_packet_size(data)):
        stream.take(pid, starts, payload)
    stream.finish()
    return stream.found


class _Stream:
    """Puts the elementary packets of one programme together as transport packets come.

    Attributes:
        found: The KLV parts.
    """

    def __init__(self) -> None:
        self.found: list[KlvPart] = []
        self._programme = self._klv = self._video = -1
        self._piece = bytearray()
        self._first_ticks = self._now_ticks = self._piece_ticks = -1

    def take(self, pid: int, starts: bool, payload: bytes) -> None:
        """Takes one transport packet."""
        if pid == PAT_PID and starts:
            self._programme = _first_programme(payload)
        elif pid == self._programme and starts:
            self._klv, self._video = _streams(payload)
        elif pid == self._video and starts:
            self._see(payload)
        elif pid == self._klv and starts:
            self.finish()
            self._piece, self._piece_ticks = bytearray(payload), self._now_ticks
        elif pid == self._klv:
            self._piece += payload

    def finish(self) -> None:
        """Takes the KLV part that is still open."""
        part, self._piece = bytes(self._piece), bytearray()
        if part.startswith(START_CODE) and self._first_ticks >= 0:
            ticks, body = _elementary(part)
            after = (self._piece_ticks if ticks is None else ticks) - self._first_ticks
            self.found.append(KlvPart(_unwrapped(after) / TICKS_PER_S, ticks is not None, body))

    def _see(self, payload: bytes) -> None:
        """Takes notice of when a picture is shown."""
        ticks, _ = _elementary(payload)
        if payload.startswith(START_CODE) and ticks is not None:
            self._first_ticks = ticks if self._first_ticks < 0 else self._first_ticks
            self._now_ticks = ticks


def _packet_size(data: mmap.mmap) -> tuple[int, int]:
    """Returns size and offset of the packets; (0, 0) where this is no transport stream."""
    for size, first in ((PACKET, 0), (PACKET_WITH_TIME, 4)):
        marks = data[first : first + 5 * size : size]
        if len(marks) >= 2 and set(marks) == {SYNC}:
            return size, first
    return 0, 0


def _packets(data: mmap.mmap, size: int, first: int) -> Iterator[tuple[int, bool, bytes]]:
    """Yields packet identifier, whether a unit starts here, and payload; damaged ones are left."""
    if not size:
        return
    for at in range(first, len(data) - PACKET + 1, size):
        head = data[at : at + 4]
        if head[0] != SYNC or head[1] & 0x80 or not head[3] & 0x10:
            continue
        begin = at + 4 + (1 + data[at + 4] if head[3] & 0x20 else 0)
        pid = (head[1] & 0x1F) << 8 | head[2]
        yield pid, bool(head[1] & 0x40), data[begin : at + PACKET]


def _section(payload: bytes) -> bytes:
    """Returns the section that starts in a payload, from its table id to before its CRC."""
    if not payload:
        return b""
    body = payload[1 + payload[0] :]
    length = (body[1] & 0x0F) << 8 | body[2] if len(body) > 2 else 0
    return body[: 3 + length - 4]


def _first_programme(payload: bytes) -> int:
    section = _section(payload)
    for at in range(8, len(section) - 3, 4):
        if section[at : at + 2] != b"\0\0":
            return (section[at + 2] & 0x1F) << 8 | section[at + 3]
    return -1


def _streams(payload: bytes) -> tuple[int, int]:
    """Returns the identifiers of the KLV and of the video stream; -1 where there is none."""
    section = _section(payload)
    klv, video = -1, -1
    if len(section) < 12:
        return klv, video
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    while at + 5 <= len(section):
        kind = section[at]
        pid = (section[at + 1] & 0x1F) << 8 | section[at + 2]
        length = (section[at + 3] & 0x0F) << 8 | section[at + 4]
        told = KLV_REGISTRATION in section[at + 5 : at + 5 + length]
        if klv < 0 and (kind == METADATA or (kind == PRIVATE_DATA and told)):
            klv = pid
        if video < 0 and kind in VIDEO_TYPES:
            video = pid
        at += 5 + length
    return klv, video


def _elementary(part: bytes) -> tuple[int | None, bytes]:
    """Returns an elementary packet's presentation time (90 kHz; None if unsaid) and its data."""
    if len(part) < 9:
        return None, b""
    body = part[9 + part[8] :]
    if not part[7] & 0x80 or len(part) < 14:
        return None, body
    a, b, c, d, e = part[9:14]
    return (a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1, body


def _unwrapped(ticks: int) -> int:
    return (ticks + WRAP // 2) % WRAP - WRAP // 2
