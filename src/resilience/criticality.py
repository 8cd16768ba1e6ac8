"""How much a call matters, shared by everything below it.

Under overload something has to be refused, and what matters least goes first. How much a request matters is
known where it begins: a person who waits for a page, a report of the night. So it is set there, and lives in
a context variable, as a deadline does. The four levels are those of the SRE book ("Handling Overload").

A new thread begins with an empty context: use `contextvars.copy_context().run` (as `asyncio.to_thread`
does) to take it there.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from resilience._core.criticality import Criticality

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["CURRENT", "Criticality", "criticality", "current_criticality"]

CURRENT: Final[ContextVar[Criticality]] = ContextVar("resilience.criticality", default=Criticality.CRITICAL)
"""The criticality of this context, for policies and adapters."""


def current_criticality() -> Criticality:
    """Return how much the work of this context matters; `CRITICAL` where nobody has said.

    Example:
        >>> current_criticality()
        <Criticality.CRITICAL: 2>
    """
    return CURRENT.get()


@contextmanager
def criticality(level: Criticality | str) -> Generator[None]:
    """Say how much what runs inside the `with` block matters. Works in async code too, with a plain `with`.

    Threads and tasks have their own contexts, and each sees what was set in its own.

    Args:
        level: A `Criticality` or its name: `"critical_plus"`, `"critical"`, `"sheddable_plus"` or
            `"sheddable"`.

    Raises:
        ValueError, TypeError: `level` is no such name, or no name at all.

    Example:
        >>> with criticality("sheddable"):
        ...     current_criticality()
        <Criticality.SHEDDABLE: 0>
    """
    token = CURRENT.set(Criticality.of(level))
    try:
        yield
    finally:
        # A generator that holds the block may be closed in some other context than it was begun in, by the
        # garbage collector say. That context never had this criticality, so nothing is left to undo.
        with suppress(ValueError):
            CURRENT.reset(token)
