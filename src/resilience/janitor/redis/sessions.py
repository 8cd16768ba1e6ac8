"""The session stores in Redis or Valkey, for threads and for event loops.

What the server does for them stands in `scripts.py`. The rules here:

- A call is one script, two where a session is renewed or ended; so it happens as a whole or not at all.
- Each wait for the server is bounded. What was asked on a connection that turned out to be lost is asked once
  more, on a new one: each script is made so that to repeat it does no harm. Nothing else is repeated.
- Every failure comes out as a `StoreUnavailable` that says what to do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

import redis
from redis import asyncio as redis_asyncio
from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from resilience.checks import count, number
from resilience.janitor.redis import scripts
from resilience.janitor.redis.troubles import unavailable
from resilience.janitor.sessions import Lifetimes, Session, new_token, session_id_of
from resilience.stores import StoreUnavailable

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Mapping, Sequence

    from resilience.janitor.redis.scripts import Script

_SOME: Final = 500  # sessions that one script is about at most, so that it holds nobody up
_FAILURES: Final = (redis_errors.RedisError, OSError)


class _Sessions:
    """What both stores have in common: everything but asking."""

    def __init__(
        self, server: Any, prefix: str, idle_timeout: float, absolute_lifetime: float, connections: int
    ) -> None:
        if not prefix or set(prefix) & set("{}"):
            raise ValueError(f"prefix must be text without braces, such as 'shop:sessions', not {prefix!r}")
        self._tag = f"{{{prefix}}}"
        self._all = f"{self._tag}:all".encode()
        self._lifetimes = Lifetimes.checked(idle_timeout, absolute_lifetime)
        self._idle = round(self._lifetimes.idle_timeout * 1000)
        self._lifetime = round(self._lifetimes.absolute_lifetime * 1000)
        count("connections", connections, least=1)
        self._name = _name_of(server)
        self._is_closed = False
        self._is_known = False
        """Whether it was asked what it does when it is full."""

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError("a session store owns its connections: make another one for the same server instead")

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreUnavailable(f"the sessions in {self._name} are unavailable: the store was closed")

    def _session(self, session_id: str) -> bytes:
        return f"{self._tag}:session:".encode() + _bytes(session_id)

    def _user(self, user_id: str) -> bytes:
        return f"{self._tag}:user:".encode() + _bytes(user_id)

    def _read(self, session_id: str, kept: list[Any]) -> tuple[Session, float]:
        """Return the session that READ has found, and the server's clock."""
        user_id, data, *instants = kept
        created_at, expires_at, ends_at, now = (int(instant) / 1000 for instant in instants)
        return Session(session_id, _text(user_id), json.loads(data), created_at, expires_at, ends_at), now

    def _newest(
        self, session_ids: list[str], found: list[tuple[int, list[Any]]], so_far: list[Session], limit: int
    ) -> list[Session]:
        """Return the newest of what READ_ALL has found, and of those that were found before."""
        sessions = [*so_far, *(self._read(session_ids[place], kept)[0] for place, kept in found)]
        return sorted(sessions, key=_created_at, reverse=True)[:limit]

    def _warn_if_evicting(self, memory: Mapping[str, Any]) -> None:
        self._is_known = True
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        if policy != "noeviction" and memory.get("maxmemory"):
            import logging  # noqa: PLC0415 - loaded only when something is wrong

            logging.getLogger("resilience").warning(
                "%s evicts keys when it is full (maxmemory-policy %s): people will be logged out, and "
                "delete_user will miss sessions; choose noeviction for where sessions are kept",
                self._name,
                policy,
            )


