"""Makes the calls fail, drag on or hang that a test picks."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, ParamSpec, Self, TypeVar, cast

from resilience.callables import Kind, kind_of, name_of
from resilience.clock import SYSTEM_CLOCK
from resilience.fork import survive_fork
from resilience.testing.waiting import PATIENCE, call_in, wait_until, wait_until_async

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator

    from resilience.clock import Clock

P = ParamSpec("P")
R = TypeVar("R")


class FaultInjector:
    """Counts the calls of a function, and lets faults happen in those that the test picks.

    Calls are counted from 1. A call meets its faults in the order in which they were planned, and only
    then runs the function. Each plan says which calls it is for: a number, a collection of numbers such
    as `range(1, 4)`, or None for all of them.

    Args:
        clock: What delays sleep on; a `FakeClock` takes no real time.

    Threads and event loops may share it: each call gets a number of its own. A cancelled task leaves its
    delay or hang at once.

    Example:
        >>> faults = FaultInjector().fail(ConnectionError, on=1)
        >>> fetch = faults.wrap(lambda url: f"page at {url}")
        >>> fetch("/a")
        Traceback (most recent call last):
            ...
        ConnectionError
        >>> fetch("/a"), faults.calls
        ('page at /a', 2)
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._calls = 0
        self._faults: tuple[_Fault, ...] = ()
        self._hanging: dict[object, Callable[[], object]] = {}
        survive_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.RLock()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            "a FaultInjector cannot be copied or pickled: a copy would count its own calls; share this one"
        )

    def fail(
        self, error: BaseException | Callable[[], BaseException], on: int | Container[int] | None = None
    ) -> Self:
        """Plan to raise `error`: an exception, or an exception type or function that makes a new one."""
        return self._plan(_Fault(on, new_error=error if callable(error) else lambda: error))

    def delay(self, seconds: float, on: int | Container[int] | None = None) -> Self:
        """Plan to sleep for `seconds` on the clock first."""
        if not seconds >= 0:
            raise ValueError(f"a delay takes zero or more seconds, not {seconds!r}")
        return self._plan(_Fault(on, delay=seconds))

    def hang(self, on: int | Container[int] | None = None) -> Self:
        """Plan to wait until `release` is called, or until the calling task is cancelled."""
        return self._plan(_Fault(on, hangs=True))

    def clear(self) -> None:
        """Drop all plans; calls that hang go on hanging, and the count goes on."""
        with self._lock:
            self._faults = ()

    def release(self) -> None:
        """Let all calls go that hang now; later ones hang as planned."""
        with self._lock:
            releases = list(self._hanging.values())
            self._hanging.clear()
        for release in releases:
            release()

    @property
    def calls(self) -> int:
        """How many calls have begun."""
        return self._calls

    @property
    def hanging(self) -> int:
        """How many calls hang now."""
        return len(self._hanging)

    def wait_for_hanging(self, count: int, timeout: float = PATIENCE) -> None:
        """Block this thread until at least `count` calls hang.

        Raises:
            TimeoutError: There are still fewer after `timeout` real seconds.
        """
        wait_until(
            lambda: self.hanging >= count, timeout, lambda: f"{count} hanging calls, {self.hanging} so far"
        )

    async def wait_for_hanging_async(self, count: int, timeout: float = PATIENCE) -> None:  # noqa: ASYNC109 - of real time
        """Let this loop run until at least `count` calls hang.

        Raises:
            TimeoutError: There are still fewer after `timeout` real seconds.
        """
        await wait_until_async(
            lambda: self.hanging >= count, timeout, lambda: f"{count} hanging calls, {self.hanging} so far"
        )

    def wrap(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Return `fn` with the faults happening in its calls; it decorates, too.

        Raises:
            TypeError: `fn` is a generator function, whose faults belong between its items.
        """
        kind = kind_of(fn)
        if kind is Kind.SYNC:

            def faulty(*args: P.args, **kwargs: P.kwargs) -> R:
                self.strike()
                return fn(*args, **kwargs)

            return update_wrapper(faulty, fn)
        if kind is Kind.ASYNC:
            afn = cast("Callable[..., Any]", fn)

            async def faulty_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                await self.strike_async()
                return await afn(*args, **kwargs)

            return cast("Callable[P, R]", update_wrapper(faulty_async, fn))
        raise TypeError(f"{name_of(fn)} is a {kind.value}: call strike() between its items instead")

    def strike(self) -> None:
        """Count a call, and let its faults happen: for a hand-written double to call first."""
        for fault in self._next_call():
            if fault.delay:
                self._clock.sleep(fault.delay)
            if fault.hangs:
                released = threading.Event()
                with self._hang(released.set):
                    self._clock.wait(released, None)
            if fault.new_error is not None:
                raise fault.new_error()

    async def strike_async(self) -> None:
        """Count a call, and let its faults happen: for a hand-written double to await first."""
        for fault in self._next_call():
            if fault.delay:
                await self._clock.sleep_async(fault.delay)
            if fault.hangs:
                released = asyncio.Event()
                loop = asyncio.get_running_loop()
                with self._hang(lambda: call_in(loop, released.set)):  # noqa: B023 - entered at once
                    await self._clock.wait_async(released, None)
            if fault.new_error is not None:
                raise fault.new_error()

    def _plan(self, fault: _Fault) -> Self:
        if isinstance(fault.on, int):
            if fault.on < 1:
                raise ValueError(f"calls are counted from 1: there is no call {fault.on!r}")
            fault = fault._replace(on=(fault.on,))
        with self._lock:
            self._faults = (*self._faults, fault)
        return self

    def _next_call(self) -> list[_Fault]:
        with self._lock:
            self._calls += 1
            return [
                fault
                for fault in self._faults
                if fault.on is None or self._calls in cast("Container[int]", fault.on)
            ]

    @contextmanager
    def _hang(self, release: Callable[[], object]) -> Generator[None]:
        """Be counted among the hanging, until released or until the block is left."""
        call = object()
        with self._lock:
            self._hanging[call] = release
        try:
            yield
        finally:
            with self._lock:
                self._hanging.pop(call, None)


class _Fault(NamedTuple):
    """What happens in the calls `on`: one of a delay, a hang and an error."""

    on: int | Container[int] | None
    delay: float = 0.0
    hangs: bool = False
    new_error: Callable[[], BaseException] | None = None
