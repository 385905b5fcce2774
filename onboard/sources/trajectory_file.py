"""A post-processed trajectory (RTKLIB's ``.pos``): exact positions for frames that lack them."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from onboard.records import Floats
from onboard.sources.errors import SourceError
from onboard.sources.gps_time import leap_s, utc_from_week

MAX_GAP_S = 2.0
QUALITY = {1: "fixed", 2: "float", 3: "SBAS", 4: "DGPS", 5: "single", 6: "PPP"}
GEODETIC = ("latitude(deg)", "longitude(deg)", "height(m)")
CARTESIAN = ("x-ecef(m)", "y-ecef(m)", "z-ecef(m)")
MSL = re.compile(r"\bgeodetic\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TrajectoryFile:
    """Antenna positions over time.

    Attributes:
        path: The file.
        t_unix_s: (n,) UTC, rising.
        lat_deg: (n,).
        lon_deg: (n,).
        alt_m: (n,) above the ellipsoid.
        sigma_enu_m: (n, 3) stated σ.
        quality: (n,) RTKLIB's Q: 1 fixed, 2 float, 5 single.
        skipped: Lines that could not be read.
    """

    path: Path
    t_unix_s: Floats
    lat_deg: Floats
    lon_deg: Floats
    alt_m: Floats
    sigma_enu_m: Floats
    quality: NDArray[np.int64]
    skipped: int

    def summary(self) -> str:
        """Returns how good its positions are, for people."""
        counts = Counter(QUALITY.get(int(q), f"Q {q}") for q in self.quality)
        total = len(self.quality)
        shares = ", ".join(f"{100 * n / total:.0f} % {q}" for q, n in counts.most_common())
        cut = f"; {self.skipped} lines could not be read" if self.skipped else ""
        return f"positions from {self.path.name}: {total} epochs, {shares}{cut}"

    def at(self, t_unix_s: Floats) -> tuple[Floats, Floats]:
        """Returns (m, 3) lat, lon, height and (m, 3) σ at times; NaN where a gap is over 2 s."""
        from scipy.interpolate import PchipInterpolator  # slow to import, and seldom needed

        if len(self.t_unix_s) < 2:
            return np.full((len(t_unix_s), 3), np.nan), np.full((len(t_unix_s), 3), np.nan)
        known = np.column_stack([self.lat_deg, self.lon_deg, self.alt_m])
        after = np.clip(np.searchsorted(self.t_unix_s, t_unix_s), 1, len(self.t_unix_s) - 1)
        gap_s = self.t_unix_s[after] - self.t_unix_s[after - 1]
        inside = (t_unix_s >= self.t_unix_s[0]) & (t_unix_s <= self.t_unix_s[-1])
        covered = (inside & (gap_s <= MAX_GAP_S))[:, None]
        lla = PchipInterpolator(self.t_unix_s, known, extrapolate=False)(
            np.where(covered[:, 0], t_unix_s, self.t_unix_s[0])
        )
        sigma = np.maximum(self.sigma_enu_m[after - 1], self.sigma_enu_m[after])
        return np.where(covered, lla, np.nan), np.where(covered, sigma, np.nan)


def read_trajectory(path: Path) -> TrajectoryFile:
    """Returns a ``.pos`` file: latitude, longitude and height, or ECEF, in GPST or UTC.

    Raises:
        SourceError: It cannot be read, has other columns, or heights above the geoid.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}", "check --poses") from error
    comments = [line for line in lines if line.startswith("%")]
    columns, in_utc = _columns(path, comments)
    rows, skipped = [], 0
    for line in lines:
        if line.startswith("%") or not line.strip():
            continue
        row = _row(line, columns, in_utc)
        rows += [row] if row else []
        skipped += row is None
    if not rows:
        raise SourceError(f"{path} holds no position", "solve it again (rnx2rtkp, RTKPOST)")
    table = np.array(sorted(rows))
    table = table[np.r_[True, np.diff(table[:, 0]) > 0]]
    return TrajectoryFile(
        path, table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4:7],
        table[:, 7].astype(np.int64), skipped,
    )  # fmt: skip


def _columns(path: Path, comments: list[str]) -> tuple[list[str], bool]:
    """Returns the names of the columns after the time, and whether that is UTC."""
    for line in comments:
        names = line.lstrip("% ").split()
        if len(names) > 4 and (set(GEODETIC) <= set(names) or set(CARTESIAN) <= set(names)):
            if any("height=" in c and MSL.search(c.split("height", 1)[1]) for c in comments):
                raise SourceError(
                    f"{path}: its heights are above a geoid",
                    "write them above the ellipsoid (RTKPOST: Output, Height: Ellipsoidal)",
                )
            if names[0] not in ("GPST", "UTC"):
                raise SourceError(
                    f"{path}: its times are {names[0]}",
                    "write them in GPST or UTC (RTKPOST: Output, Time Format)",
                )
            return names[1:], names[0] == "UTC"
    raise SourceError(
        f"{path} has no line that names latitude(deg), longitude(deg), height(m) or x-ecef(m) …",
        "write it with a header, angles in decimal degrees or ECEF metres (RTKPOST: Output)",
    )


def _row(line: str, columns: list[str], in_utc: bool) -> tuple[float, ...] | None:
    """Returns time, lat, lon, height, σ east, north, up and Q of a line; ``None`` if damaged."""
    parts = line.replace(",", " ").split()
    t_s = _time(parts[:2], in_utc)
    try:
        values = dict(zip(columns, map(float, parts[2:]), strict=False))
        if not math.isfinite(t_s) or len(parts) - 2 < len(columns[:7]):
            return None
        if GEODETIC[0] in values:
            lat, lon, alt_m = (values[name] for name in GEODETIC)
            sigma = [values[f"sd{axis}(m)"] for axis in "enu"]
        else:
            xyz = [values[name] for name in CARTESIAN]
            lon, lat, alt_m = _TO_GEODETIC.transform(xyz[0], xyz[1], xyz[2])
            worst = max(values[f"sd{axis}(m)"] for axis in "xyz")
            sigma = [worst] * 3
    except (ValueError, KeyError):
        return None
    if not (abs(lat) <= 90 and abs(lon) <= 180 and math.isfinite(alt_m)):
        return None
    return t_s, lat, lon, alt_m, *sigma, values.get("Q", 0.0)


_TO_GEODETIC = Transformer.from_crs("EPSG:4978", "EPSG:4979", always_xy=True)


def _time(parts: list[str], in_utc: bool) -> float:
    """Returns UNIX time of ``2018/08/05 01:00:50.000`` or of week and second; NaN if neither."""
    try:
        if "/" in parts[0]:
            day, clock = parts[0], parts[1]
            hours, minutes, seconds = clock.split(":")
            start = datetime.strptime(day, "%Y/%m/%d").replace(tzinfo=UTC).timestamp()
            t_s = start + int(hours) * 3600 + int(minutes) * 60 + float(seconds)
            return t_s if in_utc else t_s - leap_s(t_s)
        return utc_from_week(int(parts[0]), float(parts[1]))
    except (ValueError, IndexError):
        return math.nan
