"""Another attempt, where that helps and does not make things worse.

    @with_retry
    def fetch(url: str) -> bytes: ...

A manager is immutable, and each call has its own state (`resilience.retry.attempts`), so any manager may be
shared by threads and by event loops. Decorators find out by themselves what kind of function they got, so
one manager can guard both sync and async functions; `execute` and the blocks come in twins.
"""

from __future__ import annotations

from functools import update_wrapper
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack, overload

from resilience.callables import name_of
from resilience.retry.blocks import AsyncBlock, Block
from resilience.retry.guards import guard, run, run_async
from resilience.retry.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience.retry.policy import RetryOptions

P = ParamSpec("P")
R = TypeVar("R")


class _Manager(Policy):
    """What both managers can do."""

    __slots__ = ()

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorate `fn`, a sync or async function or generator function, with this policy.

        It shares budget and statistics with the manager. Where the manager has no name, events and notes
        bear the function's.

        Raises:
            TypeError: `fn` cannot be guarded; the message says what to do.
        """
        return _decorated(self.named(name_of(fn)), fn)


class RetryManager(_Manager):
    """Retries calls, blocks and functions, by one policy with one budget and one set of statistics.

    The caller gets the last attempt's result, or its exception: the original one, with a note that says
    how many attempts were made and why it stopped.

    Args:
        max_attempts: Attempts in all, the first included; at least 1.
        initial_delay: Seconds before the first retry, before jitter; at least 0.
        max_delay: Seconds that no delay of the backoff exceeds; at least 0.
        multiplier: By how much delays grow; at least 1.
        jitter: `"full"` (0 up to the delay), `"equal"` (half of it up to all), `"decorrelated"` (up to
            three times the last one), `"none"`, or a proportion such as 0.1 (ten per cent either way).
        deadline: Seconds for the whole call, delays included; None for no limit of its own. A deadline of
            the context (`resilience.deadline`) counts too.
        retry_on: Which exceptions are worth another attempt: types, predicates, or a tuple of them.
        retry_if_result: Whether a result is to be refused and the call repeated. When attempts run out,
            the caller gets the last result.
        circuit_breaker: Gets the outcome of first attempts; retries are made only while it is closed.
        on_retry: Called with a `RetryScheduled` before each delay.
        name: The dependency's name. Managers of one name share a budget.
        clock: What time is read and waited on.
        budget: A `RetryBudget` to share, or None for no budget. Left out: the one of the name, or one of
            its own.
        on_success: Called with a `RetrySucceeded` when a call has succeeded after a retry.
        on_stop: Called with a `RetryStopped` when a retry was made or wanted and the call failed for good.
        idempotent: Whether the call may be repeated if it has perhaps been processed. If False, only
            failures that cannot have been processed are retried (`resilience.transient.classify`).
        max_retry_after: Seconds; where the other side asks to wait longer, the call gives up at once.
        random: Draws jitter from 0 up to, not including, 1.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or out of its range.

    Immutable; threads, tasks and event loops may share it.

    Example:
        >>> from resilience.testing import FakeClock
        >>> replies = iter([ConnectionError("down"), ConnectionError("down"), "up"])
        >>> def fetch():
        ...     reply = next(replies)
        ...     if isinstance(reply, Exception):
        ...         raise reply
        ...     return reply
        >>> clock = FakeClock()
        >>> retries = RetryManager(initial_delay=1.0, jitter="none", clock=clock)
        >>> retries.execute(fetch), clock.sleeps
        ('up', [1.0, 2.0])
        >>> retries.stats().total_retries
        2
    """

    __slots__ = ()

    def execute(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` with the arguments and return its result.

        Raises:
            TypeError: `fn` returned a coroutine: use `AsyncRetryManager.execute`.
            CircuitOpenError: The breaker rejected the call, which was not begun.
            DeadlineExceeded: The deadline had passed, and the call was not begun.
            Exception: What the last attempt raised.
        """
        return run(self, fn, args, kwargs)  # type: ignore[no-any-return]  # what fn returned

    def __iter__(self) -> Block:
        """Return the attempts of one call, for `for attempt in retries: with attempt: ...`.

        Example:
            >>> for attempt in RetryManager():
            ...     with attempt:
            ...         number = attempt.number
            >>> number
            1
        """
        return Block(self)


class AsyncRetryManager(_Manager):
    """Retries awaited calls, blocks and functions; `RetryManager` says what the arguments mean.

    An attempt that still runs at the deadline is cancelled, and `DeadlineExceeded` raised. A cancellation
    from outside leaves at once, untouched; a retry that was waiting for its delay is given back to the
    budget.

    Example:
        >>> import asyncio
        >>> async def fetch(url):
        ...     return url.upper()
        >>> asyncio.run(AsyncRetryManager().execute(fetch, "a"))
        'A'
    """

    __slots__ = ()

    async def execute(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` with the arguments, await what it returns, and return its result.

        Raises:
            TypeError: `fn` returned nothing that can be awaited: use `RetryManager.execute`.
            CircuitOpenError: The breaker rejected the call; no coroutine was made.
            DeadlineExceeded: The deadline had passed, and the call was not begun; or it was cancelled then.
            Exception: What the last attempt raised.
        """
        return await run_async(self, fn, args, kwargs)  # type: ignore[no-any-return]  # what fn returned

    def __aiter__(self) -> AsyncBlock:
        """Return the attempts of one call, for `async for attempt in retries: with attempt: ...`."""
        return AsyncBlock(self)


@overload
def with_retry(fn: Callable[P, R], /, **options: Unpack[RetryOptions]) -> Callable[P, R]: ...
@overload
def with_retry(**options: Unpack[RetryOptions]) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def with_retry(fn: Callable[..., Any] | None = None, /, **options: Unpack[RetryOptions]) -> Any:
    """Decorate a function with a retry policy of its own.

    As `@with_retry`, `@with_retry(max_attempts=5, ...)` or `with_retry(fn, max_attempts=5, ...)`. It finds
    out by itself whether `fn` is sync or async, a function or a generator function. A generator is retried
    until it has produced its first item; later failures pass through.

    Args:
        fn: What to decorate.
        options: The arguments of `RetryManager`. `name` is the function's own where it is left out, so
            that each function has its own budget.

    Returns:
        The decorated function, with the same signature; or, without `fn`, a decorator.

    Raises:
        TypeError: `fn` cannot be guarded; the message says what to do.

    Example:
        >>> @with_retry(max_attempts=5, retry_on=ConnectionError)
        ... def fetch(url: str) -> bytes:
        ...     return url.encode()
        >>> fetch("a")
        b'a'
    """

    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        named: dict[str, Any] = {**options, "name": options.get("name") or name_of(fn)}
        return _decorated(RetryManager(**named), fn)

    if fn is None:
        RetryManager(**options)  # a wrong argument is reported here, where it stands
        return decorate
    return decorate(fn)


def _decorated(manager: _Manager, fn: Callable[P, R]) -> Callable[P, R]:
    guarded: Callable[P, R] = guard(manager, fn)
    given: object = fn
    copied = () if isinstance(given, type) else ("__dict__",)  # a class's attributes are no function's
    guarded.__name__ = guarded.__qualname__ = name_of(fn).rpartition(".")[2]  # for a partial, which has none
    return update_wrapper(guarded, fn, updated=copied)
