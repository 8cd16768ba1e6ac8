"""Functions whose every call takes units first: what `limit` of both limiters makes."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from resilience.callables import Kind, kind_of, name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    Key = str | int
    KeyFunction = Callable[..., Key | tuple[Key, ...]]

P = ParamSpec("P")
R = TypeVar("R")


def limiting(
    require: Callable[..., object], key: KeyFunction | None, cost: int
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that calls `require` for the key of each call, before it."""

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        if kind_of(fn) is not Kind.SYNC:
            raise TypeError(
                f"{name_of(fn)} is a {kind_of(fn).value}: use AsyncRateLimiter for a coroutine function, "
                "and call require() at the beginning of a generator"
            )

        @wraps(fn)
        def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            require(*_key_of(key, args, kwargs), cost=cost)
            return fn(*args, **kwargs)

        return limited

    return decorate


def limiting_async(
    require: Callable[..., Awaitable[object]], key: KeyFunction | None, cost: int
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Coroutine[Any, Any, R]]]:
    """Return a decorator that awaits `require` for the key of each call, before it."""

    def decorate(fn: Callable[P, Awaitable[R]]) -> Callable[P, Coroutine[Any, Any, R]]:
        if kind_of(fn) is not Kind.ASYNC:
            raise TypeError(
                f"{name_of(fn)} is a {kind_of(fn).value}: use RateLimiter for a plain function, and "
                "await require() at the beginning of an async generator"
            )

        @wraps(fn)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> R:
            await require(*_key_of(key, args, kwargs), cost=cost)
            return await fn(*args, **kwargs)

        return limited

    return decorate


def _key_of(key: KeyFunction | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Key, ...]:
    if key is None:
        return ()
    parts = key(*args, **kwargs)
    return parts if isinstance(parts, tuple) else (parts,)
