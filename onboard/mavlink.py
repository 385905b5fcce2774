"""The MAVLink link: announces itself, asks for telemetry, keeps time, hands every message on.

It listens to one vehicle and never commands it: what may be sent is in ``mavlink_send``.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum

os.environ.setdefault("MAVLINK20", "1")
from pymavlink.dialects.v20 import ardupilotmega as mav

from gossan.errors import HardwareError
from onboard.mavlink_rates import DEFAULT_RATES_HZ, RateKeeper
from onboard.mavlink_send import ALLOWED_COMMAND, COMPONENT_ID, MavlinkSender
from onboard.mavlink_wire import Wire, open_wire

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
TIMESYNC_S = 0.5
LINK_LOST_S = 3.0
REBOOT_STEP_MS = 2000
OUTBOX_LENGTH = 64

OnMessage = Callable[[mav.MAVLink_message, int], None]
OnRaw = Callable[[int, bytes], None]


class Landed(IntEnum):
    """MAV_LANDED_STATE."""

    UNDEFINED = 0
    ON_GROUND = 1
    IN_AIR = 2
    TAKEOFF = 3
    LANDING = 4


@dataclass(slots=True)
class Vehicle:
    """What the autopilot says about itself.

    Attributes:
        system_id: Its system id; 0 until it was heard.
        armed: From HEARTBEAT of component 1; ``None`` until it was heard.
        landed: From EXTENDED_SYS_STATE.
        heartbeat_ns: Host monotonic time of the last HEARTBEAT; 0 until it was heard.
        message_ns: Host monotonic time of its last message of any type.
        boot_ms: The newest time since boot that it gave.
        reboots: How often its boot time stepped back.
    """

    system_id: int = 0
    armed: bool | None = None
    landed: Landed = Landed.UNDEFINED
    heartbeat_ns: int = 0
    message_ns: int = 0
    boot_ms: int = 0
    reboots: int = 0

    def lost(self, now_ns: int) -> bool:
        """Whether nothing came for ``LINK_LOST_S`` seconds."""
        return now_ns - self.message_ns > LINK_LOST_S * 1e9

    @property
    def flying(self) -> bool:
        """Whether it is armed, or not yet down."""
        return bool(self.armed) or self.landed in (Landed.IN_AIR, Landed.TAKEOFF, Landed.LANDING)


@dataclass(slots=True)
class LinkCounts:
    """What came, what was lost, what could not be read."""

    received: int = 0
    lost: int = 0
    unreadable: int = 0
    foreign_timesync: int = 0
    reopened: int = 0
    unsent: int = 0
    sequence: dict[tuple[int, int], int] = field(default_factory=dict)

    def note_sequence(self, message: mav.MAVLink_message) -> None:
        """Counts what is missing between two messages of one component (modulo 256)."""
        source = (message.get_srcSystem(), message.get_srcComponent())
        seq = int(message.get_seq())
        if source in self.sequence:
            self.lost += (seq - self.sequence[source] - 1) % 256
        self.sequence[source] = seq


class MavlinkLink:
    """One link to one vehicle, driven by ``run`` in its own thread.

    Args:
        link: The connection string.
        on_message: Called with each message of the vehicle and its receive time (monotonic ns).
        on_raw: Called with (UNIX µs, packed bytes) of every message received or sent: a tlog.
        rates_hz: The streams to ask for.
        system_id: The vehicle to listen to; 0 takes the first autopilot heard.
        opener: Opens the wire; tests put their own here.
    """

    def __init__(
        self,
        link: str,
        on_message: OnMessage,
        on_raw: OnRaw | None = None,
        rates_hz: dict[str, float] | None = None,
        system_id: int = 0,
        opener: Callable[[str], Wire] = open_wire,
    ) -> None:
        self.link = link
        self.vehicle = Vehicle(system_id=system_id)
        self.counts = LinkCounts()
        self.rates = RateKeeper(DEFAULT_RATES_HZ if rates_hz is None else rates_hz)
        self.sender = MavlinkSender(self._write)
        self._on_message = on_message
        self._on_raw = on_raw
        self._opener = opener
        self._wire: Wire | None = None
        self._parser = _parser()
        self._outbox: deque[Callable[[MavlinkSender], None]] = deque()
        self._outbox_lock = threading.Lock()
        self._due = {"heartbeat": float("-inf"), "timesync": float("-inf")}

    def run(self, stop: threading.Event, beat: Callable[[], None] = lambda: None) -> None:
        """Runs until ``stop``; a link that fails is opened again, forever."""
        while not stop.is_set():
            try:
                self._wire = self._opener(self.link)
                self._parser = _parser()
                while not stop.is_set():
                    self.step(0.02)
                    beat()
            except (OSError, HardwareError) as error:
                self.counts.reopened += 1
                log.warning("link_failed link=%s error=%s", self.link, error)
                beat()
                stop.wait(1.0)
            finally:
                self._close()

    def step(self, timeout_s: float) -> None:
        """Reads what has arrived and sends what is due."""
        assert self._wire is not None  # noqa: S101
        data = self._wire.read(timeout_s)
        t_recv_ns = time.monotonic_ns()
        if data:
            self._take_bytes(data, t_recv_ns)
        self._send_due(t_recv_ns * 1e-9)

    def post(self, send: Callable[[MavlinkSender], None]) -> bool:
        """Queues a call to be made with the sender on the link's thread.

        Overflow policy: the newest is refused and counted.

        Returns:
            Whether it was taken.
        """
        with self._outbox_lock:
            if len(self._outbox) >= OUTBOX_LENGTH:
                self.counts.unsent += 1
                return False
            self._outbox.append(send)
            return True

    def _close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def _write(self, packed: bytes) -> None:
        if self._wire is None:
            return
        self._wire.write(packed)
        if self._on_raw is not None:
            self._on_raw(time.time_ns() // 1000, packed)

    def _take_bytes(self, data: bytes, t_recv_ns: int) -> None:
        messages = self._parser.parse_buffer(data) or []
        t_utc_us = time.time_ns() // 1000
        for message in messages:
            if message.get_type() == "BAD_DATA":
                self.counts.unreadable += 1
                continue
            self.counts.received += 1
            self.counts.note_sequence(message)
            if self._on_raw is not None:
                self._on_raw(t_utc_us, bytes(message.get_msgbuf()))
            self._take_message(message, t_recv_ns)

    def _take_message(self, message: mav.MAVLink_message, t_recv_ns: int) -> None:
        kind = message.get_type()
        system, component = message.get_srcSystem(), message.get_srcComponent()
        if kind == "HEARTBEAT" and _is_autopilot(message):
            self._take_heartbeat(message, t_recv_ns)
        vehicle = self.vehicle
        if system != vehicle.system_id or component == COMPONENT_ID:
            self.counts.foreign_timesync += kind == "TIMESYNC"
            return
        vehicle.message_ns = t_recv_ns
        if component == 1:
            self.rates.note_message(kind, t_recv_ns * 1e-9)
            self._note_boot_time(message, kind)
            if kind == "EXTENDED_SYS_STATE":
                vehicle.landed = _landed(message.landed_state)
            elif kind == "COMMAND_ACK" and message.command == ALLOWED_COMMAND:
                self.rates.note_ack(message.result)
        elif kind == "TIMESYNC":
            self.counts.foreign_timesync += 1
            return
        self._on_message(message, t_recv_ns)

    def _take_heartbeat(self, message: mav.MAVLink_message, t_recv_ns: int) -> None:
        vehicle = self.vehicle
        if vehicle.system_id == 0:
            vehicle.system_id = message.get_srcSystem()
        if message.get_srcSystem() != vehicle.system_id:
            return
        if vehicle.heartbeat_ns == 0:
            log.info("vehicle_heard system=%d link=%s", vehicle.system_id, self.link)
            self.sender.announce_as(vehicle.system_id)
        vehicle.heartbeat_ns = t_recv_ns
        vehicle.armed = bool(message.base_mode & mav.MAV_MODE_FLAG_SAFETY_ARMED)

    def _note_boot_time(self, message: mav.MAVLink_message, kind: str) -> None:
        if kind == "TIMESYNC" and message.tc1:
            boot_ms = message.tc1 // 1_000_000
        else:
            boot_ms = getattr(message, "time_boot_ms", None)
        if not boot_ms:
            return
        if boot_ms < self.vehicle.boot_ms - REBOOT_STEP_MS:
            self.vehicle.reboots += 1
            self.vehicle.boot_ms = boot_ms
            self.rates.reset()
            log.warning("autopilot_rebooted boot_ms=%d", boot_ms)
        self.vehicle.boot_ms = max(self.vehicle.boot_ms, boot_ms)

    def _send_due(self, now_s: float) -> None:
        if now_s - self._due["heartbeat"] >= HEARTBEAT_S:
            self._due["heartbeat"] = now_s
            self.sender.heartbeat()
        if self.vehicle.heartbeat_ns == 0:
            return
        if now_s - self._due["timesync"] >= TIMESYNC_S:
            self._due["timesync"] = now_s
            self.sender.timesync(time.monotonic_ns())
        stream = self.rates.next_request(now_s)
        if stream is not None:
            target = (self.vehicle.system_id, 1)
            self.sender.request_interval(target, stream.message_id, stream.rate_hz)
        self._send_outbox()

    def _send_outbox(self) -> None:
        with self._outbox_lock:
            waiting = list(self._outbox)
            self._outbox.clear()
        for send in waiting:
            send(self.sender)


def _parser() -> mav.MAVLink:
    parser = mav.MAVLink(None)
    parser.robust_parsing = True
    return parser


def _is_autopilot(message: mav.MAVLink_message) -> bool:
    speaks = message.autopilot != mav.MAV_AUTOPILOT_INVALID and message.type != mav.MAV_TYPE_GCS
    return bool(message.get_srcComponent() == 1 and speaks)


def _landed(state: int) -> Landed:
    return Landed(state) if state in list(Landed) else Landed.UNDEFINED
