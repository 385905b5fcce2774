"""How the simulated aircraft really moves: a multirotor that follows its lines in gusty wind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.geodesy import MapFrame, ecef_from_geodetic, r_ecef_enu
from calibration.rotations import ENU_FROM_NED, r_from_ypr, rot_log
from onboard.simulator.flight_plan import RUN_IN_M, FlightPlan, LegKind
from onboard.simulator.world import World

Floats = NDArray[np.float64]

STEP_S = 0.02
GRAVITY = 9.81
DRAG_PER_S = 0.11
"""Deceleration per metre per second of airspeed, small multirotor."""
FASTEST_ACCEL = 3.0
GROUND_S = 8.0
"""It stands on the ground this long before it takes off, the last seconds of it armed."""
TAIL_S = 6.0
"""What is recorded after landing."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One piece of the way: to a map point at a height, with a speed."""

    kind: LegKind
    xyz_m: Floats
    speed_mps: float


@dataclass(frozen=True, slots=True)
class Motion:
    """True states every STEP_S seconds of boot time.

    Attributes:
        t_boot_s: (n,) times.
        xyz_m: (n, 3) map x, y and ellipsoidal height of the telemetry's reference point.
        lat_deg: (n,) WGS84.
        lon_deg: (n,) WGS84.
        v_ned_mps: (n, 3) velocity, true north.
        r_ned_body: (n, 3, 3) attitude.
        rates_rps: (n, 3) body rates.
        wind_enu_mps: (n, 2) wind towards map east and north.
        line: (n,) number of the survey line under way, from 1; 0 elsewhere.
        airborne: (n,) whether it flies.
        exposures_s: (m,) times at which the camera is triggered.
    """

    t_boot_s: Floats
    xyz_m: Floats
    lat_deg: Floats
    lon_deg: Floats
    v_ned_mps: Floats
    r_ned_body: Floats
    rates_rps: Floats
    wind_enu_mps: Floats
    line: NDArray[np.int64]
    airborne: NDArray[np.bool_]
    exposures_s: Floats

    def index_at(self, t_boot_s: float) -> int:
        """Returns the index of the state at or before a time."""
        return int(np.clip((t_boot_s - self.t_boot_s[0]) / STEP_S, 0, len(self.t_boot_s) - 1))

    def pose_at(self, t_boot_s: Floats) -> tuple[Floats, Floats]:
        """Returns (m, 3) map position and (m, 3, 3) attitude at times, between the steps."""
        u = np.clip((t_boot_s - self.t_boot_s[0]) / STEP_S, 0, len(self.t_boot_s) - 1.001)
        i = u.astype(np.int64)
        f = (u - i)[:, None]
        xyz = self.xyz_m[i] * (1 - f) + self.xyz_m[i + 1] * f
        mixed = self.r_ned_body[i] * (1 - f[..., None]) + self.r_ned_body[i + 1] * f[..., None]
        left, _, right = np.linalg.svd(mixed)
        return xyz, left @ right


def fly(
    world: World,
    plan: FlightPlan,
    map_frame: MapFrame,
    rng: np.random.Generator,
    lead_s: float,
    tail_s: float = TAIL_S,
) -> Motion:
    """Returns the true motion of a flight over a world.

    It stands ``lead_s`` and GROUND_S before take-off, and ``tail_s`` after landing.
    """
    legs = _legs(world, plan)
    home = legs[-1].xyz_m
    xyz, accel, line, wind = _follow(legs, home, rng, plan)
    still = round((lead_s + GROUND_S) / STEP_S)
    after = round(tail_s / STEP_S)
    xyz = np.concatenate([np.repeat(xyz[:1], still, 0), xyz, np.repeat(home[None], after, 0)])
    accel = np.pad(accel, ((still, after), (0, 0)))
    line = np.pad(line, (still, after))
    wind = np.pad(wind, ((still, after), (0, 0)), mode="edge")
    n = len(xyz)
    airborne = np.zeros(n, dtype=bool)
    airborne[still : n - after] = True
    t = np.asarray(STEP_S * np.arange(n), dtype=np.float64)
    lat, lon = map_frame.to_geographic(xyz[:, 0], xyz[:, 1])
    ecef = ecef_from_geodetic(lat, lon, xyz[:, 2])
    turn = r_ecef_enu(lat[0], lon[0])
    v_enu = np.gradient(ecef, STEP_S, axis=0) @ turn
    v_ned = v_enu @ ENU_FROM_NED
    r_ned_body = _attitude(v_ned, accel, wind, airborne, rng)
    rates = np.zeros((n, 3))
    rates[1:-1] = rot_log(np.swapaxes(r_ned_body[:-2], 1, 2) @ r_ned_body[2:]) / (2 * STEP_S)
    return Motion(
        t,
        xyz,
        lat,
        lon,
        v_ned,
        r_ned_body,
        rates,
        wind,
        line,
        airborne,
        _exposures(xyz, line, plan),
    )


