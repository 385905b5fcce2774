"""Camera models: pixel ↔ ray, with the Jacobians of both, for many points at once.

``opencv`` is OpenCV's pinhole model with radial (k1, k2, k3; rational with k4, k5, k6), tangential
(p1, p2) and thin-prism (s1..s4) terms; ``fisheye`` is OpenCV's equidistant model with k1..k4.
Pixel (0, 0) is the centre of the top-left pixel; camera axes are x right, y down, z forward. Both
are used only where the radial function still grows: beyond, a pixel has no single ray and NaN is
returned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from calibration.errors import RigError

Floats = NDArray[np.float64]
ModelName = Literal["opencv", "fisheye"]

OPENCV_TERMS = ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6", "s1", "s2", "s3", "s4")
FISHEYE_TERMS = ("k1", "k2", "k3", "k4")
INTRINSICS = ("fx_px", "fy_px", "cx_px", "cy_px")

FARTHEST_R = 20.0  # tan 87°: the pinhole model says nothing useful beyond
TABLE_SIZE = 4096
NEWTON_STEPS = 10
CONVERGED = 1e-7
"""Newton's last step: the next one would be of its square, 1e-14."""


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera's intrinsics.

    Attributes:
        model: ``opencv`` or ``fisheye``.
        width_px: Image width.
        height_px: Image height.
        fx_px: Focal length along x.
        fy_px: Focal length along y.
        cx_px: Principal point x.
        cy_px: Principal point y.
        distortion: Coefficients in OpenCV's order (``OPENCV_TERMS`` or ``FISHEYE_TERMS``); those
            left out are 0.
    """

    model: ModelName
    width_px: int
    height_px: int
    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        terms = len(self.terms)
        if len(self.distortion) > terms:
            raise RigError(
                f"{len(self.distortion)} distortion terms, the {self.model} model has {terms}",
                f"its terms are {', '.join(self.terms)}",
            )
        if min(self.fx_px, self.fy_px) <= 0 or min(self.width_px, self.height_px) <= 0:
            raise RigError(
                f"focal length {self.fx_px}, {self.fy_px} px, size {self.width_px}×"
                f"{self.height_px}: all must be positive",
                "COLMAP and CIRN files may carry a negative focal length: turn its sign",
            )
        padded = (*map(float, self.distortion), *([0.0] * (terms - len(self.distortion))))
        object.__setattr__(self, "distortion", padded)

    @property
    def terms(self) -> tuple[str, ...]:
        """The names of the distortion coefficients, in order."""
        return OPENCV_TERMS if self.model == "opencv" else FISHEYE_TERMS

    @property
    def matrix(self) -> Floats:
        """(3, 3) camera matrix K."""
        return np.array(
            [[self.fx_px, 0.0, self.cx_px], [0.0, self.fy_px, self.cy_px], [0.0, 0.0, 1.0]]
        )

    def unproject(self, uv: ArrayLike) -> Floats:
        """Returns the (n, 3) rays of pixels (n, 2): z = 1 (opencv) or unit length (fisheye).

        NaN where the model has no inverse.
        """
        return self.sight(uv).rays()

    def sight(self, uv: ArrayLike) -> Sight:
        """Returns pixels (n, 2) undistorted once, for their rays and both Jacobians."""
        distorted = self._normalised(uv)
        return Sight(self, distorted, self._undistort(distorted))

    def project(self, xyz: ArrayLike) -> Floats:
        """Returns the (n, 2) pixels of camera-frame points (n, 3).

        NaN behind the camera (opencv) and where the model is no longer monotonic.
        """
        p = np.asarray(xyz, dtype=np.float64).reshape(-1, 3)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.model == "opencv":
                xy = np.where(p[:, 2:] > 0, p[:, :2] / p[:, 2:], np.nan)
            else:
                flat = np.hypot(p[:, 0], p[:, 1])
                theta = np.arctan2(flat, p[:, 2])
                near = flat < 1e-300
                scale = np.where(near, 1.0 / p[:, 2], theta / np.where(near, 1.0, flat))
                scale = np.where(near & (p[:, 2] <= 0), np.nan, scale)
                xy = p[:, :2] * scale[:, None]
            xy = np.where(np.hypot(xy[:, 0], xy[:, 1])[:, None] < self.farthest, xy, np.nan)
        return self._pixels(self._distort(xy))

    @property
    def farthest(self) -> float:
        """The undistorted radius (tan θ, or θ for fisheye) up to which the model is monotonic."""
        return _radial_table(self.model, self.distortion)[2]

    def unproject_jacobian(self, uv: ArrayLike) -> Floats:
        """Returns the (n, 3, 2) derivatives of the rays with respect to their pixels."""
        return self.sight(uv).by_pixel()

    def intrinsic_jacobian(self, uv: ArrayLike, names: tuple[str, ...]) -> Floats:
        """Returns the (n, 3, k) derivatives of the rays with respect to intrinsics.

        Args:
            uv: (n, 2) pixels, held fixed.
            names: k of ``fx_px, fy_px, cx_px, cy_px`` and the distortion's terms.
        """
        return self.sight(uv).by_intrinsics(names)

    def scaled(self, width_px: int, height_px: int) -> Camera:
        """Returns the camera of the same image resized to another number of pixels."""
        sx, sy = width_px / self.width_px, height_px / self.height_px
        return replace(
            self,
            width_px=width_px,
            height_px=height_px,
            fx_px=self.fx_px * sx,
            fy_px=self.fy_px * sy,
            cx_px=(self.cx_px + 0.5) * sx - 0.5,
            cy_px=(self.cy_px + 0.5) * sy - 0.5,
        )

    def inside(self, uv: ArrayLike) -> NDArray[np.bool_]:
        """Returns (n,) True where pixels lie in the image."""
        p = np.asarray(uv, dtype=np.float64).reshape(-1, 2)
        return np.asarray(
            (p >= -0.5).all(axis=1)
            & (p[:, 0] <= self.width_px - 0.5)
            & (p[:, 1] <= self.height_px - 0.5)
        )

    # -- the plane between pixel and ray: x/z, y/z (opencv) or θ·direction (fisheye) --

    def _normalised(self, uv: ArrayLike) -> Floats:
        p = np.asarray(uv, dtype=np.float64).reshape(-1, 2)
        return np.asarray((p - [self.cx_px, self.cy_px]) / [self.fx_px, self.fy_px])

    def _pixels(self, xy: Floats) -> Floats:
        return np.asarray(xy * [self.fx_px, self.fy_px] + [self.cx_px, self.cy_px])

    def _undistort(self, target: Floats) -> Floats:
        """Returns undistorted plane coordinates: a radial table, then Newton's method."""
        if not any(self.distortion):
            radius = np.hypot(target[:, 0], target[:, 1])[:, None]
            return np.where(radius < self.farthest, target, np.nan)
        radii, distorted, farthest = _radial_table(self.model, self.distortion)
        rd = np.hypot(target[:, 0], target[:, 1])
        first = np.interp(rd, distorted, radii)
        xy = target * (first / np.where(rd > 0, rd, 1.0))[:, None]
        for _ in range(NEWTON_STEPS):
            miss = self._distort(xy) - target
            inverse = _inverse_2x2(self._distort_jacobian(xy))
            step = inverse[:, :, 0] * miss[:, :1] + inverse[:, :, 1] * miss[:, 1:]
            xy = xy - step
            if not np.nanmax(np.abs(step), initial=0.0) > CONVERGED:
                break
        off = np.abs(self._distort(xy) - target).max(axis=1, initial=0.0)
        good = (off < 1e-9) & (np.hypot(xy[:, 0], xy[:, 1]) < farthest)
        return np.where(good[:, None], xy, np.nan)

    def _distort(self, xy: Floats) -> Floats:
        x, y = xy[:, 0], xy[:, 1]
        r2 = x * x + y * y
        radial = _radial(self.model, self.distortion, r2)
        if self.model == "fisheye":
            return xy * radial[:, None]
        _, _, p1, p2, _, _, _, _, s1, s2, s3, s4 = self.distortion
        xy2 = 2.0 * x * y
        return np.stack(
            [
                x * radial + p1 * xy2 + p2 * (r2 + 2 * x * x) + r2 * (s1 + s2 * r2),
                y * radial + p1 * (r2 + 2 * y * y) + p2 * xy2 + r2 * (s3 + s4 * r2),
            ],
            axis=1,
        )

    def _distort_jacobian(self, xy: Floats) -> Floats:
        """Returns the (n, 2, 2) derivatives of distorted by undistorted plane coordinates."""
        x, y = xy[:, 0], xy[:, 1]
        r2 = x * x + y * y
        radial = _radial(self.model, self.distortion, r2)
        slope = 2.0 * _radial_slope(self.model, self.distortion, r2)  # ∂radial/∂x = slope · x
        p1, p2, s1, s2, s3, s4 = (
            (0.0,) * 6
            if self.model == "fisheye"
            else (*self.distortion[2:4], *self.distortion[8:12])
        )
        prism_x, prism_y = 2.0 * (s1 + 2 * s2 * r2), 2.0 * (s3 + 2 * s4 * r2)
        jac = np.empty((len(xy), 2, 2))
        jac[:, 0, 0] = radial + slope * x * x + 2 * p1 * y + 6 * p2 * x + prism_x * x
        jac[:, 0, 1] = slope * x * y + 2 * p1 * x + 2 * p2 * y + prism_x * y
        jac[:, 1, 0] = slope * x * y + 2 * p1 * x + 2 * p2 * y + prism_y * x
        jac[:, 1, 1] = radial + slope * y * y + 6 * p1 * y + 2 * p2 * x + prism_y * y
        return jac

    def _ray_jacobian(self, xy: Floats) -> Floats:
        """Returns the (n, 3, 2) derivatives of a fisheye's ray by undistorted coordinates."""
        jac = np.zeros((len(xy), 3, 2))
        theta2 = xy[:, 0] ** 2 + xy[:, 1] ** 2
        theta = np.sqrt(theta2)
        small = theta < 1e-4
        safe2 = np.where(small, 1.0, theta2)
        sinc = np.sinc(theta / np.pi)
        # ray = (x·sinc, y·sinc, cos θ); d sinc/dθ / θ = (cos θ − sinc)/θ²
        bend = np.where(small, -1.0 / 3.0, (np.cos(theta) - sinc) / safe2)
        jac[:, :2, :] = xy[:, :, None] * xy[:, None, :] * bend[:, None, None]
        jac[:, 0, 0] += sinc
        jac[:, 1, 1] += sinc
        jac[:, 2, :] = -sinc[:, None] * xy
        return jac

    def _distorted_by(self, name: str, distorted: Floats, xy: Floats) -> Floats:
        """Returns (n, 2), how the distorted target moves per unit of a parameter, pixel fixed."""
        zero = np.zeros(len(xy))
        if name in INTRINSICS:
            axis = 0 if name.endswith("x_px") else 1
            focal = (self.fx_px, self.fy_px)[axis]
            moved = (distorted[:, axis] if name.startswith("f") else zero + 1.0) / -focal
            return np.stack([moved, zero] if axis == 0 else [zero, moved], axis=1)
        if name not in self.terms:
            raise RigError(
                f"covariance_order names '{name}', which the {self.model} model does not have",
                f"known: {', '.join((*INTRINSICS, *self.terms))}",
            )
        return -self._distorted_by_term(name, xy)

    def _distorted_by_term(self, name: str, xy: Floats) -> Floats:
        x, y = xy[:, 0], xy[:, 1]
        r2 = x * x + y * y
        zero = np.zeros(len(xy))
        if self.model == "fisheye":
            return np.asarray(xy * (r2 ** int(name[1]))[:, None])
        sideways = {
            "p1": (2 * x * y, r2 + 2 * y * y),
            "p2": (r2 + 2 * x * x, 2 * x * y),
            "s1": (r2, zero),
            "s2": (r2 * r2, zero),
            "s3": (zero, r2),
            "s4": (zero, r2 * r2),
        }
        if name in sideways:
            return np.stack(sideways[name], axis=1)
        _, below = _rational(self.distortion, r2)
        power = int(name[1])
        if power <= 3:
            by_term = r2**power / below
        else:
            by_term = -(r2 ** (power - 3)) * _radial(self.model, self.distortion, r2) / below
        return np.asarray(xy * by_term[:, None])


