"""The steps that a pipeline makes of its parts, each of which does its part's work around a function.

A part is whatever decorates a function: any policy of this library, a pipeline, or a decorator of your own.
Most are taken as they are. Made special are those that a call's context reaches, and retries that are
followed by a breaker: it becomes their `circuit_breaker`, so it learns of first attempts only, and a retry is
begun only while it is closed.

A stage is asked for a function in two ways: *for good*, by the part's own decorator, which names nameless
parts and does as much as it can beforehand; and for *one call*, which should cost little to prepare.
"""

from __future__ import annotations

from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Final, Protocol

from resilience._core.key import canonical
from resilience.breaker import BreakerRegistry, CircuitBreaker
from resilience.callables import Kind, innermost, kind_of, name_of
from resilience.criticality import criticality
from resilience.deadline import deadline
from resilience.guarding import async_generator_in
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.reservation import heed_cancellation
from resilience.pipeline.waiting import Waiting
from resilience.retry.guards import guard, run, run_async
from resilience.retry.manager import AsyncRetryManager, RetryManager

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from resilience.pipeline.context import Context

    Fn = Callable[..., Any]

GENERATORS: Final = frozenset({Kind.GENERATOR, Kind.ASYNC_GENERATOR})


class Stage(Protocol):
    """One step of a pipeline."""

    def around(self, fn: Fn, kind: Kind, *, for_good: bool) -> Fn:
        """Return a function of the same kind that does the step's work around `fn`.

        Args:
            fn: What is guarded so far.
            kind: Its kind.
            for_good: Whether it is for many calls, and not for one.

        Raises:
            TypeError: `fn` cannot be guarded.
        """
        ...


UNCALLABLE: Final = (RateLimiter, AsyncRateLimiter, Waiting, BreakerRegistry)
"""What is a part although it decorates no functions by itself."""


def dressed(made: Fn, fn: Fn) -> Fn:
    """Return `made` with the name, the documentation and the signature of `fn`, a partial's too."""
    given: object = fn
    copied = () if isinstance(given, type) else ("__dict__",)  # a class's attributes are no function's
    inner = innermost(fn)
    made.__name__ = getattr(inner, "__name__", type(inner).__name__)
    made.__qualname__ = getattr(inner, "__qualname__", type(inner).__qualname__)
    update_wrapper(made, fn, updated=copied)
    made.__module__ = getattr(inner, "__module__", type(inner).__module__)
    return made


def arranged(
    parts: Sequence[Any], context: Context, name: str | None, known: Sequence[Stage] = ()
) -> tuple[Stage, ...]:
    """Return the stages of `parts`, outermost first.

    Args:
        parts: What to make them of.
        context: What holds for the calls.
        name: What nameless retries go by; None leaves it to the functions.
        known: The stages of another context, of which those are taken that would be the same.
    """
    stages: list[Stage] = []
    if context.deadline is not None:
        seconds = context.deadline
        stages.append(Framed(lambda: deadline(seconds), "a deadline"))
    if context.criticality is not None:
        level = context.criticality
        stages.append(Framed(lambda: criticality(level), "a criticality"))
    adopted = None
    for number, part in enumerate(parts, 1):
        inner = parts[number] if number < len(parts) else None
        if part is adopted:
            adopted = None
        elif isinstance(part, RetryManager | AsyncRetryManager):
            adopted = inner if isinstance(inner, CircuitBreaker | BreakerRegistry) else None
            same = [stage for stage in known if isinstance(stage, Retrying) and stage.suits(part, context)]
            stages.append(same[0] if same else Retrying(part, adopted, context, name))
        elif isinstance(part, RateLimiter | AsyncRateLimiter):
            stages.append(Limiting(Waiting(part, timeout=0.0), context))
        elif isinstance(part, Waiting):
            stages.append(Limiting(part, context))
        elif isinstance(part, BreakerRegistry):
            stages.append(Keyed(part, context))
        else:
            stages.append(AsItIs(part))
    return tuple(stages)


