"""A limit on how long one call may take.

An async call is cancelled when its time is up, by a timer of the event loop. A sync call cannot be ended
from outside without breaking what it is doing. So there the timeout is cooperative: it sets the context's
deadline, and whoever waits has to ask for `resilience.remaining()` and hand that to the client.

Rules:
    - A timeout is the limit of a step, the deadline that of the whole. So `TimeoutExceeded` may be retried,
      and the `DeadlineExceeded` of the context's deadline, where that comes first, may not.
    - Only a cancellation that this call's own timer asked for becomes a timeout. One from outside goes up
      untouched, also if it comes in the same tick; and so does what the call itself raises, its own
      `TimeoutError` included.
    - A result is returned even if it comes too late: it is there.
    - Nothing that belongs to one call is kept on the `Timeout`; it is on its `Watch` or `Block`.
"""

from __future__ import annotations

import threading
from functools import update_wrapper
from itertools import count
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, ParamSpec, TypeVar

from resilience.callables import Kind, MisuseError, kind_of, name_of
from resilience.checks import number, optional_name
from resilience.clock import SYSTEM_CLOCK
from resilience.deadline import CURRENT, deadline
from resilience.errors import DeadlineExceeded, TimeoutExceeded
from resilience.events import TimedOut, hooks, publish
from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from resilience.clock import Clock
    from resilience.events import Listener
    from resilience.watch import Lines, Watch

P = ParamSpec("P")
R = TypeVar("R")

_numbers = count(1)


class TimeoutStats(NamedTuple):
    """What has become of the calls through a timeout, at one moment."""

    name: str
    seconds: float
    timed_out: int
    """Async calls that were cancelled because its own seconds were up."""
    cut_by_deadline: int
    """Async calls that were cancelled because the context's deadline came first."""


