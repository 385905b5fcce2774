"""What is in a source, where it is, what looks wrong and what to do: the report of ``inspect``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from calibration.errors import DatumError
from calibration.rig import Rig
from onboard.records import Frame, HeightDatum, Poses
from onboard.sources.looks import Look, look_at, pixel_flags, turned_frames
from onboard.sources.open import open_source
from onboard.sources.source import Flag, Source, flag

Progress = Callable[[Iterable[Frame]], Iterable[Frame]]


@dataclass(frozen=True, slots=True)
class Where:
    """Where and when the placed frames were taken.

    Attributes:
        lat_deg: Southernmost and northernmost.
        lon_deg: Westernmost and easternmost.
        alt_m: Lowest and highest, above ``height_datum``.
        height_datum: What heights are above; ``unknown`` where nothing says it.
        start: First exposure, for people.
        end: Last exposure.
    """

    lat_deg: tuple[float, float]
    lon_deg: tuple[float, float]
    alt_m: tuple[float, float]
    height_datum: str
    start: str
    end: str

    @property
    def bbox(self) -> tuple[float, float, float, float]:
        """West, south, east, north in degrees (as in GeoJSON)."""
        return self.lon_deg[0], self.lat_deg[0], self.lon_deg[1], self.lat_deg[1]


@dataclass(frozen=True, slots=True)
class Report:
    """What ``inspect`` found.

    Attributes:
        name: The source's name.
        kind: Which kind of source.
        frames: Number of frames.
        placed: Number of frames with a pose.
        notes: What concerns the whole batch.
        flagged: What looks wrong with single frames.
        where: Where they are; ``None`` if none could be placed.
        poses: The poses.
    """

    name: str
    kind: str
    frames: int
    placed: int
    notes: list[str]
    flagged: list[Flag]
    where: Where | None
    poses: Poses | None = field(repr=False, default=None)


def inspect_source(
    path: Path,
    rig: Rig | None = None,
    poses_csv: Path | None = None,
    alt_datum: HeightDatum | None = None,
    look: bool = True,
    progress: Progress = iter,
) -> Report:
    """Returns what is in a source and what looks wrong with it.

    A bad frame never stops it. Heights without a datum are noted, not refused.

    Args:
        path: The source.
        rig: Mount, clock and size to check against.
        poses_csv: A pose table that takes the place of the source's own poses.
        alt_datum: What heights are above that do not say it.
        look: Whether frames are decoded and compared with their neighbours.
        progress: Wraps the iteration over frames.
    """
    source = open_source(path, rig, poses_csv, alt_datum)
    frames = list(source.frames())
    poses, datum = _poses(source, path, rig, poses_csv, alt_datum)
    notes, flagged = list(source.notes), list(source.flagged)
    if datum == "unknown":
        notes.append(
            "nothing says what the heights are above: replay, ortho and geotag need --alt-datum "
            "(ellipsoid, egm96, takeoff, or same where the DEM shares the frames' datum)"
        )
    if rig is None and hasattr(source, "log"):
        notes.append("no --rig: the camera is taken to look straight down, its top to the nose")
    if look and any(frame.path or source.telemetry for frame in frames):
        looks = _looks(source, progress(frames))
        flagged = judge(looks, poses, flagged, notes)
        flagged += list(_sizes(looks, rig, notes))
    return Report(
        name=source.name,
        kind=source.kind,
        frames=len(frames),
        placed=len(poses),
        notes=notes,
        flagged=sorted(dict.fromkeys(flagged), key=lambda f: (f.frame, f.reason)),
        where=_where(source, poses, datum),
        poses=poses,
    )


def check_frames(
    source: Source, poses: Poses, progress: Progress = iter
) -> tuple[list[Flag], list[str]]:
    """Returns the source's flags completed by what the pixels say, and notes.

    This is what ``inspect`` does after opening; replay and ingest can call it, too.
    """
    notes: list[str] = []
    looks = _looks(source, progress(list(source.frames())))
    return judge(looks, poses, list(source.flagged), notes), notes


def judge(looks: list[Look], poses: Poses, flagged: list[Flag], notes: list[str]) -> list[Flag]:
    """Returns the flags completed by what the pixels say.

    A frame that a photo program saved again (``resaved``) is cleared where its neighbours confirm
    its yaw, and becomes ``turned`` where they contradict it.
    """
    turned, unclear, confirmed = turned_frames(looks, poses)
    resaved = {f.frame for f in flagged if f.reason == "resaved"}
    turned |= unclear & resaved if not unclear <= resaved else set()
    unclear = unclear - turned if not (unclear & resaved) else set()
    cleared = resaved & confirmed
    kept = [f for f in flagged if f.reason != "resaved" or f.frame not in turned | cleared]
    if cleared:
        notes.append(
            f"saved again by a photo program, yaw confirmed by neighbours: {_some(cleared)}"
        )
    found = [flag(name, "turned") for name in turned]
    found += [flag(name, "yaw_contradicts") for name in unclear]
    return kept + [f for f in [*pixel_flags(looks), *found] if f not in kept]


def _looks(source: Source, frames: Iterable[Frame]) -> list[Look]:
    with_pixels = (
        f for f in frames if f.path is not None or f.pixels is not None or _video(source)
    )
    return [look_at(source, frame) for frame in with_pixels]


def _video(source: Source) -> bool:
    return getattr(source, "clip", None) is not None


def _poses(
    source: Source,
    path: Path,
    rig: Rig | None,
    poses_csv: Path | None,
    alt_datum: HeightDatum | None,
) -> tuple[Poses, str]:
    """Returns the poses, and the datum's name or ``unknown`` where nothing says it."""
    try:
        poses = source.poses(rig)
    except DatumError:
        if alt_datum is not None:
            raise
        again = open_source(path, rig, poses_csv, "same")
        poses = again.poses(rig)
        source.flagged[:] = again.flagged
        return poses, "unknown"
    return poses, poses.height_datum


