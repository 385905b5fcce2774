"""Finding a model by folder or zoo name, and proving that its files are what the manifest says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from models.errors import DamagedModelError, ModelError
from models.manifest import Manifest, load_manifest

ZOO = Path(__file__).resolve().parent / "zoo"
DEFAULT = "surface-rgb"


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model whose files are verified.

    Attributes:
        path: The folder.
        manifest: Its manifest.
        hash: SHA-256 of ``manifest.toml``, which names the hashes of all other files.
    """

    path: Path
    manifest: Manifest
    hash: str

    def file(self, name: str) -> Path:
        """Returns the path of one of its files."""
        return self.path / name


@dataclass(frozen=True, slots=True)
class Check:
    """What became of one file's verification.

    Attributes:
        file: Its name.
        state: ``ok``, ``missing`` or ``wrong hash``.
        expected: The manifest's hash.
        found: The file's hash; empty where it is missing.
    """

    file: str
    state: str
    expected: str
    found: str


def open_model(name_or_path: str | Path) -> ModelFolder:
    """Returns a model, all its files verified.

    Args:
        name_or_path: A folder with a ``manifest.toml``, or the name of a zoo model.

    Raises:
        ModelError: There is no such model, or its manifest asks for what is not built.
        SettingsError: The manifest has refused keys or values.
        DamagedModelError: A file is missing or not what the manifest says.
    """
    path = find_model(name_or_path)
    manifest = load_manifest(path / "manifest.toml")
    for check in check_files(path, manifest):
        if check.state != "ok":
            raise DamagedModelError(
                f"{path / check.file}: {check.state}"
                + (
                    f", {check.found[:12]}… in place of {check.expected[:12]}…"
                    if check.found
                    else ""
                ),
                "copy the model again; flying with unknown weights is refused",
            )
    return ModelFolder(path, manifest, sha256(path / "manifest.toml"))


def find_model(name_or_path: str | Path) -> Path:
    """Returns the folder of a model, without looking into its files.

    A name without a separator is looked for in the zoo first, so that a stranger's folder of the
    same name in the working folder is never taken for it.
    """
    text = str(name_or_path)
    if "/" not in text and (ZOO / text / "manifest.toml").exists():
        return ZOO / text
    path = Path(text)
    if (path / "manifest.toml").exists():
        return path
    if path.suffix == ".onnx":
        raise ModelError(
            f"{path} is a bare ONNX file; its classes, GSD and scale are not known",
            "put it in a folder with a manifest.toml (docs/formats/model-manifest.md)",
        )
    raise ModelError(
        f"there is no model '{text}'",
        f"give a folder with a manifest.toml, or one of: {', '.join(zoo_names()) or 'none'}",
    )


def check_files(path: Path, manifest: Manifest) -> list[Check]:
    """Returns the state of each file that the manifest names."""
    checks = []
    for name, entry in manifest.files.items():
        file = path / name
        found = sha256(file) if file.is_file() else ""
        state = "missing" if not found else "ok" if found == entry.sha256 else "wrong hash"
        checks.append(Check(name, state, entry.sha256, found))
    return checks


def list_models(folder: Path = ZOO) -> list[tuple[Path, Manifest]]:
    """Returns the models in a folder of models, by name; their files are not verified."""
    return [(path.parent, load_manifest(path)) for path in sorted(folder.glob("*/manifest.toml"))]


def zoo_names() -> list[str]:
    """Returns the names of the zoo's models."""
    return [path.parent.name for path in sorted(ZOO.glob("*/manifest.toml"))]


def sha256(path: Path) -> str:
    """Returns the hash of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
