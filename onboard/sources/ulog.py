"""PX4's ULog: attitude, position, fixes, gimbal and camera events into the pose buffer."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from pyproj import Proj

from onboard.records import Floats
from onboard.sources.decoded import Telemetry
from onboard.sources.errors import DamagedTelemetryError
from onboard.sources.telemetry import FIX_3D, CameraEvent, EventKind

PX4_EARTH_RADIUS_M = 6371000.0
"""PX4 projects its local position on a sphere (azimuthal equidistant, ``geo.cpp``)."""
YAW_IN_EARTH_FRAME = 64
YAW_LOCK = 16
YAW_IN_VEHICLE_FRAME = 32
TOPICS = (
    "vehicle_attitude",
    "vehicle_angular_velocity",
    "vehicle_global_position",
    "vehicle_local_position",
    "vehicle_gps_position",
    "sensor_gps",
    "gimbal_device_attitude_status",
    "camera_trigger",
    "camera_capture",
)

_Topic = dict[str, Floats]


def take_ulog(telemetry: Telemetry) -> None:
    """Takes a PX4 ``.ulg`` into the telemetry.

    Angles and axes are PX4's: quaternions (w, x, y, z) body FRD → world NED, heights above mean
    sea level, taken as EGM96. https://docs.px4.io/main/en/msg_docs/

    Raises:
        DamagedTelemetryError: It cannot be read.
    """
    topics = _read(telemetry)
    _take_attitudes(topics, telemetry)
    _take_positions(topics, telemetry)
    for fix in _rows(topics.get("vehicle_gps_position") or topics.get("sensor_gps")):
        _take_fix(fix, telemetry)
    for row in _rows(topics.get("gimbal_device_attitude_status")):
        flags = int(row.get("device_flags", 0))
        vehicle = flags & YAW_IN_VEHICLE_FRAME
        earth = bool(flags & YAW_IN_EARTH_FRAME or (flags & YAW_LOCK and not vehicle))
        telemetry.buffer.add_gimbal(row["t_s"], _quaternion(row), earth)
    for kind in ("camera_trigger", "camera_capture"):
        for row in _rows(topics.get(kind)):
            _take_exposure(row, kind, telemetry)


def _read(telemetry: Telemetry) -> dict[str, _Topic]:
    """Returns the first instance of each topic that counts, its columns and ``t_s``."""
    from pyulog import ULog

    try:
        # The reader warns on stdout, which belongs to our own answers.
        with telemetry.path.open("rb") as file, contextlib.redirect_stdout(sys.stderr):
            log = ULog(file, list(TOPICS), disable_str_exceptions=True)
    except Exception as error:
        raise DamagedTelemetryError(
            f"{telemetry.path} cannot be read as a ULog: {error}",
            "give the .ulg as downloaded from the autopilot's card, or the flight's .tlog",
        ) from error
    if log.file_corruption:
        telemetry.notes.append(f"{telemetry.path.name}: parts of it are damaged and were skipped")
    if log.dropouts:
        lost_s = sum(d.duration for d in log.dropouts) * 1e-3
        telemetry.notes.append(
            f"{telemetry.path.name}: the autopilot's log dropped out {len(log.dropouts)} times, "
            f"{lost_s:.1f} s in all"
        )
    topics: dict[str, _Topic] = {}
    for data in sorted(log.data_list, key=lambda data: data.multi_id, reverse=True):
        columns = {k: np.asarray(v, dtype=np.float64) for k, v in data.data.items()}
        topics[data.name] = {**columns, "t_s": columns["timestamp"] * 1e-6}
    return topics


def _rows(topic: _Topic | None) -> Iterator[dict[str, float]]:
    """Yields the samples of a topic that has a time, each by its fields' names."""
    if topic is None:
        return
    names = list(topic)
    for values in zip(*(topic[name].tolist() for name in names), strict=True):
        row = dict(zip(names, values, strict=True))
        if row["t_s"] > 0:
            yield row


