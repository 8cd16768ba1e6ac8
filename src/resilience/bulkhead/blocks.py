"""Blocks that have a place in a bulkhead: what its `guard()` makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from resilience.callables import MisuseError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from resilience._core.bulkhead import Slots


class Block:
    """A `with` block that has a place in a bulkhead; made by `Bulkhead.guard`, for one at a time."""

    __slots__ = ("_enter", "_release", "_slots")

    def __init__(self, enter: Callable[[], Slots[Any]], release: Callable[[Slots[Any]], None]) -> None:
        self._enter = enter
        self._release = release
        self._slots: Slots[Any] | None = None

    def __enter__(self) -> Self:
        """Wait for a place."""
        _refuse_second(self._slots)
        self._slots = self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the place back."""
        slots, self._slots = self._slots, None
        if slots is not None:
            self._release(slots)


class AsyncBlock:
    """An `async with` block that has a place; made by `AsyncBulkhead.guard`, for one at a time."""

    __slots__ = ("_enter", "_release", "_slots")

    def __init__(
        self, enter: Callable[[], Awaitable[Slots[Any]]], release: Callable[[Slots[Any]], None]
    ) -> None:
        self._enter = enter
        self._release = release
        self._slots: Slots[Any] | None = None

    async def __aenter__(self) -> Self:
        """Wait for a place."""
        _refuse_second(self._slots)
        self._slots = await self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the place back; awaits nothing, so no cancellation can come between."""
        slots, self._slots = self._slots, None
        if slots is not None:
            self._release(slots)


def _refuse_second(slots: object) -> None:
    if slots is not None:
        raise MisuseError("this block has begun already: ask the bulkhead's guard() for one for each")
