"""How errors move a ray where it meets the ground, and the ground point with it.

Every cause of error shifts the ray sideways at the ground: by a vector at right angles to it, two
numbers along the axes e₁, e₂. Moves of the projection centre δC, turns of the ray δθ about world
axes, bends δd and lifts δh of the ground all come down to that shift a, and the ground point to

    δX = B a,    B = P [e₁ e₂],    P = I − d nᵀ / (nᵀd)

(d the unit ray, n the ground's normal), which holds all rows of the table of Jacobians: position
and lever arm (δC), attitude (δθ), boresight (δθ = R δ), time (δC = v δt, δθ = ω δt), pixel and
intrinsics (δd = R ∂ray/∂p δp), DEM height (δh).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onboard.place.surface import Terrain
from onboard.records import Floats, Ints


@dataclass(frozen=True, slots=True)
class Aim:
    """n rays that meet the ground; east, north, up at the projection centre.

    Arrays have one row per axis: in that layout numpy runs several times faster.

    Attributes:
        range_m: (n,) slant range.
        length: (n,) λ: the ground point is C + λ·ray, rays as long as the camera gives them.
        first: (3, n) unit vectors e₁ at right angles to the rays.
        second: (3, n) e₂, so that e₁, e₂ and the ray are right-handed.
        ground: (2, 2, n) B: metres east (row 0) and north (row 1) per metre along e₁ and e₂.
    """

    range_m: Floats
    length: Floats
    first: Floats
    second: Floats
    ground: Floats

    @classmethod
    def of(cls, rays: Floats, range_m: Floats, normal: Floats) -> Aim:
        """Returns the aim of rays (n, 3) over ground with upward normals (3, n)."""
        x, y, z = np.ascontiguousarray(rays.T)
        size = np.sqrt(x * x + y * y + z * z)
        x, y, z = x / size, y / size, z / size
        # An orthonormal basis without branches (Duff et al. 2017).
        sign = np.copysign(1.0, z)
        a = -1.0 / (sign + z)
        b = x * y * a
        first = np.stack([1.0 + sign * x * x * a, sign * b, -sign * x])
        second = np.stack([b, sign + y * y * a, -y])
        facing = normal[0] * x + normal[1] * y + normal[2] * z
        ground = np.empty((2, 2, len(x)))
        for k, e in enumerate((first, second)):
            rise = (normal[0] * e[0] + normal[1] * e[1] + normal[2] * e[2]) / facing
            ground[0, k] = e[0] - x * rise
            ground[1, k] = e[1] - y * rise
        return cls(range_m, range_m / size, first, second, ground)

    def take(self, i: Ints) -> Aim:
        """Returns the aim of the rays at these indices."""
        return Aim(
            self.range_m[i], self.length[i], self.first[:, i], self.second[:, i],
            self.ground[:, :, i],
        )  # fmt: skip

    def along(self, axis: int, metres: Floats) -> Floats:
        """Returns the shift (2, n) by a move along a world axis (0 east, 1 north, 2 up)."""
        return np.stack([self.first[axis] * metres, self.second[axis] * metres])

    def about(self, axis: int, radians: Floats) -> Floats:
        """Returns the shift (2, n) by a turn about a world axis."""
        far = self.range_m * radians
        return np.stack([self.second[axis] * far, self.first[axis] * -far])

    def move(self, enu_m: Floats) -> Floats:
        """Returns the shift (2, n) by moves (3, n) of the projection centre."""
        return np.stack([_dot(self.first, enu_m), _dot(self.second, enu_m)])

    def turn(self, rotvec: Floats) -> Floats:
        """Returns the shift (2, n) by turns (3, n) of the rays about world axes, radians."""
        return np.stack(
            [self.range_m * _dot(self.second, rotvec), -self.range_m * _dot(self.first, rotvec)]
        )

    def bend(self, ray: Floats) -> Floats:
        """Returns the shift (2, n) by changes (3, n) of the rays, in units of the rays given."""
        return np.stack([self.length * _dot(self.first, ray), self.length * _dot(self.second, ray)])

    def lift(self, metres: Floats | float) -> Floats:
        """Returns the shift (2, n) that does what raising the ground does."""
        return np.stack([-self.first[2] * metres, -self.second[2] * metres])

    def moved(self, shift: Floats) -> Floats:
        """Returns the (2, n) east and north displacements of the ground points by shifts (2, n)."""
        return on_ground(self.ground, shift)


def on_ground(ground: Floats, shift: Floats) -> Floats:
    """Returns B a for (2, 2, n) B and (2, n) a."""
    return np.stack(
        [
            ground[0, 0] * shift[0] + ground[0, 1] * shift[1],
            ground[1, 0] * shift[0] + ground[1, 1] * shift[1],
        ]
    )


def ground_normal(
    terrain: Terrain, xy_m: Floats, range_m: Floats, to_enu: Floats, radius_m: Floats, reach: Floats
) -> Floats:
    """Returns the (3, n) upward normals (−h_e, −h_n, 1) of the ground in the camera's ENU.

    Slopes are taken over a baseline of about 1.5 % of the slant range, at least one post. The
    Earth's curvature tilts what lies ``reach`` (2, n; east, north) metres away.

    Args:
        terrain: The ground.
        xy_m: (2, n) map.
        range_m: (n,) slant ranges.
        to_enu: (n, 2, 2) map to true east, north.
        radius_m: (n,) the Earth's.
        reach: (2, n) metres east and north from the projection centre.
    """
    out = np.ones((3, len(range_m)))
    out[:2] = reach / radius_m
    if terrain.is_plane:
        return out
    half = np.maximum(0.0075 * range_m, 0.5 * terrain.post_m)
    x, y = xy_m
    slope = []
    for ahead, back in (
        (terrain.height_m(x + half, y), terrain.height_m(x - half, y)),
        (terrain.height_m(x, y + half), terrain.height_m(x, y - half)),
    ):
        both = (ahead - back) / (2 * half)
        if not np.isfinite(both).all():
            here = terrain.height_m(x, y)
            one = np.where(np.isfinite(ahead), ahead - here, here - back) / half
            both = np.nan_to_num(np.where(np.isfinite(both), both, one))
        slope.append(both)
    out[0] -= to_enu[:, 0, 0] * slope[0] + to_enu[:, 0, 1] * slope[1]
    out[1] -= to_enu[:, 1, 0] * slope[0] + to_enu[:, 1, 1] * slope[1]
    return out


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[0] * b[0] + a[1] * b[1] + a[2] * b[2])