@dataclass(frozen=True, slots=True)
class Sight:
    """n pixels undistorted by a camera.

    Attributes:
        camera: The camera.
        distorted: (n, 2) plane coordinates as the pixels have them.
        xy: (n, 2) undistorted: x/z, y/z (opencv) or θ·direction (fisheye).
    """

    camera: Camera
    distorted: Floats
    xy: Floats

    def take(self, index: NDArray[np.int64] | slice) -> Sight:
        """Returns the pixels at these indices."""
        return Sight(self.camera, self.distorted[index], self.xy[index])

    def rays(self) -> Floats:
        """Returns the (n, 3) rays."""
        if self.camera.model == "opencv":
            return np.concatenate([self.xy, np.ones((len(self.xy), 1)) + 0.0 * self.xy[:, :1]], 1)
        theta = np.hypot(self.xy[:, 0], self.xy[:, 1])
        flat = self.xy * np.sinc(theta / np.pi)[:, None]
        return np.concatenate([flat, np.cos(theta)[:, None]], axis=1)

    def by_pixel(self) -> Floats:
        """Returns the (n, 3, 2) derivatives of the rays by their pixels."""
        focal = np.array([self.camera.fx_px, self.camera.fy_px])
        return self._rays_by(self._inverse() / focal)

    def by_intrinsics(self, names: tuple[str, ...]) -> Floats:
        """Returns the (n, 3, k) derivatives of the rays by intrinsics, pixels held fixed."""
        columns = [self.camera._distorted_by(name, self.distorted, self.xy) for name in names]
        by_name = np.stack(columns, axis=-1) if columns else np.zeros((len(self.xy), 2, 0))
        return self._rays_by(self._inverse() @ by_name)

    def _inverse(self) -> Floats:
        return _inverse_2x2(self.camera._distort_jacobian(self.xy))

    def _rays_by(self, flat: Floats) -> Floats:
        """Returns derivatives of rays from those of undistorted plane coordinates (n, 2, k)."""
        if self.camera.model == "opencv":
            return np.concatenate([flat, np.zeros_like(flat[:, :1])], axis=1)
        return np.asarray(self.camera._ray_jacobian(self.xy) @ flat)


