"""``gossan onboard simulate``: a flight, or a training set, of known truth."""

from __future__ import annotations

from pathlib import Path

import click

from gossan.console import emit, json_option, say
from gossan.errors import UserError


@click.command()
@click.option("--dataset", type=click.Path(path_type=Path), help="Write a training set here.")
@click.option("--count", default=300, show_default=True, help="Tiles of the training set.")
@click.option("--seed", default=1, show_default=True, help="Which world.")
@click.option("--family", type=click.Choice(["train", "test"]), default=None, help="Which worlds.")
@json_option
def simulate(
    dataset: Path | None, count: int, seed: int, family: str | None, as_json: bool
) -> None:
    """A flight or training set of known truth."""
    if dataset is None:
        raise UserError("nothing to simulate", "give --out FLIGHT or --dataset DIR")
    from onboard.simulator.dataset import write_dataset

    def note(done: int) -> None:
        if done % 20 == 0:
            say(f"{done} of {count} tiles")

    pixels = write_dataset(dataset, count, seed, family or "train", note)
    emit({"dataset": str(dataset), "tiles": count, "pixels": pixels}, as_json)
