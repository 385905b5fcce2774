"""A video as frames: with a log or DJI's subtitles beside it, or its telemetry inside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.errors import DatumError
from calibration.geodesy import to_ellipsoid_m
from calibration.rig import Rig
from calibration.rotations import r_ned_cam_from_ypr
from onboard.place.hermite import bracket
from onboard.records import Floats, Frame, HeightDatum, Poses
from onboard.sources.clip import Clip, ClipSource
from onboard.sources.decoded import Telemetry
from onboard.sources.errors import (
    DamagedTelemetryError,
    FrameTimeError,
    SourceError,
)
from onboard.sources.exif import utc_of_name
from onboard.sources.frame_times import TIMES_CSV, FrameTimes, read_times_csv, times_from_utc
from onboard.sources.gpmf import read_gpmf
from onboard.sources.logged import poses_from_log
from onboard.sources.misb_video import MisbSource, open_stream
from onboard.sources.source import VIDEO_SUFFIXES, Placement, flag, placed
from onboard.sources.srt import SrtRow, cut_short, read_srt
from onboard.sources.telemetry_log import TELEMETRY_SUFFIXES, read_telemetry


class LoggedVideo(ClipSource):
    """A video with a telemetry log, or with telemetry inside.

    Args:
        clip: The video.
        log: Its telemetry.
        times: The frames' times on the telemetry's clock.
        kind: Which kind of source, for people.
    """

    def __init__(self, clip: Clip, log: Telemetry, times: FrameTimes, kind: str) -> None:
        super().__init__(clip.path.name, clip, log.path)
        self.kind = kind
        self.log = log
        self.clip = clip
        self.times = times
        self.notes += [*log.notes, f"frame times: {times.way}"]

    def frames(self) -> Iterator[Frame]:
        """Yields the frames in order."""
        for seq, (name, t_s) in enumerate(zip(self.clip.names, self.times.t_boot_s, strict=True)):
            yield Frame(name, seq, t_boot_s=float(t_s))

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses at the exposures."""
        return poses_from_log(self, self.log, self.times, self.clip.names, rig)


def _with_log(clip: Clip, path: Path) -> LoggedVideo:
    """Returns a video with the log beside it; its start is from ``times.csv`` or its name."""
    log = read_telemetry(path)
    return LoggedVideo(clip, log, _times_by_start(clip, log), "a video with a telemetry log")


def _times_by_start(clip: Clip, log: Telemetry) -> FrameTimes:
    """Returns stamps: rows of times.csv (the video's own row is its start), or its name."""
    path, t_video = clip.path, clip.times_s()
    table = path.with_name(TIMES_CSV)
    if table.is_file():
        times, column = read_times_csv(table)
        start = times.get(path.name, math.nan)
        own = [times.get(name, math.nan) for name in clip.names]
        t_s = np.where(np.isnan(own), start + t_video, own)
        if column == "t_utc_s":
            return times_from_utc(t_s, log, f"{TIMES_CSV} (UTC)")
        return FrameTimes(t_s, -1, f"{TIMES_CSV} (autopilot time)")
    start = utc_of_name(path.name)
    if math.isfinite(start):
        return times_from_utc(start + t_video, log, "UTC stamp in the video's name")
    raise FrameTimeError(
        f"nothing says when {path.name} starts",
        f"write {TIMES_CSV} beside it: frame,t_boot_s with one row '{path.name},<start>'",
    )


def _with_gpmf(at: Path, step_s: float) -> LoggedVideo | None:
    """Returns a GoPro video with the telemetry inside it; ``None`` where there is none."""
    found = read_gpmf(at)
    if found is None:
        return None
    log, ahead_s = found
    clip = Clip(at, step_s)
    times = FrameTimes(clip.times_s() + ahead_s, -1, "the GPMF track inside the video")
    return LoggedVideo(clip, log, times, "a video with GoPro's GPMF track")


