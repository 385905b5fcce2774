"""EXIF GPS and Pix4D ``Camera:*`` XMP spliced into JPEG and PNG files, pixels untouched."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime

from calibration.geodesy import geoid_m
from calibration.rotations import A_BODY_CAM, r_from_ypr, ypr_from_r
from onboard.records import Poses

EXIF_HEADER = b"Exif\x00\x00"
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\x00"
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

WIDTH_OF_TYPE = {3: 2, 4: 4, 5: 4}
"""Bytes that turn round in a big-endian block, by TIFF type: short, long, rational."""

Entry = tuple[int, int, int, bytes]
"""One TIFF tag: number, type, count, value bytes."""


def splice_pose(image_bytes: bytes, pose: Poses, t_utc_s: float = math.nan) -> bytes:
    """Returns the file with the pose in its metadata; every other byte stays.

    A file that already has EXIF or XMP keeps its own of that kind. Formats other than JPEG and
    PNG, and images that are damaged, come back as they are.

    Args:
        image_bytes: The encoded image.
        pose: One pose.
        t_utc_s: UNIX time of the exposure; NaN leaves the time out.
    """
    if image_bytes.startswith(b"\xff\xd8"):
        return _splice_jpeg(image_bytes, pose, t_utc_s)
    if image_bytes.startswith(_PNG_SIGNATURE):
        return _splice_png(image_bytes, pose, t_utc_s)
    return image_bytes


def exif_block(pose: Poses, t_utc_s: float = math.nan) -> bytes:
    """Returns a little-endian TIFF block with the GPS directory of a pose (EXIF 2.32, 4.6.6).

    The altitude is above sea level, as EXIF defines it: ellipsoidal and EGM96 heights are written
    as EGM96; heights of another datum are written as they are.
    """
    gps = gps_entries(pose)
    if not gps:
        return b""
    first: list[Entry] = [
        (0x011A, 5, 1, _rational(72, 1)),
        (0x011B, 5, 1, _rational(72, 1)),
        (0x0128, 3, 1, b"\x02\x00"),
        (0x0131, 2, 7, b"Gossan\x00"),
        (0x0213, 3, 1, b"\x01\x00"),
    ]
    photo: list[Entry] = [
        (0x9000, 7, 4, b"0232"),
        (0x9101, 7, 4, b"\x01\x02\x03\x00"),
        (0xA000, 7, 4, b"0100"),
        (0xA001, 3, 1, b"\x01\x00"),
    ]
    if math.isfinite(t_utc_s):
        stamp = datetime.fromtimestamp(t_utc_s, UTC)
        text = stamp.strftime("%Y:%m:%d %H:%M:%S").encode() + b"\x00"
        fraction = b"%03d\x00" % (stamp.microsecond // 1000)
        first.append((0x0132, 2, 20, text))
        photo += [(0x9003, 2, 20, text), (0x9011, 2, 7, b"+00:00\x00"), (0x9291, 2, 4, fraction)]
        gps += [(7, 5, 3, _clock(stamp)), (29, 2, 11, text[:10] + b"\x00")]
    return _tiff(first, photo, gps)


def gps_entries(pose: Poses) -> list[Entry]:
    """Returns the tags of a pose's GPS directory; none where it has no position."""
    lat, lon, alt = float(pose.lat_deg[0]), float(pose.lon_deg[0]), altitude_m(pose)
    if not (math.isfinite(lat) and math.isfinite(lon)):
        return []
    gps: list[Entry] = [
        (0, 1, 4, b"\x02\x03\x00\x00"),
        (1, 2, 2, b"S\x00" if lat < 0 else b"N\x00"),
        (2, 5, 3, _degrees(lat)),
        (3, 2, 2, b"W\x00" if lon < 0 else b"E\x00"),
        (4, 5, 3, _degrees(lon)),
    ]
    if math.isfinite(alt):
        gps += [(5, 1, 1, b"\x01" if alt < 0 else b"\x00"), (6, 5, 1, _rational(abs(alt), 1000))]
    return [*gps, (18, 2, 7, b"WGS-84\x00")]


def xmp_packet(pose: Poses) -> bytes:
    """Returns an XMP packet with Pix4D's ``Camera:*`` properties."""
    return "\n".join(
        [
            '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>',
            '<x:xmpmeta xmlns:x="adobe:ns:meta/">',
            ' <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">',
            camera_description(pose),
            " </rdf:RDF>",
            "</x:xmpmeta>",
            '<?xpacket end="w"?>',
        ]
    ).encode()


def camera_description(pose: Poses) -> str:
    """Returns the ``rdf:Description`` of Pix4D's ``Camera:*`` properties.

    Pix4D's angles are those of a body whose camera looks at nadir, so its pitch is 0 there and 90
    forward: without roll, ours plus 90. With roll the matrices are composed, not the angles.
    Accuracies are one σ, with what the flight shares added.
    """
    r_ned_nadir_body = pose.r_ned_cam[0] @ A_BODY_CAM.T @ r_from_ypr(0.0, math.pi / 2, 0.0)
    yaw, pitch, roll = (math.degrees(float(a)) for a in ypr_from_r(r_ned_nadir_body))
    east, north, up = (float(v) for v in pose.sigma_enu_m[0] ** 2 + pose.bias_enu_m[0] ** 2)
    heading = math.hypot(float(pose.sigma_heading_rad[0]), float(pose.bias_heading_rad[0]))
    tilt = float(pose.sigma_tilt_rad[0])
    values = {
        "Yaw": yaw % 360.0,
        "Pitch": pitch,
        "Roll": roll,
        "GPSXYAccuracy": math.sqrt((east + north) / 2.0),
        "GPSZAccuracy": math.sqrt(up),
        "IMUYawAccuracy": math.degrees(heading),
        "IMUPitchAccuracy": math.degrees(tilt),
        "IMURollAccuracy": math.degrees(tilt),
    }
    lines = [
        f"   <Camera:{name}>{value:.6f}</Camera:{name}>"
        for name, value in values.items()
        if math.isfinite(value)
    ]
    lines.append("   <Camera:HorizCS>EPSG:4326</Camera:HorizCS>")
    if pose.height_datum in ("ellipsoid", "egm96"):
        lines.append("   <Camera:VertCS>EGM96</Camera:VertCS>")
    return "\n".join(
        [
            '  <rdf:Description rdf:about="" xmlns:Camera="http://pix4d.com/camera/1.0">',
            *lines,
            "  </rdf:Description>",
        ]
    )


