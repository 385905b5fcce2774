"""``gossan groundsync prior``: weights, a prior map and an honest evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gossan.console import emit, json_option, say, table
from groundsync.prior.files import EVALUATION, POSTERIOR, WEIGHTS, write_prior
from groundsync.prior.run import compute_prior
from groundsync.prior.settings import load_priors


@click.command()
@click.argument("priors", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for weights.csv, posterior.tif and evaluation.json.",
)
@json_option
def prior(priors: Path, out: Path, as_json: bool) -> None:
    """Weights and a prior map from the geology layers that PRIORS.toml names.

    The map says how probable an occurrence is in each cell, with its standard deviation; the
    evaluation says how far to trust it, on blocks of ground that were held out.
    """
    settings = load_priors(priors)
    result = compute_prior(settings, priors.resolve().parent)
    content = write_prior(result, settings, out)
    payload = {
        "layers": content["layers"],
        "posterior": str(out / POSTERIOR),
        "weights": str(out / WEIGHTS),
        "evaluation": str(out / EVALUATION),
        "t_over_n": content["t_over_n"],
        "ci_rejected": content["ci_rejected"],
        "auc_random": content["auc_random"],
        "auc_block": content["auc_block"],
        "information_gain_bits": content["information_gain_bits"],
        "notes": content["notes"],
    }
    emit(payload, as_json, lambda: _tell(content, out))


def _tell(content: dict[str, Any], out: Path) -> None:
    """Prints the evaluation for people."""
    rows = [
        (la["name"], la["kind"], la["classes"], la["strongest_class"], la["strongest_contrast"])
        for la in content["layers"]
    ]
    table("layers", ("layer", "kind", "classes", "strongest class", "contrast"), rows)
    side = content["validation"]["block_km"]
    checks = (
        ("expected / observed", content["t_over_n"], f"held-out blocks of {side:g} km; 1 is right"),
        ("  summed weights alone", content["raw_t_over_n"], "before recalibration"),
        ("AUC, held-out blocks", content["auc_block"], "0.5 ranks nothing"),
        ("AUC, random cells", content["auc_random"], "flattered by neighbours; for comparison"),
        ("information gain", content["information_gain_bits"], "bits per occurrence; ≤ 0 is none"),
        ("independence rejected", "yes" if content["ci_rejected"] else "no", "at 95 %"),
    )
    table("how far to trust it", ("", "value", ""), checks)
    for note in content["notes"]:
        say(f"note: {note}")
    say(f"written: {out / POSTERIOR}, {out / WEIGHTS}, {out / EVALUATION}")
