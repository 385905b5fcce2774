"""Recorded telemetry: MAVLink ``.tlog``, ArduPilot ``.bin``/``.log``, PX4 ``.ulg``: one buffer."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pymavlink.dialects.v20 import ardupilotmega as dialect

from onboard.clocks import UTC_SANE_S
from onboard.sources.dataflash import take_dataflash
from onboard.sources.decoded import Telemetry
from onboard.sources.errors import DamagedTelemetryError, UnknownSourceError
from onboard.sources.telemetry import HANDLERS, apply_message, resolve_events
from onboard.sources.ulog import take_ulog

STAMP_BYTES = 8
MAGIC_1, MAGIC_2 = 0xFE, 0xFD
SIGNED = 0x01
RESYNC_BYTES = 1 << 20
TELEMETRY_SUFFIXES = (".tlog", ".bin", ".log", ".ulg")
WANTED_IDS = frozenset(
    message_id for message_id, kind in dialect.mavlink_map.items() if kind.msgname in HANDLERS
)


def read_telemetry(path: Path) -> Telemetry:
    """Returns a whole log, decoded.

    Raises:
        DamagedTelemetryError: It cannot be read, or holds no attitude or position.
        UnknownSourceError: It is no kind of log that is known.
    """
    suffix = path.suffix.lower()
    telemetry = Telemetry(path)
    if suffix == ".tlog":
        _take_tlog(telemetry)
    elif suffix in (".bin", ".log"):
        take_dataflash(telemetry)
    elif suffix == ".ulg":
        take_ulog(telemetry)
    else:
        raise UnknownSourceError(f"{path} is no telemetry log", "give a .tlog, .bin or .ulg")
    if telemetry.messages == 0:
        raise DamagedTelemetryError(
            f"{path} holds no telemetry that can be read ({telemetry.skipped_bytes} bytes skipped)",
            "check that it is a MAVLink .tlog, an ArduPilot .bin or a PX4 .ulg, not cut to "
            "nothing, not from firmware that logged attitudes without a time",
        )
    telemetry.events = resolve_events(telemetry.events, telemetry.clock)
    telemetry.notes += telemetry.buffer.notes
    if telemetry.skipped_bytes:
        telemetry.notes.append(f"{path.name}: {telemetry.skipped_bytes} bytes were no message")
    if telemetry.buffer.epochs > 1:
        telemetry.notes.append(f"{path.name}: the autopilot rebooted {telemetry.clock.epoch} times")
    return telemetry


def _take_tlog(telemetry: Telemetry) -> None:
    for t_recv_ns, msg in read_tlog(telemetry.path, telemetry):
        before = telemetry.messages
        apply_message(msg, t_recv_ns, telemetry.buffer, telemetry.clock, telemetry.events)
        telemetry.messages = before + 1


def read_tlog(path: Path, counts: Telemetry | None = None) -> Iterator[tuple[int, Any]]:
    """Yields receive time (UNIX ns) and message of each message that the decoder knows.

    MAVLink 1 and 2 may be mixed; what is no whole message (garbage, a cut end) is skipped and
    counted. The format: 8 bytes big-endian UNIX microseconds, then the frame as it was on the
    wire.

    Raises:
        DamagedTelemetryError: The file cannot be opened.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedTelemetryError(f"cannot read {path}: {error.strerror}", "check it") from error
    decoder = dialect.MAVLink(None)
    at, skipped = 0, 0
    while at + STAMP_BYTES + 8 <= len(data):
        size = _frame_size(data, at + STAMP_BYTES)
        end = at + STAMP_BYTES + size
        if not size or end > len(data) or not _plausible(data, at):
            at, skipped = at + 1, skipped + 1
            continue
        if _message_id(data, at + STAMP_BYTES) not in WANTED_IDS and _starts(data, end):
            at = end
            continue
        try:
            msg = decoder.decode(bytearray(data[at + STAMP_BYTES : end]))
        except (dialect.MAVError, struct.error):
            at, skipped = (end, skipped) if _starts(data, end) else (at + 1, skipped + 1)
            continue
        if msg.get_type() in HANDLERS:
            yield _stamp_us(data, at) * 1000, msg
        at = end
    if counts is not None:
        counts.skipped_bytes = skipped + len(data) - at


def _stamp_us(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + STAMP_BYTES], "big")


def _plausible(data: bytes, at: int) -> bool:
    """Returns whether eight bytes can be a receive time: 1970 (no clock set) to 2099."""
    return _stamp_us(data, at) < UTC_SANE_S[1] * 1e6


def _frame_size(data: bytes, at: int) -> int:
    """Returns the length of the frame that starts here; 0 where none does."""
    if data[at] == MAGIC_1:
        return 8 + data[at + 1]
    if data[at] == MAGIC_2 and at + 2 < len(data):
        return 12 + data[at + 1] + (13 if data[at + 2] & SIGNED else 0)
    return 0


def _message_id(data: bytes, at: int) -> int:
    if data[at] == MAGIC_1:
        return data[at + 5]
    return int.from_bytes(data[at + 7 : at + 10], "little")


def _starts(data: bytes, at: int) -> bool:
    """Returns whether a message (or the end of the file) is here."""
    if at + STAMP_BYTES >= len(data):
        return True
    return data[at + STAMP_BYTES] in (MAGIC_1, MAGIC_2) and _plausible(data, at)
