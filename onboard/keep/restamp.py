"""A better pose in place of the one that a JPEG carries; pixels and all other tags untouched."""

from __future__ import annotations

import re
import struct

from onboard.keep.exif import (
    EXIF_HEADER,
    XMP_HEADER,
    app1,
    camera_description,
    directory,
    gps_entries,
    jpeg_segments,
    splice_pose,
)
from onboard.records import Poses

APP1 = 0xE1
GPS_POINTER = 0x8825
LONG = 4
MAX_SEGMENT_BYTES = 0xFFFF - 2
END_OF_RDF = b"</rdf:RDF>"
STALE = (
    r"Camera:(?:Yaw|Pitch|Roll|GPS\w+Accuracy|IMU\w+Accuracy|HorizCS|VertCS)",
    r"drone-dji:(?:Gimbal|Flight)(?:Yaw|Pitch|Roll)Degree",
    r"drone-dji:(?:GpsLatitude|GpsLong(?:t)?itude|AbsoluteAltitude|RtkFlag|RtkStd(?:Lon|Lat|Hgt))",
    r"drone-dji:AltitudeType",
    r"drone-skydio:CameraOrientation\w+",
    r"drone-parrot:Camera(?:Yaw|Pitch|Roll)Degree",
)
"""Properties that say a pose: readers take them before Pix4D's, so that they must not stay."""
_NAME = "|".join(STALE)
_ATTRIBUTE = re.compile(rf"\s+(?:{_NAME})\s*=\s*(?:\"[^\"]*\"|'[^']*')".encode())
_ELEMENT = re.compile(rf"\s*<({_NAME})>[^<]*</\1>".encode())


def restamp_pose(image_bytes: bytes, pose: Poses) -> bytes | None:
    """Returns the file with the pose in place of its own; ``None`` where it cannot take one.

    EXIF's GPS directory becomes the pose's, the maker's tags of position and attitude go and
    Pix4D's ``Camera:*`` come. A file without EXIF or XMP gets them.

    Args:
        image_bytes: The encoded image; JPEG, or PNG without tags of its own.
        pose: One pose with a position.
    """
    if not image_bytes.startswith(b"\xff\xd8"):
        spliced = splice_pose(image_bytes, pose)
        return spliced if len(spliced) > len(image_bytes) else None
    segments = list(jpeg_segments(image_bytes))
    if any(stop > len(image_bytes) for _, stop, _ in segments):
        return None
    out, at = bytearray(), 0
    for start, stop, marker in segments:
        new = _renewed(image_bytes[start + 4 : stop], pose) if marker == APP1 else None
        if new is None:
            continue
        if len(new) > MAX_SEGMENT_BYTES:
            return None
        out += image_bytes[at:start] + app1(new)
        at = stop
    return splice_pose(bytes(out + image_bytes[at:]), pose)


def _renewed(body: bytes, pose: Poses) -> bytes | None:
    if body.startswith(EXIF_HEADER):
        block = with_gps(body[len(EXIF_HEADER) :], pose)
        return None if block is None else EXIF_HEADER + block
    if body.startswith(XMP_HEADER) and END_OF_RDF in body:
        kept = _ELEMENT.sub(b"", _ATTRIBUTE.sub(b"", body))
        at = kept.rindex(END_OF_RDF)
        return kept[:at] + camera_description(pose).encode() + b"\n " + kept[at:]
    return None


def with_gps(block: bytes, pose: Poses) -> bytes | None:
    """Returns a TIFF block whose GPS directory is the pose's; ``None`` if the block is damaged.

    The new directory is laid behind the block and linked to; nothing else moves, so that offsets
    in makers' notes stay right.
    """
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, first)
        rows = [block[first + 2 + 12 * i : first + 14 + 12 * i] for i in range(count)]
        following = block[first + 2 + 12 * count : first + 6 + 12 * count]
        tags = [struct.unpack(f"{order}H", row[:2])[0] for row in rows]
    except struct.error:
        return None
    out = bytearray(block + bytes(len(block) % 2))
    if GPS_POINTER in tags:
        value_at = first + 2 + 12 * tags.index(GPS_POINTER) + 8
        struct.pack_into(f"{order}I", out, value_at, len(out))
    else:
        gps_at = len(out) + 2 + 12 * (count + 1) + 4
        link = struct.pack(f"{order}HHII", GPS_POINTER, LONG, 1, gps_at)
        both = sorted([*zip(tags, rows, strict=True), (GPS_POINTER, link)])
        struct.pack_into(f"{order}I", out, 4, len(out))
        out += struct.pack(f"{order}H", count + 1) + b"".join(row for _, row in both) + following
    return bytes(out + directory(gps_entries(pose), len(out), order))
