"""The command ``gossan calibration radiometry``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from calibration.band_profile import Encoding, RadiometryTable
from calibration.band_tags import BandTags
from calibration.errors import RadiometryError
from calibration.radiometry_profile import (
    Measured,
    captures,
    has_panel,
    is_multi_lens,
    profile_of_channels,
    profile_of_tags,
    with_alignment,
    with_dark,
    with_exposure,
    with_panel,
    with_vignette,
)
from calibration.rig import Mount, Rig, load_rig, write_rig
from calibration.rotations import r_from_ypr
from gossan.console import emit, json_option, progress, say, table

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}
FILE = click.Path(path_type=Path)
Shots = dict[str, dict[str, Path]]


@click.command("radiometry")
@click.argument("images", nargs=-1, type=FILE, metavar="IMAGES…")
@click.option("--panel", default="", metavar="R|BAND=R,…",
              help="Reflectance of the panel, one for all bands or by band.")  # fmt: skip
@click.option("--panel-region", metavar="X0,Y0,X1,Y1",
              help="Where the panel is, pixels, in place of its code.")  # fmt: skip
@click.option("--dark", multiple=True, type=FILE, help="Frames with the lens covered.")
@click.option("--flat", multiple=True, type=FILE,
              help="Frames of an even surface, or many scenes: fits the vignette.")  # fmt: skip
@click.option("--reference", default="", metavar="BAND",
              help="The band the rig's [camera] describes; Green by default.")  # fmt: skip
@click.option("--encoding", type=click.Choice(["linear", "srgb"]),
              help="What values mean; srgb for 8 bits by default.")  # fmt: skip
@click.option("--normalise", is_flag=True, help="Bring all frames to these images' exposure.")
@click.option("--out", required=True, type=FILE, metavar="RIG.toml",
              help="Rig to write; all else of one that exists stays.")  # fmt: skip
@json_option
def radiometry(
    images: tuple[Path, ...],
    panel: str,
    panel_region: str | None,
    dark: tuple[Path, ...],
    flat: tuple[Path, ...],
    reference: str,
    encoding: str | None,
    normalise: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Dark level, vignette, exposure, panel to reflectance, band alignment.

    IMAGES are captures (files, or folders of them) of the camera: one that shows the reflectance
    panel, and, of a camera with one lens per band, one of distant ground.
    """
    files, darks, flats = (_files(paths) for paths in (images, dark, flat))
    if not (files or darks or flats):
        raise click.UsageError("give IMAGES, --dark or --flat")
    region = _region(panel_region)
    reflectances = _reflectances(panel)
    every = [*files, *flats, *darks]
    found = Measured()
    multi = is_multi_lens(every)
    shots: Shots = captures(files) if multi else {path.stem: {"": path} for path in files}
    if multi:
        profile, tags = profile_of_tags(shots or captures(every), reference)
    else:
        profile, tags = profile_of_channels(every[0], cast("Encoding | None", encoding)), {}
    if multi and encoding:
        profile = profile.model_copy(update={"encoding": encoding})
    base = _base(out, profile, tags)
    if darks:
        profile = with_dark(profile, darks, found)
    if flats:
        profile = with_vignette(profile, flats, found)
    if normalise:
        profile = with_exposure(profile, files or flats)
    shows = _panel_shots(shots, region is not None, bool(reflectances))
    if shows:
        profile = with_panel(profile, shots[shows[0]], reflectances, region, found)
    if multi:
        profile = _align(profile, shots, shows, base, found)
    rig = write_rig(out, replace(base, radiometry=profile, about={**base.about, **_about(found)}))
    payload = _payload(rig, shows, found, out)
    emit(payload, as_json, lambda: _tell(payload))


def _files(paths: tuple[Path, ...]) -> list[Path]:
    out: list[Path] = []
    for path in paths:
        if path.is_dir():
            out += sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.is_file():
            out.append(path)
        else:
            raise RadiometryError(f"no image at {path}", "check the path")
    return out


def _region(text: str | None) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    if text is None:
        return None
    try:
        x0, y0, x1, y1 = (float(part) for part in text.split(","))
    except ValueError as error:
        raise click.UsageError(f"--panel-region {text!r}: X0,Y0,X1,Y1 in pixels") from error
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _reflectances(text: str) -> dict[str, float]:
    """Returns band → reflectance; an empty name stands for all bands."""
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.rpartition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            found[name.strip()] = float("nan")
        if not 0 < found[name.strip()] <= 1.2:
            raise click.UsageError(f"--panel {part!r}: a reflectance between 0 and 1.2")
    return found


