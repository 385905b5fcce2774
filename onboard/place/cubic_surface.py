"""The surface between DEM posts as GDAL has it: Keys' cubic convolution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onboard.place.surface import GridTerrain
from onboard.records import Floats

KEYS_A = -0.5


def keys_weights(t: Floats) -> Floats:
    """Returns (n, 4) weights of the posts −1, 0, 1, 2 at fractions t (n,) between posts 0 and 1.

    Cubic convolution with a = −½ (Keys 1981, IEEE Trans. ASSP 29, eq. 4).
    """
    a = KEYS_A
    d = np.stack([1.0 + t, t, 1.0 - t, 2.0 - t], axis=-1)
    near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    far = ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    return np.asarray(np.where(d <= 1.0, near, far))


def cubic_heights(terrain: GridTerrain) -> Callable[[Floats, Floats], Floats]:
    """Returns the height function of the cubic surface through a terrain's posts.

    Posts that are void or beyond the edge are left out and the rest weighted up, as GDAL does;
    the height is NaN where the bilinear one is.
    """
    posts = np.pad(np.asarray(terrain.z, np.float64), 2, constant_values=np.nan)
    whole = bool(np.isfinite(terrain.z).all())

    def height_m(x_m: Floats, y_m: Floats) -> Floats:
        col, row = (x_m - terrain.x0) / terrain.dx, (y_m - terrain.y0) / terrain.dy
        ny, nx = terrain.z.shape
        inside = (col >= 0) & (col <= nx - 1) & (row >= 0) & (row <= ny - 1)
        j = np.clip(np.floor(np.where(inside, col, 0)).astype(np.int64), 0, nx - 2)
        i = np.clip(np.floor(np.where(inside, row, 0)).astype(np.int64), 0, ny - 2)
        wx, wy = keys_weights(col - j), keys_weights(row - i)
        total, weight = np.zeros(len(col)), np.zeros(len(col))
        for dy in range(4):
            for dx in range(4):
                z = posts[i + dy + 1, j + dx + 1]
                w = wy[:, dy] * wx[:, dx]
                known = np.isfinite(z)
                total += np.where(known, z, 0.0) * w
                weight += np.where(known, w, 0.0)
        ok = inside & (weight > 0.5)
        out = np.where(ok, total / np.where(ok, weight, 1.0), np.nan)
        if not whole:
            out = np.where(np.isfinite(terrain.height_m(x_m, y_m)), out, np.nan)
        return np.asarray(out)

    return height_m
