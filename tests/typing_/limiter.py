"""What type checkers make of limiters; see retry.py."""

from __future__ import annotations

from typing import assert_type

from resilience import (
    AsyncRateLimiter,
    Decision,
    Quota,
    RateLimiter,
    acquire_all,
    acquire_all_async,
    deadline,
    remaining,
)

login = RateLimiter("6/15 minutes", Quota(50, per=3600.0), name="login")
api = AsyncRateLimiter("100/15 minutes")


def email_of(email: str, password: str) -> str:
    return email


@login.limit(key=email_of)
def log_in(email: str, password: str) -> bool:
    return bool(email and password)


@api.limit()
async def get(url: str) -> bytes:
    return url.encode()


def synchronous() -> None:
    assert_type(log_in("ada", "secret"), bool)
    assert_type(login.try_acquire("ada", "192.0.2.1"), Decision)
    assert_type(login.acquire("ada", timeout=1.0), Decision)
    assert_type(login.require("ada", cost=2).retry_after, float | None)
    assert_type(acquire_all([(login, ("ada",))]), Decision)
    with login.reserve("ada") as charge:
        charge.refund()
    with deadline(2.0):
        assert_type(remaining(), float | None)


async def asynchronous() -> None:
    assert_type(await get("a"), bytes)
    assert_type(await api.try_acquire("ada"), Decision)
    assert_type(await acquire_all_async([(api, ("ada",))]), Decision)
    async with api.reserve("ada") as charge:
        await charge.refund()


def refused() -> None:
    log_in("ada")  # type: ignore[call-arg]
    login.try_acquire(1.5)  # type: ignore[arg-type]
    RateLimiter(6)  # type: ignore[arg-type]
    acquire_all([(api, ("ada",))])  # type: ignore[list-item]
