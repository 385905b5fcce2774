"""What the simulated autopilot says: real MAVLink 2 messages, with the flight's errors in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("MAVLINK20", "1")
from pymavlink.dialects.v20 import ardupilotmega as mav

from calibration.geodesy import geoid_m, offset_enu
from calibration.rotations import quat_from_r, rot_exp, ypr_from_r
from onboard.simulator.errors_of_flight import FIX_NOISE_M, FlightErrors
from onboard.simulator.motion import STEP_S, Motion

Floats = NDArray[np.float64]
Message: TypeAlias = mav.MAVLink_message

STREAMS_HZ: dict[str, float] = {
    "HEARTBEAT": 1.0,
    "ATTITUDE": 20.0,
    "ATTITUDE_QUATERNION": 20.0,
    "GLOBAL_POSITION_INT": 10.0,
    "GPS_RAW_INT": 5.0,
    "SYSTEM_TIME": 1.0,
    "EXTENDED_SYS_STATE": 2.0,
    "TERRAIN_REPORT": 1.0,
    "VFR_HUD": 2.0,
    "SYS_STATUS": 1.0,
}
"""What it can stream, with the rates that a companion usually asks for."""

FIRST_FIX_S = 4.0
"""Until then GNSS has no fix and SYSTEM_TIME no UNIX time."""

SENSORS = (
    mav.MAV_SYS_STATUS_SENSOR_3D_GYRO
    | mav.MAV_SYS_STATUS_SENSOR_3D_ACCEL
    | mav.MAV_SYS_STATUS_SENSOR_3D_MAG
    | mav.MAV_SYS_STATUS_SENSOR_ABSOLUTE_PRESSURE
    | mav.MAV_SYS_STATUS_SENSOR_GPS
    | mav.MAV_SYS_STATUS_AHRS
    | mav.MAV_SYS_STATUS_SENSOR_BATTERY
    | mav.MAV_SYS_STATUS_PREARM_CHECK
)

CRUISE_MODE, GROUND_MODE = 3, 5
"""ArduCopter's AUTO and LOITER."""


