"""What the ground is: the protocol that rays meet, a plane, and a grid of posts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from onboard.records import Floats, HeightDatum

TILE_POSTS = 16
"""Posts to a side of the tiles whose highest post lets rays take long steps."""


class Terrain(Protocol):
    """Ground heights over the map.

    Attributes:
        datum: What heights are above.
        label: Names its bias state: ``dem/<label>/level``.
        sigma_m: σ of a single height.
        level_sigma_m: σ of the level that all heights share.
    """

    @property
    def datum(self) -> HeightDatum:
        """What heights are above."""
        ...

    @property
    def label(self) -> str:
        """Names its bias state."""
        ...

    @property
    def sigma_m(self) -> float:
        """σ of a single height."""
        ...

    @property
    def level_sigma_m(self) -> float:
        """σ of the level that all heights share."""
        ...

    @property
    def is_plane(self) -> bool:
        """Whether all heights are the same."""
        ...

    @property
    def post_m(self) -> float:
        """Spacing of the posts (the smaller one), metres; infinite for a plane."""
        ...

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Map x0, y0, x1, y1 of the outermost posts; infinite for a plane."""
        ...

    @property
    def z_range(self) -> tuple[float, float]:
        """Lowest and highest height."""
        ...

    def height_m(self, x_m: ArrayLike, y_m: ArrayLike) -> Floats:
        """Returns heights at map positions; NaN outside and in voids."""
        ...


@dataclass(frozen=True, slots=True)
class PlaneTerrain:
    """Ground of one height (above the ellipsoid it bends with the Earth)."""

    alt_m: float
    datum: HeightDatum = "ellipsoid"
    sigma_m: float = 0.0
    level_sigma_m: float = 0.0
    label: str = "plane"

    @property
    def is_plane(self) -> bool:
        """True."""
        return True

    @property
    def post_m(self) -> float:
        """Infinite."""
        return float("inf")

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Infinite."""
        inf = float("inf")
        return -inf, -inf, inf, inf

    @property
    def z_range(self) -> tuple[float, float]:
        """The height, twice."""
        return self.alt_m, self.alt_m

    def height_m(self, x_m: ArrayLike, y_m: ArrayLike) -> Floats:
        """Returns the height wherever x and y are finite."""
        return np.asarray(self.alt_m + 0.0 * (np.asarray(x_m, float) + np.asarray(y_m, float)))


@dataclass(frozen=True, slots=True)
class GridTerrain:
    """Ground as posts on a regular north-up grid of the map, bilinear between them.

    Attributes:
        z: (h, w) heights of the posts, NaN where void; row 0 is the northernmost.
        x0: Map x of post [0, 0].
        y0: Map y of post [0, 0].
        dx: Spacing along x, positive.
        dy: Spacing along y, negative.
        datum: What heights are above.
        sigma_m: σ of a single height.
        level_sigma_m: σ of the level that all heights share.
        label: First digits of the file's hash.
        resampled: Whether the file lay in another CRS.
        voids: Number of posts without a height.
    """

    z: Floats
    x0: float
    y0: float
    dx: float
    dy: float
    datum: HeightDatum = "ellipsoid"
    sigma_m: float = 0.0
    level_sigma_m: float = 0.0
    label: str = "grid"
    resampled: bool = False
    voids: int = 0
    z_range: tuple[float, float] = (0.0, 0.0)
    _tops: Floats | None = None
    _steep: Floats | None = None

    def __post_init__(self) -> None:
        z = np.ascontiguousarray(self.z, dtype=np.float64)
        if z.ndim != 2 or min(z.shape) < 2 or self.dx <= 0 or self.dy >= 0:
            raise ValueError(
                f"posts {z.shape} at spacing {self.dx}, {self.dy} are no north-up grid"
            )
        seen = np.isfinite(z)
        known = (float(z[seen].min()), float(z[seen].max())) if seen.any() else (np.nan, np.nan)
        object.__setattr__(self, "z", z)
        object.__setattr__(self, "z_range", known)
        object.__setattr__(self, "voids", int(z.size - seen.sum()))
        object.__setattr__(self, "_tops", _tile_maxima(z))
        object.__setattr__(self, "_steep", _tile_maxima(_steepness(z, self.dx, self.dy)))

    @property
    def is_plane(self) -> bool:
        """False."""
        return False

    @property
    def post_m(self) -> float:
        """The smaller spacing."""
        return min(self.dx, -self.dy)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Map x0, y0, x1, y1 of the outermost posts."""
        rows, cols = self.z.shape
        return (
            self.x0,
            self.y0 + (rows - 1) * self.dy,
            self.x0 + (cols - 1) * self.dx,
            self.y0,
        )

    @property
    def tile_m(self) -> float:
        """Side of the tiles of ``around``."""
        return TILE_POSTS * self.post_m

    def height_m(self, x_m: ArrayLike, y_m: ArrayLike) -> Floats:
        """Returns bilinear heights at map positions; NaN outside and in voids."""
        rows, cols = self.z.shape
        col = (np.asarray(x_m, float) - self.x0) / self.dx
        row = (np.asarray(y_m, float) - self.y0) / self.dy
        inside = (col >= 0) & (col <= cols - 1) & (row >= 0) & (row <= rows - 1)
        all_inside = bool(inside.all())
        if not all_inside:
            col, row = np.where(inside, col, 0.0), np.where(inside, row, 0.0)
        j = np.minimum(col.astype(np.int64), cols - 2)
        i = np.minimum(row.astype(np.int64), rows - 2)
        u, v = col - j, row - i
        flat, at = self.z.ravel(), i * cols + j
        north = flat[at] * (1 - u) + flat[at + 1] * u
        south = flat[at + cols] * (1 - u) + flat[at + cols + 1] * u
        height = north * (1 - v) + south * v
        return np.asarray(height if all_inside else np.where(inside, height, np.nan))

    def around(self, x_m: Floats, y_m: Floats) -> tuple[Floats, Floats]:
        """Returns the highest post and the steepest slope within one tile side of positions.

        −∞ where there are no posts.
        """
        assert self._tops is not None  # noqa: S101
        assert self._steep is not None  # noqa: S101
        rows, cols = self._tops.shape
        j = (x_m - self.x0) / (self.dx * TILE_POSTS) + 1.0
        i = (y_m - self.y0) / (self.dy * TILE_POSTS) + 1.0
        j = np.clip(j, 0.0, cols - 1.0).astype(np.int64)
        i = np.clip(i, 0.0, rows - 1.0).astype(np.int64)
        at = i * cols + j
        return self._tops.ravel()[at], self._steep.ravel()[at]


