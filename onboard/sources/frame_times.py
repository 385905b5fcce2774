"""When frames were exposed, in the autopilot's time: by table, camera events, EXIF or file name."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from onboard.records import Floats
from onboard.sources.decoded import Telemetry
from onboard.sources.errors import DamagedFrame, FrameTimeError
from onboard.sources.exif import PhotoFacts, read_facts, utc_of_name
from onboard.sources.telemetry import CameraEvent

TIMES_CSV = "times.csv"
SPACING_TOLERANCE_S = 1.6
"""Coarse stamps (whole seconds at both ends) differ from true spacings by less than this."""
FINE_TOLERANCE_S = 0.3
ZONE_STEP_S = 900.0


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """Stamps of frames.

    Attributes:
        t_boot_s: (n,) autopilot time; NaN where none was found.
        epoch: Which run of the autopilot they belong to.
        way: How they were found, for people.
    """

    t_boot_s: Floats
    epoch: int
    way: str


def find_frame_times(files: Sequence[Path], telemetry: Telemetry) -> FrameTimes:
    """Returns the frames' stamps in autopilot time, by the first way that serves.

    In this order: ``times.csv`` beside the frames or in the folder above; camera events whose
    count and spacing match; EXIF times with sub-seconds; UTC stamps in the file names.

    Raises:
        FrameTimeError: None of these is there.
    """
    for way in (_by_table, _by_events, _by_exif, _by_name):
        found = way(files, telemetry)
        if found is not None:
            return found
    raise FrameTimeError(
        f"no times for the {len(files)} frames beside {telemetry.path.name}: no times.csv, "
        f"{len(telemetry.events)} camera events, no EXIF time with sub-seconds, no UTC in the "
        "file names",
        "write times.csv (frame,t_boot_s or frame,t_utc_s) beside the frames",
    )


def read_times_csv(path: Path) -> tuple[dict[str, float], str]:
    """Returns times by frame name (and stem), and the column: ``t_boot_s`` or ``t_utc_s``.

    Raises:
        FrameTimeError: A column is missing or a value is no number; the message names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FrameTimeError(f"cannot read {path}: {error}", "save it as UTF-8 CSV") from error
    columns = [c for c in ("t_boot_s", "t_utc_s") if rows and c in rows[0]]
    if not rows or not columns or "frame" not in rows[0]:
        raise FrameTimeError(
            f"{path} needs the columns frame and t_boot_s or t_utc_s", "see docs/formats/times.md"
        )
    times: dict[str, float] = {}
    for i, row in enumerate(rows, 2):
        try:
            t_s = float(row[columns[0]] or "nan")
        except (TypeError, ValueError) as error:
            raise FrameTimeError(
                f"{path}, line {i}: {columns[0]} = {row[columns[0]]!r} is no number",
                "write seconds",
            ) from error
        name = (row["frame"] or "").strip()
        times[name] = t_s
        times.setdefault(Path(name).stem, t_s)
    return times, columns[0]


def _by_table(files: Sequence[Path], telemetry: Telemetry) -> FrameTimes | None:
    folder = files[0].parent
    path = next((p for p in (folder / TIMES_CSV, folder.parent / TIMES_CSV) if p.is_file()), None)
    if path is None:
        return None
    times, column = read_times_csv(path)
    t = np.array([times.get(f.name, times.get(f.stem, math.nan)) for f in files])
    if column == "t_utc_s":
        return times_from_utc(t, telemetry, f"{path.name} (UTC)")
    return FrameTimes(t, _epoch_of_boot(t, telemetry), f"{path.name} (autopilot time)")


def _by_events(files: Sequence[Path], telemetry: Telemetry) -> FrameTimes | None:
    """Matches frames with camera events, one to one in order.

    Where the frames have times of their own (even in whole seconds), spacings must agree, and
    more events than frames are allowed: the run of events that fits best is taken.
    """
    events = events_of_one_kind(telemetry.events)
    n = len(files)
    if n == 0 or len(events) < n:
        return None
    t_events = np.array([e.t_boot_s for e in events])
    t_files, fine = _own_times(files)
    if np.isfinite(t_files).all() and n > 1:
        tolerance = FINE_TOLERANCE_S if fine else SPACING_TOLERANCE_S
        worst = [_spread(t_files - t_events[k : k + n]) for k in range(len(events) - n + 1)]
        best = int(np.argmin(worst))
        if not worst[best] <= tolerance:
            return None
        way = f"camera events ({len(events)}, spacing agrees within {worst[best]:.2f} s)"
    elif len(events) == n:
        best, way = 0, f"camera events ({n}, by count: the frames have no times to compare)"
    else:
        return None
    chosen = events[best : best + n]
    return FrameTimes(np.array([e.t_boot_s for e in chosen]), chosen[0].epoch, way)


