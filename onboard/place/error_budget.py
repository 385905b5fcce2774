"""The error budget: each cause of error as the one-σ shift of its ray at the ground."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.camera import Sight
from calibration.rig import Rig
from calibration.rotations import ENU_FROM_NED
from onboard.place.aim import Aim
from onboard.place.surface import Terrain
from onboard.records import Floats, Poses


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause's one-σ shift of n rays.

    Attributes:
        name: The cause's name, for the shares.
        state: The named bias state it belongs to; empty for what is random from look to look.
        shift: (2, n) metres at right angles to the ray, at the ground.
    """

    name: str
    state: str
    shift: Floats


@dataclass(frozen=True, slots=True)
class Look:
    """n pixels with the rays they are seen along, local ENU at the projection centre.

    Attributes:
        sigma_px: (n,) σ of each pixel axis.
        index: (n,) row of each pixel's pose in ``poses``.
        poses: The poses.
        r_enu_cam: (n, 3, 3) camera axes to local ENU, at the pixel's own row.
        sight: The pixels undistorted.
        aim: Where the rays meet the ground.
    """

    sigma_px: Floats
    index: np.ndarray
    poses: Poses
    r_enu_cam: Floats
    sight: Sight
    aim: Aim

    def axis(self, k: int) -> Floats:
        """Returns the (3, n) camera axis (0 right, 1 down, 2 forward) in ENU."""
        return np.ascontiguousarray(self.r_enu_cam[:, :, k].T)

    def of_pose(self, ned: Floats) -> Floats:
        """Returns vectors (m, 3) of the poses, NED, as (3, n) of the pixels, ENU; NaN as 0."""
        return np.ascontiguousarray((np.nan_to_num(ned) @ ENU_FROM_NED).T[:, self.index])


def causes_of(look: Look, rig: Rig, terrain: Terrain, flight_id: str) -> list[Cause]:
    """Returns the one-σ shifts of all causes that are not 0 everywhere."""
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
        out.append(Cause("dem", f"dem/{terrain.label}/level", look.aim.lift(level)))
    return out


def _position(look: Look, flight_id: str) -> list[Cause]:
    out = []
    for axis, name in enumerate(("east", "north", "up")):
        for sigmas, state in (
            (look.poses.sigma_enu_m, ""),
            (look.poses.bias_enu_m, f"flight/{flight_id}/{name}"),
        ):
            if np.any(sigmas[:, axis]):
                shift = look.aim.along(axis, sigmas[look.index, axis])
                out.append(Cause("position", state, shift))
    return out


def _attitude(look: Look, flight_id: str) -> list[Cause]:
    poses, i, aim = look.poses, look.index, look.aim
    out = []
    if np.any(poses.sigma_tilt_rad):
        sigma = poses.sigma_tilt_rad[i]
        out += [Cause("tilt", "", aim.about(axis, sigma)) for axis in (0, 1)]
    if np.any(poses.sigma_heading_rad):
        out.append(Cause("heading", "", aim.about(2, poses.sigma_heading_rad[i])))
    if np.any(poses.bias_heading_rad):
        shift = aim.about(2, poses.bias_heading_rad[i])
        out.append(Cause("heading", f"flight/{flight_id}/heading", shift))
    return out


def _mount(look: Look, rig: Rig) -> list[Cause]:
    out = []
    for axis, name in enumerate(("right", "down", "forward")):
        sigma = float(rig.mount.sigma_rad[axis])
        if sigma > 0:
            shift = look.aim.turn(sigma * look.axis(axis))
            out.append(Cause("boresight", f"{rig.label}/boresight_{name}", shift))
    for axis, name in enumerate(("forward", "right", "down")):
        sigma = float(rig.mount.lever_arm_sigma_m[axis])
        if sigma > 0 and np.isfinite(look.poses.r_ned_body).any():
            body = look.of_pose(look.poses.r_ned_body[:, :, axis])
            out.append(Cause("lever arm", f"{rig.label}/lever_{name}", look.aim.move(sigma * body)))
    return out


def _clock(look: Look, rig: Rig) -> list[Cause]:
    poses, s = look.poses, rig.clock.sigma_s
    if s == 0 or not np.isfinite([poses.v_ned_mps, poses.omega_ned_rps]).any():
        return []
    v, omega = look.of_pose(s * poses.v_ned_mps), look.of_pose(s * poses.omega_ned_rps)
    return [Cause("clock", f"{rig.label}/clock", look.aim.move(v) + look.aim.turn(omega))]


def _pixel(look: Look) -> list[Cause]:
    if not np.any(look.sigma_px):
        return []
    per_px = _planes(look.r_enu_cam @ look.sight.by_pixel())
    return [Cause("pixel", "", look.aim.bend(look.sigma_px * per_px[k])) for k in (0, 1)]


def _intrinsics(look: Look, rig: Rig) -> list[Cause]:
    """Returns shifts by independent combinations: columns of the covariance's square root."""
    if rig.covariance is None or not np.any(rig.covariance):
        return []
    names = rig.covariance_order
    root = _square_root(rig.covariance)
    bends = _planes(look.r_enu_cam @ (look.sight.by_intrinsics(names) @ root))
    return [
        Cause("intrinsics", f"{rig.label}/{_intrinsic_state(name)}", look.aim.bend(bends[i]))
        for i, name in enumerate(names)
        if np.any(root[:, i])
    ]


def _planes(columns: Floats) -> Floats:
    """Returns (n, 3, k) columns as (k, 3, n)."""
    return np.ascontiguousarray(columns.transpose(2, 1, 0))


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
