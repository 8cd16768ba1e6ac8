"""Cancels a task at every point where a cancellation can strike it, one run for each.

An event loop goes round in ticks: it runs the callbacks that are ready, then looks for new ones. A task
can be cancelled between any two of them. A bug in the clean-up of a cancelled call shows at one or two of
those points only: in the very tick in which a permit is handed over, say. So all of them are tried.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def cancel_at_every_tick(
    make: Callable[[], Coroutine[Any, Any, object]],
    check: Callable[[], object] = lambda: None,
    *,
    times: int = 1,
    patience: float = 5.0,
) -> int:
    """Run the coroutine that `make` returns, and cancel each of its tasks at each tick, one run for each.

    The first run cancels nothing. After every run, and after all of its tasks have ended, `check` is
    called. A run fails if the coroutine raises anything but the cancellation, if a cancelled task swallows
    it, if the loop reports an error, or if nothing moves any more; what is raised then carries a note that
    says which task was cancelled at which tick.

    Args:
        make: Returns a new coroutine, which may start tasks; called for each run.
        check: Asserts what must hold after each run; a coroutine function is awaited on the run's loop.
        times: How often the task is cancelled, at so many ticks in a row.
        patience: Real seconds after which a run in which nothing moves has failed.

    Returns:
        How many runs had a task cancelled; the one that is cancelled before it has begun is among them.

    Raises:
        AssertionError: A run failed.

    Example:
        >>> free = asyncio.Semaphore(1)
        >>> async def work() -> None:
        ...     async with free:
        ...         await asyncio.sleep(0)
        >>> def all_free() -> None:
        ...     assert not free.locked()
        >>> cancel_at_every_tick(work, all_free) > 1
        True
    """
    undisturbed = _run(make, check, _Plan(0, 0, 0, patience))
    cancelled = 0
    task, tasks = 0, undisturbed.tasks
    while task < tasks:
        tick, ticks = 1, undisturbed.ticks
        while tick <= ticks:
            run = _run(make, check, _Plan(task, tick, times, patience))
            cancelled += run.cancelled
            ticks = max(ticks, run.ticks)
            tasks = max(tasks, run.tasks)
            tick += 1
        task += 1
    return cancelled


class _Plan(NamedTuple):
    """Which task a run cancels, when, and how often."""

    task: int
    tick: int
    times: int
    patience: float


class _Run(NamedTuple):
    """What a run came to."""

    tasks: int
    ticks: int
    cancelled: bool


def _run(make: Callable[[], Coroutine[Any, Any, object]], check: Callable[[], object], plan: _Plan) -> _Run:
    ticker = _Ticker(plan)
    try:
        with asyncio.Runner(loop_factory=ticker.new_loop) as runner:
            runner.run(_settle(make, ticker))
            ticker.verdict()
            checked = check()
            if asyncio.iscoroutine(checked):
                runner.run(checked)
    except BaseException as failure:
        if ticker.cancelled:
            failure.add_note(f"cancelled was task {plan.task}, {ticker.victim!r}, at tick {plan.tick}")
        raise
    return _Run(len(ticker.tasks), ticker.ticks, ticker.cancelled)


async def _settle(make: Callable[[], Coroutine[Any, Any, object]], ticker: _Ticker) -> None:
    """Run the scenario as a task of its own; then end what it has left running."""
    ticker.begin()
    main = asyncio.ensure_future(make())
    await asyncio.wait([main])
    ticker.end()
    left = [task for task in ticker.tasks if not task.done()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    if not main.cancelled():
        main.result()


class _Ticker(selectors.DefaultSelector):
    """Counts the ticks of a loop, which asks its selector once in each, and cancels as planned."""

    def __init__(self, plan: _Plan) -> None:
        super().__init__()
        self._plan = plan
        self._counting = False
        self._hung = False
        self._errors: list[dict[str, Any]] = []
        self.ticks = 0
        self.tasks: list[asyncio.Task[Any]] = []
        self.cancelled = False

    @property
    def victim(self) -> asyncio.Task[Any]:
        """The task that is cancelled in this run."""
        return self.tasks[self._plan.task]

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop whose ticks are counted."""
        loop = asyncio.SelectorEventLoop(self)
        loop.set_task_factory(self._new_task)
        loop.set_exception_handler(lambda _, context: self._errors.append(context))
        return loop

    def begin(self) -> None:
        """Count from here on."""
        self._counting = True

    def end(self) -> None:
        """Leave what follows alone."""
        self._counting = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Begin a tick; if its turn has come, cancel the task first."""
        if self._counting:
            self.ticks += 1
            if self._strike():
                timeout = 0
        if timeout is not None:
            return super().select(timeout)
        moved = super().select(self._plan.patience)
        if not moved:
            self._hung = True
            for task in self.tasks:
                task.cancel()
        return moved

    def verdict(self) -> None:
        """Raise what was wrong with the run, if anything was."""
        if self._hung:
            raise AssertionError(f"nothing moved any more for {self._plan.patience} s: a wake-up is lost")
        if self.cancelled and not self.victim.cancelled():
            raise AssertionError(f"{self.victim!r} swallowed its cancellation")
        for error in self._errors:
            raise AssertionError(f"the event loop reports: {error['message']}") from error.get("exception")

    def _new_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=loop, **options)
        if self._counting:
            self.tasks.append(task)
        return task

    def _strike(self) -> bool:
        first = self._plan.tick
        if not first <= self.ticks < first + self._plan.times or self._plan.task >= len(self.tasks):
            return False
        struck = self.victim.cancel()
        self.cancelled = self.cancelled or struck
        return struck
