"""What a doctor says: one line per check, each with what to do where it is not well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from gossan.console import emit, table

Status = Literal["ok", "warn", "fail"]
SIGNS: dict[Status, str] = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        status: ``ok``, ``warn`` (works, but worse than it could), or ``fail``.
        detail: What was found, with its value.
        remedy: What to do; empty where all is well.
        exit_code: Of a failure: 1 the user's settings, 3 hardware or link, 4 damaged data.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""
    exit_code: int = 1


def report(checks: Sequence[Check], as_json: bool) -> int:
    """Prints the checks and returns the exit code: 0, or that of the gravest failure."""
    code = max((check.exit_code for check in checks if check.status == "fail"), default=0)
    rows = [(SIGNS[c.status], c.name, c.detail, c.remedy) for c in checks]
    payload = {"ready": code == 0, "checks": [asdict(check) for check in checks]}
    emit(payload, as_json, lambda: table("", ("", "check", "found", "what to do"), rows))
    return code