def smooth_noise(rng: np.random.Generator, n: int, tau_s: float, order: int = 2) -> Floats:
    """Returns (n,) unit-variance noise at STEP_S, low-passed ``order`` times with a time constant.

    One pass is a first-order Gauss-Markov process; two make it differentiable.
    """
    lead = int(8 * tau_s / STEP_S)
    x = rng.standard_normal(n + lead)
    keep = float(np.exp(-STEP_S / tau_s))
    for _ in range(order):
        x = _low_pass(x, keep)
    x = x[lead:]
    gain = (1 - keep) ** order
    power = 1 / (1 - keep**2) if order == 1 else (1 + keep**2) / (1 - keep**2) ** 3
    return np.asarray(x / (gain * np.sqrt(power)))


def _low_pass(x: Floats, keep: float) -> Floats:
    """Returns y[k] = keep·y[k−1] + (1−keep)·x[k], block by block to stay in numpy."""
    y = np.empty_like(x)
    block = max(8, min(256, int(-30 / np.log(max(keep, 1e-6)))))
    powers = keep ** np.arange(block + 1)
    kernel = np.tril(keep ** np.maximum(0, np.subtract.outer(np.arange(block), np.arange(block))))
    last = 0.0
    for start in range(0, len(x), block):
        part = x[start : start + block]
        m = len(part)
        y[start : start + m] = (1 - keep) * (kernel[:m, :m] @ part) + powers[1 : m + 1] * last
        last = float(y[start + m - 1])
    return y


def _legs(world: World, plan: FlightPlan) -> list[Leg]:
    ends = plan.line_ends_m
    ground = world.height_m(ends[..., 0].ravel(), ends[..., 1].ravel())
    middle = world.height_m(*(np.array([c]) for c in plan.centre_xy_m))
    level = float(np.mean([*ground, *middle])) + plan.height_m
    hx, hy = plan.home_xy_m
    hz = float(world.height_m(np.array([hx]), np.array([hy]))[0])
    legs = [Leg("climb", np.array([hx, hy, level]), 5.0)]
    for start, end in ends:
        along = (end - start) / np.linalg.norm(end - start)
        legs.append(Leg("transit", np.array([*(start - RUN_IN_M * along), level]), 9.0))
        legs.append(Leg("line", np.array([*(end + 4.0 * along), level]), plan.speed_mps))
    legs.append(Leg("transit", np.array([hx, hy, level]), 10.0))
    legs.append(Leg("land", np.array([hx, hy, hz]), 5.0))
    return legs


