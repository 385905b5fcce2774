"""Model folders: found by name or path, refused where a file is not what the manifest says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from gossan.errors import SettingsError
from models import cli
from models.errors import DamagedModelError, ModelError
from models.manifest import load_manifest, write_manifest
from models.registry import ZOO, list_models, open_model, sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ZOO / "surface-rgb", tmp_path / "mine"))


def test_the_zoo_is_whole_and_small():
    names = {manifest.name for _, manifest in list_models()}
    assert "surface-rgb" in names
    for path, _ in list_models():
        model = open_model(path.name)
        assert model.path == path
        assert model.hash == sha256(path / "manifest.toml")
        card = (path / "CARD.md").read_text(encoding="utf-8").lower()
        assert "trained on" in card
        assert "simulated" in card or "composed" in card
    assert sum(f.stat().st_size for f in ZOO.rglob("*") if f.is_file()) < 10e6


def test_a_changed_byte_is_refused_by_name(folder):
    path = folder / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedModelError, match=r"model\.onnx: wrong hash") as caught:
        open_model(folder)
    assert caught.value.exit_code == 4
    assert caught.value.hint


def test_a_missing_file_is_refused_by_name(folder):
    (folder / "golden.npz").unlink()
    with pytest.raises(DamagedModelError, match=r"golden\.npz: missing"):
        open_model(folder)


def test_verify_shows_each_file_and_fails_for_a_truncated_one(folder):
    runner = CliRunner()
    assert runner.invoke(cli.verify, [str(folder), "--json"]).exit_code == 0
    path = folder / "model.onnx"
    path.write_bytes(path.read_bytes()[:1000])
    result = runner.invoke(cli.verify, [str(folder), "--json"])
    assert isinstance(result.exception, DamagedModelError)
    assert '"state": "wrong hash"' in result.output


def test_a_strangers_folder_does_not_take_the_zoos_name(folder, tmp_path, monkeypatch):
    folder.rename(tmp_path / "surface-rgb")
    monkeypatch.chdir(tmp_path)
    assert open_model("surface-rgb").path == ZOO / "surface-rgb"
    assert open_model("./surface-rgb").path == Path("surface-rgb")


@pytest.mark.parametrize(
    ("name", "message"),
    [("no-such-model", "there is no model"), ("net.onnx", "bare ONNX file")],
)
def test_what_is_no_model_is_refused_with_a_hint(name, message):
    with pytest.raises(ModelError, match=message) as caught:
        open_model(name)
    assert "manifest.toml" in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('decoder = "dense"', 'decoder = "yolox"', ModelError, "decoder 'yolox', which is not"),
        ("gsd_m = 0.1\n", "gsd_m = -0.1\n", SettingsError, "gsd_m"),
        ('bands = ["red"', 'bnads = ["red"', SettingsError, "unknown key 'bnads'"),
        ("schema_version = 1", "schema_version = 7", SettingsError, "schema_version"),
        (
            "[heads.anomaly.least_probability]",
            "[heads.anomaly.least_probability]\ngold = 0.5",
            ModelError,
            "'gold'",
        ),
        ('[files."golden.npz"]', '[files."../golden.npz"]', ModelError, "not a plain"),
        ("halo_px = 32", "halo_px = 20", ModelError, "halo"),
    ],
)
def test_a_manifest_that_asks_for_what_cannot_be_is_refused(folder, old, new, error, message):
    path = folder / "manifest.toml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(error, match=message):
        open_model(folder)


def test_a_manifest_survives_writing_and_reading(folder, tmp_path):
    manifest = load_manifest(folder / "manifest.toml")
    write_manifest(tmp_path / "again.toml", manifest)
    assert load_manifest(tmp_path / "again.toml") == manifest
