"""The backward map of an ortho: exact at its nodes, interpolated between them in strips."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from onboard.place.direct_map import OUTSIDE_PX, DirectMap
from onboard.place.grid import Grid
from onboard.place.horizon import Horizon
from onboard.place.node_axis import NodeAxis
from onboard.place.ortho_view import FrameView
from onboard.place.post_surface import Surface
from onboard.records import Bools, Floats, Ints

Float32s = NDArray[np.float32]

STRIP_ROWS = 96


@dataclass(frozen=True)
class BackwardMap:
    """Which source pixel each output pixel shows.

    Attributes:
        view: The frame.
        grid: The output grid.
        surface: The ground between posts.
        columns: Nodes along x.
        rows: Nodes along y.
        uv: (rows, columns, 2) source pixels of the nodes; NaN where there is none.
        horizon: What the ground hides, or ``None`` where it can hide nothing.
        hidden_m: (rows, columns) metres of ground above the line of sight; NaN without ground.
        near: (rows − 1, columns − 1) cells that may lie in the frame.
        exact: (rows − 1, columns − 1) cells evaluated pixel by pixel.
        direct: Takes the place of interpolation where the surface bends between nodes.
        rest: (rows, columns, 2) what it lacks at the nodes; ``None`` where that is nothing.
    """

    view: FrameView
    grid: Grid
    surface: Surface
    columns: NodeAxis
    rows: NodeAxis
    uv: Floats
    horizon: Horizon | None
    hidden_m: Floats
    near: Bools
    exact: Bools
    direct: DirectMap | None = None
    rest: Floats | None = None

    def source_px(self, grid_uv: Floats) -> Floats:
        """Returns the exact source pixels (n, 2) of grid pixels (n, 2); NaN where there is none."""
        xy = self.grid.to_map(np.asarray(grid_uv, float).reshape(-1, 2))
        return self.view.to_pixel(xy[:, 0], xy[:, 1], self.surface.height_m(xy[:, 0], xy[:, 1]))

    def strips(self) -> Iterator[tuple[slice, slice, Float32s]]:
        """Yields rows, columns and (rows, columns, 2) source pixels of what may be in the frame.

        In strips of rows that stay in the cache, from top to bottom.
        """
        seen = np.where(np.isfinite(self.uv), self.uv, OUTSIDE_PX)
        nodes = seen if self.direct is None else self.rest
        lines = None if nodes is None else self._spread(nodes)
        for rows, cols in self._windows():
            shape = (rows.stop - rows.start, cols.stop - cols.start, 2)
            if lines is None:
                strip = np.zeros(shape, np.float32)
            else:
                flat = self._between(lines[:, 2 * cols.start : 2 * cols.stop], rows)
                strip = flat.reshape(shape)
            if self.direct is not None:
                strip += self.direct.strip(rows, cols)
            self._fill_exact(strip, rows, cols)
            yield rows, cols, strip

    def maps(self, rows: slice) -> tuple[Float32s, Float32s]:
        """Returns (rows, width) source x and y of the output pixels in a slice of rows."""
        out = np.full((self.grid.height, self.grid.width, 2), OUTSIDE_PX, np.float32)
        for part, cols, strip in self.strips():
            out[part, cols] = strip
        return out[rows, :, 0].copy(), out[rows, :, 1].copy()

    def occluded(self) -> Bools | None:
        """Returns (height, width) True where the ground in between hides the pixel's ground.

        ``None`` where nothing is hidden; False beside the frame.
        """
        if self.horizon is None or not np.any(self.hidden_m > 0):
            return None
        nodes = np.isfinite(self.hidden_m) & (self.hidden_m > 0)
        rims = _rims(nodes) & self.near
        wholly = nodes[:-1, :-1] & nodes[1:, :-1] & nodes[:-1, 1:] & nodes[1:, 1:] & ~rims
        out = np.zeros((self.grid.height, self.grid.width), np.bool_)
        for rows, cols in self._windows():
            lines = wholly[self.rows.cell[rows]]
            if lines.any():
                out[rows, cols] = lines[:, self.columns.cell[cols]]
            row, col = self._pixels_of(rims, rows, cols)
            if len(row):
                xy = self.grid.to_map(np.stack([col + cols.start, row + rows.start], axis=1))
                x, y = xy[:, 0], xy[:, 1]
                if self.direct is None:
                    z = np.asarray(self.surface.height_m(x, y), np.float64)
                else:
                    heights = self.direct.lines
                    above = heights.between(rows, cols)[row, col]
                    z = np.asarray(above, np.float64) + heights.base_m
                out[rows, cols][row, col] = self.horizon.hidden_by_m(x, y, z) > 0
        return out

    def inside(self, strip: Float32s) -> Bools:
        """Returns (rows, width) True where source pixels lie within the frame."""
        w, h = self.view.camera.width_px, self.view.camera.height_px
        return cv2.inRange(strip, (0.0, 0.0), (w - 1.0, h - 1.0)).astype(np.bool_)

    def _spread(self, nodes: Floats) -> Float32s:
        """Returns the node rows interpolated along x: (node rows, width · channels)."""
        # Pairs as one complex number each: gathered and weighed in one go.
        pairs = np.ascontiguousarray(nodes, np.float32).view(np.complex64)[..., 0]
        i, w = self.columns.cell, self.columns.weight.astype(np.float32)
        lines = np.take(pairs, i, axis=1)
        step = np.take(pairs, i + 1, axis=1)
        step -= lines
        step *= w
        lines += step
        return lines.view(np.float32)

    def _between(self, lines: Float32s, part: slice) -> Float32s:
        """Returns the lines interpolated along y for a slice of rows: (rows, width · channels)."""
        out = np.empty((part.stop - part.start, lines.shape[1]), np.float32)
        for cell in range(self.rows.cell[part.start], self.rows.cell[part.stop - 1] + 1):
            a = max(int(self.rows.starts[cell]), part.start)
            b = min(int(self.rows.starts[cell + 1]), part.stop)
            if a >= b:
                continue
            w = self.rows.weight[a:b, None]
            np.matmul(
                np.concatenate([1 - w, w], axis=1),
                lines[cell : cell + 2],
                out=out[a - part.start : b - part.start],
            )
        return out

    def _windows(self) -> Iterator[tuple[slice, slice]]:
        """Yields the rows of each strip and the columns in which it may see the frame."""
        for first in range(0, self.grid.height, STRIP_ROWS):
            rows = slice(first, min(first + STRIP_ROWS, self.grid.height))
            cells = slice(self.rows.cell[rows.start], self.rows.cell[rows.stop - 1] + 1)
            seen = np.flatnonzero(self.near[cells].any(axis=0))
            if len(seen):
                start = int(self.columns.starts[seen[0]])
                stop = int(self.columns.starts[seen[-1] + 1])
                if stop > start:
                    yield rows, slice(start, stop)

    def _fill_exact(self, strip: Float32s, rows: slice, cols: slice) -> None:
        """Evaluates the pixels of a strip's exact cells one by one."""
        row, col = self._pixels_of(self.exact, rows, cols)
        if len(row):
            uv = self.source_px(np.stack([col + cols.start, row + rows.start], axis=1))
            strip[row, col] = np.where(np.isfinite(uv), uv, OUTSIDE_PX)

    def _pixels_of(self, cells: Bools, rows: slice, cols: slice) -> tuple[Ints, Ints]:
        """Returns row and column, within a strip, of the pixels in marked cells."""
        lines = cells[self.rows.cell[rows]]
        if not lines.any():
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        row, col = np.nonzero(lines[:, self.columns.cell[cols]])
        return row, col


def _rims(hidden: Bools) -> Bools:
    """Returns the cells at the rim of hidden ground, and their neighbours."""
    corners = np.stack([hidden[:-1, :-1], hidden[1:, :-1], hidden[:-1, 1:], hidden[1:, 1:]])
    rim = corners.any(axis=0) & ~corners.all(axis=0)
    wide = np.pad(rim, 1)
    rows = wide[:-2] | wide[1:-1] | wide[2:]
    return np.asarray(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:])
