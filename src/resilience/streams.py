"""Limits on how long the items of a stream may be waited for.

How long a stream takes in all is up to its reader, too. What its source can be held to is the wait for the
first item and for each further one. Only that is measured: between two items a reader may take his time.

Rules:
    - The time runs while an item is being waited for. The context's deadline is set for as long, and the one
      from before is back when the reader has the item.
    - Async waits are ended; sync ones are cooperative, as `resilience.timeout` has it.
    - A failure in mid-stream goes up as it is. A reader who leaves early ends the stream; that is no failure.
    - A generator is closed when its reader is done with it, in whatever way he is.

With retries around it, a first item that comes too late is retried, as any failure before the first item is;
later ones pass. A breaker around it counts both as failures, and a reader who leaves as neutral.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial, update_wrapper
from itertools import count
from types import AsyncGeneratorType, GeneratorType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, ParamSpec, TypeVar

from resilience.callables import Kind, kind_of, name_of
from resilience.checks import number, optional_name
from resilience.clock import SYSTEM_CLOCK
from resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Generator, Iterable
    from contextlib import AbstractContextManager

    from resilience.clock import Clock
    from resilience.events import Listener

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_numbers = count(1)
_UNLIMITED: Final[AbstractContextManager[None]] = nullcontext()


class StreamTimeoutStats(NamedTuple):
    """What has become of the streams through such a timeout, at one moment."""

    name: str
    first_item: int
    """Streams that were ended because their first item did not come in time."""
    idle: int
    """Those that were ended because another item, or the end, did not."""
    cut_by_deadline: int
    """Those that were ended because the context's deadline came first."""


