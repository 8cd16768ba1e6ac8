"""The session stores in PostgreSQL, for threads and for event loops.

What they ask stands in `statements.py`, how they ask it in `link.py`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from resilience.checks import count as whole_number
from resilience.checks import number
from resilience.clock import SYSTEM_CLOCK
from resilience.janitor.postgres import statements as sql
from resilience.janitor.postgres.link import AsyncLink, Link
from resilience.janitor.sessions import Lifetimes, new_token, session_id_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

    from resilience.clock import Clock
    from resilience.janitor.postgres.connections import AsyncConnection, Connection
    from resilience.janitor.postgres.link import AsyncPool, Pool
    from resilience.janitor.sessions import Session

_LOOK: Final = 600.0  # seconds between two looks at the table's bloat
_FEW: Final = 10_000  # dead rows that are nothing to worry about


class _Sessions:
    """What both stores have in common: everything but asking."""

    def __init__(
        self, idle_timeout: float, absolute_lifetime: float, bloat_warning: float, clock: Clock
    ) -> None:
        self._lifetimes = Lifetimes.checked(idle_timeout, absolute_lifetime)
        self._bloat_warning = number("bloat_warning", bloat_warning, above=0, most=1)
        self._clock = clock
        self._looked_at = -_LOOK

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a session store owns its connections: make another one for the same server instead")

    def _row(self, token: str, user_id: str, data: Mapping[str, Any] | None) -> tuple[object, ...]:
        written = json.dumps(dict(data or {}))
        return session_id_of(token), sql.checked_user_id(user_id), written, *self._lifetimes

    def _is_worth_a_write(self, session: Session, now: float) -> bool:
        return self._lifetimes.renewed(session, now) is not None

    def _look_is_due(self) -> bool:
        """Return whether the bloat should be looked at: before a batch that comes after a pause.

        So it is before a sweep, and not after, when the database has not cleared away yet.
        """
        now = self._clock.now()
        if now - self._looked_at < _LOOK:
            return False
        self._looked_at = now
        return True

    def _warn_of(self, bloat: sql.Bloat) -> None:
        if bloat.dead > _FEW and bloat.share > self._bloat_warning:
            import logging  # noqa: PLC0415 - loaded only when something went wrong

            logging.getLogger("resilience").warning(
                "of the rows in resilience_sessions %d %% are dead (%d, and %d bytes with the indexes): see "
                "whether autovacuum runs, and what old transaction keeps it from clearing away",
                bloat.share * 100,
                bloat.dead,
                bloat.size,
            )


class PostgresSessions(_Sessions):
    """Keeps sessions in PostgreSQL.

    Threads and processes may share the database, and threads may share the store; it survives a fork. A
    janitor of each node may clean it: one does at a time, and the others leave it to that one.

    Args:
        server: A URL, such as `postgresql://shop@localhost/shop`; or a pool; or any function that lends a
            connection of psycopg 3 to a block. A lent connection is asked within `timeout`; how long to
            wait for it is the pool's business.
        idle_timeout: Seconds after which a session ends that is not renewed.
        absolute_lifetime: Seconds after which a session ends in any case.
        timeout: Seconds that a call may take. Less where the deadline around it leaves less.
        lock_timeout: Seconds that a call waits for other transactions.
        connections: How many connections of its own it opens at most.
        bloat_warning: The share of dead rows in the table above which a warning is logged, 0 to 1.
        clock: Measures time limits. When a session ends, the database's clock decides.

    Raises:
        TypeError: A number is none, or the server is neither of those.
        ValueError: A number is out of range, or the URL is none.

    Each method raises `StoreUnavailable` if the database does not do what it asks.

    Example:
        store = PostgresSessions("postgresql://shop@localhost/shop")
        store.create_schema()
        token = store.create("ada", {"device": "laptop"})
        session = store.renew(token)
    """

    def __init__(
        self,
        server: str | Pool | Callable[[], AbstractContextManager[Connection]],
        *,
        idle_timeout: float = 1800.0,
        absolute_lifetime: float = 43200.0,
        timeout: float = 5.0,
        lock_timeout: float = 1.0,
        connections: int = 8,
        bloat_warning: float = 0.5,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(idle_timeout, absolute_lifetime, bloat_warning, clock)
        self._link = Link(
            server, timeout=timeout, lock_timeout=lock_timeout, connections=connections, clock=clock
        )

    def create_schema(self) -> None:
        """Make the table where there is none, as `SCHEMA` says. Needs the right to make tables."""
        self._link.run(sql.CREATE_SCHEMA)

    def create(self, user_id: str, data: Mapping[str, Any] | None = None) -> str:
        """Begin a session.

        Args:
            user_id: Whose it is; 2,000 bytes at most, without NUL.
            data: What JSON can hold; read back with each `validate` and `renew`.

        Returns:
            The token, the only copy there is: 43 characters that may stand in a cookie, a header or a URL.

        Raises:
            TypeError: The data is not what JSON can hold.
            ValueError: The user id is not what PostgreSQL can hold.
        """
        token = new_token()
        self._link.run(sql.CREATE, *self._row(token, user_id, data))
        return token

    def validate(self, token: str) -> Session | None:
        """Return the session if it is alive. Writes nothing, and does not renew it."""
        found = self._link.run(sql.READ, session_id_of(token))
        return sql.session_of(found[0])[0] if found else None

    def renew(self, token: str) -> Session | None:
        """Return the session if it is alive, and put its idle timeout off: what each request calls.

        Nine calls in ten only read, whatever the traffic. None means that the session is over: expired,
        logged out, or never there.
        """
        found = self._link.run(sql.READ, session_id_of(token))
        if found and self._is_worth_a_write(*sql.session_of(found[0])):
            found = self._link.run(sql.RENEW, self._lifetimes.idle_timeout, session_id_of(token))
        return sql.session_of(found[0])[0] if found else None

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
        if not sql.storable(user_id):
            return []
        return [sql.session_of(row)[0] for row in self._link.run(sql.OF_USER, user_id, limit)]

    def delete(self, session_id: str) -> bool:
        """End one session; return whether it was there."""
        return sql.storable(session_id) and bool(self._link.run(sql.DELETE, session_id))

    def delete_user(self, user_id: str) -> list[str]:
        """End all sessions of a user; return their ids."""
        if not sql.storable(user_id):
            return []
        return [session_id for (session_id,) in self._link.run(sql.DELETE_USER, user_id)]

    def delete_expired(self, limit: int) -> int | None:
        """Delete at most `limit` expired sessions, the longest expired first; return how many.

        Less than `limit` means that none is left, but for what another transaction holds at the moment. None
        means that another node is cleaning. Every ten minutes at most it looks at the table's bloat first.
        """
        if self._look_is_due():
            self._warn_of(self.bloat())
        ((is_ours, deleted),) = self._link.run(sql.DELETE_EXPIRED, limit)
        return deleted if is_ours else None

    def count(self) -> int:
        """Return how many sessions are alive."""
        return _first(self._link.run(sql.COUNT))

    def count_expired(self, limit: int) -> int:
        """Return how many sessions have expired and are still stored, counting to `limit` at most."""
        return _first(self._link.run(sql.COUNT_EXPIRED, limit))

    def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive: expired, deleted, or never there."""
        found = self._link.run(sql.ALIVE, list(filter(sql.storable, session_ids)))
        return _without(session_ids, found)

    def bloat(self) -> sql.Bloat:
        """Return what the table carries along besides sessions."""
        return sql.Bloat(*self._link.run(sql.BLOAT)[0])

    def close(self) -> None:
        """Close its own connections. The store cannot be used afterwards; closing it again does nothing."""
        self._link.close()

    def __enter__(self) -> Self:
        """Return the store; leaving the block closes it."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the connections."""
        self.close()