class AsItIs:
    """A part that needs to know nothing of the call."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def around(self, fn: Fn, kind: Kind, *, for_good: bool) -> Fn:
        """Return `fn` decorated; for one call by `execute` and `execute_async`, where the part has them."""
        if not for_good:
            for_one = getattr(self.part, "for_one", None)
            if for_one is not None:  # a pipeline
                made: Fn = for_one(fn, kind)
                return made
            execute = getattr(self.part, "execute", None)
            if kind is Kind.ASYNC:
                execute = getattr(self.part, "execute_async", execute)
            if execute is not None and kind_of(execute) is kind:
                return partial(execute, fn)
        decorated: Fn = self.part(fn)
        if kind_of(decorated) is not kind:
            raise TypeError(
                f"{self.part!r} made a {kind_of(decorated).value} of {name_of(fn)}, a {kind.value}: a part "
                "must return a function of the same kind"
            )
        return decorated


class Limiting:
    """A limiter, which charges the call's cost for its key."""

    def __init__(self, waiting: Waiting, context: Context) -> None:
        self.limiter = waiting.limiter
        self.waits = waiting.waits
        self.context = context
        ask = self.limiter.acquire if self.waits else self.limiter.require
        timeout = {"timeout": waiting.timeout} if self.waits else {}
        self._ask: Callable[..., Any] = partial(ask, cost=context.cost, **timeout)

    @property
    def place(self) -> str | bytes | None:
        """The canonical key, where it is the same for all calls."""
        key = self.context.key
        return None if callable(key) else canonical(key)

    def place_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | bytes:
        """Return the canonical key of a call with these arguments."""
        return canonical(self.context.parts(args, kwargs))

    def around(self, fn: Fn, kind: Kind, *, for_good: bool) -> Fn:
        """Return a function that asks the limiter first; a generator, when its first item is asked for."""
        awaited = isinstance(self.limiter, AsyncRateLimiter)
        is_async = kind in {Kind.ASYNC, Kind.ASYNC_GENERATOR}
        if awaited and not is_async:
            raise TypeError(f"{self.limiter!r} is awaited, and so guards no {kind.value}: use RateLimiter")
        if is_async and not awaited and (self.waits or getattr(self.limiter.counts_in, "blocking", True)):
            raise TypeError(
                f"{self.limiter!r} would block the event loop of a {kind.value}: use AsyncRateLimiter"
            )
        if kind is Kind.ASYNC_GENERATOR and not isinstance(self.context.key, tuple):
            raise TypeError(
                f"the key of {name_of(fn)}, an {kind.value}, cannot be a function of its arguments: decorate "
                "it by with_(key=...) with the key itself"
            )
        made = _LIMITED[kind](self._ask_async if is_async else self._ask, self.context, fn)
        return dressed(made, fn) if for_good else made

    async def _ask_async(self, *key: Any) -> None:
        if isinstance(self.limiter, AsyncRateLimiter):
            await self._ask(*key)
        else:
            await heed_cancellation()
            self._ask(*key)


def _limited(ask: Fn, context: Context, fn: Fn) -> Fn:
    def limited(*args: Any, **kwargs: Any) -> Any:
        ask(*context.parts(args, kwargs))
        return fn(*args, **kwargs)

    return limited


def _limited_async(ask: Fn, context: Context, fn: Fn) -> Fn:
    async def limited(*args: Any, **kwargs: Any) -> Any:
        await ask(*context.parts(args, kwargs))
        return await fn(*args, **kwargs)

    return limited