class RedisSessions(_Sessions):
    """Keeps sessions in Redis 6.2 or newer, or in Valkey.

    Sessions expire by themselves. What a janitor sweeps is the list of those that have, which is what its
    statistics count; without a janitor the list keeps a day of them.

    Threads and processes may share the server, and threads may share the store; it survives a fork. On a
    Cluster all sessions of one prefix are on one node. A crash of the server may lose what it has not
    written to disk, and with it logouts: where that matters, use PostgreSQL.

    Args:
        server: A URL, such as `redis://localhost:6379/0`; or a client of redis-py, which then has its own
            time limits and retries.
        prefix: What all keys begin with.
        idle_timeout: Seconds after which a session ends that is not renewed.
        absolute_lifetime: Seconds after which a session ends in any case.
        timeout: Seconds that each wait may take: for a connection, to connect, and for an answer.
        connections: How many connections it opens at most; for an event loop, in each of them.

    Raises:
        TypeError: A number is none, or the server is neither of those.
        ValueError: A number is out of range, or the prefix or the URL is none.

    Each method raises `StoreUnavailable` if Redis does not do what it asks.

    Example:
        store = RedisSessions("redis://localhost:6379/0")
        token = store.create("ada", {"device": "laptop"})
        session = store.renew(token)
    """

    def __init__(
        self,
        server: str | redis.Redis,
        *,
        prefix: str = "resilience:sessions",
        idle_timeout: float = 1800.0,
        absolute_lifetime: float = 43200.0,
        timeout: float = 1.0,
        connections: int = 16,
    ) -> None:
        super().__init__(server, prefix, idle_timeout, absolute_lifetime, connections)
        self._is_own = isinstance(server, str)
        settings = {**_bounded(timeout), "retry": Retry(NoBackoff(), 1, (redis_errors.ConnectionError,))}
        self._client: Any = server
        if isinstance(server, str):
            pool: Any = redis.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
                server, max_connections=connections, **settings
            )  # its further arguments have no types
            self._client = redis.Redis.from_pool(pool)

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
        token, written = new_token(), json.dumps(dict(data or {}))
        session_id = session_id_of(token)
        keys = self._session(session_id), self._user(user_id), self._all
        self._run(scripts.CREATE, keys, session_id, _bytes(user_id), written, self._idle, self._lifetime)
        return token

    def validate(self, token: str) -> Session | None:
        """Return the session if it is alive. Writes nothing, and does not renew it."""
        session_id = session_id_of(token)
        kept = self._run(scripts.READ, [self._session(session_id)])
        return self._read(session_id, kept)[0] if kept else None

    def renew(self, token: str) -> Session | None:
        """Return the session if it is alive, and put its idle timeout off: what each request calls.

        Nine calls in ten only read, whatever the traffic. None means that the session is over: expired,
        logged out, or never there.
        """
        session_id = session_id_of(token)
        kept = self._run(scripts.READ, [self._session(session_id)])
        if not kept:
            return None
        session, now = self._read(session_id, kept)
        if self._lifetimes.renewed(session, now) is None:
            return session
        keys = self._session(session_id), self._user(session.user_id), self._all
        expires = self._run(scripts.RENEW, keys, session_id, self._idle)
        return session._replace(expires_at=expires / 1000) if expires else None

    def of_user(self, user_id: str, limit: int = 100) -> list[Session]:
        """Return the sessions of a user that are alive, the newest first: what a person is shown of them.

        Looks at all of them, a few hundred at a time. One that begins or ends meanwhile may be in or not.

        Args:
            user_id: Whose sessions.
            limit: How many at most, 1 or more.

        Raises:
            TypeError: The limit is no whole number.
            ValueError: The limit is less than 1.
        """
        count("limit", limit, least=1)
        newest: list[Session] = []
        for some in _batches(list(map(_text, self._ask("zrange", self._user(user_id), 0, -1)))):
            found = self._run(scripts.READ_ALL, list(map(self._session, some)))
            newest = self._newest(some, found, newest, limit)
        return newest

    def delete(self, session_id: str) -> bool:
        """End one session; return whether it was there."""
        user_id = self._ask("hget", self._session(session_id), "user")
        return user_id is not None and bool(self._end(_text(user_id), [session_id]))

    def delete_user(self, user_id: str) -> list[str]:
        """End all sessions of a user, a few hundred at a time; return their ids."""
        ended: list[str] = []
        while found := self._ask("zrange", self._user(user_id), 0, _SOME - 1):
            ended += self._end(user_id, list(map(_text, found)))
        return ended

    def delete_expired(self, limit: int) -> int:
        """Forget at most `limit` sessions that have expired, the longest expired first; return how many.

        Redis has freed them by itself. Less than `limit` means that none is left.
        """
        return int(self._run(scripts.DELETE_EXPIRED, [self._all], limit))

    def count(self) -> int:
        """Return how many sessions are alive."""
        return int(self._run(scripts.COUNT, [self._all]))

    def count_expired(self, limit: int) -> int:
        """Return how many sessions have expired and are not forgotten yet, counting to `limit` at most."""
        return int(self._run(scripts.COUNT_EXPIRED, [self._all], limit))

    def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive: expired, deleted, or never there."""
        ended: list[str] = []
        for some in _batches(session_ids):
            ended += [some[place] for place in self._run(scripts.ENDED, list(map(self._session, some)))]
        return ended

    def close(self) -> None:
        """Close its own connections. The store cannot be used afterwards; closing it again does nothing."""
        self._is_closed = True
        if self._is_own:
            self._client.connection_pool.disconnect()

    def __enter__(self) -> Self:
        """Return the store; leaving the block closes it."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close the connections."""
        self.close()

    def _end(self, user_id: str, session_ids: list[str]) -> list[str]:
        keys = self._user(user_id), self._all, *map(self._session, session_ids)
        return list(map(_text, self._run(scripts.DELETE, keys, *map(_bytes, session_ids))))

    def _run(self, script: Script, keys: Sequence[bytes], *arguments: Any) -> Any:
        if not self._is_known:
            self._warn_if_evicting(self._memory())
        try:
            return self._ask("evalsha", script.sha, len(keys), *keys, *arguments)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, redis_errors.NoScriptError):
                raise
        return self._ask("eval", script.text, len(keys), *keys, *arguments)

    def _memory(self) -> Any:
        try:
            return self._ask("info", "memory")
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, redis_errors.ResponseError):
                raise
            return {}  # it does not tell everybody

    def _ask(self, command: str, *arguments: Any) -> Any:
        self._check_open()
        try:
            return getattr(self._client, command)(*arguments)
        except _FAILURES as error:
            raise unavailable(self._name, error) from error