def _follow(
    legs: list[Leg], home: Floats, rng: np.random.Generator, plan: FlightPlan
) -> tuple[Floats, Floats, NDArray[np.int64], Floats]:
    """Returns position, acceleration, line number and wind at each step of the legs."""
    n = int(3 * plan.duration_s() / STEP_S)
    mean_wind = rng.uniform(2.0, 5.0) * np.array(_unit(rng.uniform(0, 2 * np.pi)))
    gusts = np.stack([0.8 * smooth_noise(rng, n, 1.5) for _ in range(3)], axis=1)
    p, v, a = home.copy(), np.zeros(3), np.zeros(3)
    start, done, number = home.copy(), [], 0
    states = np.empty((n, 6))
    lines = np.zeros(n, dtype=np.int64)
    k = 0
    for leg in legs:
        number += leg.kind == "line"
        span = leg.xyz_m - start
        length = max(float(np.linalg.norm(span)), 1e-6)
        way = span / length
        while k < n:
            left = length - float((p - start) @ way)
            if left < (0.6 if leg.kind in ("line", "transit") else 0.15):
                break
            speed = min(leg.speed_mps, 0.25 + (0.35 if leg.kind != "line" else 9.0) * left)
            if leg.kind == "land" and left < 5:
                speed = min(speed, 0.8)
            across = (p - start) - ((p - start) @ way) * way
            wanted = speed * way - np.clip(0.7 * across, -4, 4)
            pull = np.clip(1.3 * (wanted - v), -FASTEST_ACCEL, FASTEST_ACCEL)
            a += (pull + 0.12 * gusts[k] - a) * (STEP_S / 0.35)
            v += a * STEP_S
            p += v * STEP_S
            states[k, :3], states[k, 3:] = p, a
            lines[k] = number if leg.kind == "line" else 0
            k += 1
        start = leg.xyz_m
        done.append(k)
    wind = mean_wind + gusts[:k, :2]
    return states[:k, :3].copy(), states[:k, 3:].copy(), lines[:k], wind


def _unit(angle: float) -> tuple[float, float]:
    return float(np.cos(angle)), float(np.sin(angle))


def _attitude(
    v_ned: Floats,
    accel: Floats,
    wind: Floats,
    airborne: NDArray[np.bool_],
    rng: np.random.Generator,
) -> Floats:
    """Returns attitudes: thrust carries weight, drag and acceleration; the nose turns to its way.

    Gusts and control wobble add about a degree. On the ground it stands level.
    """
    n = len(v_ned)
    course = np.arctan2(v_ned[:, 1], v_ned[:, 0])
    yaw = np.empty(n)
    now, rate = float(course[np.argmax(np.hypot(v_ned[:, 0], v_ned[:, 1]) > 2)]), 0.0
    for k in range(n):
        aim = course[k] if np.hypot(v_ned[k, 0], v_ned[k, 1]) > 2.0 else now
        off = (aim - now + np.pi) % (2 * np.pi) - np.pi
        rate += (float(np.clip(1.2 * off, -0.8, 0.8)) - rate) * (STEP_S / 0.3)
        now += rate * STEP_S
        yaw[k] = now
    v_air = v_ned[:, :2] - wind[:, ::-1]
    push = accel[:, [1, 0]] + DRAG_PER_S * v_air
    ahead = np.cos(yaw) * push[:, 0] + np.sin(yaw) * push[:, 1]
    right = -np.sin(yaw) * push[:, 0] + np.cos(yaw) * push[:, 1]
    ease = np.minimum(1.0, np.cumsum(airborne) * STEP_S / 2) * airborne
    tail = np.minimum(1.0, np.cumsum(airborne[::-1])[::-1] * STEP_S / 2)
    share = ease * tail
    wobble = [np.radians(s) * smooth_noise(rng, n, 0.35) for s in (0.9, 0.9, 0.6)]
    pitch = share * (-np.arctan2(ahead, GRAVITY) + wobble[0])
    roll = share * (np.arctan2(right, GRAVITY) + wobble[1])
    return r_from_ypr(yaw + share * wobble[2], pitch, roll)


def _exposures(xyz: Floats, line: NDArray[np.int64], plan: FlightPlan) -> Floats:
    """Returns the times at which the next trigger distance on a line is reached."""
    times = []
    for number, (start, end) in enumerate(plan.line_ends_m, start=1):
        on = np.flatnonzero(line == number)
        way = (end - start) / plan.line_m
        along = np.maximum.accumulate((xyz[on, :2] - start) @ way)
        for distance in np.arange(0.0, plan.line_m + 0.1, plan.trigger_m):
            k = int(np.searchsorted(along, distance))
            if 0 < k < len(on):
                share = (distance - along[k - 1]) / max(along[k] - along[k - 1], 1e-9)
                times.append((on[k - 1] + share) * STEP_S)
    return np.array(times)
