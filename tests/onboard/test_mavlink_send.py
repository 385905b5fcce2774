"""Promise 1: nothing but the allow-list is ever packed for the aircraft."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

import onboard
from onboard.mavlink_send import (
    ALLOWED_COMMAND,
    ALLOWED_MESSAGES,
    ForbiddenMessageError,
    MavlinkSender,
)

COMMANDS = sorted(n for n in mav.enums["MAV_CMD"] if n != mav.MAV_CMD_ENUM_END)


def blank(kind: type[mav.MAVLink_message]) -> mav.MAVLink_message:
    """A message of this class with zeros in all its fields."""
    values = []
    for field_type, length in zip(kind.fieldtypes, _array_lengths(kind), strict=True):
        if field_type == "char":
            values.append(b"")
        else:
            values.append([0] * length if length else 0)
    return kind(*values)


def _array_lengths(kind: type[mav.MAVLink_message]) -> list[int]:
    order = {name: i for i, name in enumerate(kind.ordered_fieldnames)}
    return [kind.array_lengths[order[name]] for name in kind.fieldnames]


def sender() -> tuple[MavlinkSender, list[bytes]]:
    out: list[bytes] = []
    return MavlinkSender(out.append), out


def test_every_message_class_but_the_allowed_is_refused():
    talker, out = sender()
    passed = set()
    for kind in mav.mavlink_map.values():
        try:
            talker.send(blank(kind))
        except ForbiddenMessageError:
            continue
        passed.add(kind.msgname)
    assert passed == ALLOWED_MESSAGES - {"COMMAND_LONG"}
    assert len(mav.mavlink_map) > 250
    sent_ids = {int.from_bytes(packed[7:10], "little") for packed in out}
    assert {mav.mavlink_map[i].msgname for i in sent_ids} == passed


@pytest.mark.parametrize("command", COMMANDS, ids=[mav.enums["MAV_CMD"][c].name for c in COMMANDS])
def test_no_command_but_the_rate_request(command):
    talker, out = sender()
    message = mav.MAVLink_command_long_message(1, 1, command, 0, 30, 1, 1, 1, 1, 1, 0)
    if command == ALLOWED_COMMAND:
        talker.send(message)
        assert len(out) == 1
    else:
        with pytest.raises(ForbiddenMessageError):
            talker.send(message)
        assert out == []


def test_camera_feedback_is_never_asked_at_an_interval():
    talker, out = sender()
    with pytest.raises(ForbiddenMessageError, match="180"):
        talker.request_interval((1, 1), mav.MAVLINK_MSG_ID_CAMERA_FEEDBACK, 1.0)
    assert out == []


@pytest.mark.parametrize("system", [0, 255])
def test_never_speaks_as_a_ground_station(system):
    talker, _ = sender()
    with pytest.raises(ForbiddenMessageError):
        talker.announce_as(system)


def test_heartbeat_is_an_onboard_controller_of_the_vehicle():
    talker, out = sender()
    talker.announce_as(7)
    talker.heartbeat()
    message = mav.MAVLink(None).parse_buffer(out[0])[0]
    assert (message.get_srcSystem(), message.get_srcComponent()) == (7, 191)
    assert (message.type, message.autopilot) == (18, 8)


def test_texts_are_cut_to_fifty_ascii_characters():
    talker, out = sender()
    talker.statustext(4, "Ünïcode " + "x" * 60)
    message = mav.MAVLink(None).parse_buffer(out[0])[0]
    assert message.text == "?n?code " + "x" * 42
    assert message.severity == 4


def test_no_other_module_packs_or_sends_mavlink():
    packs = re.compile(r"\.pack\(\w*(packer|mav)|_send\(|MAVLink_\w+_message\(|mavutil")
    offenders = []
    for path in sorted(Path(inspect.getfile(onboard)).parent.rglob("*.py")):
        inside = path.relative_to(Path(inspect.getfile(onboard)).parent)
        if inside.parts[0] == "simulator" or inside.name == "mavlink_send.py":
            continue
        offenders += [
            f"{inside}:{n}"
            for n, line in enumerate(path.read_text().splitlines(), 1)
            if packs.search(line)
        ]
    assert offenders == []
