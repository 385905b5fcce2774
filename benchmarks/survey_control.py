"""The control of `gossan bench survey`: the same network with permuted weights must fail it.

    python benchmarks/survey_control.py [--flights 4] [--first-seed 5001] [--out DIR]

Permutes the values of every large weight of the zoo's network (its distribution stays, what it
learned is gone), makes a model folder of it whose hashes are right, and flies the bench with it.
Exits 0 when the bench fails, as it must. Needs the `train` extra (onnx).
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from models.manifest import FileEntry, write_manifest
from models.registry import open_model

LEAST_VALUES = 64


def permute(source: Path, target: Path, seed: int = 1) -> int:
    """Writes an ONNX file with permuted weights; returns how many tensors were permuted."""
    graph = onnx.load(source)
    rng = np.random.default_rng(seed)
    permuted = 0
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim >= 2 and values.size >= LEAST_VALUES:
            shuffled = rng.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
            permuted += 1
    onnx.save(graph, target)
    return permuted


def control_model(folder: Path, name: str = "surface-rgb") -> Path:
    """Returns a model folder of the named model with permuted weights."""
    model = open_model(name)
    folder.mkdir(parents=True)
    cpu = next(file for file, entry in model.manifest.files.items() if entry.role == "cpu")
    if not permute(model.path / cpu, folder / cpu):
        raise SystemExit(f"{cpu} holds no weights to permute")
    digest = hashlib.sha256((folder / cpu).read_bytes()).hexdigest()
    files = {cpu: FileEntry(sha256=digest, role="cpu")}
    write_manifest(folder / "manifest.toml", model.manifest.model_copy(update={"files": files}))
    return folder


def main() -> int:
    """Flies the bench with the control and returns 0 where it failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flights", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=5001)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gossan-control-") as temp:
        model = control_model(Path(temp) / "permuted")
        command = [sys.executable, "-m", "gossan", "bench", "survey", "--model", str(model)]
        command += ["--flights", str(options.flights), "--first-seed", str(options.first_seed)]
        command += ["--out", str(options.out)] if options.out else []
        failed = subprocess.run(command, check=False).returncode == 1
    print("the control fails the bench, as it must" if failed else "THE CONTROL PASSES THE BENCH")
    return 0 if failed else 1


if __name__ == "__main__":
    sys.exit(main())
