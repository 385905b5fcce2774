"""``gossan onboard doctor``: is everything ready to fly?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gossan.checks import report
from gossan.console import json_option, say


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
    from onboard.doctor import check_all, check_installation

    settings = None if config_path is None else load_onboard(config_path)
    code = report(check_installation() if settings is None else check_all(settings), as_json)
    if settings is None and not as_json:
        say("only the installation was checked: give --config for the rest")
    sys.exit(code)
