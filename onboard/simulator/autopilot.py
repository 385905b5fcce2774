"""The simulated autopilot, live: streams, TIMESYNC, camera events, and a router between two links.

It behaves as ArduPilot does on a companion port: silent but for HEARTBEAT until asked, requests
answered with COMMAND_ACK and kept per link, what the companion broadcasts passed on to the ground
station and back. It obeys nobody: it flies its plan and refuses every command but requests for
messages (they are counted, so that a test can see whether somebody tried).
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

os.environ.setdefault("MAVLINK20", "1")
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.simulator.link import Link
from onboard.simulator.telemetry import Message, Telemetry

log = logging.getLogger(__name__)

FEEDBACK_DELAY_S = 0.03
GROUND_STATION_STREAMS = ("ATTITUDE", "GLOBAL_POSITION_INT", "GPS_RAW_INT", "VFR_HUD", "SYS_STATUS")
LARGEST_WAIT_S = 0.02
DRIFT = 6e-6
"""The autopilot's quartz against the host's."""


@dataclass(frozen=True, slots=True)
class BootTime:
    """The autopilot's clock against the host's.

    Attributes:
        t0_mono_ns: Host monotonic time of its boot.
    """

    t0_mono_ns: int

    def now_s(self) -> float:
        """Returns the time since boot."""
        return self.boot_s(time.monotonic_ns())

    def boot_s(self, t_mono_ns: int) -> float:
        """Returns the time since boot at a host time."""
        return (t_mono_ns - self.t0_mono_ns) * 1e-9 * (1 + DRIFT)

    def mono_ns(self, t_boot_s: float) -> int:
        """Returns the host time of a time since boot."""
        return self.t0_mono_ns + round(t_boot_s / (1 + DRIFT) * 1e9)


@dataclass(slots=True)
class Heard:
    """What passed through the autopilot.

    Attributes:
        refused: Commands, and settings, that somebody tried: ``system/component what``.
        forwarded: Messages passed on, by type.
        texts: Every STATUSTEXT that the companion told the ground station.
    """

    refused: dict[str, int] = field(default_factory=dict)
    forwarded: dict[str, int] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)


class Autopilot:
    """Speaks for a staged flight in real time.

    Args:
        telemetry: What it says.
        boot: Its clock.
        companion: The link to the companion computer.
        ground: The link to the ground station, if there is one.
        stop_telemetry_at_s: Time since boot from which the companion hears nothing more.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        boot: BootTime,
        companion: Link,
        ground: Link | None = None,
        stop_telemetry_at_s: float | None = None,
    ) -> None:
        self.telemetry, self.boot = telemetry, boot
        self.companion, self.ground = companion, ground
        self.stop_telemetry_at_s = stop_telemetry_at_s
        self.heard = Heard()
        self._exposures = telemetry.motion.exposures_s
        self._told = 0
        self._newest_feedback: Message | None = None
        self._commands: dict[str, Callable[[Link, Message, float], None]] = {
            "COMMAND_LONG": self._command,
            "COMMAND_INT": self._command,
            "REQUEST_DATA_STREAM": self._data_stream,
            "PARAM_REQUEST_LIST": self._parameters,
            "PARAM_REQUEST_READ": self._parameters,
            "MISSION_REQUEST_LIST": self._mission,
        }

    def run(self, stop: threading.Event, until_s: float) -> None:
        """Runs until ``stop`` or a time since boot."""
        links = [link for link in (self.companion, self.ground) if link is not None]
        while not stop.is_set() and self.boot.now_s() < until_s:
            self.step(links)
            select.select([link.socket for link in links], [], [], LARGEST_WAIT_S)

    def step(self, links: list[Link]) -> None:
        """Takes what has arrived and sends what is due."""
        for link in links:
            for message in link.receive():
                self._take(link, message, self.boot.now_s())
        now_s = self.boot.now_s()
        if self.stop_telemetry_at_s is not None and now_s >= self.stop_telemetry_at_s:
            self.companion.silent = True
        for link in links:
            for name in link.take_due(now_s):
                self._stream(link, name, now_s)
        while (
            self._told < len(self._exposures)
            and self._exposures[self._told] + FEEDBACK_DELAY_S <= now_s
        ):
            t = float(self._exposures[self._told])
            self._told += 1
            self._newest_feedback = self.telemetry.camera_feedback(self._told, t)
            for link in links:
                link.send(self.telemetry.camera_feedback(self._told, t))

    def _stream(self, link: Link, name: str, now_s: float) -> None:
        if name != "CAMERA_FEEDBACK":
            link.send(self.telemetry.message(name, now_s))
        elif self._newest_feedback is not None:
            link.send(self._newest_feedback)

    def _take(self, link: Link, message: Message, now_s: float) -> None:
        kind = message.get_type()
        system = int(getattr(message, "target_system", 0))
        component = int(getattr(message, "target_component", 0))
        for_me = system in (0, 1) and component in (0, 1)
        if kind == "TIMESYNC" and for_me and message.tc1 == 0:
            link.send(self.telemetry.timesync(self.boot.now_s(), message.ts1))
        elif for_me and kind in self._commands:
            self._commands[kind](link, message, now_s)
        elif for_me and (system or component) and _would_change_something(kind):
            self._refuse(message, kind)
        if not (system == 1 and component == 1):
            self._forward(link, message, kind)

    def _forward(self, link: Link, message: Message, kind: str) -> None:
        """Passes a message on to the other link, as ArduPilot's router does."""
        other = self.ground if link is self.companion else self.companion
        if other is None:
            return
        other.forward(bytes(message.get_msgbuf()))
        self.heard.forwarded[kind] = self.heard.forwarded.get(kind, 0) + 1
        if kind == "STATUSTEXT" and link is self.companion:
            self.heard.texts.append(str(message.text))
            log.info("companion_says severity=%d text=%r", message.severity, message.text)

    def _command(self, link: Link, message: Message, now_s: float) -> None:
        command = int(message.command)
        if command == mav.MAV_CMD_SET_MESSAGE_INTERVAL:
            result = self._set_interval(link, message, now_s)
        elif command == mav.MAV_CMD_REQUEST_MESSAGE:
            result = self._request(link, int(message.param1), now_s)
        elif command == mav.MAV_CMD_GET_HOME_POSITION:
            result = self._request(link, int(mav.MAVLINK_MSG_ID_HOME_POSITION), now_s)
        elif command == mav.MAV_CMD_REQUEST_AUTOPILOT_CAPABILITIES:
            result = self._request(link, int(mav.MAVLINK_MSG_ID_AUTOPILOT_VERSION), now_s)
        else:
            self._refuse(message, f"command {command}")
            result = mav.MAV_RESULT_DENIED
        ack = mav.MAVLink_command_ack_message(
            command,
            result,
            target_system=message.get_srcSystem(),
            target_component=message.get_srcComponent(),
        )
        link.send(ack)

    def _set_interval(self, link: Link, message: Message, now_s: float) -> int:
        name = _name_of(int(message.param1))
        if name != "CAMERA_FEEDBACK" and not self.telemetry.knows(name):
            return int(mav.MAV_RESULT_FAILED)
        interval_us = float(message.param2)
        interval_s = interval_us * 1e-6 if interval_us > 0 else 0.0
        if interval_us == 0:
            interval_s = 0.25
        link.set_interval(name, max(interval_s, 0.02) if interval_s else 0.0, now_s)
        return int(mav.MAV_RESULT_ACCEPTED)

    def _request(self, link: Link, number: int, now_s: float) -> int:
        name = _name_of(number)
        if name == "AUTOPILOT_VERSION":
            link.send(_version())
        elif self.telemetry.knows(name):
            link.send(self.telemetry.message(name, now_s))
        else:
            return int(mav.MAV_RESULT_FAILED)
        return int(mav.MAV_RESULT_ACCEPTED)

    def _data_stream(self, link: Link, message: Message, now_s: float) -> None:
        rate_hz = float(message.req_message_rate) if message.start_stop else 0.0
        for name in GROUND_STATION_STREAMS:
            link.set_interval(name, 1 / rate_hz if rate_hz > 0 else 0.0, now_s)

    def _parameters(self, link: Link, message: Message, now_s: float) -> None:  # noqa: ARG002
        link.send(
            mav.MAVLink_param_value_message(
                b"SYSID_THISMAV", 1.0, mav.MAV_PARAM_TYPE_INT16, param_count=1, param_index=0
            )
        )

    def _mission(self, link: Link, message: Message, now_s: float) -> None:  # noqa: ARG002
        source = message.get_srcSystem(), message.get_srcComponent()
        link.send(mav.MAVLink_mission_count_message(*source, 0))

    def _refuse(self, message: Message, what: str) -> None:
        who = f"{message.get_srcSystem()}/{message.get_srcComponent()} {what}"
        self.heard.refused[who] = self.heard.refused.get(who, 0) + 1
        log.warning("refused who_what=%r", who)


def _would_change_something(kind: str) -> bool:
    return kind.startswith(("SET_", "MISSION_", "RC_CHANNELS_OVERRIDE", "MANUAL_")) or kind in (
        "PARAM_SET",
        "COMMAND_CANCEL",
    )


def _name_of(number: int) -> str:
    known = mav.mavlink_map.get(number)
    return str(known.msgname) if known is not None else str(number)


def _version() -> Message:
    return mav.MAVLink_autopilot_version_message(
        mav.MAV_PROTOCOL_CAPABILITY_MAVLINK2,
        0x040501FF,
        0,
        0,
        0,
        [0] * 8,
        [0] * 8,
        [0] * 8,
        0,
        0,
        0,
    )
