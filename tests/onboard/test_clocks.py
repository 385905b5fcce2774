"""Clocks: minimum round trip, earliest arrival, reboots, UTC that is never stepped."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from onboard.clocks import MAX_RTT_S, BootClock
from onboard.records import UtcQuality

S = 1_000_000_000
BOOT_AT_NS = 5_000 * S


def boot(t_ns: int) -> float:
    return (t_ns - BOOT_AT_NS) * 1e-9


def test_timesync_is_better_than_the_asymmetry_of_bad_round_trips() -> None:
    rng = np.random.default_rng(3)
    clock = BootClock()
    for i in range(240):
        sent = BOOT_AT_NS + 10 * S + i * S // 2
        out, back = 0.003 + rng.exponential(0.02), 0.003 + rng.exponential(0.002)
        there = sent + round(out * S)
        clock.add_timesync(sent, there + round(back * S), round(boot(there) * S))
    errors = [
        clock.boot_from_mono(t)[0] - boot(t)
        for t in range(BOOT_AT_NS + 20 * S, BOOT_AT_NS + 120 * S, S)
    ]
    assert max(abs(e) for e in errors) < 0.004


@pytest.mark.parametrize("rtt_s", [MAX_RTT_S * 1.01, 5.0, 20.0, -0.01])
def test_round_trips_of_a_stalled_host_are_refused(rtt_s: float) -> None:
    clock = BootClock()
    sent = BOOT_AT_NS + 10 * S
    assert not clock.add_timesync(sent, sent + round(rtt_s * S), 10 * S)
    assert math.isnan(clock.boot_from_mono(sent)[0])
    assert clock.refused == {"timesync_round_trip": 1}


def test_arrivals_count_by_the_earliest() -> None:
    rng = np.random.default_rng(5)
    clock = BootClock()
    for i in range(600):
        t = BOOT_AT_NS + 30 * S + i * S // 4
        clock.add_arrival(t + round((0.002 + rng.exponential(0.3)) * S), boot(t))
    at = BOOT_AT_NS + 100 * S
    t_boot_s, sigma_s = clock.boot_from_mono(at)
    assert t_boot_s - boot(at) == pytest.approx(-0.002, abs=0.01)
    assert sigma_s == pytest.approx(0.03, abs=0.01)


def test_reboot_starts_an_epoch_and_late_messages_do_not() -> None:
    clock = BootClock()
    for i in range(100):
        clock.add_arrival(BOOT_AT_NS + i * S, 50.0 + i)
    assert not clock.add_arrival(BOOT_AT_NS + 100 * S, 148.8)
    assert clock.epoch == 0
    again_ns = BOOT_AT_NS + 110 * S
    assert clock.add_arrival(again_ns, 2.0)
    assert clock.epoch == 1
    assert clock.boot_from_mono(again_ns + S)[0] == pytest.approx(3.0)
    assert clock.boot_from_mono(BOOT_AT_NS + 60 * S)[0] == pytest.approx(110.0)
    assert (clock.epoch_at(again_ns + 1), clock.epoch_at(again_ns - 1)) == (1, 0)


def test_a_timesync_answer_shows_the_reboot_first() -> None:
    clock = BootClock()
    clock.add_arrival(BOOT_AT_NS, 300.0)
    clock.add_timesync(BOOT_AT_NS + 10 * S, BOOT_AT_NS + 10 * S + 5_000_000, 31_808_000)
    assert clock.epoch == 1


def test_host_and_boot_time_invert_each_other() -> None:
    clock = BootClock()
    for i in range(30):
        clock.add_arrival(BOOT_AT_NS + i * S, 100.0 + i)
    t_ns = BOOT_AT_NS + 17 * S + 123_456_789
    back = clock.mono_from_boot(clock.boot_from_mono(t_ns)[0])
    assert back == pytest.approx(t_ns, abs=2_000)


def test_utc_needs_two_that_agree_and_is_never_stepped() -> None:
    clock = BootClock()
    clock.note_boot(10.0)
    assert not clock.add_system_time(0.0, 10.0)
    assert not clock.add_system_time(29_618_095_652.0, 11.0)  # year 2908, as in a real log
    assert clock.utc_from_boot(12.0) == (pytest.approx(math.nan, nan_ok=True), UtcQuality.NONE)
    assert clock.add_system_time(1_700_000_012.0, 12.0)
    assert clock.utc_from_boot(12.0)[1] is UtcQuality.NONE
    assert clock.add_system_time(1_700_000_013.0, 13.0)
    assert clock.utc_from_boot(20.0) == (pytest.approx(1_700_000_020.0), UtcQuality.GPS)
    assert not clock.add_system_time(1_700_000_114.0, 14.0)
    assert clock.utc_from_boot(20.0)[0] == pytest.approx(1_700_000_020.0)
    assert clock.refused == {"utc_not_set": 1, "utc_not_sane": 1, "utc_steps": 1}


@pytest.mark.parametrize("stem", ["copter_survey_A", "copter_survey_B2_terrain_fbpin"])
def test_recorded_exchanges_with_answers_of_the_ground_station_among_them(
    shared_data: Path, stem: str
) -> None:
    """The recording companion took every answer; some are the ground station's own clock."""
    run = json.loads((shared_data / f"flights/{stem}.run.json").read_text())
    clock = BootClock()
    for sent, tc1, received in run["ts"]:
        clock.add_timesync(sent, received, tc1)
    assert clock.epoch == 0
    exchanges = np.array(run["ts"], dtype=np.float64)
    offset = exchanges[:, 1] - 0.5 * (exchanges[:, 0] + exchanges[:, 2])
    own = np.abs(offset - np.median(offset)) < 1e9
    assert own.all() == (stem != "copter_survey_A") or clock.refused["timesync_leaps"] > 0
    rtt = exchanges[:, 2] - exchanges[:, 0]
    best = own & (rtt < np.quantile(rtt, 0.2))
    errors = [
        clock.boot_from_mono(int(sent + received) // 2)[0] - tc1 * 1e-9
        for sent, tc1, received in exchanges[best]
    ]
    assert np.median(np.abs(errors)) < 0.002
    assert np.quantile(np.abs(errors), 0.95) < 0.01  # the simulator's own clock slips at times


def test_ties_rebuild_the_clock() -> None:
    clock = BootClock()
    for i in range(60):
        sent = BOOT_AT_NS + i * S
        clock.add_timesync(sent, sent + 6_000_000, round((boot(sent) + 50.003) * S))
        clock.add_system_time(1.7e9 + boot(sent) + 50.0, boot(sent) + 50.0)
    again = BootClock.from_ties(clock.ties())
    at = BOOT_AT_NS + 31 * S
    assert again.boot_from_mono(at)[0] == pytest.approx(boot(at) + 50.0, abs=1e-6)
    assert again.utc_from_boot(60.0) == clock.utc_from_boot(60.0)
    assert len(clock.ties()) == 12
    assert clock.ties(since_mono_ns=clock.ties()[-1].t_mono_ns) == []
