"""Ties between the host's clock, the autopilot's time since boot, and UTC.

The host clock is the master. On a flying machine it is ``time.monotonic_ns()``; where a recorded
log is read, the log's receive times (UNIX, as nanoseconds) stand in for it. Nothing here steps: a
tie is chosen, by the shortest round trip or the earliest arrival, from many.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from dataclasses import dataclass, field

from onboard.records import ClockTie, UtcQuality

MAX_RTT_S = 0.1
"""Round trips longer than this say more about a stalled host than about the clock."""
REBOOT_STEP_S = 3.0
"""A step back of the boot time by more than this is a reboot; late messages lag less."""
LEAP_S = 60.0
LEAPS_BELIEVED = 8
BIN_S = 5.0
WINDOW_BINS = 12
"""Ties are chosen from the bins within a minute before and after."""
ARRIVAL_SIGMA_S = 0.03
DRIFT = 20e-6
"""Relative drift of two quartz clocks, for the σ of times far from a tie."""
UTC_SANE_S = (1.325e9, 4.1e9)
"""2012 to 2099: a UNIX time outside is no time (one real log says year 2908)."""
UTC_AGREE_S = 1.0


@dataclass(slots=True)
class _Epoch:
    """One run of the autopilot between two boots."""

    start_ns: int
    newest_boot_s: float = -math.inf
    newest_recv_ns: int = 0
    leaps: int = 0
    round_trips: dict[int, ClockTie] = field(default_factory=dict)
    arrivals: dict[int, ClockTie] = field(default_factory=dict)
    utc_offset_s: float = math.nan
    utc_candidate_s: float = math.nan


class BootClock:
    """Boot time of an autopilot against the host's clock, over its reboots. Thread-safe.

    Attributes:
        autopilot: (sysid, compid) whose times count; ``None`` until it is known.
        refused: Counts of what was not believed, by reason.
    """

    def __init__(self, autopilot: tuple[int, int] | None = None) -> None:
        self.autopilot = autopilot
        self.refused: dict[str, int] = {}
        self._epochs: list[_Epoch] = []
        self._ahead = 0
        self._lock = threading.RLock()

    @property
    def epoch(self) -> int:
        """Counts the autopilot's reboots; 0 before the first."""
        return max(len(self._epochs) - 1, 0)

    @property
    def newest_boot_s(self) -> float:
        """The newest boot time heard in this epoch; NaN before the first."""
        newest = self._epochs[-1].newest_boot_s if self._epochs else -math.inf
        return newest if math.isfinite(newest) else math.nan

    def note_boot(self, t_boot_s: float, t_recv_ns: int | None = None) -> bool:
        """Takes notice of a boot time that the autopilot stamped; returns whether it rebooted."""
        with self._lock:
            if not self._epochs:
                self._epochs.append(_Epoch(t_recv_ns or 0))
            now = self._epochs[-1]
            rebooted = t_boot_s < now.newest_boot_s - REBOOT_STEP_S
            if rebooted:
                now = _Epoch(t_recv_ns if t_recv_ns is not None else now.start_ns + 1)
                self._epochs.append(now)
            now.newest_boot_s = max(now.newest_boot_s, t_boot_s)
            return rebooted

    def add_timesync(self, t_sent_ns: int, t_recv_ns: int, tc1_ns: int) -> bool:
        """Adds a round trip: our request's and the answer's host time, the autopilot's in between.

        Callers pass answers of the autopilot only: ground stations answer, too. Returns whether
        it was believed.
        """
        rtt_s = (t_recv_ns - t_sent_ns) * 1e-9
        if tc1_ns <= 0 or not 0.0 <= rtt_s <= MAX_RTT_S:
            return self._refuse("timesync_round_trip")
        t_boot_s = tc1_ns * 1e-9
        middle = (t_sent_ns + t_recv_ns) // 2
        with self._lock:
            if self._leaps(middle, t_boot_s):
                return self._refuse("timesync_leaps")
            self.note_boot(t_boot_s, t_recv_ns)
            tie = ClockTie(middle, t_boot_s, self.epoch, rtt_s)
            kept = self._epochs[-1].round_trips
            known = kept.get(_bin(middle))
            if known is None or rtt_s < known.rtt_s:
                kept[_bin(middle)] = tie
        return True

    def plausible(self, t_boot_s: float, t_recv_ns: int) -> bool:
        """Returns whether a stamp does not run far ahead of the host's clock.

        An autopilot cannot skip time: a stamp that does is a damaged message. If stamp after
        stamp says so, the host's clock was set, and they are believed.
        """
        with self._lock:
            now = self._epochs[-1] if self._epochs else None
            if now is None or not math.isfinite(now.newest_boot_s) or not now.newest_recv_ns:
                return True
            ahead_s = t_boot_s - now.newest_boot_s - (t_recv_ns - now.newest_recv_ns) * 1e-9
            now.leaps = now.leaps + 1 if ahead_s > LEAP_S else 0
            if 0 < now.leaps < LEAPS_BELIEVED:
                return self._refuse("boot_time_leaps")
            now.leaps = 0
            return True

    def add_arrival(self, t_recv_ns: int, t_boot_s: float) -> bool:
        """Adds a stamped message's arrival; returns whether it shows a reboot.

        The delay is unknown but never negative: of each few seconds the earliest arrival counts.
        """
        with self._lock:
            rebooted = self.note_boot(t_boot_s, t_recv_ns)
            tie = ClockTie(t_recv_ns, t_boot_s, self.epoch)
            if t_boot_s >= self._epochs[-1].newest_boot_s:
                self._epochs[-1].newest_recv_ns = t_recv_ns
            kept = self._epochs[-1].arrivals
            known = kept.get(_bin(t_recv_ns))
            if known is None or _lead(tie) < _lead(known):
                kept[_bin(t_recv_ns)] = tie
        return rebooted

    def add_system_time(self, t_unix_s: float, t_boot_s: float) -> bool:
        """Adds the autopilot's own UTC; returns whether it is believed.

        Two that agree anchor the label; after that it is never stepped.
        """
        if not UTC_SANE_S[0] < t_unix_s < UTC_SANE_S[1]:
            return self._refuse("utc_not_set" if t_unix_s <= 0 else "utc_not_sane")
        offset = t_unix_s - t_boot_s
        with self._lock:
            if not self._epochs:
                self._epochs.append(_Epoch(0))
            now = self._epochs[-1]
            if math.isfinite(now.utc_offset_s):
                if abs(offset - now.utc_offset_s) > UTC_AGREE_S:
                    return self._refuse("utc_steps")
                now.utc_offset_s += 0.05 * (offset - now.utc_offset_s)
                return True
            if abs(offset - now.utc_candidate_s) <= UTC_AGREE_S:
                now.utc_offset_s = offset
            now.utc_candidate_s = offset
        return True

    def boot_from_mono(self, t_mono_ns: int) -> tuple[float, float]:
        """Returns boot time and its σ in seconds at a host time; NaN where nothing ties them."""
        with self._lock:
            epoch = self._epoch_at(t_mono_ns)
            if epoch is None:
                return math.nan, math.nan
            tie, sigma_s = _best_tie(epoch, t_mono_ns)
        if tie is None:
            return math.nan, math.nan
        away_s = (t_mono_ns - tie.t_mono_ns) * 1e-9
        return tie.t_boot_s + away_s, math.hypot(sigma_s, DRIFT * away_s)

    def mono_from_boot(self, t_boot_s: float, epoch: int | None = None) -> int | None:
        """Returns the host time of a boot time in an epoch (the newest by default)."""
        with self._lock:
            if not self._epochs:
                return None
            run = self._epochs[self.epoch if epoch is None else epoch]
            ties = list(run.round_trips.values()) or list(run.arrivals.values())
            if not ties:
                return None
            near = min(ties, key=lambda tie: abs(tie.t_boot_s - t_boot_s))
            guess = near.t_mono_ns + round((t_boot_s - near.t_boot_s) * 1e9)
            tie, _ = _best_tie(run, guess)
        if tie is None:
            return None
        return tie.t_mono_ns + round((t_boot_s - tie.t_boot_s) * 1e9)

    def utc_from_boot(self, t_boot_s: float) -> tuple[float, UtcQuality]:
        """Returns the autopilot's UTC label (UNIX seconds) of a boot time in this epoch."""
        with self._lock:
            offset = self._epochs[-1].utc_offset_s if self._epochs else math.nan
        if not math.isfinite(offset):
            return math.nan, UtcQuality.NONE
        return t_boot_s + offset, UtcQuality.GPS

    def boot_from_utc(self, t_unix_s: float) -> float:
        """Returns the boot time of the autopilot's own UTC in this epoch; NaN if not anchored."""
        with self._lock:
            offset = self._epochs[-1].utc_offset_s if self._epochs else math.nan
        return t_unix_s - offset

    def epoch_at(self, t_mono_ns: int) -> int:
        """Returns which run of the autopilot a host time falls in."""
        with self._lock:
            return max(bisect_right([e.start_ns for e in self._epochs], t_mono_ns) - 1, 0)

    def ties(self, since_mono_ns: int | None = None) -> list[ClockTie]:
        """Returns the chosen ties, one per few seconds, with the UTC label where there is one."""
        with self._lock:
            found = []
            for epoch in self._epochs:
                chosen = {**epoch.arrivals, **epoch.round_trips}
                for _, tie in sorted(chosen.items()):
                    if since_mono_ns is None or tie.t_mono_ns > since_mono_ns:
                        found.append(_labelled(tie, epoch.utc_offset_s))
            return found

    @classmethod
    def from_ties(cls, ties: list[ClockTie]) -> BootClock:
        """Returns the clock that such ties describe (a flight folder keeps them)."""
        clock = cls()
        for tie in sorted(ties, key=lambda tie: (tie.epoch, tie.t_mono_ns)):
            while len(clock._epochs) <= tie.epoch:
                clock._epochs.append(_Epoch(tie.t_mono_ns))
            epoch = clock._epochs[tie.epoch]
            kept = epoch.round_trips if math.isfinite(tie.rtt_s) else epoch.arrivals
            kept[_bin(tie.t_mono_ns)] = tie
            epoch.newest_boot_s = max(epoch.newest_boot_s, tie.t_boot_s)
            if math.isfinite(tie.t_utc_s):
                epoch.utc_offset_s = tie.t_utc_s - tie.t_boot_s
        return clock

    def _epoch_at(self, t_mono_ns: int) -> _Epoch | None:
        return self._epochs[self.epoch_at(t_mono_ns)] if self._epochs else None

    def _leaps(self, t_mono_ns: int, t_boot_s: float) -> bool:
        """Returns whether a boot time runs ahead of the host: another machine's answer.

        An autopilot cannot skip time. If answer after answer says so, it is believed.
        """
        known = self._epochs[-1].round_trips if self._epochs else {}
        if not known:
            return False
        last = known[max(known)]
        ahead_s = t_boot_s - last.t_boot_s - (t_mono_ns - last.t_mono_ns) * 1e-9
        self._ahead = self._ahead + 1 if ahead_s > REBOOT_STEP_S else 0
        return 0 < self._ahead < LEAPS_BELIEVED

    def _refuse(self, reason: str) -> bool:
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return False


