"""The same call once more where the first takes longer than usual: the first good answer counts.

A slow answer is often the bad luck of one server, one connection, one moment. To ask again costs little
where that is rare, and takes the tail off the latencies. Where *everything* is slow it would double the load,
so each hedge is paid for from a retry budget, and where that is exhausted nothing is asked again.

Rules:
    - Async only. The attempt that has lost must be ended, or it goes on burdening the dependency; a thread
      cannot be ended from outside.
    - Only for what may be done twice: both attempts may be carried out in full.
    - A hedge is no retry. If an attempt fails while no other is under way, the call has failed.
    - A hedge costs what a retry costs, and nothing comes back for it: unlike a retry that succeeds, one that
      wins does not show that the dependency is well. A call that succeeds at once earns its credit.
    - The answer is returned as soon as it is there, while attempts that have lost may still be unwinding. A
      call that is cancelled from outside waits for all its attempts to unwind, as a plain call does.

How a call and its attempts go is in `resilience.racing`; when a call is slow, in `_core.hedging`.
"""

from __future__ import annotations

from functools import update_wrapper
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, ParamSpec, TypeVar

from resilience import checks
from resilience._core.hedging import Latencies
from resilience.callables import Kind, kind_of, name_of
from resilience.clock import SYSTEM_CLOCK
from resilience.events import HedgeRefused, HedgeStarted, HedgeWon, hooks, publish
from resilience.fork import bound_lock, survive_fork
from resilience.retry.budget import RetryBudget, budget_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable
    from types import EllipsisType

    from resilience.clock import Clock
    from resilience.events import Listener

P = ParamSpec("P")
R = TypeVar("R")

MOST_LATENCIES = 1000
"""How many of the latest latencies count: 100 kB."""

_numbers = count(1)


class HedgeStats(NamedTuple):
    """A hedge at one moment."""

    name: str
    delay: float | None
    """Seconds after which the next call would be hedged; None while too little is known."""
    hedges: int
    """Attempts that were made on top of the first ones."""
    wins: int
    """Those of them whose answer counted."""
    refused: int
    """Attempts that were left out because the budget was exhausted."""
    discarded: int
    """Answers that came too late, and were disposed of."""
    unwinding: int
    """Attempts that have lost, and have not ended yet, and disposals under way."""


