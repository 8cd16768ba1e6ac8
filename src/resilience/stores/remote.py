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
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from resilience.clock import SYSTEM_CLOCK
from resilience.fork import survive_fork
from resilience.stores import StoreUnavailable
from resilience.stores.engine import AsyncEngine, Engine, Lost, Unable
from resilience.stores.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Decision
    from resilience.breaker import CircuitBreaker
    from resilience.clock import Clock
    from resilience.stores import Holding
    from resilience.stores.guard import Call

__all__ = ["TIMEOUT", "AsyncEngine", "AsyncRemote", "Engine", "Lost", "Remote", "Unable"]

Answer = TypeVar("Answer")

TIMEOUT: Final = 0.05
"""Seconds that a call takes at most, unless told: what a request can spare for being counted."""


class _Tokens:
    """Makes 16 random bytes for each request, sooner than the system would.

    The generator is ours, seeded by the system: whoever calls `random.seed` in all processes alike would else
    make their requests look like each other's. All bytes are random, since a server may keep but a few.
    """

    def __init__(self) -> None:
        survive_fork(self)

    def after_fork(self) -> None:
        """Begin anew, or parent and child would go on with the same."""
        self._bits = Random().getrandbits  # noqa: S311 - no secret; one operation, which threads share

    def __call__(self) -> bytes:
        """Return a token that no other request has."""
        return self._bits(128).to_bytes(16, "big")


_token: Final = _Tokens()


class _OnServer:
    """What both have in common: what they are, and the guard around their questions."""

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
        self.clock: Clock = clock
        self._guard = Guard(
            what, timeout=timeout, remember_refusals=remember_refusals, breaker=breaker, clock=clock
        )

    @property
    def what(self) -> str:
        """What messages call the server."""
        return self._guard.what

    @property
    def timeout(self) -> float:
        """Seconds that a call takes at most."""
        return self._guard.timeout

    @property
    def breaker(self) -> CircuitBreaker:
        """What rejects calls while the server is out of reach."""
        return self._guard.breaker

    def __repr__(self) -> str:
        """Return what it is, and on which server."""
        return f"<{type(self).__name__} on {self.what}>"

    def __reduce__(self) -> Any:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"{self!r} cannot be copied or pickled: it holds connections; make one in each process"
        )


class Remote(_OnServer):
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
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Every question may raise `StoreUnavailable`, and all but `refund` and `reset` `DeadlineExceeded`. Threads
    may share it, and it survives a fork. Close it, or use it as a context manager, to let its connections go.
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
        guard = self._guard
        if guard.refusals.held:
            remembered = guard.known(charges)
            if remembered is not None:
                return remembered
        changes = guard.refusals.changes
        call = guard.call()
        decisions = self._ask(call, self._engine.take, charges, _token())
        if not all(decisions):
            guard.remember(charges, decisions, call.began, changes)
        return decisions

    def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return self._ask(self._guard.call(), self._engine.peek, charges)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; what has lapsed meanwhile is not given back again."""
        try:
            self._ask(self._guard.tidying(), self._engine.refund, charges, receipts, _token())
        finally:
            for charge in charges:
                self._guard.forget((charge.counter,), charge.key)

    def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`."""
        try:
            self._ask(self._guard.tidying(), self._engine.reset, counters, key)
        finally:
            self._guard.forget(counters, key)

    def holding(self, counters: Sequence[Counter], limit: int) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        return self._ask(self._guard.call(), self._engine.holding, counters, limit)

    @staticmethod
    def _ask(call: Call, ask: Callable[..., Answer], *arguments: Any) -> Answer:
        """Return what `ask` returns, asked a second time if its reply was lost and time is left."""
        with call:
            try:
                return ask(*arguments, call.until)
            except Lost:
                if call.is_over:
                    raise
            return ask(*arguments, call.until)


class AsyncRemote(_OnServer):
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
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

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
        survive_fork(self)

    def after_fork(self) -> None:
        """Begin without the parent's tasks, which do not run here."""
        self._afterwards: set[asyncio.Task[None]] = set()  # changed by single operations, which need no lock

    async def close(self) -> None:
        """Let go of the connections, once cancelled calls are tidied up. Closing it again does nothing."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*[task for task in list(self._afterwards) if task.get_loop() is loop])
        await self._engine.close()

    async def __aenter__(self) -> Self:
        """Return the store."""
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close it."""
        await self.close()

    async def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        guard = self._guard
        if guard.refusals.held:
            remembered = guard.known(charges)
            if remembered is not None:
                return remembered
        changes = guard.refusals.changes
        call = guard.call()
        token = _token()
        try:
            decisions = await self._ask(call, self._engine.take, charges, token)
        except asyncio.CancelledError:
            self._tidy_up(self._undo(charges, token))
            raise
        if not all(decisions):
            guard.remember(charges, decisions, call.began, changes)
        return decisions

    async def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return await self._ask(self._guard.call(), self._engine.peek, charges)

    async def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; also if the call is cancelled."""
        token = _token()
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
        return await self._ask(self._guard.call(), self._engine.holding, counters, limit)

    async def _refund(self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes) -> None:
        try:
            await self._ask(self._guard.tidying(), self._engine.refund, charges, receipts, token)
        finally:
            for charge in charges:
                self._guard.forget((charge.counter,), charge.key)

    async def _reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        try:
            await self._ask(self._guard.tidying(), self._engine.reset, counters, key)
        finally:
            self._guard.forget(counters, key)

    async def _undo(self, charges: Sequence[Charge], token: bytes) -> None:
        """Give back what a cancelled `take` with `token` has taken, or may yet.

        The server knows the token: asked again, it tells what it has taken then. If the first request never
        reached it, it takes now; and if that comes in late, it takes no more.
        """
        decisions = await self._ask(self._guard.tidying(), self._engine.take, charges, token)
        if all(decisions):
            await self._refund(charges, [decision.receipt for decision in decisions], _token())

    def _tidy_up(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` in a task of its own, for a caller who is gone."""
        task = asyncio.get_running_loop().create_task(_logged(work))
        self._afterwards.add(task)
        task.add_done_callback(self._afterwards.discard)

    @staticmethod
    async def _ask(call: Call, ask: Callable[..., Awaitable[Answer]], *arguments: Any) -> Answer:
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
    except StoreUnavailable:
        pass  # the log of the outage was told, which has a line a minute; there may be a thousand of these
    except Exception:
        import logging  # noqa: PLC0415 - loaded only when something went wrong

        logging.getLogger("resilience").exception(
            "a cancelled call could not be tidied up: its units count until they lapse"
        )