class SubtitledVideo(ClipSource):
    """A DJI video with its subtitles, or the subtitles alone (then each is a frame)."""

    kind = "a video with DJI subtitles"

    def __init__(
        self, srt: Path, video: Path | None, alt_datum: HeightDatum | None, step_s: float
    ) -> None:
        super().__init__((video or srt).name, Clip(video, step_s) if video else None, srt)
        self.rows, skipped = read_srt(srt)
        self.alt_datum = alt_datum
        if not self.rows:
            raise DamagedTelemetryError(
                f"{srt} holds no subtitle with a time", "take it from the drone's card again"
            )
        if skipped:
            self.notes.append(f"{srt.name}: {skipped} subtitles cut short or without text, skipped")
        if video is None:
            self.kind = "DJI subtitles without their video"
            self.notes.append("no video beside the subtitles: each subtitle stands for a frame")
        self.names = self._clip.names if self._clip else _row_names(srt, self.rows)
        self.t_s = self._clip.times_s() if self._clip else np.array([r.t_s for r in self.rows])
        self._flag()

    def frames(self) -> Iterator[Frame]:
        """Yields the frames in order."""
        for seq, name in enumerate(self.names):
            yield Frame(name, seq)

    def datum(self) -> HeightDatum | None:
        """Returns the datum as given, else ``takeoff`` where only such heights are said."""
        absolute = any(math.isfinite(r.alt_m) for r in self.rows)
        relative = any(math.isfinite(r.alt_m_takeoff) for r in self.rows)
        return self.alt_datum or ("takeoff" if relative and not absolute else None)

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses of frames whose subtitles say position, height and gimbal."""
        datum = self.datum()
        if datum is None:
            raise DatumError(
                f"{self.name}: the subtitles do not say what their heights are above",
                "give --alt-datum takeoff (their relative height), ellipsoid, egm96 or same",
            )
        values = self._at_frames(datum)
        index = np.flatnonzero(np.isfinite(values).all(axis=1))
        no_height = np.isnan(values[:, 2]) & np.isfinite(values[:, 0])
        for i in np.flatnonzero(no_height):
            if flag(self.names[i], "cut_short") not in self.flagged:
                missing = flag(self.names[i], "no_height")
                self.flagged += [missing] if missing not in self.flagged else []
        lat, lon, alt_m = values[index, 0], values[index, 1], values[index, 2]
        if datum in ("egm96", "egm2008"):
            alt_m, datum = to_ellipsoid_m(alt_m, datum, lat, lon), "ellipsoid"
        r_ned_cam = r_ned_cam_from_ypr(*np.radians(values[index, 3:6].T))
        if rig is not None and rig.mount.type == "gimbal" and len(index):
            r_ned_cam = rig.mount.r_ned_cam(r_ned_cam)
        names = tuple(self.names[i] for i in index)
        return placed(Placement(names, lat, lon, alt_m, datum, r_ned_cam.reshape(-1, 3, 3)), rig)

    def _at_frames(self, datum: HeightDatum) -> Floats:
        """Returns (n, 6) lat, lon, height, yaw, pitch, roll at the frames, linear between rows."""
        heights = [r.alt_m_takeoff if datum == "takeoff" else r.alt_m for r in self.rows]
        table = np.array(
            [(r.lat_deg, r.lon_deg, h, *r.ypr_deg) for r, h in zip(self.rows, heights, strict=True)]
        )
        table[:, 3] = np.degrees(_unwrapped(np.radians(table[:, 3])))
        t_rows = np.array([r.t_s for r in self.rows])
        b = bracket(t_rows, self.t_s)
        span = np.where(b.gap_s > 0, b.gap_s, 1.0)
        s = np.where(b.gap_s > 0, (self.t_s - t_rows[b.before]) / span, 0.0)[:, None]
        between = (1 - s) * table[b.before] + s * table[b.after]
        return np.where(s == 0.0, table[b.before], between)

    def _flag(self) -> None:
        values = self._at_frames("same")
        no_position = ~np.all(np.isfinite(values[:, :2]), axis=1)
        no_attitude = ~np.all(np.isfinite(values[:, 3:]), axis=1) & ~no_position
        told = ~no_attitude.all()
        if no_attitude.sum() > 1 and np.all(no_attitude | no_position):
            self.notes.append("this dialect says no gimbal attitude: give --poses to place frames")
            told = False
        cut = self._at_rows(np.array(cut_short(self.rows)))
        void = self._at_rows(np.array(["position" in row.said for row in self.rows]))
        for i, name in enumerate(self.names):
            if cut[i]:
                self.flagged.append(flag(name, "cut_short"))
            elif no_position[i]:
                self.flagged.append(flag(name, "gps_void" if void[i] else "no_gps"))
            elif no_attitude[i] and told:
                self.flagged.append(flag(name, "no_attitude"))

    def _at_rows(self, said: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Returns whether either of the subtitles around each frame says it."""
        b = bracket(np.array([r.t_s for r in self.rows]), self.t_s)
        on_row = self.t_s == np.array([r.t_s for r in self.rows])[b.before]
        return np.asarray(said[b.before] | (said[b.after] & ~on_row))


def open_video(at: Path, alt_datum: HeightDatum | None, step_s: float) -> _OpenVideo:
    """Returns a video (or DJI subtitles) with the telemetry that lies beside it.

    Raises:
        SourceError: No telemetry beside or inside it.
    """
    if at.suffix.lower() == ".srt":
        return SubtitledVideo(at, _beside(at, VIDEO_SUFFIXES), alt_datum, step_s)
    srt = _beside(at, (".srt",))
    if srt is not None:
        return SubtitledVideo(srt, at, alt_datum, step_s)
    logs = [p for p in at.parent.iterdir() if p.suffix.lower() in TELEMETRY_SUFFIXES]
    log = _beside(at, TELEMETRY_SUFFIXES) or (logs[0] if len(logs) == 1 else None)
    if log is not None:
        return _with_log(Clip(at, step_s), log)
    inside = _with_gpmf(at, step_s) or open_stream(at, step_s)
    if inside is not None:
        return inside
    raise SourceError(
        f"{at} has no telemetry beside or inside it",
        "lay the flight's .tlog or the video's DJI .srt in the same folder",
    )


_OpenVideo = LoggedVideo | SubtitledVideo | MisbSource


def _beside(at: Path, suffixes: Sequence[str]) -> Path | None:
    """Returns the file of the same stem with one of these suffixes in any case."""
    for path in sorted(at.parent.iterdir()):
        if path.stem.lower() == at.stem.lower() and path.suffix.lower() in suffixes:
            return path
    return None


def _row_names(srt: Path, rows: Sequence[SrtRow]) -> list[str]:
    return [f"{srt.stem}_{i:06d}" for i in range(len(rows))]


def _unwrapped(angle_rad: Floats) -> Floats:
    known = np.isfinite(angle_rad)
    out = angle_rad.copy()
    out[known] = np.unwrap(angle_rad[known])
    return out
