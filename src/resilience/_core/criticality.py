"""How much a call matters: the four levels of the SRE book, "Handling Overload"."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class Criticality(IntEnum):
    """How much a call matters; more is greater. What matters least is refused first."""

    SHEDDABLE = 0
    """Batch work that may fail in part, and be tried again in minutes or hours."""
    SHEDDABLE_PLUS = 1
    """Work that may fail now and then; the default for batch jobs."""
    CRITICAL = 2
    """What people see; the default."""
    CRITICAL_PLUS = 3
    """What does serious harm if it fails."""

    @classmethod
    def of(cls, level: Any) -> Criticality:
        """Return the level that is meant, by itself or by its name.

        Raises:
            TypeError: `level` is neither.
            ValueError: It is the name of none.

        Example:
            >>> Criticality.of("sheddable_plus")
            <Criticality.SHEDDABLE_PLUS: 1>
        """
        if isinstance(level, cls):
            return level
        if not isinstance(level, str):
            raise TypeError(f"a criticality is a Criticality or its name, not {level!r}")
        named = cls.__members__.get(level.upper())
        if named is None:
            names = ", ".join(repr(member.name.lower()) for member in reversed(cls))
            raise ValueError(f"a criticality is one of {names}, not {level!r}")
        return named