def _steepness(z: Floats, dx: float, dy: float) -> Floats:
    """Returns for each post the steepest slope of the four cells around it; NaN beside voids."""
    rows, cols = z.shape
    cell = np.full((rows + 1, cols + 1), -np.inf)
    with np.errstate(invalid="ignore"):
        gx, gy = np.abs(np.diff(z, axis=1)) / dx, np.abs(np.diff(z, axis=0)) / -dy
        both = np.maximum(gx[:-1], gx[1:]) ** 2 + np.maximum(gy[:, :-1], gy[:, 1:]) ** 2
    cell[1:-1, 1:-1] = np.where(np.isfinite(both), np.sqrt(both), -np.inf)
    tall = np.maximum(cell[:-1], cell[1:])
    return np.asarray(np.maximum(tall[:, :-1], tall[:, 1:]))


def _tile_maxima(z: Floats) -> Floats:
    """Returns the highest value of each tile and its eight neighbours, with a rim of one tile."""
    rows, cols = (-(-n // TILE_POSTS) for n in z.shape)
    padded = np.full((rows * TILE_POSTS, cols * TILE_POSTS), -np.inf)
    padded[: z.shape[0], : z.shape[1]] = np.where(np.isfinite(z), z, -np.inf)
    tiles = padded.reshape(rows, TILE_POSTS, cols, TILE_POSTS).max(axis=(1, 3))
    rim = np.full((rows + 4, cols + 4), -np.inf)
    rim[2:-2, 2:-2] = tiles
    tall = np.maximum(np.maximum(rim[:-2], rim[1:-1]), rim[2:])
    return np.asarray(np.maximum(np.maximum(tall[:, :-2], tall[:, 1:-1]), tall[:, 2:]))
