"""The bench: every stage runs beside its floor, the machine is named, absent parts are told."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from onboard.bench import bench, machine, measure
from onboard.bench_stages import STAGES


@pytest.mark.parametrize("name", [n for n in STAGES if n not in ("inference", "ortho cubic")])
def test_stage_and_floor_both_do_their_work(name: str) -> None:
    timing = measure(name, STAGES[name], "surface-rgb", 1)
    assert timing.stage == name
    assert timing.ms > 0
    assert timing.floor_ms > 0
    assert timing.ratio > 0


def test_json_names_machine_and_ratio() -> None:
    result = CliRunner().invoke(bench, ["--json", "--repeat", "1", "--stage", "memory copy"])
    assert result.exit_code == 0, result.output
    payload = json.loads(result.stdout)
    assert payload["machine"]["processor"]
    assert payload["machine"]["cores"] >= 1
    (row,) = payload["stages"]
    assert set(row) == {"stage", "ms", "floor", "floor_ms", "ratio", "about"}


def test_what_cannot_be_measured_is_told() -> None:
    args = ["--json", "--repeat", "1", "--stage", "inference", "--model", "no-such-model"]
    result = CliRunner().invoke(bench, args)
    assert result.exit_code == 0, result.output
    payload = json.loads(result.stdout)
    assert payload["stages"] == []
    assert payload["missing"][0]["stage"] == "inference"
    assert payload["missing"][0]["why"]


def test_unknown_stage_is_a_usage_error() -> None:
    assert CliRunner().invoke(bench, ["--stage", "flying"]).exit_code == 2


def test_machine_has_versions() -> None:
    assert machine()["numpy"]
