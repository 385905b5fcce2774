"""The vehicle's state between telemetry samples: position, attitude, gimbal, σ, flags."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from calibration.rig import Defaults, Rig
from calibration.rotations import quat_from_r, r_from_quat, r_from_ypr, ypr_from_r
from onboard.place.hermite import Bracket, Samples, bracket, hermite, hermite_attitude
from onboard.records import Bools, Floats, HeightDatum

MAX_EXTRAPOLATION_S = 2.0
MAX_GAP_S = 10.0
"""Between samples further apart than this nothing is interpolated."""
GAP_S = 0.8
GAP_RATIO = 3.0
"""A gap longer than this many usual intervals (and GAP_S) is flagged and its σ grows."""
GAP_TILT_RAD_PER_S2 = np.radians(3.0) / 3.3**2
GAP_M_PER_S2 = 0.85 / 3.3**2
"""Measured: across a gap of 3.3 s Hermite errs by up to 3° and 0.85 m."""
EXTRAPOLATED_RAD_PER_S = np.radians(4.0)
EXTRAPOLATED_MPS2 = 2.0
QUATERNION_GAP_S = 0.5
"""ATTITUDE_QUATERNION is preferred where its samples are not further apart than this."""
LEVEL_WINDOW_S = 30.0
LEVEL_FIXES = 5
BAROMETRIC_SIGMA_M = 4.0
NO_GIMBAL_SIGMA_RAD = np.radians(5.0)
WGS84_A_M = 6378137.0
WGS84_E2 = 6.694379990141317e-3

AttitudeStream = Literal["quaternion", "euler"]


@dataclass(slots=True)
class Epoch:
    """The samples of one run of the autopilot between two boots."""

    quaternion: Samples = field(default_factory=lambda: Samples(7))
    euler: Samples = field(default_factory=lambda: Samples(7))
    position: Samples = field(default_factory=lambda: Samples(6))
    gps: Samples = field(default_factory=lambda: Samples(6))
    gimbal: Samples = field(default_factory=lambda: Samples(5))
    datum: HeightDatum = "egm96"


@dataclass(frozen=True, slots=True)
class State:
    """The vehicle's state at m times; ``reason`` is a code where it is not known."""

    lat_deg: Floats
    lon_deg: Floats
    alt_m: Floats
    v_ned: Floats
    r_ned_body: Floats
    omega_body: Floats
    sigma_extra_m: Floats
    sigma_extra_rad: Floats
    flags: list[list[str]]
    reason: list[str]


def as_quaternion(attitude: ArrayLike) -> tuple[float, float, float, float]:
    """Returns the unit quaternion of a quaternion or a (3, 3) rotation."""
    if isinstance(attitude, tuple):
        w, x, y, z = attitude
    else:
        a = np.asarray(attitude, dtype=np.float64)
        w, x, y, z = (quat_from_r(a) if a.shape == (3, 3) else a).tolist()
    length = math.sqrt(w * w + x * x + y * y + z * z)
    return w / length, x / length, y / length, z / length


def position_at(samples: Samples, fused: bool, t: Floats) -> tuple[Floats, Floats, Bracket]:
    """Returns (m, 3) lat, lon, height, (m, 3) velocity NED, and where the times fall."""
    x = samples.x
    north, east = metres_per_degree(x[:, 0], x[:, 2])
    v_ned = x[:, 3:6] if fused else np.full((len(x), 3), np.nan)
    rate = np.stack([v_ned[:, 0] / north, v_ned[:, 1] / east, -v_ned[:, 2]], axis=1)
    lla, slope = hermite(x[:, :3], rate, samples.t, t)
    north, east = metres_per_degree(lla[:, 0], lla[:, 2])
    v = np.stack([slope[:, 0] * north, slope[:, 1] * east, -slope[:, 2]], axis=1)
    return lla, v, bracket(samples.t, t)


def attitude_at(run: Epoch, t: Floats) -> tuple[Floats, Floats, Bracket]:
    """Returns quaternions, body rates and brackets, from ATTITUDE_QUATERNION where it is dense."""
    found = []
    for samples in (run.quaternion, run.euler):
        if len(samples):
            q, w = hermite_attitude(samples.x[:, :4], samples.x[:, 4:7], samples.t, t)
            found.append((q, w, bracket(samples.t, t)))
    if len(found) == 1:
        return found[0]
    (q, w, b), (q2, w2, b2) = found
    use: Bools = (b.gap_s <= QUATERNION_GAP_S) & (np.abs(b.beyond_s) <= np.abs(b2.beyond_s))
    merged = Bracket(
        np.where(use, b.before, b2.before),
        np.where(use, b.after, b2.after),
        np.where(use, b.gap_s, b2.gap_s),
        np.where(use, b.beyond_s, b2.beyond_s),
    )
    return np.where(use[:, None], q, q2), np.where(use[:, None], w, w2), merged


def gimbal_at(run: Epoch, t: Floats, r_ned_body: Floats) -> Floats:
    """Returns the gimbal's rotations gimbal (FRD) → NED."""
    nan_rates = np.full((len(run.gimbal), 3), np.nan)
    q, _ = hermite_attitude(run.gimbal.x[:, :4], nan_rates, run.gimbal.t, t)
    earth = run.gimbal.x[bracket(run.gimbal.t, t).before, 4] > 0.5
    yaw, _, _ = ypr_from_r(r_ned_body)
    heading = r_from_ypr(np.where(earth, 0.0, yaw), np.zeros(len(t)), np.zeros(len(t)))
    return np.asarray(heading @ r_from_quat(q))


