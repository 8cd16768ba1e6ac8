"""The two pipelines: what users compose, decorate with and call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, Self, TypeVar, Unpack

from resilience.callables import Kind
from resilience.checks import optional_name
from resilience.pipeline.context import Context
from resilience.pipeline.decorated import Decorated
from resilience.pipeline.inheritance import inherited
from resilience.pipeline.plan import Held, Plan
from resilience.pipeline.stages import UNCALLABLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience.breaker import BreakerRegistry
    from resilience.limiter import AsyncRateLimiter, RateLimiter
    from resilience.pipeline.context import CallOptions
    from resilience.pipeline.waiting import Waiting

    Part = Callable[..., Any] | RateLimiter | AsyncRateLimiter | Waiting | BreakerRegistry
    """A policy, a pipeline, or whatever else decorates a function."""

P = ParamSpec("P")
R = TypeVar("R")


class _Pipeline:
    """What both pipelines can do."""

    __slots__ = ("__weakref__", "_context", "_held", "_name", "_plan")

    _held: Held
    _context: Context
    _name: str | None
    _plan: Plan

    def __init__(self, *parts: Part, name: str | None = None) -> None:
        self._begin(Held(_checked(parts)), Context(), optional_name(name))

    def _begin(self, held: Held, context: Context, name: str | None, known: Plan | None = None) -> None:
        self._held = held
        self._context = context
        self._name = name
        self._plan = Plan(held, held.parts, context, name, known)

    @property
    def parts(self) -> tuple[Any, ...]:
        """The parts of this moment, outermost first."""
        return self._held.parts

    @property
    def context(self) -> Context:
        """What holds for each of its calls."""
        return self._context

    @property
    def name(self) -> str | None:
        """What nameless retries in it go by; None leaves it to the functions."""
        return self._name

    def with_(self, **options: Unpack[CallOptions]) -> Self:
        """Return a pipeline of the same parts whose calls have this context; it shares all state.

        Args:
            options: `key`: for whom the call is, a part or a tuple of parts, or a function of the call's
                arguments that returns that; limiters count under it, and a `BreakerRegistry` has a breaker
                for it. `cost`: the units that limiters charge, at least 1. `deadline`: seconds for the whole
                call, at least 0. `idempotent`: whether the call may be repeated if it has perhaps been
                processed. `criticality`: how much it matters, to bulkheads and load shedders.

        Raises:
            TypeError, ValueError: An option is unknown, of the wrong kind or out of its range.

        Keep what it returns where it can be used again: making it costs some microseconds.
        """
        twin = type(self).__new__(type(self))
        twin._begin(self._held, self._context.changed(**options), self._name, self._plan)  # noqa: SLF001 - its own class
        return twin

    def reconfigure(self, *parts: Part) -> None:
        """Go on with other parts.

        Calls that begin from now on go by them, calls under way end by the old ones. It holds for all that
        `with_` has made of this pipeline, and for all functions that they decorate.

        A part that is the same object goes on as it is. Of one that has the type and the name of an old one,
        the state is kept: a breaker is as open as it was, and keeps its window if it counts in the same way;
        a limiter in memory with the same quotas is the old one; retries have the budget of their name.

        Raises:
            TypeError, ValueError: A part is none, or cannot guard what the pipeline decorates. Nothing is
                changed then.
        """
        held = self._held
        checked = _checked(parts)
        with held.lock:
            decorated = list(held.decorated)
        Plan(held, checked, self._context, self._name)
        for function in decorated:
            function.try_on(checked)
        held.parts = inherited(held.parts, checked)

    def __call__(self, fn: Callable[P, R], /) -> Callable[P, R]:
        """Decorate `fn`: a function, coroutine function, generator function or async generator function.

        Raises:
            TypeError: A part cannot guard `fn`; the message says what to do.
        """
        decorated = Decorated(fn, self._present)
        with self._held.lock:
            self._held.decorated.add(decorated)
        return decorated.wrapper()

    def for_one(self, fn: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
        """Return what is to be called for `fn` once; for pipelines of which this is a part."""
        return self._present().for_one(fn, kind)

    def _present(self, parts: tuple[Any, ...] | None = None) -> Plan:
        """Return the plan for the parts of this moment, or for these."""
        plan, held = self._plan, self._held  # read at once; two threads that renew it make the same
        if parts is not None:
            return Plan(held, parts, self._context, self._name)
        if plan.parts is not held.parts:
            plan = self._plan = Plan(held, held.parts, self._context, self._name)
        return plan

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"{self!r} cannot be copied or pickled: its parts hold live state; share the one there is, use "
            "with_() for another context, and make another in each process"
        )

    def __repr__(self) -> str:
        """Show the parts."""
        shown = [repr(part) for part in self.parts]
        if self._name is not None:
            shown.append(f"name={self._name!r}")
        return f"{type(self).__name__}({', '.join(shown)})"


class Pipeline(_Pipeline):
    """Composes policies around a call: left to right, the outermost first.

    `Pipeline(limiter, retries, breaker)` asks the limiter once for each call, and retries inside. Retries
    that a breaker follows directly have it as their `circuit_breaker`: it learns of first attempts only, and
    a retry is begun only while it is closed.

    Args:
        parts: Policies, pipelines, or whatever else decorates a function; at least one.
        name: What nameless retries in it go by; left out, each function's own name.

    Raises:
        TypeError: A part is none.
        ValueError: A part is there twice, or retries have another breaker than the one that follows them.

    It keeps no state of a call; its parts have theirs. Threads, tasks and event loops may share it.

    Example:
        >>> from resilience import CircuitBreaker, RateLimiter, RetryManager
        >>> search = Pipeline(RateLimiter("10/second"), RetryManager(name="search"), CircuitBreaker(5, 60.0))
        >>> @search
        ... def find(text: str) -> str:
        ...     return text.upper()
        >>> find("engines")
        'ENGINES'
        >>> search.with_(key="ada", deadline=2.0).execute(str.lower, "ENGINES")
        'engines'
    """

    __slots__ = ()

    def execute(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` through all parts and return its result.

        Raises:
            TypeError: `fn` returned a coroutine, or is a generator function: its work would run unguarded.
            Exception: What a part raises, or what `fn` does.
        """
        return self.for_one(fn, Kind.SYNC)(*args, **kwargs)  # type: ignore[no-any-return]  # what fn returned


