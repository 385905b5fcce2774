"""ArduPilot dataflash logs: ATT, POS, GPS, CAM and TRIG into the pose buffer."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from calibration.rotations import r_from_ypr
from onboard.sources.decoded import Telemetry
from onboard.sources.errors import DamagedTelemetryError
from onboard.sources.gps_time import utc_from_week
from onboard.sources.telemetry import CameraEvent, EventKind

FIX_3D = 3
KINDS = ["ATT", "POS", "GPS", "GPA", "CAM", "TRIG"]


def take_dataflash(telemetry: Telemetry) -> None:
    """Takes an ArduPilot ``.bin`` (or text ``.log``) into the telemetry.

    Raises:
        DamagedTelemetryError: It cannot be read.
    """
    velocity = [math.nan] * 3
    accuracy = [math.nan] * 2
    for row in _rows(telemetry.path):
        t_s = getattr(row, "TimeUS", 0) * 1e-6
        if t_s <= 0:
            continue
        if telemetry.clock.note_boot(t_s):
            telemetry.buffer.note_epoch()
        _take(row, t_s, telemetry, velocity, accuracy)
        telemetry.messages += 1


def _take(
    row: Any, t_s: float, telemetry: Telemetry, velocity: list[float], accuracy: list[float]
) -> None:
    kind = row.get_type()
    if kind == "ATT":
        angles = (math.radians(a) for a in (row.Yaw, row.Pitch, row.Roll))
        telemetry.buffer.add_attitude(t_s, r_from_ypr(*angles))
    elif kind == "POS" and (row.Lat or row.Lng):
        telemetry.buffer.add_position(t_s, row.Lat, row.Lng, row.Alt, "egm96", velocity)
    elif kind == "GPA":
        accuracy[:] = [getattr(row, "HAcc", math.nan), getattr(row, "VAcc", math.nan)]
    elif kind == "GPS" and getattr(row, "I", 0) == 0 and row.Status >= FIX_3D:
        _take_fix(row, t_s, telemetry, accuracy)
    elif kind in ("CAM", "TRIG") and getattr(row, "I", 0) == 0:
        _take_exposure(row, t_s, telemetry, kind)


def _take_fix(row: Any, t_s: float, telemetry: Telemetry, accuracy: list[float]) -> None:
    h_acc, v_acc = (value if value > 0 else math.nan for value in accuracy)
    telemetry.buffer.add_gps(t_s, row.Lat, row.Lng, row.Alt, math.nan, h_acc, v_acc)
    week, ms = getattr(row, "GWk", 0), getattr(row, "GMS", 0)
    if week:
        telemetry.clock.add_system_time(utc_from_week(int(week), ms * 1e-3), t_s)


def _take_exposure(row: Any, t_s: float, telemetry: Telemetry, kind: str) -> None:
    """CAM is the exposure (by the feedback pin where there is one), TRIG the command to expose."""
    index = int(getattr(row, "Img", len(telemetry.events)))
    name: EventKind = "feedback" if kind == "CAM" else "trigger"
    stamp_us = round(t_s * 1e6)
    telemetry.events.append(CameraEvent(t_s, 0, index, name, stamp_us, telemetry.clock.epoch))


def _rows(path: Path) -> Iterator[Any]:
    return _binary_rows(path) if path.suffix.lower() == ".bin" else _text_rows(path)


def _binary_rows(path: Path) -> Iterator[Any]:
    from pymavlink import DFReader

    try:
        reader = DFReader.DFReader_binary(str(path))
        try:
            while (row := reader.recv_match(type=KINDS)) is not None:
                yield row
        finally:
            reader.filehandle.close()
    except (TypeError, ValueError, KeyError, IndexError, struct.error, OSError) as error:
        raise DamagedTelemetryError(
            f"{path} cannot be read as a dataflash log: {error}",
            "give the .bin as downloaded, or the flight's .tlog",
        ) from error


class _TextRow(SimpleNamespace):
    """One line of a text log, by the columns that its FMT line names."""

    def get_type(self) -> str:
        return str(self.kind)


def _text_rows(path: Path) -> Iterator[_TextRow]:
    """Yields the rows of a text log; lines that do not fit their FMT are skipped.

    Read here, because pymavlink's reader of text logs fails on logs without GPS weeks.
    """
    columns: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DamagedTelemetryError(f"cannot read {path}: {error.strerror}", "check it") from error
    for line in lines:
        kind, *cells = [cell.strip() for cell in line.split(",")]
        if kind == "FMT" and len(cells) > 4:
            columns[cells[2]] = cells[4:]
        elif kind in KINDS and len(cells) == len(columns.get(kind, ())):
            with contextlib.suppress(ValueError):
                yield _TextRow(kind=kind, **_values(columns[kind], cells))


def _values(names: list[str], cells: list[str]) -> dict[str, float]:
    values = {name: float(cell) for name, cell in zip(names, cells, strict=True)}
    if "TimeMS" in values:
        values.setdefault("TimeUS", values["TimeMS"] * 1e3)
    return values