class StreamTimeout:
    """Gives a stream so many seconds for its first item, and for each further one.

    Args:
        first_item: Seconds that the first item may be waited for, above 0; None for any time.
        idle: Seconds that each further item, and the end, may be waited for, above 0; None for any time.
        name: What errors, events and statistics call it. Left out, the first function that it decorates gives
            the name, or else a number.
        clock: What deadlines are read on. Async waits are ended by the event loop's timer.
        on_timeout: Called with a `TimedOut` for each stream that was ended.

    Raises:
        TypeError, ValueError: Neither limit is given; or an argument is of the wrong type, or out of range.

    Threads, tasks and event loops may share it. A cancellation from outside goes up untouched.

    Example:
        >>> import asyncio
        >>> @StreamTimeout(first_item=5.0, idle=0.01, name="ticks")
        ... async def ticks():
        ...     yield "tick"
        ...     await asyncio.sleep(3600)
        >>> async def read() -> None:
        ...     try:
        ...         async for item in ticks():
        ...             print(item)
        ...     except TimeoutError as error:
        ...         print(error)
        >>> asyncio.run(read())
        tick
        the next item of ticks was cancelled: its timeout of 0.01 s was up
    """

    __slots__ = ("_first", "_first_item", "_idle", "_name", "_named", "_next", "_options")

    def __init__(
        self,
        first_item: float | None = None,
        idle: float | None = None,
        *,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_timeout: Listener | None = None,
    ) -> None:
        optional_name(name)
        if first_item is None and idle is None:
            raise TypeError("a StreamTimeout needs first_item or idle, or both")
        self._first_item = None if first_item is None else number("first_item", first_item, above=0)
        self._idle = None if idle is None else number("idle", idle, above=0)
        self._options: dict[str, Any] = {"clock": clock, "on_timeout": on_timeout}
        self._named = name is not None
        self._call_it(f"stream-timeout-{next(_numbers)}" if name is None else name)

    def _call_it(self, name: str) -> None:
        self._name = name
        self._first = self._limit(self._first_item, f"the first item of {name}")
        self._next = self._limit(self._idle, f"the next item of {name}")

    def _limit(self, seconds: float | None, name: str) -> Timeout | None:
        return None if seconds is None else Timeout(seconds, name=name, **self._options)

    @property
    def name(self) -> str:
        """What errors, events and statistics call it."""
        return self._name

    def stats(self) -> StreamTimeoutStats:
        """Return its figures."""
        first = None if self._first is None else self._first.stats()
        following = None if self._next is None else self._next.stats()
        return StreamTimeoutStats(
            self._name,
            0 if first is None else first.timed_out,
            0 if following is None else following.timed_out,
            sum(stats.cut_by_deadline for stats in (first, following) if stats is not None),
        )

    # --- streams ---------------------------------------------------------------------------------

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Decorate `fn`, a generator function or async generator function.

        Raises:
            TypeError: It is another kind of function.
        """
        kind = kind_of(fn)
        if kind not in _GUARDS:
            raise TypeError(
                f"{name_of(fn)} is a {kind.value}: limit the call by Timeout, and what it returns by "
                "StreamTimeout.iterate or iterate_async"
            )
        if not self._named:
            self._named = True
            self._call_it(name_of(fn))
        return update_wrapper(_GUARDS[kind](self, fn), fn)

    def iterate(self, items: Iterable[T]) -> Generator[T, Any, Any]:
        """Return a generator of `items`, the waits for which are limited; if they are one, it closes that.

        Example:
            >>> list(StreamTimeout(idle=5.0).iterate("abc"))
            ['a', 'b', 'c']
        """
        return _generator(self, _generator_of)(items)

    def iterate_async(self, items: AsyncIterable[T]) -> AsyncGenerator[T, Any]:
        """Return an async generator of `items`, whose waits are limited; if they are one, it closes that."""
        return _async_generator(self, _async_generator_of)(items)

    # --- for the generators ----------------------------------------------------------------------

    @property
    def limits(self) -> tuple[Timeout | None, Timeout | None]:
        """The limit of the first item, and that of all further ones."""
        return self._first, self._next

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"StreamTimeout {self._name!r} cannot be copied or pickled: its figures belong to this process; "
            "share the one there is, and make another in each process"
        )

    def __repr__(self) -> str:
        """Show its name and seconds."""
        return f"<StreamTimeout {self._name!r}, first_item={self._first_item}, idle={self._idle}>"


def _generator(
    timeout: StreamTimeout, fn: Callable[..., Generator[Any, Any, Any]]
) -> Callable[..., Generator[Any, Any, Any]]:
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        limit, following = timeout.limits
        stream = fn(*args, **kwargs)
        resume: Callable[[], Any] = stream.__next__
        try:
            while True:
                with _UNLIMITED if limit is None else limit.guard():
                    item = resume()
                limit = following
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - handed on to the generator, which decides
                    resume = partial(stream.throw, error)
                else:
                    resume = partial(stream.send, sent)
        except StopIteration as end:
            return end.value
        finally:
            stream.close()

    return guarded


def _async_generator(
    timeout: StreamTimeout, fn: Callable[..., AsyncGenerator[Any, Any]]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        limit, following = timeout.limits
        stream = fn(*args, **kwargs)
        resume: Callable[[], Awaitable[Any]] = stream.__anext__
        try:
            while True:
                with _UNLIMITED if limit is None else limit.watch():
                    item = await resume()
                limit = following
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as error:  # noqa: BLE001 - handed on to the generator, which decides
                    resume = partial(stream.athrow, error)
                else:
                    resume = partial(stream.asend, sent)
        except StopAsyncIteration:
            return
        finally:
            await stream.aclose()

    return guarded


_GUARDS: Final[dict[Kind, Callable[[StreamTimeout, Any], Callable[..., Any]]]] = {
    Kind.GENERATOR: _generator,
    Kind.ASYNC_GENERATOR: _async_generator,
}


def _generator_of(items: Iterable[T]) -> Generator[T, Any, Any]:
    return items if isinstance(items, GeneratorType) else (item for item in items)  # pyright: ignore[reportUnknownVariableType] - of these items


def _async_generator_of(items: AsyncIterable[T]) -> AsyncGenerator[T, Any]:
    return items if isinstance(items, AsyncGeneratorType) else (item async for item in items)  # pyright: ignore[reportUnknownVariableType] - likewise
