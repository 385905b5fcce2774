"""``gossan onboard inspect``: what is there, where it is, what looks wrong and what to do."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import cast

import click

from calibration.rig import load_rig
from gossan.console import emit, json_option, progress, table
from onboard.inspect import Report, inspect_source
from onboard.records import HeightDatum
from onboard.sources.source import FLAG_CODES

DATUMS = ("ellipsoid", "egm96", "egm2008", "takeoff", "same")


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--rig", type=click.Path(path_type=Path), help="Rig to check frames and clock with.")
@click.option("--poses", type=click.Path(path_type=Path), help="Pose table to use instead.")
@click.option("--alt-datum", type=click.Choice(DATUMS), help="What unnamed heights are above.")
@click.option("--quick", is_flag=True, help="Do not decode the frames.")
@json_option
def inspect(
    source: Path,
    rig: Path | None,
    poses: Path | None,
    alt_datum: str | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Say what is in SOURCE, where it is, what looks wrong and what to do.

    SOURCE is a flight folder, a folder of photos, frames or a video with telemetry, a
    reconstruction, or one image. Flags never change the exit code.
    """
    report = inspect_source(
        source,
        load_rig(rig) if rig else None,
        poses,
        cast("HeightDatum | None", alt_datum),
        look=not quick,
        progress=lambda frames: progress(frames, "looking at frames"),
    )
    emit(as_record(report), as_json, lambda: tell(report))


def as_record(report: Report) -> dict[str, object]:
    """Returns the report as the JSON object that ``--json`` prints."""
    where = report.where
    return {
        "source": report.name,
        "kind": report.kind,
        "frames": report.frames,
        "placed": report.placed,
        "notes": report.notes,
        "flagged": [f._asdict() for f in report.flagged],
        "where": where
        and {
            "bbox": where.bbox,
            "alt_m": where.alt_m,
            "height_datum": where.height_datum,
            "start": where.start,
            "end": where.end,
        },
    }


def tell(report: Report) -> None:
    """Prints the report for people."""
    click.echo(f"{report.name}: {report.kind}")
    frames = "frame" if report.frames == 1 else "frames"
    click.echo(f"  {report.frames} {frames}, {report.placed} placed")
    if report.where:
        w = report.where
        click.echo(
            f"  {w.lat_deg[0]:.5f} to {w.lat_deg[1]:.5f} north, "
            f"{w.lon_deg[0]:.5f} to {w.lon_deg[1]:.5f} east, "
            f"{w.alt_m[0]:.1f} to {w.alt_m[1]:.1f} m above {w.height_datum}"
        )
        if w.start:
            click.echo(f"  {w.start} to {w.end}")
    for note in report.notes:
        click.echo(f"  note: {note}")
    by_reason: dict[str, list[str]] = defaultdict(list)
    for item in report.flagged:
        by_reason[item.reason].append(item.frame)
    rows = [
        (reason, _few(names), FLAG_CODES[reason].meaning, FLAG_CODES[reason].remedy)
        for reason, names in sorted(by_reason.items())
    ]
    if rows:
        table("What looks wrong", ("code", "frames", "what it means", "what to do"), rows)
    else:
        click.echo("  nothing looks wrong")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
