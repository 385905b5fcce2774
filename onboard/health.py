"""How the daemon is: stage ages, counters and gauges, thread-safe, and the status file.

A *stage* is a thread with one loop; it beats at each turn, with or without work. One that works on
the same thing for longer than its limit is stuck: the watchdog is then no longer fed.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gossan.console import plain
from onboard.keep.health import HealthEvent

log = logging.getLogger(__name__)

Level = Literal["info", "warning", "error"]
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
STATUS = "status.json"
EVENTS_WAITING = 1000
REPEAT_S = 30.0
"""The same event (stage and code) is written once in so many seconds, with its count."""


@dataclass(slots=True)
class Stage:
    """One stage's pulse.

    Attributes:
        limit_s: Without a beat for longer than this it is stuck.
        beat_ns: Its last beat.
        output_ns: Its last finished piece of work; 0 before the first.
        done: How many it finished.
    """

    limit_s: float
    beat_ns: int
    output_ns: int = 0
    done: int = 0


@dataclass(slots=True)
class _Pending:
    """An event that is held back because it was written a moment ago."""

    written_ns: int
    held: int = 0


@dataclass
class Health:
    """Everything that is counted; every thread writes here, one reads.

    Attributes:
        counts: Drops, failures and other counters by name, ``stage.what``.
        gauges: Last values by name.
        degraded: What does not work now, by code, with the text for people.
    """

    counts: Counter[str] = field(default_factory=Counter)
    gauges: dict[str, Any] = field(default_factory=dict)
    degraded: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._stages: dict[str, Stage] = {}
        self._events: deque[HealthEvent] = deque(maxlen=EVENTS_WAITING)
        self._pending: dict[tuple[str, str], _Pending] = {}
        self._lock = threading.Lock()

    def add_stage(self, name: str, limit_s: float) -> None:
        """Adds a stage that must beat at least every ``limit_s`` seconds."""
        with self._lock:
            self._stages[name] = Stage(limit_s, time.monotonic_ns())

    def remove_stage(self, name: str) -> None:
        """Forgets a stage that has ended as it should."""
        with self._lock:
            self._stages.pop(name, None)

    def beat(self, stage: str, output: bool = False) -> None:
        """Notes that a stage turned its loop, and whether it finished something."""
        now = time.monotonic_ns()
        with self._lock:
            pulse = self._stages.get(stage)
            if pulse is not None:
                pulse.beat_ns = now
                if output:
                    pulse.output_ns = now
                    pulse.done += 1

    def count(self, name: str, n: int = 1) -> None:
        """Adds to a counter."""
        with self._lock:
            self.counts[name] += n

    def gauge(self, name: str, value: Any) -> None:
        """Sets a gauge."""
        with self._lock:
            self.gauges[name] = value

    def degrade(self, stage: str, code: str, text: str, level: Level = "error") -> None:
        """Says that something does not work; once per change, until `restore`."""
        with self._lock:
            news = self.degraded.get(code) != text
            self.degraded[code] = text
        if news:
            self.event(stage, level, code, text)

    def restore(self, stage: str, code: str) -> None:
        """Says that it works again."""
        with self._lock:
            known = self.degraded.pop(code, None)
        if known is not None:
            self.event(stage, "info", f"{code}_over")

    def event(self, stage: str, level: Level, code: str, text: str = "", count: int = 1) -> None:
        """Logs an event and queues it for the flight's health table.

        Overflow policy: the oldest waiting event is dropped; repeats within half a minute are
        counted into the next one.
        """
        now = time.monotonic_ns()
        with self._lock:
            key = (stage, code)
            pending = self._pending.get(key)
            if pending is not None and now - pending.written_ns < REPEAT_S * 1e9:
                pending.held += count
                return
            count += pending.held if pending is not None else 0
            self._pending[key] = _Pending(now)
            self._events.append(HealthEvent(now, stage, level, code, text, count))
        log.log(LEVELS[level], "%s stage=%s count=%d %s", code, stage, count, text)

    def put_event(self, event: HealthEvent | None) -> None:
        """Logs and queues an event that another room has made; ``None`` is no event."""
        if event is not None:
            level: Level = event.level if event.level in LEVELS else "warning"  # type: ignore[assignment]
            self.event(event.stage, level, event.code, event.text, event.count)

    def take_events(self) -> list[HealthEvent]:
        """Returns the events that wait to be written, oldest first."""
        with self._lock:
            events = list(self._events)
            self._events.clear()
        return events

    def stuck(self) -> list[str]:
        """Returns the stages that have not beaten within their limit."""
        now = time.monotonic_ns()
        with self._lock:
            return [
                name
                for name, stage in self._stages.items()
                if now - stage.beat_ns > stage.limit_s * 1e9
            ]

    def snapshot(self) -> dict[str, Any]:
        """Returns all of it for the status file."""
        now = time.monotonic_ns()
        with self._lock:
            stages = {
                name: {
                    "age_s": round((now - s.beat_ns) * 1e-9, 3),
                    "output_age_s": round((now - s.output_ns) * 1e-9, 3) if s.output_ns else None,
                    "done": s.done,
                }
                for name, s in self._stages.items()
            }
            return {
                "stages": stages,
                "counts": dict(sorted(self.counts.items())),
                "degraded": dict(self.degraded),
                **self.gauges,
            }


def write_status(path: Path, status: Mapping[str, Any]) -> None:
    """Writes the status file atomically; it is no record, so nothing is synced to disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(plain(status), indent=1, allow_nan=False), encoding="utf-8")
    partial.replace(path)


def read_status(path: Path) -> dict[str, Any]:
    """Returns the status file's content; empty where there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content