def _usual_interval(t_samples: Floats) -> float:
    return float(np.median(np.diff(t_samples))) if len(t_samples) > 1 else 0.0


def grown(b: Bracket, t_samples: Floats, per_s2: float) -> Floats:
    """Returns the σ that a gap adds: nothing within the usual interval, then with its square."""
    limit = max(GAP_S, GAP_RATIO * _usual_interval(t_samples))
    return np.where(b.gap_s > limit, per_s2 * b.gap_s**2, 0.0)


def mark(flags: list[list[str]], reason: list[str], *brackets: tuple[Bracket, Floats]) -> None:
    """Writes what the brackets say into flags and reasons."""
    for b, t_samples in brackets:
        limit = max(GAP_S, GAP_RATIO * _usual_interval(t_samples))
        for i, (gap, beyond) in enumerate(zip(b.gap_s, b.beyond_s, strict=True)):
            if abs(beyond) > MAX_EXTRAPOLATION_S or gap > MAX_GAP_S:
                reason[i] = reason[i] or "no_telemetry"
            elif beyond != 0.0 and "extrapolated" not in flags[i]:
                flags[i].append("extrapolated")
            elif gap > limit and "telemetry_gap" not in flags[i]:
                flags[i].append("telemetry_gap")


def at_camera(
    state: State, alt_m: Floats, rig: Rig | None
) -> tuple[Floats, Floats, Floats, Floats]:
    """Returns latitude, longitude, height and velocity of the projection centre."""
    if rig is None:
        return state.lat_deg, state.lon_deg, alt_m, state.v_ned
    lever = np.asarray(rig.mount.lever_arm_m, dtype=np.float64)
    r_ned_body = rig.mount.level(state.r_ned_body)
    off = r_ned_body @ lever
    north, east = metres_per_degree(state.lat_deg, alt_m)
    swing = (r_ned_body @ np.cross(state.omega_body, lever)[..., None])[..., 0]
    lat, lon = state.lat_deg + off[:, 0] / north, state.lon_deg + off[:, 1] / east
    return lat, lon, alt_m + rig.mount.height_bias_m - off[:, 2], state.v_ned + swing


def accuracies(run: Epoch, t: Floats, defaults: Defaults, levelled: bool) -> tuple[Floats, Floats]:
    """Returns (m, 3) random σ and (m, 3) shared σ of east, north, up.

    Where the receiver states its accuracy, it is what both together come to; the rig's σ say how
    it is divided. Without levelling the shared σ of the height is the barometer's.
    """
    one = np.ones((len(t), 1))
    sigma = one * np.array([[defaults.sigma_e_m, defaults.sigma_n_m, defaults.sigma_u_m]])
    bias = one * np.array([[defaults.bias_e_m, defaults.bias_n_m, defaults.bias_u_m]])
    if len(run.gps):
        i = bracket(run.gps.t, np.where(np.isfinite(t), t, 0.0)).before
        said = run.gps.x[i][:, [4, 4, 5]]
        total = np.hypot(sigma, bias)
        scale = np.where(np.isfinite(said) & (total > 0.0), said / np.maximum(total, 1e-9), 1.0)
        sigma, bias = sigma * scale, bias * scale
    if not levelled:
        bias[:, 2] = np.hypot(bias[:, 2], BAROMETRIC_SIGMA_M)
    return sigma, bias


def angles(defaults: Defaults, n: int) -> tuple[Floats, Floats, Floats]:
    """Returns (n,) random σ of tilt and heading and the shared σ of heading, radians."""
    degrees = (defaults.sigma_tilt_deg, defaults.sigma_heading_deg, defaults.bias_heading_deg)
    tilt, heading, bias = (np.full(n, np.radians(value)) for value in degrees)
    return tilt, heading, bias


def windowed_median(t_samples: Floats, values: Floats, t: Floats) -> Floats:
    """Returns medians of the values within the window around each time; NaN of too few."""
    good = np.isfinite(values)
    ts, x = t_samples[good], values[good]
    lo = np.searchsorted(ts, t - LEVEL_WINDOW_S)
    hi = np.searchsorted(ts, t + LEVEL_WINDOW_S)
    picks = [x[a:b] if b - a >= LEVEL_FIXES else x for a, b in zip(lo, hi, strict=True)]
    return np.array([np.median(p) if len(p) >= LEVEL_FIXES else np.nan for p in picks])


def metres_per_degree(lat_deg: Floats, alt_m: Floats) -> tuple[Floats, Floats]:
    """Returns metres north and east per degree at a height, by the WGS84 radii."""
    sin2 = np.sin(np.radians(lat_deg)) ** 2
    w = 1.0 - WGS84_E2 * sin2
    meridian = WGS84_A_M * (1.0 - WGS84_E2) / w**1.5 + alt_m
    parallel = (WGS84_A_M / np.sqrt(w) + alt_m) * np.cos(np.radians(lat_deg))
    return np.radians(1.0) * meridian, np.radians(1.0) * parallel
