"""What people and machines read: results on stdout, progress on stderr, ``--json`` for machines."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gossan.errors import GossanError

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

PEOPLE = Console(stderr=True)


def json_option(function: F) -> F:
    """Adds ``--json`` to a click command, as the parameter ``as_json``."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object on stdout, for machines."
    )(function)


class Metres(click.FloatRange):
    """A finite number on the command line, metres mostly: no NaN, no infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the number, or fails as a usage error."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def emit(
    payload: Mapping[str, Any], as_json: bool, human: Callable[[], None] | None = None
) -> None:
    """Prints a result: one JSON object for machines, or what ``human`` prints for people."""
    if as_json or human is None:
        click.echo(json.dumps(plain(payload), indent=2, allow_nan=False))
    else:
        human()


def plain(value: Any) -> Any:
    """Returns a value with JSON's types only: numpy to lists, NaN and infinities to ``None``."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def say(text: str) -> None:
    """Prints a line for people on stderr."""
    PEOPLE.print(text, highlight=False, markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a table for people on stdout."""
    sheet = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        sheet.add_row(*[_cell(value) for value in row])
    Console(width=None if sys.stdout.isatty() else 140).print(sheet, markup=False)


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Yields the items, with a progress bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=PEOPLE, transient=True) as bar:
        known = len(items) if total is None and isinstance(items, Sized) else total
        yield from bar.track(items, description=label, total=known)


def report_error(error: GossanError) -> int:
    """Prints what went wrong and what to do on stderr; returns the exit code."""
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"  what to do: {error.hint}", err=True)
    return error.exit_code


def log_to_stderr(level: int = logging.INFO) -> None:
    """Sends the log to stderr, one event per line (for daemons; journald adds the time)."""
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)