class AsyncRedisSessions(_Sessions):
    """The same store for event loops. The arguments and what the methods do: see `RedisSessions`.

    A cancelled call leaves at once; what the server has begun for it happens as a whole or not at all.
    Several loops may share the store if it has a URL; a client of redis-py belongs to one loop. Close it on
    each loop that has used it.
    """

    def __init__(
        self,
        server: str | redis_asyncio.Redis,
        *,
        prefix: str = "resilience:sessions",
        idle_timeout: float = 1800.0,
        absolute_lifetime: float = 43200.0,
        timeout: float = 1.0,
        connections: int = 16,
    ) -> None:
        super().__init__(server, prefix, idle_timeout, absolute_lifetime, connections)
        self._server = server
        self._settings = {**_bounded(timeout), "max_connections": connections}
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, redis_asyncio.Redis] = WeakKeyDictionary()

    async def create(self, user_id: str, data: Mapping[str, Any] | None = None) -> str:
        """Begin a session; return its token, the only copy there is."""
        token, written = new_token(), json.dumps(dict(data or {}))
        session_id = session_id_of(token)
        keys = self._session(session_id), self._user(user_id), self._all
        await self._run(
            scripts.CREATE, keys, session_id, _bytes(user_id), written, self._idle, self._lifetime
        )
        return token

    async def validate(self, token: str) -> Session | None:
        """Return the session if it is alive. Writes nothing, and does not renew it."""
        session_id = session_id_of(token)
        kept = await self._run(scripts.READ, [self._session(session_id)])
        return self._read(session_id, kept)[0] if kept else None

    async def renew(self, token: str) -> Session | None:
        """Return the session if it is alive, and put its idle timeout off: what each request calls."""
        session_id = session_id_of(token)
        kept = await self._run(scripts.READ, [self._session(session_id)])
        if not kept:
            return None
        session, now = self._read(session_id, kept)
        if self._lifetimes.renewed(session, now) is None:
            return session
        keys = self._session(session_id), self._user(session.user_id), self._all
        expires = await self._run(scripts.RENEW, keys, session_id, self._idle)
        return session._replace(expires_at=expires / 1000) if expires else None

    async def of_user(self, user_id: str, limit: int = 100) -> list[Session]:
        """Return the sessions of a user that are alive, the newest first, `limit` of them at most."""
        count("limit", limit, least=1)
        newest: list[Session] = []
        for some in _batches(list(map(_text, await self._ask("zrange", self._user(user_id), 0, -1)))):
            found = await self._run(scripts.READ_ALL, list(map(self._session, some)))
            newest = self._newest(some, found, newest, limit)
        return newest

    async def delete(self, session_id: str) -> bool:
        """End one session; return whether it was there."""
        user_id = await self._ask("hget", self._session(session_id), "user")
        return user_id is not None and bool(await self._end(_text(user_id), [session_id]))

    async def delete_user(self, user_id: str) -> list[str]:
        """End all sessions of a user, a few hundred at a time; return their ids."""
        ended: list[str] = []
        while found := await self._ask("zrange", self._user(user_id), 0, _SOME - 1):
            ended += await self._end(user_id, list(map(_text, found)))
        return ended

    async def delete_expired(self, limit: int) -> int:
        """Forget at most `limit` sessions that have expired, the longest expired first; return how many."""
        return int(await self._run(scripts.DELETE_EXPIRED, [self._all], limit))

    async def count(self) -> int:
        """Return how many sessions are alive."""
        return int(await self._run(scripts.COUNT, [self._all]))

    async def count_expired(self, limit: int) -> int:
        """Return how many sessions have expired and are not forgotten yet, counting to `limit` at most."""
        return int(await self._run(scripts.COUNT_EXPIRED, [self._all], limit))

    async def ended(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the ids whose session is not alive: expired, deleted, or never there."""
        ended: list[str] = []
        for some in _batches(session_ids):
            places = await self._run(scripts.ENDED, list(map(self._session, some)))
            ended += [some[place] for place in places]
        return ended

    async def close(self) -> None:
        """Close its own connections on this loop. The store cannot be used afterwards, on any loop."""
        import asyncio  # noqa: PLC0415 - loaded by whoever awaits this

        self._is_closed = True
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def __aenter__(self) -> Self:
        """Return the store; leaving the block closes it."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Close the connections."""
        await self.close()

    async def _end(self, user_id: str, session_ids: list[str]) -> list[str]:
        keys = self._user(user_id), self._all, *map(self._session, session_ids)
        return list(map(_text, await self._run(scripts.DELETE, keys, *map(_bytes, session_ids))))

    async def _run(self, script: Script, keys: Sequence[bytes], *arguments: Any) -> Any:
        if not self._is_known:
            self._warn_if_evicting(await self._memory())
        try:
            return await self._ask("evalsha", script.sha, len(keys), *keys, *arguments)
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, redis_errors.NoScriptError):
                raise
        return await self._ask("eval", script.text, len(keys), *keys, *arguments)

    async def _memory(self) -> Any:
        try:
            return await self._ask("info", "memory")
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, redis_errors.ResponseError):
                raise
            return {}  # it does not tell everybody

    async def _ask(self, command: str, *arguments: Any) -> Any:
        self._check_open()
        try:
            return await getattr(self._client(), command)(*arguments)
        except _FAILURES as error:
            raise unavailable(self._name, error) from error

    def _client(self) -> Any:
        import asyncio  # noqa: PLC0415 - see `close`

        if not isinstance(self._server, str):
            return self._server
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            retry = AsyncRetry(NoBackoff(), 1, (redis_errors.ConnectionError,))
            pool: Any = redis_asyncio.BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
                self._server, retry=retry, **self._settings
            )  # see `RedisSessions`
            client = self._clients[loop] = redis_asyncio.Redis.from_pool(pool)
        return client


def _created_at(session: Session) -> float:
    return session.created_at


def _bounded(timeout: float) -> dict[str, Any]:
    seconds = number("timeout", timeout, above=0)
    return {"timeout": seconds, "socket_timeout": seconds, "socket_connect_timeout": seconds, "protocol": 2}


def _name_of(server: Any) -> str:
    """Return what to call the server in messages: without the password that a URL may hold."""
    if not isinstance(server, str):
        if not hasattr(server, "evalsha"):
            raise TypeError(f"a session store needs a URL or a client of redis-py, not {server!r}")
        return "Redis"
    parts = urlsplit(server)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("the URL must say where Redis is, such as redis://localhost:6379/0")
    return parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port or 6379}"


def _batches(session_ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(session_ids), _SOME):
        yield list(session_ids[start : start + _SOME])


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(kept: bytes | str) -> str:
    return kept.decode("utf-8", "surrogatepass") if isinstance(kept, bytes) else kept
