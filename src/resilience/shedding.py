"""A server's own protection: it refuses at once what would not be done in time, the least critical first.

It stands at the door, and decides by what it has seen (`_core.shedding`): how long work of each kind takes,
how much is pending, how much time the deadline of the context leaves (`resilience.deadline`), and how
critical the work is (`resilience.criticality`). It never waits, so one object serves threads and event loops
at the same time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from resilience import checks, events
from resilience._core.criticality import Criticality
from resilience._core.shedding import Policy, Shedder
from resilience.admission import Admission, Permit
from resilience.callables import name_of
from resilience.clock import SYSTEM_CLOCK
from resilience.criticality import current_criticality
from resilience.deadline import CURRENT
from resilience.fork import bound_lock, survive_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from resilience.clock import Clock
    from resilience.events import Listener

__all__ = ["LoadShedder", "LoadShedderStats", "WorkPermit"]


class LoadShedderStats(NamedTuple):
    """A load shedder at one moment."""

    name: str
    pending: int
    """Pieces of work that were admitted and have not ended."""
    expected_wait: float
    """Seconds that what comes now would wait before its work begins."""
    refused: int
    """Pieces that were refused, since it was made."""


class Work:
    """A piece of work that was admitted, and has not ended."""

    __slots__ = ("arrived", "began", "core", "criticality", "kind")

    def __init__(self, core: Shedder, kind: str, criticality: Criticality, arrived: float) -> None:
        self.core = core
        """Where it is counted: a fork begins another count."""
        self.kind = kind
        self.criticality = criticality
        self.arrived = arrived
        """When it came, on the shedder's clock."""
        self.began = arrived
        """When its work began: when it came, unless a permit's `begin` has said otherwise."""


class WorkPermit(Permit[Work]):
    """The right to do one piece of work; it is pending until it is settled."""

    __slots__ = ("_shedder",)

    def __init__(self, shedder: LoadShedder, work: Work) -> None:
        super().__init__(shedder, work)
        self._shedder = shedder

    def begin(self) -> None:
        """Begin the work now, after a wait in line; look once more whether that is still worth it.

        Call it inside the block, when a worker has taken the work up. Without it, all of the time from when
        it came counts as time of work.

        Raises:
            OverloadedError: It has waited too long, or too little time is left: do not begin. The permit is
                settled then, as neutral.
            DeadlineExceeded: The deadline of the context has passed; likewise.
        """
        try:
            self._shedder.begin(self.ticket)
        except BaseException:
            self.neutral()
            raise


