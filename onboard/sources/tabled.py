"""Image files whose poses come from a table: POSES, or an OpenSfM/ODM reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from calibration.rig import Rig
from onboard.records import Frame, Poses
from onboard.sources.pixels import load_pixels
from onboard.sources.source import Flag, flag

ReadPoses = Callable[[Rig | None], Poses]


class TabledSource:
    """Image files, and a function that reads the poses that a table gives.

    Args:
        files: The image files, in order.
        name: What the source is called.
        kind: Which kind of table, for people.
        read: Returns the table's poses; names match by file name, then by stem.
        notes: What concerns the whole batch.
    """

    has_telemetry = False
    telemetry: Path | None = None

    def __init__(
        self,
        files: Sequence[Path],
        name: str,
        kind: str,
        read: ReadPoses,
        notes: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.kind = kind
        self.notes: list[str] = list(notes)
        self.flagged: list[Flag] = []
        self._files = list(files)
        self._read = read

    def frames(self) -> Iterator[Frame]:
        """Yields the frames in order."""
        for seq, path in enumerate(self._files):
            yield Frame(path.name, seq, path=path)

    def load_pixels(self, frame: Frame) -> Frame:
        """Returns the frame with its pixels."""
        return load_pixels(frame)

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses of the frames that the table names, under the frames' names."""
        table = self._read(rig)
        rows = {name: i for i, name in reversed(list(enumerate(table.frame)))}
        stems = {Path(name).stem: i for name, i in reversed(rows.items())}
        picks: list[tuple[str, int]] = []
        for path in self._files:
            row = rows.get(path.name, stems.get(path.stem))
            if row is None:
                missing = flag(path.name, "no_pose")
                self.flagged += [missing] if missing not in self.flagged else []
            else:
                picks.append((path.name, row))
        return renamed(table.take([row for _, row in picks]), [name for name, _ in picks])


def renamed(poses: Poses, names: Sequence[str]) -> Poses:
    """Returns the same poses under other frame names."""
    from dataclasses import replace

    return replace(poses, frame=tuple(names))
