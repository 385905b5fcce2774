"""Fuses, exports and reports a project: the three commands that read all of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gossan.console import emit, json_option, say, table

if TYPE_CHECKING:
    from groundsync.catalogue import SqliteCatalogue
    from groundsync.fuse import Fusion

DATA = click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project folder.",
)


@click.command()
@DATA
@json_option
def fuse(data: Path, as_json: bool) -> None:
    """Targets, posterior and ranking of a project.

    Takes in what was synced, joins all flights' tracks to targets, updates the prior of DATA/prior
    (`gossan groundsync prior … --out DATA/prior`; a flat one is assumed without) by what was seen
    and by what was looked at and not found, ranks, and publishes the map's layers. Twice is once.
    """
    from groundsync.belief import PRIOR_FOLDER
    from groundsync.ingest import ingest_received
    from groundsync.ledger_file import write_ledger
    from groundsync.pictures import draw_mosaics, draw_prior
    from groundsync.prior.files import POSTERIOR, write_map
    from groundsync.publish import publish, summary
    from groundsync.settings import load_project

    catalogue = _catalogue(data)
    received = ingest_received(data, catalogue)
    for note in draw_mosaics([i.row for i in received], data, load_project(data), catalogue):
        say(note)
    fusion = _fused(data, catalogue)
    belief = fusion.belief
    write_map(data / "posterior.tif", belief.grid, belief.posterior, belief.posterior_sigma)
    write_ledger(belief.ledger, belief.grid, data / "ledger.npz")
    if belief.study is not None:
        draw_prior(data / PRIOR_FOLDER / POSTERIOR, data, catalogue)
    publish(fusion.view, data, catalogue)
    view = fusion.view
    payload = {
        **summary(view, data),
        "targets": [
            {
                "rank": one.rank,
                "target_id": one.target.target_id,
                "class_name": one.target.class_name,
                "lat_deg": one.target.lat_deg,
                "lon_deg": one.target.lon_deg,
                "ce90_m": one.target.ce90_m,
                "probability": one.target.probability,
                "calibrated": one.target.calibrated,
                "posterior": one.posterior,
                "looks": one.target.looks,
                "reasons": one.reasons,
                "before_next": one.before_next,
            }
            for one in view.targets
        ],
        "left_out": dict(view.left_out),
    }
    emit(payload, as_json, lambda: _show(fusion))


@click.command()
@DATA
@click.option("--out", type=click.Path(path_type=Path), help="Folder; DATA/export without.")
@json_option
def export(data: Path, out: Path | None, as_json: bool) -> None:
    """GeoPackage, GeoJSON and CSV of a project, with QGIS styles inside the GeoPackage."""
    from groundsync.export.csv import write_csv
    from groundsync.export.geojson import write_geojson
    from groundsync.export.gpkg import write_gpkg

    view = _fused(data, _catalogue(data)).view
    folder = out or data / "export"
    folder.mkdir(parents=True, exist_ok=True)
    files = [write_gpkg(view, folder / "gossan.gpkg")]
    files += [*write_geojson(view, folder), *write_csv(view, folder)]
    emit({"files": files}, as_json, lambda: click.echo("\n".join(map(str, files))))


@click.command()
@DATA
@click.option("--out", type=click.Path(path_type=Path), help="HTML file; DATA/report.html without.")
@json_option
def report(data: Path, out: Path | None, as_json: bool) -> None:
    """A one-page report of a project: the ranking and why, what was not seen, what is assumed."""
    from groundsync.report.page import write_report

    path = write_report(_fused(data, _catalogue(data)).view, out or data / "report.html")
    emit({"report": path}, as_json, lambda: click.echo(path))


def _catalogue(data: Path) -> SqliteCatalogue:
    from groundsync.catalogue import SqliteCatalogue

    return SqliteCatalogue(data)


def _fused(data: Path, catalogue: SqliteCatalogue) -> Fusion:
    from groundsync.fuse import fuse as fuse_project
    from groundsync.settings import load_project

    return fuse_project(data, catalogue.flights(), load_project(data))


def _show(fusion: Fusion) -> None:
    rows = [
        (
            one.rank,
            one.target.class_name,
            f"{one.target.lat_deg:.6f}, {one.target.lon_deg:.6f}",
            f"{one.target.ce90_m:.1f}",
            f"{one.target.probability:.2f}{'' if one.target.calibrated else ' (uncalibrated)'}",
            f"{one.posterior:.3g}",
            one.target.looks,
        )
        for one in fusion.view.targets
    ]
    columns = ("rank", "class", "lat, lon", "90 % radius m", "seen", "deposit", "looks")
    table(f"Targets of {fusion.view.name}", columns, rows)
    for one in fusion.view.targets:
        if one.before_next:
            click.echo(one.before_next)