class AsyncPipeline(_Pipeline):
    """Composes policies around an awaited call; `Pipeline` says what the arguments mean.

    Its limiters and bulkheads are the `Async` ones. A cancelled call leaves at once, and untouched.

    Example:
        >>> import asyncio
        >>> from resilience import AsyncRetryManager, CircuitBreaker
        >>> async def find(text: str) -> str:
        ...     return text.upper()
        >>> search = AsyncPipeline(AsyncRetryManager(name="search"), CircuitBreaker(5, 60.0))
        >>> asyncio.run(search.execute(find, "engines"))
        'ENGINES'
    """

    __slots__ = ()

    async def execute(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `fn` through all parts, await and return its result.

        Raises:
            TypeError: `fn` returned nothing that can be awaited.
            Exception: What a part raises, or what `fn` does.
        """
        return await self.for_one(fn, Kind.ASYNC)(*args, **kwargs)  # type: ignore[no-any-return]  # what fn returned


def _checked(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    if not parts:
        raise TypeError("a pipeline needs at least one part, such as a RetryManager()")
    for number, part in enumerate(parts):
        if isinstance(part, type):
            raise TypeError(f"{part.__name__} is a class: pass one of its objects, {part.__name__}(...)")
        if not (callable(part) or isinstance(part, UNCALLABLE)):
            raise TypeError(f"{part!r} decorates no functions: a part is a policy, a pipeline or a decorator")
        if any(part is other for other in parts[:number]):
            raise ValueError(f"{part!r} is there twice: a call would pass it twice, or wait for itself")
    return parts
