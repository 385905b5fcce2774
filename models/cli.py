"""``gossan models …``: train, export, quantize, evaluate, predict, verify, list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gossan.console import emit, json_option, progress, say, table
from gossan.errors import MissingExtraError, UserError
from models.registry import DEFAULT, check_files, find_model, open_model
from models.registry import list_models as models_in

FOLDER = click.Path(path_type=Path)
PROVIDER = click.option(
    "--provider",
    type=click.Choice(["auto", "tensorrt", "cuda", "cpu"]),
    default="auto",
    show_default=True,
    help="Inference provider; auto probes TensorRT, CUDA, CPU in this order.",
)
THREADS = click.option("--threads", type=int, default=None, help="CPU threads of the engine.")


@click.command()
@click.option(
    "--head",
    "heads",
    multiple=True,
    required=True,
    metavar="NAME=DATASET",
    help="A head and the folder it learns from; 'anomaly=composed' needs no folder.",
)
@click.option(
    "--hold-out", multiple=True, metavar="NAME=PLACE", help="A place that training never sees."
)
@click.option("--textures", type=FOLDER, help="Frames that composed ground borrows texture from.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the run.")
@click.option("--steps", type=int, default=3000, show_default=True)
@click.option("--rate", type=float, default=2e-3, show_default=True, help="Highest learning rate.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--threads", type=int, default=2, show_default=True, help="CPU threads of torch.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Arithmetic of the forward pass.",
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--size", type=int, default=192, show_default=True, help="Edge of the crops, px.")
@click.option("--fold", type=int, default=1, show_default=True, help="Times the crops of a step.")
@click.option(
    "--workers", type=int, default=0, show_default=True, help="Processes that make batches."
)
@click.option("--resume", is_flag=True, help="Go on from the run's last checkpoint.")
@click.option("--start-from", type=FOLDER, help="Begin with the weights of this finished run.")
@json_option
def train(
    heads: tuple[str, ...],
    hold_out: tuple[str, ...],
    textures: Path | None,
    out: Path,
    steps: int,
    rate: float,
    seed: int,
    threads: int,
    precision: str,
    device: str,
    size: int,
    fold: int,
    workers: int,
    resume: bool,
    start_from: Path | None,
    as_json: bool,
) -> None:
    """Train a network on labelled data: heads on one trunk, each on its own labels."""
    _need_torch()
    from models.course import Course, run_course
    from models.train import Recipe

    recipe = Recipe(
        steps=steps,
        size=size,
        fold=fold,
        rate=rate,
        seed=seed,
        threads=threads,
        precision=precision,
        device=device,
        workers=workers,
    )
    course = Course(_pairs(heads), _groups(hold_out), textures)
    result = run_course(course, recipe, out, resume=resume, start_from=start_from, say=say)
    emit(result, as_json, lambda: say(f"trained {result['steps']} steps: {out}"))


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Model folder to write.")
@click.option("--name", default=DEFAULT, show_default=True)
@click.option("--version", default="0.1.0", show_default=True)
@click.option("--gsd", type=float, default=0.10, show_default=True, help="GSD in metres.")
@json_option
def export(run: Path, out: Path, name: str, version: str, gsd: float, as_json: bool) -> None:
    """Write a trained run as a model folder (float file and manifest)."""
    _need_torch()
    from models.course import export_run

    manifest = export_run(run, out, name, version, gsd)
    emit({"model": str(out), "files": list(manifest.files)}, as_json, lambda: say(f"wrote {out}"))


@click.command()
@click.argument("folder", type=FOLDER)
@click.option(
    "--on",
    multiple=True,
    required=True,
    metavar="NAME=DATASET",
    help="A head's labelled folder: tiles to calibrate on, and places to judge on.",
)
@click.option(
    "--hold-out", multiple=True, metavar="NAME=PLACE", help="Places to judge and settle on."
)
@click.option(
    "--method", type=click.Choice(["minmax", "percentile"]), default="minmax", show_default=True
)
@click.option(
    "--alarms-per-km2",
    type=float,
    default=1.5,
    show_default=True,
    help="False alarms per km² in one look that each reported class may make.",
)
@json_option
def quantize(
    folder: Path,
    on: tuple[str, ...],
    hold_out: tuple[str, ...],
    method: str,
    alarms_per_km2: float,
    as_json: bool,
) -> None:
    """Write INT8 and FP16 files of an exported model; refuse them where they lose too much."""
    from models.harden import harden

    result = harden(folder, _pairs(on), _groups(hold_out), method, alarms_per_km2, say=say)
    emit(result, as_json, lambda: say(f"quantized {folder}"))


@click.command()
@click.argument("model")
@click.argument("dataset", type=FOLDER)
@click.option("--head", default=None, help="Which head to compare.")
@click.option("--part", multiple=True, help="Only rows of this part (or place).")
@click.option("--positive", default=None, help="For chips: the class that label 1 stands for.")
@PROVIDER
@THREADS
@json_option
def evaluate(
    model: str,
    dataset: Path,
    head: str | None,
    part: tuple[str, ...],
    positive: str | None,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure a model on a labelled dataset."""
    from models.dataset import open_dataset
    from models.evaluate import evaluate as measure
    from models.predict import Predictor

    folder = open_dataset(dataset)
    chosen = [s for s in folder.samples if not part or s.part in part or s.place in part]
    predictor = Predictor.open(model, threads, provider)
    samples = progress(chosen, "evaluating")
    result = measure(predictor, folder, head=head, samples=samples, positive=positive)
    emit({"model": predictor.manifest.name, **result}, as_json, lambda: _figures(result))