class AsyncPostgresSessions(_Sessions):
    """The same store for event loops. The arguments and what the methods do: see `PostgresSessions`.

    A cancelled call leaves at once and closes its connection; what the database has begun for it happens as
    a whole or not at all. Several loops may share it; each has connections of its own.
    """

    def __init__(
        self,
        server: str | AsyncPool | Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        *,
        idle_timeout: float = 1800.0,
        absolute_lifetime: float = 43200.0,
        timeout: float = 5.0,
        lock_timeout: float = 1.0,
        connections: int = 8,
        bloat_warning: float = 0.5,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        super().__init__(idle_timeout, absolute_lifetime, bloat_warning, clock)
        self._link = AsyncLink(
            server, timeout=timeout, lock_timeout=lock_timeout, connections=connections, clock=clock
        )

    async def create_schema(self) -> None:
        """Make the table where there is none, as `SCHEMA` says. Needs the right to make tables."""
        await self._link.run(sql.CREATE_SCHEMA)

    async def create(self, user_id: str, data: Mapping[str, Any] | None = None) -> str:
        """Begin a session; return its token, the only copy there is."""
        token = new_token()
        await self._link.run(sql.CREATE, *self._row(token, user_id, data))
        return token

    async def validate(self, token: str) -> Session | None:
        """Return the session if it is alive. Writes nothing, and does not renew it."""
        found = await self._link.run(sql.READ, session_id_of(token))
        return sql.session_of(found[0])[0] if found else None

    async def renew(self, token: str) -> Session | None:
        """Return the session if it is alive, and put its idle timeout off: what each request calls."""
        found = await self._link.run(sql.READ, session_id_of(token))
        if found and self._is_worth_a_write(*sql.session_of(found[0])):
            found = await self._link.run(sql.RENEW, self._lifetimes.idle_timeout, session_id_of(token))
        return sql.session_of(found[0])[0] if found else None

    async def of_user(self, user_id: str, limit: int = 100) -> list[Session]:
        """Return the sessions of a user that are alive, the newest first, `limit` of them at most."""
        whole_number("limit", limit, least=1)
        if not sql.storable(user_id):
            return []
        return [sql.session_of(row)[0] for row in await self._link.run(sql.OF_USER, user_id, limit)]

    async def delete(self, session_id: str) -> bool:
        """End one session; return whether it was there."""
        return sql.storable(session_id) and bool(await self._link.run(sql.DELETE, session_id))

    async def delete_user(self, user_id: str) -> list[str]:
        """End all sessions of a user; return their ids."""
        if not sql.storable(user_id):
            return []
        return [session_id for (session_id,) in await self._link.run(sql.DELETE_USER, user_id)]

    async def delete_expired(self, limit: int) -> int | None:
        """Delete at most `limit` expired sessions, the longest expired first; return how many."""
        if self._look_is_due():
            self._warn_of(await self.bloat())
        ((is_ours, deleted),) = await self._link.run(sql.DELETE_EXPIRED, limit)
        return deleted if is_ours else None

    async def count(self) -> int:
        """Return how many sessions are alive."""
        return _first(await self._link.run(sql.COUNT))

    async def count_expired(self, limit: int) -> int:
        """Return how many sessions have expired and are still stored, counting to `limit` at most."""
        return _first(await self._link.run(sql.COUNT_EXPIRED, limit))

    async def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive: expired, deleted, or never there."""
        found = await self._link.run(sql.ALIVE, list(filter(sql.storable, session_ids)))
        return _without(session_ids, found)

    async def bloat(self) -> sql.Bloat:
        """Return what the table carries along besides sessions."""
        return sql.Bloat(*(await self._link.run(sql.BLOAT))[0])

    async def close(self) -> None:
        """Close its own connections. The store cannot be used afterwards; closing it again does nothing."""
        await self._link.close()

    async def __aenter__(self) -> Self:
        """Return the store; leaving the block closes it."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the connections."""
        await self.close()


def _first(rows: list[tuple[Any, ...]]) -> int:
    return int(rows[0][0])


def _without(session_ids: Sequence[str], found: list[tuple[Any, ...]]) -> list[str]:
    alive = {session_id for (session_id,) in found}
    return [session_id for session_id in session_ids if session_id not in alive]
