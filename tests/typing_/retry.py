"""What type checkers make of retries: signatures survive, and wrong calls are errors.

Read by `make check`, never run. An `ignore` that is not needed is an error there, so each one asserts that
the line is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, assert_type

from resilience.retry import AsyncRetryManager, RetryManager, with_retry

retries = RetryManager(max_attempts=3)
async_retries = AsyncRetryManager(max_attempts=3)


@with_retry
def bare(url: str, *, limit: int = 1) -> bytes:
    return url.encode()[:limit]


@with_retry(max_attempts=5, jitter="none")
def configured(url: str) -> bytes:
    return url.encode()


@with_retry
async def bare_async(url: str) -> bytes:
    return url.encode()


@with_retry(max_attempts=5)
async def configured_async(url: str) -> bytes:
    return url.encode()


@retries
def by_manager(url: str) -> bytes:
    return url.encode()


class Client:
    @with_retry
    def get(self, url: str) -> bytes:
        return url.encode()

    @with_retry(max_attempts=2)
    async def get_async(self, url: str) -> bytes:
        return url.encode()

    @classmethod
    @with_retry
    def make(cls, url: str) -> Client:
        return cls()

    @staticmethod
    @with_retry
    def parse(body: bytes) -> int:
        return len(body)


def plain(url: str) -> bytes:
    return url.encode()


def synchronous() -> None:
    assert_type(bare("a", limit=3), bytes)
    assert_type(configured("a"), bytes)
    assert_type(by_manager("a"), bytes)
    assert_type(with_retry(plain, max_attempts=3)("a"), bytes)
    assert_type(retries.execute(plain, "a"), bytes)
    assert_type(retries.replace(max_attempts=5), RetryManager)
    assert_type(Client().get("a"), bytes)
    assert_type(Client.make("a"), Client)
    assert_type(Client.parse(b"a"), int)
    for attempt in retries:
        with attempt:
            assert_type(attempt.number, int)
            assert_type(attempt.remaining, float | None)


async def asynchronous() -> None:
    assert_type(await bare_async("a"), bytes)
    assert_type(await configured_async("a"), bytes)
    assert_type(await Client().get_async("a"), bytes)
    assert_type(await async_retries.execute(bare_async, "a"), bytes)
    async for attempt in async_retries:
        with attempt:
            assert_type(attempt.number, int)


def accepts(get: Callable[[str], bytes], get_async: Callable[[str], Coroutine[Any, Any, bytes]]) -> None:
    """Decorated functions are still what they were."""


accepts(bare, bare_async)
accepts(configured, configured_async)
accepts(Client().get, Client().get_async)


def refused() -> None:
    bare(1)  # type: ignore[arg-type]
    bare("a", limit="b")  # type: ignore[arg-type]
    Client().get()  # type: ignore[call-arg]
    retries.execute(plain, 1)  # type: ignore[arg-type]
    retries.replace(max_retries=3)  # type: ignore[call-arg]
    RetryManager(jitter="some")  # type: ignore[arg-type]
    with_retry(max_attempts="3")  # type: ignore[call-overload]
