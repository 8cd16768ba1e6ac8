"""One call of a session store: until when it has to end, and what becomes of its failures."""

from __future__ import annotations

from random import random
from typing import TYPE_CHECKING, Final, TypeVar

import psycopg

from resilience.deadline import remaining
from resilience.janitor.postgres.troubles import LATE, Again, trouble_of
from resilience.stores import StoreUnavailable

if TYPE_CHECKING:
    from psycopg.abc import PQGen

    from resilience.clock import Clock

T = TypeVar("T")

_REPEATS: Final = 2  # times that a transaction is asked for again
_DELAY: Final = 0.02  # seconds at most before the first repeat, and twice as many before the next
_RETRY_AFTER: Final = 1.0  # seconds until it is worth asking again, as far as anybody can tell


class Call:
    """One call. It belongs to one thread or task.

    Args:
        name: What to call the server in messages.
        clock: Tells how much time is left.
        timeout: Seconds for the whole call; less if the deadline around it leaves less.
        lock_timeout: Seconds to wait for other transactions.
    """

    def __init__(self, name: str, clock: Clock, timeout: float, lock_timeout: float) -> None:
        left = remaining()
        self._name = name
        self._now = clock.now
        self._until = clock.now() + (timeout if left is None else min(timeout, left))
        self._lock_timeout = lock_timeout
        self._repeats = 0
        self.may_be_stale = False
        """Whether the connection in use had been lying idle."""

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self._until - self._now())

    def bounds(self) -> tuple[int, int]:
        """Return the limits of the statement and of its locks, in milliseconds; 0 would be none."""
        left = self.left()
        return max(1, round(left * 1000)), max(1, round(min(left, self._lock_timeout) * 1000))

    def on_time(self, exchange: PQGen[T]) -> PQGen[T]:
        """Go through an exchange with the server while time is left; psycopg resumes it at each glance.

        Raises:
            TimeoutError: None is.
        """
        try:
            state = next(exchange)
            while True:
                ready = yield state
                if not self.left():
                    raise TimeoutError
                state = exchange.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]  # what the exchange returns

    def delay_after(self, error: Exception) -> float:
        """Return the seconds after which to ask again.

        Raises:
            StoreUnavailable: It is not to be asked again; `error` is the cause.
        """
        trouble = trouble_of(error.sqlstate) if isinstance(error, psycopg.Error) else LATE
        delay = _DELAY * 2**self._repeats * random()  # noqa: S311 - not cryptography
        repeated = trouble.again is Again.CONFLICT or (trouble.again is Again.LOST and self.may_be_stale)
        if repeated and self._repeats < _REPEATS and delay < self.left():
            self._repeats += 1
            return delay if trouble.again is Again.CONFLICT else 0.0
        said = str(error).partition("\n")[0]  # what follows may show rows
        why = f"{said}; {trouble.help}" if said else trouble.help
        raise self.unavailable(why, passes=trouble.passes) from error

    def unavailable(self, why: str, *, passes: bool) -> StoreUnavailable:
        """Return the error that says why; with a time to try again if it passes by itself."""
        return StoreUnavailable(
            f"the sessions in {self._name} are unavailable: {why}",
            retry_after=_RETRY_AFTER if passes else None,
        )
