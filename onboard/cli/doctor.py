"""``gossan onboard doctor``: is everything ready to fly?"""

from __future__ import annotations

import sys
from pathlib import Path

import click
from click import style

from gossan.console import emit, json_option, say

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The daemon's settings; without them only the installation is checked.",
)
@json_option
def doctor(config_path: Path | None, as_json: bool) -> None:
    """Is everything ready to fly? Each line says ok, warn or fail, and what to do.

    Exit code 3 where a device or link failed, 1 where settings did.
    """
    from onboard.config import load_onboard
    from onboard.doctor import Check, check_all, check_installation, exit_code

    settings = None if config_path is None else load_onboard(config_path)
    checks: list[Check] = []
    for check in check_installation() if settings is None else check_all(settings):
        checks.append(check)
        if not as_json:
            _show(check.name, check.level, check.detail, check.todo)
    code = exit_code(checks)
    payload = {
        "ready": code == 0,
        "checks": [
            {"name": c.name, "level": c.level, "detail": c.detail, "todo": c.todo, "kind": c.kind}
            for c in checks
        ],
    }
    if as_json:
        emit(payload, as_json)
    elif settings is None:
        say("only the installation was checked: give --config for the rest")
    sys.exit(code)


def _show(name: str, level: str, detail: str, todo: str) -> None:
    mark = style(f"{level:>4}", fg=COLOURS[level])
    click.echo(f"{mark}  {name}: {detail}")
    if todo and level != "ok":
        click.echo(f"      -> {todo}")
