"""What waits, in each shell's way.

The use cases are coroutines, and each is written once. Under ASGI they run on the event loop, and what they
wait for is awaited. Under WSGI every request has a thread of its own: there the same coroutines run on ports
that block, so that they never suspend and need no event loop; `drive` runs one to its end.

Both kits make the same things, of the library's two families: `AsyncKit` makes an `AsyncRetryManager` where
`BlockingKit` makes a `RetryManager`, and so on. The twins' methods have the same names, so `settled` is all
that is needed to call either.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

import httpx2

from examples.backend.ports.crew import TaskCrew, ThreadCrew
from examples.backend.ports.flights import SharedByTasks, SharedByThreads
from examples.backend.ports.http_client import AsyncClient, BlockingClient
from examples.backend.ports.live import TaskMailbox, ThreadMailbox
from examples.backend.ports.workers import InThisThread, OnOtherThreads, OnThreads
from resilience import (
    AsyncRateLimiter,
    AsyncRetryManager,
    AsyncSessionJanitor,
    RateLimiter,
    RetryManager,
    SessionJanitor,
    acquire_all,
    acquire_all_async,
)
from resilience.clock import SYSTEM_CLOCK
from resilience.janitor.periodic import AsyncPeriodic, Periodic
from resilience.janitor.sqlite import AsyncSQLiteSessionStore, SQLiteSessionStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
    from pathlib import Path

    from examples.backend.ports.flights import Flights
    from examples.backend.ports.http_client import Client
    from examples.backend.ports.workers import Workers
    from resilience import CircuitBreaker, Decision
    from resilience.janitor.sockets import SocketRegistry
    from resilience.retry.stats import RetryStats
    from resilience.stores import Store

    Job = Callable[[], Coroutine[Any, Any, object]]
    Finding = Callable[[], Coroutine[Any, Any, bool]]
    Charges = Iterable[tuple[Any, Sequence[str]]]

P = ParamSpec("P")
T = TypeVar("T")


class Retries(Protocol):
    """Runs coroutine functions with retries."""

    async def execute(
        self, work: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `work` returns, attempted again as long as that is worth it."""
        ...

    def replace(self, *, circuit_breaker: CircuitBreaker) -> Retries:
        """Return the same with another breaker; it shares budget and statistics."""
        ...

    def stats(self) -> RetryStats:
        """Return what has been counted."""
        ...


class Running(Protocol):
    """What runs by itself; both methods go through `settled`, since the asynchronous twin's are awaited."""

    def start(self) -> object:
        """Begin."""
        ...

    def stop(self, *, timeout: float = ...) -> object:
        """End, and wait so many seconds for what is being done."""
        ...


