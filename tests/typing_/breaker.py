"""What type checkers make of breakers; see retry.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

from resilience.boards import Board
from resilience.boards.postgres import PostgresBoard
from resilience.boards.redis import RedisBoard
from resilience.breaker import CircuitBreaker

breaker = CircuitBreaker(5, 60.0, name="storage")


@breaker
def get(url: str) -> bytes:
    return url.encode()


@breaker
async def get_async(url: str) -> bytes:
    return url.encode()


@breaker
def pages(url: str) -> Iterator[bytes]:
    yield url.encode()


@breaker
async def pages_async(url: str) -> AsyncIterator[bytes]:
    yield url.encode()


def plain(url: str) -> bytes:
    return url.encode()


async def plain_async(url: str) -> bytes:
    return url.encode()


def synchronous() -> None:
    assert_type(get("a"), bytes)
    assert_type(pages("a"), Iterator[bytes])
    assert_type(breaker.execute(plain, "a"), bytes)
    assert_type(breaker.snapshot().state, str)
    assert_type(breaker.snapshot().failures, int)
    with breaker.guard():
        plain("a")


async def asynchronous() -> None:
    assert_type(await get_async("a"), bytes)
    assert_type(await breaker.execute_async(plain_async, "a"), bytes)
    assert_type(pages_async("a"), AsyncIterator[bytes])
    async with breaker.guard():
        await plain_async("a")


def shared(on_redis: RedisBoard, on_postgres: PostgresBoard) -> None:
    boards: tuple[Board, ...] = (on_redis, on_postgres)
    for board in boards:
        assert_type(CircuitBreaker(name="storage", shared=board, quorum=2), CircuitBreaker)


def refused() -> None:
    get(1)  # type: ignore[arg-type]
    breaker.execute(plain, 1)  # type: ignore[arg-type]
    CircuitBreaker(name="storage", shared="redis://localhost")  # type: ignore[arg-type]
    CircuitBreaker(reset_timeout=5.0)  # type: ignore[call-arg]
