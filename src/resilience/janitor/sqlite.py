"""Sessions in an SQLite file, shared by threads and processes; for one machine.

The rules:

- Every change is one transaction, which takes SQLite's write lock before it looks at a row: what it finds
  expired cannot be renewed before it is deleted.
- A renewal is an UPDATE that checks its row count. Only `create` inserts, so what was logged out stays so.
- A renewal writes only if it moves the expiry by a tenth of the idle timeout, or to the very end. It never
  brings the expiry forward: it may have waited for the write lock while a later one passed it.
- The store's clock is this machine's wall clock. It has to be right: set it forward, and sessions end.
- A connection is used by one thread at a time, and never by a process that did not open it.

Only whoever wants this store imports this module, and with it `sqlite3`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn, ParamSpec, Self, TypeVar

from resilience.checks import count as whole_number
from resilience.clock import SYSTEM_CLOCK
from resilience.janitor.sessions import Lifetimes, Session, is_unicode, new_token, session_id_of
from resilience.sqlite_file import SQLiteFile

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from resilience.clock import Clock

P = ParamSpec("P")
T = TypeVar("T")

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS resilience_sessions (
    session_id TEXT PRIMARY KEY NOT NULL,
    user_id    TEXT NOT NULL,
    data       TEXT NOT NULL,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    ends_at    REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS resilience_sessions_by_user ON resilience_sessions (user_id, created_at);
CREATE INDEX IF NOT EXISTS resilience_sessions_by_expiry ON resilience_sessions (expires_at);
"""
_SESSION: Final = "session_id, user_id, data, created_at, expires_at, ends_at"
_BUSY_TIMEOUT: Final = 5.0  # seconds to wait for another's write lock, as in `sqlite3.connect`


class SQLiteSessionStore:
    """Keeps sessions in an SQLite file.

    Threads and processes may share the file, and threads may share the store. A child process may use the
    store that its parent made, if no other thread was inside it at the moment of the fork; else it is told
    by an error. The file needs a local disk: SQLite's write-ahead log does not work over a network.

    Args:
        path: The file; made if it is not there. Not `":memory:"`, which each connection would have for
            itself.
        idle_timeout: Seconds after which a session ends that is not renewed.
        absolute_lifetime: Seconds after which a session ends in any case. The defaults of 30 minutes and 12
            hours are those of NIST SP 800-63B for a second level of assurance.
        clock: Tells the wall time.

    Raises:
        ValueError: A duration is not above 0, or the idle timeout is longer than the lifetime.
        sqlite3.Error: The file cannot be opened; each method may raise it too.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = SQLiteSessionStore(f"{folder.name}/sessions.db")
        >>> token = store.create("ada", {"device": "laptop"})
        >>> session = store.renew(token)
        >>> session.user_id, session.data
        ('ada', {'device': 'laptop'})
        >>> store.delete(session.session_id), store.renew(token)
        (True, None)
        >>> store.close(); folder.cleanup()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        idle_timeout: float = 1800.0,
        absolute_lifetime: float = 43200.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._lifetimes = Lifetimes.checked(idle_timeout, absolute_lifetime)
        self._clock = clock
        # What was logged out stays so after a power cut.
        self._file = SQLiteFile(path, _SCHEMA, synchronous="FULL", busy_timeout=_BUSY_TIMEOUT)

    def create(self, user_id: str, data: Mapping[str, Any] | None = None) -> str:
        """Begin a session.

        Args:
            user_id: Whose it is.
            data: What JSON can hold; read back with each `validate` and `renew`.

        Returns:
            The token, the only copy there is: 43 characters that may stand in a cookie, a header or a URL.

        Raises:
            TypeError: The data is not what JSON can hold.
        """
        token = new_token()
        now = self._clock.wall()
        row = (
            session_id_of(token),
            user_id,
            json.dumps(dict(data or {})),
            now,
            now + self._lifetimes.idle_timeout,
            now + self._lifetimes.absolute_lifetime,
        )
        self._change("INSERT INTO resilience_sessions VALUES (?, ?, ?, ?, ?, ?)", *row)
        return token

    def validate(self, token: str) -> Session | None:
        """Return the session if it is alive. Writes nothing, and does not renew it."""
        row = self._fetch(
            f"SELECT {_SESSION} FROM resilience_sessions WHERE session_id = ? AND expires_at > ?",  # noqa: S608 - constants
            session_id_of(token),
            self._clock.wall(),
        )
        return None if row is None else _session_of(row)

    def renew(self, token: str) -> Session | None:
        """Return the session if it is alive, and put its idle timeout off: what each request calls.

        Nine calls in ten only read, whatever the traffic: see the rules above. None means that the session
        is over: expired, logged out, or never there.
        """
        session = self.validate(token)
        if session is None:
            return None
        now = self._clock.wall()
        expires_at = self._lifetimes.renewed(session, now)
        if expires_at is None:
            return session
        renewed = self._change(
            "UPDATE resilience_sessions SET expires_at = max(expires_at, ?)"
            " WHERE session_id = ? AND expires_at > ?",
            expires_at,
            session.session_id,
            now,
        )
        return session._replace(expires_at=expires_at) if renewed else None

    def of_user(self, user_id: str, limit: int = 100) -> list[Session]:
        """Return the sessions of a user that are alive, the newest first: what a person is shown of them.

        Args:
            user_id: Whose sessions.
            limit: How many at most, 1 or more.

        Raises:
            TypeError: The limit is no whole number.
            ValueError: The limit is less than 1.
        """
        whole_number("limit", limit, least=1)
        if not is_unicode(user_id):
            return []
        with self._file.borrowed() as connection:
            rows = connection.execute(
                f"SELECT {_SESSION} FROM resilience_sessions WHERE user_id = ? AND expires_at > ?"  # noqa: S608 - constants
                " ORDER BY created_at DESC LIMIT ?",
                (user_id, self._clock.wall(), limit),
            ).fetchall()
        return list(map(_session_of, rows))

    def delete(self, session_id: str) -> bool:
        """End one session; return whether it was there."""
        deletion = "DELETE FROM resilience_sessions WHERE session_id = ?"
        return is_unicode(session_id) and self._change(deletion, session_id) > 0

    def delete_user(self, user_id: str) -> list[str]:
        """End all sessions of a user; return their ids."""
        if not is_unicode(user_id):
            return []
        with self._file.borrowed() as connection:
            connection.execute("BEGIN IMMEDIATE")
            ids = connection.execute(
                "SELECT session_id FROM resilience_sessions WHERE user_id = ?", (user_id,)
            )
            found = [session_id for (session_id,) in ids]
            connection.execute("DELETE FROM resilience_sessions WHERE user_id = ?", (user_id,))
            connection.execute("COMMIT")
        return found

    def delete_expired(self, limit: int) -> int:
        """Delete at most `limit` expired sessions, the longest expired first; return how many.

        Less than `limit` means that none is left.
        """
        return self._change(
            "DELETE FROM resilience_sessions WHERE rowid IN"
            " (SELECT rowid FROM resilience_sessions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
            self._clock.wall(),
            limit,
        )

    def count(self) -> int:
        """Return how many sessions are alive."""
        return self._count(
            "SELECT count(*) FROM resilience_sessions WHERE expires_at > ?", self._clock.wall()
        )

    def count_expired(self, limit: int) -> int:
        """Return how many sessions have expired and are still stored, counting to `limit` at most."""
        return self._count(
            "SELECT count(*) FROM (SELECT 1 FROM resilience_sessions WHERE expires_at <= ? LIMIT ?)",
            self._clock.wall(),
            limit,
        )

    def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive: expired, deleted, or never there."""
        now = self._clock.wall()
        alive = "SELECT 1 FROM resilience_sessions WHERE session_id = ? AND expires_at > ?"
        with self._file.borrowed() as connection:
            return [
                session_id
                for session_id in session_ids
                if not is_unicode(session_id)
                or connection.execute(alive, (session_id, now)).fetchone() is None
            ]

    def close(self) -> None:
        """Close the connections. The store cannot be used afterwards; closing it again does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        """Return the store; leaving the block closes it."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the connections."""
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a session store owns its connections: make another one for the same path instead")

    def _change(self, statement: str, *values: object) -> int:
        with self._file.borrowed() as connection:
            return connection.execute(statement, values).rowcount

    def _fetch(self, statement: str, *values: object) -> Any:
        with self._file.borrowed() as connection:
            return connection.execute(statement, values).fetchone()

    def _count(self, statement: str, *values: object) -> int:
        (count,) = self._fetch(statement, *values)
        return int(count)


