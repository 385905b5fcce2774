"""The two processes of a drone: what they are called, how they run, stop and are watched."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from gossan.errors import GossanError, SettingsError
from gossan.notify import sd_notify, watchdog_s
from onboard.config import OnboardSettings
from onboard.pipeline import Pipeline

log = logging.getLogger(__name__)

UPLINK_STATE = ".uplink"


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table.

    Attributes:
        name: Its name, also the command's.
        unit: Its systemd unit.
        main: Runs until the stop event.
    """

    name: str
    unit: str
    main: Callable[[OnboardSettings, threading.Event, bool], None]


class Watchdog:
    """Feeds systemd's watchdog while no stage is stuck.

    Args:
        stuck: Names the stuck stages.
        status: One line for ``systemctl status``.
        interval_s: systemd's interval; 0 for none.
        now_s: The monotonic clock.
        notify: Sends lines to systemd.
    """

    def __init__(
        self,
        stuck: Callable[[], list[str]],
        status: Callable[[], str],
        interval_s: float | None = None,
        now_s: Callable[[], float] = time.monotonic,
        notify: Callable[..., bool] = sd_notify,
    ) -> None:
        self._stuck = stuck
        self._status = status
        interval = watchdog_s() if interval_s is None else interval_s
        self._every_s = min(interval / 3, 1.0) if interval > 0 else 1.0
        self._now_s = now_s
        self._notify = notify
        self._fed_s = float("-inf")
        self.starved = 0

    def turn(self) -> None:
        """Feeds it when due; a stuck stage leaves it hungry, and systemd starts us again."""
        now = self._now_s()
        if now - self._fed_s < self._every_s:
            return
        self._fed_s = now
        stuck = self._stuck()
        if stuck:
            self.starved += 1
            log.error("stages_stuck stages=%s", ",".join(stuck))
            self._notify(f"STATUS=stuck: {', '.join(stuck)}")
            return
        self._notify("WATCHDOG=1", f"STATUS={self._status()}")


def run_pipeline(settings: OnboardSettings, stop: threading.Event, once: bool = False) -> None:
    """Runs the pipeline until ``stop``, or with ``once`` until its first flight was closed."""
    pipeline = Pipeline(settings, stop, once=once)
    watchdog = Watchdog(pipeline.health.stuck, lambda: status_line(pipeline))
    sd_notify("READY=1")
    try:
        pipeline.run(watchdog.turn)
    finally:
        sd_notify("STOPPING=1")


def run_uplink(settings: OnboardSettings, stop: threading.Event, once: bool = False) -> None:
    """Runs the uplink until ``stop``, or with ``once`` until everything was receipted."""
    from onboard.keep.uplink import UplinkTask  # its libraries are not the pipeline's
    from onboard.keep.uplink import run_uplink as send

    wanted = settings.uplink
    if not wanted.url:
        raise SettingsError("[uplink] url is empty", "name the ground server, or stop this unit")
    task = UplinkTask(
        flights_root=settings.storage.root,
        state_dir=settings.storage.root / UPLINK_STATE,
        url=wanted.url,
        token=_secret(wanted.token_file),
        server_key=_secret(wanted.server_key_file),
        max_kbit_s=wanted.max_kbit_s,
    )
    watchdog = Watchdog(list, lambda: "sending")
    sd_notify("READY=1")
    try:
        send(task, stop, once, alive=watchdog.turn)
    finally:
        sd_notify("STOPPING=1")


def _secret(path: Path | None) -> str:
    """Returns the one line of a secret's file; empty where none is named."""
    if path is None:
        return ""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"cannot read {path}: {error}", "check [uplink] and the file"
        ) from error


PROCESSES: dict[str, Process] = {
    "pipeline": Process("pipeline", "gossan-onboard.service", run_pipeline),
    "uplink": Process("uplink", "gossan-uplink.service", run_uplink),
}
"""What runs on a drone."""


def run_process(name: str, settings: OnboardSettings, once: bool = False) -> None:
    """Runs one line of the process table in this process until SIGTERM or SIGINT.

    Raises:
        GossanError: It cannot start with these settings.
    """
    stop = threading.Event()
    restore = _on_signals(stop)
    log.info("process_start name=%s", name)
    try:
        PROCESSES[name].main(settings, stop, once)
    except GossanError as error:
        sd_notify(f"STATUS={error}")
        raise
    finally:
        restore()
        log.info("process_end name=%s", name)


def status_line(pipeline: Pipeline) -> str:
    """Returns one line for ``systemctl status``."""
    flight = pipeline.flight
    if flight is None:
        return f"{pipeline.phase}"
    counts = flight.counts
    return (
        f"{pipeline.phase} {flight.flight_id}: {counts.get('frames', 0)} frames, "
        f"{counts.get('placed', 0)} placed, {counts.get('scanned', 0)} scanned, "
        f"{counts.get('alerts', 0)} alerts"
    )


def _on_signals(stop: threading.Event) -> Callable[[], None]:
    """Sets the stop event on SIGTERM and SIGINT; returns what puts the old handlers back."""

    def handle(number: int, _frame: FrameType | None) -> None:
        log.info("signal name=%s", signal.Signals(number).name)
        stop.set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, handle) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore
