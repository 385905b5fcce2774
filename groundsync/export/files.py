"""Writing an exported file: whole or not at all."""

from __future__ import annotations

from pathlib import Path

from groundsync.errors import ExportError


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file beside its place, then renames it there.

    Raises:
        ExportError: The folder cannot be written to.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        raise ExportError(
            f"cannot write {path}: {error.strerror or error}", "check the folder and its space"
        ) from error
