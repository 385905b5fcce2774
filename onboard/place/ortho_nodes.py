"""The backward map of an ortho: exact at nodes on DEM posts, interpolated between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from onboard.place.grid import Grid
from onboard.place.horizon import Horizon, sweep_horizon
from onboard.place.ortho_view import FrameView
from onboard.place.post_surface import DemResampling, Surface, surface_of
from onboard.place.surface import GridTerrain
from onboard.records import Bools, Floats, Ints

Float32s = NDArray[np.float32]
Nodes = tuple[Floats, Floats, Floats]
"""Source pixels (r, c, 2), slant ranges (r, c), heights (r, c)."""

MAX_NODE_PX = 20.0
"""Nodes are at most this many output pixels apart."""
LINEAR_TOLERANCE_PX = 0.25
"""Cells that would deviate more on a bilinear surface are evaluated pixel by pixel."""
CUBIC_TOLERANCE_PX = 0.1
"""Posts are subdivided until the map of a cubic surface deviates no more in most cells; the others
are evaluated pixel by pixel."""
MAX_HALVINGS = 3
NODES_AT_ONCE = 60_000
LEAST_NODE_PX = 2.0
FEW = 0.15
STRIP_ROWS = 96
OUTSIDE_PX = -1.0e4


@dataclass(frozen=True)
class NodeAxis:
    """Where the nodes lie along one axis of the grid.

    Attributes:
        at_px: (n,) increasing grid coordinates, fractional; they span all pixels.
        cell: (pixels,) the cell that holds each pixel.
        weight: (pixels,) how far along its cell each pixel lies, 0-1.
        starts: (n,) first pixel of each cell, and the number of pixels at the end.
    """

    at_px: Floats
    cell: Ints
    weight: Float32s
    starts: Ints

    @classmethod
    def of(cls, at_px: Floats, pixels: int) -> NodeAxis:
        """Returns the axis of these nodes over that many pixels."""
        at = np.asarray(at_px, np.float64)
        index = np.arange(pixels)
        cell = np.clip(np.searchsorted(at, index, side="right") - 1, 0, len(at) - 2)
        weight = (index - at[cell]) / (at[cell + 1] - at[cell])
        starts = np.searchsorted(cell, np.arange(len(at)))
        return cls(at, cell, weight.astype(np.float32), starts)

    @classmethod
    def pixels(cls, pixels: int) -> NodeAxis:
        """Returns the axis with a node on every pixel."""
        return cls.of(np.arange(max(pixels, 2), dtype=np.float64), pixels)

    def halved(self, pixels: int) -> NodeAxis:
        """Returns the axis with a node in the middle of every cell."""
        both = np.empty(2 * len(self.at_px) - 1)
        both[::2] = self.at_px
        both[1::2] = (self.at_px[1:] + self.at_px[:-1]) / 2.0
        return NodeAxis.of(both, pixels)


def post_axis(first_px: float, spacing_px: float, pixels: int) -> NodeAxis:
    """Returns nodes on DEM posts, the posts subdivided to at most 20 pixels.

    Args:
        first_px: Grid coordinate of the first post.
        spacing_px: Grid pixels between posts (above 0: increasing with the grid).
        pixels: Number of pixels along the axis. Beyond the posts the lattice goes on.
    """
    if spacing_px < LEAST_NODE_PX:
        return NodeAxis.pixels(pixels)
    step = spacing_px / np.ceil(spacing_px / MAX_NODE_PX)
    low = np.floor((0.0 - first_px) / step)
    high = max(np.ceil((pixels - 1 - first_px) / step), low + 1)
    return NodeAxis.of(first_px + step * np.arange(low, high + 1), pixels)


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
        exact: (rows − 1, columns − 1) cells evaluated pixel by pixel.
    """

    view: FrameView
    grid: Grid
    surface: Surface
    columns: NodeAxis
    rows: NodeAxis
    uv: Floats
    horizon: Horizon | None
    hidden_m: Floats
    exact: Bools

    def source_px(self, grid_uv: Floats) -> Floats:
        """Returns the exact source pixels (n, 2) of grid pixels (n, 2); NaN where there is none."""
        xy = self.grid.to_map(np.asarray(grid_uv, float).reshape(-1, 2))
        return self.view.to_pixel(xy[:, 0], xy[:, 1], self.surface.height_m(xy[:, 0], xy[:, 1]))

    def strips(self) -> Iterator[tuple[slice, Float32s]]:
        """Yields row slices and their (rows, width, 2) source pixels, top to bottom."""
        lines = self._spread(np.where(np.isfinite(self.uv), self.uv, OUTSIDE_PX))
        for part in self._slices():
            strip = self._between(lines, part).reshape(part.stop - part.start, -1, 2)
            self._fill_exact(strip, part)
            yield part, strip

    def maps(self, rows: slice) -> tuple[Float32s, Float32s]:
        """Returns (rows, width) source x and y of the output pixels in a slice of rows."""
        out = np.empty((self.grid.height, self.grid.width, 2), np.float32)
        for part, strip in self.strips():
            out[part] = strip
        return out[rows, :, 0].copy(), out[rows, :, 1].copy()

    def occluded(self) -> Bools | None:
        """Returns (height, width) True where the ground in between hides the pixel's ground.

        ``None`` where nothing is hidden.
        """
        if self.horizon is None or not np.any(self.hidden_m > 0):
            return None
        nodes = np.where(np.isfinite(self.hidden_m), self.hidden_m, -1.0)
        lines, rims = self._spread(nodes[..., None]), _rims(nodes > 0)
        out = np.empty((self.grid.height, self.grid.width), np.bool_)
        for part in self._slices():
            out[part] = self._between(lines, part) > 0
            row, col = self._pixels_of(rims, part)
            if len(row):
                xy = self.grid.to_map(np.stack([col, row + part.start], axis=1))
                x, y = xy[:, 0], xy[:, 1]
                hidden = self.horizon.hidden_by_m(x, y, self.surface.height_m(x, y)) > 0
                out[part][row, col] = hidden
        return out

    def inside(self, strip: Float32s) -> Bools:
        """Returns (rows, width) True where source pixels lie within the frame."""
        w, h = self.view.camera.width_px, self.view.camera.height_px
        return cv2.inRange(strip, (0.0, 0.0), (w - 1.0, h - 1.0)).astype(np.bool_)

    def _spread(self, nodes: Floats) -> Float32s:
        """Returns the node rows interpolated along x: (node rows, width · channels)."""
        n = nodes.astype(np.float32)
        i, w = self.columns.cell, self.columns.weight[None, :, None]
        lines = n[:, i]
        lines += (n[:, i + 1] - lines) * w
        return np.ascontiguousarray(lines.reshape(len(n), -1))

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

    def _slices(self) -> Iterator[slice]:
        for first in range(0, self.grid.height, STRIP_ROWS):
            yield slice(first, min(first + STRIP_ROWS, self.grid.height))

    def _fill_exact(self, strip: Float32s, part: slice) -> None:
        """Evaluates the pixels of a strip's exact cells one by one."""
        row, col = self._pixels_of(self.exact, part)
        if not len(row):
            return
        uv = self.source_px(np.stack([col, row + part.start], axis=1))
        strip[row, col] = np.where(np.isfinite(uv), uv, OUTSIDE_PX)

    def _pixels_of(self, cells: Bools, part: slice) -> tuple[Ints, Ints]:
        """Returns row in the slice and column of the pixels in marked cells."""
        lines = cells[self.rows.cell[part]]
        if not lines.any():
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        row, col = np.nonzero(lines[:, self.columns.cell])
        return row, col