def altitude_m(pose: Poses) -> float:
    """Returns the height that EXIF wants: above sea level (EGM96) where the datum allows it."""
    alt = float(pose.alt_m[0])
    if pose.height_datum == "ellipsoid":
        return alt - float(geoid_m(pose.lat_deg[0], pose.lon_deg[0]))
    return alt


def _splice_jpeg(image: bytes, pose: Poses, t_utc_s: float) -> bytes:
    at, present = 2, []
    segments = list(jpeg_segments(image))
    for start, stop, marker in segments:
        if marker == 0xE0 and start == at:
            at = stop
        if marker == 0xE1:
            present.append(image[start + 4 : stop])
    added = b""
    if not any(body.startswith(EXIF_HEADER) for body in present):
        block = exif_block(pose, t_utc_s)
        added += app1(EXIF_HEADER + block) if block else b""
    if not any(body.startswith(XMP_HEADER) for body in present):
        added += app1(XMP_HEADER + xmp_packet(pose))
    return image[:at] + added + image[at:] if segments else image


def jpeg_segments(image: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields start, stop and marker of the segments before the first scan."""
    at = 2
    while at + 4 <= len(image) and image[at] == 0xFF:
        marker = image[at + 1]
        if marker == 0xDA:
            return
        stop = at + 2 + int(struct.unpack_from(">H", image, at + 2)[0])
        yield at, stop, marker
        at = stop


def app1(body: bytes) -> bytes:
    """Returns the JPEG segment that holds EXIF or XMP."""
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def _splice_png(image: bytes, pose: Poses, t_utc_s: float) -> bytes:
    header_stop = len(_PNG_SIGNATURE) + 25
    added = b""
    if b"eXIf" not in image[:65536] and (block := exif_block(pose, t_utc_s)):
        added += _chunk(b"eXIf", block)
    if b"XML:com.adobe.xmp" not in image[:65536]:
        added += _chunk(b"iTXt", b"XML:com.adobe.xmp\x00\x00\x00\x00\x00" + xmp_packet(pose))
    return image[:header_stop] + added + image[header_stop:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _tiff(first: list[Entry], photo: list[Entry], gps: list[Entry]) -> bytes:
    """Returns the block: header, IFD0 with pointers, Exif directory, GPS directory."""

    def linked(photo_at: int, gps_at: int) -> bytes:
        links = [(0x8769, photo_at), (0x8825, gps_at)]
        return directory([*first, *((tag, 4, 1, struct.pack("<I", at)) for tag, at in links)], 8)

    photo_at = 8 + len(linked(0, 0))
    gps_at = photo_at + len(directory(photo, photo_at))
    body = linked(photo_at, gps_at) + directory(photo, photo_at) + directory(gps, gps_at)
    return b"II*\x00\x08\x00\x00\x00" + body


def directory(entries: list[Entry], start: int, order: str = "<") -> bytes:
    """Returns one image file directory that begins at ``start``, its long values behind it.

    Args:
        entries: Tags with little-endian values.
        start: Where in the block it begins.
        order: ``<`` for a little-endian block, ``>`` for a big-endian one.
    """
    head, values = struct.pack(f"{order}H", len(entries)), b""
    values_at = start + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in sorted(entries):
        head += struct.pack(f"{order}HHI", tag, kind, count)
        ordered = value if order == "<" else _big_endian(kind, value)
        if len(ordered) <= 4:
            head += ordered.ljust(4, b"\0")
        else:
            head += struct.pack(f"{order}I", values_at + len(values))
            values += ordered + b"\0" * (len(ordered) % 2)
    return head + b"\0\0\0\0" + values


def _big_endian(kind: int, value: bytes) -> bytes:
    width = WIDTH_OF_TYPE.get(kind, 1)
    parts = [value[i : i + width][::-1] for i in range(0, len(value), width)]
    return b"".join(parts)


def _degrees(angle_deg: float) -> bytes:
    """Returns degrees, minutes and seconds as three rationals (seconds to 1e-6: 0.03 mm)."""
    micro = round(abs(angle_deg) * 3_600_000_000)
    degrees, rest = divmod(micro, 3_600_000_000)
    minutes, seconds = divmod(rest, 60_000_000)
    return struct.pack("<6I", degrees, 1, minutes, 1, seconds, 1_000_000)


def _clock(stamp: datetime) -> bytes:
    """Returns the time of day as three rationals."""
    seconds = stamp.second * 1000 + stamp.microsecond // 1000
    return struct.pack("<6I", stamp.hour, 1, stamp.minute, 1, seconds, 1000)


def _rational(value: float, denominator: int) -> bytes:
    return struct.pack("<2I", round(value * denominator), denominator)
