"""What all stores on a server have in common: how they ask it, and how they behave while it is down.

A store is an *engine*, which speaks to one kind of server, and around it `Remote` or `AsyncRemote`, which
bound and guard it. Rules:
    - A call ends within `timeout` seconds, or sooner where the context's deadline comes first.
    - A reply that was lost is asked for once more if time is left, with the same token, by which the server
      knows that it has charged already.
    - A server out of reach is not asked again and again: a circuit breaker, one for each store, rejects the
      calls meanwhile, and lets a few through to see whether it is back, at a time of its own in each process.
    - What was not decided is a `StoreUnavailable`, and never a refusal. The log hears of it once a minute.
    - What was refused is refused again without asking, until the time that was told.
    - A refund and a reset are made even if the deadline has passed, or the call is cancelled: they tidy up.
"""

from __future__ import annotations

import asyncio  # the clients of both servers load it anyway
import threading
from math import inf
from os import urandom
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar

from resilience._core.refusals import Refusals
from resilience.breaker import CircuitBreaker
from resilience.checks import number
from resilience.clock import SYSTEM_CLOCK
from resilience.deadline import CURRENT
from resilience.errors import CircuitOpenError, DeadlineExceeded
from resilience.fork import survive_fork
from resilience.stores import StoreUnavailable
from resilience.stores.outage_log import OutageLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
    from types import TracebackType

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Decision
    from resilience.breaker.gate import Permit
    from resilience.clock import Clock
    from resilience.stores import Holding

Answer = TypeVar("Answer")

TIMEOUT: Final = 0.05
"""Seconds that a call takes at most, unless told: what a request can spare for being counted."""

_MOST_REFUSALS: Final = 10_000
"""How many refused keys a store remembers: some megabytes, if ever reached."""


class Lost(Exception):  # noqa: N818 - the name says what is the case
    """There was no connection, or no whole reply in time: unknown whether the server has done it.

    It may be asked again with the same token. The message says what happened; the client's error is its cause.
    """


class Unable(StoreUnavailable):
    """The server answered that it is not able to at the moment: it is starting, say, or was told to stop.

    For the breaker that is as bad as no answer. Other errors that a server answers are no sign of an outage.
    """


class Engine(Protocol):
    """Speaks to one kind of server. Threads may share it, and it survives a fork.

    Each method returns or raises by `until`, an instant of the store's clock. A connection on which a reply
    may still be on its way is never used again.

    Raises, each of them:
        Lost: There was no connection, or no whole reply.
        Unable: The server is not able at the moment.
        StoreUnavailable: The server answered by an error, with what to do about it. It has taken nothing.
    """

    def take(self, charges: Sequence[Charge], token: bytes, until: float) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself.

        Of two calls with the same `token`, 16 random bytes, the second takes nothing if the first has taken.
        """
        ...

    def peek(self, charges: Sequence[Charge], until: float) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        ...

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes, until: float) -> None:
        """Give back charges that were taken, once for each `token`."""
        ...

    def reset(self, counters: Sequence[Counter], key: str | bytes, until: float) -> None:
        """Forget what counts for `key`."""
        ...

    def holding(self, counters: Sequence[Counter], limit: int, until: float) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        ...

    def close(self) -> None:
        """Let go of the connections; a second time does nothing."""
        ...


class AsyncEngine(Protocol):
    """The same for event loops, each method awaited. A cancelled one leaves at once."""

    async def take(self, charges: Sequence[Charge], token: bytes, until: float) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself.

        Of two calls with the same `token`, 16 random bytes, the second takes nothing if the first has taken.
        """
        ...

    async def peek(self, charges: Sequence[Charge], until: float) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        ...

    async def refund(
        self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes, until: float
    ) -> None:
        """Give back charges that were taken, once for each `token`."""
        ...

    async def reset(self, counters: Sequence[Counter], key: str | bytes, until: float) -> None:
        """Forget what counts for `key`."""
        ...

    async def holding(self, counters: Sequence[Counter], limit: int, until: float) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        ...

    async def close(self) -> None:
        """Let go of the connections; a second time does nothing."""
        ...


