"""Low disk: which frames are no longer kept, in a stated order, so that rows and alerts go on.

With ``low`` and ``critical`` watermarks on the free space, half-way between them a third line:

1. above ``low``: every frame is kept;
2. below ``low``: frames that were scanned and in which nothing was found are not kept;
3. below half-way: frames that were not scanned are not kept either;
4. below ``critical``: no frame is kept, and the reserve file is given up for rows and alerts.

Rows, alerts, health events and telemetry go on in every case; every frame that is not kept is
counted. Nothing is ever deleted: that will need the ground's signed receipt.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

from onboard.keep.files import refusal
from onboard.keep.health import HealthEvent

RESERVE = ".reserve"
MB = 1_000_000


class Room(IntEnum):
    """How much room there is, from plenty to none."""

    AMPLE = 0
    LOW = 1
    LOWER = 2
    CRITICAL = 3


_SAYS = {
    Room.AMPLE: ("info", "disk_ample", "all frames are kept again"),
    Room.LOW: ("warning", "disk_low", "frames in which nothing was found are not kept"),
    Room.LOWER: ("warning", "disk_lower", "only frames with detections are kept"),
    Room.CRITICAL: ("error", "disk_critical", "no frames are kept; rows and alerts go on"),
}


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


class SpaceGuard:
    """Decides frame by frame what is kept. Called from one thread.

    Args:
        folder: The flight folder.
        low_mb: Below this many free megabytes frames begin to be left out.
        critical_mb: Below this no frames are kept.
        reserve_mb: Size of the reserve file that is given up last; 0 for none.
        free_bytes: Tells the free space.
        now_ns: The monotonic clock.

    Attributes:
        room: How much room there was at the last look.
        not_kept: Count of frames that were not kept, by ``empty``, ``unscanned``, ``seen``,
            ``failed`` (the write itself found the disk full).
    """

    def __init__(
        self,
        folder: Path,
        low_mb: float = 2000.0,
        critical_mb: float = 500.0,
        reserve_mb: float = 32.0,
        free_bytes: Callable[[Path], int] = _free_bytes,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if not 0 <= critical_mb <= low_mb:
            raise ValueError(f"watermarks are {critical_mb} and {low_mb} MB: low must be higher")
        self.folder = folder
        self.room = Room.AMPLE
        self.not_kept: Counter[str] = Counter()
        self._limits = (low_mb * MB, (low_mb + critical_mb) / 2 * MB, critical_mb * MB)
        self._free_bytes, self._now_ns = free_bytes, now_ns
        self._reserve_bytes = int(reserve_mb * MB)
        self._full = False
        self._reserve(self._free_bytes(folder))

    def look(self) -> HealthEvent | None:
        """Looks at the free space; returns an event if what is kept changes by it."""
        free = self._free_bytes(self.folder)
        room = Room(sum(free < limit for limit in self._limits))
        if room == Room.CRITICAL:
            self.release_reserve()
        elif self._full:
            room = Room.CRITICAL
            if free > self._limits[0] + self._reserve_bytes:
                self._full, room = False, Room.AMPLE
                self._reserve(free)
        if room == self.room:
            return None
        self.room = room
        level, code, says = _SAYS[room]
        return self._event(
            level, code, f"{free // MB} MB free: {says}", sum(self.not_kept.values())
        )

    def keeps(self, scanned: bool, detections: int) -> bool:
        """Returns whether a frame is to be kept, and counts it if not."""
        kind = "seen" if detections else "empty" if scanned else "unscanned"
        given_up_at = {"empty": Room.LOW, "unscanned": Room.LOWER, "seen": Room.CRITICAL}
        if not self._full and self.room < given_up_at[kind]:
            return True
        self.not_kept[kind] += 1
        return False

    def failed(self) -> HealthEvent:
        """Notes that a frame's write found the disk full; gives up the reserve for the rows."""
        self.not_kept["failed"] += 1
        self.release_reserve()
        return self._event("error", "disk_full", "a frame could not be kept", 1)

    def release_reserve(self) -> bool:
        """Gives up the reserve for rows; returns whether there was one.

        From then on no frame is kept, until there is plenty of room and a reserve again. It may
        be called from the thread that writes the rows.
        """
        self._full = True
        path = self.folder / RESERVE
        had = path.exists()
        path.unlink(missing_ok=True)
        return had

    def summary(self) -> HealthEvent | None:
        """Returns what was not kept over the whole flight, or ``None`` if everything was."""
        total = sum(self.not_kept.values())
        if not total:
            return None
        counts = " ".join(f"{kind}={n}" for kind, n in sorted(self.not_kept.items()))
        return self._event("warning", "frames_not_kept", counts, total)

    def _reserve(self, free_bytes: int) -> None:
        """Sets the reserve aside where there is room for it."""
        path, size_bytes = self.folder / RESERVE, self._reserve_bytes
        if not size_bytes or free_bytes <= self._limits[2] + size_bytes:
            return
        try:
            with path.open("wb") as stream:
                os.posix_fallocate(stream.fileno(), 0, size_bytes)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise refusal(error, path) from error

    def _event(self, level: str, code: str, text: str, count: int) -> HealthEvent:
        return HealthEvent(self._now_ns(), "keep", level, code, text, count)
