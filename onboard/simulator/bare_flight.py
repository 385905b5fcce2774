"""A banking flight without pictures: true motion, telemetry with its errors, exact observations.

For what depends on geometry alone: alignment, refinement, ellipses. A fixed camera looks down from
an aircraft that weaves; it is late and askew, and the barometer stretches heights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS
from scipy.ndimage import gaussian_filter

from calibration.camera import Camera
from calibration.geodesy import MapFrame, geoid_m
from calibration.rig import Clock, Mount, Rig
from calibration.rotations import A_BODY_CAM, quat_from_r, r_from_ypr, rot_exp, rot_log
from onboard.place.ortho_view import FrameView
from onboard.place.terrain import GridTerrain
from onboard.place.trajectory import PoseBuffer
from onboard.records import Floats, Poses
from onboard.ties import Ties

MAP = MapFrame(CRS.from_epsg(32632))
X0, Y0, GROUND_M = 500_300.0, 5_200_300.0, 420.0
GRAVITY = 9.81
CAMERA = Camera("opencv", 1600, 1200, 1300.0, 1300.0, 799.5, 599.5)
LEAST_COMMON = 4

Motion = tuple[Floats, Floats, Floats]
"""Map x, y from the corner and height (n, 3), velocity NED (n, 3), body → NED (n, 3, 3)."""
State = Callable[[Floats], Motion]


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong with a flight.

    Attributes:
        late_s: How much later than its stamp the camera exposes.
        askew_deg: Turn of the camera about its right, down and forward axis.
        barometer: Share by which the barometer stretches heights above take-off.
        gnss_height: Whether GNSS heights are there to level it.
        heading_deg: Error of the compass.
        tilt_deg: Slow wander of roll and pitch, σ.
        gnss_m: Slow wander of the position, σ.
        dem_m: Error of the DEM that is given, σ.
        pixel: Error of each observation, σ.
    """

    late_s: float = 0.2
    askew_deg: tuple[float, float, float] = (2.0, -1.0, 2.0)
    barometer: float = 0.03
    gnss_height: bool = True
    heading_deg: float = 1.0
    tilt_deg: float = 0.3
    gnss_m: float = 0.4
    dem_m: float = 0.3
    pixel: float = 0.5


