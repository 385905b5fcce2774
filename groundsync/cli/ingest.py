"""``gossan groundsync ingest``: flight folders or photos into a project."""

from __future__ import annotations

from pathlib import Path

import click

from gossan.console import emit, json_option, say, table


@click.command()
@click.argument("sources", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The project folder; made where it is missing.",
)
@click.option("--rig", type=click.Path(path_type=Path), help="Rig of sources that are no flights.")
@click.option("--model", default="surface-rgb", show_default=True, help="What looks at them.")
@click.option("--alt-datum", help="Datum of heights that do not say theirs.")
@json_option
def ingest(
    sources: tuple[Path, ...],
    data: Path,
    rig: Path | None,
    model: str,
    alt_datum: str | None,
    as_json: bool,
) -> None:
    """Flight folders or photos into a project.

    SOURCES are flight folders (from a card or a USB stick), or anything that replay accepts: those
    are replayed into a flight first, over the DEM of project.toml. Without SOURCES, the flights
    that were synced into the project are indexed. Twice is once.
    """
    from groundsync.catalogue import SqliteCatalogue
    from groundsync.ingest import Ingested, ingest_flight, ingest_received
    from groundsync.pictures import draw_mosaics
    from groundsync.replayed import replay_source
    from groundsync.settings import load_project

    catalogue = SqliteCatalogue(data)
    settings = load_project(data)
    done: list[Ingested] = []
    for source in sources:
        if (source / "flight.toml").is_file():
            done.append(ingest_flight(source, data, catalogue))
        else:
            folder = replay_source(source, data, settings, rig, model, alt_datum)
            done.append(ingest_flight(folder, data, catalogue))
    if not sources:
        done = ingest_received(data, catalogue)
    notes = draw_mosaics([item.row for item in done], data, settings, catalogue)
    for note in notes:
        say(note)
    rows = [item.row for item in done]
    payload = {"flights": [_describe(item) for item in done], "notes": notes}
    columns = ("flight", "state", "frames", "placed", "scanned", "detections", "tracks", "note")
    emit(
        payload,
        as_json,
        lambda: table(
            "Flights",
            columns,
            [
                (
                    r.flight_id,
                    r.state,
                    r.frames,
                    r.placed,
                    r.scanned,
                    r.detections,
                    r.tracks,
                    r.note,
                )
                for r in rows
            ],
        ),
    )


def _describe(item: object) -> dict[str, object]:
    from dataclasses import asdict

    from groundsync.ingest import Ingested

    assert isinstance(item, Ingested)  # noqa: S101
    return {**asdict(item.row), "changed": item.changed}
