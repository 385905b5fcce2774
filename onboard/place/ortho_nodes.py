"""Builds backward maps: nodes on DEM posts, subdivided where the surface asks for it."""

from __future__ import annotations

import numpy as np

from onboard.place.backward_map import BackwardMap
from onboard.place.grid import Grid
from onboard.place.horizon import Horizon, sweep_horizon
from onboard.place.node_axis import LEAST_NODE_PX, MAX_NODE_PX, NodeAxis, post_axis
from onboard.place.ortho_view import FrameView
from onboard.place.post_surface import DemResampling, Surface, surface_of
from onboard.place.surface import GridTerrain
from onboard.records import Bools, Floats

Nodes = tuple[Floats, Floats, Floats]
"""Source pixels (r, c, 2), slant ranges (r, c), heights (r, c)."""

LINEAR_TOLERANCE_PX = 0.25
"""Cells that would deviate more on a bilinear surface are evaluated pixel by pixel."""
CUBIC_TOLERANCE_PX = 0.1
"""Posts are subdivided until the map of a cubic surface deviates no more in most cells; the others
are evaluated pixel by pixel."""
MAX_HALVINGS = 3
NODES_AT_ONCE = 60_000
FEW = 0.15


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
    near = _worth(np.ones_like(exact), view, uv)
    exact &= near
    return BackwardMap(view, grid, surface, columns, rows, uv, horizon, hidden, near, exact)


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