class LoadShedder(Admission[Work]):
    """Refuses work that would not be done in time, at the door, for servers.

    Args:
        workers: How many pieces of work are done at a time, at least 1: the size of the pool of threads, say.
            With it, the wait in line is foreseen; None where nothing waits, or nobody knows how many there
            are.
        max_wait: Seconds that the most critical work may wait in line, above 0; less critical work three
            quarters, a half, a quarter of it. Choose at most half of the time after which clients give up.
            None for no bound.
        share: For what share of its kind the time that is left must be enough, above 0 and up to 1.
        window: Seconds for which a piece of work is remembered, above 0. When a slow phase has ended, work
            may be refused for that long still.
        name: What errors, events and statistics call it; a number where left out.
        clock: Where time comes from.
        on_refused: Called with a `CallRefused` for each piece of work that was refused.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Threads, tasks and event loops may share it. Cancelled work says nothing about how long it takes.

    Example:
        >>> from resilience import deadline
        >>> from resilience.testing import FakeClock
        >>> clock = FakeClock()
        >>> api = LoadShedder(name="api", clock=clock)
        >>> @api
        ... def report() -> str:
        ...     clock.advance(2.0)
        ...     return "done"
        >>> for _ in range(5):
        ...     _ = report()                                    # five times 2 s: now it is known
        >>> with deadline(1.0, clock=clock):
        ...     try:
        ...         report()
        ...     except Exception as error:
        ...         print(error)
        'api' is overloaded: 1.000 s are left, and it takes 2.000 s
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        max_wait: float | None = None,
        share: float = 0.9,
        window: float = 10.0,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_refused: Listener | None = None,
    ) -> None:
        self._policy = Policy(
            None if workers is None else checks.count("workers", workers, least=1),
            None if max_wait is None else checks.number("max_wait", max_wait, above=0),
            checks.number("share", share, above=0, most=1),
            checks.number("window", window, above=0),
        )
        super().__init__("load shedder", name, events.hooks(on_refused))
        self._now = clock.now
        self._refused = 0
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, and what is known: a worker that was forked has its own work."""
        self._lock = bound_lock()
        self._core = Shedder(self._policy)
        self._given_back: deque[Shedder] = deque()

    def acquire(self, kind: str = "", *, criticality: Criticality | str | None = None) -> WorkPermit:
        """Return a permit for one piece of work, as a block or to be settled when it has ended.

        Args:
            kind: What kind of work it is: the time that it takes is known for each kind. At most a thousand
                kinds are known at a time, so take a route, not an address.
            criticality: How much it matters; where left out, what the context says.

        Raises:
            OverloadedError: It would wait too long, or too little time is left for it.
            DeadlineExceeded: The deadline of the context has passed.

        Example:
            >>> with LoadShedder().acquire("search"):
            ...     print("the work")
            the work
        """
        level = current_criticality() if criticality is None else Criticality.of(criticality)
        return WorkPermit(self, self._admit(kind, level))

    guard = acquire

    def admission_of(self, fn: Callable[..., Any]) -> Callable[[], Work]:
        """Return what admits a call of `fn`; each function is a kind of work."""
        kind = name_of(fn)
        return lambda: self._admit(kind, current_criticality())

    def _admit(self, kind: str, level: Criticality) -> Work:
        left = self._left()
        now = self._now()
        with self._lock:
            self._take_back()
            core = self._core
            refusal = core.admit(kind, level, left, now)
            self._refused += refusal is not None
        if refusal is not None:
            raise self._refusal(*refusal)
        return Work(core, kind, level, now)

    def stats(self) -> LoadShedderStats:
        """Return its figures, all of the same instant."""
        now = self._now()
        with self._lock:
            self._take_back()
            wait = self._core.expected_wait(now)
            return LoadShedderStats(self._name, self._core.pending, wait, self._refused)

    def estimate(self, kind: str = "") -> float | None:
        """Return the seconds that are enough for most work of this kind; None where too little is known."""
        now = self._now()
        with self._lock:
            return self._core.estimate(kind, now)

    def begin(self, work: Work) -> None:
        """Let work begin now; a permit asks that.

        Raises:
            OverloadedError, DeadlineExceeded: It should not begin.
        """
        left = self._left()
        now = self._now()
        with self._lock:
            refusal = work.core.begin(work.kind, work.criticality, now - work.arrived, left, now)
            self._refused += refusal is not None
        if refusal is not None:
            raise self._refusal(*refusal)
        work.began = now

    def take(self, ticket: Work, error: Exception | None) -> None:  # noqa: ARG002 - a failure takes its time too
        """Take the end of work that has come by itself; for permits and wrappers, once."""
        now = self._now()
        with self._lock:
            ticket.core.end(ticket.kind, max(0.0, now - ticket.began), now)

    def give_back(self, ticket: Work) -> None:
        """Take the end of work that says nothing; for permits and wrappers, once."""
        self._given_back.append(
            ticket.core
        )  # atomic; see `resilience.adaptive`, which does so for the same reason

    def _take_back(self) -> None:
        """Take the neutral outcomes that were noted. The caller holds the lock."""
        while self._given_back:
            self._given_back.popleft().end("", None, 0.0)

    def _left(self) -> float | None:
        deadline = CURRENT.get()
        if deadline is None:
            return None
        deadline.require(f"work of {self._name!r}")
        return deadline.left()

    def __repr__(self) -> str:
        """Show its name, and how much is pending."""
        return f"<LoadShedder {self._name!r}, {self._core.pending} pending>"
