"""Settings: TOML in, one validated frozen object out, unknown keys refused with a suggestion."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomlkit
from pydantic import BaseModel, ConfigDict, ValidationError

from gossan.errors import SettingsError


class Settings(BaseModel):
    """Base of every settings table: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


def load_settings(path: Path, kind: type[S]) -> S:
    """Returns the settings read from a TOML file.

    Args:
        path: The TOML file.
        kind: The settings class.

    Raises:
        SettingsError: The file is missing, is no TOML, or a key or value is refused; the message
            names file, line, key and value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"cannot read {path}: {error.strerror}", "check the path and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is not UTF-8 text", "save it as UTF-8 TOML") from error
    return parse_settings(text, kind, where=str(path))


def parse_settings(text: str, kind: type[S], where: str) -> S:
    """Returns the settings in a TOML text; ``where`` names it in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{where} is not valid TOML: {error}", "mend that line") from error
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        raise SettingsError(*_explain(error, kind, text, where)) from error


def effective_toml(settings: Settings) -> str:
    """Returns all settings, defaults included, as TOML text (``None`` values are left out)."""
    return tomlkit.dumps(settings.model_dump(mode="json", exclude_none=True))


def _explain(
    error: ValidationError, kind: type[Settings], text: str, where: str
) -> tuple[str, str]:
    """Returns message and hint for the first refused key or value."""
    refused = error.errors()
    unknown = [one for one in refused if one["type"] == "extra_forbidden"]
    first = (unknown or refused)[0]  # a misspelt key is also a missing one: name the misspelling
    loc = [str(part) for part in first["loc"]]
    key = ".".join(loc)
    place = f"{where}, line {_line_of(text, loc)}" if _line_of(text, loc) else where
    more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _keys_at(kind, loc[:-1])
        near = difflib.get_close_matches(loc[-1], known, n=1)
        hint = (
            f"did you mean '{near[0]}'?" if near else f"known keys here: {', '.join(sorted(known))}"
        )
        return f"{place}: unknown key '{key}'{more}", hint
    if first["type"] == "missing":
        return f"{place}: '{key}' is missing{more}", f"add '{loc[-1]}' to [{'.'.join(loc[:-1])}]"
    return f"{place}: '{key}' = {first['input']!r}: {first['msg']}{more}", "correct that value"


def _line_of(text: str, loc: list[str]) -> int | None:
    """Returns the 1-based line where the last key of ``loc`` stands, searching from its table."""
    names = [part for part in loc if not part.isdigit()]
    if not names:
        return None
    lines = text.splitlines()
    start = 0
    for i, line in enumerate(lines):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line)
        if header and header.group(1) in (".".join(names[:-1]), ".".join(names)):
            start = i
            if header.group(1) == ".".join(names):
                return i + 1
    pattern = re.compile(rf"\s*[\"']?{re.escape(names[-1])}[\"']?\s*=")
    return next((i + 1 for i in range(start, len(lines)) if pattern.match(lines[i])), None)


def _keys_at(kind: type[BaseModel], loc: list[str]) -> list[str]:
    """Returns the key names that the settings class knows at a location."""
    current: Any = kind
    for part in loc:
        field = getattr(current, "model_fields", {}).get(part)
        annotation = field.annotation if field else current
        options = [annotation, *get_args(annotation)]
        nested = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        current = nested[0] if nested else current
    return [field.alias or name for name, field in current.model_fields.items()]
