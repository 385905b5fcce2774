"""Resection: where a camera stood and looked, from control points, optionally with intrinsics."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.board import changed
from calibration.camera import Camera
from calibration.errors import ControlPointError, RigError
from calibration.rotations import rot_exp

Floats = NDArray[np.float64]

CHI2_2_P90 = 4.605170185988092
"""The 90 % quantile of χ² with two degrees of freedom."""
FEWEST_POINTS = 4
STEPS = 200
GENTLE = 2.5
"""Points whose residual is beyond this many robust σ pull with that much only (Huber)."""
REWEIGHTS = 6
CHI2_2_MEDIAN = 1.3862943611198906
FOCAL_TRIES = (1.0, 0.8, 1.25, 0.6, 1.6)
SHORT_NAMES = {"f": "f", "fx": "fx_px", "fy": "fy_px", "cx": "cx_px", "cy": "cy_px"}


@dataclass(frozen=True, slots=True)
class ControlPoints:
    """n control points of one frame, in a local east-north-up frame.

    Attributes:
        frame: The frame's name.
        enu_m: (n, 3) where they are.
        uv: (n, 2) where they are seen.
        sigma_px: (n,) σ of the pixels.
    """

    frame: str
    enu_m: Floats
    uv: Floats
    sigma_px: Floats


@dataclass(frozen=True, slots=True)
class ResectedPose:
    """One frame's pose and how its points fit.

    Attributes:
        frame: The frame's name.
        centre_m: (3,) projection centre, the points' ENU frame.
        r_enu_cam: (3, 3) camera axes to ENU.
        covariance: (6, 6) of the centre (m) and of a small world rotation (rad), ENU.
        residual_px: (n, 2) measured − projected.
        miss_m: (n,) distance of the points from their rays.
        left_out_m: (n,) the same for each point when it had no part in the solution; NaN where
            too few were left.
        left_out_chi2: (n,) its squared pixel residual then, over what the solution and the
            measurement let expect (two degrees of freedom: 90 % lie below 4.605).
    """

    frame: str
    centre_m: Floats
    r_enu_cam: Floats
    covariance: Floats
    residual_px: Floats
    miss_m: Floats
    left_out_m: Floats
    left_out_chi2: Floats


@dataclass(frozen=True, slots=True)
class Resection:
    """Poses of all frames and the intrinsics freed with them.

    Attributes:
        camera: With the freed intrinsics as found.
        free: Their names.
        free_covariance: (k, k) their covariance.
        poses: One for each frame.
        rms_px: RMS of all residuals, both axes together.
    """

    camera: Camera
    free: tuple[str, ...]
    free_covariance: Floats
    poses: tuple[ResectedPose, ...]
    rms_px: float


def free_names(text: str, camera: Camera) -> tuple[str, ...]:
    """Returns the intrinsics named in ``f,k1``; ``f`` scales both focal lengths together.

    Raises:
        ControlPointError: A name is unknown.
    """
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    out = tuple(SHORT_NAMES.get(name, name) for name in names)
    known = {"f", "fx_px", "fy_px", "cx_px", "cy_px", *camera.terms}
    unknown = [name for name, long in zip(names, out, strict=True) if long not in known]
    if unknown or len(set(out)) != len(out) or {"f", "fx_px"} <= set(out):
        raise ControlPointError(
            f"--free {text}: {', '.join(unknown) or 'a name twice'}",
            f"known: f, fx, fy, cx, cy, {', '.join(camera.terms)}",
        )
    return out


def resect(frames: list[ControlPoints], camera: Camera, free: tuple[str, ...] = ()) -> Resection:
    """Returns poses (and freed intrinsics) that minimise the control points' weighted residuals.

    Starts from a perspective-n-point solution, then Levenberg-Marquardt over all frames together,
    with Huber's weights: one wrong point must not turn the pose.

    Args:
        frames: Control points of each frame.
        camera: The intrinsics to start from.
        free: Names from ``free_names``.

    Raises:
        ControlPointError: Too few points, or no pose explains them.
    """
    unknowns = 6 * len(frames) + len(free)
    for points in frames:
        if len(points.uv) < FEWEST_POINTS:
            raise ControlPointError(
                f"{points.frame} has {len(points.uv)} control points, {FEWEST_POINTS} are needed",
                "add points, well spread over the image and in depth",
            )
    if 2 * sum(len(points.uv) for points in frames) < unknowns:
        raise ControlPointError(
            f"{unknowns} unknowns, fewer measurements",
            "add control points or free fewer intrinsics",
        )
    best: tuple[float, Camera, Floats] | None = None
    for scale in FOCAL_TRIES if {"f", "fx_px"} & set(free) else (1.0,):
        start = _scaled_focal(camera, scale)
        poses = [_start(points, start) for points in frames]
        if any(pose is None for pose in poses):
            continue
        state = np.concatenate([np.zeros(len(free)), *[p for p in poses if p is not None]])
        cost, solution = _solve(frames, start, free, state)
        if best is None or cost < best[0] * (1 - 1e-6):
            best = cost, start, solution
    if best is None or not np.isfinite(best[0]):
        raise ControlPointError(
            "no pose explains the control points",
            "check that pixels and coordinates belong together, and the rig's focal length",
        )
    trusted, state = _gentle(frames, best[1], free, best[2])
    return _result(frames, trusted, best[1], free, state)


def _gentle(
    frames: list[ControlPoints], camera: Camera, free: tuple[str, ...], state: Floats
) -> tuple[list[ControlPoints], Floats]:
    """Returns the points with σ grown where they are outliers, and the solution with these."""
    trusted = frames
    for _ in range(REWEIGHTS):
        off = _residuals(frames, camera, free, state).reshape(-1, 2)
        size = np.linalg.norm(off, axis=1)
        robust = float(np.sqrt(np.median(size**2) / CHI2_2_MEDIAN))
        if not robust > 0:
            return frames, state
        grown = np.sqrt(np.maximum(1.0, size / (GENTLE * robust)))
        parts = np.split(grown, np.cumsum([len(points.uv) for points in frames])[:-1])
        trusted = [
            ControlPoints(points.frame, points.enu_m, points.uv, points.sigma_px * part)
            for points, part in zip(frames, parts, strict=True)
        ]
        _, state = _solve(trusted, camera, free, state)
    return trusted, state


def _scaled_focal(camera: Camera, scale: float) -> Camera:
    return changed(
        changed(camera, "fx_px", (scale - 1) * camera.fx_px), "fy_px", (scale - 1) * camera.fy_px
    )


def _with(camera: Camera, free: tuple[str, ...], values: Floats) -> Camera:
    for name, value in zip(free, values, strict=True):
        if name == "f":
            camera = _scaled_focal(camera, 1.0 + float(value) / camera.fx_px)
        else:
            camera = changed(camera, name, float(value))
    return camera


def _start(points: ControlPoints, camera: Camera) -> Floats | None:
    """Returns a first pose (rotation vector ENU → camera, shift) or ``None``."""
    rays = camera.unproject(points.uv)
    good = np.isfinite(rays).all(axis=1) & (rays[:, 2] > 1e-3)
    if good.sum() < FEWEST_POINTS:
        return None
    plane = np.ascontiguousarray(rays[good, :2] / rays[good, 2:])
    middle = points.enu_m.mean(axis=0)
    try:
        _, rotations, shifts, _ = cv2.solvePnPGeneric(
            points.enu_m[good] - middle, plane, np.eye(3), None, flags=cv2.SOLVEPNP_SQPNP
        )
    except cv2.error:
        return None
    best: tuple[float, Floats] | None = None
    for rotation, shift in zip(rotations, shifts, strict=True):
        r = np.asarray(rotation, dtype=np.float64).ravel()
        t = np.asarray(shift, dtype=np.float64).ravel() - rot_exp(r) @ middle
        seen = points.enu_m[good] @ rot_exp(r).T + t
        if (seen[:, 2] <= 0).any():
            continue
        miss = float(np.abs(seen[:, :2] / seen[:, 2:] - plane).sum())
        if best is None or miss < best[0]:
            best = miss, np.concatenate([r, t])
    return None if best is None else best[1]


def _residuals(
    frames: list[ControlPoints], camera: Camera, free: tuple[str, ...], state: Floats
) -> Floats:
    """Returns all weighted residuals; infinite where a point cannot be seen."""
    try:
        used = _with(camera, free, state[: len(free)])
    except RigError:  # a step beyond a positive focal length
        return np.full(2 * sum(len(points.uv) for points in frames), np.inf)
    out = []
    for i, points in enumerate(frames):
        pose = state[len(free) + 6 * i : len(free) + 6 * i + 6]
        seen = used.project(points.enu_m @ rot_exp(pose[:3]).T + pose[3:])
        out.append(((points.uv - seen) / points.sigma_px[:, None]).ravel())
    every = np.concatenate(out)
    return np.where(np.isfinite(every), every, np.inf)


def _jacobian(
    frames: list[ControlPoints], camera: Camera, free: tuple[str, ...], state: Floats
) -> Floats:
    steps = np.concatenate(
        [
            [1e-2 if name.endswith("_px") or name == "f" else 1e-6 for name in free],
            np.tile([1e-7] * 3 + [1e-4] * 3, len(frames)),
        ]
    )
    columns = []
    for i, step in enumerate(steps):
        e = np.zeros(len(state))
        e[i] = step
        ahead = _residuals(frames, camera, free, state + e)
        back = _residuals(frames, camera, free, state - e)
        columns.append((ahead - back) / (2 * step))
    return np.stack(columns, axis=1)


def _solve(
    frames: list[ControlPoints], camera: Camera, free: tuple[str, ...], state: Floats
) -> tuple[float, Floats]:
    """Returns the cost and state at the minimum (Levenberg-Marquardt)."""
    damping = 1e-3
    residuals = _residuals(frames, camera, free, state)
    cost = float(residuals @ residuals)
    for _ in range(STEPS):
        if not np.isfinite(cost):
            return np.inf, state
        jacobian = _jacobian(frames, camera, free, state)
        if not np.isfinite(jacobian).all():
            return np.inf, state
        scale = np.linalg.norm(jacobian, axis=0)
        j = jacobian / np.where(scale > 0, scale, 1.0)
        normal, right = j.T @ j, j.T @ residuals
        step = np.linalg.solve(normal + damping * np.eye(len(state)), -right)
        trial = state + step / np.where(scale > 0, scale, 1.0)
        after = _residuals(frames, camera, free, trial)
        new_cost = float(after @ after)
        if new_cost < cost:
            done = cost - new_cost < 1e-12 * cost
            state, residuals, cost = trial, after, new_cost
            damping = max(damping / 5.0, 1e-12)
            if done:
                break
        else:
            damping *= 4.0
            if damping > 1e12:
                break
    return cost, state


def _result(
    frames: list[ControlPoints],
    trusted: list[ControlPoints],
    camera: Camera,
    free: tuple[str, ...],
    state: Floats,
) -> Resection:
    jacobian = _jacobian(trusted, camera, free, state)
    weighted = _residuals(trusted, camera, free, state)
    freedom = weighted.size - len(state)
    variance = float(weighted @ weighted) / freedom if freedom > 0 else 1.0
    scale = np.linalg.norm(jacobian, axis=0)
    normal = (jacobian / scale).T @ (jacobian / scale)
    covariance = variance * np.linalg.pinv(normal, rcond=1e-12) / np.outer(scale, scale)
    used = _with(camera, free, state[: len(free)])
    left_out = _leave_one_out(trusted, camera, free, state)
    poses, misses = [], []
    for i, points in enumerate(frames):
        at = len(free) + 6 * i
        pose = state[at : at + 6]
        r_cam_enu = rot_exp(pose[:3])
        centre = -r_cam_enu.T @ pose[3:]
        seen = used.project(points.enu_m @ r_cam_enu.T + pose[3:])
        to_world = _world_jacobian(pose)
        poses.append(
            ResectedPose(
                points.frame,
                centre,
                r_cam_enu.T,
                to_world @ covariance[at : at + 6, at : at + 6] @ to_world.T,
                points.uv - seen,
                _miss_m(used, points, centre, r_cam_enu),
                *left_out[i],
            )
        )
        misses.append(points.uv - seen)
    every = np.concatenate(misses)
    rms = float(np.sqrt((every**2).sum(axis=1).mean()))
    k = len(free)
    return Resection(used, free, covariance[:k, :k], tuple(poses), rms)


def _leave_one_out(
    frames: list[ControlPoints], camera: Camera, free: tuple[str, ...], state: Floats
) -> list[tuple[Floats, Floats]]:
    """Returns for each frame the misses (n,) and χ² (n,) of its points, each left out in turn.

    The rest is solved anew from the solution with all points; the variance of unit weight is the
    rest's own.
    """
    out = []
    for k, points in enumerate(frames):
        n = len(points.uv)
        miss, chi2 = np.full(n, np.nan), np.full(n, np.nan)
        for i in range(n if n > FEWEST_POINTS else 0):
            rest = np.arange(n) != i
            others = [_some(points, rest) if j == k else other for j, other in enumerate(frames)]
            freedom = 2 * sum(len(other.uv) for other in others) - len(state)
            if freedom <= 0:
                continue
            cost, found = _solve(others, camera, free, state)
            one = [replace(_some(points, ~rest), sigma_px=frames[k].sigma_px[~rest])]
            own = np.concatenate([found[: len(free)], found[len(free) + 6 * k :][:6]])
            used = _with(camera, free, own[: len(free)])
            r_cam_enu = rot_exp(own[-6:-3])
            miss[i] = _miss_m(used, one[0], -r_cam_enu.T @ own[-3:], r_cam_enu)[0]
            off = _residuals(one, camera, free, own)
            jacobian = _jacobian(others, camera, free, found)
            scale = np.linalg.norm(jacobian, axis=0)
            inverse = np.linalg.pinv((jacobian / scale).T @ (jacobian / scale), rcond=1e-12)
            at = [*range(len(free)), *range(len(free) + 6 * k, len(free) + 6 * k + 6)]
            spread = (inverse / np.outer(scale, scale))[np.ix_(at, at)]
            by = _jacobian(one, camera, free, own)
            expected = cost / freedom * (np.eye(2) + by @ spread @ by.T)
            chi2[i] = off @ np.linalg.solve(expected, off)
        out.append((miss, chi2))
    return out


def _some(points: ControlPoints, which: NDArray[np.bool_]) -> ControlPoints:
    return ControlPoints(
        points.frame, points.enu_m[which], points.uv[which], points.sigma_px[which]
    )


def _world_jacobian(pose: Floats) -> Floats:
    """Returns (6, 6): centre and small world rotation of the camera by the solver's pose."""
    out = np.zeros((6, 6))
    r = rot_exp(pose[:3])
    for i in range(6):
        step = np.zeros(6)
        step[i] = 1e-6
        ahead, back = pose + step, pose - step
        centre = [-rot_exp(p[:3]).T @ p[3:] for p in (ahead, back)]
        out[:3, i] = (centre[0] - centre[1]) / 2e-6
        turn = (rot_exp(ahead[:3]).T - rot_exp(back[:3]).T) @ r / 2e-6
        out[3:, i] = [turn[2, 1], turn[0, 2], turn[1, 0]]
    return out


def _miss_m(camera: Camera, points: ControlPoints, centre: Floats, r_cam_enu: Floats) -> Floats:
    """Returns how far control points lie from the rays of their pixels."""
    rays = camera.unproject(points.uv) @ r_cam_enu
    rays = rays / np.linalg.norm(rays, axis=1)[:, None]
    off = points.enu_m - centre
    return np.asarray(np.linalg.norm(np.cross(off, rays), axis=1))
