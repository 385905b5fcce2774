"""Tells stored alerts to every listener, merged to one text per interval."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from onboard.records import Alert, Track
from onboard.tell.policy import merged_text

log = logging.getLogger(__name__)

WAITING_LIMIT = 500


class Voice(Protocol):
    """Somebody who can be told."""

    interval_s: float
    """At most one text in so many seconds; what comes in between is merged."""

    def say(self, severity: int, text: str, alerts: list[Alert], tracks: list[Track]) -> bool:
        """Says one text about these alerts; returns whether it was sent."""


@dataclass
class _Line:
    """One voice and what it still has to say."""

    voice: Voice
    waiting: deque[tuple[Alert, Track | None]] = field(
        default_factory=lambda: deque(maxlen=WAITING_LIMIT)
    )
    last_s: float = float("-inf")


class Teller:
    """Holds stored alerts until each voice has said them; used by one thread.

    Args:
        voices: Who is told, the one that matters most first. One that cannot be reached gets its
            alerts later, merged.
        on_told: Called with an alert's id and the time (monotonic ns) when the first voice has
            said it.
    """

    def __init__(self, voices: list[Voice], on_told: Callable[[int, int], None]) -> None:
        self._lines = [_Line(voice) for voice in voices]
        self._on_told = on_told
        self._untold: set[int] = set()
        self.texts: deque[str] = deque(maxlen=20)
        self.dropped = 0

    @property
    def waiting(self) -> int:
        """Alerts that some voice still has to say."""
        return max((len(line.waiting) for line in self._lines), default=0)

    def add(self, alert: Alert, track: Track | None) -> None:
        """Takes an alert whose row is committed. Overflow policy: the oldest is not said."""
        self._untold.add(alert.alert_id)
        for line in self._lines:
            self.dropped += len(line.waiting) == WAITING_LIMIT
            line.waiting.append((alert, track))

    def step(self, now_s: float | None = None) -> int:
        """Lets every voice say what it may by now; returns how many alerts were told first."""
        now_s = time.monotonic() if now_s is None else now_s
        return sum(self._speak(line, now_s) for line in self._lines)

    def _speak(self, line: _Line, now_s: float) -> int:
        if not line.waiting or now_s - line.last_s < line.voice.interval_s:
            return 0
        alerts = [alert for alert, _ in line.waiting]
        tracks = [track for _, track in line.waiting if track is not None]
        text = merged_text(alerts, tracks)
        line.last_s = now_s
        if not line.voice.say(min(a.severity for a in alerts), text, alerts, tracks):
            return 0
        line.waiting.clear()
        if line is self._lines[0]:
            self.texts.append(text)
        first = [alert.alert_id for alert in alerts if alert.alert_id in self._untold]
        self._untold.difference_update(first)
        for alert_id in first:
            self._on_told(alert_id, time.monotonic_ns())
        return len(first)


class ConsoleVoice:
    """Writes alerts to the log, one line each moment that has any."""

    interval_s = 0.0

    def say(
        self,
        severity: int,
        text: str,
        alerts: list[Alert],
        tracks: list[Track],  # noqa: ARG002
    ) -> bool:
        """Logs the text."""
        log.warning("alert severity=%d alerts=%d text=%s", severity, len(alerts), text)
        return True
