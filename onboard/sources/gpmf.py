"""GoPro's metadata (GPMF): the Karma drone's telemetry, or a camera's own GPS track.

The format: nested items of a four-letter key, a type, a size, a count and the values, big-endian,
padded to four bytes. https://github.com/gopro/gpmf-parser (its README is the specification)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from onboard.records import Floats
from onboard.sources.decoded import Telemetry
from onboard.sources.errors import DamagedTelemetryError
from onboard.sources.mp4 import MetaSample, track_samples
from onboard.sources.telemetry import FIX_3D, quaternion_from_ypr

SAMPLE_FORMAT = b"gpmd"
FIRST_KEY = b"DEVC"
STRUCT_OF = {
    "b": "b", "B": "B", "s": "h", "S": "H", "l": "i", "L": "I", "f": "f", "d": "d",
    "j": "q", "J": "Q", "q": "i", "Q": "q",
}  # fmt: skip
FIXED_POINT = {"q": 2.0**16, "Q": 2.0**32}
DAYS_FROM_2000_S = datetime(2000, 1, 1, tzinfo=UTC).timestamp()
TIE_SIGMA_S = 0.25
"""Karma says four times a second when its values were, but a payload only which second it is."""


@dataclass(frozen=True, slots=True)
class _Stream:
    """One stream of a payload: (n, k) scaled values, and its headers as they stand."""

    key: str
    values: Floats
    headers: dict[str, bytes]


def read_gpmf(path: Path) -> tuple[Telemetry, float] | None:
    """Returns a video's (or bare track's) telemetry and what its time is ahead of the video's.

    ``None`` where there is no such track. Karma's attitudes, positions and fixes are the
    drone's, on its own clock; a camera's GPS has the video's time and no attitude.

    Raises:
        DamagedTelemetryError: There is a track, and nothing in it that places anything.
    """
    payloads = _payloads(path)
    if not payloads:
        return None
    telemetry = Telemetry(path)
    ahead_s: list[float] = []
    for payload in payloads:
        newest: list[float] = []
        for stream in _streams(payload.data):
            _take(stream, payload, telemetry, newest)
        if newest:
            ahead_s.append(float(np.mean(newest)) - payload.t_s - 0.5 * payload.length_s)
    if not telemetry.messages:
        raise DamagedTelemetryError(
            f"{path}: its GPMF track holds neither a position nor an attitude",
            "check that the camera's GPS was on; give --poses with extracted frames",
        )
    if ahead_s:
        telemetry.notes.append(
            f"{path.name}: the drone's clock is tied to the video by the second in which its "
            f"values came (σ {TIE_SIGMA_S} s): calibration align finds the rest"
        )
    return telemetry, float(np.median(ahead_s)) if ahead_s else 0.0


def is_gpmf(path: Path) -> bool:
    """Returns whether a file is a bare GPMF track."""
    with path.open("rb") as file:
        return file.read(4) == FIRST_KEY


def _payloads(path: Path) -> Sequence[MetaSample]:
    if is_gpmf(path):
        return [MetaSample(0.0, 1.0, path.read_bytes())]
    return track_samples(path, SAMPLE_FORMAT)


def _items(data: bytes) -> Iterator[tuple[str, str, int, int, bytes]]:
    """Yields key, type, size, count and bytes; stops at what is no item or is cut short."""
    at = 0
    while at + 8 <= len(data):
        key, kind, size, count = struct.unpack_from(">4sBBH", data, at)
        end = at + 8 + size * count
        if not key.isalnum() or end > len(data):
            return
        yield key.decode("ascii"), chr(kind), size, count, data[at + 8 : end]
        at = end + -(size * count) % 4


def _streams(data: bytes) -> Iterator[_Stream]:
    headers: dict[str, bytes] = {}
    scale, layout = np.ones(1), ""
    last: tuple[str, str, int, int, bytes] | None = None
    for item in _items(data):
        key, kind, size, count, body = item
        if kind == "\0":
            yield from _streams(body)
        elif key == "SCAL":
            scale = _values(kind, size, count, body).ravel()
        elif key == "TYPE":
            layout = body.decode("latin-1")
        else:
            headers[key] = body
            last = item
    if last is None:
        return
    key, kind, size, count, body = last
    values = _values(layout if kind == "?" else kind, size, count, body)
    if values.size and values.shape[1] % max(len(scale), 1) == 0 and scale.all():
        whole = np.tile(scale, values.shape[1] // len(scale))
        yield _Stream(key, values / whole, headers)


def _values(kinds: str, size: int, count: int, body: bytes) -> Floats:
    """Returns (n, k) numbers; empty where the type is text or does not fit its size."""
    one = "".join(STRUCT_OF.get(kind, "?") for kind in kinds)
    if not one or "?" in one or size == 0:
        return np.empty((0, 0))
    width = struct.calcsize(f">{one}")
    if size % width:
        return np.empty((0, 0))
    fields, kinds = one * (size // width), kinds * (size // width)
    rows = [struct.unpack_from(f">{fields}", body, i * size) for i in range(count)]
    fixed = np.array([FIXED_POINT.get(kind, 1.0) for kind in kinds])
    return np.asarray(np.array(rows, dtype=np.float64).reshape(count, len(fields)) / fixed)


def _take(stream: _Stream, at: MetaSample, to: Telemetry, newest: list[float]) -> None:
    """Takes one stream; Karma's rows carry their own times, which go to ``newest``."""
    if stream.key == "ATTD":
        for t_s, roll, pitch, yaw, *rates in stream.values[:, :7].tolist():
            to.clock.note_boot(t_s)
            q = quaternion_from_ypr(yaw, pitch, roll)
            to.buffer.add_attitude(t_s, q, rates, "quaternion")
            newest.append(t_s)
    elif stream.key == "GLPI":
        for t_s, lat, lon, alt_m, _, *v_ned in stream.values[:, :8].tolist():
            to.buffer.add_position(t_s, lat, lon, alt_m, "egm96", v_ned)
    elif stream.key == "GPRI":
        for t_s, lat, lon, alt_m, *_, fix, _ in stream.values.tolist():
            if fix >= FIX_3D:
                to.buffer.add_gps(t_s, lat, lon, alt_m)
    elif stream.key == "SYST":
        for t_s, t_unix_s in stream.values[:, :2].tolist():
            to.clock.add_system_time(t_unix_s, t_s)
    elif stream.key in ("GPS5", "GPS9"):
        _take_camera_gps(stream, at, to)
    else:
        return
    to.messages += len(stream.values)


