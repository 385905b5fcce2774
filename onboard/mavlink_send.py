"""What may be sent to the aircraft: the allow-list, and the only place that packs MAVLink.

Nothing here, and nothing that passes through here, commands the aircraft. The one COMMAND_LONG is
MAV_CMD_SET_MESSAGE_INTERVAL: it asks for telemetry on this link and moves nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

os.environ.setdefault("MAVLINK20", "1")
from pymavlink.dialects.v20 import ardupilotmega as mav

from gossan.errors import GossanError

COMPONENT_ID = 191
"""MAV_COMP_ID_ONBOARD_COMPUTER."""

ALLOWED_MESSAGES = frozenset(
    {
        "HEARTBEAT",
        "TIMESYNC",
        "COMMAND_LONG",
        "STATUSTEXT",
        "NAMED_VALUE_FLOAT",
        "CAMERA_IMAGE_CAPTURED",
    }
)
ALLOWED_COMMAND = int(mav.MAV_CMD_SET_MESSAGE_INTERVAL)

NEVER_ASKED = frozenset({int(mav.MAVLINK_MSG_ID_CAMERA_FEEDBACK)})
"""Asked for at an interval, CAMERA_FEEDBACK is repeated with stale contents."""

GROUND_STATION_SYSTEM_ID = 255
"""Heartbeats from here hold off the ground-station failsafe: never ours."""

MAX_TEXT = 50
"""STATUSTEXT carries 50 bytes in one piece."""


class ForbiddenMessageError(GossanError):
    """Something other than the allow-list was about to be sent to the aircraft."""


class MavlinkSender:
    """Packs and sends the messages of the allow-list; thread-safe.

    Args:
        write: Takes the packed bytes of one message.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._packer = mav.MAVLink(None, srcSystem=1, srcComponent=COMPONENT_ID)
        self._lock = threading.Lock()
        self.sent: dict[str, int] = {}

    def announce_as(self, system_id: int) -> None:
        """Speaks as a component of this vehicle.

        Raises:
            ForbiddenMessageError: ``system_id`` is a ground station's or none.
        """
        if not 0 < system_id < GROUND_STATION_SYSTEM_ID:
            raise ForbiddenMessageError(f"system id {system_id} is not a vehicle's")
        self._packer.srcSystem = system_id

    @property
    def system_id(self) -> int:
        """The system id that messages carry."""
        return int(self._packer.srcSystem)

    def send(self, message: mav.MAVLink_message) -> None:
        """Sends one message.

        Raises:
            ForbiddenMessageError: The message, or the command in it, is not on the allow-list.
        """
        name = message.get_type()
        if name not in ALLOWED_MESSAGES:
            raise ForbiddenMessageError(f"{name} is not on the send allow-list", "never send it")
        if name == "COMMAND_LONG":
            _check_command(message)
        with self._lock:
            packed = message.pack(self._packer)
            self._packer.seq = (self._packer.seq + 1) % 256
            self.sent[name] = self.sent.get(name, 0) + 1
            self._write(bytes(packed))

    def heartbeat(self) -> None:
        """Sends HEARTBEAT: an onboard controller that is no autopilot."""
        self.send(
            mav.MAVLink_heartbeat_message(
                mav.MAV_TYPE_ONBOARD_CONTROLLER,
                mav.MAV_AUTOPILOT_INVALID,
                0,
                0,
                mav.MAV_STATE_ACTIVE,
                3,
            )
        )

    def timesync(self, t_mono_ns: int) -> None:
        """Asks the autopilot for its clock; the answer repeats ``t_mono_ns``."""
        self.send(mav.MAVLink_timesync_message(0, t_mono_ns))

    def request_interval(self, target: tuple[int, int], message_id: int, rate_hz: float) -> None:
        """Asks for a message at a rate on this link (MAV_CMD_SET_MESSAGE_INTERVAL)."""
        self.send(
            mav.MAVLink_command_long_message(
                *target, ALLOWED_COMMAND, 0, message_id, 1e6 / rate_hz, 0, 0, 0, 0, 0
            )
        )

    def statustext(self, severity: int, text: str) -> None:
        """Sends a text of at most 50 ASCII characters; anything else is cut or replaced."""
        safe = text.encode("ascii", "replace")[:MAX_TEXT]
        self.send(mav.MAVLink_statustext_message(severity, safe))

    def named_value(self, t_boot_ms: int, name: str, value: float) -> None:
        """Sends NAMED_VALUE_FLOAT; names have at most 10 characters."""
        label = name.encode("ascii")[:10]
        self.send(mav.MAVLink_named_value_float_message(t_boot_ms & 0xFFFFFFFF, label, value))

    def image_captured(
        self,
        t_boot_s: float,
        index: int,
        lat_deg: float,
        lon_deg: float,
        alt_m: float,
        q: tuple[float, float, float, float],
    ) -> None:
        """Sends CAMERA_IMAGE_CAPTURED for a frame kept: a dot on the ground station's map.

        Args:
            t_boot_s: Autopilot time of the exposure.
            index: The frame's number in the flight.
            lat_deg: Projection centre, WGS84.
            lon_deg: Projection centre, WGS84.
            alt_m: Its height, as the ground station's map wants it (metres).
            q: Camera attitude, w x y z.
        """
        self.send(
            mav.MAVLink_camera_image_captured_message(
                int(t_boot_s * 1000) & 0xFFFFFFFF,
                0,
                1,
                round(lat_deg * 1e7),
                round(lon_deg * 1e7),
                round(alt_m * 1000),
                0,
                list(q),
                index,
                1,
                b"",
            )
        )


def _check_command(message: mav.MAVLink_message) -> None:
    if message.command != ALLOWED_COMMAND:
        raise ForbiddenMessageError(f"command {message.command} is not on the send allow-list")
    if int(message.param1) in NEVER_ASKED:
        raise ForbiddenMessageError(f"message {int(message.param1)} is never asked at an interval")
    if message.param7 != 0:
        raise ForbiddenMessageError("a rate is asked for this link only (param7 = 0)")
