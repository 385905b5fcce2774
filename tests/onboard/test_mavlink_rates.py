"""Streams are asked for until they flow, one at a time, and again when they stop."""

from __future__ import annotations

import pytest
from pymavlink.dialects.v20 import ardupilotmega as mav

from onboard.mavlink_rates import DEFAULT_RATES_HZ, RateKeeper

ACCEPTED, UNSUPPORTED = mav.MAV_RESULT_ACCEPTED, mav.MAV_RESULT_UNSUPPORTED


def keeper() -> RateKeeper:
    return RateKeeper({"ATTITUDE": 20.0, "GPS_RAW_INT": 5.0})


def test_one_request_at_a_time_until_acknowledged():
    rates = keeper()
    first = rates.next_request(0.0)
    assert first is not None
    assert rates.next_request(0.5) is None
    rates.note_ack(ACCEPTED)
    second = rates.next_request(0.6)
    assert second is not None
    assert {first.name, second.name} == {"ATTITUDE", "GPS_RAW_INT"}


def test_asks_again_when_no_answer_comes():
    rates = keeper()
    asked = [rates.next_request(t * 0.5) for t in range(20)]
    assert len([s for s in asked if s is not None]) >= 6


def test_asks_again_when_a_stream_stops():
    rates = keeper()
    for _ in range(2):
        assert rates.next_request(0.0) is not None
        rates.note_ack(ACCEPTED)
    for i in range(100):
        rates.note_message("ATTITUDE", i * 0.05)
        rates.note_message("GPS_RAW_INT", i * 0.05)
    assert rates.next_request(5.1) is None
    assert rates.missing(5.1) == []
    rates.note_message("GPS_RAW_INT", 9.0)
    again = rates.next_request(9.0)
    assert again is not None
    assert again.name == "ATTITUDE"
    assert rates.re_asked == 1
    assert rates.missing(9.0) == ["ATTITUDE"]


def test_a_refused_stream_is_left_alone_until_a_reboot():
    rates = RateKeeper({"ATTITUDE": 20.0})
    rates.next_request(0.0)
    rates.note_ack(UNSUPPORTED)
    assert rates.next_request(100.0) is None
    rates.reset()
    assert rates.next_request(101.0) is not None


@pytest.mark.parametrize("name", DEFAULT_RATES_HZ)
def test_every_default_stream_exists(name):
    assert RateKeeper(DEFAULT_RATES_HZ).streams[name].message_id > 0
    assert name != "CAMERA_FEEDBACK"
