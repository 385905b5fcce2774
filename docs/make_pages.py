"""Writes docs/commands.md from the commands themselves; a test keeps the page up to date."""

from __future__ import annotations

from pathlib import Path

import click

from gossan import cli

PAGE = Path(__file__).parent / "commands.md"

HEAD = """# Commands

This page is written by `python docs/make_pages.py` from the commands themselves.

Every command prints its result on stdout (`--json`: one JSON object for machines) and its progress
on stderr. Exit codes: 0 ok, 1 something given cannot be used, 2 usage, 3 hardware or link,
4 damaged data, 5 not built yet. Flags and doubts about single frames never change the exit code.
"""


def page() -> str:
    """Returns the page: a section per group, a paragraph per command, a row per option."""
    parts = [HEAD]
    for name, (text, mounts) in cli.GROUPS.items():
        parts.append(f"\n## gossan {name}\n\n{text}\n")
        group = cli.MountedGroup(name, text, mounts)
        parts += [_section(f"gossan {name} {command}", group, command) for command in mounts]
    parts.append("\n## Across the floors\n")
    parts += [_section(f"gossan {command}", cli.gossan, command) for command in cli.TOP]
    bench = cli.MountedGroup("bench", "", cli.BENCHES)
    parts += [_section(f"gossan bench {command}", bench, command) for command in cli.BENCHES]
    return "".join(parts)


def _section(title: str, group: click.Group, name: str) -> str:
    context = click.Context(group)
    command = group.get_command(context, name)
    assert command is not None, title  # noqa: S101
    usage = " ".join(command.collect_usage_pieces(click.Context(command)))
    lines = [f"\n### {title}\n", f"\n{_prose(command.help or '')}\n", f"\n`{title} {usage}`\n"]
    rows = [_row(p) for p in command.params if isinstance(p, click.Option)]
    if rows:
        lines += ["\n| option | meaning |\n|---|---|\n", *rows]
    return "".join(lines)


def _row(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    kind = "" if option.is_flag else option.make_metavar(click.Context(click.Command("x")))
    return f"| {_cell(f'{names} {kind}')} | {_cell(option.help or '')} |\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _prose(text: str) -> str:
    return "\n".join(line.strip() for line in text.replace("\b", "").strip().splitlines())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
