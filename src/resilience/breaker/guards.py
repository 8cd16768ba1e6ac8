"""What a circuit breaker's decorator returns: one kind of wrapper for each kind of function.

While the breaker is closed, those of functions and of coroutine functions do just what
`CircuitBreaker.execute` and `execute_async` do, without a call of them; for everything else they call them.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from resilience.callables import Kind, kind_of
from resilience.guarding import async_generator_in, generator_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience.breaker.gate import Gate


def guarded(
    fn: Callable[..., Any],
    gate: Gate,
    execute: Callable[..., Any],
    execute_async: Callable[..., Awaitable[Any]],
) -> Callable[..., Any]:
    """Return a function of the same kind as `fn`, whose calls pass through `gate`.

    Args:
        fn: What to guard.
        gate: What admits its calls, and takes their outcomes.
        execute: Runs a call of a function through `gate`.
        execute_async: Runs a call of a coroutine function through `gate`.

    Raises:
        TypeError: `fn` cannot be guarded.
    """
    kind = kind_of(fn)
    if kind is Kind.SYNC:
        return _function(fn, gate, execute)
    if kind is Kind.ASYNC:
        return _coroutine_function(fn, gate, execute_async)
    stream = partial(gate.admit, timed=False)  # a stream is as slow as its reader
    return generator_in(stream, fn) if kind is Kind.GENERATOR else async_generator_in(stream, fn)


def _function(fn: Callable[..., Any], gate: Gate, execute: Callable[..., Any]) -> Callable[..., Any]:
    core, now = gate.core, gate.now
    plain = False  # until the first result has shown that `fn` is no coroutine function in disguise

    def guarded(*args: Any, **kwargs: Any) -> Any:
        nonlocal plain
        period = core.period
        if not (plain and period.passes):
            wait = gate.rejects_for(period)
            if wait > 0:
                raise gate.rejection(wait)
            result = execute(fn, *args, **kwargs)
            plain = not gate.examines
            return result
        try:
            result = fn(*args, **kwargs)
        except Exception as error:
            gate.count(period, inf, error)
            raise
        window = period.window
        if window.success_matters:
            ended = now()
            if not window.note(ended):
                with gate.lock:
                    window.succeed(ended)
        return result

    return guarded


def _coroutine_function(
    fn: Callable[..., Any], gate: Gate, execute: Callable[..., Awaitable[Any]]
) -> Callable[..., Any]:
    core, now = gate.core, gate.now
    plain = not gate.examines

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        period = core.period
        if not (plain and period.passes):
            wait = gate.rejects_for(period)
            if wait > 0:
                raise gate.rejection(wait)
            return await execute(fn, *args, **kwargs)
        try:
            result = await fn(*args, **kwargs)
        except Exception as error:
            gate.count(period, inf, error)
            raise
        window = period.window
        if window.success_matters:
            ended = now()
            if not window.note(ended):
                with gate.lock:
                    window.succeed(ended)
        return result

    return guarded
