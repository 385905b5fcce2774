"""What each telemetry message means: one decoder for the live link and for recorded logs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from onboard.clocks import BootClock
from onboard.place.trajectory import PoseBuffer

UNIX_US = 1e15
"""Camera and GNSS stamps above this are UNIX microseconds (2001 and later), below, boot time."""
UINT32 = 2.0**32
MAV_COMP_AUTOPILOT = 1
MAV_AUTOPILOT_INVALID = 8
GIMBAL_YAW_LOCK = 16
GIMBAL_YAW_IN_VEHICLE_FRAME = 32
GIMBAL_YAW_IN_EARTH_FRAME = 64
GPS_LAG_LIMIT_S = 10.0
STALE_LOOK_BACK = 64
FIX_3D = 3

EventKind = Literal["feedback", "trigger", "captured"]


@dataclass(frozen=True, slots=True)
class CameraEvent:
    """One exposure as the autopilot reports it.

    Attributes:
        t_boot_s: Autopilot time since boot; NaN where its UNIX stamp could not be tied yet.
        cam_idx: Camera number.
        img_idx: Image number.
        kind: Which message: CAMERA_FEEDBACK, CAMERA_TRIGGER or CAMERA_IMAGE_CAPTURED.
        stamp_us: The stamp as it was sent.
        epoch: Counts the autopilot's reboots.
        t_recv_ns: Host time of its arrival.
    """

    t_boot_s: float
    cam_idx: int
    img_idx: int
    kind: EventKind
    stamp_us: int
    epoch: int = 0
    t_recv_ns: int | None = None


@dataclass(frozen=True, slots=True)
class _Sinks:
    buffer: PoseBuffer
    clock: BootClock
    events: list[CameraEvent]
    t_recv_ns: int | None


def apply_message(
    msg: Any,
    t_recv_mono_ns: int | None,
    buffer: PoseBuffer,
    clock: BootClock,
    events: list[CameraEvent],
) -> None:
    """Takes one MAVLink message into the pose buffer, the clock and the camera events.

    Args:
        msg: A decoded pymavlink message.
        t_recv_mono_ns: When it arrived on the host's clock (in a log: its receive time).
        buffer: Takes attitudes, positions, fixes and gimbal attitudes.
        clock: Takes times; messages of other systems than its autopilot's are left aside.
        events: New camera events are appended; stale repeats are not.
    """
    kind = msg.get_type()
    handler = HANDLERS.get(kind)
    if handler is None or not _from_autopilot(msg, kind, clock):
        return
    t_boot_s = _boot_time(msg)
    if t_boot_s is not None and t_recv_mono_ns is not None:
        if not clock.plausible(t_boot_s, t_recv_mono_ns):
            return
        if kind not in UNORDERED and clock.add_arrival(t_recv_mono_ns, t_boot_s):
            buffer.note_epoch()
    elif t_boot_s is not None and kind not in UNORDERED and clock.note_boot(t_boot_s):
        buffer.note_epoch()
    handler(msg, _Sinks(buffer, clock, events, t_recv_mono_ns))


def _from_autopilot(msg: Any, kind: str, clock: BootClock) -> bool:
    """Returns whether a message is the autopilot's (or one of its gimbals'), learning which it is.

    Ground stations and companions speak on the same link and answer the same requests.
    """
    system, component = msg.get_srcSystem(), msg.get_srcComponent()
    if clock.autopilot is None:
        speaks = kind == "HEARTBEAT" and msg.autopilot != MAV_AUTOPILOT_INVALID
        if component != MAV_COMP_AUTOPILOT or not (speaks or kind in STREAMS):
            return False
        clock.autopilot = (system, component)
    if kind == "GIMBAL_DEVICE_ATTITUDE_STATUS":
        return bool(system == clock.autopilot[0])
    return bool((system, component) == clock.autopilot)


def _boot_time(msg: Any) -> float | None:
    ms = getattr(msg, "time_boot_ms", None)
    return ms * 1e-3 if ms else None


def _attitude(msg: Any, to: _Sinks) -> None:
    q = quaternion_from_ypr(msg.yaw, msg.pitch, msg.roll)
    if math.isfinite(sum(q)):
        to.buffer.add_attitude(msg.time_boot_ms * 1e-3, q, _rates(msg), "euler")


def quaternion_from_ypr(
    yaw_rad: float, pitch_rad: float, roll_rad: float
) -> tuple[float, float, float, float]:
    """Returns the quaternion body → NED of one attitude (scalars: streams come at 50 Hz)."""
    cy, sy = math.cos(0.5 * yaw_rad), math.sin(0.5 * yaw_rad)
    cp, sp = math.cos(0.5 * pitch_rad), math.sin(0.5 * pitch_rad)
    cr, sr = math.cos(0.5 * roll_rad), math.sin(0.5 * roll_rad)
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


def _attitude_quaternion(msg: Any, to: _Sinks) -> None:
    q = (msg.q1, msg.q2, msg.q3, msg.q4)
    if math.isfinite(sum(q)) and any(q):
        to.buffer.add_attitude(msg.time_boot_ms * 1e-3, q, _rates(msg), "quaternion")


def _rates(msg: Any) -> tuple[float, float, float]:
    return msg.rollspeed, msg.pitchspeed, msg.yawspeed


def _global_position(msg: Any, to: _Sinks) -> None:
    """Height is AMSL from the barometric filter; 0/0 is what a filter without position says."""
    if msg.lat == 0 and msg.lon == 0:
        return
    v_ned = (msg.vx * 1e-2, msg.vy * 1e-2, msg.vz * 1e-2)
    t_boot_s = msg.time_boot_ms * 1e-3
    lat, lon = msg.lat * 1e-7, msg.lon * 1e-7
    to.buffer.add_position(t_boot_s, lat, lon, msg.alt * 1e-3, "egm96", v_ned)


def _gps_raw(msg: Any, to: _Sinks) -> None:
    """Zero means unknown for accuracies and for the ellipsoidal height (MAVLink 2 only)."""
    newest = to.clock.newest_boot_s
    if msg.fix_type < FIX_3D or (msg.lat == 0 and msg.lon == 0) or math.isnan(newest):
        return
    t_boot_s = stamp_to_boot(msg.time_usec, to.clock)
    if not abs(t_boot_s - newest) < GPS_LAG_LIMIT_S:
        t_boot_s = newest
    to.buffer.add_gps(
        t_boot_s,
        msg.lat * 1e-7,
        msg.lon * 1e-7,
        msg.alt * 1e-3,
        _known(getattr(msg, "alt_ellipsoid", 0)),
        _known(getattr(msg, "h_acc", 0)),
        _known(getattr(msg, "v_acc", 0)),
    )


def _known(millimetres: int) -> float:
    return millimetres * 1e-3 if millimetres else math.nan


def _gimbal_device(msg: Any, to: _Sinks) -> None:
    q = tuple(msg.q)
    if not math.isfinite(sum(q)) or not any(q):
        return
    earth = bool(msg.flags & GIMBAL_YAW_IN_EARTH_FRAME) or (
        bool(msg.flags & GIMBAL_YAW_LOCK) and not msg.flags & GIMBAL_YAW_IN_VEHICLE_FRAME
    )
    to.buffer.add_gimbal(msg.time_boot_ms * 1e-3, q, earth)


def _mount_orientation(msg: Any, to: _Sinks) -> None:
    absolute = getattr(msg, "yaw_absolute", math.nan)
    earth = math.isfinite(absolute) and absolute != 0.0
    degrees = (absolute if earth else msg.yaw, msg.pitch, msg.roll)
    if all(math.isfinite(a) for a in degrees):
        q = quaternion_from_ypr(*(math.radians(a) for a in degrees))
        to.buffer.add_gimbal(msg.time_boot_ms * 1e-3, q, earth)


def _mount_status(msg: Any, to: _Sinks) -> None:
    """Older firmware: hundredths of degrees, yaw from the nose, no time of its own."""
    newest = to.clock.newest_boot_s
    if math.isfinite(newest):
        pitch, roll, yaw = (
            math.radians(a * 1e-2) for a in (msg.pointing_a, msg.pointing_b, msg.pointing_c)
        )
        to.buffer.add_gimbal(newest, quaternion_from_ypr(yaw, pitch, roll), False)


def _system_time(msg: Any, to: _Sinks) -> None:
    to.clock.add_system_time(msg.time_unix_usec * 1e-6, msg.time_boot_ms * 1e-3)


def _timesync(msg: Any, to: _Sinks) -> None:
    """Only answers count (tc1 set), and only those whose ts1 is a stamp of this host's clock."""
    if msg.tc1 <= 0 or to.t_recv_ns is None:
        return
    before = to.clock.epoch
    to.clock.add_timesync(msg.ts1, to.t_recv_ns, msg.tc1)
    if to.clock.epoch != before:
        to.buffer.note_epoch()


