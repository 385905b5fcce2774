"""What moves a ground point: each cause of error as a one-σ push of its ray, and what follows.

A push moves the projection centre, turns the ray about world axes, bends it, or raises the ground.
Its displacement on the ground is, to first order (d the ray, λ its length, n the ground's normal),

    P (δC + λ (δθ × d + δd)) + d δh / (nᵀd),     P = I − d nᵀ / (nᵀd)

which holds all rows of the table of Jacobians: position and lever arm (δC), attitude (δθ),
boresight (δθ = R δ), time (δC = v δt, δθ = ω δt), pixel and intrinsics (δd = R ∂ray/∂p δp), DEM
height (δh).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.camera import Sight
from calibration.rig import Rig
from calibration.rotations import ENU_FROM_NED, rot_exp
from onboard.place.surface import Terrain
from onboard.records import Floats, Poses

ROOT3 = float(np.sqrt(3.0))
"""Sigma points lie at ±√3 σ: they then match a normal distribution's fourth moment."""


@dataclass(frozen=True, slots=True)
class Push:
    """One cause's one-σ push of n rays.

    Attributes:
        cause: The cause's name, for the shares.
        state: The named bias state it belongs to; empty for what is random from look to look.
        move: (n, 3) of the projection centre, ENU metres, or ``None``.
        turn: (n, 3) rotation vector of the ray about ENU axes, or ``None``.
        bend: (n, 3) change of the ray, ENU, in units of the ray given, or ``None``.
        lift: (n,) of the ground, metres, or ``None``.
    """

    cause: str
    state: str = ""
    move: Floats | None = None
    turn: Floats | None = None
    bend: Floats | None = None
    lift: Floats | None = None

    def take(self, i: np.ndarray) -> Push:
        """Returns the push of the rays at these indices."""
        arrays = (None if a is None else a[i] for a in (self.move, self.turn, self.bend, self.lift))
        return Push(self.cause, self.state, *arrays)

    def applied(self, rays: Floats, amount: float) -> tuple[Floats, Floats, Floats]:
        """Returns moves (n, 3) of the centre, pushed rays (n, 3) and lifts (n,), at amount σ."""
        n = len(rays)
        move = np.zeros((n, 3)) if self.move is None else amount * self.move
        pushed = rays if self.bend is None else rays + amount * self.bend
        if self.turn is not None:
            pushed = (rot_exp(amount * self.turn) @ pushed[..., None])[..., 0]
        lift = np.zeros(n) if self.lift is None else amount * self.lift
        return move, pushed, lift


@dataclass(frozen=True, slots=True)
class Look:
    """n pixels with the rays they are seen along, local ENU at the projection centre.

    Attributes:
        uv: (n, 2) pixels.
        sigma_px: (n,) σ of each pixel axis.
        index: (n,) row of each pixel's pose in ``poses``.
        poses: The poses.
        r_enu_cam: (n, 3, 3) camera axes to local ENU, at the pixel's own row.
        rays: (n, 3) rays in local ENU, as long as the camera model gives them.
        sight: The pixels undistorted.
    """

    uv: Floats
    sigma_px: Floats
    index: np.ndarray
    poses: Poses
    r_enu_cam: Floats
    rays: Floats
    sight: Sight


def pushes(look: Look, rig: Rig, terrain: Terrain, flight_id: str) -> list[Push]:
    """Returns the one-σ pushes of all causes that are not 0 everywhere."""
    out = [
        *_position(look, flight_id),
        *_attitude(look, flight_id),
        *_mount(look, rig),
        *_clock(look, rig),
        *_pixel(look),
        *_intrinsics(look, rig),
    ]
    level = float(np.hypot(terrain.sigma_m, terrain.level_sigma_m))
    if level > 0:
        lift = np.full(len(look.uv), level)
        out.append(Push("dem", f"dem/{terrain.label}/level", lift=lift))
    return out


def _position(look: Look, flight_id: str) -> list[Push]:
    out = []
    for axis, name in enumerate(("east", "north", "up")):
        for sigmas, state in (
            (look.poses.sigma_enu_m, ""),
            (look.poses.bias_enu_m, f"flight/{flight_id}/{name}"),
        ):
            if np.any(sigmas[:, axis]):
                out.append(Push("position", state, move=_along(axis, sigmas[look.index, axis])))
    return out


def _attitude(look: Look, flight_id: str) -> list[Push]:
    poses, i = look.poses, look.index
    out = []
    if np.any(poses.sigma_tilt_rad):
        out += [Push("tilt", turn=_along(axis, poses.sigma_tilt_rad[i])) for axis in (0, 1)]
    if np.any(poses.sigma_heading_rad):
        out.append(Push("heading", turn=_along(2, poses.sigma_heading_rad[i])))
    if np.any(poses.bias_heading_rad):
        turn = _along(2, poses.bias_heading_rad[i])
        out.append(Push("heading", f"flight/{flight_id}/heading", turn=turn))
    return out


