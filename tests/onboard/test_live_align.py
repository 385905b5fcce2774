"""Alignment while flying: asked of a flight being written, bounded, told and not applied."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from calibration.rig import load_rig
from onboard import live_align
from onboard.cli.replay import replay
from onboard.config import load_onboard
from onboard.health import Health
from onboard.keep.flight import MANIFEST
from onboard.live_align import ALIGNED_RIG, MISALIGNED, AlignStage, differences
from onboard.live_flight import LiveFlight

RIG = Path(__file__).parents[2] / "calibration/rigs/cuav_picam_v2.toml"


def settings_at(folder: Path) -> Any:
    path = folder / "onboard.toml"
    path.write_text(
        f'[rig]\nfile = "{RIG}"\n[storage]\nroot = "{folder}"\n[survey]\nalign_every_s = 0.05\n'
    )
    return load_onboard(path)


def answer(turned: list[float], offset_s: float, sigma_s: float = 0.01) -> dict[str, Any]:
    mount = {"turned_deg": turned, "sigma_deg": [0.1, 0.1, 0.2]}
    return {
        "mount": mount,
        "clock": {"offset_s": offset_s, "sigma_s": sigma_s},
        "misfit_m": {"before": 2.0, "after": 0.7},
        "ties": 500,
    }


def stage(folder: Path) -> AlignStage:
    return AlignStage(settings_at(folder), lambda: None, Health())


def child(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(live_align, "align_command", lambda *_: [sys.executable, "-c", code])


@pytest.mark.parametrize(
    ("turned", "late_s", "sigma_s", "words"),
    [
        ([0.0, 0.0, 0.0], 0.0, 0.01, []),
        ([0.4, 0.0, 0.0], 0.02, 0.001, []),  # clear, and too small to matter
        ([0.0, 0.0, 0.55], 0.2, 0.1, []),  # large, and not clear
        ([1.0, 0.0, 0.0], 0.0, 0.01, ["+1.00 ± 0.10° about its right axis"]),
        ([0.0, 0.0, -2.0], -0.3, 0.02, ["-2.00 ± 0.20° about its forward", "-0.300 ± 0.020 s"]),
    ],
)
def test_only_what_is_clear_and_matters_is_told(
    turned: list[float], late_s: float, sigma_s: float, words: list[str]
) -> None:
    said = differences(answer(turned, load_rig(RIG).clock.offset_s + late_s, sigma_s), RIG)
    assert len(said) == len(words)
    assert all(word in text for word, text in zip(words, said, strict=True))


def test_it_is_told_once_and_taken_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = stage(tmp_path)
    offset_s = load_rig(RIG).clock.offset_s
    for turned, degraded in (([2.0, 0, 0], True), ([0.0, 0, 0], False)):
        child(monkeypatch, f"print({json.dumps(json.dumps(answer(turned, offset_s)))})")
        asked.ask(tmp_path, threading.Event())
        assert (MISALIGNED in asked._health.degraded) is degraded
    assert asked._health.gauges["align"]["ties"] == 500


def test_a_child_that_fails_or_hangs_does_no_harm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = stage(tmp_path)
    child(monkeypatch, "raise SystemExit('too few ties')")
    assert asked.ask(tmp_path, threading.Event()) is None
    monkeypatch.setattr(live_align, "LIMIT_S", 0.5)
    child(monkeypatch, "import time; time.sleep(600)")
    assert asked.ask(tmp_path, threading.Event()) is None
    assert asked._health.counts["align.unanswered"] == 2
    assert not asked._health.degraded


def test_the_stop_ends_the_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child(monkeypatch, "import time; time.sleep(600)")
    stop = threading.Event()
    flight = LiveFlight.__new__(LiveFlight)
    flight.folder, flight.counts = tmp_path, {"placed": 50}
    asked = AlignStage(settings_at(tmp_path), lambda: flight, Health())
    thread = threading.Thread(target=asked.run, args=(stop,))
    thread.start()
    time.sleep(1.0)
    stop.set()
    thread.join(10.0)
    assert not thread.is_alive()


@pytest.mark.real_data
def test_a_flight_that_is_being_written_tells_its_clock(shared_data: Path, tmp_path: Path) -> None:
    """The real flight whose camera is 0.3 s early, its folder not closed: database and frames."""
    out = tmp_path / "flight"
    said = CliRunner().invoke(
        replay,
        [
            str(shared_data / "imagery/cuav_cmac_2018"), "--rig", str(RIG), "--out", str(out),
            "--model", "none", "--no-orthos", "--no-misfit", "--json",
        ],
    )  # fmt: skip
    assert said.exit_code == 0, said.output
    (out / MANIFEST).unlink()
    asked = stage(tmp_path)
    found = asked.ask(out, threading.Event())
    assert found is not None
    assert found["clock"]["offset_s"] == pytest.approx(-0.3, abs=0.1)
    assert "its clock is -0.2" in asked._health.degraded[MISALIGNED]
    assert load_rig(tmp_path / ALIGNED_RIG).clock.offset_s == pytest.approx(-0.3, abs=0.1)