def _spread(differences: Floats) -> float:
    """Returns the range of clock differences: 0 where the spacings are the same."""
    return float(np.ptp(differences)) if np.isfinite(differences).all() else math.inf


def events_of_one_kind(events: Sequence[CameraEvent]) -> list[CameraEvent]:
    """Returns the events of the best kind: exposures before triggers; of the longest run."""
    for kind in ("feedback", "captured", "trigger"):
        mine = [e for e in events if e.kind == kind and math.isfinite(e.t_boot_s)]
        if mine:
            epochs = [e.epoch for e in mine]
            longest = max(set(epochs), key=epochs.count)
            return sorted((e for e in mine if e.epoch == longest), key=lambda e: e.t_boot_s)
    return []


def _own_times(files: Sequence[Path]) -> tuple[Floats, bool]:
    """Returns the times that frames carry by name or EXIF, on any clock; and whether finely."""
    named = np.array([utc_of_name(f.name) for f in files])
    if np.isfinite(named).all():
        return named, bool(np.any(named % 1.0))
    facts = [_facts(f) for f in files]
    said = np.array([f.t_utc_s if f else math.nan for f in facts])
    return said, any(f.subsecond for f in facts if f)


def _by_exif(files: Sequence[Path], telemetry: Telemetry) -> FrameTimes | None:
    facts = [_facts(f) for f in files]
    if not any(f.subsecond for f in facts if f):
        return None
    t = np.array([f.t_utc_s if f else math.nan for f in facts])
    way = "EXIF time with sub-seconds"
    if not all(f.utc_known for f in facts if f):
        zone_s = _time_zone(t, telemetry)
        t = t - zone_s
        way += f" (zone {zone_s / 3600.0:+.2f} h found by the log)"
    return times_from_utc(t, telemetry, way)


def _by_name(files: Sequence[Path], telemetry: Telemetry) -> FrameTimes | None:
    t = np.array([utc_of_name(f.name) for f in files])
    if not np.isfinite(t).any():
        return None
    return times_from_utc(t, telemetry, "UTC stamp in the file name")


def times_from_utc(t_utc_s: Floats, telemetry: Telemetry, way: str) -> FrameTimes:
    """Returns stamps by the running minimum of (receive time − boot time) of the log.

    Logs without receive times (.bin) are tied by their own GPS time.
    """
    clock = telemetry.clock
    if not clock.ties():
        boot = np.array([clock.boot_from_utc(t) for t in t_utc_s])
        return FrameTimes(boot, clock.epoch, f"{way}, tied to autopilot time by the log's GPS time")
    finite = t_utc_s[np.isfinite(t_utc_s)]
    middle_ns = round(float(np.median(finite)) * 1e9) if len(finite) else 0
    boot = np.array(
        [clock.boot_from_mono(round(t * 1e9))[0] if math.isfinite(t) else math.nan for t in t_utc_s]
    )
    epoch = clock.epoch_at(middle_ns)
    return FrameTimes(boot, epoch, f"{way}, tied to autopilot time by receive times")


def _time_zone(t_s: Floats, telemetry: Telemetry) -> float:
    """Returns the offset, in whole quarter hours, that puts local times into the log."""
    clock = telemetry.clock
    ties = clock.ties()
    log_s = ties[len(ties) // 2].t_mono_ns * 1e-9 if ties else math.nan
    if not ties:
        log_s, _ = clock.utc_from_boot(clock.newest_boot_s)
    off_s = float(np.nanmedian(t_s)) - log_s
    return round(off_s / ZONE_STEP_S) * ZONE_STEP_S if math.isfinite(off_s) else 0.0


def _epoch_of_boot(t_boot_s: Floats, telemetry: Telemetry) -> int:
    """Returns which run of the autopilot covers most of the stamps; the last of equals."""

    def covered(epoch: int) -> int:
        first, last = telemetry.buffer.span_s(epoch)
        return int(np.count_nonzero((t_boot_s >= first) & (t_boot_s <= last)))

    return max(range(telemetry.buffer.epochs), key=lambda epoch: (covered(epoch), epoch))


def _facts(path: Path) -> PhotoFacts | None:
    return _facts_of(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=20_000)
def _facts_of(path: Path, changed_ns: int) -> PhotoFacts | None:  # noqa: ARG001 - part of the key
    try:
        return read_facts(path)
    except DamagedFrame:
        return None
