"""The units: valid, hardened, watched, and naming commands that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from gossan.cli import gossan

FOLDER = Path(__file__).resolve().parents[2] / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
LIMIT = 2.0

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def test_there_are_three():
    assert [unit.stem for unit in UNITS] == ["gossan-ground", "gossan-onboard", "gossan-uplink"]


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_verify_passes(unit, tmp_path):
    text = re.sub(r"ExecStart=\S+", "ExecStart=/bin/true", unit.read_text())
    (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_exposure_is_low(unit):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    found = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found.group(1)) <= LIMIT


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_is_watched_and_never_given_up(unit):
    lines = unit.read_text().splitlines()
    for line in ("Type=notify", "StartLimitIntervalSec=0", "Restart=always", "User=gossan"):
        assert line in lines
    assert any(line.startswith("WatchdogSec=") for line in lines)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_starts_a_command_that_exists(unit):
    words = re.search(r"ExecStart=(.*)", unit.read_text()).group(1).split()
    assert words[0] == "/opt/gossan/bin/gossan"
    context = click.Context(gossan)
    group = gossan.get_command(context, words[1])
    assert words[2] in group.list_commands(context)