def _sizes(looks: list[Look], rig: Rig | None, notes: list[str]) -> Iterator[Flag]:
    """Yields flags of frames that have another size than the rig's; one note if all have."""
    if rig is None:
        return
    expected = (rig.camera.width_px, rig.camera.height_px)
    wrong = [k for k in looks if k.size_px != (0, 0) and _differs(k.size_px, expected)]
    if wrong and len(wrong) == len(looks) > 1:
        width, height = wrong[0].size_px
        notes.append(
            f"all frames are {width} × {height} px, the rig is for {expected[0]} × {expected[1]}: "
            "use the rig of this camera and image size"
        )
        return
    for look in wrong:
        yield flag(look.name, "size_differs")


def _differs(size: tuple[int, int], expected: tuple[int, int]) -> bool:
    """Returns whether sizes differ by more than what reading at half size rounds."""
    return abs(size[0] - expected[0]) > 1 or abs(size[1] - expected[1]) > 1


def _where(source: Source, poses: Poses, datum: str) -> Where | None:
    if len(poses) == 0:
        return None
    start, end = _times(source)
    ranges = [
        (float(np.min(v)), float(np.max(v))) for v in (poses.lat_deg, poses.lon_deg, poses.alt_m)
    ]
    return Where(ranges[0], ranges[1], ranges[2], datum, start, end)


def _times(source: Source) -> tuple[str, str]:
    """Returns first and last exposure: UTC, the camera's own clock, or time since boot."""
    if hasattr(source, "capture_times"):
        t = source.capture_times()
        t = t[np.isfinite(t)]
        return (_clock(float(t.min())), _clock(float(t.max()))) if len(t) else ("", "")
    stamps = [f.t_boot_s for f in source.frames() if math.isfinite(f.t_boot_s)]
    if not stamps:
        return "", ""
    clock = getattr(getattr(source, "log", source), "clock", None)
    labels = []
    for t_boot_s in (min(stamps), max(stamps)):
        t_utc_s, _ = clock.utc_from_boot(t_boot_s) if clock else (math.nan, None)
        known = math.isfinite(t_utc_s)
        labels.append(f"{_clock(t_utc_s)}Z" if known else f"{t_boot_s:.2f} s after boot")
    return labels[0], labels[1]


def _clock(t_unix_s: float) -> str:
    return datetime.fromtimestamp(t_unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _some(names: set[str]) -> str:
    first = sorted(names)[:5]
    return ", ".join(first) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
