"""Builds a radiometric profile from files: their tags, dark and flat frames, a panel's photo."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.band_align import BandFit, align_band
from calibration.band_profile import BandTable, Encoding, RadiometryTable
from calibration.band_tags import BandTags, capture_of, read_tags
from calibration.camera import Camera
from calibration.errors import RadiometryError
from calibration.panel import PanelStats, PanelView, find_panel, region_stats
from calibration.radiometry import (
    Counts,
    dark_level,
    fit_vignette,
    flat_field,
    intensity,
    radiance,
    srgb_to_linear,
)

# Unknown TIFF tags are no news for people.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)

READ = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
CHANNELS = ("Red", "Green", "Blue")
ALIGN_TRIES = 3
SCENES_ENOUGH = 30
SATURATED_LIMIT = 0.001
VIEW_ORDER = ("Red", "Green", "Blue")

Watch = Callable[[Iterable[Any]], Iterator[Any]]


@dataclass
class Measured:
    """What was measured, beside the profile itself.

    Attributes:
        panels: Band → the panel's statistics (digital numbers) and mean radiance.
        fits: Band → how it lies on the reference.
        vignettes: Band → RMS left of the fitted vignette, as a share of the light.
        dark_sigma_dn: Band → standard error of its dark level.
        serial: What the panel's code says.
        notes: What people should know.
    """

    panels: dict[str, tuple[PanelStats, float]] = field(default_factory=dict)
    fits: dict[str, BandFit] = field(default_factory=dict)
    vignettes: dict[str, float] = field(default_factory=dict)
    dark_sigma_dn: dict[str, float] = field(default_factory=dict)
    serial: str = ""
    notes: list[str] = field(default_factory=list)


def read_pixels(path: Path) -> Counts:
    """Returns a file's pixels as stored, (h, w) or (h, w, 3) RGB, 8 or 16 bits.

    Raises:
        RadiometryError: It cannot be decoded, or holds neither.
    """
    pixels = cv2.imread(str(path), READ)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise RadiometryError(f"cannot read 8- or 16-bit pixels from {path}", "check the file")
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels[..., :3]), cv2.COLOR_BGR2RGB)
    return _counts(pixels)


def captures(files: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Returns capture → file suffix → file of a multi-band camera's files, in order.

    Captures that lack a band that others have are left out.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in files:
        name, suffix = capture_of(path)
        found.setdefault(name, {})[suffix] = path
    most = max((len(bands) for bands in found.values()), default=0)
    return {name: dict(sorted(b.items())) for name, b in found.items() if len(b) == most}


def is_multi_lens(files: Sequence[Path]) -> bool:
    """Returns whether the files are bands of a camera with one file per band."""
    return bool(files) and bool(capture_of(files[0])[1]) and bool(read_tags(files[0]).name)


def profile_of_tags(
    shots: Mapping[str, Mapping[str, Path]], reference: str
) -> tuple[RadiometryTable, dict[str, BandTags]]:
    """Returns the profile that a multi-lens camera's own tags give, and the tags by band.

    Bands come as red, green, blue and then by wavelength, so that the first three make a picture.

    Raises:
        RadiometryError: No such reference band, or two files name one band.
    """
    first = next(iter(shots.values()))
    tags = {suffix: read_tags(path) for suffix, path in first.items()}
    names = [tag.name for tag in tags.values()]
    if len(set(names)) < len(names) or "" in names:
        raise RadiometryError(
            f"bands of one capture are named {', '.join(names)}", "give whole captures only"
        )
    reference = reference or ("Green" if "Green" in names else names[0])
    if reference not in names:
        raise RadiometryError(f"no band {reference!r}", f"bands here: {', '.join(names)}")
    order = sorted(tags.items(), key=lambda item: (_view_rank(item[1].name), item[1].wavelength_nm))
    bands = tuple(
        BandTable(
            name=tag.name,
            file_suffix=suffix,
            wavelength_nm=tag.wavelength_nm,
            fwhm_nm=tag.fwhm_nm,
            dark_dn=tag.dark_dn,
            full_scale_dn=float(1 << tag.bits),
            vignette_center_px=tag.vignette_center_px,
            vignette=tag.vignette,
            radiance_gain=tag.radiance_gain,
            row_a2_s=tag.row_a2_s,
            row_a3=tag.row_a3,
            camera=None if tag.name == reference else tag.camera,
        )
        for suffix, tag in order
    )
    return RadiometryTable(reference=reference, band=bands), {t.name: t for t in tags.values()}


def _view_rank(name: str) -> int:
    return VIEW_ORDER.index(name) if name in VIEW_ORDER else len(VIEW_ORDER)


def profile_of_channels(path: Path, encoding: Encoding | None) -> RadiometryTable:
    """Returns an empty profile for a camera whose bands are channels of one image."""
    pixels = read_pixels(path)
    count = 1 if pixels.ndim == 2 else pixels.shape[2]
    names = CHANNELS if count == 3 else ("Gray",)
    full = float(np.iinfo(pixels.dtype).max) + 1.0
    tag = read_tags(path)
    dark = tag.dark_dn if tag.dark_dn < full else 0.0
    bands = tuple(
        BandTable(name=name, channel=i, full_scale_dn=full, dark_dn=dark)
        for i, name in enumerate(names)
    )
    return RadiometryTable(encoding=encoding or ("srgb" if full == 256.0 else "linear"), band=bands)


def with_dark(table: RadiometryTable, files: Sequence[Path], into: Measured) -> RadiometryTable:
    """Returns the profile with the dark levels of dark frames."""
    bands = []
    for band in table.band:
        level, error = dark_level([_band_pixels(table, band, path) for path in _mine(band, files)])
        into.dark_sigma_dn[band.name] = float(error[0])
        bands.append(band.model_copy(update={"dark_dn": round(float(level[0]), 3)}))
    return table.model_copy(update={"band": tuple(bands)})


def with_vignette(table: RadiometryTable, files: Sequence[Path], into: Measured) -> RadiometryTable:
    """Returns the profile with vignettes fitted to flat frames, or to many scenes."""
    bands = []
    for band in table.band:
        mine = _mine(band, files)
        frames = [_linear(table, _band_pixels(table, band, path)) for path in mine]
        dark = float(_linear(table, np.array([[band.dark_dn]]).astype(np.uint16))[0, 0])
        height, width = frames[0].shape
        fit = fit_vignette(flat_field(frames, dark), width, height)
        into.vignettes[band.name] = fit.residual
        if 1 < len(mine) < SCENES_ENOUGH and fit.residual > 0.02:
            into.notes.append(
                f"{band.name}: {len(mine)} frames leave {100 * fit.residual:.1f} % of unevenness: "
                f"give an even surface, or {SCENES_ENOUGH} scenes and more"
            )
        center = (round(fit.center_px[0], 2), round(fit.center_px[1], 2))
        bands.append(band.model_copy(update={"vignette": fit.terms, "vignette_center_px": center}))
    return table.model_copy(update={"band": tuple(bands)})


def with_exposure(table: RadiometryTable, files: Sequence[Path]) -> RadiometryTable:
    """Returns the profile that brings every frame to the median exposure of these.

    Raises:
        RadiometryError: They do not say how they were exposed.
    """
    said = [tag.exposure for tag in map(read_tags, files) if tag.exposure.known]
    if not said:
        raise RadiometryError(
            "the frames do not say exposure time and ISO", "leave --normalise away"
        )
    return table.model_copy(
        update={
            "reference_exposure_s": float(np.median([e.seconds for e in said])),
            "reference_gain": float(np.median([e.gain for e in said])),
        }
    )


def with_panel(
    table: RadiometryTable,
    shot: Mapping[str, Path],
    reflectances: Mapping[str, float],
    region: NDArray[np.float64] | None,
    into: Measured,
) -> RadiometryTable:
    """Returns the profile with the reflectance factors of one capture that shows the panel.

    Args:
        table: The profile with dark level, vignette and gains.
        shot: File suffix → file; one file with an empty suffix where bands are channels.
        reflectances: Band → the panel's reflectance; the tags' where the camera knew the panel.
        region: (n, 2) corners of the panel; ``None`` looks for its code.
        into: Takes what was measured.

    Raises:
        RadiometryError: No panel is found, or its reflectance is not known.
    """
    bands = []
    for band in table.band:
        path = shot[band.file_suffix]
        tag = read_tags(path)
        pixels = _band_pixels(table, band, path)
        view = _panel_in(pixels, tag, region)
        if view is None:
            raise RadiometryError(
                f"no panel's code can be read in {path.name} ({band.name})",
                "give its place: --panel-region X0,Y0,X1,Y1",
            )
        known = reflectances.get(band.name, reflectances.get("", tag.panel_reflectance))
        if not known > 0:
            raise RadiometryError(
                f"the panel's reflectance in {band.name} is not known",
                f"give --panel {band.name}=0.5,… from the panel's sheet",
            )
        stats = region_stats(pixels, view.corners_px, band.full_scale_dn)
        light = float(_panel_light(table, band, pixels, tag, view))
        into.panels[band.name] = (stats, light)
        into.serial = into.serial or view.serial
        if stats.saturated > SATURATED_LIMIT:
            into.notes.append(
                f"{band.name}: {100 * stats.saturated:.1f} % of the panel's pixels are saturated"
            )
        bands.append(
            band.model_copy(
                update={
                    "reflectance_per_radiance": known / light,
                    "panel_reflectance": known,
                    "panel_dn": round(stats.mean, 2),
                    "panel_saturated": round(stats.saturated, 5),
                }
            )
        )
    return table.model_copy(update={"band": tuple(bands)})


def _panel_light(
    table: RadiometryTable, band: BandTable, pixels: Counts, tag: BandTags, view: PanelView
) -> float:
    """Returns the panel's mean radiance, or intensity where the band has no gain."""
    if table.encoding != "linear":
        raise RadiometryError(
            "reflectance needs values that are linear in light, these follow the sRGB curve",
            "take raw or linear TIFF frames; --encoding linear where they are linear",
        )
    light = radiance if band.radiance_gain else intensity
    return region_stats(light(band, pixels, tag.exposure), view.corners_px, np.inf).mean


