"""``gossan onboard replay``: a recorded flight through the code that flies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

import click

from gossan.console import Metres, emit, json_option, progress, say, table
from onboard.records import Frame, HeightDatum

PATH = click.Path(path_type=Path)
DATUMS = click.Choice(get_args(HeightDatum))


@click.command()
@click.argument("source", type=PATH)
@click.option("--rig", type=PATH, required=True, help="The camera and its mount.")
@click.option("--out", type=PATH, required=True, help="The flight folder to make.")
@click.option("--poses", type=PATH, help="A pose table in place of the source's poses.")
@click.option("--dem", type=PATH, help="The ground; without it a plane at take-off height.")
@click.option("--dem-datum", type=DATUMS, help="What the DEM's heights are above.")
@click.option("--dem-sigma", type=Metres(0.0), help="σ of the DEM's heights, metres.")
@click.option("--alt-datum", type=DATUMS, help="What the source's heights are above.")
@click.option("--model", default="surface-rgb", show_default=True, help="Zoo name, folder, none.")
@click.option("--plan", type=PATH, help="GeoJSON of the planned area, for coverage.")
@click.option("--gsd", type=Metres(0.0, min_open=True), help="Ortho pixel, metres.")
@click.option("--orthos/--no-orthos", default=True, show_default=True, help="Write the orthos.")
@click.option("--misfit/--no-misfit", default=True, show_default=True, help="Compare neighbours.")
@json_option
def replay(
    source: Path,
    rig: Path,
    out: Path,
    poses: Path | None,
    dem: Path | None,
    dem_datum: HeightDatum | None,
    dem_sigma: float | None,
    alt_datum: HeightDatum | None,
    model: str,
    plan: Path | None,
    gsd: float | None,
    orthos: bool,
    misfit: bool,
    as_json: bool,
) -> None:
    """A recorded flight through the code that flies.

    SOURCE is a flight folder, photos with pose, frames or a video with a log, or frames with a
    pose table. Repeating it into the same folder replaces that replay.
    """
    from onboard.replay import ReplayOptions, ReplayResult
    from onboard.replay import replay as run
    from onboard.survey_scene import Ground

    options = ReplayOptions(
        source=source,
        rig=rig,
        out=out,
        poses=poses,
        ground=Ground(dem, dem_datum, dem_sigma),
        alt_datum=alt_datum,
        model=model,
        plan=plan,
        orthos=orthos,
        gsd_m=gsd,
        misfit=misfit,
    )

    def bar(frames: Iterable[Frame], label: str, total: int) -> Iterator[Frame]:
        return progress(frames, label, total)

    result: ReplayResult = run(options, bar)
    payload = result.payload()

    def show() -> None:
        rows = [(key, payload[key]) for key in ("flight_id", "frames", "placed", "scanned")]
        rows += [("detections", result.detections), ("tracks", result.tracks)]
        median, p90 = payload["misfit_m"]["median"], payload["misfit_m"]["p90"]
        rows += [("misfit m (median, p90)", f"{median} {p90} of {payload['ties']} ties")]
        rows += [("coverage", payload["coverage"]), ("flight folder", out)]
        table("", ("", ""), rows)
        for alert in result.alerts:
            click.echo(f"alert: {alert['text']}")

    emit(payload, as_json, show)
    for text in result.notes:
        say(f"note: {text}")
    for item in result.flagged:
        say(f"flagged {item.frame}: {item.reason} ({item.remedy})")