def _camera_feedback(msg: Any, to: _Sinks) -> None:
    if msg.time_usec:
        _add_event(to, "feedback", msg.cam_idx, msg.img_idx, msg.time_usec)


def _camera_trigger(msg: Any, to: _Sinks) -> None:
    _add_event(to, "trigger", 0, msg.seq, msg.timestamp)


def _image_captured(msg: Any, to: _Sinks) -> None:
    if getattr(msg, "capture_result", 1) == 1 and msg.time_boot_ms:
        _add_event(to, "captured", msg.camera_id, msg.image_index, msg.time_boot_ms * 1000)


def _add_event(to: _Sinks, kind: EventKind, cam: int, img: int, stamp_us: int) -> None:
    """Appends an event unless it is a stale repeat: same camera, image and stamp."""
    epoch = to.clock.epoch
    key = (kind, cam, img, stamp_us, epoch)
    for old in to.events[: -STALE_LOOK_BACK - 1 : -1]:
        if (old.kind, old.cam_idx, old.img_idx, old.stamp_us, old.epoch) == key:
            return
    t_boot_s = stamp_to_boot(stamp_us, to.clock)
    to.events.append(CameraEvent(t_boot_s, cam, img, kind, stamp_us, epoch, to.t_recv_ns))


def stamp_to_boot(stamp_us: float, clock: BootClock) -> float:
    """Returns the boot time of a stamp that may be UNIX or boot microseconds, or NaN.

    Boot stamps of a feedback pin are a uint32 and wrap at 71.6 min: they are unwrapped to where
    they come nearest to the newest boot time heard.
    """
    if stamp_us >= UNIX_US:
        return clock.boot_from_utc(stamp_us * 1e-6)
    newest = clock.newest_boot_s
    if stamp_us < UINT32 and math.isfinite(newest):
        turns = max(round((newest * 1e6 - stamp_us) / UINT32), 0)
        return (stamp_us + turns * UINT32) * 1e-6
    return stamp_us * 1e-6


