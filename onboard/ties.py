"""Tie points between frames that see the same ground."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from shapely.geometry import MultiPoint
from shapely.geometry.base import BaseGeometry

from calibration.camera import Camera
from calibration.geodesy import MapFrame
from calibration.rig import Rig
from onboard.image_matches import Features, common_points, features_of
from onboard.place.ortho import frame_outline
from onboard.place.ortho_view import FrameView
from onboard.place.terrain import Terrain
from onboard.records import Floats, Frame, Ints, Poses
from onboard.sources.source import Source

PARTNERS = 6
"""Frames that each frame is matched with: its neighbours in order, then those that overlap most."""
LEAST_OVERLAP = 0.15
CELLS = 12
"""Ties of a pair lie in different cells of a 12×12 lattice over the first frame."""

Progress = Callable[[Iterable[Frame]], Iterator[Frame]]


@dataclass(frozen=True, slots=True)
class Ties:
    """n tie points, each seen by two frames.

    Attributes:
        first: (n,) row of the one frame's pose.
        second: (n,) row of the other's.
        uv_first: (n, 2) source pixels in the one.
        uv_second: (n, 2) in the other.
    """

    first: Ints
    second: Ints
    uv_first: Floats
    uv_second: Floats

    def __len__(self) -> int:
        return len(self.first)

    def take(self, index: Ints) -> Ties:
        """Returns the ties at these indices."""
        return Ties(
            self.first[index], self.second[index], self.uv_first[index], self.uv_second[index]
        )


def find_ties(
    source: Source,
    poses: Poses,
    rig: Rig,
    terrain: Terrain,
    map_frame: MapFrame,
    progress: Progress = iter,
) -> tuple[Ties, list[str]]:
    """Returns the tie points of all overlapping frames, and why frames were left out.

    Pairs come from where the poses say frames look; matches are accepted by image geometry alone,
    so that wrong poses cannot choose them.

    Args:
        source: Frames.
        poses: Their poses; ties count their rows.
        rig: The camera.
        terrain: The ground.
        map_frame: The map.
        progress: Wraps the iteration over frames.
    """
    row = {name: i for i, name in enumerate(poses.frame)}
    skipped: list[str] = []
    seen: dict[int, Features] = {}
    for frame in progress([frame for frame in source.frames() if frame.name in row]):
        found = features_of(source, frame, rig.camera, skipped)
        if found is not None:
            seen[row[frame.name]] = found
    parts = []
    for a, b in overlapping(poses, rig, terrain, map_frame):
        if a in seen and b in seen:
            one, two = _spread_out(seen[a], seen[b], rig.camera)
            n = len(one)
            parts.append(Ties(np.full(n, a), np.full(n, b), seen[a].uv[one], seen[b].uv[two]))
    return joined(parts), skipped


def joined(parts: list[Ties]) -> Ties:
    """Returns ties as one set."""
    empty = Ties(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros((0, 2)))
    return Ties(
        *(
            np.concatenate([getattr(part, name) for part in [empty, *parts]])
            for name in ("first", "second", "uv_first", "uv_second")
        )
    )


def overlapping(
    poses: Poses, rig: Rig, terrain: Terrain, map_frame: MapFrame
) -> list[tuple[int, int]]:
    """Returns pairs of rows, the lower first: neighbours in order, and what overlaps most."""
    n = len(poses)
    areas = [_outline(FrameView.of(poses.take([i]), rig, terrain, map_frame)) for i in range(n)]
    pairs = {(i, i + 1) for i in range(n - 1)}
    for i in range(n):
        shares = [(_overlap(areas[i], areas[j]), j) for j in range(n) if j != i]
        best = sorted(shares, reverse=True)[:PARTNERS]
        pairs |= {(min(i, j), max(i, j)) for share, j in best if share >= LEAST_OVERLAP}
    return sorted(pairs)


def _outline(view: FrameView) -> BaseGeometry:
    xy = frame_outline(view)
    return MultiPoint(xy[np.isfinite(xy).all(axis=1)]).convex_hull


def _overlap(a: BaseGeometry, b: BaseGeometry) -> float:
    """Returns the share of the smaller area that both see."""
    least = min(a.area, b.area)
    if not least or not a.envelope.intersects(b.envelope):
        return 0.0
    return float(a.intersection(b).area / least)


def _spread_out(a: Features, b: Features, camera: Camera) -> tuple[Ints, Ints]:
    """Returns rows of common points, at most one from each cell of the first frame."""
    one, two = common_points(a, b, camera)
    size = max(camera.width_px, camera.height_px) / CELLS
    cell = (a.uv[one] // size).astype(np.int64)
    _, first = np.unique(cell[:, 0] * 1000 + cell[:, 1], return_index=True)
    return one[first], two[first]
