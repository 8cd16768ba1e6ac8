"""What the server answers when it does not answer: by SQLSTATE, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import pq

from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost, Unable

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

AGAIN: Final = frozenset({"40001", "40P01"})
"""The transaction lost against others and took nothing: it is made anew, as a whole."""

GONE: Final = frozenset({"57P01", "57P02", "57P05"})
"""The server ended this connection, and what ran on it; another one may be had."""

_OCCUPIED: Final = "55P03"
_SOON: Final = 1.0
"""Seconds after which what was occupied is worth another try."""

_HELP: Final = {
    "22003": "the server's clock must be right: it is before 1970, or centuries ahead",
    "25006": "it is a read-only replica: name the primary, or add target_session_attrs=read-write to the URL",
    "26000": "behind a pooler that parts transactions, give the store prepare=False",
    "28000": "look at the user's name, and at pg_hba.conf",
    "28P01": "the user's name or password is wrong",
    "3D000": "there is no such database: make it, or name another",
    "42501": "the user needs SELECT, INSERT, UPDATE and DELETE on resilience_quota, and USAGE on its schema",
    "42703": "the table is of another version: run create_schema, or SCHEMA, once more",
    "42883": "run resilience.stores.postgres.create_schema, or SCHEMA in a migration; its schema must be on "
    "the search_path",
    "42P01": "run resilience.stores.postgres.create_schema, or SCHEMA in a migration; its schema must be on "
    "the search_path",
    "53100": "make room on its disk",
    "53200": "it has no memory left",
    "53300": "it has no connection left: give the store fewer by max_connections, or the server more",
    "54000": "the limiter's name is too long for an index: shorten it",
    "55P03": "somebody else holds the row or the table locked for longer than the store waits",
    "57014": "a statement_timeout ended it, or somebody did",
    "57P03": "it is starting up or shutting down",
}
"""What to do about these answers."""

_WORDS: Final = {
    "password": "28P01",
    "pg_hba.conf": "28000",
    "too many clients": "53300",
    "connection slots": "53300",
    "starting up": "57P03",
    "shutting down": "57P03",
    "database": "3D000",
    "role": "28000",
}
"""How a refusal to connect is recognised, the first that fits: the client library tells no SQLSTATE of it."""


def sqlstate_of(result: PGresult) -> str | None:
    """Return the SQLSTATE of an error; None if the result is none."""
    state = result.error_field(pq.DiagnosticField.SQLSTATE)
    return None if state is None else state.decode()


def failure_of(result: PGresult, what: str) -> Exception:
    """Return what to raise for an error that the server `what` answered."""
    state = sqlstate_of(result) or ""
    said = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode("utf-8", "replace")
    if state in GONE:
        return Lost(f"the server ended the connection: {said} ({state})")
    return _failure(state, f"{said} ({state})", what)


def failure_to_connect(error: Exception, what: str) -> Exception:
    """Return what to raise where no connection could be made: a fresh one for each who waits."""
    said = str(error).strip().replace("\n", "; ")
    if "FATAL:" not in said:
        lost = Lost(f"there is no connection: {said}")
        lost.__cause__ = error
        return lost
    state = next((state for words, state in _WORDS.items() if words in said), "57P03")
    failure = Unable(_told(said, _HELP[state], what))
    failure.__cause__ = error
    return failure


def _failure(state: str, said: str, what: str) -> StoreUnavailable:
    text = _told(said, _HELP.get(state, ""), what)
    # Of class 53, resources, and 57P, operator intervention; 08 is a connection exception of a pooler.
    if state.startswith(("08", "53", "57P", "58")):
        return Unable(text)
    return StoreUnavailable(text, retry_after=_SOON if state == _OCCUPIED else None)


def _told(said: str, help_: str, what: str) -> str:
    return f"the limits on {what} are unavailable: {said}{help_ and '; '}{help_}"