def _limited_generator(ask: Fn, context: Context, fn: Fn) -> Fn:
    def limited(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        ask(*context.parts(args, kwargs))
        stream: Generator[Any, Any, Any] = fn(*args, **kwargs)
        return (yield from stream)

    return limited


def _limited_async_generator(ask: Fn, context: Context, fn: Fn) -> Fn:
    return async_generator_in(lambda: _Asked(partial(ask, *context.parts((), {}))), fn)


_LIMITED: Final[dict[Kind, Callable[[Fn, Context, Fn], Fn]]] = {
    Kind.SYNC: _limited,
    Kind.ASYNC: _limited_async,
    Kind.GENERATOR: _limited_generator,
    Kind.ASYNC_GENERATOR: _limited_async_generator,
}


class _Asked:
    """A block whose beginning awaits something."""

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        self._ask = ask

    async def __aenter__(self) -> None:
        await self._ask()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


class Retrying:
    """Retries, and the breaker that follows them, or a registry of breakers.

    Raises:
        ValueError: The retries have another breaker of their own.
    """

    def __init__(
        self,
        retries: RetryManager | AsyncRetryManager,
        breaker: CircuitBreaker | BreakerRegistry | None,
        context: Context,
        name: str | None,
    ) -> None:
        self._part = retries
        if name is not None:
            retries = retries.named(name)
        if breaker is not None and retries.breaker is not None and retries.breaker is not breaker:
            raise ValueError(
                f"the retries {retries.name!r} have a circuit_breaker of their own, {retries.breaker!r}, and "
                f"are followed by {breaker!r}: leave one of the two out"
            )
        if context.idempotent is not None and context.idempotent != retries.idempotent:
            retries = retries.replace(idempotent=context.idempotent)
        if isinstance(breaker, CircuitBreaker) and retries.breaker is None:
            retries = retries.replace(circuit_breaker=breaker)
        self.retries = retries
        self.registry = breaker if isinstance(breaker, BreakerRegistry) else None
        self.context = context

    def suits(self, part: object, context: Context) -> bool:
        """Whether it would be just the same for `part` and calls with this context."""
        return part is self._part and self.registry is None and context.idempotent == self.context.idempotent

    def around(self, fn: Fn, kind: Kind, *, for_good: bool) -> Fn:
        """Return a function that is called again where that helps."""
        if self.registry is not None:
            return self._keyed(self.registry, fn, kind, for_good=for_good)
        return self.retries(fn) if for_good else guard(self.retries, fn)

    def _keyed(self, registry: BreakerRegistry, fn: Fn, kind: Kind, *, for_good: bool) -> Fn:
        _require_key(self.context, registry, fn, kind)
        retries = self.retries.named(name_of(fn)) if for_good else self.retries
        context = self.context

        def keyed(*args: Any, **kwargs: Any) -> Any:
            own = retries.replace(circuit_breaker=registry.get(context.own(args, kwargs)))
            return run(own, fn, args, kwargs)

        async def keyed_async(*args: Any, **kwargs: Any) -> Any:
            own = retries.replace(circuit_breaker=registry.get(context.own(args, kwargs)))
            return await run_async(own, fn, args, kwargs)

        made = keyed if kind is Kind.SYNC else keyed_async
        return dressed(made, fn) if for_good else made


class Keyed:
    """A registry, whose breaker for the call's key guards it."""

    def __init__(self, registry: BreakerRegistry, context: Context) -> None:
        self.registry = registry
        self.context = context

    def around(self, fn: Fn, kind: Kind, *, for_good: bool) -> Fn:
        """Return a function that asks the breaker of its key."""
        registry, context = self.registry, self.context
        _require_key(context, registry, fn, kind)

        def keyed(*args: Any, **kwargs: Any) -> Any:
            return registry.get(context.own(args, kwargs)).execute(fn, *args, **kwargs)

        async def keyed_async(*args: Any, **kwargs: Any) -> Any:
            return await registry.get(context.own(args, kwargs)).execute_async(fn, *args, **kwargs)

        made = keyed if kind is Kind.SYNC else keyed_async
        return dressed(made, fn) if for_good else made


def _require_key(context: Context, registry: BreakerRegistry, fn: Fn, kind: Kind) -> None:
    if context.key == ():
        raise TypeError(
            f"{registry!r} has a breaker for each key, and the call has none: say it by with_(key=...)"
        )
    if kind in GENERATORS:
        raise TypeError(
            f"{name_of(fn)} is a {kind.value}, which a BreakerRegistry in a pipeline does not guard: use "
            "KeyedPipelines, with a CircuitBreaker for each key"
        )


class Framed:
    """A block around the whole call."""

    def __init__(self, block: Callable[[], AbstractContextManager[Any]], what: str) -> None:
        self._block = block
        self._what = what

    def around(self, fn: Fn, kind: Kind, *, for_good: bool) -> Fn:
        """Return a function that runs inside the block."""
        block = self._block
        if kind in GENERATORS:
            raise TypeError(
                f"{name_of(fn)} is a {kind.value}, and {self._what} around it would be its reader's too "
                "between two items: set it where the items are read"
            )

        def framed(*args: Any, **kwargs: Any) -> Any:
            with block():
                return fn(*args, **kwargs)

        async def framed_async(*args: Any, **kwargs: Any) -> Any:
            with block():
                return await fn(*args, **kwargs)

        made = framed if kind is Kind.SYNC else framed_async
        return dressed(made, fn) if for_good else made