def _rational(distortion: tuple[float, ...], r2: Floats) -> tuple[Floats, Floats]:
    k1, k2, _, _, k3, k4, k5, k6 = distortion[:8]
    return (
        1.0 + r2 * (k1 + r2 * (k2 + r2 * k3)),
        1.0 + r2 * (k4 + r2 * (k5 + r2 * k6)),
    )


def _radial(model: ModelName, distortion: tuple[float, ...], r2: Floats) -> Floats:
    """Returns the radial factor at squared undistorted radii."""
    if model == "opencv":
        above, below = _rational(distortion, r2)
        return np.asarray(above / below)
    k1, k2, k3, k4 = distortion
    return np.asarray(1.0 + r2 * (k1 + r2 * (k2 + r2 * (k3 + r2 * k4))))


def _radial_slope(model: ModelName, distortion: tuple[float, ...], r2: Floats) -> Floats:
    """Returns the derivative of the radial factor by r²."""
    if model == "opencv":
        k1, k2, _, _, k3, k4, k5, k6 = distortion[:8]
        above, below = _rational(distortion, r2)
        above_slope = k1 + r2 * (2 * k2 + r2 * 3 * k3)
        below_slope = k4 + r2 * (2 * k5 + r2 * 3 * k6)
        return np.asarray((above_slope * below - above * below_slope) / (below * below))
    k1, k2, k3, k4 = distortion
    return np.asarray(k1 + r2 * (2 * k2 + r2 * (3 * k3 + r2 * 4 * k4)))


