"""Asks a store from an event loop: at once if it never blocks, and in a worker thread if it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from resilience.callables import Kind, kind_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Decision
    from resilience.clock import Clock
    from resilience.stores import AsyncStore, Holding, Store

Result = TypeVar("Result")


def on_loop(store: Store | AsyncStore) -> AsyncStore:
    """Return `store` as one whose methods are awaited."""
    if kind_of(store.take) is Kind.ASYNC:
        return store  # type: ignore[return-value]  # its methods are coroutine functions
    return OffLoop(store) if store.blocking else Inline(store)  # type: ignore[union-attr,arg-type]  # it is a Store


class Inline:
    """A store that never blocks, such as memory: asked at once, with nothing that could be cancelled."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.shared = store.shared
        self.clock: Clock = store.clock

    async def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        return self._store.take(charges)

    async def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return self._store.peek(charges)

    async def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken."""
        self._store.refund(charges, receipts)

    async def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`."""
        self._store.reset(counters, key)

    async def holding(self, counters: Sequence[Counter], limit: int) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        return self._store.holding(counters, limit)


class OffLoop:
    """A store that blocks, such as a file: asked in the loop's worker threads.

    A cancelled call leaves at once. The thread cannot be stopped, so what it takes after that is given
    back by the thread itself, and what it had taken just before by another.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.shared = store.shared
        self.clock: Clock = store.clock

    async def take(self, charges: Sequence[Charge]) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        import asyncio  # noqa: PLC0415 - a service without an event loop does not pay for one

        errand = _Errand(self._store, charges)
        try:
            return await _in_thread(errand.run)
        except asyncio.CancelledError:
            if errand.abandon():
                try:
                    asyncio.get_running_loop().run_in_executor(None, errand.give_back)
                except RuntimeError:  # the loop is about to end and has no more threads: it may as well wait
                    errand.give_back()
            raise

    async def peek(self, charges: Sequence[Charge]) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return await _in_thread(self._store.peek, charges)

    async def refund(self, charges: Sequence[Charge], receipts: Sequence[int]) -> None:
        """Give back charges that were taken; also if the call is cancelled."""
        await _in_thread(self._store.refund, charges, receipts)

    async def reset(self, counters: Sequence[Counter], key: str | bytes) -> None:
        """Forget what counts for `key`; also if the call is cancelled."""
        await _in_thread(self._store.reset, counters, key)

    async def holding(self, counters: Sequence[Counter], limit: int) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        return await _in_thread(self._store.holding, counters, limit)


async def _in_thread(fn: Callable[..., Result], *args: Any) -> Result:
    """Await `fn` in a worker thread, which goes on if this task is cancelled."""
    import asyncio  # noqa: PLC0415 - see OffLoop.take

    running = asyncio.get_running_loop().run_in_executor(None, fn, *args)
    running.add_done_callback(_look_at)
    return await asyncio.shield(running)


def _look_at(finished: asyncio.Future[Any]) -> None:
    """Take note of an error that a cancelled caller is no longer there for."""
    if not finished.cancelled():
        finished.exception()


class _Errand:
    """One `take` in a thread, whose caller may be gone by the time it is done.

    Thread and caller each take the one token when they are finished. Whoever finds it gone is the second,
    and knows what the first has done. Taking it is atomic, also without the GIL.
    """

    def __init__(self, store: Store, charges: Sequence[Charge]) -> None:
        self._store = store
        self._charges = charges
        self._decisions: list[Decision] = []
        self._token = [True]

    def run(self) -> list[Decision]:
        """Take the charges; give them back if the caller has gone."""
        self._decisions = self._store.take(self._charges)
        if not self._take_token():
            self.give_back()
        return self._decisions

    def abandon(self) -> bool:
        """Say that the caller is gone; return whether the charges were decided before, and stand."""
        return not self._take_token()

    def give_back(self) -> None:
        """Give back what was taken, or log why that cannot be done."""
        if not all(self._decisions):
            return
        try:
            self._store.refund(self._charges, [decision.receipt for decision in self._decisions])
        except Exception:
            import logging  # noqa: PLC0415 - loaded only when something went wrong

            logging.getLogger("resilience").exception(
                "a cancelled call's units could not be given back; they count until they lapse"
            )

    def _take_token(self) -> bool:
        try:
            self._token.pop()
        except IndexError:
            return False
        return True
