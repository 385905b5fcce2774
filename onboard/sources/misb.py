"""MISB ST 0601 metadata (KLV): where a sensor was and where it looked, packet by packet."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from calibration.rotations import A_BODY_CAM, r_from_ypr
from onboard.records import Floats, HeightDatum

UL_PREFIX = bytes.fromhex("060e2b34")
LOCAL_SET = bytes.fromhex("060e2b34020b01010e01030101000000")
"""The universal key of ST 0601's local set; what else lies in a stream is passed over."""
CHECKSUM, TIME = 1, 2
LONG_FORM = 0x80


@dataclass(frozen=True, slots=True)
class _Scale:
    """How a tag's integer becomes a number: evenly over [low, high], signed ones about 0."""

    low: float
    high: float
    signed: bool = False


SCALES = {
    5: _Scale(0.0, 360.0),  # platform heading, degrees from true north
    6: _Scale(-20.0, 20.0, True),  # platform pitch
    7: _Scale(-50.0, 50.0, True),  # platform roll
    13: _Scale(-90.0, 90.0, True),  # sensor latitude
    14: _Scale(-180.0, 180.0, True),  # sensor longitude
    15: _Scale(-900.0, 19000.0),  # sensor height, metres above mean sea level
    18: _Scale(0.0, 360.0),  # sensor relative azimuth
    19: _Scale(-180.0, 180.0, True),  # sensor relative elevation
    20: _Scale(0.0, 360.0),  # sensor relative roll
    75: _Scale(-900.0, 19000.0),  # sensor height, metres above the ellipsoid
    90: _Scale(-90.0, 90.0, True),  # platform pitch, full range
    91: _Scale(-90.0, 90.0, True),  # platform roll, full range
}


@dataclass(frozen=True, slots=True)
class KlvRow:
    """One packet.

    Attributes:
        t_unix_s: Its precision time stamp; NaN where not said.
        lat_deg: Sensor latitude; NaN where not said.
        lon_deg: Sensor longitude.
        alt_m: Sensor height above ``datum``.
        datum: ``ellipsoid`` where tag 75 says it, else mean sea level as ``egm96``.
        r_ned_cam: (3, 3) camera axes to NED; ``None`` where an angle is missing.
        whole: Whether the packet is complete and its checksum right.
    """

    t_unix_s: float
    lat_deg: float
    lon_deg: float
    alt_m: float
    datum: HeightDatum
    r_ned_cam: Floats | None
    whole: bool


def parse_klv(data: bytes) -> list[KlvRow]:
    """Returns the ST 0601 packets of a stream, those cut short or damaged marked."""
    rows: list[KlvRow] = []
    at = data.find(LOCAL_SET)
    while at >= 0:
        start = at + len(LOCAL_SET)
        length, body = _ber_length(data, start)
        end = body + length
        packet = data[at : min(end, len(data))]
        tags = dict(_tags(data[body : min(end, len(data))]))
        rows.append(_row(tags, end <= len(data) and _checks(packet, tags)))
        at = data.find(LOCAL_SET, start)
    return rows


def _ber_length(data: bytes, at: int) -> tuple[int, int]:
    """Returns a BER length and where its value begins."""
    if at >= len(data):
        return 1, at + 1
    first = data[at]
    if first < LONG_FORM:
        return first, at + 1
    n = first - LONG_FORM
    return int.from_bytes(data[at + 1 : at + 1 + n], "big"), at + 1 + n


def _tags(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields tag and value; tags are BER-OID, a value that is cut is left out."""
    at = 0
    while at < len(data):
        tag = 0
        while True:
            byte = data[at]
            tag, at = tag << 7 | byte & 0x7F, at + 1
            if byte < LONG_FORM or at >= len(data):
                break
        length, at = _ber_length(data, at)
        if at + length > len(data):
            return
        yield tag, data[at : at + length]
        at += length


def _checks(packet: bytes, tags: dict[int, bytes]) -> bool:
    """Returns whether the mandatory checksum, a running sum of 16-bit words, is right."""
    said = tags.get(CHECKSUM)
    if not said:
        return False
    summed = sum(byte << (8 if i % 2 == 0 else 0) for i, byte in enumerate(packet[: -len(said)]))
    return summed & 0xFFFF == int.from_bytes(said, "big")


def _row(tags: dict[int, bytes], whole: bool) -> KlvRow:
    value = {tag: _number(scale, tags.get(tag, b"")) for tag, scale in SCALES.items()}
    ellipsoidal = math.isfinite(value[75])
    pitch, roll = (value[a] if math.isfinite(value[a]) else value[b] for a, b in ((90, 6), (91, 7)))
    angles = np.radians([value[5], pitch, roll, value[18], value[19], value[20]])
    r_ned_cam = None
    if np.isfinite(angles).all():
        r_ned_cam = np.asarray(r_from_ypr(*angles[:3]) @ r_from_ypr(*angles[3:]) @ A_BODY_CAM)
    return KlvRow(
        t_unix_s=int.from_bytes(tags[TIME], "big") * 1e-6 if tags.get(TIME) else math.nan,
        lat_deg=value[13],
        lon_deg=value[14],
        alt_m=value[75] if ellipsoidal else value[15],
        datum="ellipsoid" if ellipsoidal else "egm96",
        r_ned_cam=r_ned_cam,
        whole=whole,
    )


def _number(scale: _Scale, raw: bytes) -> float:
    """Returns a tag's value; NaN where it is not said or says that it is out of range."""
    if not raw:
        return math.nan
    whole = int.from_bytes(raw, "big", signed=scale.signed)
    bits = 8 * len(raw)
    if not scale.signed:
        return scale.low + whole * (scale.high - scale.low) / float(2**bits - 1)
    if whole == -(2 ** (bits - 1)):
        return math.nan
    return whole * (scale.high - scale.low) / float(2**bits - 2)
