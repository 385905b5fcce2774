"""From digital numbers to light: hand-checkable numbers, synthetic flats, a real panel."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from calibration.band_align import align_band, aligned, band_map
from calibration.band_profile import BandCamera, BandTable, RadiometryTable
from calibration.band_tags import capture_of
from calibration.camera import Camera
from calibration.errors import RadiometryError
from calibration.radiometry import (
    Exposure,
    corrected,
    dark_level,
    fit_vignette,
    flat_field,
    linear_to_srgb,
    radiance,
    reflectance,
    srgb_to_linear,
)
from calibration.radiometry_cli import radiometry
from calibration.rig import load_rig, write_rig
from gossan.errors import SettingsError

WIDTH, HEIGHT = 320, 240
PANEL = "Blue=0.67,Green=0.69,Red=0.68,NIR=0.61,Red edge=0.67"
RIG = """
[camera]
model = "opencv"
width_px = 320
height_px = 240
fx_px = 300.0
fy_px = 300.0
cx_px = 159.5
cy_px = 119.5
[mount]
type = "gimbal"
"""


def lit(band: BandTable, share: float, exposure: Exposure) -> np.ndarray:
    """Returns the numbers that a band shows of an even surface, light 1/s at gain 1."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    r = np.hypot(x - band.vignette_center_px[0], y - band.vignette_center_px[1])
    left = np.polynomial.polynomial.polyval(r, (1.0, *band.vignette))
    value = share * exposure.seconds * exposure.gain * band.full_scale_dn * left
    return np.clip(np.rint(value + band.dark_dn), 0, 65535).astype(np.uint16)


def test_radiance_by_hand() -> None:
    band = BandTable(
        name="Red", dark_dn=4800, radiance_gain=2e-4, row_a2_s=1e-6, row_a3=1e-3, vignette=(-0.01,)
    )
    pixels = np.full((3, 4), 4800 + 6554, np.uint16)
    light = radiance(band, pixels, Exposure(0.001, 2.0))
    share = 6554 / 65536
    assert light[0, 0] == pytest.approx(2e-4 * share / (2 * 0.001), rel=1e-5)
    assert light[0, 3] == pytest.approx(2e-4 * share / (2 * 0.001) / 0.97, rel=1e-5)
    row2 = 0.001 + 1e-6 * 2 - 1e-3 * 0.001 * 2
    assert light[2, 0] == pytest.approx(2e-4 * share / (2 * row2) / 0.98, rel=1e-5)


@given(
    seconds=st.floats(1e-4, 4e-3),
    gain=st.sampled_from([1.0, 2.0, 4.0, 8.0]),
    dark=st.floats(0, 5000),
)
def test_reflectance_does_not_depend_on_the_exposure(
    seconds: float, gain: float, dark: float
) -> None:
    band = BandTable(
        name="NIR",
        dark_dn=dark,
        vignette=(0.0, -1e-6),
        vignette_center_px=(150, 120),
        reflectance_per_radiance=1 / 25.0,
    )
    pixels = lit(band, 25.0 * 0.4, Exposure(seconds, gain))
    found = reflectance(band, pixels, Exposure(seconds, gain))
    one_dn = 1 / (65536 * seconds * gain * 25.0) / 0.95
    clear = pixels < 65535
    np.testing.assert_allclose(found[clear], 0.4, atol=0.51 * one_dn + 1e-5)


def test_dark_frames_give_a_level_and_light_is_refused() -> None:
    rng = np.random.default_rng(1)
    frames = [rng.normal(64.0, 2.0, (60, 80, 3)).round().astype(np.uint16) for _ in range(5)]
    level, error = dark_level(frames)
    np.testing.assert_allclose(level, 64.0, atol=0.1)
    assert (error < 0.05).all()
    with pytest.raises(RadiometryError, match="light fell in"):
        dark_level([np.tile(np.linspace(0, 65535, 80), (60, 1)).astype(np.uint16)])


