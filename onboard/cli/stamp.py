"""``gossan onboard stamp``: poses written into copies of the frames, and as ODM's geo.txt."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from calibration.geodesy import HEIGHT_DATUMS
from calibration.rig import load_rig
from gossan.console import emit, json_option, progress
from onboard.records import HeightDatum
from onboard.sources.open import open_source
from onboard.stamp import GEO_TXT, Stamped, stamp_frames

FILE = click.Path(path_type=Path)
DATUM = click.Choice(HEIGHT_DATUMS)


@click.command()
@click.argument("source", type=FILE, metavar="SOURCE")
@click.option("--rig", type=FILE, help="Rig TOML of the camera: mount, clock and default σ.")
@click.option("--poses", type=FILE, help="POSES table, say of onboard refine.")
@click.option(
    "--alt-datum",
    type=click.Choice(HEIGHT_DATUMS),
    help="What heights that do not say so are above.",
)
@click.option("--out", required=True, type=FILE, help="Folder for the copies and geo.txt.")
@json_option
def stamp(
    source: Path,
    rig: Path | None,
    poses: Path | None,
    alt_datum: str | None,
    out: Path,
    as_json: bool,
) -> None:
    """Frames for photogrammetry, with the poses that Gossan found.

    Copies the frames of SOURCE into OUT with their pose in EXIF GPS and Pix4D's Camera tags, and
    writes OUT/geo.txt for ODM. Pixels and other tags stay as they are.
    """
    camera = load_rig(rig) if rig else None
    frames = open_source(source, camera, poses, cast("HeightDatum | None", alt_datum))
    placed = frames.poses(camera)
    found = stamp_frames(frames, placed, out, lambda items: progress(items, "stamping"))
    payload = {
        "frames": found.frames,
        "stamped": list(found.stamped),
        "as_they_are": list(found.as_they_are),
        "without_pose": list(found.without_pose),
        "notes": frames.notes,
    }
    emit(payload, as_json, lambda: _tell(found, out))


def _tell(found: Stamped, out: Path) -> None:
    click.echo(f"{len(found.stamped)} of {found.frames} frames carry their pose: {out}")
    click.echo(f"  all poses: {out / GEO_TXT}")
    if found.as_they_are:
        click.echo(f"  copied as they are, placed by geo.txt alone: {', '.join(found.as_they_are)}")
    if found.without_pose:
        click.echo(f"  without a pose, left out: {', '.join(found.without_pose)}")
