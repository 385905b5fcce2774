"""``gossan groundsync doctor``: is this machine ready to be the office?"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from gossan.checks import report
from gossan.console import json_option


@click.command()
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="A project folder.")
@json_option
def doctor(data: Path | None, as_json: bool) -> None:
    """Is this machine ready to be the office?"""
    from groundsync.doctor import examine

    sys.exit(report(examine(data), as_json))