class BareFlight:
    """A flight, as a source of poses; the truth beside it.

    Args:
        seed: Ground, wind and errors.
        wrong: What is wrong with it.
        frames: Number of frames, one every 1.5 s.
        height_m: Above the ground.

    Attributes:
        rig: As the crew knows it: straight down, on time.
        true_rig: As it is.
        dem: The ground as given.
        truth: The true poses.
    """

    def __init__(
        self, seed: int, wrong: Wrong = Wrong(), frames: int = 50, height_m: float = 100.0
    ) -> None:
        self.name, self.kind = f"bare-{seed}", "a simulated flight without pictures"
        rng = np.random.default_rng([7, seed])
        self.rng, self.wrong, self.height_m = rng, wrong, height_m
        self._phase = rng.uniform(0, 2 * np.pi, 3)
        down = r_from_ypr(0.0, -np.pi / 2, 0.0)
        askew = A_BODY_CAM @ rot_exp(np.radians(wrong.askew_deg)) @ A_BODY_CAM.T
        self.rig = Rig(CAMERA, Mount("fixed", down), sigma_px=wrong.pixel)
        self.true_rig = replace(
            self.rig, mount=Mount("fixed", down @ askew), clock=Clock(wrong.late_s)
        )
        self.ground, self.dem = self._grounds()
        self.stamps_s = 10.0 + 1.5 * np.arange(frames)
        self.names = [f"f{i:04d}.jpg" for i in range(frames)]
        self.buffer = self._telemetry()
        exact = self._buffer_of(self.true_state, 0.02)
        self.truth = exact.pose_at(self.stamps_s, self.names, self.true_rig)

    def poses(self, rig: Rig | None) -> Poses:
        """Returns the poses as the telemetry has them."""
        return self.buffer.pose_at(self.stamps_s, self.names, rig)

    def ties(self, per_pair: int = 80) -> Ties:
        """Returns ties between frames up to four apart, by what they truly see."""
        parts = []
        views = [self.view(i) for i in range(len(self.names))]
        for a in range(len(views)):
            for b in range(a + 1, min(a + 5, len(views))):
                uv = self.rng.uniform((0, 0), (CAMERA.width_px, CAMERA.height_px), (per_pair, 2))
                xyz = views[a].to_ground(uv)
                there = views[b].to_pixel(*xyz.T)
                seen = np.flatnonzero(CAMERA.inside(there))
                if len(seen) < LEAST_COMMON:
                    continue
                both = [self._observed(uv[seen]), self._observed(there[seen])]
                parts.append((np.full(len(seen), a), np.full(len(seen), b), *both))
        return Ties(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def view(self, i: int) -> FrameView:
        """Returns what a frame truly sees."""
        return FrameView.of(self.truth.take([i]), self.true_rig, self.ground, MAP)

    def marks(self, per_frame: int = 6) -> tuple[NDArray[np.int64], Floats, Floats]:
        """Returns rows (n,), observed pixels (n, 2) and true map x, y (n, 2) of marks."""
        rows, seen, true = [], [], []
        for i in range(len(self.names)):
            size = (CAMERA.width_px, CAMERA.height_px)
            uv = self.rng.uniform((0, 0), size, (per_frame, 2))
            rows.append(np.full(per_frame, i))
            seen.append(self._observed(uv))
            true.append(self.view(i).to_ground(uv)[:, :2])
        return np.concatenate(rows), np.concatenate(seen), np.concatenate(true)

    def true_state(self, t: Floats) -> Motion:
        """Returns how the aircraft truly moves."""
        speed, leg, sway = 15.0, 24.0, np.radians(40.0)
        w = 2 * np.pi / leg
        course = np.radians(60.0) + sway * np.sin(w * t + self._phase[0])
        rate = sway * w * np.cos(w * t + self._phase[0])
        fine = np.linspace(0.0, float(t.max()) + 1e-9, 4000)
        along = np.radians(60.0) + sway * np.sin(w * fine + self._phase[0])
        step = fine[1] - fine[0]
        path = np.cumsum(speed * np.stack([np.sin(along), np.cos(along)], 1), axis=0) * step
        xy = np.stack([np.interp(t, fine, path[:, k]) for k in (0, 1)], axis=1)
        wobble = 1.5 * np.sin(2 * np.pi * t / 17.0 + self._phase[1])
        z = GROUND_M + self.height_m + wobble
        climb = 1.5 * 2 * np.pi / 17.0 * np.cos(2 * np.pi * t / 17.0 + self._phase[1])
        v = np.stack([speed * np.cos(course), speed * np.sin(course), -climb], axis=1)
        roll = np.arctan(speed * rate / GRAVITY)
        pitch = np.radians(4.0) + np.radians(1.5) * np.sin(2 * np.pi * t / 5.0 + self._phase[2])
        return np.column_stack([xy, z]), v, r_from_ypr(course, pitch, roll)

    def _observed(self, uv: Floats) -> Floats:
        return uv + self.rng.normal(0.0, self.wrong.pixel, uv.shape)

    def _grounds(self) -> tuple[GridTerrain, GridTerrain]:
        """Returns the true ground and the DEM that is given."""
        n, post = 500, 4.0
        relief = gaussian_filter(self.rng.normal(size=(n, n)), 12.0)
        relief = GROUND_M + 6.0 * relief / relief.std()
        error = gaussian_filter(self.rng.normal(size=(n, n)), 3.0)
        error *= self.wrong.dem_m / error.std()
        corner = X0 - 600.0, Y0 + 1400.0
        true = GridTerrain(relief, *corner, post, -post)
        given = GridTerrain(
            relief + error, *corner, post, -post, sigma_m=max(self.wrong.dem_m, 0.1)
        )
        return true, given

    def _telemetry(self) -> PoseBuffer:
        wrong = self.wrong
        wander = [self._wander(5.0) for _ in range(2)]
        drift = [self._wander(40.0) for _ in range(3)]

        def said(t: Floats) -> Motion:
            xyz, v, r = self.true_state(t)
            off = np.stack([wrong.gnss_m * d(t) for d in drift], axis=1)
            lean = np.radians(wrong.tilt_deg) * np.stack([w(t) for w in wander], axis=1)
            turn = np.column_stack([lean, np.full(len(t), np.radians(wrong.heading_deg))])
            return xyz + off, v, rot_exp(turn) @ r

        return self._buffer_of(said, 0.1, wrong.barometer, wrong.gnss_height)

    def _wander(self, seconds: float) -> Callable[[Floats], Floats]:
        """Returns a function of time: a random walk around 0, unit σ, of this memory."""
        knots = np.arange(-20.0, 400.0, seconds)
        values = self.rng.normal(size=len(knots))
        return lambda t: np.asarray(np.interp(t, knots, values) * 1.2)

    def _buffer_of(
        self, state: State, step_s: float, stretch: float = 0.0, gnss: bool = True
    ) -> PoseBuffer:
        t = np.arange(0.0, self.stamps_s[-1] + 5.0, step_s)
        xyz, v, r = state(t)
        lat, lon = MAP.to_geographic(X0 + xyz[:, 0], Y0 + xyz[:, 1])
        geoid = geoid_m(lat, lon)
        rates = self._body_rates(state, t)
        buffer = PoseBuffer()
        for i, when in enumerate(t):
            buffer.add_attitude(float(when), quat_from_r(r[i]), rates[i])
            above = (xyz[i, 2] - GROUND_M) * (1.0 + stretch)
            fused = GROUND_M + above - geoid[i]
            buffer.add_position(float(when), lat[i], lon[i], fused, "egm96", v[i])
            if gnss and i % max(1, round(0.2 / step_s)) == 0:
                true = xyz[i, 2]
                buffer.add_gps(float(when), lat[i], lon[i], true - geoid[i], true)
        return buffer

    @staticmethod
    def _body_rates(state: State, t: Floats) -> Floats:
        step = 0.01
        before, after = state(np.maximum(t - step, 0.0))[2], state(t + step)[2]
        span = np.where(t < step, t + step, 2 * step)[:, None]
        return np.asarray(rot_log(np.swapaxes(before, 1, 2) @ after) / span)