def _mount(look: Look, rig: Rig) -> list[Push]:
    out = []
    for axis, name in enumerate(("right", "down", "forward")):
        sigma = float(rig.mount.sigma_rad[axis])
        if sigma > 0:
            turn = sigma * look.r_enu_cam[:, :, axis]
            out.append(Push("boresight", f"{rig.label}/boresight_{name}", turn=turn))
    for axis, name in enumerate(("forward", "right", "down")):
        sigma = float(rig.mount.lever_arm_sigma_m[axis])
        if sigma > 0 and np.isfinite(look.poses.r_ned_body).any():
            r_body = look.poses.r_ned_body[look.index][:, :, axis]
            move = sigma * np.nan_to_num(r_body @ ENU_FROM_NED)
            out.append(Push("lever arm", f"{rig.label}/lever_{name}", move=move))
    return out


def _clock(look: Look, rig: Rig) -> list[Push]:
    poses = look.poses
    if rig.clock.sigma_s == 0 or not np.isfinite([poses.v_ned_mps, poses.omega_ned_rps]).any():
        return []
    v = np.nan_to_num(poses.v_ned_mps[look.index]) @ ENU_FROM_NED
    omega = np.nan_to_num(poses.omega_ned_rps[look.index]) @ ENU_FROM_NED
    s = rig.clock.sigma_s
    return [Push("clock", f"{rig.label}/clock", move=s * v, turn=s * omega)]


def _pixel(look: Look) -> list[Push]:
    if not np.any(look.sigma_px):
        return []
    per_px = look.r_enu_cam @ look.sight.by_pixel()
    return [Push("pixel", bend=look.sigma_px[:, None] * per_px[:, :, axis]) for axis in (0, 1)]


def _intrinsics(look: Look, rig: Rig) -> list[Push]:
    """Returns pushes of independent combinations: columns of the covariance's square root."""
    if rig.covariance is None or not np.any(rig.covariance):
        return []
    names = rig.covariance_order
    root = _square_root(rig.covariance)
    by_name = look.r_enu_cam @ look.sight.by_intrinsics(names)
    bends = by_name @ root
    return [
        Push("intrinsics", f"{rig.label}/{_intrinsic_state(name)}", bend=bends[:, :, i])
        for i, name in enumerate(names)
        if np.any(root[:, i])
    ]


def _intrinsic_state(name: str) -> str:
    return "focal" if name == "fx_px" else name.removesuffix("_px")


def _square_root(covariance: Floats) -> Floats:
    """Returns a lower-triangular L with L Lᵀ = covariance, which may be singular."""
    k = len(covariance)
    low = np.zeros((k, k))
    rest = covariance.astype(np.float64).copy()
    floor = 1e-12 * np.diag(covariance)
    for i in range(k):
        if rest[i, i] > floor[i]:
            low[i:, i] = rest[i:, i] / np.sqrt(rest[i, i])
            rest -= np.outer(low[:, i], low[:, i])
    return low


def _cross(a: Floats, b: Floats) -> Floats:
    """Returns (n, 3) cross products (``np.cross`` takes three times as long)."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)


def _along(axis: int, lengths: Floats) -> Floats:
    out = np.zeros((len(lengths), 3))
    out[:, axis] = lengths
    return out


def ground_normal(
    terrain: Terrain, xy_m: Floats, range_m: Floats, to_enu: Floats, radius_m: Floats, reach: Floats
) -> Floats:
    """Returns the (n, 3) upward normals (−h_e, −h_n, 1) of the ground in the camera's ENU.

    Slopes are taken over a baseline of about 1.5 % of the slant range, at least one post. The
    Earth's curvature tilts what lies ``reach`` (n, 2; east, north) metres away.
    """
    slope = np.zeros((len(xy_m), 2))
    if not terrain.is_plane:
        half = np.maximum(0.0075 * range_m, 0.5 * terrain.post_m)
        for axis in (0, 1):
            step = np.zeros((len(xy_m), 2))
            step[:, axis] = half
            ahead = terrain.height_m(*(xy_m + step).T)
            back = terrain.height_m(*(xy_m - step).T)
            here = terrain.height_m(*xy_m.T)
            both = (ahead - back) / (2 * half)
            one = np.where(np.isfinite(ahead), ahead - here, here - back) / half
            slope[:, axis] = np.nan_to_num(np.where(np.isfinite(both), both, one))
        slope = (to_enu @ slope[..., None])[..., 0]
    slope = slope - reach / radius_m[:, None]
    return np.concatenate([-slope, np.ones((len(xy_m), 1))], axis=1)


def displacement(push: Push, rays: Floats, length: Floats, normal: Floats) -> Floats:
    """Returns the (n, 2) east, north displacements of ground points by a one-σ push, linear.

    Args:
        push: The push.
        rays: (n, 3) rays d.
        length: (n,) λ, so that the ground point is C + λ d.
        normal: (n, 3) ground normal n.
    """
    moved = np.zeros_like(rays) if push.move is None else push.move
    if push.turn is not None:
        moved = moved + length[:, None] * _cross(push.turn, rays)
    if push.bend is not None:
        moved = moved + length[:, None] * push.bend
    rise = np.einsum("ij,ij->i", normal, moved)
    if push.lift is not None:
        rise = rise - push.lift
    facing = np.einsum("ij,ij->i", normal, rays)
    return np.asarray(moved[:, :2] - rays[:, :2] * (rise / facing)[:, None])