def has_panel(shot: Mapping[str, Path]) -> bool:
    """Returns whether a capture shows a panel: its camera says so, or its code can be read."""
    path = next(iter(shot.values()))
    if read_tags(path).panel_px:
        return True
    pixels = read_pixels(path)
    return find_panel(pixels if pixels.ndim == 2 else pixels[..., 1]) is not None


def with_alignment(
    table: RadiometryTable,
    shots: Sequence[Mapping[str, Path]],
    reference: Camera,
    into: Measured,
    watch: Watch = iter,
) -> RadiometryTable:
    """Returns the profile with every band laid over the reference, by the best of a few captures.

    The best is the one with the highest correlation; at most three are tried.
    """
    some = [shots[i] for i in np.unique(np.linspace(0, len(shots) - 1, ALIGN_TRIES).astype(int))]
    todo = [(i, shot) for i in range(len(table.band)) for shot in some]
    best: dict[int, BandFit] = {}
    for i, shot in watch(todo):
        if table.band[i].name == table.reference:
            continue
        pixels = [
            read_pixels(shot[band.file_suffix]) for band in (table.reference_band, table.band[i])
        ]
        fit = align_band(table, i, reference, pixels[0], pixels[1])
        if i not in best or fit.correlation > best[i].correlation:
            best[i] = fit
    bands = list(table.band)
    for i, fit in best.items():
        into.fits[bands[i].name] = fit
        rows = tuple(tuple(float(v) for v in row) for row in fit.from_reference)
        misfit = fit.misfit_px if np.isfinite(fit.misfit_px) else 0.0
        bands[i] = bands[i].model_copy(
            update={"from_reference": rows, "misfit_px": round(misfit, 3)}
        )
    return table.model_copy(update={"band": tuple(bands)})