@lru_cache(maxsize=32)
def _radial_table(model: ModelName, distortion: tuple[float, ...]) -> tuple[Floats, Floats, float]:
    """Returns undistorted radii, their distorted radii, and where the growth ends."""
    limit = FARTHEST_R if model == "opencv" else np.pi
    radii = limit * np.linspace(0.0, 1.0, TABLE_SIZE) ** 2  # denser near the centre
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        distorted = radii * _radial(model, distortion, radii**2)
    falls = np.flatnonzero(~(np.diff(distorted) > 0))
    end = int(falls[0]) + 1 if len(falls) else TABLE_SIZE
    return radii[:end], distorted[:end], float(radii[end - 1])


def _inverse_2x2(m: Floats) -> Floats:
    """Returns the inverses of (n, 2, 2) matrices; NaN where singular."""
    a, b, c, d = m[:, 0, 0], m[:, 0, 1], m[:, 1, 0], m[:, 1, 1]
    det = a * d - b * c
    with np.errstate(divide="ignore", invalid="ignore"):
        over = 1.0 / np.where(det == 0, np.nan, det)
    inverse = np.empty_like(m)
    inverse[:, 0, 0], inverse[:, 0, 1] = d * over, -b * over
    inverse[:, 1, 0], inverse[:, 1, 1] = -c * over, a * over
    return inverse
