"""Alignment in flight: does the rig sit as calibrated? Asked now and then, with little effort.

The question is put to ``gossan calibration align`` in a process of its own, of lowest priority, on
the last frames of the flight that is being written: it can neither stop nor slow what records. Its
answer is told, not applied: what is found mid-flight is for the crew and for reprocessing.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onboard.config import OnboardSettings
from onboard.health import Health
from onboard.live_flight import LiveFlight

log = logging.getLogger(__name__)

STAGE = "align"
MISALIGNED = "rig_misaligned"
ALIGNED_RIG = "aligned.toml"
LAST_FRAMES = 40
LEAST_FRAMES = 12
LIMIT_S = 300.0
"""A child that takes longer is ended."""
TURN_S = 0.2
SURE = 3.0
"""A difference counts where it is this many σ of itself and …"""
MATTERS_DEG, MATTERS_S = 0.5, 0.03
"""… at least this large: 0.9 m from 100 m height, and 0.5 m at 15 m/s."""
AXES = ("about its right axis", "about its down axis", "about its forward axis")


class AlignStage:
    """Asks how the flight's rig sits, every so often while it flies.

    Args:
        settings: The daemon's settings; ``[survey] align_every_s`` says how often.
        flight: The flight that is recorded, if one is.
        health: Gets what was found.
    """

    def __init__(
        self,
        settings: OnboardSettings,
        flight: Callable[[], LiveFlight | None],
        health: Health,
    ) -> None:
        self._settings = settings
        self._flight = flight
        self._health = health
        self._due_s = time.monotonic() + settings.survey.align_every_s

    def run(self, stop: threading.Event) -> None:
        """Runs until the stop event."""
        while not stop.wait(TURN_S):
            self._health.beat(STAGE)
            flight = self._flight()
            if flight is None or time.monotonic() < self._due_s:
                continue
            self._due_s = time.monotonic() + self._settings.survey.align_every_s
            if flight.counts.get("placed", 0) >= LEAST_FRAMES:
                self.ask(flight.folder, stop)

    def ask(self, folder: Path, stop: threading.Event) -> dict[str, Any] | None:
        """Returns what the last frames of a flight say of its rig; ``None`` if they cannot tell."""
        out = self._settings.storage.root / ALIGNED_RIG
        command = align_command(self._settings, folder, out)
        try:
            code, answer, error = _run(command, stop, lambda: self._health.beat(STAGE))
        except OSError as failure:
            code, answer, error = -1, "", str(failure)
        if stop.is_set():
            return None
        if code != 0:
            self._health.count(f"{STAGE}.unanswered")
            self._health.event(STAGE, "info", "align_unanswered", error.strip()[-200:])
            return None
        found: dict[str, Any] = json.loads(answer)
        self._health.beat(STAGE, output=True)
        self._tell(found, out)
        return found

    def _tell(self, found: dict[str, Any], out: Path) -> None:
        clock = found["clock"]
        self._health.gauge("align", {k: found[k] for k in ("mount", "clock", "misfit_m", "ties")})
        news = differences(found, self._settings.rig.file)
        if news:
            text = f"{'; '.join(news)}: reprocess with {out}"
            self._health.degrade(STAGE, MISALIGNED, text, "warning")
        else:
            self._health.restore(STAGE, MISALIGNED)
        log.info("aligned ties=%d clock_s=%.3f", found["ties"], clock["offset_s"])


def align_command(settings: OnboardSettings, folder: Path, out: Path) -> list[str]:
    """Returns the command that puts the question, at lowest priority where ``nice`` is at hand."""
    command = [sys.executable, "-m", "gossan", "calibration", "align", str(folder)]
    command += ["--rig", str(settings.rig.file), "--last", str(LAST_FRAMES)]
    terrain = settings.terrain
    if terrain.dem is not None:
        command += ["--dem", str(terrain.dem)]
        command += ["--dem-datum", terrain.datum] if terrain.datum else []
        command += ["--dem-sigma", str(terrain.sigma_m)] if terrain.sigma_m is not None else []
    nice = shutil.which("nice")
    return [*([nice, "-n", "19"] if nice else []), *command, "--out", str(out), "--json"]


def differences(found: dict[str, Any], rig_file: Path) -> list[str]:
    """Returns in words what sits clearly otherwise than the rig says; empty where all is well."""
    from calibration.rig import load_rig

    rig = load_rig(rig_file)
    turned, sigma = (np.asarray(found["mount"][name]) for name in ("turned_deg", "sigma_deg"))
    news = [
        f"the camera is turned by {angle:+.2f} ± {s:.2f}° {axis}"
        for angle, s, axis in zip(turned, sigma, AXES, strict=True)
        if abs(angle) > max(SURE * s, MATTERS_DEG)
    ]
    late_s = found["clock"]["offset_s"] - rig.clock.offset_s
    if abs(late_s) > max(SURE * found["clock"]["sigma_s"], MATTERS_S):
        news.append(f"its clock is {late_s:+.3f} ± {found['clock']['sigma_s']:.3f} s off")
    return news


def _run(
    command: Sequence[str], stop: threading.Event, turn: Callable[[], None]
) -> tuple[int, str, str]:
    """Returns exit code, stdout and stderr; the child is ended at the limit and with the stop."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        end_s = time.monotonic() + LIMIT_S
        while True:
            turn()
            try:
                answer, error = child.communicate(timeout=TURN_S)
            except subprocess.TimeoutExpired:
                if stop.is_set() or time.monotonic() > end_s:
                    child.kill()
                    child.communicate()
                    return -1, "", f"no answer within {LIMIT_S:.0f} s"
            else:
                return child.returncode, answer, error