class Timeout:
    """Gives a call so many seconds, or less where the context's deadline leaves less.

    An async call that is not over by then is cancelled, and `TimeoutExceeded` raised, a `DeadlineExceeded`
    and a `TimeoutError`. A sync call is not ended: it is cooperative, by `resilience.remaining()`.

    Args:
        seconds: How long a call may take, above 0.
        name: What errors, events and statistics call it. Left out, the first function that it decorates gives
            the name, or else a number.
        clock: What the deadline is read on. Async calls are ended by the event loop's timer.
        on_timeout: Called with a `TimedOut` for each call that was ended.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Threads, tasks and event loops may share it. A cancellation from outside goes up untouched.

    Example:
        >>> import asyncio
        >>> @Timeout(0.01, name="lookup")
        ... async def lookup(key: str) -> str:
        ...     await asyncio.sleep(3600)
        ...     return key
        >>> asyncio.run(lookup("a"))
        Traceback (most recent call last):
        resilience.errors.policies.TimeoutExceeded: lookup was cancelled: its timeout of 0.01 s was up
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_cut_by_deadline",
        "_deadline",
        "_hooks",
        "_lines",
        "_lock",
        "_name",
        "_named",
        "_seconds",
        "_timed_out",
    )

    def __init__(
        self,
        seconds: float,
        *,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        on_timeout: Listener | None = None,
    ) -> None:
        optional_name(name)
        self._seconds = number("seconds", seconds, above=0)
        self._named = name is not None
        self._name = f"timeout-{next(_numbers)}" if name is None else name
        self._clock = clock
        self._hooks = hooks(on_timeout)
        self._deadline = deadline(seconds, clock=clock)
        self._lines: Lines | None = None
        self._timed_out = 0
        self._cut_by_deadline = 0
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew, which another thread of the parent may have held."""
        self._lock = threading.RLock()

    @property
    def name(self) -> str:
        """What errors, events and statistics call it."""
        return self._name

    @property
    def seconds(self) -> float:
        """How long a call may take."""
        return self._seconds

    def stats(self) -> TimeoutStats:
        """Return its figures, all of the same instant."""
        with self._lock:
            return TimeoutStats(self._name, self._seconds, self._timed_out, self._cut_by_deadline)

    # --- running calls ---------------------------------------------------------------------------

    def execute(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` with the context's deadline set, and return its result, however late it is.

        Raises:
            DeadlineExceeded: The context's deadline had passed, and the call was not begun.
            TypeError: `fn` returned a coroutine: use `execute_async`.
        """
        return self._around(fn)(*args, **kwargs)  # type: ignore[no-any-return]  # what fn returned

    async def execute_async(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn`, await and return its result, unless its time is up before.

        Raises:
            TimeoutExceeded: It was cancelled when the seconds were up.
            DeadlineExceeded: It was cancelled at the context's deadline, or not begun, since that had passed.
            TypeError: `fn` returned nothing that can be awaited.
        """
        with self.watch():
            awaitable = fn(*args, **kwargs)
            if not hasattr(awaitable, "__await__"):
                _refuse_unawaitable(fn, awaitable)
            return await awaitable

    def guard(self) -> Block:
        """Return a context manager that limits its block.

        `async with` ends the block when the time is up, and raises as `execute_async` does. A plain `with`
        only sets the deadline, in async code, too.

        Example:
            >>> from resilience import remaining
            >>> with Timeout(2.0).guard():
            ...     1.9 < remaining() <= 2.0
            True
        """
        return Block(self)

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Decorate `fn`, a function or coroutine function.

        Raises:
            TypeError: It is a generator function, whose consumer has a say in how long it takes: use
                `StreamTimeout`.
        """
        kind = kind_of(fn)
        if kind not in {Kind.SYNC, Kind.ASYNC}:
            raise TypeError(
                f"{name_of(fn)} is a {kind.value}, and how long that takes is up to its consumer, too: "
                "use StreamTimeout, which limits the wait for each item"
            )
        if not self._named:
            self._named, self._name = True, name_of(fn)
        around = self._around(fn) if kind is Kind.SYNC else self._around_async(fn)
        return update_wrapper(around, fn)

    def _around(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            self.enter()
            try:
                result = fn(*args, **kwargs)
            finally:
                self.leave()
            if type(result) is CoroutineType:
                _refuse_coroutine(fn, result)  # pyright: ignore[reportUnknownArgumentType] - of anything
            return result

        return guarded

    def _around_async(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        from resilience.watch import Watch  # noqa: PLC0415 - see _new_lines

        lines = self._lines or self._new_lines()

        async def guarded(*args: Any, **kwargs: Any) -> Any:
            with Watch(lines):
                return await fn(*args, **kwargs)

        return guarded

    # --- for blocks ------------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """What the deadline is read on."""
        return self._clock

    def enter(self) -> None:
        """Begin a block that is not ended: set the deadline.

        Raises:
            DeadlineExceeded: The context's deadline has passed.
        """
        outer = CURRENT.get()
        if outer is not None:
            outer.require(self._name)
        self._deadline.__enter__()

    def leave(self) -> None:
        """End such a block: return to the deadline from before."""
        self._deadline.__exit__(None, None, None)

    def watch(self) -> Watch:
        """Return what ends a block of the present task; to be used by `with`, once."""
        return (self._lines or self._new_lines()).watch()

    def _new_lines(self) -> Lines:
        """Make the lines; two threads may come here at once, and make two, each as good as the other."""
        from resilience.watch import Lines  # noqa: PLC0415 - asyncio is not for those who have no loop

        self._lines = lines = Lines(self)
        return lines

    def ended(self, seconds: float) -> DeadlineExceeded:
        """Return the error for a call that was cancelled after `seconds`, having told of it."""
        by_deadline = seconds < self._seconds
        with self._lock:
            if by_deadline:
                self._cut_by_deadline += 1
            else:
                self._timed_out += 1
        publish(TimedOut(self._name, seconds, by_deadline), self._hooks)
        if by_deadline:
            return DeadlineExceeded(f"{self._name} was cancelled at its deadline")
        return TimeoutExceeded(f"{self._name} was cancelled: its timeout of {seconds:g} s was up")

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"Timeout {self._name!r} cannot be copied or pickled: its figures belong to this process; share "
            "the one there is, and make another in each process"
        )

    def __repr__(self) -> str:
        """Show its name and seconds."""
        return f"<Timeout {self._name!r}, {self._seconds:g} s>"


class Block:
    """A `with` or `async with` block whose time is limited; made by `Timeout.guard`, for one at a time.

    Args:
        limit: Whose time it is.
    """

    __slots__ = ("_is_entered", "_limit", "_watch")

    def __init__(self, limit: Timeout) -> None:
        self._limit = limit
        self._is_entered = False
        self._watch: Watch | None = None

    def __enter__(self) -> None:
        """Set the deadline.

        Raises:
            DeadlineExceeded: The context's deadline has passed.
        """
        self._refuse_second()
        self._limit.enter()
        self._is_entered = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Return to the deadline from before."""
        self._is_entered = False
        self._limit.leave()

    async def __aenter__(self) -> None:
        """Set the deadline, and see to it that the block ends by then.

        Raises:
            DeadlineExceeded: The context's deadline has passed.
            RuntimeError: This is no task of a running event loop.
        """
        self._refuse_second()
        watch = self._limit.watch()
        watch.__enter__()
        self._watch = watch
        self._is_entered = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Return to the deadline from before, and tell whether the time was up; awaits nothing.

        Raises:
            DeadlineExceeded: The block was ended because its time was up.
        """
        watch, self._watch, self._is_entered = self._watch, None, False
        if watch is not None:
            watch.__exit__(kind, error, traceback)

    def _refuse_second(self) -> None:
        if self._is_entered:
            raise MisuseError("this block has begun already: ask the timeout's guard() for one for each")


def _refuse_coroutine(fn: Callable[..., Any], coroutine: CoroutineType[Any, Any, Any]) -> NoReturn:
    coroutine.close()  # nobody will await it
    raise MisuseError(
        f"{name_of(fn)} returned a coroutine, whose time would not be limited: decorate the async function "
        "itself, or pass it to execute_async"
    )


def _refuse_unawaitable(fn: Callable[..., Any], returned: object) -> NoReturn:
    raise MisuseError(
        f"{name_of(fn)} returned {returned!r}, which cannot be awaited: use execute for a plain function"
    )
