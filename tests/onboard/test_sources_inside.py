"""Telemetry inside a video: GoPro's GPMF, MISB KLV in a transport stream, cut and spoilt ones."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.geodesy import geoid_m
from calibration.rotations import ypr_from_r, ypr_from_r_ned_cam
from gossan.errors import GossanError
from onboard.sources.errors import DamagedFrame, DamagedTelemetryError
from onboard.sources.gpmf import read_gpmf
from onboard.sources.misb import LOCAL_SET, parse_klv
from onboard.sources.mp4 import track_samples
from onboard.sources.open import open_source

KARMA = "imagery/gopro_karma_video/karma.mp4"


# ---- GPMF ----------------------------------------------------------------------------------------


def test_karma_is_placed_by_its_drone(shared_data: Path) -> None:
    source = open_source(shared_data / KARMA)
    poses = source.poses(None)
    assert len(poses) == 13
    assert poses.lat_deg == pytest.approx(33.1257, abs=4e-4)
    assert poses.lon_deg == pytest.approx(-117.3313, abs=4e-4)
    yaw, pitch, roll = np.degrees(ypr_from_r(poses.r_ned_body))
    along = np.degrees(np.arctan2(poses.v_ned_mps[:, 1], poses.v_ned_mps[:, 0]))
    assert yaw[4:] == pytest.approx(along[4:], abs=6.0)  # it flies the way its nose points
    assert np.abs(pitch).max() < 22
    assert np.abs(roll).max() < 10
    assert any("σ 0.25 s" in note for note in source.notes)


def test_the_tracks_own_fixes_agree_with_its_positions(shared_data: Path) -> None:
    found = read_gpmf(shared_data / KARMA)
    assert found is not None
    log, ahead_s = found
    assert ahead_s == pytest.approx(145.75, abs=0.3)
    run = log.buffer._epochs[0]
    at_fix = log.buffer.pose_at(run.gps.t[4:-4], [str(i) for i in range(len(run.gps) - 8)], None)
    off_m = (at_fix.lat_deg - run.gps.x[4:-4, 0]) * 111_000
    assert np.abs(off_m).max() < 2.0
    assert log.clock.utc_from_boot(150.0)[0] == pytest.approx(1492457281.46, abs=0.5)


def test_the_bare_track_is_the_first_payload(shared_data: Path) -> None:
    raw = shared_data / "imagery/gopro_karma_video/karma.raw"
    samples = track_samples(shared_data / KARMA, b"gpmd")
    assert len(samples) == 13
    assert samples[0].data == raw.read_bytes()
    assert samples[5].t_s == pytest.approx(5.005)
    source = open_source(raw)
    assert list(source.frames()) == []
    assert any("no frames" in note for note in source.notes)


def item(key: str, kind: str, size: int, body: bytes) -> bytes:
    head = struct.pack(">4sBBH", key.encode(), ord(kind), size, len(body) // size)
    return head + body + bytes(-len(body) % 4)


def camera_payload(fix: int = 3, altitude: int = 250_000) -> bytes:
    rows = [(374_000_000 + 90 * i, -122_000_000, altitude, 0, 0) for i in range(18)]
    stream = (
        item("GPSF", "L", 4, struct.pack(">I", fix))
        + item("GPSU", "U", 16, b"260801101500.000")
        + item("SCAL", "l", 4, struct.pack(">5i", 10**7, 10**7, 1000, 1000, 100))
        + item("GPS5", "l", 20, b"".join(struct.pack(">5i", *row) for row in rows))
    )
    return item("DEVC", "\0", 1, item("STRM", "\0", 1, stream))


def test_a_camera_with_gps_alone_has_no_attitude(tmp_path: Path) -> None:
    path = tmp_path / "hero.raw"
    path.write_bytes(camera_payload())
    found = read_gpmf(path)
    assert found is not None
    log, ahead_s = found
    assert ahead_s == 0.0
    assert log.buffer.why_not([0.5], None) == ["no_attitude"]
    assert log.messages == 18
    row = log.buffer._epochs[0].position.x[9]
    assert row[:3] == pytest.approx([37.4 + 9 * 90e-7, -12.2, 250.0])
    path.write_bytes(camera_payload(fix=0))
    assert open_source(path).poses(None).frame == ()


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.97])
def test_a_cut_video_is_a_clear_error_or_fewer_frames(
    shared_data: Path, tmp_path: Path, keep: float
) -> None:
    whole = (shared_data / KARMA).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: int(len(whole) * keep)])
    with contextlib.suppress(GossanError):
        assert 0 < len(open_source(tmp_path / "cut.mp4").poses(None)) <= 13


@pytest.mark.parametrize("seed", range(6))
def test_spoilt_tracks_never_crash(shared_data: Path, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray((shared_data / "imagery/gopro_karma_video/karma.raw").read_bytes())
    for at in rng.integers(4, len(data), 40):
        data[at] = rng.integers(256)
    (tmp_path / "x.raw").write_bytes(data)
    with contextlib.suppress(DamagedTelemetryError):
        read_gpmf(tmp_path / "x.raw")


def test_a_damaged_index_is_told(tmp_path: Path) -> None:
    stbl = b"".join(
        struct.pack(">I4s", 8 + len(body), name) + body
        for name, body in [
            (b"stsd", bytes(8) + struct.pack(">I4s", 16, b"gpmd")),
            (b"stsz", struct.pack(">III", 0, 0, 10**6)),
        ]
    )
    for name in (b"stbl", b"minf"):
        stbl = struct.pack(">I4s", 8 + len(stbl), name) + stbl
    header = struct.pack(">I4s", 32, b"mdhd") + struct.pack(">6I", 0, 0, 0, 1000, 0, 0)
    for name, body in ((b"mdia", header + stbl), (b"trak", b""), (b"moov", b"")):
        stbl = struct.pack(">I4s", 8 + len(body or stbl), name) + (body or stbl)
    (tmp_path / "x.mp4").write_bytes(stbl)
    with pytest.raises(DamagedFrame, match="index"):
        track_samples(tmp_path / "x.mp4", b"gpmd")


# ---- MISB KLV ------------------------------------------------------------------------------------


def test_the_standards_own_numbers(shared_data: Path) -> None:
    """The example values printed in ST 0601 for its tags 13, 14, 15 and 2."""
    (row,) = parse_klv(
        (shared_data / "imagery/misb_klv/DynamicOnlyMISMMSPacketData.bin").read_bytes()
    )
    assert (row.lat_deg, row.lon_deg) == pytest.approx((60.1768229669783, 128.426759042045))
    assert row.alt_m == pytest.approx(14190.7195, abs=1e-3)
    assert row.t_unix_s == 1231798102.0
    assert row.whole


def test_a_damaged_packet_is_flagged_and_not_placed(shared_data: Path, tmp_path: Path) -> None:
    """The second real packet's checksum is wrong; cut ones and changed ones are no better."""
    folder = shared_data / "imagery/misb_klv"
    source = open_source(folder / "DynamicConstantMISMMSPacketData.bin")
    assert len(source.poses(None)) == 0
    assert [f.reason for f in source.flagged] == ["cut_short"]
    whole = (folder / "DynamicOnlyMISMMSPacketData.bin").read_bytes()
    spoilt = bytearray(whole)
    spoilt[60] ^= 1
    (tmp_path / "three.klv").write_bytes(whole + bytes(spoilt) + whole + whole[:50])
    source = open_source(tmp_path / "three.klv")
    poses = source.poses(None)
    assert poses.frame == ("three_000000", "three_000002")
    assert [(f.frame, f.reason) for f in source.flagged] == [
        ("three_000001", "cut_short"),
        ("three_000003", "cut_short"),
    ]
    assert poses.alt_m[0] == pytest.approx(14190.72 + float(geoid_m(60.1768, 128.4268)), abs=0.1)


