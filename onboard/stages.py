"""Threads and bounded queues: each queue has a name, a size and a stated overflow policy."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from onboard.health import Health

log = logging.getLogger(__name__)

T = TypeVar("T")
Overflow = Literal["drop_oldest", "refuse_newest", "wait"]
PATIENCE_S = 5.0
RESTART_S = 1.0


class BoundedQueue(Generic[T]):
    """A queue between two stages.

    Overflow policies:

    - ``drop_oldest``: the oldest goes to ``on_drop``; what is newest matters most.
    - ``refuse_newest``: the newest goes to ``on_drop``; order matters most.
    - ``wait``: the giver waits up to five seconds, then the newest goes to ``on_drop``.

    Every drop is counted as ``<name>.dropped``.

    Args:
        name: Its name in health and status.
        size: How many it holds.
        overflow: What happens when it is full.
        health: Where drops are counted.
        on_drop: Called with what is dropped.
    """

    def __init__(
        self,
        name: str,
        size: int,
        overflow: Overflow,
        health: Health,
        on_drop: Callable[[T], None] = lambda _item: None,
    ) -> None:
        self.name = name
        self.size = size
        self.overflow = overflow
        self._health = health
        self._on_drop = on_drop
        self._items: deque[T] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> bool:
        """Adds an item; returns whether nothing was dropped for it."""
        with self._changed:
            if self.overflow == "wait" and len(self._items) >= self.size:
                self._changed.wait_for(lambda: len(self._items) < self.size, PATIENCE_S)
            dropped = self._make_room(item)
            self._changed.notify_all()
        if dropped is not None:
            self._health.count(f"{self.name}.dropped")
            self._on_drop(dropped)
        return dropped is None

    def get(self, timeout_s: float) -> T | None:
        """Returns the oldest item, waiting at most ``timeout_s``; ``None`` where there is none."""
        with self._changed:
            if not self._items:
                self._changed.wait_for(lambda: bool(self._items), timeout_s)
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    def _make_room(self, item: T) -> T | None:
        """Adds the item under the lock; returns what was dropped."""
        if len(self._items) < self.size:
            self._items.append(item)
            return None
        if self.overflow != "drop_oldest":
            return item
        oldest = self._items.popleft()
        self._items.append(item)
        return oldest


class StageThread:
    """One stage's thread: a loop that is started again when it fails.

    Args:
        name: The stage's name in health and status.
        loop: Runs until the stop event is set.
        stop: The one stop event.
        health: Gets the stage's pulse and failures.
        limit_s: Without a beat for longer than this it counts as stuck.
    """

    def __init__(
        self,
        name: str,
        loop: Callable[[threading.Event], None],
        stop: threading.Event,
        health: Health,
        limit_s: float,
    ) -> None:
        self.name = name
        self._loop = loop
        self._stop = stop
        self._health = health
        self._limit_s = limit_s
        self._thread = threading.Thread(target=self._run, name=f"gossan-{name}", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._health.add_stage(self.name, self._limit_s)
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Waits for its end; returns whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._loop(self._stop)
            except Exception as error:
                self._health.count(f"{self.name}.failures")
                self._health.event(self.name, "error", "stage_failed", repr(error))
                log.exception("stage_failed stage=%s", self.name)
                self._stop.wait(RESTART_S)
        self._health.remove_stage(self.name)
