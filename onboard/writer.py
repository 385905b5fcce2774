"""The writer: the one thread that owns ``flight.db``; an alert is told only once it is stored."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gossan.errors import GossanError
from onboard.health import Health
from onboard.keep.store import FlightStore
from onboard.live_flight import LiveFlight, host_boot_id
from onboard.records import Alert, ClockTie, FrameRecord, Track
from onboard.stages import BoundedQueue
from onboard.tell.teller import Teller, Voice

log = logging.getLogger(__name__)

QUEUE_SIZE = 256
UNSAVED_LIMIT = 2000
RETRY_S = 1.0
TIES_S = 5.0


@dataclass(frozen=True, slots=True)
class Commit:
    """A record to be stored, with the thumbnails that were kept for it."""

    record: FrameRecord
    chips: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """Ends a flight after everything before it was stored.

    Attributes:
        final: Whether the flight is over: its tables and manifest are written.
        coverage: ``coverage.geojson``, or ``None`` for a plain one.
        done: Set when it is closed.
    """

    final: bool
    coverage: bytes | None = None
    done: threading.Event = field(default_factory=threading.Event)


Work = Commit | Finish


class WriteStage:
    """Stores what the other stages hand over, then tells.

    Args:
        flight: Tells the current flight, or ``None``.
        ties: Tells the clock ties after a monotonic time.
        voices: Makes the voices for a flight.
        health: Pulse, counters, and the events to be stored.

    Attributes:
        queue: What waits; its givers wait when it is full.
    """

    def __init__(
        self,
        flight: Callable[[], LiveFlight | None],
        ties: Callable[[int | None], list[ClockTie]],
        voices: Callable[[LiveFlight], list[Voice]],
        health: Health,
    ) -> None:
        self.queue: BoundedQueue[Work] = BoundedQueue("write", QUEUE_SIZE, "wait", health)
        self._flight = flight
        self._ties = ties
        self._voices = voices
        self._health = health
        self._store: FlightStore | None = None
        self._teller: Teller | None = None
        self._unsaved: deque[Work] = deque()
        self._tracks: dict[int, Track] = {}
        self._retry_s = 0.0
        self._ties_s = 0.0
        self._ties_ns: int | None = None
        self.texts: list[str] = []

    @property
    def waiting(self) -> int:
        """Records that are not yet stored."""
        return len(self.queue) + len(self._unsaved)

    @property
    def untold(self) -> int:
        """Alerts that are stored and wait to be said."""
        return self._teller.waiting if self._teller else 0

    def run(self, stop: threading.Event) -> None:
        """Stores until ``stop`` and the queue is empty, then closes without ending the flight."""
        try:
            while not (stop.is_set() and self.waiting == 0):
                self.step(0.05)
                if stop.is_set() and self._unsaved:
                    break
        finally:
            self._close(final=False)

    def step(self, timeout_s: float) -> None:
        """Stores what waits, then lets the voices speak."""
        item = self.queue.get(timeout_s)
        if item is not None:
            self._unsaved.append(item)
            if len(self._unsaved) > UNSAVED_LIMIT:
                self._unsaved.popleft()
                self._health.count("write.lost")
        if self._unsaved and time.monotonic() >= self._retry_s:
            self._save()
        if self._store is not None and self._teller is not None:
            self._look_around(self._store, self._teller)
        self._health.beat("write")

    def _save(self) -> None:
        try:
            while self._unsaved:
                self._take(self._unsaved[0])
                self._unsaved.popleft()
                self._health.beat("write", output=True)
        except (GossanError, OSError) as error:
            self._retry_s = time.monotonic() + RETRY_S
            self._health.count("write.refused")
            self._health.degrade("write", "store_failing", str(error))
            return
        self._health.restore("write", "store_failing")

    def _take(self, item: Work) -> None:
        if isinstance(item, Finish):
            self._finish(item)
            return
        store, teller = self._opened()
        if store is None or teller is None:
            self._health.count("write.without_flight")
            return
        self._tracks.update({track.track_id: track for track in item.record.tracks})
        for alert in store.commit_frame(item.record, item.chips):
            self._tell(teller, alert)

    def _tell(self, teller: Teller, alert: Alert) -> None:
        teller.add(alert, self._tracks.get(alert.track_id))

    def _opened(self) -> tuple[FlightStore | None, Teller | None]:
        """Opens the current flight's store on first use."""
        flight = self._flight()
        if flight is None:
            return None, None
        if self._store is None:
            self._store = FlightStore(flight.folder, give_room=flight.guard.release_reserve)
            if not flight.resumed:
                self._store.set_meta("boot_id", host_boot_id())
                self._store.set_meta("started_mono_ns", str(flight.started_ns))
            self._teller = Teller(self._voices(flight), self._store.mark_told)
            self._ties_ns = None
            for alert in self._store.untold_alerts():
                self._tell(self._teller, alert)
        return self._store, self._teller

    def _look_around(self, store: FlightStore, teller: Teller) -> None:
        """Speaks, stores health events and clock ties, closes segments that are over."""
        try:
            if teller.step():
                self.texts = list(teller.texts)
            for event in self._health.take_events():
                store.add_health(event)
            now_s = time.monotonic()
            if now_s - self._ties_s >= TIES_S:
                self._ties_s = now_s
                self._store_ties(store)
                store.tick()
        except (GossanError, OSError) as error:
            self._health.count("write.refused")
            self._health.degrade("write", "store_failing", str(error))

    def _store_ties(self, store: FlightStore) -> None:
        """Stores ties that are older than a bin, so that each has its final choice."""
        limit_ns = time.monotonic_ns() - int(TIES_S * 2e9)
        fresh = [tie for tie in self._ties(self._ties_ns) if tie.t_mono_ns <= limit_ns]
        if fresh:
            store.add_ties(fresh)
            self._ties_ns = max(tie.t_mono_ns for tie in fresh)

    def _finish(self, item: Finish) -> None:
        store, _ = self._opened()
        if store is not None:
            if item.final:
                fresh = self._ties(self._ties_ns)
                if fresh:
                    store.add_ties(fresh)
                for event in self._health.take_events():
                    store.add_health(event)
                store.set_landed(time.monotonic_ns(), item.coverage)
            self._close(item.final)
        item.done.set()

    def _close(self, final: bool) -> None:
        store, self._store, self._teller = self._store, None, None
        if store is not None:
            store.close(final=final)
        self._tracks.clear()