def _take_attitudes(topics: dict[str, _Topic], telemetry: Telemetry) -> None:
    rates = topics.get("vehicle_angular_velocity")
    attitude = topics.get("vehicle_attitude")
    if attitude is None:
        return
    names = ("xyz[0]", "xyz[1]", "xyz[2]")
    body = np.full((len(attitude["t_s"]), 3), np.nan)
    if rates is not None and len(rates["t_s"]) > 1:
        columns = [np.interp(attitude["t_s"], rates["t_s"], rates[name]) for name in names]
        body = np.column_stack(columns)
    for row, rate in zip(_rows(attitude), body.tolist(), strict=False):
        q = _quaternion(row)
        if math.isfinite(sum(q)) and any(q):
            telemetry.clock.note_boot(row["t_s"])
            telemetry.buffer.add_attitude(row["t_s"], q, rate, "quaternion")
            telemetry.messages += 1


def _take_positions(topics: dict[str, _Topic], telemetry: Telemetry) -> None:
    """Takes the global position, else the local one laid back on the Earth as PX4 laid it out."""
    known = topics.get("vehicle_global_position") or _global_from_local(topics)
    for row in _rows(known):
        if not math.isfinite(row["lat"] + row["lon"] + row["alt"]):
            continue
        velocity = [row.get(name, math.nan) for name in ("vel_n", "vel_e", "vel_d")]
        telemetry.buffer.add_position(
            row["t_s"], row["lat"], row["lon"], row["alt"], "egm96", velocity
        )
        telemetry.messages += 1


def _global_from_local(topics: dict[str, _Topic]) -> _Topic | None:
    local = topics.get("vehicle_local_position")
    if local is None:
        return None
    n = len(local["t_s"])
    valid = np.ones(n, dtype=bool)
    for name in ("xy_global", "z_global", "xy_valid", "z_valid"):
        valid &= local.get(name, np.ones(n)) > 0
    lat, lon = np.full(n, np.nan), np.full(n, np.nan)
    for origin in np.unique(np.column_stack([local["ref_lat"], local["ref_lon"]]), axis=0):
        mine = valid & (local["ref_lat"] == origin[0]) & (local["ref_lon"] == origin[1])
        if not np.isfinite(origin).all() or not mine.any():
            continue
        flat = Proj(proj="aeqd", lat_0=origin[0], lon_0=origin[1], R=PX4_EARTH_RADIUS_M)
        lon[mine], lat[mine] = flat(local["y"][mine], local["x"][mine], inverse=True)
    return {
        "t_s": local["t_s"],
        "lat": lat,
        "lon": lon,
        "alt": local["ref_alt"] - local["z"],
        "vel_n": local["vx"],
        "vel_e": local["vy"],
        "vel_d": local["vz"],
    }


def _take_fix(row: dict[str, float], telemetry: Telemetry) -> None:
    """Takes a fix: degrees and metres since PX4 1.14, scaled integers before."""
    if row.get("fix_type", 0) < FIX_3D:
        return
    if "latitude_deg" in row:
        lat, lon = row["latitude_deg"], row["longitude_deg"]
        alt_m, ellipsoid_m = row["altitude_msl_m"], row["altitude_ellipsoid_m"]
    else:
        lat, lon = row["lat"] * 1e-7, row["lon"] * 1e-7
        alt_m, ellipsoid_m = row["alt"] * 1e-3, row["alt_ellipsoid"] * 1e-3
    if lat == 0 and lon == 0:
        return
    known = (value if value > 0 else math.nan for value in (row["eph"], row["epv"]))
    telemetry.buffer.add_gps(row["t_s"], lat, lon, alt_m, ellipsoid_m or math.nan, *known)
    telemetry.messages += 1
    if row.get("time_utc_usec", 0) > 0:
        telemetry.clock.add_system_time(row["time_utc_usec"] * 1e-6, row["t_s"])


def _take_exposure(row: dict[str, float], kind: str, telemetry: Telemetry) -> None:
    """``camera_capture`` and triggers with feedback are exposures, others the command to expose."""
    exposed = kind == "camera_capture" or bool(row.get("feedback", 0))
    name: EventKind = "feedback" if exposed else "trigger"
    stamp_us, index = round(row["timestamp"]), int(row.get("seq", len(telemetry.events)))
    event = CameraEvent(row["t_s"], 0, index, name, stamp_us, telemetry.clock.epoch)
    telemetry.events.append(event)


def _quaternion(row: dict[str, Any]) -> tuple[float, float, float, float]:
    return row["q[0]"], row["q[1]"], row["q[2]"], row["q[3]"]
