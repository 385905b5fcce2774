"""Photos that carry their pose: vendors' angles, datums, and what looks wrong in their tags."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from calibration.camera import Camera
from calibration.errors import DatumError
from calibration.geodesy import geoid_m
from calibration.rig import Mount, Rig, load_rig
from calibration.rotations import (
    r_from_ypr,
    r_ned_cam_from_ypr,
    rot_log,
    ypr_from_r_ned_cam,
)
from onboard.sources.errors import DamagedFrame
from onboard.sources.exif import read_facts, utc_of_name
from onboard.sources.open import open_source
from onboard.sources.pixels import load_pixels
from onboard.sources.xmp import MAX_BYTES, parse_xmp

Make = Callable[..., Path]

DJI = 'xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/"'
PIX4D = 'xmlns:Camera="http://pix4d.com/camera/1.0"'
SKYDIO = 'xmlns:drone-skydio="https://www.skydio.com/drone-skydio/1.0/"'
PARROT = 'xmlns:drone-parrot="http://www.parrot.com/drone-parrot/1.0/"'


def packet(spaces: str, attributes: str, body: str = "") -> bytes:
    rdf = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
    return (
        f'<?xpacket begin="\ufeff"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {rdf}>'
        f'<rdf:Description rdf:about="" {spaces} {attributes}>{body}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def dji(yaw: float = 40.0, pitch: float = -90.0, roll: float = 0.0, more: str = "") -> bytes:
    return packet(
        DJI,
        f'drone-dji:AbsoluteAltitude="+198.61" drone-dji:RelativeAltitude="+40.10" '
        f'drone-dji:GimbalYawDegree="{yaw:+.2f}" drone-dji:GimbalPitchDegree="{pitch:+.2f}" '
        f'drone-dji:GimbalRollDegree="{roll:+.2f}" drone-dji:FlightYawDegree="+41.0" '
        f'drone-dji:FlightPitchDegree="-2.0" drone-dji:FlightRollDegree="+1.0" {more}',
    )


@pytest.fixture
def photo(tmp_path: Path) -> Make:
    """Writes a JPEG with EXIF and XMP."""

    def make(
        name: str = "a.jpg",
        xmp: bytes | None = None,
        lat: float = 46.84,
        lon: float = -91.99,
        size: tuple[int, int] = (400, 300),
        second: int = 0,
        orientation: int = 1,
        software: str = "v01",
        camera: dict[int, object] | None = None,
        gps: dict[int, object] | None = None,
    ) -> Path:
        exif = Image.Exif()
        exif[Base.Orientation] = orientation
        exif[Base.Software] = software
        stamp = f"2026:05:01 10:00:{second:02d}"
        exif.get_ifd(IFD.Exif).update({Base.DateTimeOriginal: stamp, **(camera or {})})
        if math.isfinite(lat):
            exif.get_ifd(IFD.GPSInfo).update(
                {
                    GPS.GPSLatitudeRef: "S" if lat < 0 else "N",
                    GPS.GPSLatitude: dms(lat),
                    GPS.GPSLongitudeRef: "W" if lon < 0 else "E",
                    GPS.GPSLongitude: dms(lon),
                    GPS.GPSAltitude: 200.0,
                    **(gps or {}),
                }
            )
        rng = np.random.default_rng(second)
        pixels = rng.integers(60, 200, (size[1], size[0], 3), dtype=np.uint8)
        kwargs = {"xmp": xmp} if xmp else {}
        Image.fromarray(pixels).save(tmp_path / name, exif=exif, **kwargs)
        return tmp_path / name

    return make


def dms(angle: float) -> tuple[float, float, float]:
    whole = abs(angle)
    degrees, minutes = int(whole), int(whole % 1 * 60)
    return float(degrees), float(minutes), round((whole * 60 - int(whole * 60)) * 60, 6)


def reasons(folder: Path, **kwargs: object) -> dict[str, list[str]]:
    source = open_source(folder, **kwargs)  # type: ignore[arg-type]
    found: dict[str, list[str]] = {}
    for item in source.flagged:
        found.setdefault(item.frame, []).append(item.reason)
        assert item.remedy
    return found


def same_turn(a: object, b: object) -> float:
    return float(np.degrees(np.linalg.norm(rot_log(np.asarray(a) @ np.asarray(b).T))))


@pytest.mark.parametrize(
    ("xmp", "yaw", "pitch", "roll"),
    [
        (dji(-132.0, -89.9, 0.0), -132.0, -89.9, 0.0),
        (dji(92.9, -60.0, 0.0), 92.9, -60.0, 0.0),
        (
            packet(
                SKYDIO,
                "",
                '<drone-skydio:CameraOrientationNED rdf:parseType="Resource">'
                "<drone-skydio:Yaw>15.5</drone-skydio:Yaw>"
                "<drone-skydio:Pitch>-45.0</drone-skydio:Pitch>"
                "<drone-skydio:Roll>1.0</drone-skydio:Roll></drone-skydio:CameraOrientationNED>",
            ),
            15.5,
            -45.0,
            1.0,
        ),
        (
            packet(
                PARROT,
                'drone-parrot:CameraYawDegree="10" drone-parrot:CameraPitchDegree="-70" '
                'drone-parrot:CameraRollDegree="2"',
            ),
            10.0,
            -70.0,
            2.0,
        ),
        (
            packet(PIX4D, 'Camera:Yaw="120" Camera:Pitch="0.1" Camera:Roll="0"'),
            120.0,
            -89.9,
            0.0,
        ),
        (
            packet(
                'xmlns:p4d="http://pix4d.com/camera/1.0/"',
                "",
                "<p4d:Yaw>77</p4d:Yaw><p4d:Pitch>30</p4d:Pitch><p4d:Roll>0</p4d:Roll>",
            ),
            77.0,
            -60.0,
            0.0,
        ),
    ],
    ids=["dji nadir", "dji oblique", "skydio", "parrot", "pix4d nadir", "pix4d other prefix"],
)
def test_angles_by_namespace(
    photo: Make, xmp: bytes, yaw: float, pitch: float, roll: float
) -> None:
    facts = read_facts(photo(xmp=xmp))
    assert facts.r_ned_cam is not None
    expected = r_ned_cam_from_ypr(*np.radians([yaw, pitch, roll]))
    assert same_turn(facts.r_ned_cam, expected) < 1e-6


def test_pix4d_roll_turns_about_the_nose(photo: Make) -> None:
    """A vehicle heading north with its right side 10° down sees to the west of the nadir."""
    xmp = packet(PIX4D, 'Camera:Yaw="0" Camera:Pitch="0" Camera:Roll="10"')
    facts = read_facts(photo(xmp=xmp))
    assert facts.r_ned_cam is not None
    north, east, down = facts.r_ned_cam[:, 2]
    assert (north, east, down) == pytest.approx(
        (0.0, -math.sin(math.radians(10)), math.cos(math.radians(10))), abs=1e-9
    )


def test_position_time_and_misspelt_tags(photo: Make) -> None:
    xmp = dji(
        more='drone-dji:GpsLatitude="24.68027804" drone-dji:GpsLongtitude="120.95170160" '
        'drone-dji:RtkFlag="50" drone-dji:RtkStdLon="0.010" drone-dji:RtkStdLat="0.009" '
        'drone-dji:RtkStdHgt="0.024"'
    )
    subsecond = {Base.SubsecTimeOriginal: "25", Base.OffsetTimeOriginal: "+08:00"}
    path = photo(xmp=xmp, camera=subsecond)
    facts = read_facts(path)
    assert (facts.lat_deg, facts.lon_deg) == (24.68027804, 120.9517016)
    assert facts.alt_datum == "ellipsoid"
    assert facts.t_utc_s == 1_777_600_800.25
    assert facts.utc_known
    source = open_source(path)
    assert any("misspelt" in note for note in source.notes)
    poses = source.poses(None)
    assert poses.sigma_enu_m[0] == pytest.approx([0.010, 0.009, 0.024])
    assert poses.bias_enu_m[0] == pytest.approx([0.0, 0.0, 0.0])


def test_exif_positions_on_both_hemispheres(photo: Make) -> None:
    facts = read_facts(photo(lat=-35.363, lon=-91.994427))
    assert (facts.lat_deg, facts.lon_deg) == pytest.approx((-35.363, -91.994427), abs=1e-8)
    below = read_facts(photo("b.jpg", gps={GPS.GPSAltitudeRef: b"\x01"}))
    assert below.alt_m == -200.0


@pytest.mark.parametrize(
    ("datum", "expected", "named"),
    [
        ("same", 198.61, "same"),
        ("takeoff", 40.10, "takeoff"),
        ("ellipsoid", 198.61, "ellipsoid"),
        ("egm96", 198.61 + float(geoid_m(46.84, -91.99)), "ellipsoid"),
    ],
)
def test_heights_by_the_datum_given(photo: Make, datum: str, expected: float, named: str) -> None:
    poses = open_source(photo(xmp=dji()), alt_datum=datum).poses(None)  # type: ignore[arg-type]
    assert poses.height_datum == named
    assert poses.alt_m[0] == pytest.approx(expected, abs=1e-6)


def test_heights_without_a_datum_are_refused_by_name(photo: Make) -> None:
    with pytest.raises(DatumError) as caught:
        open_source(photo(xmp=dji())).poses(None)
    assert "--alt-datum" in caught.value.hint


def test_a_gimbal_mount_is_a_small_rotation_after_the_gimbal(photo: Make) -> None:
    mount = r_from_ypr(*np.radians([1.0, 0.5, -0.3]))
    rig = Rig(Camera("opencv", 400, 300, 300, 300, 199.5, 149.5), Mount("gimbal", mount))
    photo("a.jpg", dji(40.0, -80.0))
    final = packet(PIX4D, 'Camera:Yaw="40" Camera:Pitch="10" Camera:Roll="0"')
    path = photo("b.jpg", final)
    poses = open_source(path.parent, alt_datum="same").poses(rig)
    gimbal = r_from_ypr(*np.radians([40.0, -80.0, 0.0]))
    from calibration.rotations import A_BODY_CAM

    assert same_turn(poses.r_ned_cam[0], gimbal @ mount @ A_BODY_CAM) < 1e-6
    assert same_turn(poses.r_ned_cam[1], gimbal @ A_BODY_CAM) < 1e-6


def test_what_looks_wrong_is_flagged_and_nothing_else(photo: Make, tmp_path: Path) -> None:
    resolution = {
        Base.FocalLength: 8.8,
        Base.FocalPlaneXResolution: 4000.0,
        Base.FocalPlaneResolutionUnit: 3,
    }
    at = {"lat": 46.84, "lon": -91.99}
    photo("a_clean.jpg", dji(), second=1, camera={**resolution, Base.ExifImageWidth: 400}, **at)
    photo("b_repeat.jpg", dji(), second=3, **at)
    photo("c_same_moment.jpg", dji(), second=1, **at)
    photo("d_no_gps.jpg", dji(), lat=math.nan, second=4)
    photo("e_zero.jpg", dji(), lat=0.0, lon=0.0, second=5)
    photo("f_void.jpg", dji(), lat=46.85, second=6, gps={GPS.GPSStatus: "V"})
    photo("g_rotated.jpg", dji(), lat=46.86, second=7, orientation=6)
    photo("h_resized.jpg", dji(), lat=46.87, second=8,
          camera={**resolution, Base.ExifImageWidth: 4000})  # fmt: skip
    photo("i_viewer.jpg", dji(), lat=46.88, second=9,
          software="Microsoft Windows Photo Viewer 10.0")  # fmt: skip
    photo("j_no_attitude.jpg", None, lat=46.89, second=10)
    (tmp_path / "k_broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    (tmp_path / "l_empty.jpg").write_bytes(b"")
    assert reasons(tmp_path, alt_datum="same") == {
        "b_repeat.jpg": ["repeated_fix"],
        "d_no_gps.jpg": ["no_gps"],
        "e_zero.jpg": ["gps_void"],
        "f_void.jpg": ["gps_void"],
        "g_rotated.jpg": ["exif_rotated"],
        "h_resized.jpg": ["stale_focal"],
        "i_viewer.jpg": ["resaved"],
        "j_no_attitude.jpg": ["no_attitude"],
        "k_broken.jpg": ["unreadable"],
        "l_empty.jpg": ["unreadable"],
    }
    source = open_source(tmp_path, alt_datum="same")
    assert len(list(source.frames())) == 12
    placed = source.poses(None).frame
    assert [name[0] for name in placed] == ["a", "b", "c", "g", "h", "i"]


def test_a_focal_length_of_another_size_without_exif_width(photo: Make) -> None:
    f35 = 24 * 8.8 / 8.8
    good = {
        Base.FocalLength: 8.8,
        Base.FocalPlaneXResolution: 400 / 13.2 * 10,
        Base.FocalPlaneResolutionUnit: 3,
        Base.FocalLengthIn35mmFilm: int(f35),
    }
    assert reasons(photo("good.jpg", dji(), camera=good), alt_datum="same") == {}
    stale = {**good, Base.FocalPlaneXResolution: 400 / 13.2 * 10 * 1.11}
    found = reasons(photo("stale.jpg", dji(), camera=stale), alt_datum="same")
    assert found == {"stale.jpg": ["stale_focal"]}


def test_pixels_are_never_turned(photo: Make) -> None:
    path = photo("a.jpg", dji(), size=(400, 300), orientation=6)
    frame = next(iter(open_source(path, alt_datum="same").frames()))
    pixels = load_pixels(frame).pixels
    assert pixels is not None
    assert pixels.shape == (300, 400, 3)
    stored = np.asarray(Image.open(path))
    assert np.abs(pixels.astype(int) - stored).max() <= 4


def test_a_dem_beside_the_photos_is_no_photo(photo: Make, tmp_path: Path) -> None:
    photo("a.jpg", dji())
    cv2.imwrite(str(tmp_path / "dem.tif"), np.ones((8, 8), np.float32))
    assert [f.name for f in open_source(tmp_path, alt_datum="same").frames()] == ["a.jpg"]


def test_16_bit_frames_and_broken_ones(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    deep = rng.integers(0, 65535, (20, 30, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.tif"), deep[:, :, ::-1])
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8")
    deep_frame, cut_frame = (
        next(f for f in open_source(tmp_path).frames() if f.name == name)
        for name in ("deep.tif", "cut.jpg")
    )
    pixels = load_pixels(deep_frame).pixels
    assert pixels is not None
    assert np.array_equal(pixels, deep)
    with pytest.raises(DamagedFrame, match=r"cut\.jpg"):
        load_pixels(cut_frame)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<x:xmpmeta",
        b'<!DOCTYPE x [<!ENTITY a "b">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&a;</x:xmpmeta>',
        b"<x>" + b" " * MAX_BYTES + b"</x>",
        b"\xff\xfe\x00",
    ],
    ids=["empty", "cut", "entities", "huge", "binary"],
)
def test_hostile_xmp_gives_nothing(text: bytes) -> None:
    assert parse_xmp(text) == {}


@pytest.mark.parametrize(
    ("name", "t_s"),
    [
        ("2018080501005009Z.jpg", 1_533_430_850.09),
        ("cam_20180805010050Z.png", 1_533_430_850.0),
        ("20180805010050123456Z_left.jpg", 1_533_430_850.123456),
        ("20181305010050Z.jpg", math.nan),
        ("IMG_0001.jpg", math.nan),
    ],
)
def test_utc_in_file_names(name: str, t_s: float) -> None:
    assert utc_of_name(name) == pytest.approx(t_s, nan_ok=True)


def test_brighton(shared_data: Path) -> None:
    folder = shared_data / "imagery/brighton_beach/images"
    source = open_source(folder, alt_datum="same")
    rig = load_rig(Path(__file__).parents[2] / "calibration/rigs/brighton_fc300s.toml")
    poses = source.poses(rig)
    assert len(poses) == 12
    assert [f[:2] for f in source.flagged] == [("DJI_0026.JPG", "resaved")]
    yaw, pitch, _ = np.degrees(
        ypr_from_r_ned_cam(open_source(folder, alt_datum="same").poses(None).r_ned_cam)
    )
    assert yaw[0] == pytest.approx(42.8, abs=0.01)
    assert pitch == pytest.approx(np.full(12, -89.9), abs=0.11)


def test_tuniu_rtk_photos_state_their_datum_and_sigma(shared_data: Path) -> None:
    source = open_source(shared_data / "imagery/orthority_odm_tuniu/images")
    poses = source.poses(None)
    assert poses.height_datum == "ellipsoid"
    assert poses.alt_m[0] == pytest.approx(186.57)
    assert poses.sigma_enu_m.max() < 0.03
    assert source.flagged == []


def test_frames_that_a_flight_kept_come_back(tmp_path: Path, shared_data: Path) -> None:
    """Position, datum and attitude survive the way through EXIF and ``Camera:*``."""
    from onboard.keep.exif import splice_pose

    folder = shared_data / "imagery/cuav_cmac_2018"
    rig = load_rig(Path(__file__).parents[2] / "calibration/rigs/cuav_picam_v2.toml")
    flown = open_source(folder).poses(rig)
    for i, name in enumerate(flown.frame):
        (tmp_path / name).write_bytes(splice_pose((folder / name).read_bytes(), flown.take([i])))
    source = open_source(tmp_path, alt_datum="egm96")
    back = source.poses(rig)
    assert source.flagged == []
    assert back.lat_deg == pytest.approx(flown.lat_deg, abs=2e-8)
    assert back.alt_m == pytest.approx(flown.alt_m, abs=0.01)
    turned = rot_log(back.r_ned_cam @ np.swapaxes(flown.r_ned_cam, 1, 2))
    assert np.degrees(np.abs(turned)).max() < 0.001


def test_photos_with_poses_beside_a_log_of_another_flight(
    photo: Make, tmp_path: Path, shared_data: Path
) -> None:
    photo("a.jpg", dji())
    log = shared_data / "imagery/cuav_cmac_2018/flight.tlog"
    (tmp_path / "other.tlog").write_bytes(log.read_bytes())
    source = open_source(tmp_path, alt_datum="same")
    assert any("other.tlog is left aside" in note for note in source.notes)
    assert len(source.poses(None)) == 1
