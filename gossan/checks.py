"""What a doctor says: one line per check, each with what to do where it is not well."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

import click

from gossan.console import emit
from gossan.errors import DamagedDataError, HardwareError, UserError

Level = Literal["ok", "warn", "fail"]
Kind = Literal["settings", "hardware", "damage"]

COLOURS: dict[Level, str] = {"ok": "green", "warn": "yellow", "fail": "red"}
EXIT_CODES: dict[Kind, int] = {
    "settings": UserError.exit_code,
    "hardware": HardwareError.exit_code,
    "damage": DamagedDataError.exit_code,
}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a doctor.

    Attributes:
        name: What was looked at.
        level: ``ok``, ``warn`` (works, something is lost) or ``fail``.
        detail: What was found, with its value.
        todo: What to do; empty where all is well.
        kind: Whose fault a failure is: what somebody gave, a device or link, damaged files.
    """

    name: str
    level: Level
    detail: str
    todo: str = ""
    kind: Kind = "settings"


def report(checks: Iterable[Check], as_json: bool) -> int:
    """Prints each check as it comes and returns the exit code: 0, or the gravest failure's."""
    seen = []
    for check in checks:
        seen.append(check)
        if not as_json:
            _show(check)
    code = max((EXIT_CODES[c.kind] for c in seen if c.level == "fail"), default=0)
    if as_json:
        emit({"ready": code == 0, "checks": [asdict(check) for check in seen]}, as_json)
    return code


def _show(check: Check) -> None:
    click.echo(f"{click.style(f'{check.level:>4}', fg=COLOURS[check.level])}  ", nl=False)
    click.echo(f"{check.name}: {check.detail}")
    if check.todo and check.level != "ok":
        click.echo(f"      -> {check.todo}")
