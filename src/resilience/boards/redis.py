"""A board on Redis or Valkey: one small key for each breaker, and a channel that says which has changed.

A ledger is read, worked out here and written by WATCH and EXEC, so the server needs no script and no right to
run one. Only openings, closings and probes write, so two processes seldom meet; one that loses begins anew.

Example:
    >>> from resilience import CircuitBreaker
    >>> board = RedisBoard("redis://127.0.0.1:1/0")         # nobody answers there: each process goes on alone
    >>> breaker = CircuitBreaker(2, 60.0, name="storage", shared=board)
    >>> breaker.execute(len, "abc"), board.in_touch
    (3, False)
    >>> board.close()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from resilience.boards.board import LISTENING, ThreadedBoard
from resilience.boards.coding import GarbledError, taken

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"resilience.boards.redis needs redis-py ({error}): pip install 'resilience-py[redis]'",
        name=error.name,
    ) from error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from resilience._core.ledger import Answer, Report

__all__ = ["RedisBoard"]

TIMEOUT: Final = 1.0
"""Seconds for which an answer is awaited."""

ROUNDS: Final = 20
"""How many times a ledger is begun anew because others were quicker, before it is left to the refresh."""


class RedisBoard(ThreadedBoard):
    """Lets the breakers of several processes open, be tested and close together, by Redis or Valkey.

    Make one for each process, give it to all its breakers, and close it at the end. It connects when the
    first breaker joins, from its own two threads.

    Args:
        server: A URL such as `"redis://localhost:6379/0"`, or a `redis.Redis` client, with its own timeouts,
            which is left open.
        prefix: What the names of keys and of the channel begin with. Breakers know each other by it.
        refresh: Seconds within which news arrive even if the channel loses them, above 0, an hour at most.

    Raises:
        TypeError, ValueError: An argument is of the wrong type, or out of its range.

    Threads may share it, and it survives a fork.
    """

    def __init__(
        self, server: str | redis.Redis, *, prefix: str = "resilience:breaker:", refresh: float = 1.0
    ) -> None:
        if isinstance(server, str):
            client = redis.Redis.from_url(  # pyright: ignore[reportUnknownMemberType] - its options are untyped
                server,
                socket_timeout=TIMEOUT,
                socket_connect_timeout=TIMEOUT,
                retry=Retry(NoBackoff(), 0),  # the refresh is what tries again
            )
        elif isinstance(server, redis.Redis):  # pyright: ignore[reportUnnecessaryIsInstance] - from untyped code
            client = server
        else:
            raise TypeError(
                f"server={server!r} must be a URL or a redis.Redis client; a board needs no async one"
            )
        super().__init__(_Redis(client, prefix, closes=client is not server), refresh)


class _Redis:
    """The engine."""

    def __init__(self, client: redis.Redis, prefix: str, *, closes: bool) -> None:
        # Untyped, since its methods have types for callers who await them too.
        self._client = cast("Any", client)
        self._prefix = prefix
        self._closes = closes  # a client of somebody else's goes on serving its owner
        self._channel = f"{prefix}changes"
        known: dict[str, Any] = self._client.get_connection_kwargs()
        self.what = f"Redis at {known.get('path') or known.get('host', 'the usual place')}"

    def after_fork(self) -> None:
        """Do nothing: redis-py sees by itself that a connection is another process's."""

    def read(self, labels: Sequence[str]) -> tuple[list[str | None], float]:
        with self._client.pipeline(transaction=False) as pipe:
            pipe.mget([self._prefix + label for label in labels])
            pipe.time()
            values, time = pipe.execute()
        return [None if value is None else _text(value) for value in values], _seconds(time)

    def take(self, label: str, report: Report) -> Answer:
        key = self._prefix + label
        with self._client.pipeline() as pipe:
            for _ in range(ROUNDS):
                pipe.watch(key)
                try:
                    value = pipe.get(key)
                except redis.ResponseError as error:
                    raise GarbledError(f"the key {key!r} holds no ledger of a breaker: {error}") from error
                now = _seconds(pipe.time())
                written, keep_for, answer = taken(None if value is None else _text(value), report, now)
                if written is None:
                    pipe.unwatch()
                    return answer
                pipe.multi()
                pipe.set(key, written, px=int(keep_for * 1000))
                pipe.publish(self._channel, label)
                try:
                    pipe.execute()
                except redis.WatchError:
                    continue
                return answer
        raise TimeoutError(f"the ledger of {label!r} has changed under {ROUNDS} attempts to write it")

    def listen(self, heard: Callable[[str], None], is_over: Callable[[], bool]) -> None:
        with self._client.pubsub(ignore_subscribe_messages=True) as channel:
            channel.subscribe(self._channel)
            while not is_over():
                message = channel.get_message(timeout=LISTENING)
                if message is not None:
                    heard(_text(message["data"]))

    def close(self) -> None:
        if self._closes:
            self._client.close()


def _text(value: bytes | str) -> str:
    """Return what was read, whether or not the client decodes; bytes that are no text will be no ledger."""
    return value if isinstance(value, str) else value.decode(errors="replace")


def _seconds(time: tuple[int, int]) -> float:
    seconds, microseconds = time
    return seconds + microseconds / 1e6