def _panel_in(
    pixels: Counts, tag: BandTags, region: NDArray[np.float64] | None
) -> PanelView | None:
    if region is not None:
        return PanelView("", region)
    if tag.panel_px:
        return PanelView("", np.array(tag.panel_px, np.float64))
    return find_panel(pixels)


def _mine(band: BandTable, files: Sequence[Path]) -> list[Path]:
    """Returns the files that show a band."""
    mine = [p for p in files if not band.file_suffix or capture_of(p)[1] == band.file_suffix]
    if not mine:
        raise RadiometryError(
            f"no file of band {band.name} (…{band.file_suffix}) among {len(files)}",
            "give whole captures",
        )
    return mine


def _band_pixels(table: RadiometryTable, band: BandTable, path: Path) -> Counts:
    pixels = read_pixels(path)
    if table.in_files or pixels.ndim == 2:
        return pixels
    return _counts(np.ascontiguousarray(pixels[..., band.channel]))


def _linear(table: RadiometryTable, pixels: Counts) -> Counts:
    """Returns pixels as 16-bit counts that are linear in light."""
    if table.encoding == "linear":
        return pixels
    top = table.band[0].full_scale_dn - 1.0
    return np.asarray(np.rint(srgb_to_linear(pixels / top) * 65535.0), np.uint16)


def _counts(pixels: NDArray[Any]) -> Counts:
    return pixels.astype(np.uint8) if pixels.dtype == np.uint8 else pixels.astype(np.uint16)