def _bin(t_ns: int) -> int:
    return int(t_ns // int(BIN_S * 1e9))


def _lead(tie: ClockTie) -> float:
    """Returns host minus boot time in seconds: the smaller, the less delayed."""
    return tie.t_mono_ns * 1e-9 - tie.t_boot_s


def _near(ties: dict[int, ClockTie], t_ns: int) -> list[ClockTie]:
    """Returns the ties within the window, or else the nearest one."""
    here = _bin(t_ns)
    window = range(here - WINDOW_BINS, here + WINDOW_BINS + 1)
    found = [ties[b] for b in window if b in ties]
    if found or not ties:
        return found
    return [ties[min(ties, key=lambda b: abs(b - here))]]


def _best_tie(epoch: _Epoch, t_ns: int) -> tuple[ClockTie | None, float]:
    """Returns the tie to trust near a host time, and its σ in seconds."""
    trips = _near(epoch.round_trips, t_ns)
    if trips:
        shortest = min(tie.rtt_s for tie in trips)
        good = [tie for tie in trips if tie.rtt_s <= 1.5 * shortest + 1e-3]
        best = min(good, key=lambda tie: abs(tie.t_mono_ns - t_ns))
        return best, max(best.rtt_s / math.sqrt(12.0), 0.5e-3)
    arrivals = _near(epoch.arrivals, t_ns)
    if not arrivals:
        return None, math.nan
    return min(arrivals, key=_lead), ARRIVAL_SIGMA_S


def _labelled(tie: ClockTie, utc_offset_s: float) -> ClockTie:
    if not math.isfinite(utc_offset_s):
        return tie
    return ClockTie(
        tie.t_mono_ns,
        tie.t_boot_s,
        tie.epoch,
        tie.rtt_s,
        tie.t_boot_s + utc_offset_s,
        UtcQuality.GPS,
    )