def _take_camera_gps(stream: _Stream, at: MetaSample, to: Telemetry) -> None:
    """Takes a camera's fixes, evenly spread over their payload; heights above the ellipsoid."""
    n = len(stream.values)
    fix = stream.headers.get("GPSF", b"")
    fixes = stream.values[:, 8] if stream.key == "GPS9" else np.full(n, _whole(fix))
    for i, (lat, lon, alt_m) in enumerate(stream.values[:, :3].tolist()):
        t_s = at.t_s + at.length_s * i / n
        if fixes[i] >= FIX_3D:
            to.buffer.add_position(t_s, lat, lon, alt_m, "ellipsoid", (math.nan,) * 3)
    t_utc_s = _utc_of(stream)
    if math.isfinite(t_utc_s) and at.t_s > 0:
        to.clock.add_system_time(t_utc_s, at.t_s)


def _whole(big_endian: bytes) -> int:
    return int.from_bytes(big_endian, "big")


def _utc_of(stream: _Stream) -> float:
    """Returns the UNIX time of a payload's first fix; NaN where it does not say it."""
    if stream.key == "GPS9":
        return float(DAYS_FROM_2000_S + stream.values[0, 5] * 86400.0 + stream.values[0, 6])
    text = stream.headers.get("GPSU", b"").decode("latin-1").strip("\0 ")
    try:
        moment = datetime.strptime(text[:12], "%y%m%d%H%M%S").replace(tzinfo=UTC)
        return moment.timestamp() + float(f"0{text[12:] or '.0'}")
    except ValueError:
        return math.nan