@pytest.mark.parametrize("scenes", [1, 40], ids=["one even surface", "forty scenes"])
def test_a_vignette_is_found_and_taken_off(scenes: int) -> None:
    rng = np.random.default_rng(2)
    truth = BandTable(
        name="Green",
        dark_dn=500,
        vignette=(0.0, -8e-6, 0.0, 2e-11),
        vignette_center_px=(170.0, 112.0),
    )
    flat = lit(truth, 400.0, Exposure(0.001, 1.0)).astype(np.float64) - 500
    frames = []
    for _ in range(scenes):
        texture = (
            cv2.resize(rng.uniform(0.6, 1.0, (12, 16)), (WIDTH, HEIGHT)) if scenes > 1 else 1.0
        )
        frames.append((flat * texture + 500 + rng.normal(0, 60, flat.shape)).astype(np.uint16))
    fit = fit_vignette(flat_field(frames, 500.0), WIDTH, HEIGHT)
    band = truth.model_copy(update={"vignette": fit.terms, "vignette_center_px": fit.center_px})
    shown = frames[0] if scenes == 1 else (flat + 500).astype(np.uint16)
    even = corrected(RadiometryTable(band=(band,)), 0, shown, Exposure())
    before = flat.std() / flat.mean()
    after = cv2.blur(even.astype(np.float32), (9, 9))[5:-5, 5:-5]
    assert before > 0.05
    assert after.std() / after.mean() < (0.004 if scenes == 1 else 0.03)


def test_what_grows_brighter_outwards_is_no_vignette() -> None:
    y, x = np.mgrid[:36, :48]
    bowl = 1.0 + 2.0 * ((x - 23.5) ** 2 + (y - 17.5) ** 2) / 900
    with pytest.raises(RadiometryError, match="no vignette"):
        fit_vignette(bowl, WIDTH, HEIGHT)


def test_terms_of_another_image_size_are_refused() -> None:
    band = BandTable(name="Red", vignette=(0.0, -3e-5), vignette_center_px=(0, 0))
    with pytest.raises(RadiometryError, match="of the light at some pixel") as caught:
        radiance(band, np.zeros((HEIGHT, WIDTH), np.uint16), Exposure(0.001, 1.0))
    assert "another image size" in caught.value.hint


def test_srgb_is_corrected_in_light_not_in_numbers() -> None:
    light = np.linspace(0, 1, 256).astype(np.float32)
    np.testing.assert_allclose(srgb_to_linear(linear_to_srgb(light)), light, atol=1e-6)
    band = BandTable(name="Gray", full_scale_dn=256, vignette=(0.0, -1e-5),
                     vignette_center_px=(159.5, 119.5))  # fmt: skip
    table = RadiometryTable(encoding="srgb", band=(band,))
    share = lit(band, 0.5, Exposure(1.0, 1.0)) / 256.0
    seen = np.rint(linear_to_srgb(share.astype(np.float32)) * 255).astype(np.uint8)
    even = corrected(table, 0, seen, Exposure())
    assert int(seen.max()) - int(seen.min()) > 20
    assert int(even.max()) - int(even.min()) <= 4
    assert abs(float(even.mean()) - 188) < 2  # sRGB of half the light


def test_exposures_are_brought_to_the_reference() -> None:
    band = BandTable(name="Gray", dark_dn=100)
    table = RadiometryTable(reference_exposure_s=0.002, reference_gain=1.0, band=(band,))
    pixels = np.full((4, 4), 1100, np.uint16)
    assert (corrected(table, 0, pixels, Exposure(0.001, 1.0)) == 2000).all()
    assert (corrected(table, 0, pixels, Exposure(0.001, 4.0)) == 500).all()
    assert (corrected(table, 0, pixels, Exposure()) == 1000).all()


def test_reflectance_in_numbers_needs_a_panel_in_every_band() -> None:
    known = BandTable(name="Red", reflectance_per_radiance=0.01)
    table = RadiometryTable(band=(known, BandTable(name="NIR")))
    assert table.unit == "relative"
    table = RadiometryTable(band=(known,))
    assert table.unit == "reflectance"
    pixels = np.full((2, 2), 3277, np.uint16)  # 0.05 of full scale in 1 ms: 50 per second
    np.testing.assert_allclose(corrected(table, 0, pixels, Exposure(0.001, 1.0)), 16384, atol=3)