class AsyncSQLiteSessionStore:
    """The same store for event loops: each call runs in a thread of the loop's default executor.

    SQLite itself only knows how to block, for up to 5 seconds if another process writes. A cancelled call
    leaves at once; the statement that its thread has begun still happens, as a whole. The arguments and
    what the methods do: see `SQLiteSessionStore`.

    Several loops may share it, also one after another.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        idle_timeout: float = 1800.0,
        absolute_lifetime: float = 43200.0,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store = SQLiteSessionStore(
            path, idle_timeout=idle_timeout, absolute_lifetime=absolute_lifetime, clock=clock
        )

    async def create(self, user_id: str, data: Mapping[str, Any] | None = None) -> str:
        """Begin a session; return its token, the only copy there is."""
        return await _in_thread(self._store.create, user_id, data)

    async def validate(self, token: str) -> Session | None:
        """Return the session if it is alive. Writes nothing, and does not renew it."""
        return await _in_thread(self._store.validate, token)

    async def renew(self, token: str) -> Session | None:
        """Return the session if it is alive, and put its idle timeout off: what each request calls."""
        return await _in_thread(self._store.renew, token)

    async def of_user(self, user_id: str, limit: int = 100) -> list[Session]:
        """Return the sessions of a user that are alive, the newest first, `limit` of them at most."""
        return await _in_thread(self._store.of_user, user_id, limit)

    async def delete(self, session_id: str) -> bool:
        """End one session; return whether it was there."""
        return await _in_thread(self._store.delete, session_id)

    async def delete_user(self, user_id: str) -> list[str]:
        """End all sessions of a user; return their ids."""
        return await _in_thread(self._store.delete_user, user_id)

    async def delete_expired(self, limit: int) -> int:
        """Delete at most `limit` expired sessions, the longest expired first; return how many."""
        return await _in_thread(self._store.delete_expired, limit)

    async def count(self) -> int:
        """Return how many sessions are alive."""
        return await _in_thread(self._store.count)

    async def count_expired(self, limit: int) -> int:
        """Return how many sessions have expired and are still stored, counting to `limit` at most."""
        return await _in_thread(self._store.count_expired, limit)

    async def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive: expired, deleted, or never there."""
        return await _in_thread(self._store.ended, session_ids)

    async def close(self) -> None:
        """Close the connections. The store cannot be used afterwards; closing it again does nothing."""
        await _in_thread(self._store.close)

    async def __aenter__(self) -> Self:
        """Return the store; leaving the block closes it."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the connections."""
        await self.close()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        self._store.__reduce__()


def _session_of(row: tuple[Any, ...]) -> Session:
    session_id, user_id, data, *instants = row
    return Session(session_id, user_id, json.loads(data), *instants)


async def _in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    import asyncio  # noqa: PLC0415 - the store is also used without an event loop

    return await asyncio.to_thread(function, *args, **kwargs)
