"""Heights between DEM posts, at points and on lattices: bilinear, or Keys' cubic as in GDAL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from onboard.place.surface import GridTerrain, Terrain
from onboard.records import Bools, Floats, Ints

DemResampling = Literal["linear", "cubic"]

KEYS_A = -0.5
HALF = 0.5
"""Least share of the cubic's weight that must fall on posts with a height."""


class Surface(Protocol):
    """A continuous ground."""

    def height_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns heights at points; NaN outside and in voids."""
        ...

    def lattice_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns (len(y), len(x)) heights at all pairs of map x and y."""
        ...


def surface_of(terrain: Terrain, resampling: DemResampling) -> Surface:
    """Returns the surface of a terrain; the cubic one only where it has posts."""
    if isinstance(terrain, GridTerrain):
        return CubicSurface(terrain) if resampling == "cubic" else LinearSurface(terrain)
    return AnySurface(terrain)


@dataclass(frozen=True)
class AnySurface:
    """The surface of a terrain without posts."""

    terrain: Terrain

    def height_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns heights at points."""
        return self.terrain.height_m(x_m, y_m)

    def lattice_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns heights at all pairs of map x and y."""
        x, y = np.meshgrid(x_m, y_m)
        return self.terrain.height_m(x.ravel(), y.ravel()).reshape(x.shape)


@dataclass(frozen=True)
class LinearSurface:
    """Bilinear between posts: the surface that rays meet."""

    terrain: GridTerrain

    def height_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns heights at points."""
        return self.terrain.height_m(x_m, y_m)

    def lattice_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns heights at all pairs of map x and y, one axis after the other."""
        t = self.terrain
        j, u, in_x = _place((np.asarray(x_m) - t.x0) / t.dx, t.z.shape[1])
        i, v, in_y = _place((np.asarray(y_m) - t.y0) / t.dy, t.z.shape[0])
        rows = t.z[i] * (1 - v)[:, None] + t.z[i + 1] * v[:, None]
        out = rows[:, j] * (1 - u) + rows[:, j + 1] * u
        return _masked(out, in_y, in_x)


