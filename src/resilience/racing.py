"""One hedged call: its attempts, each in a task of its own, of which the first good answer counts.

Rules:
    - The race is over with the first good answer, with the last failure, or at the deadline. From then on,
      what its attempts come to is nobody's: exceptions are dropped, answers disposed of.
    - All bookkeeping is done in callbacks of the loop, so nothing comes between two steps of it.
    - Whoever cancels the call cancels all attempts, and the call ends when they have; however often he does.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

from resilience.callables import MisuseError, name_of
from resilience.deadline import CURRENT
from resilience.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from resilience.hedging import Hedge

    Attempt = asyncio.Task[Any]


async def raced(
    hedge: Hedge, fn: Callable[..., Awaitable[Any]], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Return the first good answer of `fn`.

    Raises:
        DeadlineExceeded: There was none at the deadline of the context; or that had passed before.
        Exception: All attempts have failed; what the first one raised.
    """
    ends = CURRENT.get()
    if ends is not None:
        ends.require(hedge.name)
    race = Race(hedge, fn, args, kwargs)
    race.begin(None if ends is None else ends.left())
    try:
        await race.over
    except asyncio.CancelledError:
        await race.unwind()
        raise
    finally:
        race.stop()
    return race.answer()


class Race:
    """The attempts of one call.

    Args:
        hedge: What they go by.
        fn: What is attempted.
        args: Its arguments.
        kwargs: Those by name.
    """

    __slots__ = (
        "_args",
        "_attempts",
        "_began",
        "_chosen",
        "_delay",
        "_disposals",
        "_fn",
        "_hedge",
        "_kwargs",
        "_loop",
        "_running",
        "_timers",
        "over",
    )

    def __init__(
        self,
        hedge: Hedge,
        fn: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        self._hedge = hedge
        self._fn = fn
        self._args = args
        self._kwargs = kwargs
        self._loop = loop = asyncio.get_running_loop()
        self.over: asyncio.Future[None] = loop.create_future()
        """Done when the race is."""
        self._chosen: Attempt | None = None
        self._attempts: list[Attempt] = []
        self._running: set[Attempt] = set()
        self._disposals: set[asyncio.Future[Any]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._delay: float | None = None
        self._began = 0.0

    # --- its course ------------------------------------------------------------------------------

    def begin(self, seconds: float | None) -> None:
        """Make the first attempt.

        Args:
            seconds: How long the race may take; None for as long as it likes.
        """
        hedge = self._hedge
        self._delay = hedge.delay()
        if hedge.learns:
            self._began = hedge.clock.now()
        self._start()
        if self._delay is not None:
            self._timers.append(self._loop.call_later(self._delay, self._hedge_it, self._delay))
        if seconds is not None:
            self._timers.append(self._loop.call_later(seconds, self._expire))

    def _start(self) -> None:
        task = self._loop.create_task(self._attempt())
        self._attempts.append(task)
        self._running.add(task)
        task.add_done_callback(partial(self._ended, len(self._attempts)))

    async def _attempt(self) -> Any:
        return await self._fn(*self._args, **self._kwargs)

    def _hedge_it(self, delay: float) -> None:
        """Make another attempt, if it is still of use and can be paid for."""
        if self.over.done() or any(task.done() for task in self._running):
            return  # the answer has come in this very tick
        number = len(self._attempts) + 1
        if not self._hedge.may_start(number, delay):
            return
        self._start()
        if number < self._hedge.max_attempts:
            self._timers.append(self._loop.call_later(delay, self._hedge_it, delay))

    def _expire(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def _ended(self, number: int, task: Attempt) -> None:
        """Take what an attempt has come to."""
        self._running.discard(task)
        succeeded = _succeeded(task)
        if number == 1 and self._hedge.learns:
            took = self._hedge.clock.now() - self._began
            if succeeded or (self._delay is not None and took > self._delay):
                self._hedge.took(took)
        if self.over.done():
            self._discard(task)
        elif succeeded:
            self._choose(task)
            self._hedge.succeeded(number, len(self._attempts))
        elif not self._running:
            self._choose(self._attempts[0])

    def _choose(self, task: Attempt) -> None:
        self._chosen = task
        self.over.set_result(None)

    # --- its end ---------------------------------------------------------------------------------

    def answer(self) -> Any:
        """Return the answer, now that the race is over.

        Raises:
            DeadlineExceeded: The time was up.
            Exception: All attempts have failed; what the first one raised.
        """
        chosen = self._chosen
        if chosen is None:
            raise DeadlineExceeded(f"{self._hedge.name} was cancelled at its deadline")
        if not _succeeded(chosen):
            if len(self._attempts) > 1 and not chosen.cancelled():
                self._annotate(chosen)
            self._attempts.clear()  # what is raised holds this frame and so the race, by its traceback
            self._chosen = None
        try:
            return chosen.result()
        finally:
            del chosen

    def _annotate(self, chosen: Attempt) -> None:
        """Note on what the first attempt raised what the others did."""
        others = ", ".join(_told(task) for task in self._attempts[1:])
        failure = cast("BaseException", chosen.exception())
        failure.add_note(f"resilience: all of {len(self._attempts)} attempts failed; the others: {others}")

    def stop(self) -> None:
        """End what is still under way; it unwinds without us."""
        for timer in self._timers:
            timer.cancel()
        for task in self._running:
            task.cancel()
            self._hedge.keep(task)

    async def unwind(self) -> None:
        """End all attempts, and wait until they have."""
        if self._chosen is not None:
            self._discard(self._chosen)
        for timer in self._timers:
            timer.cancel()
        while True:
            for task in self._running:
                task.cancel()
            left = self._running | self._disposals
            if not left:
                return
            try:
                await asyncio.wait(left)
            except asyncio.CancelledError:
                continue  # again, and those that are left hear of it, as what a plain call awaits would

    # --- what came too late ----------------------------------------------------------------------

    def _discard(self, task: Attempt) -> None:
        """Dispose of an attempt's answer, if it has one."""
        if not _succeeded(task):
            return
        won = self._chosen
        if won is not None and won is not task and won.result() is task.result():
            return  # it has been returned: both attempts were answered by the same object
        self._hedge.discards()
        try:
            disposal = _disposal(task.result(), self._hedge.on_discard)
        except Exception as error:  # noqa: BLE001 - logged: there is nobody to be told
            self._log(error)
            return
        if disposal is not None:
            self._disposals.add(disposal)
            disposal.add_done_callback(self._disposed)
            self._hedge.keep(disposal)

    def _disposed(self, disposal: asyncio.Future[Any]) -> None:
        self._disposals.discard(disposal)
        if not disposal.cancelled() and (error := disposal.exception()) is not None:
            self._log(error)

    def _log(self, error: BaseException) -> None:
        import logging  # noqa: PLC0415 - loaded only when something went wrong

        logging.getLogger("resilience").error(
            "hedge %s: an answer that came too late could not be disposed of",
            self._hedge.name,
            exc_info=error,
        )


def _disposal(answer: Any, on_discard: Callable[[Any], Any] | None) -> asyncio.Future[Any] | None:
    """Dispose of `answer`; return what is still to be waited for, if anything is."""
    if on_discard is not None:
        disposed: Any = on_discard(answer)
    else:
        close: Any = getattr(answer, "aclose", None) or getattr(answer, "close", None)
        disposed = None if close is None else close()
    return asyncio.ensure_future(disposed) if hasattr(disposed, "__await__") else None


def _succeeded(task: Attempt) -> bool:
    """Whether it has an answer; asking is also what tells asyncio that its exception was not overlooked."""
    return not task.cancelled() and task.exception() is None


def _told(task: Attempt) -> str:
    return "a cancellation" if task.cancelled() else repr(task.exception())


def refuse_unawaitable(fn: Callable[..., Any], returned: object) -> NoReturn:
    """Raise, since there is nothing to wait for.

    Raises:
        MisuseError: Always.
    """
    raise MisuseError(
        f"{name_of(fn)} returned {returned!r}, which cannot be awaited: hedge an async function"
    )
