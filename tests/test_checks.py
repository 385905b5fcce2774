"""What a doctor's checks add up to."""

from __future__ import annotations

import json

import pytest

from gossan.checks import Check, Kind, Level, report


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ([("ok", "settings")], 0),
        ([("warn", "hardware")], 0),
        ([("fail", "settings")], 1),
        ([("fail", "settings"), ("fail", "hardware")], 3),
        ([("fail", "hardware"), ("fail", "damage"), ("ok", "settings")], 4),
    ],
)
def test_the_gravest_failure_gives_the_exit_code(
    found: list[tuple[Level, Kind]], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = [Check("x", level, "found", "do", kind) for level, kind in found]
    assert report(checks, as_json=True) == code
    payload = json.loads(capsys.readouterr().out)
    assert payload["ready"] == (code == 0)
    assert len(payload["checks"]) == len(found)


def test_people_read_what_to_do_where_it_is_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    report([Check("disk", "ok", "9 GB", "-"), Check("DEM", "fail", "none", "give one")], False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("disk: 9 GB")
    assert lines[1].endswith("DEM: none")
    assert lines[2].strip() == "-> give one"
