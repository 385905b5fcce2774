"""A video with MISB metadata inside, or the metadata alone (then each packet is a frame)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from calibration.geodesy import to_ellipsoid_m
from calibration.rig import Rig
from calibration.rotations import rot_exp, rot_log
from onboard.place.hermite import bracket
from onboard.records import Floats, Frame, Poses
from onboard.sources.clip import Clip, ClipSource
from onboard.sources.errors import DamagedTelemetryError
from onboard.sources.misb import KlvRow, parse_klv
from onboard.sources.source import Placement, flag, placed
from onboard.sources.transport_stream import klv_of_stream

MAX_GAP_S = 2.0


class MisbSource(ClipSource):
    """Frames placed by ST 0601 packets: position, platform and sensor angles, interpolated.

    The attitude is the camera's own; a rig's mount is not applied.

    Args:
        path: The video, or the bare metadata.
        clip: The video's frames; ``None`` for bare metadata.
        rows: The packets.
        t_s: (n,) when they were shown, seconds into the video.
    """

    kind = "a video with MISB metadata"

    def __init__(
        self, path: Path, clip: Clip | None, rows: Sequence[KlvRow], t_s: ArrayLike
    ) -> None:
        super().__init__(path.name, clip, path)
        t_rows_s = np.asarray(t_s, dtype=np.float64)
        order = np.argsort(t_rows_s, kind="stable")
        self.rows = [rows[i] for i in order]
        self.t_rows_s = t_rows_s[order]
        if clip is None:
            self.kind = "MISB metadata without its video"
            self.notes.append("no video with the packets: each stands for a frame")
        self.names = clip.names if clip else [f"{path.stem}_{i:06d}" for i in range(len(rows))]
        self.t_s = clip.times_s() if clip else self.t_rows_s
        damaged = sum(not row.whole for row in self.rows)
        if damaged and clip is not None:
            self.notes.append(f"{path.name}: {damaged} packets cut short or damaged, left out")
        self.notes.append("packets say the camera's attitude: the rig's mount is not applied")

    def frames(self) -> Iterator[Frame]:
        """Yields the frames in order."""
        for seq, name in enumerate(self.names):
            yield Frame(name, seq)

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses of frames between packets that say all; the others are flagged."""
        reasons = self._reasons()
        found = [flag(n, r) for n, r in zip(self.names, reasons, strict=True) if r]
        self.flagged += [f for f in found if f not in self.flagged]
        keep = np.flatnonzero([not reason for reason in reasons])
        names = tuple(self.names[i] for i in keep)
        lla, r_ned_cam = self._between(self.t_s[keep])
        at = Placement(names, lla[:, 0], lla[:, 1], lla[:, 2], "ellipsoid", r_ned_cam)
        return placed(at, rig)

    def _usable(self) -> list[int]:
        return [i for i, row in enumerate(self.rows) if not _why_not(row)]

    def _reasons(self) -> list[str]:
        """Returns for each frame the code of why it cannot be placed; empty where it can."""
        if self._clip is None:
            return [_why_not(row) for row in self.rows]
        usable = self.t_rows_s[self._usable()]
        if not len(usable):
            return [_why_not(self.rows[0])] * len(self.names)
        near = bracket(usable, self.t_s)
        lost = (near.gap_s > MAX_GAP_S) | (np.abs(near.beyond_s) > MAX_GAP_S)
        return ["no_telemetry" if far else "" for far in lost]

    def _between(self, t_s: Floats) -> tuple[Floats, Floats]:
        """Returns (m, 3) lat, lon, ellipsoidal height and (m, 3, 3) attitudes at times."""
        usable = self._usable()
        if not usable or not len(t_s):
            return np.empty((0, 3)), np.empty((0, 3, 3))
        rows = [self.rows[i] for i in usable]
        lla = np.array([_ellipsoidal(row) for row in rows])
        turned = np.array([row.r_ned_cam for row in rows])
        b = bracket(self.t_rows_s[usable], t_s)
        span = np.where(b.gap_s > 0, b.gap_s, 1.0)
        s = np.where(b.gap_s > 0, (t_s - self.t_rows_s[usable][b.before]) / span, 0.0)[:, None]
        first, second = turned[b.before], turned[b.after]
        step = rot_log(first.swapaxes(1, 2) @ second)
        return (1 - s) * lla[b.before] + s * lla[b.after], first @ rot_exp(s * step)


def open_packets(path: Path) -> MisbSource:
    """Returns bare ST 0601 packets as a source.

    Raises:
        DamagedTelemetryError: There is none in the file.
    """
    rows = parse_klv(path.read_bytes())
    if not rows:
        raise DamagedTelemetryError(
            f"{path} holds no MISB ST 0601 packet", "give the UAS local set, or --poses"
        )
    start = min((row.t_unix_s for row in rows if np.isfinite(row.t_unix_s)), default=0.0)
    t_s = [row.t_unix_s - start if np.isfinite(row.t_unix_s) else i for i, row in enumerate(rows)]
    return MisbSource(path, None, rows, t_s)


def open_stream(path: Path, step_s: float) -> MisbSource | None:
    """Returns a transport stream with MISB metadata as a source; ``None`` where it has none."""
    parts = klv_of_stream(path)
    rows = [row for part in parts for row in parse_klv(part.data)]
    if not rows:
        return None
    t_s = np.array([part.t_s for part in parts for _ in parse_klv(part.data)])
    if not all(part.timed for part in parts):
        t_s = _by_their_own_stamps(rows, t_s)
    return MisbSource(path, Clip(path, step_s), rows, t_s)


def _by_their_own_stamps(rows: Sequence[KlvRow], t_s: Floats) -> Floats:
    """Returns times spaced as the packets' own stamps say; packets and pictures agree in mean."""
    stamps = np.array([row.t_unix_s for row in rows])
    after = stamps - np.nanmin(stamps, initial=np.inf)
    known = np.isfinite(after)
    if not known.any():
        return t_s
    return np.where(known, after + np.median((t_s - after)[known]), t_s)


def _why_not(row: KlvRow) -> str:
    if not row.whole:
        return "cut_short"
    if not np.isfinite(row.lat_deg + row.lon_deg):
        return "no_gps"
    if row.r_ned_cam is None:
        return "no_attitude"
    return "" if np.isfinite(row.alt_m) else "no_height"


def _ellipsoidal(row: KlvRow) -> tuple[float, float, float]:
    height_m = float(to_ellipsoid_m(row.alt_m, row.datum, row.lat_deg, row.lon_deg))
    return row.lat_deg, row.lon_deg, height_m
