"""Renders frames: exact rays of the true camera, row by row, onto the true ground."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.camera import Camera
from calibration.geodesy import MapFrame, ecef_from_geodetic, geodetic_from_ecef, r_ecef_enu
from calibration.rig import Mount
from calibration.rotations import ENU_FROM_NED
from onboard.simulator.motion import Motion
from onboard.simulator.noise import Floats32
from onboard.simulator.raster import BRIGHTEST, GroundRaster
from onboard.simulator.sensor import Image8, Sensor, expose, vignette_field
from onboard.simulator.world import World

Floats = NDArray[np.float64]

NODE_PX = 16
HIT_STEPS = 10
OUTLINE_STEP = 10


@dataclass(frozen=True, slots=True)
class TruePose:
    """Where the camera really was when the middle row was exposed.

    Attributes:
        lat_deg: Of the projection centre, WGS84.
        lon_deg: Of the projection centre.
        alt_m_ellipsoid: Of the projection centre.
        r_ned_cam: (3, 3) camera axes to NED.
    """

    lat_deg: float
    lon_deg: float
    alt_m_ellipsoid: float
    r_ned_cam: Floats


class TrueCamera:
    """The camera as it really is, over a world as it really is.

    Args:
        world: The world.
        map_frame: The map of the world.
        motion: The true motion of the vehicle.
        camera: The true intrinsics.
        mount: The true mount.
        readout_s: From the first row's exposure to the last row's.
        ground: The painted ground.
        sensor: What the sensor adds.
    """

    def __init__(
        self,
        world: World,
        map_frame: MapFrame,
        motion: Motion,
        camera: Camera,
        mount: Mount,
        readout_s: float,
        ground: GroundRaster,
        sensor: Sensor,
    ) -> None:
        self.world, self.map_frame, self.motion = world, map_frame, motion
        self.camera, self.mount, self.readout_s = camera, mount, readout_s
        self.ground, self.sensor = ground, sensor
        self._columns = _node_positions(camera.width_px)
        self._rows = _node_positions(camera.height_px)
        u, v = np.meshgrid(self._columns, self._rows)
        uv = np.stack([u.ravel(), v.ravel()], axis=1)
        self._rays = camera.unproject(uv).reshape(len(self._rows), len(self._columns), 3)
        self._spread_x = _linear_weights(self._columns, camera.width_px)
        self._spread_y = _linear_weights(self._rows, camera.height_px)
        self._light = vignette_field(camera.height_px, camera.width_px, sensor.vignette)

    def render(self, t_boot_s: float, rng: np.random.Generator) -> Image8:
        """Returns the RGB frame whose middle row is exposed at a boot time."""
        xy = self.node_hits(t_boot_s)
        window = self.ground.window
        col = (xy[..., 0] - window.x0_m) / window.gsd_m
        row = (window.y0_m - xy[..., 1]) / window.gsd_m
        map_x, map_y = self._spread(col), self._spread(row)
        values = cv2.remap(
            np.asarray(self.ground.values), map_x, map_y, cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        radiance = values.astype(np.float32)
        radiance *= radiance
        radiance *= np.float32(BRIGHTEST / 255**2)
        return expose(radiance, self.sensor, self._light, rng)

    def pose(self, t_boot_s: float) -> TruePose:
        """Returns the true pose at a boot time."""
        lat, lon, alt, r = self._poses(np.array([t_boot_s]))
        return TruePose(float(lat[0]), float(lon[0]), float(alt[0]), r[0])

    def node_hits(self, t_boot_s: float, step: int = 1) -> Floats:
        """Returns (rows, columns, 2) map points that the frame's nodes see, each ``step``-th."""
        share = self._rows[::step] / (self.camera.height_px - 1) - 0.5
        lat, lon, alt, r_ned_cam = self._poses(t_boot_s + share * self.readout_s)
        centre = ecef_from_geodetic(lat, lon, alt)[:, None]
        turn = r_ecef_enu(lat, lon) @ ENU_FROM_NED @ r_ned_cam
        rays = np.einsum("rij,rcj->rci", turn, self._rays[::step, ::step])
        rays /= np.linalg.norm(rays, axis=2, keepdims=True)
        up = r_ecef_enu(lat, lon)[:, :, 2]
        sink = -np.einsum("ri,rci->rc", up, rays)
        ground = self.world.height_m(*self.map_frame.to_map(lat, lon))
        reach = (alt - ground)[:, None] / sink
        for _ in range(HIT_STEPS):
            x, y, off = self._above_ground(centre + reach[..., None] * rays)
            reach += off / sink
        return np.stack([x, y], axis=2)

    def outline_m(self, t_boot_s: float) -> Floats:
        """Returns (m, 2) map points of the true footprint's outline."""
        xy = self.node_hits(t_boot_s, OUTLINE_STEP)
        return np.concatenate([xy[0], xy[1:, -1], xy[-1, -2::-1], xy[-2:0:-1, 0]])

    def _above_ground(self, xyz: Floats) -> tuple[Floats, Floats, Floats]:
        """Returns map x, y and height above the true ground of earth-centred points."""
        lat, lon, alt = geodetic_from_ecef(xyz)
        x, y = self.map_frame.to_map(lat.ravel(), lon.ravel())
        x, y = x.reshape(alt.shape), y.reshape(alt.shape)
        return x, y, alt - self.world.height_m(x, y)

    def _poses(self, t_boot_s: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Returns latitude, longitude, height of the projection centre and r_ned_cam at times."""
        xyz, r_ned_body = self.motion.pose_at(t_boot_s)
        lat, lon = self.map_frame.to_geographic(xyz[:, 0], xyz[:, 1])
        lever_enu = (r_ned_body @ self.mount.lever_arm_m) @ ENU_FROM_NED
        centre = ecef_from_geodetic(lat, lon, xyz[:, 2])
        centre += (r_ecef_enu(lat, lon) @ lever_enu[..., None])[..., 0]
        lat, lon, alt = geodetic_from_ecef(centre)
        return lat, lon, alt, self.mount.r_ned_cam(r_ned_body)

    def _spread(self, nodes: Floats) -> Floats32:
        """Returns (h, w) values between the nodes, linear."""
        middle = nodes.mean()
        part = self._spread_y @ (nodes - middle) @ self._spread_x.T
        return np.asarray(part + middle, dtype=np.float32)


def _node_positions(length: int) -> Floats:
    """Returns pixel positions of nodes, the last one at or beyond the edge pixel."""
    return np.arange(0, length - 1 + NODE_PX, NODE_PX, dtype=float)


def _linear_weights(nodes: Floats, length: int) -> Floats:
    """Returns the (length, nodes) weights of linear interpolation at each pixel."""
    pixel = np.arange(length)
    i = np.minimum(pixel // NODE_PX, len(nodes) - 2)
    weights = np.zeros((length, len(nodes)))
    weights[pixel, i] = 1 - (pixel - nodes[i]) / NODE_PX
    weights[pixel, i + 1] = (pixel - nodes[i]) / NODE_PX
    return weights
