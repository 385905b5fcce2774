"""What is undocumented fails: commands, settings, formats, tables, MAVLink messages, links."""

from __future__ import annotations

import re
import runpy
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from calibration.rig import RigTable
from groundsync.prior.settings import Priors
from groundsync.settings import ProjectSettings
from models.manifest import Manifest
from onboard.config import OnboardSettings
from onboard.keep import flight as flight_folder
from onboard.keep.schema import migrate
from onboard.mavlink_send import ALLOWED_MESSAGES
from onboard.sources.telemetry import HANDLERS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

SETTINGS = [
    (OnboardSettings, "formats/onboard-toml.md"),
    (ProjectSettings, "formats/project-toml.md"),
    (Priors, "formats/priors.md"),
    (Manifest, "formats/model-manifest.md"),
    (RigTable, "formats/rig.md"),
]
FOLDER_PAGES = ("calibration", "models", "onboard", "groundsync", "simulator", "sources", "axes")


def keys_of(kind: type[BaseModel]) -> Iterator[str]:
    """Yields all key names of a settings class, nested tables included."""
    for name, field in kind.model_fields.items():
        yield field.alias or name
        for part in _nested(field.annotation):
            yield from keys_of(part)


def _nested(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _nested(part)


def words(page: str) -> set[str]:
    return set(re.findall(r"[A-Za-z0-9_]+", (DOCS / page).read_text(encoding="utf-8")))


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    script = runpy.run_path(str(DOCS / "make_pages.py"))
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == script["page"](), (
        "run: python docs/make_pages.py"
    )


def test_the_pictures_are_what_the_code_draws() -> None:
    script = runpy.run_path(str(DOCS / "make_pictures.py"))
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    for name, draw in script["PICTURES"].items():
        kept = (DOCS / "pictures" / f"{name}.svg").read_text(encoding="utf-8")
        assert kept == draw(), "run: python docs/make_pictures.py"
        assert f"pictures/{name}.svg" in pages, f"{name}.svg is shown on no page"


@pytest.mark.parametrize(("kind", "page"), SETTINGS, ids=[k.__name__ for k, _ in SETTINGS])
def test_every_setting_is_documented(kind: type[BaseModel], page: str) -> None:
    assert sorted(set(keys_of(kind)) - words(page)) == []


def test_every_table_and_column_of_the_flight_database_is_documented(tmp_path: Path) -> None:
    migrate(tmp_path / "flight.db")
    connection = sqlite3.connect(tmp_path / "flight.db")
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    names = {name for (name,) in tables if not name.startswith(("_", "sqlite"))}
    columns = {row[1] for name in names for row in connection.execute(f"PRAGMA table_info({name})")}
    connection.close()
    assert sorted((names | columns) - words("formats/flight-db.md")) == []


def test_every_file_of_the_flight_folder_is_documented() -> None:
    page = (DOCS / "formats" / "flight-folder.md").read_text(encoding="utf-8")
    parts = ("HEADER", "DATABASE", "TELEMETRY", "POSES", "COVERAGE", "SEGMENTS", "MANIFEST", "RIG")
    names = [getattr(flight_folder, part) for part in parts]
    assert [name for name in (*names, "frames/", "chips/") if name not in page] == []


def test_every_mavlink_message_is_documented() -> None:
    assert sorted((set(ALLOWED_MESSAGES) | set(HANDLERS)) - words("mavlink.md")) == []


def test_every_page_is_reached_from_the_index_and_no_link_is_broken() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    pages = {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")} - {"README.md"}
    assert sorted(page for page in pages if f"({page})" not in index) == []
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("folder", FOLDER_PAGES)
def test_every_folder_has_a_page(folder: str) -> None:
    assert (DOCS / f"{folder}.md").is_file()
