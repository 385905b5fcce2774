"""``gossan onboard ortho``: one orthocorrected GeoTIFF per frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from calibration.geodesy import HEIGHT_DATUMS, MapFrame, MapModel, parse_crs
from calibration.rig import load_rig
from gossan.console import Metres, emit, json_option, progress, table
from gossan.errors import UserError
from onboard.ortho_batch import BatchReport, OrthoJob, ortho_batch
from onboard.place.grid import Grid
from onboard.place.ortho_resample import ImageResampling
from onboard.place.post_surface import DemResampling
from onboard.place.terrain import open_dem
from onboard.records import Frame, HeightDatum, Poses
from onboard.sources.open import open_source
from onboard.sources.source import Source
from onboard.write_cog import Codec

FILE = click.Path(path_type=Path)
DATUM = click.Choice(HEIGHT_DATUMS)
SURFACE = click.Choice(["linear", "cubic"])


@click.command()
@click.argument("source", type=FILE, metavar="SOURCE")
@click.option("--rig", required=True, type=FILE, help="Rig TOML of the camera.")
@click.option("--poses", type=FILE, help="POSES table that replaces the source's own poses.")
@click.option("--dem", required=True, type=FILE, help="DEM of the ground.")
@click.option(
    "--gsd",
    type=Metres(0.0, min_open=True),
    metavar="M",
    help="Pixel size; the frames' own by default.",
)
@click.option("--crs", help="Projected CRS of the map; the UTM zone of the poses by default.")
@click.option("--like", type=FILE, metavar="REF.tif", help="Take CRS and grid of this raster.")
@click.option(
    "--resampling", type=SURFACE, default="linear", show_default=True, help="Between source pixels."
)
@click.option(
    "--dem-resampling", type=SURFACE, default="linear", show_default=True,
    help="The surface between DEM posts: bilinear, or Keys' cubic as in GDAL.",
)  # fmt: skip
@click.option(
    "--map", "map_model", type=click.Choice(["earth", "plane"]), default="earth", show_default=True,
    help="plane: leave out scale, height factor and curvature.",
)  # fmt: skip
@click.option("--extras", is_flag=True, help="Write sigma and masks too, into OUT/extras.")
@click.option("--dem-datum", type=DATUM, help="What the DEM's heights are above.")
@click.option("--dem-sigma", type=Metres(0.0), metavar="M", help="σ of DEM heights.")
@click.option("--alt-datum", type=DATUM, help="What camera heights that do not say so are above.")
@click.option(
    "--codec", type=click.Choice(["deflate", "zstd", "lzw", "none"]), default="deflate",
    show_default=True, help="Lossless codec of the files.",
)  # fmt: skip
@click.option(
    "--overviews/--no-overviews", default=True, show_default=True,
    help="Smaller copies for fast viewing inside the files.",
)  # fmt: skip
@click.option("--out", required=True, type=FILE, help="Folder to write <stem>.tif into.")
@json_option
def ortho(
    source: Path,
    rig: Path,
    poses: Path | None,
    dem: Path,
    gsd: float | None,
    crs: str | None,
    like: Path | None,
    resampling: str,
    dem_resampling: str,
    map_model: str,
    extras: bool,
    dem_datum: str | None,
    dem_sigma: float | None,
    alt_datum: str | None,
    codec: str,
    overviews: bool,
    out: Path,
    as_json: bool,
) -> None:
    """One orthocorrected GeoTIFF per frame.

    SOURCE is one frame or any source of frames. Each frame becomes OUT/<stem>.tif, a
    cloud-optimised GeoTIFF without loss; what was not seen is masked. A frame that cannot be used
    is flagged and left out.
    """
    if like is not None and (gsd is not None or crs is not None):
        raise click.UsageError("--like already says --gsd and --crs")
    camera = load_rig(rig)
    if dem_datum == "same" and alt_datum is None:
        alt_datum = "same"
    frames = open_source(source, camera, poses, cast("HeightDatum | None", alt_datum))
    placed = frames.poses(camera)
    if not len(placed):
        _refuse(frames)
    grid = Grid.from_raster(like) if like is not None else None
    map_frame = _map_frame(placed, grid, crs, cast("MapModel", map_model))
    ground = open_dem(dem, map_frame, cast("HeightDatum | None", dem_datum), dem_sigma)
    job = OrthoJob(
        rig=camera,
        terrain=ground,
        map_frame=map_frame,
        out=out,
        gsd_m=gsd,
        like=grid,
        resampling=cast("ImageResampling", resampling),
        dem_resampling=cast("DemResampling", dem_resampling),
        extras=extras,
        pose_source=poses.name if poses else frames.kind,
        codec=cast("Codec", codec),
        overviews=overviews,
    )

    def watch(items: Iterable[Frame]) -> Iterator[Frame]:
        return progress(items, "orthocorrecting")

    report = ortho_batch(frames, placed, job, watch)
    notes = list(frames.notes)
    if ground.resampled:
        notes.append(f"the DEM was resampled to {map_frame.crs.name} at {ground.dx:.3g} m")
    payload = _payload(report, frames, notes, job)
    emit(payload, as_json, lambda: _tell(payload))


def _map_frame(poses: Poses, like: Grid | None, crs: str | None, model: MapModel) -> MapFrame:
    if like is not None:
        return MapFrame(like.crs, model)
    if crs:
        return MapFrame(parse_crs(crs), model)
    return MapFrame.utm(float(np.median(poses.lat_deg)), float(np.median(poses.lon_deg)), model)


def _refuse(frames: Source) -> None:
    why = "; ".join(f"{flag.frame}: {flag.reason}" for flag in frames.flagged[:4])
    remedy = next((flag.remedy for flag in frames.flagged), "give --poses")
    raise UserError(f"no frame of {frames.name} can be placed ({why or 'no poses'})", remedy)


def _payload(
    report: BatchReport, frames: Source, notes: list[str], job: OrthoJob
) -> dict[str, Any]:
    flagged = [{"frame": f.frame, "reason": f.reason, "remedy": f.remedy} for f in frames.flagged]
    flagged += [{"frame": f, "reason": why, "remedy": how} for f, why, how in report.flagged]
    return {
        "frames": report.frames,
        "placed": report.placed,
        "written": len(report.written),
        "files": [str(path) for path in report.written],
        "crs": job.map_frame.crs.name,
        "height_datum": job.terrain.datum,
        "dem": job.terrain.label,
        "seen_share": round(float(np.mean(report.seen_share)), 4),
        "notes": notes,
        "flagged": flagged,
        "out": str(job.out),
    }


def _tell(payload: dict[str, Any]) -> None:
    counts = f"{payload['written']} of {payload['frames']} frames"
    rows: list[list[object]] = [["written", f"{counts} to {payload['out']}"]]
    rows.append(["CRS, heights", f"{payload['crs']}, {payload['height_datum']}"])
    rows += [["note", note] for note in payload["notes"]]
    rows += [[f"flag {f['reason']}", f"{f['frame']}: {f['remedy']}"] for f in payload["flagged"]]
    table("", ["ortho", ""], rows)
