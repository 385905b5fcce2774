"""One health event: what was degraded, dropped or mended, and how often."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HealthEvent:
    """Something about the machine that a person should be able to look up later.

    Attributes:
        t_mono_ns: Host monotonic time.
        stage: Where it happened: ``capture``, ``scan``, ``keep``, ``link``, …
        level: ``info``, ``warning`` or ``error``.
        code: Short documented code, ``disk_low`` for example.
        text: One line for people.
        count: How many things it concerns (dropped frames, say).
    """

    t_mono_ns: int
    stage: str
    level: str
    code: str
    text: str = ""
    count: int = 1