def test_a_band_is_laid_over_the_reference() -> None:
    rng = np.random.default_rng(3)
    scene = cv2.GaussianBlur(
        rng.uniform(0, 65535, (HEIGHT * 2, WIDTH * 2)).astype(np.float32), (0, 0), 3
    )
    scene = cv2.normalize(scene, None, 2000, 60000, cv2.NORM_MINMAX)[120:360, 160:480]
    reference = Camera("opencv", WIDTH, HEIGHT, 300.0, 300.0, 159.5, 119.5)
    own = BandCamera(fx_px=304.0, fy_px=304.0, cx_px=163.0, cy_px=117.0, k1=-0.05)
    truth = np.array([[1.0, -0.006, 0.010], [0.006, 1.0, -0.014], [0.002, -0.001, 1.0]])
    rows = tuple(tuple(float(v) for v in row) for row in truth)
    bands = (
        BandTable(name="Green", file_suffix="_1"),
        BandTable(name="NIR", file_suffix="_2", camera=own, from_reference=rows),
    )
    table = RadiometryTable(reference="Green", band=bands)
    x, y = band_map(table, 1, reference)
    at = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), axis=-1).reshape(-1, 2)
    rays = own.camera(WIDTH, HEIGHT).unproject(at) @ np.linalg.inv(truth).T
    back = reference.project(rays).reshape(HEIGHT, WIDTH, 2).astype(np.float32)
    moving = cv2.remap(scene, back[..., 0], back[..., 1], cv2.INTER_LINEAR)
    unknown = bands[1].model_copy(update={"from_reference": None})
    blind = table.model_copy(update={"band": (bands[0], unknown)})
    fit = align_band(blind, 1, reference, scene.astype(np.uint16), moving.astype(np.uint16))
    found_x, found_y = band_map(blind, 1, reference, fit.from_reference)
    off = np.hypot(found_x - x, found_y - y)[20:-20, 20:-20]
    assert np.median(off) < 0.1
    assert off.max() < 0.5
    laid = aligned(table, 1, reference, moving)[20:-20, 20:-20]
    assert np.corrcoef(laid.ravel(), scene[20:-20, 20:-20].ravel())[0, 1] > 0.995


def test_bands_that_have_nothing_in_common_are_refused() -> None:
    reference = Camera("opencv", WIDTH, HEIGHT, 300.0, 300.0, 159.5, 119.5)
    bands = (BandTable(name="A", file_suffix="_1"), BandTable(name="B", file_suffix="_2"))
    flat = np.full((HEIGHT, WIDTH), 1000, np.uint16)
    noise = np.random.default_rng(5).integers(0, 60000, (HEIGHT, WIDTH)).astype(np.uint16)
    with pytest.raises(RadiometryError, match="does not correlate"):
        align_band(RadiometryTable(reference="A", band=bands), 1, reference, noise, flat)


def test_the_profile_survives_the_rig_and_its_smallest_term_counts(tmp_path: Path) -> None:
    more = (
        '[radiometry]\nreference = "Red"\n[[radiometry.band]]\nname = "Red"\nfile_suffix = "_3"\n'
        "vignette = [0.0, 1e-7, {term}]\n"
    )
    path = tmp_path / "rig.toml"
    path.write_text(RIG + more.format(term="7e-18"))
    rig = load_rig(path)
    again = write_rig(tmp_path / "again.toml", rig)
    assert again.radiometry == rig.radiometry
    assert again.hash == rig.hash
    path.write_text(RIG + more.format(term="8e-18"))
    assert load_rig(path).hash != rig.hash
    path.write_text(RIG)
    assert load_rig(path).hash != rig.hash


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ('[[radiometry.band]]\nname = "A"\n[[radiometry.band]]\nname = "A"\n', "one name"),
        (
            '[[radiometry.band]]\nname = "A"\nfile_suffix = "_1"\n'
            '[[radiometry.band]]\nname = "B"\n',
            "file_suffix",
        ),
        ('[[radiometry.band]]\nname = "A"\nfile_suffix = "_1"\n', "reference"),
        ('[[radiometry.band]]\nname = "A"\nvignete = [1.0]\n', "did you mean 'vignette'"),
    ],
    ids=["twice", "half", "no reference", "misspelt"],
)
def test_a_profile_that_contradicts_itself_is_refused(tmp_path: Path, table: str, why: str) -> None:
    path = tmp_path / "rig.toml"
    path.write_text(RIG + table)
    with pytest.raises(SettingsError) as caught:
        load_rig(path)
    assert why in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("name", "capture"),
    [("IMG_0001_3.tif", ("IMG_0001", "_3")), ("IMG_0001_10.tif", ("IMG_0001", "_10")),
     ("DJI_0031.JPG", ("DJI_0031", ""))],
)  # fmt: skip
def test_the_capture_of_a_file(name: str, capture: tuple[str, str]) -> None:
    assert capture_of(Path(name)) == capture


