"""Builds backward maps: nodes on DEM posts, subdivided to at most 20 output pixels."""

from __future__ import annotations

import numpy as np

from onboard.place.backward_map import BackwardMap
from onboard.place.direct_map import DirectMap
from onboard.place.grid import Grid
from onboard.place.horizon import Horizon, sweep_horizon
from onboard.place.node_axis import MAX_NODE_PX, NodeAxis, post_axis
from onboard.place.ortho_view import FrameView
from onboard.place.post_surface import (
    CubicSurface,
    DemResampling,
    Surface,
    surface_of,
)
from onboard.place.surface import GridTerrain
from onboard.records import Bools, Floats

Nodes = tuple[Floats, Floats, Floats]
"""Source pixels (r, c, 2), depths (r, c), heights (r, c)."""

LINEAR_TOLERANCE_PX = 0.25
"""Cells that would deviate more on a bilinear surface are evaluated pixel by pixel."""
NOTHING_PX = 1.0e-3
"""What a direct map lacks at the nodes is left out below this."""
NODES_AT_ONCE = 60_000


def build_map(view: FrameView, grid: Grid, dem_resampling: DemResampling) -> BackwardMap:
    """Returns the backward map of a frame onto a grid, nodes on the terrain's posts."""
    surface = surface_of(view.terrain, dem_resampling)
    columns, rows = _axes(view.terrain, grid)
    uv, depth, z = _evaluate(view, grid, surface, columns, rows)
    exact = _mixed_cells(uv)
    direct, rest = None, None
    if isinstance(surface, CubicSurface):
        direct, rest = _direct(view, grid, surface, columns, rows, uv, z)
        x, y = (0.5 * (axis.at_px[1:] + axis.at_px[:-1]) for axis in (columns, rows))
        exact |= surface.by_voids(grid.x0_m + grid.gsd_m * x, grid.y0_m - grid.gsd_m * y)
        exact |= direct is None  # a fisheye is no pinhole: every pixel by itself
    else:
        exact |= _deviation_px(uv, depth) > LINEAR_TOLERANCE_PX
    horizon, hidden = _hidden(view, grid, columns, rows, z)
    near = _worth(np.ones_like(exact), view, uv)
    exact &= near
    return BackwardMap(
        view, grid, surface, columns, rows, uv, horizon, hidden, near, exact, direct, rest
    )


def _direct(
    view: FrameView,
    grid: Grid,
    surface: CubicSurface,
    columns: NodeAxis,
    rows: NodeAxis,
    uv: Floats,
    z: Floats,
) -> tuple[DirectMap | None, Floats | None]:
    """Returns the direct map, and what it lacks at the nodes."""
    x = grid.x0_m + grid.gsd_m * np.arange(grid.width, dtype=np.float64)
    y = grid.y0_m - grid.gsd_m * np.arange(grid.height, dtype=np.float64)
    direct = DirectMap.of(view, grid, surface.lines(x, y))
    if direct is None:
        return None, None
    at_x, at_y = columns.at_px.astype(np.float32), rows.at_px.astype(np.float32)
    by_column = direct.column[:, -1:] / np.float32(max(grid.width - 1, 1)) * at_x
    start = direct.row[:, :1]
    by_row = start + (direct.row[:, -1:] - start) / np.float32(max(grid.height - 1, 1)) * at_y
    height = (z - direct.lines.base_m).astype(np.float32)
    rest = uv - direct.at(by_row[:, :, None], by_column[:, None, :], height)
    rest[
        ~(np.isfinite(rest).all(axis=-1) & view.camera.inside(uv.reshape(-1, 2)).reshape(z.shape))
    ] = 0
    return direct, (rest if np.abs(rest).max(initial=0.0) > NOTHING_PX else None)


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
    """Returns source pixels (r, c, 2), depths (r, c) and heights (r, c) at the nodes."""
    x = grid.x0_m + grid.gsd_m * columns.at_px
    y = grid.y0_m - grid.gsd_m * rows.at_px
    uv = np.empty((len(y), len(x), 2))
    depth, z = np.empty((len(y), len(x))), np.empty((len(y), len(x)))
    rows_at_once = max(1, NODES_AT_ONCE // len(x))
    for first in range(0, len(y), rows_at_once):
        part = np.s_[first : first + rows_at_once]
        heights = surface.lattice_m(x, y[part])
        xs, ys = np.meshgrid(x, y[part])
        there, deep = view.to_pixel_and_depth(xs.ravel(), ys.ravel(), heights.ravel())
        uv[part], depth[part] = there.reshape(*heights.shape, 2), deep.reshape(heights.shape)
        z[part] = heights
    return uv, depth, z


def _deviation_px(uv: Floats, depth: Floats) -> Floats:
    """Returns (r − 1, c − 1) how far linear interpolation goes astray in each cell, pixels.

    Halfway along a straight line in space from depth a to depth b, a projection stands
    (b − a)/(a + b)/2 of its length away from halfway in the image.
    """
    worst = np.zeros((uv.shape[0] - 1, uv.shape[1] - 1))
    u, v = np.ascontiguousarray(np.moveaxis(uv, -1, 0))
    corner = [np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]]
    for one, two in ((0, 1), (0, 2), (1, 3), (2, 3), (0, 3), (1, 2)):
        a, b = depth[corner[one]], depth[corner[two]]
        du, dv = u[corner[one]] - u[corner[two]], v[corner[one]] - v[corner[two]]
        share = np.abs(a - b) / (a + b)
        worst = np.fmax(worst, share * share * (du * du + dv * dv))
    return np.asarray(0.5 * np.sqrt(worst))


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
