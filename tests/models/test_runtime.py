"""The engine: named when missing, silent on stdout, judged by the golden answer."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from models import runtime
from models.errors import EngineMissing, ModelError, ProviderError
from models.export import with_files
from models.manifest import load_manifest, write_manifest
from models.registry import ZOO, open_model
from models.runtime import Runtime, probe_apart, probe_here


@pytest.fixture(scope="module")
def model():
    return open_model("surface-rgb")


@pytest.mark.parametrize("shell", [None, types.ModuleType("onnxruntime")], ids=["none", "empty"])
def test_a_missing_engine_names_the_extras(model, monkeypatch, shell):
    monkeypatch.setitem(sys.modules, "onnxruntime", shell)
    with pytest.raises(EngineMissing) as caught:
        Runtime(model)
    assert "gossan[cpu]" in caught.value.hint
    assert "gossan[gpu]" in caught.value.hint


def test_without_a_driver_the_cpu_is_taken_without_asking(model, monkeypatch):
    monkeypatch.setattr(runtime, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(runtime, "probe_apart", None)
    assert Runtime(model).provider == "cpu"


def test_a_driver_whose_providers_fail_leaves_the_cpu(model, monkeypatch):
    tried = []

    def fail(_, provider):
        tried.append(provider)
        return runtime.Probe(provider, False, "no")

    fake = types.SimpleNamespace(
        get_available_providers=lambda: list(runtime.PROVIDERS.values()), InferenceSession=None
    )
    monkeypatch.setattr(runtime, "has_nvidia_driver", lambda: True)
    monkeypatch.setattr(runtime, "engine", lambda: fake)
    monkeypatch.setattr(runtime, "probe_apart", fail)
    assert Runtime(model).provider == "cpu"
    assert tried == ["tensorrt", "cuda"]


def test_the_cpu_gives_the_golden_answer_in_a_process_of_its_own(model):
    probe = probe_apart(model, "cpu")
    assert probe.ok, probe.detail


def test_a_network_that_answers_otherwise_fails_its_probe(model, tmp_path):
    folder = Path(shutil.copytree(ZOO / "surface-rgb", tmp_path / "m"))
    with np.load(folder / "golden.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["anomaly"] = arrays["anomaly"] + 1
    np.savez(folder / "golden.npz", **arrays)
    manifest = load_manifest(folder / "manifest.toml")
    roles = {name: entry.role for name, entry in manifest.files.items()}
    write_manifest(folder / "manifest.toml", with_files(folder, manifest, roles))
    assert not probe_here(open_model(folder), "cpu").ok


def test_a_provider_that_is_not_there_is_refused_not_replaced(model):
    if "CUDAExecutionProvider" in runtime.engine().get_available_providers():
        pytest.skip("this machine has the CUDA provider")
    with pytest.raises(ProviderError, match="cuda") as caught:
        Runtime(model, "cuda")
    assert caught.value.exit_code == 3


def test_an_unknown_provider_is_refused(model):
    with pytest.raises(ModelError, match="tpu"):
        Runtime(model, "tpu")


def test_nothing_is_printed_on_stdout(model, capfd):
    Runtime(model, "cpu", 1).run(np.zeros((256, 256, 3), np.uint8))
    assert capfd.readouterr().out == ""


def test_native_chatter_is_kept_off_stdout(capfd):
    import os

    with runtime._stdout_to_stderr():
        os.write(1, b"banner\n")
    out, err = capfd.readouterr()
    assert out == ""
    assert "banner" in err
