"""After an interruption: makes folder and database agree again, and says what was found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from onboard.keep.commit import put_file, put_segment
from onboard.keep.database import FlightDatabase
from onboard.keep.files import CHIPS, FRAMES, TEMP_SUFFIX, own_temp_suffix, sha256_of, sync_folder
from onboard.keep.health import HealthEvent
from onboard.keep.segments import KeptFile, read_segment, segment_numbers, segment_path


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was found when a flight was taken up again.

    Attributes:
        interrupted: Whether its last writer ended without closing it.
        frames: Frames that are committed.
        temp_removed: Unfinished files that were removed.
        adopted: Kept files that no committed row named; now listed.
        missing: Files that a committed row names and that are not there.
        segment: Number of the interrupted segment, closed as recovered; ``None`` if it was empty.
    """

    interrupted: bool = False
    frames: int = 0
    temp_removed: tuple[str, ...] = ()
    adopted: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    segment: int | None = None

    def event(self, t_mono_ns: int) -> HealthEvent:
        """Returns what was found as a health event."""
        counts = {
            "frames": self.frames,
            "temp_removed": len(self.temp_removed),
            "adopted": len(self.adopted),
            "missing": len(self.missing),
            "segment": self.segment,
        }
        return HealthEvent(t_mono_ns, "keep", "warning", "flight_recovered", json.dumps(counts))


def adopt_segments(folder: Path, db: FlightDatabase) -> int:
    """Lists manifests whose row was lost to a kill; returns the number of the open segment."""
    listed = {int(row["number"]) for row in db.rows("SELECT number FROM segments")}
    for number in segment_numbers(folder):
        if number not in listed:
            document = read_segment(folder, number)
            manifest = kept_file(folder, segment_path(number), "segment")
            put_segment(db, number, manifest, len(document["files"]), bool(document["recovered"]))
            listed.add(number)
    return max(listed, default=-1) + 1


def adopt_files(folder: Path, db: FlightDatabase, segment: int) -> tuple[str, ...]:
    """Lists kept files that a kill left without a row; returns their paths."""
    known = {str(row["path"]) for row in db.rows("SELECT path FROM files")}
    found = [
        (f"{part}/{path.name}", kind)
        for part, kind in ((FRAMES, "frame"), (CHIPS, "chip"))
        for path in sorted((folder / part).glob("*"))
    ]
    lost = [kept_file(folder, path, kind) for path, kind in found if path not in known]
    if lost:
        with db.transaction():
            for item in lost:
                put_file(db, item, segment)
    return tuple(item.path for item in lost)


def missing_files(folder: Path, db: FlightDatabase) -> tuple[str, ...]:
    """Returns the files that a row names and that are not there."""
    known = [str(row["path"]) for row in db.rows("SELECT path FROM files ORDER BY path")]
    return tuple(path for path in known if not (folder / path).is_file())


def remove_temporary(folder: Path) -> tuple[str, ...]:
    """Removes what was being written when the power went; returns the paths.

    What another thread of this process writes right now stays.
    """
    removed = []
    left = [p for p in folder.rglob(f"*{TEMP_SUFFIX}") if not p.name.endswith(own_temp_suffix())]
    for path in sorted(left):
        path.unlink()
        sync_folder(path.parent)
        removed.append(path.relative_to(folder).as_posix())
    return tuple(removed)


def kept_file(folder: Path, path: str, kind: str) -> KeptFile:
    """Returns a file of the flight, hashed anew."""
    full = folder / path
    return KeptFile(path, sha256_of(full), full.stat().st_size, kind)