class Kit(Protocol):
    """What both kits offer."""

    def workers(self, name: str, *, threads: int, queue: int, apart: bool = False) -> Workers:
        """Return who does work that blocks; `apart`, on threads of its own in any case."""
        ...

    def retries(self, **options: Any) -> Retries:
        """Return a retry manager with these options."""
        ...

    def limiter(
        self, quota: str, *, name: str, store: Store, **options: Any
    ) -> RateLimiter | AsyncRateLimiter:
        """Return a rate limiter."""
        ...

    async def acquire_all(self, charges: Charges) -> Decision:
        """Charge several limiters, all or none."""
        ...

    def redis_store(self, url: str, *, timeout: float) -> Any:
        """Return a store of limits on Redis."""
        ...

    def sqlite_sessions(self, path: Path, **options: Any) -> Any:
        """Return a session store in a file; its methods are awaited."""
        ...

    def postgres_sessions(self, url: str, **options: Any) -> Any:
        """Return a session store on PostgreSQL; its methods are awaited."""
        ...

    def janitor(self, sessions: Any, **options: Any) -> SessionJanitor | AsyncSessionJanitor:
        """Return a janitor for such a store; `settled` starts and stops it."""
        ...

    def http_client(self, **options: Any) -> Client:
        """Return a client for HTTP."""
        ...

    def flights(self) -> Flights[Any]:
        """Return what lets those who ask for the same at the same time share one piece of work."""
        ...

    def mailbox(self) -> TaskMailbox | ThreadMailbox:
        """Return a mailbox for a connection that this request keeps open; its `wait` is awaited."""
        ...

    def most_listeners(self, wanted: int, threads: int) -> int:
        """Return how many connections a process can keep open, if it serves requests on so many threads."""
        ...

    async def close_sockets(self, sockets: SocketRegistry) -> None:
        """Close all sockets, saying that the service restarts."""
        ...

    def periodic(self, job: Job, interval: float, *, name: str) -> Running:
        """Return what does `job` again and again; `settled` starts and stops it."""
        ...

    def crew(self, job: Finding, *, size: int, pause: float, name: str) -> TaskCrew | ThreadCrew:
        """Return a few that do `job` side by side as long as there is work; `settled` starts and stops it."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class AsyncKit:
    """For an event loop: what waits is awaited."""

    def workers(self, name: str, *, threads: int, queue: int, apart: bool = True) -> Workers:
        """Return who does work that blocks; always apart, since the event loop must go on."""
        del apart
        return OnThreads(name, threads=threads, queue=queue)

    def retries(self, **options: Any) -> Retries:
        """Return a retry manager with these options."""
        return AsyncRetryManager(**options)

    def limiter(self, quota: str, *, name: str, store: Store, **options: Any) -> AsyncRateLimiter:
        """Return a rate limiter."""
        return AsyncRateLimiter(quota, name=name, store=store, **options)

    async def acquire_all(self, charges: Charges) -> Decision:
        """Charge several limiters, all or none."""
        return await acquire_all_async(charges)

    def redis_store(self, url: str, *, timeout: float) -> Any:
        """Return a store of limits on Redis."""
        from resilience.stores.redis import AsyncRedisStore  # noqa: PLC0415 - redis-py is for those who use it

        return AsyncRedisStore(url, timeout=timeout)

    def sqlite_sessions(self, path: Path, **options: Any) -> Any:
        """Return a session store in a file; its methods are awaited."""
        return AsyncSQLiteSessionStore(path, **options)

    def postgres_sessions(self, url: str, **options: Any) -> Any:
        """Return a session store on PostgreSQL; its methods are awaited."""
        from resilience.janitor.postgres import AsyncPostgresSessions  # noqa: PLC0415 - likewise psycopg

        return AsyncPostgresSessions(url, **options)

    def janitor(self, sessions: Any, **options: Any) -> AsyncSessionJanitor:
        """Return a janitor for such a store; `settled` starts and stops it."""
        return AsyncSessionJanitor(sessions, **options)

    def http_client(self, **options: Any) -> Client:
        """Return a client for HTTP."""
        return AsyncClient(httpx2.AsyncClient(**options))

    def flights(self) -> Flights[Any]:
        """Return what lets those who ask for the same at the same time share one piece of work."""
        return SharedByTasks()

    def mailbox(self) -> TaskMailbox:
        """Return a mailbox for a connection that this request keeps open; its `wait` is awaited."""
        return TaskMailbox()

    def most_listeners(self, wanted: int, threads: int) -> int:  # noqa: ARG002 - a task costs no thread
        """Return how many connections a process can keep open, if it serves requests on so many threads."""
        return wanted

    async def close_sockets(self, sockets: SocketRegistry) -> None:
        """Close all sockets, saying that the service restarts."""
        await sockets.shut_down_async()

    def periodic(self, job: Job, interval: float, *, name: str) -> AsyncPeriodic:
        """Return what does `job` again and again; `settled` starts and stops it."""
        return AsyncPeriodic(job, interval, name=name)

    def crew(self, job: Finding, *, size: int, pause: float, name: str) -> TaskCrew:
        """Return a few that do `job` side by side as long as there is work; `settled` starts and stops it."""
        return TaskCrew(job, size=size, pause=pause, name=name)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await SYSTEM_CLOCK.sleep_async(seconds)


class BlockingKit:
    """For a thread a request: what waits blocks the thread, and nothing suspends."""

    def workers(self, name: str, *, threads: int, queue: int, apart: bool = False) -> Workers:
        """Return who does work that blocks; `apart`, on threads of its own in any case."""
        kind = OnOtherThreads if apart else InThisThread
        return kind(name, threads=threads, queue=queue)

    def retries(self, **options: Any) -> Retries:
        """Return a retry manager with these options."""
        return _BlockingRetries(RetryManager(**options))

    def limiter(self, quota: str, *, name: str, store: Store, **options: Any) -> RateLimiter:
        """Return a rate limiter."""
        return RateLimiter(quota, name=name, store=store, **options)

    async def acquire_all(self, charges: Charges) -> Decision:
        """Charge several limiters, all or none."""
        return acquire_all(charges)

    def redis_store(self, url: str, *, timeout: float) -> Any:
        """Return a store of limits on Redis."""
        from resilience.stores.redis import RedisStore  # noqa: PLC0415 - redis-py is for those who use it

        return RedisStore(url, timeout=timeout)

    def sqlite_sessions(self, path: Path, **options: Any) -> Any:
        """Return a session store in a file; its methods are awaited."""
        return Awaited(SQLiteSessionStore(path, **options))

    def postgres_sessions(self, url: str, **options: Any) -> Any:
        """Return a session store on PostgreSQL; its methods are awaited."""
        from resilience.janitor.postgres import PostgresSessions  # noqa: PLC0415 - likewise psycopg

        return Awaited(PostgresSessions(url, **options))

    def janitor(self, sessions: Any, **options: Any) -> SessionJanitor:
        """Return a janitor for such a store; `settled` starts and stops it."""
        return SessionJanitor(sessions.blocking, **options)

    def http_client(self, **options: Any) -> Client:
        """Return a client for HTTP."""
        return BlockingClient(httpx2.Client(**options))

    def flights(self) -> Flights[Any]:
        """Return what lets those who ask for the same at the same time share one piece of work."""
        return SharedByThreads()

    def mailbox(self) -> ThreadMailbox:
        """Return a mailbox for a connection that this request keeps open; its `wait` is awaited."""
        return ThreadMailbox()

    def most_listeners(self, wanted: int, threads: int) -> int:
        """Return how many connections a process can keep open, if it serves requests on so many threads."""
        return min(wanted, max(1, threads // 2))  # each takes a thread, and requests need some too

    async def close_sockets(self, sockets: SocketRegistry) -> None:
        """Close all sockets, saying that the service restarts."""
        sockets.shut_down()

    def periodic(self, job: Job, interval: float, *, name: str) -> Periodic:
        """Return what does `job` again and again; `settled` starts and stops it."""
        return Periodic(lambda: drive(job()), interval, name=name)

    def crew(self, job: Finding, *, size: int, pause: float, name: str) -> ThreadCrew:
        """Return a few that do `job` side by side as long as there is work; `settled` starts and stops it."""
        return ThreadCrew(lambda: drive(job()), size=size, pause=pause, name=name)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        SYSTEM_CLOCK.sleep(seconds)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, in this thread, without an event loop: one on ports that block.

    Raises:
        RuntimeError: It suspended, so one of its ports waits in another way.

    Example:
        >>> async def double(number):
        ...     return 2 * number
        >>> drive(double(21))
        42
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration as returned:
        result: T = returned.value
        return result
    try:
        name = getattr(coroutine, "__qualname__", repr(coroutine))
        raise RuntimeError(
            f"{name} suspended outside of an event loop, on {awaited!r}: one of its ports does not block"
        )
    finally:
        coroutine.close()


async def settled(outcome: T | Awaitable[T]) -> T:
    """Return what a method returned, or, if it is the asynchronous twin's, what that comes to.

    Example:
        >>> drive(settled(42))
        42
    """
    if inspect.isawaitable(outcome):
        result: T = await outcome
        return result
    return outcome


class Awaited:
    """Makes the methods of a blocking object awaitable; they never suspend."""

    def __init__(self, blocking: Any) -> None:
        self.blocking = blocking

    def __getattr__(self, name: str) -> Any:
        """Return the method of this name, as one that is awaited."""
        method = getattr(self.blocking, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        return call


class _BlockingRetries:
    """Answers `Retries` by a `RetryManager`."""

    def __init__(self, retries: RetryManager) -> None:
        self._retries = retries

    async def execute(
        self, work: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        return self._retries.execute(lambda: drive(work(*args, **kwargs)))

    def replace(self, *, circuit_breaker: CircuitBreaker) -> Retries:
        return _BlockingRetries(self._retries.replace(circuit_breaker=circuit_breaker))

    def stats(self) -> RetryStats:
        return self._retries.stats()