class _Guard:
    """What both have in common: all that does not wait for the server."""

    shared = True

    def __init__(
        self,
        what: str,
        *,
        timeout: float,
        remember_refusals: float,
        breaker: CircuitBreaker | None,
        clock: Clock,
    ) -> None:
        self.what = what
        """What the server is called, without a password."""
        self.clock: Clock = clock
        self.timeout = number("timeout", timeout, above=0, most=60)
        """Seconds that a call takes at most."""
        self.breaker = _breaker_of(what, self.timeout, clock) if breaker is None else breaker
        """What rejects calls while the server is out of reach."""
        self.log = OutageLog(what, clock)
        longest = remember_refusals
        if longest != inf:
            longest = number("remember_refusals", remember_refusals, least=0)
        self._remembers = longest > 0
        self._refusals = Refusals(_MOST_REFUSALS, longest * 1e9)
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew."""
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        """Return what it is, and on which server."""
        return f"<{type(self).__name__} on {self.what}>"

    def __reduce__(self) -> Any:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"{self!r} cannot be copied or pickled: it holds connections; make one in each process"
        )

    def _call(self) -> _Call:
        """Return the frame of a question, which ends with the deadline of this context at the latest.

        Raises:
            DeadlineExceeded: The deadline has passed.
        """
        now = self.clock.now()
        deadline = CURRENT.get()
        if deadline is not None:
            deadline.require(f"asking {self.what}")
            left = deadline.left()
            if left < self.timeout:
                return _Call(self, now, now + left, to_deadline=True)
        return _Call(self, now, now + self.timeout)

    def _tidying(self) -> _Call:
        """Return the frame of a question that is asked whatever the deadline."""
        now = self.clock.now()
        return _Call(self, now, now + self.timeout)

    def _remembered(self, charges: Sequence[Charge]) -> list[Decision] | None:
        """Return the decisions if one of the charges is known to be refused."""
        return self._refusals.decide(charges, int(self.clock.now() * 1e9))

    def _remember(
        self, charges: Sequence[Charge], decisions: Sequence[Decision], asked: float, changes: int
    ) -> None:
        if self._remembers:
            with self._lock:
                self._refusals.note(charges, decisions, int(asked * 1e9), changes)

    def _forget(self, counters: Iterable[Counter], key: str | bytes) -> None:
        with self._lock:
            self._refusals.forget(counters, key)

    def _forget_all(self, charges: Sequence[Charge]) -> None:
        for charge in charges:
            self._forget((charge.counter,), charge.key)


class _Call:
    """The frame of one question: asks the breaker first, and says what came of it afterwards.

    It belongs to one call, and is entered once.
    """

    __slots__ = ("_guard", "_permit", "_to_deadline", "began", "until")

    _permit: Permit

    def __init__(self, guard: _Guard, began: float, until: float, *, to_deadline: bool = False) -> None:
        self._guard = guard
        self.began = began
        self.until = until
        self._to_deadline = to_deadline

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._guard.clock.now() >= self.until

    def __enter__(self) -> None:
        """Begin.

        Raises:
            StoreUnavailable: The breaker rejects the call.
        """
        guard = self._guard
        try:
            self._permit = guard.breaker.acquire()
        except CircuitOpenError as rejection:
            wait = rejection.retry_after
            until_when = "its breaker is held open" if wait is None else f"it is asked again in {wait:.1f} s"
            raise self._unavailable(f"it did not answer lately, and {until_when}", wait) from rejection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tell the breaker and the log what came of it.

        Raises:
            DeadlineExceeded: The deadline passed before there was a reply.
            StoreUnavailable: There was none in time.
        """
        guard, permit = self._guard, self._permit
        if error is None:
            permit.success()
            if guard.log.is_told:
                guard.log.answered()
        elif isinstance(error, Lost):
            if self.until - self.began < guard.timeout / 2:
                permit.neutral()  # so short a time says nothing about the server
            else:
                permit.failure(error)
            if self._to_deadline and self.is_over:
                raise DeadlineExceeded(
                    f"the deadline passed while {guard.what} was asked: {error}"
                ) from error
            raise self._unavailable(f"{error}; it must run, and answer within {guard.timeout:g} s") from error
        elif isinstance(error, StoreUnavailable):
            out_of_reach = isinstance(error, Unable)
            if out_of_reach:
                permit.failure(error)
            else:
                permit.neutral()
            guard.log.failed(error, out_of_reach=out_of_reach)
        else:
            permit.neutral()

    def _unavailable(self, why: str, retry_after: float | None = None) -> StoreUnavailable:
        error = StoreUnavailable(
            f"the limits on {self._guard.what} are unavailable: {why}", retry_after=retry_after
        )
        self._guard.log.failed(error, out_of_reach=True)
        return error


