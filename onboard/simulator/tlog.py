"""The log of a simulated flight as a companion computer would have recorded its link."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

os.environ.setdefault("MAVLINK20", "1")
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.simulator.motion import STEP_S
from onboard.simulator.telemetry import STREAMS_HZ, Message, Telemetry

TIMESYNC_HZ = 2.0
LINK_DELAY_S = 0.002
HOST_BEHIND_S = 0.6
"""The host's UTC is off the autopilot's by this much: clocks that must not be mixed."""

Entry = tuple[float, bool, Message]


def write_tlog(path: Path, telemetry: Telemetry, rng: np.random.Generator) -> int:
    """Writes a standard tlog (8 bytes UNIX µs, message, …); returns how many messages it has."""
    autopilot = mav.MAVLink(None, srcSystem=1, srcComponent=1)
    companion = mav.MAVLink(None, srcSystem=1, srcComponent=191)
    entries = sorted(_entries(telemetry, rng), key=lambda entry: entry[0])
    with path.open("wb") as out:
        for t_host_s, sent, message in entries:
            packer = companion if sent else autopilot
            packed = message.pack(packer)
            packer.seq = (packer.seq + 1) % 256
            unix_us = round((telemetry.t0_unix_s + HOST_BEHIND_S + t_host_s) * 1e6)
            out.write(struct.pack(">Q", unix_us) + packed)
    return len(entries)


def _entries(telemetry: Telemetry, rng: np.random.Generator) -> Iterator[Entry]:
    """Yields (host time in boot seconds, sent by the companion?, message)."""
    end_s = float(telemetry.motion.t_boot_s[-1])
    for name, rate_hz in STREAMS_HZ.items():
        for t in np.arange(STEP_S * (1 + len(name) % 7), end_s, 1 / rate_hz):
            yield t + _delay(rng), False, telemetry.message(name, float(t))
    for number, t in enumerate(telemetry.motion.exposures_s, start=1):
        yield t + 0.02 + _delay(rng), False, telemetry.camera_feedback(number, float(t))
    for t in np.arange(1.0, end_s, 1 / TIMESYNC_HZ):
        ts1 = round((telemetry.t0_unix_s + HOST_BEHIND_S + t) * 1e9)
        there, back = _delay(rng), _delay(rng)
        yield float(t), True, mav.MAVLink_timesync_message(0, ts1)
        yield float(t + there + back), False, telemetry.timesync(float(t + there), ts1)


def _delay(rng: np.random.Generator) -> float:
    return LINK_DELAY_S + float(rng.exponential(0.003))