class Hedge:
    """Makes the same call once more where it takes longer than usual, and returns the first good answer.

    Exactly one of `delay` and `percentile` says how long is usual. What has lost is cancelled, and its answer
    disposed of, should there be one.

    Args:
        delay: Seconds after which another attempt is made, above 0.
        percentile: The share of the calls that take less than that, above 0 and below 1: by 0.95, what takes
            longer than 95 calls in a hundred did is asked again. It goes by first attempts that succeeded,
            and by those that took longer before they failed or were given up.
        max_attempts: Attempts in all, the first included; at least 2. Each further one comes as long after
            the one before it.
        window: Seconds that a latency counts for the percentile, above 0; at most the latest 1000 count.
        minimum_calls: How many must be known before anything is hedged by percentile, at least 1.
        budget: A `RetryBudget` to share with the retries of the same dependency, or None for no limit. Left
            out: the one of the name, which retries of that name share; without a name, one of its own.
        on_discard: Called with each answer that came too late; a function or a coroutine function. Left out,
            the answer's own `aclose()` or `close()` is called, if it has one.
        name: The dependency's name. Left out, errors and events bear that of the first function it decorates.
        clock: What latencies are measured on.
        on_hedge: Called with a `HedgeStarted`, `HedgeWon` or `HedgeRefused`.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Tasks, event loops and threads may share it. Attempts run in tasks of their own, each with a copy of the
    context. An exception goes up as it was raised: where all attempts fail, that of the first.

    Example:
        >>> import asyncio
        >>> replicas = iter([10.0, 0.0])
        >>> @Hedge(0.01, name="replicas")
        ... async def read(key: str) -> str:
        ...     seconds = next(replicas)
        ...     await asyncio.sleep(seconds)
        ...     return f"{key} after {seconds} s"
        >>> asyncio.run(read("a"))
        'a after 0.0 s'
    """

    __slots__ = (
        "__weakref__",
        "_by_hand",
        "_discarded",
        "_hedges",
        "_hooks",
        "_latencies",
        "_lock",
        "_name",
        "_named",
        "_refused",
        "_unwinding",
        "_wins",
        "budget",
        "clock",
        "max_attempts",
        "on_discard",
    )

    def __init__(
        self,
        delay: float | None = None,
        *,
        percentile: float | None = None,
        max_attempts: int = 2,
        window: float = 60.0,
        minimum_calls: int = 20,
        budget: RetryBudget | EllipsisType | None = ...,
        on_discard: Callable[[Any], Any] | None = None,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_hedge: Listener | None = None,
    ) -> None:
        if name is not None and not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"name={name!r} must be a string, the dependency's name")
        if (delay is None) == (percentile is None):
            raise TypeError(
                "a Hedge needs exactly one of delay and percentile, which say when a call is slow"
            )
        if on_discard is not None and kind_of(on_discard) not in {Kind.SYNC, Kind.ASYNC}:
            raise TypeError(
                f"on_discard={on_discard!r} must be a function or a coroutine function of an answer"
            )
        if budget is ...:
            budget = RetryBudget() if name is None else budget_of(name)
        elif budget is not None and not isinstance(budget, RetryBudget):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"budget={budget!r} must be a RetryBudget, or None to switch it off")
        self._by_hand = None if delay is None else checks.number("delay", delay, above=0)
        self.max_attempts = checks.count("max_attempts", max_attempts, least=2)
        window = checks.number("window", window, above=0)
        minimum = checks.count("minimum_calls", minimum_calls, least=1)
        self._latencies: Latencies | None = None
        if percentile is not None:
            share = checks.number("percentile", percentile, above=0, most=1)
            if share == 1:
                raise ValueError("percentile must be below 1: nothing takes longer than everything does")
            self._latencies = Latencies(share, window, minimum, max(MOST_LATENCIES, minimum))
        self.budget = budget
        self.clock = clock
        self.on_discard = on_discard
        self._named = name is not None
        self._name = f"hedge-{next(_numbers)}" if name is None else name
        self._hooks = hooks(on_hedge)
        self._hedges = self._wins = self._refused = self._discarded = 0
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew; the parent's tasks are not ours."""
        self._lock = bound_lock()
        self._unwinding: set[asyncio.Future[Any]] = set()

    @property
    def name(self) -> str:
        """What errors, events and statistics call it."""
        return self._name

    def stats(self) -> HedgeStats:
        """Return its figures, all of the same instant."""
        now = self.clock.now()
        with self._lock:
            return HedgeStats(
                self._name,
                self._delay(now),
                self._hedges,
                self._wins,
                self._refused,
                self._discarded,
                len(self._unwinding),
            )

    # --- running calls ---------------------------------------------------------------------------

    async def execute(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` and await what it returns, perhaps twice at a time; return the first good answer.

        Raises:
            DeadlineExceeded: There was none at the deadline of the context; or that had passed before.
            TypeError: `fn` returned nothing that can be awaited.
            Exception: All attempts have failed; what the first one raised.
        """
        from resilience.racing import raced, refuse_unawaitable  # noqa: PLC0415 - asyncio is not for everybody

        async def attempt(*args: Any, **kwargs: Any) -> Any:
            awaitable = fn(*args, **kwargs)
            if not hasattr(awaitable, "__await__"):
                refuse_unawaitable(fn, awaitable)
            return await awaitable

        return await raced(self, attempt, args, kwargs)  # type: ignore[no-any-return]  # what fn returned

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Decorate `fn`, a coroutine function.

        Raises:
            TypeError: It is another kind of function.
        """
        kind = kind_of(fn)
        if kind is Kind.SYNC:
            raise TypeError(
                f"{name_of(fn)} is no coroutine function: an attempt that has lost could not be ended, since "
                "a thread cannot be; hedge an async call"
            )
        if kind is not Kind.ASYNC:
            raise TypeError(
                f"{name_of(fn)} is a {kind.value}, whose answer comes bit by bit: hedge the call that opens "
                "the stream"
            )
        from resilience.racing import raced  # noqa: PLC0415 - see execute

        async def hedged(*args: Any, **kwargs: Any) -> Any:
            return await raced(self, fn, args, kwargs)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - as its kind says

        if not self._named:
            self._named, self._name = True, name_of(fn)
        return update_wrapper(hedged, fn)  # type: ignore[return-value]  # pyright: ignore[reportReturnType] - likewise

    async def drain(self) -> None:
        """Wait until all that has lost on this loop has ended, and what came too late is disposed of.

        For what has to come before the closing of the client that the calls go by.
        """
        import asyncio  # noqa: PLC0415 - see execute

        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                here = [task for task in self._unwinding if task.get_loop() is loop]
            if not here:
                return
            await asyncio.wait(here)

    # --- for races -------------------------------------------------------------------------------

    @property
    def learns(self) -> bool:
        """Whether it goes by latencies, which have to be told."""
        return self._latencies is not None

    def delay(self) -> float | None:
        """Return the seconds after which a call is slow that begins now; None while too little is known."""
        if self._latencies is None:
            return self._by_hand
        now = self.clock.now()
        with self._lock:
            return self._delay(now)

    def _delay(self, now: float) -> float | None:
        return self._by_hand if self._latencies is None else self._latencies.percentile(now)

    def took(self, seconds: float) -> None:
        """Take how long a first attempt has taken."""
        if self._latencies is not None:
            now = self.clock.now()
            with self._lock:
                self._latencies.add(seconds, now)

    def may_start(self, attempt: int, delay: float) -> bool:
        """Pay for another attempt; say whether that was possible, having told of it."""
        paid = self.budget is None or self.budget.try_withdraw()
        with self._lock:
            self._hedges += paid
            self._refused += not paid
        event: HedgeStarted | HedgeRefused
        if paid:
            event = HedgeStarted(self._name, attempt, delay)
        else:
            event = HedgeRefused(self._name, attempt, "budget exhausted")
        publish(event, self._hooks)
        return paid

    def succeeded(self, attempt: int, attempts: int) -> None:
        """Take note that this attempt has won, of so many."""
        if attempts == 1:
            # Read without the lock, as retries do: it can only leave a credit out, or lock for nothing.
            if self.budget is not None and self.budget.state.spent:
                self.budget.credit()
        elif attempt > 1:
            with self._lock:
                self._wins += 1
            publish(HedgeWon(self._name, attempt), self._hooks)

    def discards(self) -> None:
        """Count an answer that came too late."""
        with self._lock:
            self._discarded += 1

    def keep(self, task: asyncio.Future[Any]) -> None:
        """Hold on to a task that nobody waits for, until it has ended."""
        with self._lock:
            self._unwinding.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Future[Any]) -> None:
        with self._lock:
            self._unwinding.discard(task)

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"Hedge {self._name!r} cannot be copied or pickled: it holds live tasks and a budget; share the "
            "one there is, and make another in each process"
        )

    def __repr__(self) -> str:
        """Show its name, and when it asks again."""
        delay = self.stats().delay
        return f"<Hedge {self._name!r}, {'not yet' if delay is None else f'after {delay:g} s'}>"
