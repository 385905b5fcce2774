"""An exported model made ready to fly: INT8 and FP16 files, gates, temperatures, golden answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from models.dataset import Dataset, Sample, open_dataset
from models.evaluate import evaluate
from models.export import (
    FLOAT_FILE,
    GOLDEN_TILE_PX,
    INT8_FILE,
    predictor_of,
    with_files,
    write_golden,
)
from models.manifest import Detectability, Manifest, load_manifest, write_manifest
from models.predict import Predictor
from models.quantize import (
    Floats,
    Gates,
    Parity,
    Pixels,
    cut_tiles,
    judge,
    parity,
    quantize_cpu,
    write_half,
)
from models.settle import look, settle

CALIBRATION_TILES = 48
TILE_PX = 512
FLOAT32_FILE = "model_float32.onnx"


def harden(
    folder: Path,
    datasets: dict[str, str],
    held_out: dict[str, set[str]],
    method: str,
    alarms_per_km2: float,
    *,
    gates: Gates | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Returns parity and held-out figures per head; rewrites the folder's files and manifest.

    Tiles to calibrate on come from places that are not held out; gates, temperatures, thresholds
    and detectability from held-out places (from all where none is named for a head).

    Raises:
        GateError: The INT8 file loses too much; the folder keeps its float file only.
    """
    manifest = load_manifest(folder / "manifest.toml")
    float32 = folder / FLOAT32_FILE
    if not float32.exists():
        (folder / FLOAT_FILE).rename(float32)
    sets = {name: open_dataset(Path(path)) for name, path in datasets.items()}
    calibrate_on = {
        name: data.elsewhere(held_out.get(name, set())) or data.samples
        for name, data in sets.items()
    }
    judged = {
        name: data.at(held_out[name]) if name in held_out else data.samples
        for name, data in sets.items()
    }
    quantize_cpu(float32, folder / INT8_FILE, _tiles(calibrate_on), method=method)
    both = with_files(folder, manifest, {FLOAT32_FILE: "float", INT8_FILE: "cpu"})
    figures = [_parity(folder, both, name, judged[name]) for name in sets]
    for line in figures:
        say(f"INT8 against float, {line}")
    judge(figures, gates or Gates())
    settled = _settle(folder, both, sets, judged, alarms_per_km2)
    write_golden(folder, settled, _golden_tile(judged))
    write_half(float32, folder / FLOAT_FILE)
    final, measured = _measure(folder, settled, sets, judged)
    float32.unlink()
    roles = {INT8_FILE: "cpu", FLOAT_FILE: "float", final.golden.file: "golden"}
    write_manifest(folder / "manifest.toml", with_files(folder, final, roles))
    return {"parity": [asdict(p) for p in figures], "held_out": measured}


def _tiles(samples: dict[str, tuple[Sample, ...]]) -> list[Pixels]:
    tiles: list[Pixels] = []
    for own in samples.values():
        step = max(1, len(own) // CALIBRATION_TILES)
        images = [sample.pixels() for sample in own[::step][:CALIBRATION_TILES]]
        tiles += cut_tiles(images, TILE_PX, CALIBRATION_TILES // len(samples))
    return tiles


def _parity(folder: Path, manifest: Manifest, name: str, samples: tuple[Sample, ...]) -> Parity:
    head = manifest.heads[name]
    pair = [predictor_of(folder, manifest, role) for role in ("float", "cpu")]

    def answers() -> Iterator[tuple[Floats, Floats, Pixels]]:
        for sample in samples:
            image = sample.pixels()
            mask = sample.indices(len(head.classes), image.shape[:2])
            yield pair[0].logits(image)[name], pair[1].logits(image)[name], mask

    return parity(name, answers(), head.stride, len(head.classes))


def _settle(
    folder: Path,
    manifest: Manifest,
    sets: dict[str, Dataset],
    judged: dict[str, tuple[Sample, ...]],
    alarms_per_km2: float,
) -> Manifest:
    predictor = predictor_of(folder, manifest, "cpu")
    heads = dict(manifest.heads)
    for name, data in sets.items():
        looked = look(predictor, name, judged[name])
        gsd = data.settings.gsd_m
        head = settle(heads[name], looked, gsd, alarms_per_km2)
        heads[name] = head.model_copy(update={"gsd_m": gsd})
    return manifest.model_copy(update={"heads": heads})


def _measure(
    folder: Path,
    manifest: Manifest,
    sets: dict[str, Dataset],
    judged: dict[str, tuple[Sample, ...]],
) -> tuple[Manifest, dict[str, Any]]:
    """Returns the manifest with detectability, and the INT8 file's figures per head."""
    predictor: Predictor = predictor_of(folder, manifest, "cpu")
    measured: dict[str, Any] = {}
    known: dict[str, Detectability] = {}
    for name, data in sets.items():
        figures = evaluate(predictor, data, head=name, samples=judged[name])
        measured[name] = figures
        for kind, row in figures.get("by_class", {}).items():
            source = "simulated" if data.settings.simulated else data.settings.name
            known[kind] = Detectability(
                p_detect=round(row["found"] / max(row["planted"], 1), 4),
                p_detect_by_size_m2={
                    size: round(v, 4) for size, v in row["p_detect_by_size_m2"].items()
                },
                false_alarms_per_km2=round(row["false_alarms"] / figures["km2"], 2),
                source=f"{source}, held-out worlds, one look",
            )
    return manifest.model_copy(update={"detectability": known}), measured


def _golden_tile(judged: dict[str, tuple[Sample, ...]]) -> Pixels:
    image = next(iter(judged.values()))[0].pixels()
    tile = cut_tiles([image], min(GOLDEN_TILE_PX, *image.shape[:2]) // 32 * 32, 1)[0]
    return np.ascontiguousarray(tile)