@click.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FOLDER, default=None, help="Folder for one mask per head and image.")
@PROVIDER
@THREADS
@json_option
def predict(
    model: str,
    images: tuple[Path, ...],
    out: Path | None,
    provider: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Regions (and, with --out, masks) of images that have the model's GSD."""
    from models.picture import answer_of, write_masks
    from models.predict import Predictor

    predictor = Predictor.open(model, threads, provider)
    answers = []
    for path in progress(images, "predicting"):
        answer, prediction, shape = answer_of(predictor, path)
        if out is not None:
            answer["masks"] = write_masks(predictor.manifest, prediction, path.stem, shape, out)
        answers.append(answer)
    rows = [
        (a["image"], r["class"], r["probability"], *r["centroid_px"], r["area_px"], r["ood"])
        for a in answers
        for r in a["regions"]
    ]
    columns = ("image", "class", "probability", "x px", "y px", "area px", "doubted")
    emit(
        {"model": predictor.manifest.name, "hash": predictor.hash, "images": answers},
        as_json,
        lambda: table(f"{len(rows)} regions", columns, rows),
    )


@click.command()
@click.argument("model")
@click.option("--probe", is_flag=True, help="Also run the golden tile on every provider.")
@json_option
def verify(model: str, probe: bool, as_json: bool) -> None:
    """Check a model's files against its manifest."""
    from models.manifest import load_manifest

    path = find_model(model)
    checks = check_files(path, load_manifest(path / "manifest.toml"))
    result: dict[str, Any] = {
        "model": str(path),
        "ok": all(check.state == "ok" for check in checks),
        "files": [{"file": c.file, "state": c.state, "sha256": c.found} for c in checks],
    }
    opened = open_model(model) if result["ok"] else None
    if opened is not None:
        result["hash"] = opened.hash
        if probe:
            from models.runtime import PROVIDERS, probe_apart

            probes = [probe_apart(opened, name) for name in PROVIDERS]
            result["probes"] = [
                {"provider": p.provider, "ok": p.ok, "detail": p.detail} for p in probes
            ]
    rows = [(row["file"], row["state"]) for row in result["files"]]
    rows += [(p["provider"], p["detail"]) for p in result.get("probes", [])]
    emit(result, as_json, lambda: table(str(path), ("file", "state"), rows))
    if opened is None:
        open_model(model)


@click.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """The models at hand."""
    found = [
        {
            "name": m.name,
            "version": m.version,
            "gsd_m": m.gsd_m,
            "heads": {name: list(head.classes) for name, head in m.heads.items()},
            "reports": list(m.report_classes),
            "experimental": [name for name, head in m.heads.items() if head.experimental],
            "path": str(path),
        }
        for path, m in models_in()
    ]
    rows = [
        (m.name, m.version, m.gsd_m, ", ".join(m.heads), ", ".join(m.report_classes))
        for _, m in models_in()
    ]
    columns = ("name", "version", "GSD m", "heads", "reports")
    emit({"models": found}, as_json, lambda: table("", columns, rows))


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "training needs 'torch', which is not installed", "pip install 'gossan[train]'"
        ) from error


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not value:
            raise UserError(f"'{text}' is not NAME=VALUE", "write for example surface=DATASET")
        pairs[name] = value
    return pairs


def _groups(given: tuple[str, ...]) -> dict[str, set[str]]:
    groups: dict[str, set[str]] = {}
    for text in given:
        for name, value in _pairs((text,)).items():
            groups.setdefault(name, set()).add(value)
    return groups


def _figures(result: dict[str, Any]) -> None:
    flat: list[tuple[str, object]] = []
    for key, value in result.items():
        if isinstance(value, dict):
            flat += [(f"{key} {name}", inner) for name, inner in value.items()]
        elif isinstance(value, list):
            flat.append((key, " to ".join(f"{v:.3f}" for v in value)))
        else:
            flat.append((key, value))
    table("", ("figure", "value"), flat)