def klv(t_s: float, lat: float, heading: float, elevation: float) -> bytes:
    """A packet of a level platform whose sensor looks ahead and down."""

    def tag(number: int, value: bytes) -> bytes:
        return bytes([number, len(value)]) + value

    body = tag(2, struct.pack(">Q", round(t_s * 1e6)))
    body += tag(5, struct.pack(">H", round(heading % 360 / 360 * 65535)))
    body += tag(6, struct.pack(">h", 0)) + tag(7, struct.pack(">h", 0))
    body += tag(13, struct.pack(">i", round(lat / 90 * (2**31 - 1))))
    body += tag(14, struct.pack(">i", round(8.0 / 180 * (2**31 - 1))))
    body += tag(75, struct.pack(">H", round((1500.0 + 900) / 19900 * 65535)))
    body += tag(18, bytes(4)) + tag(20, bytes(4))
    body += tag(19, struct.pack(">i", round(elevation / 180 * (2**31 - 1))))
    packet = LOCAL_SET + bytes([len(body) + 4]) + body + b"\x01\x02"
    total = sum(b << (8 if i % 2 == 0 else 0) for i, b in enumerate(packet)) & 0xFFFF
    return packet + struct.pack(">H", total)


def with_klv(video: bytes, packets: list[tuple[float, bytes]], with_time: bool) -> bytes:
    """The transport stream with a KLV stream beside its picture, as a muxer writes it."""
    pid, out, due = 0x300, bytearray(), list(packets)
    first = None
    for at in range(0, len(video), 188):
        packet = bytearray(video[at : at + 188])
        if (packet[1] & 0x1F) << 8 | packet[2] == 4096:
            packet = with_stream(packet, pid)
        ticks = presentation(packet) if (packet[1] & 0x1F) << 8 | packet[2] == 256 else None
        out += packet
        if ticks is None:
            continue
        first = ticks if first is None else first
        while due and due[0][0] <= (ticks - first) / 90000 + 1e-6:
            t_s, data = due.pop(0)
            stamp = first + round(t_s * 90000)
            clock = bytes([
                0x21 | (stamp >> 29 & 0x0E), stamp >> 22 & 255, stamp >> 14 & 254 | 1,
                stamp >> 7 & 255, stamp << 1 & 254 | 1,
            ])  # fmt: skip
            head = bytes([0x80, 0x80, 5]) + clock if with_time else bytes([0x80, 0, 0])
            part = b"\0\0\1\xbd" + struct.pack(">H", len(head) + len(data)) + head + data
            fill = 184 - len(part)
            field = bytes([fill - 1]) + (b"\0" + b"\xff" * (fill - 2) if fill > 1 else b"")
            out += bytes([0x47, 0x40 | pid >> 8, pid & 255, 0x30]) + field + part
    return bytes(out)


