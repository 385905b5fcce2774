"""Rotations: matrices named ``r_to_from``, unit quaternions (w, x, y, z), rotation vectors, angles.

Body axes are forward-right-down, the world of attitudes is local north-east-down (true north),
camera axes are right, down, forward. Angles for people are yaw (clockwise from true north), pitch
(nose up, −90° looks at the nadir) and roll (right side down), applied in that order. All functions
take stacks: the last axes hold the vector, matrix or quaternion.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

A_BODY_CAM: Floats = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Columns: the camera's right, down and forward in forward-right-down axes."""

ENU_FROM_NED: Floats = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""Turns north-east-down vectors into east-north-up (and back: it is its own inverse)."""

GIMBAL_LOCK_COS = 1e-8
SMALL_ANGLE_RAD = 1e-8


def skew(v: ArrayLike) -> Floats:
    """Returns the (..., 3, 3) matrices [v]ₓ with [v]ₓ w = v × w."""
    v = np.asarray(v, dtype=np.float64)
    m = np.zeros((*v.shape[:-1], 3, 3))
    m[..., 0, 1], m[..., 0, 2] = -v[..., 2], v[..., 1]
    m[..., 1, 0], m[..., 1, 2] = v[..., 2], -v[..., 0]
    m[..., 2, 0], m[..., 2, 1] = -v[..., 1], v[..., 0]
    return m


def rot_exp(rotvec: ArrayLike) -> Floats:
    """Returns the (..., 3, 3) rotations about ``rotvec`` by its length in radians (Rodrigues)."""
    v = np.asarray(rotvec, dtype=np.float64)
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    k = skew(v)
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    a = np.where(small, 1.0 - angle**2 / 6.0, np.sin(safe) / safe)
    b = np.where(small, 0.5 - angle**2 / 24.0, (1.0 - np.cos(safe)) / safe**2)
    return np.asarray(np.eye(3) + a * k + b * (k @ k))


def rot_log(r: ArrayLike) -> Floats:
    """Returns the (..., 3) rotation vectors of rotation matrices, lengths in [0, π]."""
    return quat_log(quat_from_r(r))


def r_from_ypr(yaw_rad: ArrayLike, pitch_rad: ArrayLike, roll_rad: ArrayLike) -> Floats:
    """Returns the (..., 3, 3) rotations body → NED, Rz(yaw)·Ry(pitch)·Rx(roll)."""
    angles = np.broadcast_arrays(
        *(np.asarray(a, np.float64) for a in (yaw_rad, pitch_rad, roll_rad))
    )
    (cy, cp, cr), (sy, sp, sr) = np.cos(angles), np.sin(angles)
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def ypr_from_r(r: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Returns yaw, pitch, roll in radians of rotations body → NED.

    At pitch ±90° only one combination of yaw and roll is defined; roll is then given as 0.
    """
    r = np.asarray(r, dtype=np.float64)
    cos_pitch = np.hypot(r[..., 0, 0], r[..., 1, 0])
    pitch = np.arctan2(-r[..., 2, 0], cos_pitch)
    locked = cos_pitch < GIMBAL_LOCK_COS
    yaw = np.where(
        locked,
        np.arctan2(-r[..., 0, 1], r[..., 1, 1]),
        np.arctan2(r[..., 1, 0], r[..., 0, 0]),
    )
    roll = np.where(locked, 0.0, np.arctan2(r[..., 2, 1], r[..., 2, 2]))
    return yaw, np.asarray(pitch), roll


def r_ned_cam_from_ypr(yaw_rad: ArrayLike, pitch_rad: ArrayLike, roll_rad: ArrayLike) -> Floats:
    """Returns the (..., 3, 3) rotations camera → NED of a camera's yaw, pitch, roll."""
    return np.asarray(r_from_ypr(yaw_rad, pitch_rad, roll_rad) @ A_BODY_CAM)


def ypr_from_r_ned_cam(r_ned_cam: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Returns the camera's yaw, pitch, roll in radians of rotations camera → NED."""
    return ypr_from_r(np.asarray(r_ned_cam, dtype=np.float64) @ A_BODY_CAM.T)


def quat_from_r(r: ArrayLike) -> Floats:
    """Returns the (..., 4) unit quaternions of rotation matrices, w ≥ 0 (Shepperd 1978)."""
    r = np.asarray(r, dtype=np.float64)
    xx, yy, zz = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    yx, xy = r[..., 1, 0], r[..., 0, 1]
    zx, xz = r[..., 2, 0], r[..., 0, 2]
    zy, yz = r[..., 2, 1], r[..., 1, 2]
    rows = [
        [1 + xx + yy + zz, zy - yz, xz - zx, yx - xy],
        [zy - yz, 1 + xx - yy - zz, yx + xy, xz + zx],
        [xz - zx, yx + xy, 1 - xx + yy - zz, zy + yz],
        [yx - xy, xz + zx, zy + yz, 1 - xx - yy + zz],
    ]
    products = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    largest = np.argmax(np.diagonal(products, axis1=-2, axis2=-1), axis=-1)
    q = np.take_along_axis(products, largest[..., None, None], axis=-2)[..., 0, :]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    return np.asarray(np.where(q[..., :1] < 0, -q, q), dtype=np.float64)


def r_from_quat(q: ArrayLike) -> Floats:
    """Returns the (..., 3, 3) rotations of quaternions (normalised here)."""
    q = np.asarray(q, dtype=np.float64)
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quat_mul(a: ArrayLike, b: ArrayLike) -> Floats:
    """Returns the quaternion products a ⊗ b: first b's rotation, then a's."""
    aw, ax, ay, az = np.moveaxis(np.asarray(a, dtype=np.float64), -1, 0)
    bw, bx, by, bz = np.moveaxis(np.asarray(b, dtype=np.float64), -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


def quat_conj(q: ArrayLike) -> Floats:
    """Returns the conjugate quaternions: the inverse rotations."""
    return np.asarray(np.asarray(q, dtype=np.float64) * [1.0, -1.0, -1.0, -1.0], dtype=np.float64)


def quat_exp(rotvec: ArrayLike) -> Floats:
    """Returns the (..., 4) unit quaternions of rotation vectors."""
    v = np.asarray(rotvec, dtype=np.float64)
    half = 0.5 * np.linalg.norm(v, axis=-1, keepdims=True)
    small = half < SMALL_ANGLE_RAD
    scale = np.where(small, 0.5, 0.5 * np.sin(half) / np.where(small, 1.0, half))
    return np.concatenate([np.cos(half), scale * v], axis=-1)


def quat_log(q: ArrayLike) -> Floats:
    """Returns the (..., 3) rotation vectors of unit quaternions, lengths in [0, π]."""
    q = np.asarray(q, dtype=np.float64)
    q = np.where(q[..., :1] < 0, -q, q)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2.0 * np.arctan2(sine, q[..., :1])
    small = sine < SMALL_ANGLE_RAD
    return np.asarray(q[..., 1:] * np.where(small, 2.0, angle / np.where(small, 1.0, sine)))