class Telemetry:
    """The autopilot's messages at any time of a flight.

    Args:
        motion: How it really moves.
        errors: What is wrong with what it knows.
        t0_unix_s: UNIX time of its boot.
        ground_alt_m: Ellipsoidal height of home.
        seed: Of the white noise of fixes.
        feedback_pin: Whether the camera's hot shoe is wired: CAMERA_FEEDBACK then carries boot
            time (wrapping at 71.6 min), else UNIX time.
    """

    def __init__(
        self,
        motion: Motion,
        errors: FlightErrors,
        t0_unix_s: float,
        seed: int = 0,
        feedback_pin: bool = False,
    ) -> None:
        self.motion, self.errors = motion, errors
        self.t0_unix_s = t0_unix_s
        self.feedback_pin = feedback_pin
        self._seed = seed
        heading = np.array([0.0, 0.0, errors.bias_heading_rad])
        self._r_ned_body = rot_exp(errors.turn_ned_rad + heading) @ motion.r_ned_body
        self._ypr = np.stack(ypr_from_r(self._r_ned_body), axis=1)
        self._q = quat_from_r(self._r_ned_body)
        wander = errors.position_enu_m.copy()
        wander[:, :2] += errors.bias_enu_m[:2]
        alt = motion.xyz_m[:, 2]
        self._lat, self._lon, fused = offset_enu(motion.lat_deg, motion.lon_deg, alt, wander)
        self._geoid_m = float(geoid_m(motion.lat_deg[:1], motion.lon_deg[:1])[0])
        self._alt_msl = fused + errors.baro_m - self._geoid_m
        self._home_msl = float(self._alt_msl[0])
        self._makers: dict[str, Callable[[int], Message]] = {
            "HEARTBEAT": self._heartbeat,
            "ATTITUDE": self._attitude,
            "ATTITUDE_QUATERNION": self._attitude_quaternion,
            "GLOBAL_POSITION_INT": self._global_position_int,
            "GPS_RAW_INT": self._gps_raw_int,
            "SYSTEM_TIME": self._system_time,
            "EXTENDED_SYS_STATE": self._extended_sys_state,
            "TERRAIN_REPORT": self._terrain_report,
            "VFR_HUD": self._vfr_hud,
            "SYS_STATUS": self._sys_status,
            "HOME_POSITION": self._home_position,
        }

    def knows(self, name: str) -> bool:
        """Returns whether it can stream a message of this name."""
        return name in self._makers

    def message(self, name: str, t_boot_s: float) -> Message:
        """Returns the message as it stands at a boot time."""
        return self._makers[name](self.motion.index_at(t_boot_s + 1e-6))

    def camera_feedback(self, number: int, t_boot_s: float) -> Message:
        """Returns CAMERA_FEEDBACK of the exposure with this number (its angles: the vehicle's)."""
        i = self.motion.index_at(t_boot_s)
        if self.feedback_pin:
            stamp = round(t_boot_s * 1e6) & 0xFFFFFFFF
        else:
            stamp = round((self.t0_unix_s + t_boot_s) * 1e6)
        yaw, pitch, roll = np.degrees(self._ypr[i])
        alt = float(self._alt_msl[i])
        return mav.MAVLink_camera_feedback_message(
            time_usec=stamp, target_system=0, cam_idx=0, img_idx=number, lat=self._e7(self._lat[i]),
            lng=self._e7(self._lon[i]), alt_msl=alt, alt_rel=alt - self._home_msl, roll=roll,
            pitch=pitch, yaw=yaw % 360, foc_len=0.0, flags=0, completed_captures=number,
        )  # fmt: skip

    def timesync(self, t_boot_s: float, ts1_ns: int) -> Message:
        """Returns the answer to a TIMESYNC request."""
        return mav.MAVLink_timesync_message(tc1=round(t_boot_s * 1e9), ts1=ts1_ns)

    def armed(self, t_boot_s: float) -> bool:
        """Returns whether the motors are armed: from shortly before take-off to after landing."""
        flying = self.motion.t_boot_s[self.motion.airborne]
        return bool(flying[0] - 4.0 <= t_boot_s <= flying[-1] + 2.0)

    @staticmethod
    def _e7(degrees: float) -> int:
        return round(float(degrees) * 1e7)

    def _ms(self, i: int) -> int:
        return round(float(self.motion.t_boot_s[i]) * 1000)

    def _heartbeat(self, i: int) -> Message:
        armed = self.armed(float(self.motion.t_boot_s[i]))
        mode = mav.MAV_MODE_FLAG_CUSTOM_MODE_ENABLED | mav.MAV_MODE_FLAG_STABILIZE_ENABLED
        flying = bool(self.motion.airborne[i])
        return mav.MAVLink_heartbeat_message(
            type=mav.MAV_TYPE_QUADROTOR,
            autopilot=mav.MAV_AUTOPILOT_ARDUPILOTMEGA,
            base_mode=mode | (mav.MAV_MODE_FLAG_SAFETY_ARMED if armed else 0),
            custom_mode=CRUISE_MODE if flying else GROUND_MODE,
            system_status=mav.MAV_STATE_ACTIVE if flying else mav.MAV_STATE_STANDBY,
            mavlink_version=3,
        )

    def _attitude(self, i: int) -> Message:
        yaw, pitch, roll = self._ypr[i]
        p, q, r = self.motion.rates_rps[i]
        return mav.MAVLink_attitude_message(self._ms(i), roll, pitch, yaw, p, q, r)

    def _attitude_quaternion(self, i: int) -> Message:
        w, x, y, z = self._q[i]
        p, q, r = self.motion.rates_rps[i]
        return mav.MAVLink_attitude_quaternion_message(self._ms(i), w, x, y, z, p, q, r)

    def _global_position_int(self, i: int) -> Message:
        v = [round(float(c) * 100) for c in self.motion.v_ned_mps[i]]
        heading = round(float(np.degrees(self._ypr[i, 0])) % 360 * 100) % 36000
        alt_mm = round(float(self._alt_msl[i]) * 1000)
        above_home = round((float(self._alt_msl[i]) - self._home_msl) * 1000)
        return mav.MAVLink_global_position_int_message(
            self._ms(i), self._e7(self._lat[i]), self._e7(self._lon[i]), alt_mm, above_home,
            v[0], v[1], v[2], heading,
        )  # fmt: skip

    def _gps_raw_int(self, i: int) -> Message:
        t = float(self.motion.t_boot_s[i])
        fixed = t >= FIRST_FIX_S
        noise = np.random.default_rng([self._seed, i]).standard_normal(3) * FIX_NOISE_M
        lat, lon, alt = offset_enu(
            self.motion.lat_deg[i], self.motion.lon_deg[i], self.motion.xyz_m[i, 2],
            self.errors.bias_enu_m + noise,
        )  # fmt: skip
        v = self.motion.v_ned_mps[i]
        speed = float(np.hypot(v[0], v[1]))
        return mav.MAVLink_gps_raw_int_message(
            time_usec=round(t * 1e6),
            fix_type=3 if fixed else 1,
            lat=self._e7(float(lat)) if fixed else 0,
            lon=self._e7(float(lon)) if fixed else 0,
            alt=round((float(alt) - self._geoid_m) * 1000) if fixed else 0,
            eph=70 if fixed else 65535,
            epv=110 if fixed else 65535,
            vel=round(speed * 100),
            cog=round(float(np.degrees(np.arctan2(v[1], v[0]))) % 360 * 100) % 36000,
            satellites_visible=17 if fixed else 3,
            alt_ellipsoid=round(float(alt) * 1000) if fixed else 0,
            h_acc=round(self.errors.h_acc_m * 1000) if fixed else 0,
            v_acc=round(self.errors.v_acc_m * 1000) if fixed else 0,
            vel_acc=120,
            hdg_acc=0,
            yaw=0,
        )

    def _system_time(self, i: int) -> Message:
        t = float(self.motion.t_boot_s[i])
        unix_us = round((self.t0_unix_s + t) * 1e6) if t >= FIRST_FIX_S else 0
        return mav.MAVLink_system_time_message(unix_us, self._ms(i))

    def _extended_sys_state(self, i: int) -> Message:
        flying = self.motion.airborne
        state = mav.MAV_LANDED_STATE_ON_GROUND
        if flying[i]:
            state = mav.MAV_LANDED_STATE_IN_AIR
            if i + round(6.0 / STEP_S) < len(flying) and not flying[i + round(6.0 / STEP_S)]:
                state = mav.MAV_LANDED_STATE_LANDING
            elif not flying[max(0, i - round(5.0 / STEP_S))]:
                state = mav.MAV_LANDED_STATE_TAKEOFF
        return mav.MAVLink_extended_sys_state_message(mav.MAV_VTOL_STATE_UNDEFINED, state)

    def _terrain_report(self, i: int) -> Message:
        """Returns TERRAIN_REPORT without terrain: its "height above ground" is above sea level."""
        alt = float(self._alt_msl[i])
        return mav.MAVLink_terrain_report_message(
            self._e7(self._lat[i]), self._e7(self._lon[i]), 0, 0.0, alt, 0, 0
        )

    def _vfr_hud(self, i: int) -> Message:
        v = self.motion.v_ned_mps[i]
        speed = float(np.hypot(v[0], v[1]))
        heading = round(float(np.degrees(self._ypr[i, 0]))) % 360
        return mav.MAVLink_vfr_hud_message(
            speed, speed, heading, 40 if self.motion.airborne[i] else 0,
            float(self._alt_msl[i]), -float(v[2]),
        )  # fmt: skip

    def _home_position(self, i: int) -> Message:
        lat, lon = self._e7(self._lat[0]), self._e7(self._lon[0])
        alt_mm = round(self._home_msl * 1000)
        return mav.MAVLink_home_position_message(
            lat, lon, alt_mm, 0, 0, 0, [1, 0, 0, 0], 0, 0, 0, round(self.motion.t_boot_s[i] * 1e6)
        )

    def _sys_status(self, i: int) -> Message:
        used = float(self.motion.t_boot_s[i]) / 1200
        healthy = SENSORS | mav.MAV_SYS_STATUS_GEOFENCE
        return mav.MAVLink_sys_status_message(
            SENSORS, SENSORS, healthy, 250, round(16400 - 2200 * used), 1800,
            round(100 - 70 * used), 0, 0, 0, 0, 0, 0,
        )  # fmt: skip
