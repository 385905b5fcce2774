"""From a trained checkpoint to a model folder: float file, INT8 file, golden answer, manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.manifest import FileEntry, Golden, Head, Manifest, write_manifest
from models.predict import Predictor
from models.registry import ModelFolder, sha256
from models.runtime import Runtime

Pixels = NDArray[np.uint8]

FLOAT_FILE, INT8_FILE = "model_float.onnx", "model.onnx"
GOLDEN_TILE_PX = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """What a manifest says of a model besides its files.

    Attributes:
        name: The model's name.
        version: Its version.
        gsd_m: Ground sample distance that images are brought to.
        licence: Of the weights.
        trained_on: One line per data set.
        not_for: One line per use to keep away from.
    """

    name: str
    version: str
    gsd_m: float
    licence: str = "Apache-2.0"
    trained_on: tuple[str, ...] = ()
    not_for: tuple[str, ...] = ()


def start_folder(folder: Path, heads: dict[str, Head], identity: Identity) -> Manifest:
    """Writes the manifest of a folder that holds only the float file; returns it."""
    manifest = Manifest(
        name=identity.name,
        version=identity.version,
        gsd_m=identity.gsd_m,
        heads=heads,
        licence=identity.licence,
        trained_on=identity.trained_on,
        not_for=identity.not_for,
        files={FLOAT_FILE: FileEntry(sha256=sha256(folder / FLOAT_FILE), role="float")},
    )
    write_manifest(folder / "manifest.toml", manifest)
    return manifest


def predictor_of(folder: Path, manifest: Manifest, role: str) -> Predictor:
    """Returns a CPU predictor on one of the folder's files (the folder is in the making)."""
    return Predictor(Runtime(ModelFolder(folder, manifest, ""), "cpu", None, role))


def with_files(folder: Path, manifest: Manifest, roles: dict[str, str]) -> Manifest:
    """Returns the manifest naming these files (name: role) with their hashes as they lie there."""
    files = {
        name: FileEntry.model_validate({"sha256": sha256(folder / name), "role": role})
        for name, role in roles.items()
    }
    return manifest.model_copy(update={"files": files})


def write_golden(folder: Path, manifest: Manifest, tile: Pixels) -> None:
    """Writes the golden tile and the logits of the folder's CPU file on it."""
    predictor = predictor_of(folder, manifest, "cpu")
    answers = predictor.runtime.run(np.ascontiguousarray(tile))
    arrays: dict[str, Any] = {name: answer.astype(np.float16) for name, answer in answers.items()}
    np.savez_compressed(folder / Golden().file, pixels=tile, **arrays)


def default_heads(sizes: dict[str, tuple[str, ...]], strides: dict[str, int]) -> dict[str, Head]:
    """Returns manifest heads for trained outputs: ``anomaly`` reports and is experimental."""
    heads = {}
    for name, classes in sizes.items():
        told = classes[1:] if name == "anomaly" else ()
        heads[name] = Head(
            output=name,
            stride=strides[name],
            classes=classes,
            report=told,
            threshold=dict.fromkeys(told, 0.5),
            experimental=name == "anomaly",
        )
    return heads
