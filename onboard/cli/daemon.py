"""``gossan onboard run``, ``uplink``, ``status`` and ``config``: the drone's daemons."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import click

from gossan.console import emit, json_option, log_to_stderr, table
from gossan.errors import UserError

CONFIG = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The daemon's settings (TOML).",
)
STALE_S = 5.0


@click.command()
@CONFIG
@click.option("--once", is_flag=True, help="End after the first flight was closed.")
@click.option("--verbose", is_flag=True, help="Log more.")
def run(config_path: Path, once: bool, verbose: bool) -> None:
    """The daemon: record, place, scan, store, alert.

    Runs until SIGTERM or Ctrl-C. It never commands the aircraft.
    """
    _run("pipeline", config_path, once, verbose)


@click.command()
@CONFIG
@click.option("--once", is_flag=True, help="End when everything was receipted.")
@click.option("--verbose", is_flag=True, help="Log more.")
def uplink(config_path: Path, once: bool, verbose: bool) -> None:
    """The second daemon: send what is recorded to the office, alerts first."""
    _run("uplink", config_path, once, verbose)


@click.command()
@click.option("--root", type=click.Path(path_type=Path, file_okay=False), help="The storage root.")
@click.option(
    "--config", "config_path", type=click.Path(path_type=Path, dir_okay=False), help="Or settings."
)
@json_option
def status(root: Path | None, config_path: Path | None, as_json: bool) -> None:
    """What the daemon does right now, from the file it writes every second."""
    from onboard.health import STATUS, read_status

    if root is None:
        root = _root_of(config_path)
    state = read_status(root / STATUS)
    if not state:
        raise UserError(f"there is no {STATUS} in {root}", "is the daemon running with this root?")
    state["age_s"] = round(time.time() - float(state.get("t_utc_host_s", 0.0)), 1)
    if state["age_s"] > STALE_S:
        state["running"] = False
    emit(state, as_json, lambda: _show(state))


@click.group()
def config() -> None:
    """The settings of the daemon."""


@config.command("show")
@CONFIG
@click.option("--effective", is_flag=True, help="With all defaults and absolute paths.")
def show(config_path: Path, effective: bool) -> None:
    """Print the settings: as written, or as they take effect."""
    from gossan.settings import effective_toml
    from onboard.config import load_onboard

    settings = load_onboard(config_path)
    text = effective_toml(settings) if effective else config_path.read_text(encoding="utf-8")
    click.echo(text, nl=not text.endswith("\n"))


def _run(name: str, config_path: Path, once: bool, verbose: bool) -> None:
    from onboard.config import load_onboard
    from onboard.daemon import run_process

    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run_process(name, load_onboard(config_path), once)


def _root_of(config_path: Path | None) -> Path:
    from onboard.config import StorageSettings, load_onboard

    if config_path is None:
        return StorageSettings().root  # type: ignore[call-arg]
    return load_onboard(config_path).storage.root


def _show(state: dict[str, Any]) -> None:
    flight = state.get("flight") or state.get("last_flight") or {}
    vehicle = state.get("vehicle", {})
    rows: list[tuple[str, object]] = [
        ("daemon", f"{'running' if state['running'] else 'not running'}, {state['age_s']} s ago"),
        ("phase", state.get("phase")),
        ("flight", flight.get("flight_id", "none")),
        ("frames", _counts(flight, "frames", "kept", "placed", "scanned", "backlog")),
        ("found", _counts(flight, "detections", "alerts")),
        ("coverage %", flight.get("coverage_percent")),
        ("link", f"{vehicle.get('link')}, armed {vehicle.get('armed')}"),
        ("clock sigma s", vehicle.get("clock_sigma_s")),
        ("UTC", vehicle.get("utc_quality")),
        ("disk", flight.get("disk")),
        ("queues", _line(state.get("queues", {}))),
        ("counts", _line(state.get("counts", {}))),
    ]
    table("", ("", ""), rows)
    for name, stage in state.get("stages", {}).items():
        click.echo(f"  {name}: {stage['done']} done, turned {stage['age_s']} s ago")
    for code, text in state.get("degraded", {}).items():
        click.echo(f"  DEGRADED {code}: {text}")
    for text in state.get("texts", []):
        click.echo(f"  told: {text}")


def _counts(flight: dict[str, Any], *names: str) -> str:
    return ", ".join(f"{flight.get(name, 0)} {name}" for name in names)


def _line(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
