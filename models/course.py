"""A training run from folders to checkpoint, and from checkpoint to a model folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from models.dataset import Dataset, Sample, open_dataset
from models.errors import TrainingError
from models.export import FLOAT_FILE, Identity, default_heads, start_folder
from models.labels import HEADS
from models.manifest import Manifest
from models.network import STRIDES, export_onnx
from models.sampling import Stream, stream_for
from models.train import Recipe, load_checkpoint, train

COMPOSED = "composed"


@dataclass(frozen=True, slots=True)
class Course:
    """What a run learns from.

    Attributes:
        heads: Folder by head name, or ``composed``.
        held_out: Places by head name that training never sees.
        textures: Folder whose frames lend texture to composed ground.
    """

    heads: dict[str, str]
    held_out: dict[str, set[str]]
    textures: Path | None = None


def run_course(
    course: Course,
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    start_from: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Trains and returns what was learned from; leaves ``course.json`` beside the checkpoint."""
    streams, classes, told = [], {}, {}
    textures = _textures(course)
    for name, folder in course.heads.items():
        samples, names, about = _samples(name, folder, course.held_out.get(name, set()))
        streams.append(_stream(name, samples, textures, len(names)))
        classes[name], told[name] = names, about
        say(f"head {name}: {about}")
    run.mkdir(parents=True, exist_ok=True)
    record = {"classes": classes, "trained_on": told, "recipe": asdict(recipe)}
    (run / "course.json").write_text(json.dumps(record, indent=2), encoding="utf-8")

    def watch(step: int, losses: dict[str, float]) -> None:
        if (step + 1) % 50 == 0:
            shown = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
            say(f"step {step + 1} of {recipe.steps}: loss {shown}")

    sizes = {name: len(names) for name, names in classes.items()}
    train(tuple(streams), sizes, recipe, run, resume=resume, start_from=start_from, watch=watch)
    return {"run": str(run), "steps": recipe.steps, "trained_on": told}


def export_run(run: Path, out: Path, name: str, version: str, gsd_m: float) -> Manifest:
    """Writes a model folder with the float file of a run; returns its manifest.

    Raises:
        TrainingError: The run has no checkpoint or no ``course.json``.
    """
    network, _ = load_checkpoint(run / "checkpoint.pt")
    try:
        record = json.loads((run / "course.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{run} has no usable course.json: {error}", "train again") from error
    out.mkdir(parents=True, exist_ok=True)
    export_onnx(network, out / FLOAT_FILE, 512)
    classes = {head: tuple(names) for head, names in record["classes"].items()}
    lines = tuple(f"{head}: {text}" for head, text in record["trained_on"].items())
    heads = default_heads(classes, network.strides)
    return start_folder(out, heads, Identity(name, version, gsd_m, trained_on=lines))


def _textures(course: Course) -> tuple[Sample, ...]:
    if course.textures is None:
        return ()
    kept_back = set().union(*course.held_out.values()) if course.held_out else set()
    return open_dataset(course.textures).elsewhere(kept_back)


def _samples(
    name: str, folder: str, held_out: set[str]
) -> tuple[tuple[Sample, ...], tuple[str, ...], str]:
    """Returns a head's training samples, its classes, and one line that says what they are."""
    if folder == COMPOSED:
        return (), _classes(name, None), "composed ground only (simulated)"
    dataset = open_dataset(Path(folder))
    dataset.at(held_out)
    samples = dataset.elsewhere(held_out)
    kind = "simulated frames" if dataset.settings.simulated else "frames"
    title = dataset.settings.name or dataset.path.name
    about = f"{len(samples)} {kind} of {title}"
    if dataset.settings.licence:
        about += f", {dataset.settings.licence}"
    if held_out:
        about += f"; held out: {', '.join(sorted(held_out))}"
    return samples, _classes(name, dataset), about


def _classes(name: str, dataset: Dataset | None) -> tuple[str, ...]:
    if dataset is not None and dataset.settings.classes:
        return dataset.settings.classes
    if name not in HEADS:
        raise TrainingError(
            f"the classes of head '{name}' are not known", "name them in the dataset's dataset.toml"
        )
    return HEADS[name]


def _stream(
    name: str, samples: tuple[Sample, ...], textures: tuple[Sample, ...], n_classes: int
) -> Stream:
    if name not in STRIDES and not samples:
        raise TrainingError(f"head '{name}' has nothing to learn from")
    return stream_for(name, samples, textures, STRIDES.get(name, 8), n_classes)
