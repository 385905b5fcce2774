"""``gossan onboard geotag``: pixels to coordinates with covariance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, cast

import click
import numpy as np

from calibration.geodesy import HEIGHT_DATUMS, MapModel, parse_crs
from calibration.rig import load_rig
from gossan.console import Metres, emit, json_option, table
from onboard.geotag_table import Maps, geotag_table
from onboard.place.ellipses import ce90_m
from onboard.records import GroundPoints, HeightDatum
from onboard.sources.point_tables import read_points, write_points
from onboard.sources.pose_table import read_poses

FILE = click.Path(path_type=Path)
DATUM = click.Choice(HEIGHT_DATUMS)


@click.command()
@click.argument("points", type=FILE, metavar="POINTS.csv")
@click.option("--poses", required=True, type=FILE, help="POSES table of the frames.")
@click.option("--rig", required=True, type=FILE, help="Rig TOML of the camera.")
@click.option("--dem", type=FILE, help="DEM of the ground.")
@click.option("--ground-alt", type=Metres(), metavar="M", help="Level ground of this height.")
@click.option("--dem-datum", type=DATUM, help="What the ground's heights are above.")
@click.option("--dem-sigma", type=Metres(0.0), metavar="M", help="σ of ground heights.")
@click.option("--alt-datum", type=DATUM, help="What heights that do not say so are above.")
@click.option("--crs", help="Projected CRS of the map; the UTM zone of the poses by default.")
@click.option(
    "--map", "map_model", type=click.Choice(["earth", "plane"]), default="earth", show_default=True,
    help="plane: leave out scale, height factor and curvature.",
)  # fmt: skip
@click.option("--out", required=True, type=FILE, help="OUT table to write.")
@json_option
def geotag(
    points: Path,
    poses: Path,
    rig: Path,
    dem: Path | None,
    ground_alt: float | None,
    dem_datum: str | None,
    dem_sigma: float | None,
    alt_datum: str | None,
    crs: str | None,
    map_model: str,
    out: Path,
    as_json: bool,
) -> None:
    """Pixels to coordinates with covariance.

    POINTS.csv has frame, x_px, y_px, optionally sigma_px and its own ground heights
    (ground_alt_m_ellipsoid or ground_alt_m_geoid). OUT repeats its rows and adds where they lie.
    """
    if dem is not None and ground_alt is not None:
        raise click.UsageError("--dem and --ground-alt exclude each other")
    camera = load_rig(rig)
    placed = read_poses(poses, camera, alt_datum)
    pixels = read_points(points, alt_datum)
    maps = Maps.for_poses(placed, parse_crs(crs) if crs else None, cast("MapModel", map_model))
    ground, notes = geotag_table(
        pixels,
        placed,
        camera,
        maps,
        dem=dem,
        ground_alt_m=ground_alt,
        dem_datum=cast("HeightDatum | None", dem_datum),
        dem_sigma_m=dem_sigma,
    )
    write_points(out, pixels, ground)
    payload = _payload(ground, notes, out, maps)
    emit(payload, as_json, lambda: _tell(payload))


def _payload(ground: GroundPoints, notes: list[str], out: Path, maps: Maps) -> dict[str, Any]:
    seen = np.isfinite(ground.lat_deg)
    shares = ground.cause_share[seen].mean(axis=0) if seen.any() else []
    return {
        "points": len(ground),
        "placed": int(seen.sum()),
        "ce90_m": {
            "median": float(np.median(ce90_m(ground.cov_total_m2[seen]))) if seen.any() else None
        },
        "causes": {
            name: round(float(share), 4)
            for name, share in zip(ground.cause_names, shares, strict=False)
            if share > 0
        },
        "flags": dict(Counter(code for flags in ground.flags for code in flags)),
        "notes": notes,
        "crs": "; ".join(frame.crs.name for frame in maps.frames),
        "height_datum": ground.height_datum,
        "out": str(out),
    }


def _tell(payload: dict[str, Any]) -> None:
    rows: list[list[object]] = [["points placed", f"{payload['placed']} of {payload['points']}"]]
    if payload["ce90_m"]["median"] is not None:
        rows.append(["median CE90", f"{payload['ce90_m']['median']:.2f} m"])
    by_share = sorted(payload["causes"].items(), key=lambda item: -item[1])
    if by_share:
        rows.append(["causes", ", ".join(f"{100 * s:.0f} % {name}" for name, s in by_share[:5])])
    rows += [[f"flag {code}", count] for code, count in payload["flags"].items()]
    rows += [["note", note] for note in payload["notes"]]
    rows.append(["written", payload["out"]])
    table("", ["geotag", payload["crs"]], rows)
