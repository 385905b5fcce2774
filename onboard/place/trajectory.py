"""Where the vehicle was and how it was turned at an exposure: telemetry buffered by boot time.

Each kind of message has its own sorted samples. Positions are Hermite cubics on position and
velocity, attitudes on quaternion and rate. GNSS heights level the drifting barometric height.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from calibration.geodesy import geoid_m
from calibration.rig import Defaults, Rig
from calibration.rotations import (
    A_BODY_CAM,
    r_from_quat,
    r_from_ypr,
    rot_log,
    ypr_from_r,
)
from onboard.place.hermite import Samples
from onboard.place.vehicle_state import (
    EXTRAPOLATED_MPS2,
    EXTRAPOLATED_RAD_PER_S,
    GAP_M_PER_S2,
    GAP_TILT_RAD_PER_S2,
    LEVEL_FIXES,
    NO_GIMBAL_SIGMA_RAD,
    AttitudeStream,
    Epoch,
    State,
    accuracies,
    angles,
    as_quaternion,
    at_camera,
    attitude_at,
    gimbal_at,
    grown,
    mark,
    position_at,
    windowed_median,
)
from onboard.records import Floats, HeightDatum, Poses


class PoseBuffer:
    """Telemetry by boot time, and the camera's pose at any time it brackets. Thread-safe.

    Args:
        horizon_s: How much is kept behind the newest sample; ``None`` keeps all (logs).

    Attributes:
        notes: What concerns the whole flight (heights, gimbal), each once.
    """

    def __init__(self, horizon_s: float | None = None) -> None:
        self.horizon_s = horizon_s
        self.notes: list[str] = []
        self._epochs = [Epoch()]
        self._lock = threading.RLock()

    # ---- what comes in

    def add_attitude(
        self,
        t_boot_s: float,
        attitude: ArrayLike,
        rates_body_rps: Sequence[float] = (np.nan, np.nan, np.nan),
        stream: AttitudeStream = "euler",
    ) -> None:
        """Adds an attitude body → NED, (4,) quaternion or (3, 3) matrix, with its body rates."""
        q = as_quaternion(attitude)
        with self._lock:
            samples = getattr(self._epochs[-1], stream)
            samples.add(t_boot_s, (*q, *rates_body_rps))
            self._forget(samples, t_boot_s)

    def add_position(
        self,
        t_boot_s: float,
        lat_deg: float,
        lon_deg: float,
        alt_m: float,
        datum: HeightDatum,
        v_ned_mps: Sequence[float] = (np.nan, np.nan, np.nan),
    ) -> None:
        """Adds the autopilot's own position with its velocity north, east, down."""
        with self._lock:
            epoch = self._epochs[-1]
            epoch.datum = datum
            epoch.position.add(t_boot_s, (lat_deg, lon_deg, alt_m, *v_ned_mps))
            self._forget(epoch.position, t_boot_s)

    def add_gps(
        self,
        t_boot_s: float,
        lat_deg: float,
        lon_deg: float,
        alt_m_geoid: float,
        alt_m_ellipsoid: float = np.nan,
        h_acc_m: float = np.nan,
        v_acc_m: float = np.nan,
    ) -> None:
        """Adds a GNSS fix; accuracies and ellipsoidal height are NaN where unknown."""
        row = (lat_deg, lon_deg, alt_m_geoid, alt_m_ellipsoid, h_acc_m, v_acc_m)
        with self._lock:
            self._epochs[-1].gps.add(t_boot_s, row)
            self._forget(self._epochs[-1].gps, t_boot_s)

    def add_gimbal(self, t_boot_s: float, q: ArrayLike, yaw_earth: bool) -> None:
        """Adds a gimbal's attitude; its yaw is from north, or else from the vehicle's heading."""
        with self._lock:
            row = (*as_quaternion(q), 1.0 if yaw_earth else 0.0)
            self._epochs[-1].gimbal.add(t_boot_s, row)
            self._forget(self._epochs[-1].gimbal, t_boot_s)

    def note_epoch(self) -> None:
        """Starts anew after a reboot; a live buffer forgets what was before."""
        with self._lock:
            if self.horizon_s is not None:
                self._epochs.clear()
            self._epochs.append(Epoch())

    # ---- what goes out

    @property
    def epochs(self) -> int:
        """Number of runs of the autopilot that are kept."""
        return len(self._epochs)

    def span_s(self, epoch: int = -1) -> tuple[float, float]:
        """Returns the boot times between which position and attitude are known; NaN if nowhere."""
        with self._lock:
            run = self._epochs[epoch]
            attitudes = [s for s in (run.quaternion, run.euler) if len(s)]
            positions = run.position if len(run.position) else run.gps
            if not attitudes or not len(positions):
                return np.nan, np.nan
            first = max(min(s.t[0] for s in attitudes), positions.t[0])
            return float(first), float(min(max(s.t[-1] for s in attitudes), positions.t[-1]))

    def ready(self, t_boot_s: float, needs_gimbal: bool = False) -> bool:
        """Returns whether position and attitude bracket an exposure time."""
        with self._lock:
            first, last = self.span_s()
            gimbal = self._epochs[-1].gimbal
            waits = needs_gimbal and len(gimbal) > 0 and gimbal.t[-1] < t_boot_s
            return bool(first <= t_boot_s <= last) and not waits

    def newest_s(self) -> float:
        """Returns the newest time that position and attitude both reach; NaN before that."""
        return self.span_s()[1]

    def pose_at(
        self, t_boot_s: ArrayLike, frames: Sequence[str], rig: Rig | None, epoch: int = -1
    ) -> Poses:
        """Returns the camera's poses at exposures; frames without telemetry are left out.

        Args:
            t_boot_s: (n,) stamps; the rig's clock offset is added here.
            frames: n names.
            rig: Mount, lever arm, clock and default σ; without it the camera is taken to look
                straight down with its top to the nose, in the vehicle's reference point.
            epoch: Which run of the autopilot; the newest by default.
        """
        stamps = np.atleast_1d(np.asarray(t_boot_s, dtype=np.float64))
        t = stamps + (rig.clock.offset_s if rig else 0.0)
        with self._lock:
            run = self._epochs[epoch]
            state = self._state(run, t)
            index = np.array([i for i, why in enumerate(state.reason) if not why], dtype=np.int64)
            return self._poses(run, state, t, frames, rig).take(index)

    def why_not(self, t_boot_s: ArrayLike, rig: Rig | None, epoch: int = -1) -> list[str]:
        """Returns for each stamp the code of why it cannot be placed; empty where it can."""
        stamps = np.atleast_1d(np.asarray(t_boot_s, dtype=np.float64))
        with self._lock:
            offset_s = rig.clock.offset_s if rig else 0.0
            return self._state(self._epochs[epoch], stamps + offset_s).reason

    # ---- inside

    def _forget(self, samples: Samples, newest_s: float) -> None:
        if self.horizon_s is not None:
            samples.forget_before(newest_s - self.horizon_s)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _state(self, run: Epoch, t: Floats) -> State:
        n = len(t)
        flags: list[list[str]] = [[] for _ in range(n)]
        reason = ["" if np.isfinite(value) else "no_time" for value in t]
        fixes = run.position if len(run.position) else run.gps
        streams = [s for s in (run.quaternion, run.euler) if len(s)]
        if not len(fixes) or not streams:
            missing = "no_position" if streams else "no_attitude"
            reason = [why or missing for why in reason]
            nans = np.full((n, 3), np.nan)
            turned = np.full((n, 3, 3), np.nan)
            one = np.full(n, np.nan)
            return State(one, one, one, nans, turned, nans, one, one, flags, reason)
        t = np.where(np.isfinite(t), t, 0.0)
        lla, v_ned, spot = position_at(fixes, len(run.position) > 0, t)
        q, omega, turn = attitude_at(run, t)
        extra_m = grown(spot, fixes.t, GAP_M_PER_S2)
        extra_m += 0.5 * EXTRAPOLATED_MPS2 * spot.beyond_s**2
        extra_rad = grown(turn, max(streams, key=len).t, GAP_TILT_RAD_PER_S2)
        extra_rad += EXTRAPOLATED_RAD_PER_S * np.abs(turn.beyond_s)
        mark(flags, reason, (spot, fixes.t), (turn, max(streams, key=len).t))
        r_ned_body = r_from_quat(q)
        return State(
            lla[:, 0], lla[:, 1], lla[:, 2], v_ned, r_ned_body, omega, extra_m, extra_rad,
            flags, reason,
        )  # fmt: skip

    def _poses(
        self, run: Epoch, state: State, t: Floats, frames: Sequence[str], rig: Rig | None
    ) -> Poses:
        flags = state.flags
        datum, alt_m, levelled = self._level(run, state, t)
        for mine in flags if not levelled else []:
            mine.append("height_barometric")
        r_ned_cam, omega_ned, extra_heading = self._camera(run, state, t, rig)
        lat, lon, up, v_ned = at_camera(state, alt_m, rig)
        sigma, bias = accuracies(run, t, rig.defaults if rig else Defaults(), levelled)
        tilt, heading, bias_heading = angles(rig.defaults if rig else Defaults(), len(t))
        return Poses(
            frame=tuple(frames),
            lat_deg=lat,
            lon_deg=lon,
            alt_m=up,
            height_datum=datum,
            r_ned_cam=r_ned_cam,
            r_ned_body=rig.mount.level(state.r_ned_body) if rig else state.r_ned_body,
            v_ned_mps=v_ned,
            omega_ned_rps=omega_ned,
            sigma_enu_m=np.hypot(sigma, state.sigma_extra_m[:, None]),
            sigma_tilt_rad=np.hypot(tilt, state.sigma_extra_rad),
            sigma_heading_rad=np.hypot(heading, state.sigma_extra_rad),
            bias_enu_m=bias,
            bias_heading_rad=np.hypot(bias_heading, extra_heading),
            t_boot_s=t,
            flags=tuple(tuple(mine) for mine in flags),
        )

    def _level(self, run: Epoch, state: State, t: Floats) -> tuple[HeightDatum, Floats, bool]:
        """Returns datum, heights levelled by GNSS, and whether there were fixes to do it."""
        if run.datum not in ("egm96", "ellipsoid"):
            return run.datum, state.alt_m, False
        known = np.isfinite(state.lat_deg)
        n_m = np.zeros(len(t))
        if run.datum == "egm96" and known.any():
            n_m[known] = geoid_m(state.lat_deg[known], state.lon_deg[known])
        alt_m = state.alt_m + n_m
        if len(run.gps) < LEVEL_FIXES or not len(run.position) or not known.any():
            return "ellipsoid", alt_m, len(run.position) == 0
        typical_n = float(geoid_m(run.gps.x[:1, 0], run.gps.x[:1, 1])[0])
        off = self._gnss_minus_baro(run, typical_n)
        level = windowed_median(run.gps.t, off, t)
        good = np.isfinite(level)
        if good.any():
            self._note(f"GNSS levels the barometric height by {np.nanmedian(level):+.1f} m")
        return "ellipsoid", alt_m + np.where(good, level, 0.0), bool(good.all())

    def _gnss_minus_baro(self, run: Epoch, n_m: float) -> Floats:
        """Returns for each fix its ellipsoidal height minus that of the fused position."""
        alt_geoid, alt_ellipsoid = run.gps.x[:, 2], run.gps.x[:, 3]
        said = np.isfinite(alt_ellipsoid)
        same = said & (np.abs(alt_ellipsoid - alt_geoid) < 0.01) & (abs(n_m) > 0.5)
        if same.any():
            self._note("GPS_RAW_INT.alt_ellipsoid repeats alt: alt is read as height above EGM96")
        height = np.where(said & ~same, alt_ellipsoid, alt_geoid + n_m)
        lla, _, spot = position_at(run.position, True, run.gps.t)
        baro = lla[:, 2] + (n_m if run.datum == "egm96" else 0.0)
        usable = (spot.beyond_s == 0.0) & (spot.gap_s < 2.0)
        return np.asarray(np.where(usable, height - baro, np.nan))

    def _camera(
        self, run: Epoch, state: State, t: Floats, rig: Rig | None
    ) -> tuple[Floats, Floats, Floats]:
        """Returns camera attitude, its rate in NED, and what heading σ grows by."""
        none = np.zeros(len(t))
        omega_ned = (state.r_ned_body @ state.omega_body[..., None])[..., 0]
        if rig is None:
            return state.r_ned_body @ r_from_ypr(0.0, -np.pi / 2, 0.0) @ A_BODY_CAM, omega_ned, none
        if rig.mount.type == "fixed":
            return rig.mount.r_ned_cam(state.r_ned_body), omega_ned, none
        if not len(run.gimbal):
            yaw, _, _ = ypr_from_r(state.r_ned_body)
            for mine in state.flags:
                mine.append("no_gimbal_attitude")
            r_gimbal = r_from_ypr(yaw, np.full(len(t), -np.pi / 2), none)
            return rig.mount.r_ned_cam(r_gimbal @ A_BODY_CAM), omega_ned, none + NO_GIMBAL_SIGMA_RAD
        r_now = rig.mount.r_ned_cam(gimbal_at(run, t, state.r_ned_body) @ A_BODY_CAM)
        step = 0.05
        later = gimbal_at(run, t + step, r_from_quat(attitude_at(run, t + step)[0])) @ A_BODY_CAM
        turned = rig.mount.r_ned_cam(later) @ np.swapaxes(r_now, 1, 2)
        known = np.isfinite(turned).all(axis=(1, 2))
        rate = np.full((len(t), 3), np.nan)
        rate[known] = rot_log(turned[known]) / step
        return r_now, rate, none