def build_map(view: FrameView, grid: Grid, dem_resampling: DemResampling) -> BackwardMap:
    """Returns the backward map of a frame onto a grid, nodes on the terrain's posts."""
    surface = surface_of(view.terrain, dem_resampling)
    columns, rows = _axes(view.terrain, grid)
    if dem_resampling == "cubic" and isinstance(view.terrain, GridTerrain):
        columns, rows, (uv, distance, z), bent = _subdivide(view, grid, surface, columns, rows)
    else:
        uv, distance, z = _evaluate(view, grid, surface, columns, rows)
        bent = np.zeros((len(z) - 1, z.shape[1] - 1), np.bool_)
    exact = bent | _mixed_cells(uv) | (_deviation_px(uv, distance) > LINEAR_TOLERANCE_PX)
    horizon, hidden = _hidden(view, grid, columns, rows, z)
    exact = _worth(exact, view, uv)
    return BackwardMap(view, grid, surface, columns, rows, uv, horizon, hidden, exact)


def _subdivide(
    view: FrameView, grid: Grid, surface: Surface, columns: NodeAxis, rows: NodeAxis
) -> tuple[NodeAxis, NodeAxis, Nodes, Bools]:
    """Returns axes halved until few cells deviate, their nodes, and which cells still deviate.

    Halfway between two posts a cubic may cross its chord, so each level is judged by the next.
    """
    columns, rows = columns.halved(grid.width), rows.halved(grid.height)
    nodes = _evaluate(view, grid, surface, columns, rows)
    for _ in range(MAX_HALVINGS):
        if _smallest(columns, rows) < 2.0 * LEAST_NODE_PX:
            columns, rows = NodeAxis.pixels(grid.width), NodeAxis.pixels(grid.height)
            nodes = _evaluate(view, grid, surface, columns, rows)
            return columns, rows, nodes, np.zeros_like(nodes[1][1:, 1:], np.bool_)
        finer = columns.halved(grid.width), rows.halved(grid.height)
        fine = _evaluate(view, grid, surface, *finer)
        off = _halving_deviation_px(nodes[0], fine[0])
        bent = _worth(off > CUBIC_TOLERANCE_PX, view, nodes[0])
        (columns, rows), nodes = finer, fine
        if bent.mean() <= FEW:
            break
    return columns, rows, nodes, np.repeat(np.repeat(bent, 2, axis=0), 2, axis=1)


