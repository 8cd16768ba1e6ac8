"""What type checkers make of janitors; see retry.py."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, assert_type

from resilience.events import MemoryAlert, SweepFinished
from resilience.janitor import AsyncSessionJanitor, JanitorStats, MemoryWatch, SessionJanitor, SocketRegistry
from resilience.janitor.memory import Reading
from resilience.janitor.postgres import AsyncPostgresSessions, Bloat, PostgresSessions
from resilience.janitor.redis import AsyncRedisSessions, RedisSessions
from resilience.janitor.sessions import AsyncSessionStore, Session, SessionStore
from resilience.janitor.sqlite import AsyncSQLiteSessionStore, SQLiteSessionStore
from resilience.janitor.traces import Growth

store = SQLiteSessionStore("sessions.db", idle_timeout=1800.0)
async_store = AsyncSQLiteSessionStore("sessions.db")
a_session_store: SessionStore = store
an_async_session_store: AsyncSessionStore = async_store
postgres, async_postgres = (
    PostgresSessions("postgresql://db/shop"),
    AsyncPostgresSessions("postgresql://db/shop"),
)
redis, async_redis = RedisSessions("redis://cache"), AsyncRedisSessions("redis://cache")
session_stores: list[SessionStore] = [store, postgres, redis]
async_session_stores: list[AsyncSessionStore] = [async_store, async_postgres, async_redis]
assert_type(postgres.bloat(), Bloat)
assert_type(postgres.renew("token"), Session | None)
assert_type(redis.renew("token"), Session | None)
sockets = SocketRegistry()
memory = MemoryWatch()


def told(event: SweepFinished) -> None:
    assert_type(event.sessions_cleaned, int)


def alerted(event: MemoryAlert) -> None:
    assert_type(event.resident, int)


janitor = SessionJanitor(store, 600.0, sockets=sockets, memory=memory, on_sweep=told, on_memory_alert=alerted)
async_janitor = AsyncSessionJanitor(async_store, interval=600.0, on_sweep=told)


class StarletteLike:
    async def close(self, code: int = 1000, reason: str | None = None) -> None: ...


class WebsocketsLike:
    def close(self, code: int = 1000, reason: str = "") -> Awaitable[Any]:
        raise NotImplementedError


def synchronous() -> None:
    token = store.create("ada", {"device": "laptop"})
    assert_type(token, str)
    assert_type(store.renew(token), Session | None)
    assert_type(janitor.sweep(), SweepFinished)
    assert_type(janitor.stop(timeout=1.0), bool)
    assert_type(janitor.cleanup_session("id"), bool)
    assert_type(janitor.cleanup_user_sessions("ada"), int)
    assert_type(janitor.stats(), JanitorStats)
    assert_type(janitor.stats().as_dict(), dict[str, Any])
    assert_type(memory.check(), Reading)
    assert_type(memory.trace(1.0), list[Growth])
    with SessionJanitor(store) as started:
        assert_type(started, SessionJanitor)


async def asynchronous() -> None:
    token = await async_store.create("ada")
    assert_type(await async_store.renew(token), Session | None)
    assert_type(await async_janitor.sweep(), SweepFinished)
    assert_type(await async_janitor.stop(), bool)
    assert_type(await async_janitor.cleanup_session("id"), bool)
    assert_type(await async_janitor.cleanup_user_sessions("ada"), int)
    async with AsyncSessionJanitor(async_store) as started:
        assert_type(started, AsyncSessionJanitor)
    with sockets.register(StarletteLike(), "id", "ada") as registration:
        assert_type(registration.session_id, str)
    with sockets.register(WebsocketsLike(), "id"):
        assert_type(await sockets.shut_down_async(), int)


def refused() -> None:
    SessionJanitor(async_store)  # type: ignore[arg-type]
    AsyncSessionJanitor(store)  # type: ignore[arg-type]
    SessionJanitor(store, on_sweep=alerted)  # type: ignore[arg-type]
    SessionJanitor(store, 600.0, 250)  # type: ignore[call-arg]