@dataclass(frozen=True)
class CubicSurface:
    """Keys' cubic convolution (a = −½) between posts.

    Posts that are void or beyond the edge are left out and the rest weighted up, as GDAL does;
    the height is NaN where the bilinear one is.
    """

    terrain: GridTerrain

    def height_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns heights at points."""
        t = self.terrain
        j, u, in_x = _place((x_m - t.x0) / t.dx, t.z.shape[1])
        i, v, in_y = _place((y_m - t.y0) / t.dy, t.z.shape[0])
        wx, wy = keys_weights(u), keys_weights(v)
        posts, known = self._padded()
        total, weight = np.zeros(len(j)), np.zeros(len(j))
        for dy in range(4):
            for dx in range(4):
                w = wy[:, dy] * wx[:, dx]
                total += posts[i + dy + 1, j + dx + 1] * w
                weight += known[i + dy + 1, j + dx + 1] * w
        out = _ratio(total, weight)
        out[~(in_x & in_y)] = np.nan
        if t.voids:
            out[np.isnan(t.height_m(x_m, y_m))] = np.nan
        return out

    def lattice_m(self, x_m: Floats, y_m: Floats) -> Floats:
        """Returns heights at all pairs of map x and y, one axis after the other."""
        t = self.terrain
        j, u, in_x = _place((np.asarray(x_m) - t.x0) / t.dx, t.z.shape[1])
        i, v, in_y = _place((np.asarray(y_m) - t.y0) / t.dy, t.z.shape[0])
        wx, wy = keys_weights(u), keys_weights(v)

        def convolved(grid: Floats) -> Floats:
            rows = np.zeros((len(i), grid.shape[1]))
            out = np.zeros((len(i), len(j)))
            for k in range(4):
                rows += grid[i + k + 1] * wy[:, k, None]
            for k in range(4):
                out += rows[:, j + k + 1] * wx[:, k]
            return out

        posts, known = self._padded()
        out = _masked(_ratio(convolved(posts), convolved(known)), in_y, in_x)
        if t.voids:
            out[np.isnan(LinearSurface(t).lattice_m(x_m, y_m))] = np.nan
        return out

    def lines(self, x_m: Floats, y_m: Floats) -> CubicLines:
        """Returns the heights on a lattice as they are made from.

        Weights that fall beyond the edge go to the posts inside, along each axis by itself. Beside
        voids, where weights are no product of two axes, the heights are wrong: see ``by_voids``.
        """
        t = self.terrain
        j, u, in_x = _place((np.asarray(x_m) - t.x0) / t.dx, t.z.shape[1])
        i, v, in_y = _place((np.asarray(y_m) - t.y0) / t.dy, t.z.shape[0])
        wx, column = _inside(keys_weights(u), j, t.z.shape[1])
        wy, row = _inside(keys_weights(v), i, t.z.shape[0])
        first, last = int(row.min(initial=0)), int(row.max(initial=0))
        base = float(np.mean(t.z_range))
        posts = np.nan_to_num(t.z[first : last + 1] - base).astype(np.float32)
        lines = np.zeros((len(posts), len(j)), np.float32)
        for k in range(4):
            lines += posts[:, column[:, k]] * wx[:, k].astype(np.float32)
        lines[:, ~in_x] = np.nan
        return CubicLines(lines, base, row - first, wy.astype(np.float32), i, in_y)

    def by_voids(self, x_m: Floats, y_m: Floats) -> Bools:
        """Returns (len(y), len(x)) True where a post that the cubic takes is void."""
        t = self.terrain
        if not t.voids:
            return np.zeros((len(y_m), len(x_m)), np.bool_)
        near = np.lib.stride_tricks.sliding_window_view(np.pad(np.isnan(t.z), (1, 2)), (4, 4))
        touched = np.asarray(near.any(axis=(2, 3)))
        j, _, _ = _place((np.asarray(x_m) - t.x0) / t.dx, t.z.shape[1])
        i, _, _ = _place((np.asarray(y_m) - t.y0) / t.dy, t.z.shape[0])
        return np.asarray(touched[np.ix_(i, j)])

    def _padded(self) -> tuple[Floats, Floats]:
        """Returns heights (0 where void) and 1 where there is one, with a rim of two posts."""
        known = np.pad(np.isfinite(self.terrain.z).astype(np.float64), 2)
        return np.pad(np.nan_to_num(self.terrain.z), 2), known


@dataclass(frozen=True)
class CubicLines:
    """Heights on a lattice, convolved along x, to be convolved along y strip by strip.

    Attributes:
        lines: (posts, width) heights above ``base_m`` along each row of posts.
        base_m: What they are above.
        row: (height, 4) which lines each lattice row is made from.
        weight: (height, 4) with which weights.
        cell: (height,) equal for rows that are made from the same lines, in runs.
        inside: (height,) False where the row lies beyond the posts.
    """

    lines: NDArray[np.float32]
    base_m: float
    row: Ints
    weight: NDArray[np.float32]
    cell: Ints
    inside: Bools

    def between(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Returns (rows, cols) heights above ``base_m``; NaN beyond the posts."""
        out = np.empty((rows.stop - rows.start, cols.stop - cols.start), np.float32)
        cells = self.cell[rows]
        starts = np.flatnonzero(np.diff(cells, prepend=cells[0] - 1))
        for a, b in zip(starts, [*starts[1:], len(cells)], strict=True):
            at = rows.start + a
            np.matmul(
                self.weight[at : rows.start + b], self.lines[self.row[at], cols], out=out[a:b]
            )
        out[~self.inside[rows]] = np.nan
        return out


def _inside(weights: Floats, before: Ints, posts: int) -> tuple[Floats, Ints]:
    """Returns weights (n, 4) of posts that are there, weighted up, and which posts (n, 4)."""
    post = before[:, None] + np.arange(-1, 3)
    there = (post >= 0) & (post < posts)
    kept = np.where(there, weights, 0.0)
    return kept / kept.sum(axis=1, keepdims=True), np.clip(post, 0, posts - 1)


def keys_weights(t: Floats) -> Floats:
    """Returns (n, 4) weights of the posts −1, 0, 1, 2 at fractions t (n,) between posts 0 and 1.

    Cubic convolution with a = −½ (Keys 1981, IEEE Trans. ASSP 29, eq. 4).
    """
    a = KEYS_A
    d = np.stack([1.0 + t, t, 1.0 - t, 2.0 - t], axis=-1)
    near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    far = ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    return np.asarray(np.where(d <= 1.0, near, far))


def _place(at: Floats, posts: int) -> tuple[Ints, Floats, Bools]:
    """Returns the post before each position, the fraction to the next, and whether it is inside."""
    inside = (at >= 0) & (at <= posts - 1)
    at = np.where(inside, at, 0.0)
    before = np.minimum(at.astype(np.int64), posts - 2)
    return before, at - before, inside


def _ratio(total: Floats, weight: Floats) -> Floats:
    ok = weight > HALF
    return np.where(ok, total / np.where(ok, weight, 1.0), np.nan)


def _masked(heights: Floats, in_y: Bools, in_x: Bools) -> Floats:
    heights[~in_y] = np.nan
    heights[:, ~in_x] = np.nan
    return heights