class Remote(_Guard):
    """A store on a server, for threads.

    Args:
        engine: What speaks to the server.
        what: What messages call the server, without a password: `"redis://cache:6379/0"`.
        timeout: Seconds that a call takes at most, above 0 and up to 60.
        remember_refusals: Seconds for which a refusal is answered without asking again, at most, whatever
            time was told; 0 asks each time.
        breaker: What rejects calls while the server is out of reach; one of its own where left out.
        clock: Where time comes from; decisions are made by the server's.

    Raises:
        TypeError, ValueError: A number is none, or out of its range.

    Every question may raise `StoreUnavailable`, and all but `refund` and `reset` `DeadlineExceeded`. Threads
    may share it, and it survives a fork. Close it, or use it as a context manager, to let go of the connections.
    """

    blocking = True

    def __init__(
        self,
        engine: Engine,
        what: str,
        *,
        timeout: float = TIMEOUT,
        remember_refusals: float = inf,
        breaker: CircuitBreaker | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(
            what, timeout=timeout, remember_refusals=remember_refusals, breaker=breaker, clock=clock
        )
        self._engine = engine

    def close(self) -> None:
        """Let go of the connections. Closing it again does nothing."""
        self._engine.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()

    def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        refusals = self._refusals
        if refusals.held:
            remembered = self._remembered(charges)
            if remembered is not None:
                return remembered
        changes = refusals.changes
        call = self._call()
        decisions = self._ask(call, self._engine.take, charges, urandom(16))
        if not all(decisions):
            self._remember(charges, decisions, call.began, changes)
        return decisions

    def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return self._ask(self._call(), self._engine.peek, charges)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; what has lapsed meanwhile is not given back again."""
        try:
            self._ask(self._tidying(), self._engine.refund, charges, receipts, urandom(16))
        finally:
            self._forget_all(charges)

    def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`."""
        try:
            self._ask(self._tidying(), self._engine.reset, counters, key)
        finally:
            self._forget(counters, key)

    def holding(self, counters: Sequence[Counter], limit: int) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        return self._ask(self._call(), self._engine.holding, counters, limit)

    @staticmethod
    def _ask(call: _Call, ask: Callable[..., Answer], *arguments: Any) -> Answer:
        """Return what `ask` returns, asked a second time if its reply was lost and time is left."""
        with call:
            try:
                return ask(*arguments, call.until)
            except Lost:
                if call.is_over:
                    raise
            return ask(*arguments, call.until)


class AsyncRemote(_Guard):
    """A store on a server, for tasks of any number of event loops.

    Args:
        engine: What speaks to the server.
        what: What messages call the server, without a password: `"redis://cache:6379/0"`.
        timeout: Seconds that a call takes at most, above 0 and up to 60.
        remember_refusals: Seconds for which a refusal is answered without asking again, at most, whatever
            time was told; 0 asks each time.
        breaker: What rejects calls while the server is out of reach; one of its own where left out.
        clock: Where time comes from; decisions are made by the server's.

    Raises:
        TypeError, ValueError: A number is none, or out of its range.

    Every question may raise `StoreUnavailable`, and all but `refund` and `reset` `DeadlineExceeded`. A
    cancelled call leaves at once; what it may have taken is given back by a task of its own, and a refund or
    a reset is made all the same. Closing waits for these tasks. A loop that ends sooner cancels them: then
    the units count until they lapse.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        what: str,
        *,
        timeout: float = TIMEOUT,
        remember_refusals: float = inf,
        breaker: CircuitBreaker | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(
            what, timeout=timeout, remember_refusals=remember_refusals, breaker=breaker, clock=clock
        )
        self._engine = engine

    def after_fork(self) -> None:
        """Make the lock anew; the parent's tasks do not run here."""
        super().after_fork()
        self._afterwards: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Let go of the connections, once cancelled calls are tidied up. Closing it again does nothing."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*[task for task in tuple(self._afterwards) if task.get_loop() is loop])
        await self._engine.close()

    async def __aenter__(self) -> Self:
        """Return the store."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close it."""
        await self.close()

    async def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        refusals = self._refusals
        if refusals.held:
            remembered = self._remembered(charges)
            if remembered is not None:
                return remembered
        changes = refusals.changes
        call = self._call()
        token = urandom(16)
        try:
            decisions = await self._ask(call, self._engine.take, charges, token)
        except asyncio.CancelledError:
            self._tidy_up(self._undo(charges, token))
            raise
        if not all(decisions):
            self._remember(charges, decisions, call.began, changes)
        return decisions

    async def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return await self._ask(self._call(), self._engine.peek, charges)

    async def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; also if the call is cancelled."""
        token = urandom(16)
        try:
            await self._refund(charges, receipts, token)
        except asyncio.CancelledError:
            self._tidy_up(self._refund(charges, receipts, token))
            raise

    async def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`; also if the call is cancelled."""
        try:
            await self._reset(counters, key)
        except asyncio.CancelledError:
            self._tidy_up(self._reset(counters, key))
            raise

    async def holding(self, counters: Sequence[Counter], limit: int) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        return await self._ask(self._call(), self._engine.holding, counters, limit)

    async def _refund(self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes) -> None:
        try:
            await self._ask(self._tidying(), self._engine.refund, charges, receipts, token)
        finally:
            self._forget_all(charges)

    async def _reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        try:
            await self._ask(self._tidying(), self._engine.reset, counters, key)
        finally:
            self._forget(counters, key)

    async def _undo(self, charges: Sequence[Charge], token: bytes) -> None:
        """Give back what a cancelled `take` with `token` has taken, or may yet.

        The server knows the token: asked again, it tells what it has taken then. If the first request never
        reached it, it takes now; and if that comes in late, it takes no more.
        """
        decisions = await self._ask(self._tidying(), self._engine.take, charges, token)
        if all(decisions):
            await self._refund(charges, [decision.receipt for decision in decisions], urandom(16))

    def _tidy_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` in a task of its own, for a caller who is gone."""
        task = asyncio.get_running_loop().create_task(_logged(work))
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)

    @staticmethod
    async def _ask(call: _Call, ask: Callable[..., Awaitable[Answer]], *arguments: Any) -> Answer:
        """Return what `ask` returns, asked a second time if its reply was lost and time is left."""
        with call:
            try:
                return await ask(*arguments, call.until)
            except Lost:
                if call.is_over:
                    raise
            return await ask(*arguments, call.until)


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    """Await `work`, whose failure nobody is there for any more."""
    try:
        await work
    except Exception:
        import logging  # noqa: PLC0415 - loaded only when something went wrong

        logging.getLogger("resilience").exception(
            "a cancelled call could not be tidied up: its units count until they lapse"
        )


def _breaker_of(what: str, timeout: float, clock: Clock) -> CircuitBreaker:
    """Return a breaker that finds out within seconds that a server is back, though not with everybody at once."""
    return CircuitBreaker(
        recovery_time=1.0, recovery_jitter=0.5, probe_lease=1.0 + timeout, name=what, clock=clock
    )