@pytest.fixture(scope="module")
def rededge(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two captures of a RedEdge: the panel, and a field from the air."""
    folder = tmp_path_factory.mktemp("rededge")
    packed = next((shared_data / "imagery" / "micasense_rededge").glob("*.tar.xz"))
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder


def calibrated(folder: Path, out: Path, *more: str) -> dict[str, dict[str, dict[str, float]]]:
    done = CliRunner().invoke(
        radiometry, [str(folder), "--out", str(out), "--json", *more], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    found: dict[str, dict[str, dict[str, float]]] = json.loads(done.stdout)
    return found


def test_a_real_panel_gives_the_published_numbers(rededge: Path, tmp_path: Path) -> None:
    found = calibrated(rededge, tmp_path / "rig.toml", "--panel", PANEL)
    blue, nir = found["bands"]["Blue"], found["bands"]["NIR"]
    assert blue["panel_dn"] == pytest.approx(45406, rel=0.005)
    assert blue["panel_radiance"] == pytest.approx(0.170284, rel=0.005)
    assert nir["reflectance_per_radiance"] == pytest.approx(5.727, rel=0.005)
    assert found["panel_serial"] == "RP02-1603036-SC"
    assert found["panel_capture"] == "IMG_0000"
    assert list(found["bands"]) == ["Red", "Green", "Blue", "Red edge", "NIR"]
    assert found["bands"]["NIR"]["file_suffix"] == "_4"
    assert found["bands"]["Red edge"]["file_suffix"] == "_5"
    assert all(band["misfit_px"] < 0.35 for band in found["bands"].values() if "misfit_px" in band)
    assert sum("misfit_px" in band for band in found["bands"].values()) == 4
    rig = load_rig(tmp_path / "rig.toml")
    assert rig.radiometry is not None
    assert rig.radiometry.unit == "reflectance"
    assert rig.camera.fx_px == pytest.approx(1444.705, abs=0.01)


def test_what_a_panel_lacks_is_said(rededge: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "rig.toml")
    flight = [str(p) for p in sorted(rededge.glob("IMG_0001_*.tif"))]
    done = CliRunner().invoke(radiometry, [*flight, "--panel", "0.6", "--out", out])
    assert isinstance(done.exception, RadiometryError)
    assert "no panel's code" in str(done.exception)
    panel = [str(p) for p in sorted(rededge.glob("IMG_0000_*.tif"))]
    done = CliRunner().invoke(radiometry, [*panel, "--panel", "Blue=0.67", "--out", out])
    assert "reflectance in Red is not known" in str(done.exception)
    found = calibrated(Path(panel[0]).parent / "IMG_0000_1.tif", tmp_path / "one.toml")
    assert "distant ground" in " ".join(found["notes"])


def test_dark_and_flat_frames_of_a_camera_with_one_lens(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    band = BandTable(name="x", full_scale_dn=256, vignette=(0.0, -1.2e-5),
                     vignette_center_px=(159.5, 119.5))  # fmt: skip
    flat = lit(band, 0.6, Exposure(1.0, 1.0))[..., None] / 256.0 * [1.0, 0.9, 0.8]
    coded = np.rint(linear_to_srgb(flat.astype(np.float32)) * 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "flat.png"), coded[..., ::-1])
    dark = rng.normal(6, 1, (HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "dark.png"), dark[..., ::-1])
    (tmp_path / "rig.toml").write_text(RIG)
    args = ["--dark", str(tmp_path / "dark.png"), "--flat", str(tmp_path / "flat.png")]
    done = CliRunner().invoke(
        radiometry, [*args, "--out", str(tmp_path / "rig.toml"), "--json"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    rig = load_rig(tmp_path / "rig.toml")
    assert rig.mount.type == "gimbal"
    profile = rig.radiometry
    assert profile is not None
    assert profile.encoding == "srgb"
    assert [b.name for b in profile.band] == ["Red", "Green", "Blue"]
    assert profile.band[0].dark_dn == pytest.approx(dark[..., 0].mean(), abs=0.01)
    even = corrected(profile, 1, coded[..., 1], Exposure())
    assert int(coded[..., 1].max()) - int(coded[..., 1].min()) > 25
    assert int(even.max()) - int(even.min()) <= 6
