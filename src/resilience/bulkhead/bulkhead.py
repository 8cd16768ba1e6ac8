"""What users touch: the two bulkheads, and how each of them waits."""

from __future__ import annotations

from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

from resilience.bulkhead.base import Base
from resilience.bulkhead.blocks import AsyncBlock, Block
from resilience.bulkhead.waiting import AsyncWaiter, Waiter
from resilience.callables import Kind, MisuseError, kind_of, name_of
from resilience.criticality import current_criticality
from resilience.guarding import async_generator_in, generator_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience._core.bulkhead import Slots

P = ParamSpec("P")
R = TypeVar("R")


class Bulkhead(Base[Waiter]):
    """Lets at most so many calls run at a time, for threads.

    Args:
        limit: Calls at a time, at least 1.
        queue: How many more may wait for a place, at least 0. The line is in order of priority, and of
            arrival among equals. A call that finds it full is rejected at once, unless it has a higher
            priority than one that waits: then that one is.
        timeout: Seconds that a call may wait, at least 0; None for as long as its deadline allows.
        name: What errors, events and statistics call it. Left out, the first function that it decorates gives
            the name, or else a number.
        clock: What is waited on.
        on_rejected: Called with a `CallRefused` for each call that got no place.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Threads may share it. A forked child begins with all places free. It is not re-entrant: a call that makes
    another through the same bulkhead takes two places, and may wait for itself.

    Example:
        >>> reports = Bulkhead(2, name="reports")
        >>> @reports
        ... def report(month: int) -> str:
        ...     return f"report of month {month}, {reports.stats().running} at work"
        >>> report(3)
        'report of month 3, 1 at work'
    """

    def execute(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` and return its result, once there is a place for it.

        Raises:
            BulkheadFullError: There was none, and the call was not begun.
            DeadlineExceeded: The deadline of the context passed before there was one.
            TypeError: `fn` returned a coroutine: use `AsyncBulkhead`.
        """
        return self._around(fn)(*args, **kwargs)  # type: ignore[no-any-return]  # what fn returned

    def guard(self, *, priority: int | None = None) -> Block:
        """Return a context manager whose block has a place; entering it waits, and raises, as `execute` does.

        Args:
            priority: Who of those that wait goes first: the greatest. Left out, the criticality of the
                context, 0 to 3.

        Example:
            >>> with Bulkhead(2).guard():
            ...     print("the call")
            the call
        """
        return Block(partial(self._enter, _checked(priority)), self._give_back)

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Decorate `fn`, a function or generator function; a generator has its place until it ends.

        Raises:
            TypeError: It is another kind of function.
        """
        kind = kind_of(fn)
        if kind is Kind.SYNC:
            return self._decorated(self._around(fn), fn)  # type: ignore[no-any-return]  # of fn's type
        if kind is Kind.GENERATOR:
            wrapper = generator_in(self.guard, fn)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - as its kind says
            return self._decorated(wrapper, fn)  # type: ignore[no-any-return]  # of fn's type
        raise TypeError(f"{name_of(fn)} is a {kind.value}, which waits in a task: use AsyncBulkhead")

    def _around(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            slots = self._slots
            has_place = False
            try:
                # As `_took_free_place`, without a call of it.
                with self._lock:
                    if slots.running < slots.limit:
                        slots.running += 1
                        has_place = True
                if not has_place:
                    self._come(slots, None)
                    has_place = True
                result = fn(*args, **kwargs)
                if type(result) is CoroutineType:
                    _refuse_coroutine(fn, result)  # pyright: ignore[reportUnknownArgumentType] - of anything
                return result
            finally:
                if has_place:
                    with self._lock:
                        simply = not (slots.waiting or self._deciding)
                        if simply:
                            slots.running -= 1
                    if not simply:
                        self._give_back(slots)

        return guarded

    def _come(self, slots: Slots[Waiter], priority: int | None) -> None:
        """Return when the call has a place."""
        waiter = Waiter(current_criticality() if priority is None else priority)
        patience = self._patience()
        if self._arrive(slots, waiter):
            return
        try:
            self._clock.wait(waiter.event, patience.seconds)
            self._conclude(waiter, patience)
        except BaseException:
            self._give_back(slots, waiter)
            raise

    def _enter(self, priority: int | None) -> Slots[Waiter]:
        """Return the places, one of which is the caller's now."""
        slots = self._slots
        if not self._took_free_place(slots):
            self._come(slots, priority)
        return slots


class AsyncBulkhead(Base[AsyncWaiter]):
    """Lets at most so many awaited calls run at a time; `Bulkhead` says what the arguments mean.

    Tasks, loops and threads may share it. A call that is cancelled while it waits leaves at once, takes no
    place along, and hands on one that was just given to it.

    Example:
        >>> import asyncio
        >>> reports = AsyncBulkhead(2, queue=10, name="reports")
        >>> @reports
        ... async def report(month: int) -> str:
        ...     return f"report of month {month}"
        >>> asyncio.run(report(3))
        'report of month 3'
    """

    async def execute(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn`, await and return its result, once there is a place for it.

        Raises:
            BulkheadFullError: There was none; no coroutine was made.
            DeadlineExceeded: The deadline of the context passed before there was one.
            TypeError: `fn` returned nothing that can be awaited: use `Bulkhead`.
        """
        return await self._around(fn)(*args, **kwargs)  # type: ignore[no-any-return]  # what fn returned

    def guard(self, *, priority: int | None = None) -> AsyncBlock:
        """Return an async context manager whose block has a place; entering it waits, as `execute` does.

        Args:
            priority: Who of those that wait goes first: the greatest. Left out, the criticality of the
                context, 0 to 3.
        """
        return AsyncBlock(partial(self._enter, _checked(priority)), self._give_back)

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Decorate `fn`, a coroutine function or async generator function; it has its place until it ends.

        Raises:
            TypeError: It is another kind of function.
        """
        kind = kind_of(fn)
        if kind is Kind.ASYNC:
            return self._decorated(self._around(fn), fn)  # type: ignore[no-any-return]  # of fn's type
        if kind is Kind.ASYNC_GENERATOR:
            wrapper = async_generator_in(self.guard, fn)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - as its kind says
            return self._decorated(wrapper, fn)  # type: ignore[no-any-return]  # of fn's type
        raise TypeError(f"{name_of(fn)} is a {kind.value}, which waits in a thread: use Bulkhead")

    def _around(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            slots = self._slots
            has_place = False
            try:
                # As `_took_free_place`, without a call of it.
                with self._lock:
                    if slots.running < slots.limit:
                        slots.running += 1
                        has_place = True
                if not has_place:
                    await self._come(slots, None)
                    has_place = True
                awaitable = fn(*args, **kwargs)
                if not hasattr(awaitable, "__await__"):
                    _refuse_unawaitable(fn, awaitable)
                return await awaitable
            finally:
                if has_place:
                    with self._lock:
                        simply = not (slots.waiting or self._deciding)
                        if simply:
                            slots.running -= 1
                    if not simply:
                        self._give_back(slots)

        return guarded

    async def _come(self, slots: Slots[AsyncWaiter], priority: int | None) -> None:
        """Return when the call has a place."""
        waiter = AsyncWaiter(current_criticality() if priority is None else priority)
        patience = self._patience()
        if self._arrive(slots, waiter):
            return
        try:
            await self._clock.wait_async(waiter.event, patience.seconds)
            self._conclude(waiter, patience)
        except BaseException:
            self._give_back(slots, waiter)
            raise

    async def _enter(self, priority: int | None) -> Slots[AsyncWaiter]:
        """Return the places, one of which is the caller's now."""
        slots = self._slots
        if not self._took_free_place(slots):
            await self._come(slots, priority)
        return slots


def _checked(priority: int | None) -> int | None:
    if priority is not None and (isinstance(priority, bool) or not isinstance(priority, int)):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
        raise TypeError(f"priority={priority!r} must be a whole number: the greatest goes first")
    return priority


def _refuse_coroutine(fn: Callable[..., Any], coroutine: CoroutineType[Any, Any, Any]) -> NoReturn:
    coroutine.close()
    raise MisuseError(
        f"{name_of(fn)} returned a coroutine, which would run without a place: use AsyncBulkhead"
    )


def _refuse_unawaitable(fn: Callable[..., Any], returned: object) -> NoReturn:
    raise MisuseError(f"{name_of(fn)} returned {returned!r}, which cannot be awaited: use Bulkhead")
