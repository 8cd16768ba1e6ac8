"""Remembers what the policies tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

from resilience.events import subscribe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

E = TypeVar("E")


class EventRecorder:
    """Keeps events in the order in which they come: all of this process inside its `with` block.

    It is a listener, too: given to one policy as a hook, it keeps the events of that policy.

    Threads may share it.

    Example:
        >>> from resilience.events import RateLimited, publish
        >>> with EventRecorder() as recorder:
        ...     publish(RateLimited("login", ("ada",), 12.5))
        >>> [event.retry_after for event in recorder.of(RateLimited)]
        [12.5]
    """

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._unsubscribe: Callable[[], None] = lambda: None

    def __call__(self, event: Any) -> None:
        """Keep `event`."""
        self._events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one kind, in order."""
        return [event for event in tuple(self._events) if isinstance(event, kind)]

    def clear(self) -> None:
        """Forget what came so far."""
        self._events.clear()

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the events so far, in order."""
        return iter(tuple(self._events))

    def __len__(self) -> int:
        """Return how many events there are."""
        return len(self._events)

    def __enter__(self) -> Self:
        """Begin to hear all events of this process."""
        self._unsubscribe = subscribe(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hear no more."""
        self._unsubscribe()