def _smallest(columns: NodeAxis, rows: NodeAxis) -> float:
    return float(min(np.diff(columns.at_px).min(), np.diff(rows.at_px).min()))


def _axes(terrain: object, grid: Grid) -> tuple[NodeAxis, NodeAxis]:
    if not isinstance(terrain, GridTerrain):
        columns = post_axis(0.0, MAX_NODE_PX, grid.width)
        return columns, post_axis(0.0, MAX_NODE_PX, grid.height)
    col0 = (terrain.x0 - grid.x0_m) / grid.gsd_m
    row0 = (grid.y0_m - terrain.y0) / grid.gsd_m
    columns = post_axis(col0, abs(terrain.dx) / grid.gsd_m, grid.width)
    return columns, post_axis(row0, abs(terrain.dy) / grid.gsd_m, grid.height)


def _evaluate(
    view: FrameView, grid: Grid, surface: Surface, columns: NodeAxis, rows: NodeAxis
) -> Nodes:
    """Returns source pixels (r, c, 2), slant ranges (r, c) and heights (r, c) at the nodes."""
    x = grid.x0_m + grid.gsd_m * columns.at_px
    y = grid.y0_m - grid.gsd_m * rows.at_px
    uv = np.empty((len(y), len(x), 2))
    distance, z = np.empty((len(y), len(x))), np.empty((len(y), len(x)))
    rows_at_once = max(1, NODES_AT_ONCE // len(x))
    for first in range(0, len(y), rows_at_once):
        part = np.s_[first : first + rows_at_once]
        heights = surface.lattice_m(x, y[part])
        xs, ys = np.meshgrid(x, y[part])
        there, away = view.to_pixel_and_range(xs.ravel(), ys.ravel(), heights.ravel())
        uv[part], distance[part] = there.reshape(*heights.shape, 2), away.reshape(heights.shape)
        z[part] = heights
    return uv, distance, z


def _deviation_px(uv: Floats, distance: Floats) -> Floats:
    """Returns (r − 1, c − 1) how far linear interpolation goes astray in each cell, pixels.

    Halfway along a straight line in space from depth a to depth b, a projection stands
    (b − a)/(a + b)/2 of its length away from halfway in the image.
    """
    worst = np.zeros((uv.shape[0] - 1, uv.shape[1] - 1))
    corner = [np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]]
    for one, two in ((0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (1, 2)):
        a, b = distance[corner[one]], distance[corner[two]]
        move = np.hypot(*np.moveaxis(uv[corner[one]] - uv[corner[two]], -1, 0))
        worst = np.fmax(worst, np.abs(a - b) / (2.0 * (a + b)) * move)
    return worst


def _halving_deviation_px(coarse: Floats, fine: Floats) -> Floats:
    """Returns (r − 1, c − 1) how far interpolated coarse nodes stray from the fine, pixels."""
    guess = np.empty_like(fine)
    guess[::2, ::2] = coarse
    guess[1::2, ::2] = (coarse[1:] + coarse[:-1]) / 2.0
    guess[:, 1::2] = (guess[:, :-1:2] + guess[:, 2::2]) / 2.0
    off = np.nan_to_num(np.hypot(*np.moveaxis(guess - fine, -1, 0)))
    edges_y = np.maximum(off[1::2, :-1:2], off[1::2, 2::2])
    edges_x = np.maximum(off[:-1:2, 1::2], off[2::2, 1::2])
    return np.asarray(np.maximum(np.maximum(edges_y, edges_x), off[1::2, 1::2]))


def _mixed_cells(uv: Floats) -> Bools:
    """Returns the cells of which some but not all nodes have a source pixel."""
    ok = np.isfinite(uv[..., 0])
    count = ok[:-1, :-1].astype(int) + ok[1:, :-1] + ok[:-1, 1:] + ok[1:, 1:]
    return np.asarray((count > 0) & (count < 4))


def _worth(exact: Bools, view: FrameView, uv: Floats) -> Bools:
    """Drops exact cells that lie wholly beside the frame."""
    if not exact.any():
        return exact
    w, h = view.camera.width_px, view.camera.height_px
    corners = np.stack([uv[:-1, :-1], uv[1:, :-1], uv[:-1, 1:], uv[1:, 1:]])
    low = np.fmin.reduce(corners, axis=0)
    high = np.fmax.reduce(corners, axis=0)
    margin = np.fmax(high - low, 2.0)
    near = (high + margin >= 0).all(axis=-1) & (low - margin <= (w - 1, h - 1)).all(axis=-1)
    return np.asarray(exact & near)


def _hidden(
    view: FrameView, grid: Grid, columns: NodeAxis, rows: NodeAxis, z: Floats
) -> tuple[Horizon | None, Floats]:
    if not isinstance(view.terrain, GridTerrain):
        return None, np.zeros_like(z)
    x = np.broadcast_to(grid.x0_m + grid.gsd_m * columns.at_px, z.shape).ravel()
    y = np.broadcast_to((grid.y0_m - grid.gsd_m * rows.at_px)[:, None], z.shape).ravel()
    horizon = sweep_horizon(view, view.terrain, np.stack([x, y], axis=1))
    if horizon is None:
        return None, np.zeros_like(z)
    return horizon, horizon.hidden_by_m(x, y, z.ravel()).reshape(z.shape)


def _rims(hidden: Bools) -> Bools:
    """Returns the cells at the rim of hidden ground, and their neighbours."""
    corners = np.stack([hidden[:-1, :-1], hidden[1:, :-1], hidden[:-1, 1:], hidden[1:, 1:]])
    rim = corners.any(axis=0) & ~corners.all(axis=0)
    wide = np.pad(rim, 1)
    rows = wide[:-2] | wide[1:-1] | wide[2:]
    return np.asarray(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:])
