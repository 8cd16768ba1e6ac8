"""A board on PostgreSQL: one row for each breaker, and NOTIFY that says which has changed.

A row is read, worked out here, and written by one statement where it is still as it was read. So no
transaction is open between two questions, and no lock is held. It takes two connections for each process: one
that asks and one that listens. The table is unlogged: a crash of the server empties it, and the processes
tell it again what they know. Run `SCHEMA` in your own migrations, or `create_schema` once.

Example:
    >>> from resilience import CircuitBreaker
    >>> board = PostgresBoard("host=127.0.0.1 port=1")      # nobody answers there: each process goes on alone
    >>> breaker = CircuitBreaker(2, 60.0, name="storage", shared=board)
    >>> breaker.execute(len, "abc"), board.in_touch
    (3, False)
    >>> board.close()
"""

from __future__ import annotations

import os
import selectors
from typing import TYPE_CHECKING, Final

from resilience._core.ledger import KEPT
from resilience.boards.board import LISTENING, ThreadedBoard
from resilience.boards.coding import taken
from resilience.clock import SYSTEM_CLOCK

try:
    import psycopg
    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict
except ImportError as error:  # psycopg raises it too where there is no libpq
    raise ImportError(
        f"resilience.boards.postgres needs psycopg ({error}): pip install 'resilience-py[postgres]'"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from psycopg.pq.abc import PGresult

    from resilience._core.ledger import Answer, Report

__all__ = ["SCHEMA", "PostgresBoard", "create_schema"]

SCHEMA: Final = """\
CREATE UNLOGGED TABLE IF NOT EXISTS resilience_breakers (
    name text PRIMARY KEY,
    ledger text NOT NULL,
    keep_until timestamptz NOT NULL
);
"""
"""What a board needs; the user needs SELECT, INSERT, UPDATE and DELETE on it."""

TIMEOUT: Final = 1.0
"""Seconds for which an answer is awaited."""

ROUNDS: Final = 20
"""How many times a ledger is begun anew because others were quicker, before it is left to the refresh."""

_CHANNEL: Final = "resilience_breakers"

_READ: Final = b"""
SELECT known.ledger, extract(epoch FROM clock_timestamp())
FROM unnest($1::text[]) WITH ORDINALITY AS asked (name, place)
LEFT JOIN resilience_breakers AS known USING (name)
ORDER BY asked.place
"""
_WRITE: Final = b"""
WITH written AS (
    INSERT INTO resilience_breakers AS known (name, ledger, keep_until)
    VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3::float8))
    ON CONFLICT (name) DO UPDATE SET ledger = excluded.ledger, keep_until = excluded.keep_until
        WHERE known.ledger = $4
    RETURNING name
)
SELECT pg_notify($5, name) FROM written
"""
_FORGET: Final = b"DELETE FROM resilience_breakers WHERE keep_until < clock_timestamp()"
_LISTEN: Final = f"LISTEN {_CHANNEL}".encode()

_HELP: Final = {
    "25006": "it is a read-only replica: name the primary, or add target_session_attrs=read-write",
    "42501": "the user needs SELECT, INSERT, UPDATE, DELETE on resilience_breakers, and USAGE on its schema",
    "42P01": "run resilience.boards.postgres.create_schema, or SCHEMA in a migration; its schema must be on "
    "the search_path",
}
"""What to do about what the server answers."""


def create_schema(conninfo: str) -> None:
    """Create the table that boards need, unless it is there.

    Args:
        conninfo: Where, as a URL or as keywords and values; as a user who may create tables.

    Raises:
        psycopg.Error: That failed.
    """
    with psycopg.connect(conninfo) as connection:
        connection.execute(SCHEMA)


class PostgresBoard(ThreadedBoard):
    """Lets the breakers of several processes open, be tested and close together, by PostgreSQL.

    Make one for each process, give it to all its breakers, and close it at the end. It connects when the
    first breaker joins, from its own two threads. LISTEN needs a session of its own, so name the server
    itself, not a pooler that parts transactions.

    Args:
        conninfo: Where the table is, as a URL or as keywords and values.
        prefix: What the names of rows begin with. Breakers know each other by it.
        refresh: Seconds within which news arrive even if a notification is lost, above 0, an hour at most.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.
        psycopg.ProgrammingError: `conninfo` cannot be read.

    Threads may share it, and it survives a fork.
    """

    def __init__(self, conninfo: str, *, prefix: str = "", refresh: float = 1.0) -> None:
        if not isinstance(conninfo, str):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            raise TypeError(f"conninfo={conninfo!r} must be a URL or keywords and values, as a string")
        super().__init__(_Postgres(conninfo, prefix), refresh)


class _Postgres:
    """The engine. One thread asks and another listens, each on a connection of its own."""

    def __init__(self, conninfo: str, prefix: str) -> None:
        known = conninfo_to_dict(conninfo)
        self.what = f"PostgreSQL at {known.get('host', 'the usual place')}"
        self._conninfo = conninfo
        self._prefix = prefix
        self._asking: _Session | None = None
        self._listening: _Session | None = None
        self._forget_at = SYSTEM_CLOCK.now() + KEPT

    def after_fork(self) -> None:
        for session in (self._asking, self._listening):
            if session is not None:
                session.disown()
        self._asking = self._listening = None

    def read(self, labels: Sequence[str]) -> tuple[list[str | None], float]:
        texts, now = self._read(labels)
        if SYSTEM_CLOCK.now() >= self._forget_at:
            self._forget_at = SYSTEM_CLOCK.now() + KEPT
            self._ask(_FORGET)
        return texts, now

    def take(self, label: str, report: Report) -> Answer:
        for _ in range(ROUNDS):
            (text,), now = self._read([label])
            written, keep_for, answer = taken(text, report, now)
            if written is None or self._ask(
                _WRITE, self._prefix + label, written, str(keep_for), text, _CHANNEL
            ):
                return answer
        raise TimeoutError(f"the ledger of {label!r} has changed under {ROUNDS} attempts to write it")

    def listen(self, heard: Callable[[str], None], is_over: Callable[[], bool]) -> None:
        session = self._listening = _Session(self._conninfo)
        try:
            session.ask(_LISTEN)
            while not is_over():
                for name in session.notified():
                    if name.startswith(self._prefix):
                        heard(name.removeprefix(self._prefix))
        finally:
            self._listening = None
            session.close()

    def close(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.close()

    def _read(self, labels: Sequence[str]) -> tuple[list[str | None], float]:
        names = ",".join(_quoted(self._prefix + label) for label in labels)
        rows = self._ask(_READ, f"{{{names}}}")
        return [text for text, _ in rows], float(rows[0][1] or "nan")

    def _ask(self, statement: bytes, *values: str | None) -> list[tuple[str | None, ...]]:
        if self._asking is None:
            self._asking = _Session(self._conninfo)
        try:
            return self._asking.ask(statement, *values)
        except BaseException:
            self.close()  # what it would answer next is the answer to this
            raise


class _Session:
    """A connection that answers within `TIMEOUT` seconds or not at all."""

    def __init__(self, conninfo: str) -> None:
        self._connection = psycopg.connect(
            conninfo,
            autocommit=True,
            connect_timeout=2,  # less is not to be had
            application_name="resilience board",
            client_encoding="utf8",
        )
        self._libpq = self._connection.pgconn

    def ask(self, statement: bytes, *values: str | None) -> list[tuple[str | None, ...]]:
        """Return the rows that a statement answers."""
        until = SYSTEM_CLOCK.now() + TIMEOUT
        libpq = self._libpq
        libpq.send_query_params(statement, [None if value is None else value.encode() for value in values])
        results: list[PGresult] = []
        while True:
            while libpq.is_busy():
                if not self._is_readable(until - SYSTEM_CLOCK.now()):
                    raise TimeoutError(f"no answer within {TIMEOUT:g} s")
                libpq.consume_input()
            result = libpq.get_result()
            if result is None:
                break
            results.append(result)
        return _rows(results[-1])

    def notified(self) -> list[str]:
        """Wait a moment, and return the names that were told."""
        if self._is_readable(LISTENING):
            self._libpq.consume_input()
        names: list[str] = []
        while (notice := self._libpq.notifies()) is not None:
            names.append(notice.extra.decode("utf-8", "replace"))
        return names

    def close(self) -> None:
        """End it."""
        self._connection.close()

    def disown(self) -> None:
        """End it in a child without a word to the server, which would take it for the parent's."""
        if self._libpq.status == pq.ConnStatus.OK:
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, self._libpq.socket)  # so that it is nobody whom goodbye is said to
            os.close(nothing)
        self.close()

    def _is_readable(self, seconds: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self._libpq.socket, selectors.EVENT_READ)
            return bool(selector.select(max(0.0, seconds)))


def _rows(result: PGresult) -> list[tuple[str | None, ...]]:
    """Return the rows of a result.

    Raises:
        psycopg.Error: It is an error, with what to do about it.
    """
    if result.status in {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK}:
        columns = range(result.nfields)
        return [
            tuple(_text(result.get_value(row, column)) for column in columns) for row in range(result.ntuples)
        ]
    state = _text(result.error_field(pq.DiagnosticField.SQLSTATE)) or ""
    said = _text(result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY))
    help_ = f": {_HELP[state]}" if state in _HELP else ""
    raise psycopg.DatabaseError(f"{said} ({state}){help_}")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _quoted(name: str) -> str:
    """Return a name as it stands in an array."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
