"""What is told, in which words, how often."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gossan.errors import SettingsError
from onboard.config import AlertRule, AlertSettings
from onboard.records import Alert, Track
from onboard.tell.cot import CotVoice, cot_event, split_address
from onboard.tell.policy import AlertPolicy, alert_text, merged_text
from onboard.tell.teller import Teller

TRACK = Track(
    track_id=12,
    class_name="iron_oxide",
    state="confirmed",
    looks=3,
    misses=0,
    probability=0.9,
    lat_deg=37.530123,
    lon_deg=-117.190345,
    alt_m=1500.0,
    height_datum="ellipsoid",
    x_m=0.0,
    y_m=0.0,
    cov_random_m2=np.eye(2) * 0.5,
    sensitivity_m=np.zeros((2, 0)),
    bias_names=(),
    area_m2=3.21,
    first_frame="a",
    last_frame="b",
    best_frame="b",
)


def policy(**rule) -> AlertPolicy:
    return AlertPolicy(AlertSettings(rule=(AlertRule(**rule),)))


def test_text_says_class_number_area_place_and_radius():
    assert alert_text(TRACK) == "IRON OXIDE 12 3.2m2 37.53012,-117.19034 +-1.5m"


@given(
    name=st.text(min_size=1, max_size=40),
    number=st.integers(1, 99999),
    lat=st.floats(-90, 90),
    lon=st.floats(-180, 180),
    area=st.floats(0, 1e6),
    sigma=st.floats(0.01, 1e3),
)
def test_every_text_fits_and_keeps_the_place(name, number, lat, lon, area, sigma):
    track = replace(
        TRACK,
        class_name=name,
        track_id=number,
        lat_deg=lat,
        lon_deg=lon,
        area_m2=area,
        cov_random_m2=np.eye(2) * sigma**2,
    )
    text = alert_text(track)
    assert len(text) <= 50
    assert text.isascii()
    assert f"{lat:.5f},{lon:.5f}" in text


@pytest.mark.parametrize(
    ("rule", "change", "told"),
    [
        pytest.param({}, {}, True, id="confirmed"),
        pytest.param({}, {"state": "tentative"}, False, id="tentative"),
        pytest.param({"classes": ("iron_oxide",)}, {}, True, id="class"),
        pytest.param({"classes": ("quartz",)}, {}, False, id="other-class"),
        pytest.param({"min_probability": 0.95}, {}, False, id="unsure"),
        pytest.param({"min_looks": 4}, {}, False, id="few-looks"),
        pytest.param({"max_ce90_m": 1.0}, {}, False, id="wide"),
        pytest.param({"min_area_m2": 10.0}, {}, False, id="small"),
        pytest.param({}, {"ood": True}, False, id="doubted"),
        pytest.param({"out_of_distribution": True}, {"ood": True}, True, id="doubted-but-wanted"),
        pytest.param({}, {"lat_deg": float("nan")}, False, id="nowhere"),
    ],
)
def test_rules(rule, change, told):
    assert bool(policy(**rule).decide([replace(TRACK, **change)], 5)) is told


def test_a_track_is_told_once_under_any_number():
    decider = policy()
    (alert,) = decider.decide([TRACK], 5)
    assert (alert.alert_id, alert.severity, alert.t_mono_ns) == (1, 4, 5)
    assert decider.decide([TRACK], 6) == ()
    assert decider.decide([replace(TRACK, track_id=3)], 7, {12: 3}) == ()
    (second,) = decider.decide([replace(TRACK, track_id=13)], 8)
    assert second.alert_id == 2


def test_a_resumed_policy_goes_on_counting():
    decider = AlertPolicy(AlertSettings(), next_id=8, told_tracks=[12])
    assert decider.decide([TRACK], 1) == ()
    assert decider.decide([replace(TRACK, track_id=1)], 1)[0].alert_id == 8


class Recorder:
    """A voice that remembers."""

    def __init__(self, interval_s: float):
        self.interval_s = interval_s
        self.up = True
        self.said: list[tuple[int, str]] = []

    def say(self, severity, text, alerts, tracks):
        if self.up:
            self.said.append((severity, text))
        return self.up


def alert(number: int) -> Alert:
    text = alert_text(replace(TRACK, track_id=number))
    return Alert(number, number, 0, 4, text)


def test_at_most_one_text_per_interval_and_none_lost():
    voice, told = Recorder(3.0), []
    teller = Teller([voice], lambda i, _t: told.append(i))
    for n in range(1, 11):
        teller.add(alert(n), TRACK)
        teller.step(n * 0.5)
    teller.step(20.0)
    assert len(voice.said) == 3
    assert voice.said[0][1] == alert(1).text
    assert voice.said[1][1] == "6 IRON OXIDE: no. 2,3,4,5,6,7 37.5301,-117.1903"
    assert told == list(range(1, 11))
    assert all(len(text) <= 50 for _, text in voice.said)


def test_what_the_link_could_not_carry_is_said_later():
    radio, console, told = Recorder(3.0), Recorder(0.0), []
    radio.up = False
    teller = Teller([radio, console], lambda i, _t: told.append(i))
    teller.add(alert(1), TRACK)
    assert teller.step(0.0) == 1
    assert (radio.said, len(console.said), told) == ([], 1, [1])
    radio.up = True
    teller.step(10.0)
    assert len(radio.said) == 1
    assert told == [1]


def test_many_classes_still_fit():
    alerts = [
        replace(alert(n), text=alert_text(replace(TRACK, track_id=n, class_name=f"class_of_{n}")))
        for n in range(1, 12)
    ]
    assert merged_text(alerts) == "11 NEW FINDS: see the map"


def test_cot_event_is_a_spot_with_our_radius():
    text = cot_event(TRACK, "flight1", "note").decode()
    for part in ('type="b-m-p-s-m"', 'uid="gossan-flight1-12"', 'ce="1.5"', 'hae="1500.0"'):
        assert part in text
    assert 'hae="9999999.0"' in cot_event(replace(TRACK, height_datum="same"), "f", "").decode()


def test_cot_is_sent_twice():
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5.0)
        voice = CotVoice(f"127.0.0.1:{ear.getsockname()[1]}", "f")
        assert voice.say(4, "t", [alert(12)], [TRACK])
        voice.close()
        assert [b"gossan-f-12" in ear.recv(4096) for _ in range(2)] == [True, True]


@pytest.mark.parametrize("address", ["", "host", "host:0", ":1", "host:x"])
def test_cot_address_is_checked(address):
    with pytest.raises(SettingsError):
        split_address(address)
