"""What asks PostgreSQL the questions of a store, for threads and for tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from psycopg import pq

from resilience.stores import Holding
from resilience.stores.postgres.failures import AGAIN, failure_of, sqlstate_of
from resilience.stores.postgres.questions import Questions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg.pq.abc import PGresult

    from resilience._core.counting import Charge, Counter
    from resilience._core.quota import Decision
    from resilience.stores.postgres.pools import AsyncPool, Left, Pool
    from resilience.stores.postgres.questions import Question

Answer = TypeVar("Answer")

_MORE_ATTEMPTS: Final = 2
"""How often a transaction is made anew that lost against others."""


class PostgresEngine:
    """Asks on the lines of a pool.

    Args:
        pool: Where the lines come from.
        what: What messages call the server.
        patience: Milliseconds that the server may wait for a lock.
        now: Returns the instant, in seconds, on the clock that `until` is of.
    """

    def __init__(self, pool: Pool, what: str, patience: int, now: Callable[[], float]) -> None:
        self._pool = pool
        self._what = what
        self._questions = Questions(patience)
        self._now = now

    def take(self, charges: Sequence[Charge], token: bytes, until: float) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        return self._ask(self._questions.take(charges, token), until)

    def peek(self, charges: Sequence[Charge], until: float) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return self._ask(self._questions.peek(charges), until)

    def refund(self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes, until: float) -> None:
        """Give back charges that were taken, once for each `token`."""
        self._ask(self._questions.refund(charges, receipts, token), until)

    def reset(self, counters: Sequence[Counter], key: str | bytes, until: float) -> None:
        """Forget what counts for `key`."""
        self._ask(self._questions.reset(counters, key), until)

    def holding(self, counters: Sequence[Counter], limit: int, until: float) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        held = Holding(0, ())
        for counter in counters:
            more = self._ask(self._questions.holding(counter, limit - len(held.entries)), until)
            held = Holding(held.size + more.size, held.entries + more.entries)
        return held

    def close(self) -> None:
        """Let go of the connections; a second time does nothing."""
        self._pool.close()

    def _ask(self, question: Question[Answer], until: float) -> Answer:
        def left() -> float:
            return until - self._now()

        result = self._result(question, left)
        for _ in range(_MORE_ATTEMPTS):
            if not _is_lost_race(result) or left() <= 0:
                break
            result = self._result(question, left)
        return _read(question, result, self._what)

    def _result(self, question: Question[Any], left: Left) -> PGresult:
        line = self._pool.borrow(left)
        try:
            return line.ask(question, left)
        finally:
            self._pool.give_back(line)


class AsyncPostgresEngine:
    """The same for event loops. What is cancelled leaves at once, and its line is closed."""

    def __init__(self, pool: AsyncPool, what: str, patience: int, now: Callable[[], float]) -> None:
        self._pool = pool
        self._what = what
        self._questions = Questions(patience)
        self._now = now

    async def take(self, charges: Sequence[Charge], token: bytes, until: float) -> list[Decision]:
        """Take all charges if all of them fit, or else none; return the decision about each by itself."""
        return await self._ask(self._questions.take(charges, token), until)

    async def peek(self, charges: Sequence[Charge], until: float) -> list[Decision]:
        """Return the decision that `take` would come to about each, and take nothing."""
        return await self._ask(self._questions.peek(charges), until)

    async def refund(
        self, charges: Sequence[Charge], receipts: Sequence[int], token: bytes, until: float
    ) -> None:
        """Give back charges that were taken, once for each `token`."""
        await self._ask(self._questions.refund(charges, receipts, token), until)

    async def reset(self, counters: Sequence[Counter], key: str | bytes, until: float) -> None:
        """Forget what counts for `key`."""
        await self._ask(self._questions.reset(counters, key), until)

    async def holding(self, counters: Sequence[Counter], limit: int, until: float) -> Holding:
        """Return what is held for `counters`, with at most `limit` entries."""
        held = Holding(0, ())
        for counter in counters:
            more = await self._ask(self._questions.holding(counter, limit - len(held.entries)), until)
            held = Holding(held.size + more.size, held.entries + more.entries)
        return held

    async def close(self) -> None:
        """Let go of the connections; a second time does nothing."""
        await self._pool.close()

    async def _ask(self, question: Question[Answer], until: float) -> Answer:
        def left() -> float:
            return until - self._now()

        result = await self._result(question, left)
        for _ in range(_MORE_ATTEMPTS):
            if not _is_lost_race(result) or left() <= 0:
                break
            result = await self._result(question, left)
        return _read(question, result, self._what)

    async def _result(self, question: Question[Any], left: Left) -> PGresult:
        line = await self._pool.borrow(left)
        try:
            return await line.ask_async(question, left)
        finally:
            await self._pool.give_back(line)


def _is_lost_race(result: PGresult) -> bool:
    return result.status != pq.ExecStatus.TUPLES_OK and sqlstate_of(result) in AGAIN


def _read(question: Question[Answer], result: PGresult, what: str) -> Answer:
    if result.status != pq.ExecStatus.TUPLES_OK:
        raise failure_of(result, what)
    return question.read(result)
