"""What type checkers make of pipelines: signatures survive, and wrong calls are errors.

Read by `make check`, never run. An `ignore` that is not needed is an error there, so each one asserts that
the line is refused.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import assert_type

from resilience import (
    AsyncPipeline,
    AsyncRateLimiter,
    AsyncRetryManager,
    BreakerRegistry,
    CircuitBreaker,
    KeyedPipelines,
    Pipeline,
    RateLimiter,
    RetryManager,
    explain,
)
from resilience.pipeline import Report, Waiting

pipeline = Pipeline(
    RateLimiter("1/s"), Waiting(RateLimiter("1/s")), RetryManager(), BreakerRegistry(), name="a"
)
awaited = AsyncPipeline(AsyncRateLimiter("1/s"), AsyncRetryManager(), CircuitBreaker(), pipeline)


@pipeline
def fetch(url: str, *, limit: int = 1) -> bytes:
    return url.encode()[:limit]


@pipeline
def stream(url: str) -> Generator[str, int, bytes]:
    yield url
    return b""


def key_of(url: str) -> str:
    return url


@awaited.with_(key=key_of, cost=2, deadline=1.0, idempotent=False, criticality="sheddable")
async def fetch_async(url: str) -> bytes:
    return url.encode()


class Client:
    @pipeline
    def get(self, url: str) -> bytes:
        return url.encode()


assert_type(fetch("a", limit=2), bytes)
assert_type(stream("a"), Generator[str, int, bytes])
assert_type(Client().get("a"), bytes)
assert_type(pipeline.execute(fetch, "a", limit=2), bytes)
assert_type(pipeline.with_(key="a"), Pipeline)
assert_type(explain(pipeline), Report)
assert_type(KeyedPipelines(lambda key: AsyncPipeline(RetryManager(name=key))).get("a"), AsyncPipeline)


async def runs() -> None:
    assert_type(await fetch_async("a"), bytes)
    assert_type(await awaited.execute(fetch_async, "a"), bytes)


fetch(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
pipeline.execute(fetch, 1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
pipeline.with_(keys="a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Pipeline(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
