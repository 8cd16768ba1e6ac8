"""What type checkers make of limiters; see retry.py."""

from __future__ import annotations

from typing import Any, assert_type

from resilience._core.quota import Decision, Quota
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.base import LimiterStats
from resilience.limiter.together import acquire_all, acquire_all_async, reserve_all
from resilience.stores.memory import MemoryStore
from resilience.stores.sqlite import SQLiteStore

store = MemoryStore()
login = RateLimiter("6/15 minutes", Quota(100, per=86400, algorithm="gcra"), name="login", store=store)
login_async = AsyncRateLimiter("6/15 minutes", name="login", store=SQLiteStore("limits.db"))


def by_user(_: Service, user: str, *, size: int = 1) -> str:
    return user * size


def by_parts(_: Service, user: str) -> tuple[str, int]:
    return user, 7


class Service:
    @login.limit(key=by_user)
    def get(self, user: str, /, *, size: int = 1) -> bytes:
        return user.encode() * size

    @login_async.limit(key=by_parts)
    async def get_async(self, user: str) -> bytes:
        return user.encode()


def sync() -> None:
    assert_type(login.try_acquire("ada", 42, cost=2), Decision)
    assert_type(login.acquire("ada", timeout=1.5), Decision)
    assert_type(login.require("ada").retry_after, float | None)
    assert_type(login.stats(), LimiterStats)
    with login.reserve("ada") as charge:
        assert_type(charge.decision, Decision)
        charge.refund()
    assert_type(Service().get("ada", size=2), bytes)
    assert_type(acquire_all([(login, ("ada", 42)), (login, ["ada"])]), Decision)
    with reserve_all([(login, ("ada",))]) as charge:
        charge.refund()


async def asynchronous() -> None:
    assert_type(await login_async.try_acquire("ada"), Decision)
    async with login_async.reserve("ada") as charge:
        await charge.refund()
    assert_type(await Service().get_async("ada"), bytes)
    assert_type(await acquire_all_async([(login_async, ("ada",))]), Decision)


def refused(anything: Any) -> None:
    login.try_acquire(None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    login.try_acquire(1.5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    login.acquire("ada", timeout="1")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Service().get(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Quota(6, per=60, algorithm="leaky")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    acquire_all([(login_async, ("ada",))])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    assert anything
