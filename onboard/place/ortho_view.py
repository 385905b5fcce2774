"""One frame as seen from the ground: map points to source pixels and back, row by row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from calibration.camera import Camera
from calibration.geodesy import LocalMap, MapFrame
from calibration.rig import Rig
from calibration.rotations import ENU_FROM_NED
from onboard.place.first_hit import first_hit
from onboard.place.geotag import row_time_s, scene_centres
from onboard.place.surface import Terrain
from onboard.records import Floats, Poses

ROW_STEPS = 3
"""Fixed-point steps between a point's row and the pose of that row (each gains 2-3 digits)."""


@dataclass(frozen=True)
class FrameView:
    """One placed frame: its camera, where it stood, how it moved while its rows were read.

    Attributes:
        rig: Camera, and the clock by which its rows are read.
        terrain: The ground.
        map_frame: The map.
        local: The map at the camera (n = 1).
        centre_m: (3,) map x, y and height of the projection centre at the middle row.
        r_cam_ned: (3, 3) NED to camera axes at the middle row.
        v_ned_mps: (3,) velocity; 0 where unknown.
        omega_ned_rps: (3,) angular rate; 0 where unknown.
    """

    rig: Rig
    terrain: Terrain
    map_frame: MapFrame
    local: LocalMap
    centre_m: Floats
    r_cam_ned: Floats
    v_ned_mps: Floats
    omega_ned_rps: Floats

    @classmethod
    def of(cls, pose: Poses, rig: Rig, terrain: Terrain, map_frame: MapFrame) -> FrameView:
        """Returns the view of a set of one pose."""
        if len(pose) != 1:
            raise ValueError(f"one pose is needed, not {len(pose)}")
        return cls(
            rig=rig,
            terrain=terrain,
            map_frame=map_frame,
            local=map_frame.local(pose.lat_deg, pose.lon_deg),
            centre_m=scene_centres(pose, map_frame, terrain.datum)[0],
            r_cam_ned=pose.r_ned_cam[0].T,
            v_ned_mps=np.nan_to_num(pose.v_ned_mps[0]),
            omega_ned_rps=np.nan_to_num(pose.omega_ned_rps[0]),
        )

    @property
    def camera(self) -> Camera:
        """The rig's camera."""
        return self.rig.camera

    @property
    def rolls(self) -> bool:
        """Whether rows differ in their pose."""
        moves = bool(np.any(self.v_ned_mps) or np.any(self.omega_ned_rps))
        return self.rig.clock.readout_s != 0.0 and moves

    def to_pixel(self, x_m: Floats, y_m: Floats, z_m: Floats) -> Floats:
        """Returns the (n, 2) source pixels that see ground points; NaN where none does.

        Args:
            x_m: (n,) map x.
            y_m: (n,) map y.
            z_m: (n,) height in the terrain's datum; NaN where there is no ground.
        """
        return self.to_pixel_and_depth(x_m, y_m, z_m)[0]

    def to_pixel_and_depth(self, x_m: Floats, y_m: Floats, z_m: Floats) -> tuple[Floats, Floats]:
        """Returns source pixels (n, 2) and depths (n,) along the optical axis, metres."""
        ned = self.ned_from_centre(x_m, y_m, z_m)
        uv = self.camera.project(ned @ self.r_cam_ned.T)
        if self.rolls:
            for _ in range(ROW_STEPS):
                t = np.nan_to_num(row_time_s(uv[:, 1], self.rig))
                uv = self.camera.project(self._at_time(ned, t) @ self.r_cam_ned.T)
        return uv, np.abs(ned @ self.r_cam_ned[2])

    def ned_from_centre(self, x_m: Floats, y_m: Floats, z_m: Floats) -> Floats:
        """Returns (n, 3) local NED vectors from the middle row's centre to ground points.

        The inverse of k·R/(R+h)·Rz(γ)·ENU; the Earth's curvature s²/2R comes off the height.
        """
        dx, dy = np.asarray(x_m) - self.centre_m[0], np.asarray(y_m) - self.centre_m[1]
        k, radius = float(self.local.scale[0]), float(self.local.radius_m[0])
        gamma = float(self.local.convergence_rad[0])
        grow = (1.0 + np.asarray(z_m) / radius) / k
        c, s = np.cos(gamma), np.sin(gamma)
        out = np.empty((np.size(dx), 3))
        out[:, 1] = (c * dx + s * dy) * grow
        out[:, 0] = (c * dy - s * dx) * grow
        drop = (out[:, 0] ** 2 + out[:, 1] ** 2) / (2.0 * radius)
        out[:, 2] = self.centre_m[2] - z_m + drop
        return out

    def rays_enu(self, uv: Floats) -> tuple[Floats, Floats]:
        """Returns origins (n, 3) on the map and rays (n, 3) in local ENU of source pixels."""
        ned = self.camera.unproject(uv) @ self.r_cam_ned
        origin = np.tile(self.centre_m, (len(uv), 1))
        if self.rolls:
            t = row_time_s(np.asarray(uv)[:, 1], self.rig)
            ned = _turn(ned, self.omega_ned_rps, t)
            moved = t[:, None] * self.v_ned_mps
            dx, dy = self.map_frame.offset(
                self.local, moved[:, 1], moved[:, 0], np.full(len(t), self.centre_m[2])
            )
            origin = origin + np.stack([dx, dy, -moved[:, 2]], axis=1)
        return origin, ned @ ENU_FROM_NED.T

    def to_ground(self, uv: Floats) -> Floats:
        """Returns (n, 3) map x, y and height of the first ground that source pixels see.

        NaN where a ray meets no ground.
        """
        uv = np.asarray(uv, float).reshape(-1, 2)
        origin, rays = self.rays_enu(uv)
        local = self.local.take(np.zeros(len(uv), np.int64))
        hits = first_hit(self.terrain, self.map_frame, origin, local, rays)
        return np.stack([hits.x_m, hits.y_m, hits.z_m], axis=1)

    def gsd_m(self, uv: Floats | None = None) -> float:
        """Returns the median ground sample distance around pixels (a 3×3 lattice by default)."""
        if uv is None:
            u = np.linspace(0.25, 0.75, 3) * (self.camera.width_px - 1)
            v = np.linspace(0.25, 0.75, 3) * (self.camera.height_px - 1)
            uv = np.stack(np.meshgrid(u, v), -1).reshape(-1, 2)
        here = self.to_ground(uv)[:, :2]
        right = self.to_ground(np.add(uv, (1.0, 0.0)))[:, :2]
        down = self.to_ground(np.add(uv, (0.0, 1.0)))[:, :2]
        a, b = right - here, down - here
        area = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
        return float(np.nanmedian(np.sqrt(area))) if np.isfinite(area).any() else float("nan")

    def _at_time(self, ned: Floats, t_s: Floats) -> Floats:
        """Returns vectors from the centre, in the middle row's camera world, at row times."""
        return _turn(ned - t_s[:, None] * self.v_ned_mps, self.omega_ned_rps, -t_s)


def _turn(vectors: Floats, rate_rps: Floats, t_s: Floats) -> Floats:
    """Returns (n, 3) vectors turned by a constant rate for times (n,) (Rodrigues)."""
    rate = float(np.linalg.norm(rate_rps))
    if rate == 0.0:
        return vectors
    axis = rate_rps / rate
    c, s = np.cos(rate * t_s)[:, None], np.sin(rate * t_s)[:, None]
    along = (vectors @ axis)[:, None] * axis
    return np.asarray(vectors * c + np.cross(axis, vectors) * s + along * (1.0 - c))