def _panel_shots(shots: Shots, placed: bool, wanted: bool) -> list[str]:
    """Returns the captures that show the panel: with a place given, the first one."""
    if placed:
        return list(shots)[:1]
    shows = [
        name for name in progress(list(shots), "looking for the panel") if has_panel(shots[name])
    ]
    if wanted and not shows:
        raise RadiometryError(
            f"no panel's code can be read in {len(shots)} captures",
            "photograph panel and code from above, or give --panel-region X0,Y0,X1,Y1",
        )
    return shows if wanted else []


def _base(out: Path, profile: RadiometryTable, tags: dict[str, BandTags]) -> Rig:
    """Returns the rig to add to: the one that exists, else one by the reference band's tags.

    Raises:
        RadiometryError: Neither says what the camera is.
    """
    if out.exists():
        return load_rig(out)
    tag = tags.get(profile.reference)
    if tag is None or tag.camera is None:
        raise RadiometryError(
            f"there is no rig at {out}, and the images do not say their camera's focal length",
            "write the rig first: gossan calibration board",
        )
    mount = Mount("fixed", r_from_ypr(0.0, -np.pi / 2, 0.0), np.radians([2.0, 2.0, 2.0]))
    about = {
        "source": f"gossan calibration radiometry, camera by the tags of band {tag.name}",
        "mount": "looking straight down, image top to the nose, to 2 degrees: not measured",
    }
    return Rig(tag.camera.camera(tag.width_px, tag.height_px), mount, about=about)


def _align(
    profile: RadiometryTable, shots: Shots, shows: list[str], base: Rig, found: Measured
) -> RadiometryTable:
    far = [shot for name, shot in shots.items() if name not in shows and not has_panel(shot)]
    if not far:
        found.notes.append("bands are not aligned: no capture of distant ground was given")
        return profile

    def watch(items: Iterable[Any]) -> Iterator[Any]:
        return progress(list(items), "aligning bands")

    profile = with_alignment(profile, far, base.camera, found, watch)
    for name, fit in found.fits.items():
        if not np.isfinite(fit.misfit_px):
            found.notes.append(f"{name}: too few windows correlate to say how well it is aligned")
    return profile


def _about(found: Measured) -> dict[str, Any]:
    about: dict[str, Any] = {"radiometry": "gossan calibration radiometry"}
    return about | ({"panel": found.serial} if found.serial else {})


def _payload(rig: Rig, shows: list[str], found: Measured, out: Path) -> dict[str, Any]:
    profile = rig.radiometry
    assert profile is not None  # noqa: S101
    bands = {}
    for band in profile.band:
        row: dict[str, Any] = {
            "file_suffix": band.file_suffix,
            "wavelength_nm": band.wavelength_nm,
            "dark_dn": band.dark_dn,
            "reflectance_per_radiance": band.reflectance_per_radiance or None,
        }
        if band.name in found.dark_sigma_dn:
            row["dark_sigma_dn"] = found.dark_sigma_dn[band.name]
        if band.name in found.vignettes:
            row["vignette_rms"] = found.vignettes[band.name]
        if band.name in found.panels:
            stats, light = found.panels[band.name]
            row |= {
                "panel_dn": stats.mean,
                "panel_std_dn": stats.std,
                "panel_px": stats.count,
                "panel_saturated": stats.saturated,
                "panel_radiance": light,
            }
        if band.name in found.fits:
            fit = found.fits[band.name]
            row |= {
                "misfit_px": fit.misfit_px,
                "misfit_p90_px": fit.p90_px,
                "windows": fit.windows,
                "shift_px": list(fit.shift_px),
            }
        bands[band.name] = row
    return {
        "reference": profile.reference,
        "encoding": profile.encoding,
        "unit": profile.unit,
        "panel_capture": shows[0] if shows else None,
        "panel_serial": found.serial or None,
        "bands": bands,
        "notes": found.notes,
        "out": str(out),
    }


def _tell(payload: dict[str, Any]) -> None:
    columns = ["band", "nm", "dark", "panel DN", "per radiance", "shift px", "misfit px"]
    rows = []
    for name, band in payload["bands"].items():
        shift = band.get("shift_px")
        factor = band["reflectance_per_radiance"]
        rows.append([
            name,
            f"{band['wavelength_nm']:.0f}" if band["wavelength_nm"] else "",
            f"{band['dark_dn']:.1f}",
            f"{band['panel_dn']:.0f} ± {band['panel_std_dn']:.0f}" if "panel_dn" in band else "",
            f"{factor:.4f}" if factor else "",
            f"{shift[0]:+.1f} {shift[1]:+.1f}" if shift else "",
            f"{band['misfit_px']:.2f}" if "misfit_px" in band else "",
        ])  # fmt: skip
    table(f"{payload['unit']}, {payload['encoding']}", columns, rows)
    if payload["panel_serial"]:
        say(f"panel {payload['panel_serial']} in {payload['panel_capture']}")
    for note in payload["notes"]:
        say(f"note: {note}")
    say(f"written {payload['out']}")
