"""The instant by which the whole call must end, shared by everything below it.

A deadline lives in a context variable, so attempts, delays and nested policies all see the same one, in
threads' own contexts as in tasks. Rules:
    - An inner deadline can only shorten the time that an outer one has left.
    - A sync call cannot be interrupted: hand `remaining()` to the client's own timeout. An async attempt
      made by a policy is cancelled at the deadline.
    - A call whose deadline has passed is not begun; `DeadlineExceeded` is raised instead.

A new thread begins with an empty context: use `contextvars.copy_context().run` (as `asyncio.to_thread`
does) to take the deadline there.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from resilience.checks import number
from resilience.clock import SYSTEM_CLOCK
from resilience.errors import DeadlinePassed

if TYPE_CHECKING:
    from contextvars import Token
    from types import TracebackType

    from resilience.clock import Clock


class Instant(NamedTuple):
    """An instant, with the clock that it is read on."""

    at: float
    """Monotonic seconds of that clock."""
    clock: Clock
    outer: Instant | None = None
    """The deadline around it."""
    block: object = None
    """The block that it is the deadline of: a `deadline`, or one of a policy."""

    def left(self) -> float:
        """Return the seconds until the instant; not above 0 once it has passed."""
        return self.at - self.clock.now()

    def without(self, block: object) -> Instant | None:
        """Return what is left of this and the deadlines around it once `block` ends.

        It is not always the innermost: a generator may hold a block longer than its consumer holds one.
        """
        if self.block is block:
            return self.outer
        return self if self.outer is None else self._replace(outer=self.outer.without(block))

    def require(self, name: str) -> None:
        """Do nothing before the instant.

        Raises:
            DeadlinePassed: It has passed; `name` was not begun.
        """
        left = self.left()
        if left <= 0:
            raise DeadlinePassed(f"{name} was not begun: the deadline passed {abs(left):.3f} s before")


CURRENT: Final[ContextVar[Instant | None]] = ContextVar("resilience.deadline", default=None)
"""The deadline of this context, for policies."""


def leave(instant: Instant, block: object) -> None:
    """Return to the deadline from before `block` set `instant`."""
    current = CURRENT.get()
    if current is instant:
        CURRENT.set(instant.outer)
    elif current is not None:  # a generator holds one that it has set meanwhile, or this is another context
        CURRENT.set(current.without(block))


def restore(token: Token[Instant | None]) -> None:
    """Return to the deadline from before `token` was got."""
    try:
        CURRENT.reset(token)
    except ValueError:
        # A generator that holds the attempt is closed in some other context than it was begun in, by the
        # garbage collector say. That context never had this deadline, so nothing is left to undo.
        return


def remaining() -> float | None:
    """Return the seconds until this context's deadline: 0.0 once it has passed, None without one.

    Example:
        >>> remaining() is None
        True
        >>> with deadline(2.0):
        ...     1.9 < remaining() <= 2.0
        True
    """
    instant = CURRENT.get()
    return None if instant is None else max(0.0, instant.left())


class deadline:  # noqa: N801 - it is read as a function: `with deadline(2.0):`
    """Give what runs inside the `with` block `seconds` in all, or less where less was left already.

    It limits what is begun inside: policies start no attempt and no delay past it, and async attempts are
    cancelled at it. Code that asks nobody is not interrupted. Works in async code too, with a plain
    `with`. The time runs from the beginning of the block.

    Args:
        seconds: At least 0 and finite. With 0, nothing is begun.
        clock: What the seconds are counted on.

    Raises:
        ValueError: `seconds` is negative, infinite or not a number.
        TypeError: `seconds` is no number at all.

    Threads and tasks have their own contexts, and each sees the deadlines set in its own. The object itself
    keeps nothing: it may be a constant that many of them enter at once, and each has the whole time.

    Example:
        >>> from resilience.testing import FakeClock
        >>> clock = FakeClock()
        >>> with deadline(2.0, clock=clock):
        ...     with deadline(5.0, clock=clock):
        ...         clock.advance(0.5)
        ...         remaining()
        1.5
    """

    __slots__ = ("_clock", "_seconds")

    def __init__(self, seconds: float, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._seconds = number("deadline", seconds, least=0)
        self._clock = clock

    def __enter__(self) -> Self:
        """Begin to count."""
        outer = CURRENT.get()
        if outer is not None and outer.left() < self._seconds:
            instant = Instant(outer.at, outer.clock, outer, self)
        else:
            instant = Instant(self._clock.now() + self._seconds, self._clock, outer, self)
        CURRENT.set(instant)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Return to the deadline from before.

        Where a generator that holds the block is closed in some other context than it was begun in, by the
        garbage collector say, that context never had this deadline, and keeps its own.
        """
        instant = CURRENT.get()
        if instant is not None:
            CURRENT.set(instant.without(self))