def resolve_events(events: list[CameraEvent], clock: BootClock) -> list[CameraEvent]:
    """Returns the events with stamps that were UNIX before the clock was anchored tied to boot."""
    return [
        event
        if math.isfinite(event.t_boot_s) or event.epoch != clock.epoch
        else CameraEvent(
            stamp_to_boot(event.stamp_us, clock),
            event.cam_idx,
            event.img_idx,
            event.kind,
            event.stamp_us,
            event.epoch,
            event.t_recv_ns,
        )
        for event in events
    ]


HANDLERS: dict[str, Callable[[Any, _Sinks], None]] = {
    "ATTITUDE": _attitude,
    "ATTITUDE_QUATERNION": _attitude_quaternion,
    "GLOBAL_POSITION_INT": _global_position,
    "GPS_RAW_INT": _gps_raw,
    "GIMBAL_DEVICE_ATTITUDE_STATUS": _gimbal_device,
    "MOUNT_ORIENTATION": _mount_orientation,
    "MOUNT_STATUS": _mount_status,
    "SYSTEM_TIME": _system_time,
    "TIMESYNC": _timesync,
    "CAMERA_FEEDBACK": _camera_feedback,
    "CAMERA_TRIGGER": _camera_trigger,
    "CAMERA_IMAGE_CAPTURED": _image_captured,
    "HEARTBEAT": lambda msg, to: None,  # noqa: ARG005 - only says who the autopilot is
}
STREAMS = ("ATTITUDE", "ATTITUDE_QUATERNION", "GLOBAL_POSITION_INT")
UNORDERED = ("CAMERA_IMAGE_CAPTURED", "GIMBAL_DEVICE_ATTITUDE_STATUS", "MOUNT_ORIENTATION")
"""Messages whose boot time may be old (repeats) or another device's: no tie, no reboot."""
