"""Retries of a block of code instead of a function.

    for attempt in retries:
        with attempt:
            ...

Each loop is one call. The attempt is what the `with` block holds; code of the loop that lies beside it also
runs after failed attempts. `break`, `continue` and `return` out of the block are successes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from resilience.deadline import CURRENT, deadline, restore
from resilience.retry.attempts import Call
from resilience.retry.budget import BOOKS
from resilience.retry.guards import pause, pause_async

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from resilience.deadline import Instant
    from resilience.retry.policy import Policy


class Attempt:
    """One attempt of a block; enter it once, with `with`."""

    __slots__ = ("_began", "_call", "_delay", "_ended", "_number", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._number = call.attempt
        self._began = 0
        self._token: Token[Instant | None] | None = None
        self._delay: float | None = None
        self._ended = False

    @property
    def number(self) -> int:
        """The number of the attempt, counted from 1."""
        return self._number

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline: 0.0 once it has passed, None without one."""
        ends = self._call.ends
        return None if ends is None else max(0.0, ends.left())

    @property
    def delay(self) -> float | None:
        """Seconds until the next attempt; None if this was the last."""
        if not self._ended:
            raise RuntimeError(
                f"attempt {self.number} has not ended: put what is to be retried into `with attempt:`"
            )
        return self._delay

    def __enter__(self) -> Self:
        """Begin the attempt."""
        if self._token is not None:
            raise RuntimeError(f"attempt {self.number} was begun already: enter each attempt once")
        if self._number == 1:
            self._call.admit()
        self._began = BOOKS.given_up
        self._token = CURRENT.set(self._call.ends)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """End the attempt; swallow its exception if another attempt follows."""
        if self._token is None:  # pragma: no cover - `with` has entered before it leaves
            raise RuntimeError(f"attempt {self.number} was not begun: use `with attempt:`")
        restore(self._token)
        self._ended = True
        if error is None:
            self._delay = self._call.returned(None)
        elif isinstance(error, Exception):
            self._delay = self._call.failed(error, self._began)
        else:
            self._call.abandoned()
        return self._delay is not None


class _Loop:
    """What the two loops have in common."""

    __slots__ = ("_attempt", "_call", "_policy")

    def __init__(self, policy: Policy) -> None:
        if policy.retry_if_result is not None:
            raise TypeError(
                "retry_if_result cannot be used with a block, which has no result to look at: use execute or "
                "a decorator, or raise inside the block"
            )
        self._policy = policy
        if policy.seconds is None:
            self._call = Call(policy, CURRENT.get())
        else:
            with deadline(policy.seconds, clock=policy.clock):
                self._call = Call(policy, CURRENT.get())
        self._attempt: Attempt | None = None

    def _next(self) -> Attempt:
        self._attempt = Attempt(self._call)
        return self._attempt


class Block(_Loop):
    """The attempts of one `for` loop."""

    __slots__ = ()

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> Attempt:
        """Wait, and return the next attempt."""
        if self._attempt is not None:
            delay = self._attempt.delay
            if delay is None:
                raise StopIteration
            pause(self._policy, self._call, delay)
        return self._next()


class AsyncBlock(_Loop):
    """The attempts of one `async for` loop."""

    __slots__ = ()

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> Attempt:
        """Wait, and return the next attempt."""
        if self._attempt is not None:
            delay = self._attempt.delay
            if delay is None:
                raise StopAsyncIteration
            await pause_async(self._policy, self._call, delay)
        return self._next()
