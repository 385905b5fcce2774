"""The true errors of one simulated flight, drawn from the σ that rig and DEM state.

Each state of the error budget is drawn once per flight, or once per about a second, from exactly
the σ that the drone is told, so that an honest ellipse can be honest:

- shared by the flight: GNSS bias east, north, up; heading bias; boresight (three angles); camera
  clock offset; focal length and principal point; level of the DEM;
- random from look to look: position, tilt and heading (smooth noise of time constant 0.45 s:
  exposures 2 s apart share 7 % of it); the roughness of the DEM;
- without a σ of their own, because the software takes them out: barometric drift of metres
  (levelled by GNSS), white noise of single fixes, receive jitter of the link.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.camera import INTRINSICS, Camera
from calibration.rig import Mount, Rig
from calibration.rotations import A_BODY_CAM, rot_exp
from onboard.simulator.motion import Motion, smooth_noise

Floats = NDArray[np.float64]

POSITION_TAU_S = 0.45
ATTITUDE_TAU_S = 0.45
BARO_DRIFT_M = 2.5
BARO_DRIFT_TAU_S = 90.0
BARO_LEVEL_M = 3.0
FIX_NOISE_M = 0.3
STAMP_JITTER_S = 0.0005


@dataclass(frozen=True, slots=True)
class FlightErrors:
    """What is wrong with what the aircraft says of itself.

    Attributes:
        bias_enu_m: (3,) of the whole flight's GNSS position.
        bias_heading_rad: Of the whole flight's heading.
        position_enu_m: (n, 3) random part of the fused position at the motion's steps.
        baro_m: (n,) what the barometric height adds: level and drift.
        turn_ned_rad: (n, 3) random rotation of the reported attitude about north, east, down.
        camera: The true camera.
        mount: The true mount.
        clock_offset_s: True exposure of the middle row minus its stamp.
        dem_level_m: Given DEM minus true ground, on average.
        h_acc_m: σ of each horizontal axis that the receiver states.
        v_acc_m: σ of the height that the receiver states.
    """

    bias_enu_m: Floats
    bias_heading_rad: float
    position_enu_m: Floats
    baro_m: Floats
    turn_ned_rad: Floats
    camera: Camera
    mount: Mount
    clock_offset_s: float
    dem_level_m: float
    h_acc_m: float
    v_acc_m: float


def draw_errors(rig: Rig, motion: Motion, rng: np.random.Generator) -> FlightErrors:
    """Returns the errors of one flight with this (stated) rig."""
    said = rig.defaults
    n = len(motion.t_boot_s)
    sigma = np.array([said.sigma_e_m, said.sigma_n_m, said.sigma_u_m])
    bias = np.array([said.bias_e_m, said.bias_n_m, said.bias_u_m])
    wander = np.stack([smooth_noise(rng, n, POSITION_TAU_S) for _ in range(3)], axis=1)
    tilt, heading = np.radians(said.sigma_tilt_deg), np.radians(said.sigma_heading_deg)
    sway = np.stack([smooth_noise(rng, n, ATTITUDE_TAU_S) for _ in range(3)], axis=1)
    drift = BARO_LEVEL_M * rng.standard_normal() + BARO_DRIFT_M * smooth_noise(
        rng, n, BARO_DRIFT_TAU_S
    )
    return FlightErrors(
        bias_enu_m=bias * rng.standard_normal(3),
        bias_heading_rad=float(np.radians(said.bias_heading_deg) * rng.standard_normal()),
        position_enu_m=sigma * wander,
        baro_m=drift,
        turn_ned_rad=sway * np.array([tilt, tilt, heading]),
        camera=true_camera(rig, rng),
        mount=true_mount(rig, rng),
        clock_offset_s=rig.clock.offset_s + rig.clock.sigma_s * float(rng.standard_normal()),
        dem_level_m=said.dem_level_m * float(rng.standard_normal()),
        h_acc_m=float(np.hypot(said.sigma_e_m, said.bias_e_m)),
        v_acc_m=float(np.hypot(said.sigma_u_m, said.bias_u_m)),
    )


def true_camera(rig: Rig, rng: np.random.Generator) -> Camera:
    """Returns a camera drawn from the rig's covariance of the intrinsics."""
    if rig.covariance is None:
        return rig.camera
    values, vectors = np.linalg.eigh(rig.covariance)
    step = vectors @ (np.sqrt(np.maximum(values, 0)) * rng.standard_normal(len(values)))
    off = dict(zip(rig.covariance_order, step, strict=True))
    distortion = [c + off.get(name, 0.0) for name, c in zip(
        rig.camera.terms, rig.camera.distortion, strict=False
    )]  # fmt: skip
    moved = {name: getattr(rig.camera, name) + off.get(name, 0.0) for name in INTRINSICS}
    return replace(rig.camera, distortion=tuple(distortion), **moved)


def true_mount(rig: Rig, rng: np.random.Generator) -> Mount:
    """Returns a mount drawn from the rig's boresight and lever-arm σ.

    The boresight's small rotation is about the camera's right, down and forward axes.
    """
    turn = rot_exp(rig.mount.sigma_rad * rng.standard_normal(3))
    r_mount = rig.mount.r_mount @ A_BODY_CAM @ turn @ A_BODY_CAM.T
    lever = rig.mount.lever_arm_m + rig.mount.lever_arm_sigma_m * rng.standard_normal(3)
    return replace(rig.mount, r_mount=r_mount, lever_arm_m=lever)
