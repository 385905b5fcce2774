"""How well a flown model sees: from its own manifest where it is at hand, else assumed and said."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from groundsync.sensors import UNKNOWN_P_DETECT, sensors_of
from models.registry import open_model
from onboard.config import ModelSettings
from onboard.eyes import open_eyes


def flown(model_hash: str, model_name: str) -> Any:
    return SimpleNamespace(
        row=SimpleNamespace(model_hash=model_hash),
        header=SimpleNamespace(model_name=model_name),
        tracks=(SimpleNamespace(class_name="iron_oxide"),),
    )


def test_a_flight_with_the_zoos_model_is_judged_by_its_manifest() -> None:
    """Under the very name that flights carry."""
    eyes = open_eyes(ModelSettings(name="surface-rgb"), None)
    zoo = open_model("surface-rgb")
    sensors, notes = sensors_of([flown(zoo.hash, eyes.model_name)])
    assert notes == []
    known = zoo.manifest.detectability
    assert {name for _, name in sensors} == set(zoo.manifest.report_classes)
    assert {s.source for s in sensors.values()} == {known[name].source for name in known}


@pytest.mark.parametrize("name", ["nobodys-model 1", "surface-rgb 0.1.0"])
def test_a_model_of_another_hash_is_assumed_and_said(name: str) -> None:
    sensors, notes = sensors_of([flown("d" * 64, name)])
    assert [note for note in notes if "is not at hand" in note]
    assert [s.source for s in sensors.values()] == ["assumed"]
    assert UNKNOWN_P_DETECT == 0.5