def with_stream(packet: bytearray, pid: int) -> bytearray:
    start = 5 + packet[4]
    length = (packet[start + 1] & 0x0F) << 8 | packet[start + 2]
    section = packet[start : start + 3 + length - 4]
    entry = bytes([0x06, 0xE0 | pid >> 8, pid & 255, 0xF0, 6, 5, 4]) + b"KLVA"
    section += entry
    section[1:3] = struct.pack(">H", 0xB000 | len(section) + 4 - 3)
    whole = packet[:start] + section + struct.pack(">I", crc32_mpeg(section))
    return whole + b"\xff" * (188 - len(whole))


def crc32_mpeg(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def presentation(packet: bytearray) -> int | None:
    if not packet[1] & 0x40:
        return None
    at = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
    a, b, c, d, e = packet[at + 9 : at + 14]
    return (a >> 1 & 7) << 30 | b << 22 | c >> 1 << 15 | d << 7 | e >> 1


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "flight.ts"
    out = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MPG2"), 10.0, (160, 120))
    for i in range(40):
        out.write(np.full((120, 160, 3), (5 * i, 20, 200), np.uint8))
    out.release()
    return path


@pytest.mark.parametrize("with_time", [True, False], ids=["synchronous", "asynchronous"])
def test_a_stream_with_klv_places_its_pictures(stream: Path, with_time: bool) -> None:
    packets = [
        (t, klv(1.7e9 + t, 46.0 + 1e-4 * t, 350 + 5 * t, -60.0)) for t in (0.0, 1.0, 2.0, 3.0)
    ]
    stream.write_bytes(with_klv(stream.read_bytes(), packets, with_time))
    source = open_source(stream, video_step_s=0.5)
    poses = source.poses(None)
    assert len(poses) == 8
    tolerance = 1e-7 if with_time else 2e-5  # of a picture or two
    assert poses.lat_deg[:7] == pytest.approx(46.0 + 5e-5 * np.arange(7), abs=tolerance)
    assert poses.alt_m == pytest.approx(1500.0, abs=0.2)
    yaw, pitch, roll = np.degrees(ypr_from_r_ned_cam(poses.r_ned_cam))
    assert pitch == pytest.approx(-60.0, abs=0.05)
    assert yaw[3] % 360 == pytest.approx(357.5, abs=0.05 if with_time else 1.0)
    assert roll == pytest.approx(0.0, abs=0.05)
    pixels = source.load_pixels(list(source.frames())[4]).pixels
    assert pixels is not None
    assert pixels[60, 80, 2] == pytest.approx(100, abs=14)


def test_pictures_far_from_any_packet_are_flagged(stream: Path) -> None:
    packets = [(0.0, klv(1.7e9, 46.0, 0.0, -90.0))]
    stream.write_bytes(with_klv(stream.read_bytes(), packets, True))
    source = open_source(stream, video_step_s=1.0)
    assert len(source.poses(None)) == 3
    assert [f.reason for f in source.flagged] == ["no_telemetry"]


def test_streams_without_klv_say_what_is_missing(stream: Path, tmp_path: Path) -> None:
    with pytest.raises(GossanError, match="no telemetry beside or inside"):
        open_source(stream)
    (tmp_path / "empty.ts").touch()
    with pytest.raises(GossanError):
        open_source(tmp_path / "empty.ts")
