"""DJI subtitle telemetry (``.srt``) in its dialects: one row per subtitle."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from onboard.sources.errors import DamagedTelemetryError

MAX_BYTES = 1 << 28
NUMBER = r"([-+]?\d+(?:\.\d+)?)"
TIMECODE = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})\s*-->")
MOMENT = re.compile(r"(\d{4})[.-](\d{1,2})[.-](\d{1,2})\s+(\d\d):(\d\d):(\d\d)(?:[.,](\d{1,3}))?")
LATITUDE = re.compile(rf"latitude\s*:\s*{NUMBER}", re.IGNORECASE)
LONGITUDE = re.compile(rf"longt?itude\s*:\s*{NUMBER}", re.IGNORECASE)
ALTITUDE = re.compile(rf"(?:\baltitude|abs_alt)\s*:\s*{NUMBER}", re.IGNORECASE)
RELATIVE = re.compile(rf"(?:rel_alt|BAROMETER|\bHb)\s*:\s*{NUMBER}|,\s*H\s+{NUMBER}\s*m")
GPS = re.compile(rf"GPS\s*\(\s*{NUMBER}\s*,\s*{NUMBER}\s*(?:,\s*{NUMBER}\s*(M)?)?")
GIMBAL_PRY = re.compile(rf"G\.PRY\s*\(\s*{NUMBER}\D*?,\s*{NUMBER}\D*?,\s*{NUMBER}")
GIMBAL = re.compile(
    rf"gb_yaw\s*:\s*{NUMBER}\s*gb_pitch\s*:\s*{NUMBER}\s*gb_roll\s*:\s*{NUMBER}", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class SrtRow:
    """One subtitle.

    Attributes:
        t_s: Its start in the video.
        lat_deg: Latitude; NaN where not said.
        lon_deg: Longitude.
        alt_m: Height above a datum that is not said; NaN where not said.
        alt_m_takeoff: Height above take-off.
        ypr_deg: Gimbal yaw, pitch, roll; NaN where not said.
        t_local_s: Local time as if it were UTC.
        said: Which of ``position``, ``height``, ``gimbal`` its text has, void values too.
    """

    t_s: float
    lat_deg: float = math.nan
    lon_deg: float = math.nan
    alt_m: float = math.nan
    alt_m_takeoff: float = math.nan
    ypr_deg: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    t_local_s: float = math.nan
    said: frozenset[str] = frozenset()


def read_srt(path: Path) -> tuple[list[SrtRow], int]:
    """Returns the subtitles of a file, and how many had to be skipped (cut short, no text).

    Raises:
        DamagedTelemetryError: It cannot be read or is over 256 MiB.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DamagedTelemetryError(f"{path} is over 256 MiB", "this is no subtitle file")
        text = path.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DamagedTelemetryError(f"cannot read {path}: {error.strerror}", "check it") from error
    return parse_srt(text)


def parse_srt(text: str) -> tuple[list[SrtRow], int]:
    """Returns the subtitles of a text, and how many had to be skipped."""
    blocks = [b for b in re.split(r"\r?\n\s*\r?\n", text.strip()) if b.strip()]
    rows = [_row(block) for block in blocks]
    kept = [row for row in rows if row is not None]
    return _timed(kept), len(rows) - len(kept)


def _row(block: str) -> SrtRow | None:
    code, moment = TIMECODE.search(block), MOMENT.search(block)
    if code is None and moment is None:
        return None
    lat, lon = _position(block)
    relative = RELATIVE.search(block)
    row = SrtRow(
        t_s=_timecode(code),
        lat_deg=lat,
        lon_deg=lon,
        alt_m=_height(block),
        alt_m_takeoff=float(relative[1] or relative[2]) if relative else math.nan,
        ypr_deg=_gimbal(block),
        t_local_s=_moment(moment),
    )
    has = {
        "position": GPS.search(block) or (LATITUDE.search(block) and LONGITUDE.search(block)),
        "height": math.isfinite(row.alt_m) or relative,
        "gimbal": math.isfinite(row.ypr_deg[0]),
    }
    return replace(row, said=frozenset(name for name, found in has.items() if found))


def cut_short(rows: Sequence[SrtRow]) -> list[bool]:
    """Returns, for each subtitle, whether it lacks what more than half of them say."""
    counts = Counter(name for row in rows for name in row.said)
    usual = {name for name, n in counts.items() if 2 * n > len(rows)}
    return [bool(usual - row.said) for row in rows]


def _position(block: str) -> tuple[float, float]:
    """Returns latitude and longitude; NaN where not said or 0/0.

    ``GPS(a,b,n)`` is longitude, latitude and the number of satellites; where the third number is
    in metres (``0.0M``) it is latitude, longitude, height.
    """
    lat, lon = _number(LATITUDE, block), _number(LONGITUDE, block)
    found = GPS.search(block)
    if found and not math.isfinite(lat):
        a, b = float(found[1]), float(found[2])
        lat, lon = (a, b) if found[4] else (b, a)
    if abs(lat) > 90 or abs(lon) > 180 or (lat == 0 and lon == 0):
        return math.nan, math.nan
    return lat, lon


def _height(block: str) -> float:
    """Returns the height that is said without a datum: ``altitude``, ``abs_alt`` or ``GPS(…M)``."""
    found = GPS.search(block)
    if found and found[4]:
        return float(found[3])
    return _number(ALTITUDE, block)


def _gimbal(block: str) -> tuple[float, float, float]:
    if found := GIMBAL_PRY.search(block):
        return float(found[3]), float(found[1]), float(found[2])
    if found := GIMBAL.search(block):
        return float(found[1]), float(found[2]), float(found[3])
    return math.nan, math.nan, math.nan


def _timecode(found: re.Match[str] | None) -> float:
    if found is None:
        return math.nan
    hours, minutes, seconds, ms = found.groups()
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(ms.ljust(3, "0")) * 1e-3


def _moment(found: re.Match[str] | None) -> float:
    if found is None:
        return math.nan
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return math.nan
    return moment.timestamp() + int((found[7] or "0").ljust(3, "0")) * 1e-3


def _number(pattern: re.Pattern[str], block: str) -> float:
    found = pattern.search(block)
    return float(found[1]) if found else math.nan


def _timed(rows: list[SrtRow]) -> list[SrtRow]:
    """Returns the rows in order of time; those without a time code by their clock time."""
    if not rows or all(math.isfinite(row.t_s) for row in rows):
        return sorted(rows, key=lambda row: row.t_s)
    start = next((row.t_local_s for row in rows if math.isfinite(row.t_local_s)), math.nan)
    timed = []
    for i, row in enumerate(rows):
        by_clock = row.t_local_s - start
        t_s = row.t_s if math.isfinite(row.t_s) else by_clock
        timed.append(replace(row, t_s=t_s if math.isfinite(t_s) else float(i)))
    return timed
