"""Telemetry while it comes: the link, the clocks, the pose buffer and the log, for the pipeline."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from typing import Any

from calibration.rig import Rig
from onboard.clocks import BootClock
from onboard.config import VehicleSettings
from onboard.health import Health
from onboard.mavlink import MavlinkLink
from onboard.mavlink_send import MavlinkSender
from onboard.place.trajectory import PoseBuffer
from onboard.records import Frame, HeightDatum, Poses
from onboard.sources.telemetry import CameraEvent, apply_message, resolve_events
from onboard.tlog_record import TlogRecorder

log = logging.getLogger(__name__)

HORIZON_S = 120.0
"""Telemetry that is kept in memory; all of it is in the log."""


class LiveTelemetry:
    """Everything heard from the vehicle.

    Args:
        settings: How the vehicle is reached; an empty link means there is none.
        rig: The camera: its clock offset and its mount.
        health: Gets the link's state.
    """

    def __init__(self, settings: VehicleSettings, rig: Rig, health: Health) -> None:
        self.buffer = PoseBuffer(HORIZON_S)
        self.clock = BootClock()
        self.tlog = TlogRecorder()
        self.events: list[CameraEvent] = []
        self.events_placed = 0
        self._rig = rig
        self._health = health
        self._relative_m = math.nan
        self._events_waiting = 0
        self.link: MavlinkLink | None = None
        if settings.link:
            self.link = MavlinkLink(
                settings.link,
                self.take,
                self.tlog.note,
                dict(settings.rates_hz),
                settings.system_id,
            )

    @property
    def up(self) -> bool:
        """Whether the vehicle was heard within the last seconds."""
        return self.link is not None and not self.link.vehicle.lost(time.monotonic_ns())

    @property
    def flying(self) -> bool | None:
        """Whether the vehicle is armed or in the air; ``None`` where it was never heard."""
        if self.link is None or self.link.vehicle.armed is None:
            return None
        return self.link.vehicle.flying

    def run(self, stop: threading.Event) -> None:
        """Runs the link until ``stop``."""
        if self.link is None:
            stop.wait()
            return
        self.link.run(stop, lambda: self._health.beat("link", output=self.up))

    def link_post(self, send: Callable[[MavlinkSender], None]) -> bool:
        """Queues something to be sent; returns whether it was taken."""
        return self.link is not None and self.link.post(send)

    def take(self, message: Any, t_recv_ns: int) -> None:
        """Takes one message of the vehicle: the decoder that replay uses, too."""
        if message.get_type() == "GLOBAL_POSITION_INT" and (message.lat or message.lon):
            self._relative_m = message.relative_alt * 1e-3
        try:
            apply_message(message, t_recv_ns, self.buffer, self.clock, self.events)
        except (ValueError, ArithmeticError, AttributeError) as error:
            self._health.count("link.undecoded")
            self._health.event("link", "warning", "message_undecoded", repr(error))

    def boot_time(self, t_mono_ns: int | None) -> float:
        """Returns the autopilot's time of a host time; NaN where the clocks are not tied."""
        return math.nan if t_mono_ns is None else self.clock.boot_from_mono(t_mono_ns)[0]

    def waits_for(self, frame: Frame) -> bool:
        """Whether telemetry that brackets the exposure may still come."""
        if not self.up:
            return False
        t_boot_s = self.boot_time(frame.t_mono_ns)
        if not math.isfinite(t_boot_s):
            return True
        gimbal = self._rig.mount.type == "gimbal"
        return not self.buffer.ready(t_boot_s + self._rig.clock.offset_s, gimbal)

    def pose_of(self, frame: Frame) -> Poses | None:
        """Returns the pose of a frame by its ``t_boot_s``, or ``None``."""
        if not math.isfinite(frame.t_boot_s):
            return None
        if frame.t_mono_ns is not None and (
            self.clock.epoch_at(frame.t_mono_ns) != self.clock.epoch
        ):
            return None
        pose = self.buffer.pose_at([frame.t_boot_s], [frame.name], self._rig)
        return pose if len(pose) else None

    def take_off(self) -> tuple[float, HeightDatum] | None:
        """Returns the height of the take-off place and its datum, or ``None``."""
        newest_s = self.buffer.newest_s()
        if not (math.isfinite(newest_s) and math.isfinite(self._relative_m)):
            return None
        here = self.buffer.pose_at([newest_s], ["here"], None)
        if not len(here):
            return None
        return float(here.alt_m[0]) - self._relative_m, here.height_datum

    def place_events(self) -> None:
        """Places the camera events that telemetry brackets by now, and counts them."""
        waiting = self.events[self._events_waiting :]
        if not waiting:
            return
        offset_s = self._rig.clock.offset_s
        for event in resolve_events(waiting, self.clock):
            if not math.isfinite(event.t_boot_s):
                break
            if not self.buffer.ready(event.t_boot_s + offset_s):
                newest_s = self.buffer.newest_s()
                if not newest_s > event.t_boot_s + offset_s:
                    break
            pose = self.buffer.pose_at([event.t_boot_s], [f"{event.img_idx}"], self._rig)
            self.events_placed += len(pose)
            self._events_waiting += 1

    def state(self) -> dict[str, Any]:
        """Returns the link's state for the status file."""
        if self.link is None:
            return {"link": "none"}
        vehicle, counts = self.link.vehicle, self.link.counts
        now_ns = time.monotonic_ns()
        _, sigma_s = self.clock.boot_from_mono(now_ns)
        _, utc = self.clock.utc_from_boot(self.clock.newest_boot_s)
        heard = vehicle.heartbeat_ns > 0
        return {
            "link": "up" if self.up else ("lost" if heard else "silent"),
            "system_id": vehicle.system_id,
            "heartbeat_age_s": round((now_ns - vehicle.heartbeat_ns) * 1e-9, 2) if heard else None,
            "armed": vehicle.armed,
            "landed_state": vehicle.landed.name.lower(),
            "reboots": vehicle.reboots,
            "received": counts.received,
            "lost": counts.lost,
            "unreadable": counts.unreadable,
            "reopened": counts.reopened,
            "unsent": counts.unsent,
            "foreign_timesync": counts.foreign_timesync,
            "streams_missing": self.link.rates.missing(now_ns * 1e-9),
            "sent": dict(self.link.sender.sent),
            "clock_sigma_s": sigma_s,
            "utc_quality": str(utc),
            "camera_events": len(self.events),
            "camera_events_placed": self.events_placed,
            "tlog_bytes": self.tlog.written_bytes,
            "tlog_dropped": self.tlog.dropped,
        }
