"""What type checkers make of timeouts, fallbacks, hedges and of what travels over HTTP; see retry.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from resilience import Fallback, Hedge, StreamTimeout, Timeout
from resilience.http import propagation

timeout = Timeout(2.0, name="storage")
rows_timeout = StreamTimeout(5.0, idle=1.0)
fallback = Fallback(value=b"", on=(OSError, lambda error: "busy" in str(error)))
hedge = Hedge(percentile=0.95, budget=None, on_discard=print)


@fallback
@timeout
def get(url: str, *, retries: int = 0) -> bytes:
    return url.encode() * retries


@fallback
@timeout
@hedge
async def get_async(url: str) -> bytes:
    return url.encode()


@rows_timeout
def rows(url: str) -> Iterator[bytes]:
    yield url.encode()


@rows_timeout
async def rows_async(url: str) -> AsyncIterator[bytes]:
    yield url.encode()


def plain(url: str) -> bytes:
    return url.encode()


async def plain_async(url: str) -> bytes:
    return url.encode()


class Client:
    @timeout
    def get(self, url: str) -> bytes:
        return url.encode()


def synchronous() -> None:
    assert_type(get("a", retries=1), bytes)
    assert_type(rows("a"), Iterator[bytes])
    assert_type(Client().get("a"), bytes)
    assert_type(timeout.execute(plain, "a"), bytes)
    assert_type(fallback.execute(plain, "a"), bytes)
    assert_type(timeout.stats().timed_out, int)
    assert_type(hedge.stats().delay, float | None)
    with timeout.guard(), propagation.deadline_from({"X-Request-Timeout": "1"}, most=30.0):
        assert_type(propagation.headers(), dict[str, str])
    for item in rows_timeout.iterate([1, 2]):
        assert_type(item, int)


async def asynchronous() -> None:
    assert_type(await get_async("a"), bytes)
    assert_type(await timeout.execute_async(plain_async, "a"), bytes)
    assert_type(await fallback.execute_async(plain_async, "a"), bytes)
    assert_type(await hedge.execute(plain_async, "a"), bytes)
    async with timeout.guard():
        pass
    async for item in rows_timeout.iterate_async(rows_async("a")):
        assert_type(item, bytes)


def wrong() -> None:
    get(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - the signature is kept
    timeout.execute(plain)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - likewise
    Timeout("2.0")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - seconds are a number
