"""Which telemetry is asked for, how often, and asking again when a stream stops."""

from __future__ import annotations

import os
from dataclasses import dataclass

os.environ.setdefault("MAVLINK20", "1")
from pymavlink.dialects.v20 import ardupilotmega as mav

DEFAULT_RATES_HZ: dict[str, float] = {
    "ATTITUDE_QUATERNION": 20.0,
    "ATTITUDE": 20.0,
    "GLOBAL_POSITION_INT": 10.0,
    "GPS_RAW_INT": 5.0,
    "GIMBAL_DEVICE_ATTITUDE_STATUS": 10.0,
    "EXTENDED_SYS_STATE": 2.0,
    "SYSTEM_TIME": 1.0,
}
"""Asked of the autopilot on this link; CAMERA_FEEDBACK comes by itself and is never asked for."""

RETRY_S = 2.0
ACK_WAIT_S = 1.0
ASKS_WITHOUT_ACK = 5


@dataclass(slots=True)
class Stream:
    """One message type on this link.

    Attributes:
        name: Its MAVLink name.
        rate_hz: The rate asked for.
        asked: How often it was asked for.
        asked_s: When it was last asked for.
        acked: Whether the autopilot accepted the last request.
        refused: Whether the autopilot does not know it.
        seen: How many came.
        seen_s: When the last one came.
    """

    name: str
    rate_hz: float
    asked: int = 0
    asked_s: float = float("-inf")
    acked: bool = False
    refused: bool = False
    seen: int = 0
    seen_s: float = float("-inf")

    @property
    def message_id(self) -> int:
        """The numeric id."""
        return int(getattr(mav, f"MAVLINK_MSG_ID_{self.name}"))

    def flows(self, now_s: float) -> bool:
        """Whether it came within five of its periods (3 s at least)."""
        return now_s - self.seen_s <= max(3.0, 5.0 / self.rate_hz)

    def wants_asking(self, now_s: float) -> bool:
        """Whether it should be asked for (again) now."""
        if self.refused or now_s - self.asked_s < RETRY_S:
            return False
        if not self.flows(now_s):
            return True
        return not self.acked and self.asked < ASKS_WITHOUT_ACK


class RateKeeper:
    """Asks for each stream until it flows; one request at a time, as COMMAND_ACK names no stream.

    Args:
        rates_hz: Message names and rates.
    """

    def __init__(self, rates_hz: dict[str, float]) -> None:
        self.streams = {name: Stream(name, rate) for name, rate in rates_hz.items() if rate > 0}
        self._waiting: Stream | None = None
        self.re_asked = 0

    def reset(self) -> None:
        """Forgets what was asked: the autopilot restarted and has forgotten, too."""
        for name, stream in list(self.streams.items()):
            self.streams[name] = Stream(name, stream.rate_hz, seen=stream.seen)
        self._waiting = None

    def note_message(self, name: str, now_s: float) -> None:
        """Notes that a message came."""
        stream = self.streams.get(name)
        if stream is not None:
            stream.seen += 1
            stream.seen_s = now_s

    def note_ack(self, result: int) -> None:
        """Notes the autopilot's answer to the request under way."""
        stream, self._waiting = self._waiting, None
        if stream is None:
            return
        stream.acked = result == mav.MAV_RESULT_ACCEPTED
        stream.refused = result in (
            mav.MAV_RESULT_UNSUPPORTED,
            mav.MAV_RESULT_DENIED,
            mav.MAV_RESULT_FAILED,
        )

    def next_request(self, now_s: float) -> Stream | None:
        """Returns the stream to ask for now, or ``None``."""
        if self._waiting is not None and now_s - self._waiting.asked_s < ACK_WAIT_S:
            return None
        wanting = [s for s in self.streams.values() if s.wants_asking(now_s)]
        if not wanting:
            self._waiting = None
            return None
        stream = min(wanting, key=lambda s: s.asked_s)
        if stream.acked:
            self.re_asked += 1
        stream.acked = False
        stream.asked += 1
        stream.asked_s = now_s
        self._waiting = stream
        return stream

    def missing(self, now_s: float) -> list[str]:
        """Returns the streams that do not flow and were not refused."""
        return [s.name for s in self.streams.values() if not s.refused and not s.flows(now_s)]
