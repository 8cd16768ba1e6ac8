"""What PostgreSQL's errors mean for a session store: whether to ask again, and what to tell people.

Sources: the SQLSTATE codes of PostgreSQL's manual, appendix A. An error without a code is one of the
connection: the server never said anything.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class Again(Enum):
    """Whether the whole transaction may be repeated at once."""

    NO = "no"
    CONFLICT = "conflict"
    """It was rolled back because of what another one did at the same time."""
    LOST = "lost"
    """The connection was lost; a new one may do, if this one had been lying idle."""


class Trouble(NamedTuple):
    """What an error means."""

    help: str
    """What is wrong, or what to do."""
    passes: bool = False
    """Whether it may have passed in a moment."""
    again: Again = Again.NO


_LOST: Final = Trouble("the connection was lost, or there is no server", passes=True, again=Again.LOST)
_CONFLICT: Final = Trouble(
    "transactions kept getting into each other's way", passes=True, again=Again.CONFLICT
)
_FULL: Final = Trouble("the server is short of connections or memory", passes=True)
_PERMISSION: Final = (
    "grant this user SELECT, INSERT, UPDATE and DELETE on resilience_sessions, or check the URL"
)

LATE: Final = Trouble("it did not answer in time", passes=True)
"""What it means that an answer did not come."""

_BY_STATE: Final = {
    "08": _LOST,
    "28": Trouble(_PERMISSION),
    "3D000": Trouble("there is no such database: check the URL"),
    "25006": Trouble("the server only reads, as a replica does: give the URL of the primary"),
    "40001": _CONFLICT,
    "40P01": _CONFLICT,
    "42501": Trouble(_PERMISSION),
    "42P01": Trouble("the table is not there: call create_schema(), or run SCHEMA in a migration"),
    "53100": Trouble("the disk of the server is full"),
    "53": _FULL,
    "55P03": Trouble("another transaction held the rows for longer than lock_timeout", passes=True),
    "57014": Trouble("it took longer than timeout, or somebody cancelled it", passes=True),
    "57P01": _LOST,
    "57P02": _LOST,
    "57P03": _LOST,
    "57P05": _LOST,
}


def trouble_of(sqlstate: str | None) -> Trouble:
    """Return what an error with this SQLSTATE means.

    Example:
        >>> trouble_of("25006").help
        'the server only reads, as a replica does: give the URL of the primary'
    """
    if sqlstate is None:
        return _LOST
    return _BY_STATE.get(sqlstate) or _BY_STATE.get(sqlstate[:2]) or Trouble(f"SQLSTATE {sqlstate}")
