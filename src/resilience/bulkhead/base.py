"""What both bulkheads have in common: all but the waiting."""

from __future__ import annotations

from collections import deque
from functools import update_wrapper
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn

from resilience import checks, events
from resilience._core.bulkhead import Arrival, Slots
from resilience.bulkhead.waiting import AnyWaiter, Fate, Patience
from resilience.callables import name_of
from resilience.clock import SYSTEM_CLOCK
from resilience.deadline import CURRENT
from resilience.errors import BulkheadFullError, DeadlinePassed
from resilience.fork import bound_lock, survive_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience.clock import Clock
    from resilience.events import Listener

_numbers = count(1)


class BulkheadStats(NamedTuple):
    """A bulkhead at one moment."""

    name: str
    limit: int
    queue: int
    running: int
    """Calls that have a place."""
    waiting: int
    """Calls that wait for one."""
    rejected: int
    """Calls that got none, since it was made."""
    longest_wait: float
    """Seconds; of all that have waited, in vain or not, since it was made."""


class Base(Generic[AnyWaiter]):
    """What both bulkheads have in common: all but the waiting."""

    def __init__(
        self,
        limit: int,
        queue: int = 0,
        timeout: float | None = None,
        *,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_rejected: Listener | None = None,
    ) -> None:
        checks.optional_name(name)
        self._limit = checks.count("limit", limit, least=1)
        self._queue = checks.count("queue", queue, least=0)
        self._timeout = None if timeout is None else checks.number("timeout", timeout, least=0)
        self._named = name is not None
        self._name = f"bulkhead-{next(_numbers)}" if name is None else name
        self._clock = clock
        self._hooks = events.hooks(on_rejected)
        self._rejected = 0
        self._longest_wait = 0.0
        self._last_wait: float | None = None
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, and the places: those whom the parent's threads hold are not held here.

        A call keeps to the places that it was begun with, so what it gives back then is of no consequence.
        """
        self._lock = bound_lock()
        self._slots: Slots[AnyWaiter] = Slots(self._limit, self._queue)
        self._returned: deque[tuple[Slots[AnyWaiter], AnyWaiter | None]] = deque()
        self._deciding = False

    @property
    def name(self) -> str:
        """What errors, events and statistics call it."""
        return self._name

    @property
    def timeout(self) -> float | None:
        """Seconds that a call may wait at most; None for as long as its deadline allows."""
        return self._timeout

    def stats(self) -> BulkheadStats:
        """Return its figures, all of the same instant."""
        with self._lock:
            return BulkheadStats(
                self._name,
                self._limit,
                self._queue,
                self._slots.running,
                self._slots.waiting,
                self._rejected,
                self._longest_wait,
            )

    # --- coming and waiting ----------------------------------------------------------------------

    def _took_free_place(self, slots: Slots[AnyWaiter]) -> bool:
        """Take a place if one is free, which means that nobody waits; say whether."""
        with self._lock:
            if slots.running < slots.limit:
                slots.running += 1
                return True
        return False

    def _arrive(self, slots: Slots[AnyWaiter], waiter: AnyWaiter) -> bool:
        """Let a call come; return whether it has a place at once, and else waits.

        Raises:
            BulkheadFullError: There is no room for it.
        """
        with self._lock:
            self._deciding = True
            try:
                arrival, evicted = slots.arrive(waiter, waiter.priority)
            finally:
                self._deciding = False
            if evicted is not None:
                evicted.fate = Fate.SENT_AWAY
        self._take_back()
        if evicted is not None:
            evicted.wake()
        if arrival is Arrival.REFUSED:
            raise self._rejection("the queue is full" if self._queue else "all places are taken")
        return arrival is Arrival.ADMITTED

    def _patience(self) -> Patience:
        """Return how long a call may wait that begins to now.

        Raises:
            DeadlinePassed: The deadline of this context has passed.
        """
        deadline = CURRENT.get()
        if deadline is None:
            return Patience(self._clock.now(), None, self._timeout)
        deadline.require(f"waiting for bulkhead {self._name!r}")
        left = deadline.left()
        seconds = left if self._timeout is None else min(left, self._timeout)
        return Patience(self._clock.now(), deadline, seconds)

    def _conclude(self, waiter: AnyWaiter, patience: Patience) -> None:
        """Return if the wait of a call has ended with a place.

        Raises:
            BulkheadFullError: It was in vain.
            DeadlinePassed: It was, and the deadline has passed.
        """
        waited = max(0.0, self._clock.now() - patience.began)
        with self._lock:
            fate = waiter.fate
            self._longest_wait = max(self._longest_wait, waited)
            if fate is Fate.ADMITTED:
                self._last_wait = waited
                return
        if fate is Fate.SENT_AWAY:
            raise self._rejection("a call of higher priority has taken its place in the queue")
        if patience.deadline is not None and patience.deadline.left() <= 0:
            self._rejection("the deadline has passed")
            raise DeadlinePassed(
                f"the deadline passed after {waited:.3f} s in the queue of bulkhead {self._name!r}"
            )
        raise self._rejection(f"no place has become free within {waited:.3f} s")

    def _give_back(self, slots: Slots[AnyWaiter], waiter: AnyWaiter | None = None) -> None:
        """Give back a place; or what `waiter` has, who was interrupted: a place, or where it stands in line.

        The garbage collector may call this in the middle of a decision, on the thread that holds the lock:
        when it finds a coroutine that was abandoned. Then it is left to that decision's end.
        """
        self._returned.append((slots, waiter))  # atomic, also without the GIL
        self._take_back()

    def _take_back(self) -> None:
        """Let the next in line have each place that was given back, unless its event loop is closed."""
        while self._returned:
            with self._lock:
                if self._deciding or not self._returned:
                    return
                self._deciding = True
                try:
                    slots, waiter = self._returned.popleft()
                    following = self._next_after(slots, waiter)
                finally:
                    self._deciding = False
            if following is not None and not following.wake():
                self._returned.append((slots, following))

    def _next_after(self, slots: Slots[AnyWaiter], waiter: AnyWaiter | None) -> AnyWaiter | None:
        """Return who has the place now that was given back. The caller holds the lock."""
        if waiter is not None:
            slots.leave(waiter, waiter.priority)
            fate, waiter.fate = waiter.fate, Fate.SENT_AWAY
            if fate is not Fate.ADMITTED:
                return None
        following = slots.release()
        if following is not None:
            following.fate = Fate.ADMITTED
        return following

    def _rejection(self, reason: str) -> BulkheadFullError:
        """Count and tell a rejection; return its error.

        How long the last one had to wait who got a place is the best guess of how long the next one will.
        """
        with self._lock:
            self._rejected += 1
            last_wait = self._last_wait
        if events.is_heard(self._hooks):
            events.publish(events.CallRefused("bulkhead", self._name, reason), self._hooks)
        return BulkheadFullError(self._name, reason, last_wait)

    def _decorated(self, wrapper: Callable[..., Any], fn: Callable[..., Any]) -> Any:
        if not self._named:
            self._named, self._name = True, name_of(fn)
        return update_wrapper(wrapper, fn)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"{type(self).__name__} {self._name!r} cannot be copied or pickled: it holds a lock and the "
            "places of live calls; share the one there is, and make another in each process"
        )

    def __repr__(self) -> str:
        """Show its name, and how many run and wait."""
        slots = self._slots
        return (
            f"<{type(self).__name__} {self._name!r}, {slots.running} of {self._limit}, {slots.waiting} wait>"
        )
