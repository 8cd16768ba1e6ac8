"""A composition in plain words: what it comes to at worst, and what in it overlaps or contradicts.

Nothing is called and nothing is waited for: the figures come from the settings, by the arithmetic of
`resilience._core.compose`, and the warnings from the rules of `resilience.pipeline.rules`.
"""

from __future__ import annotations

import warnings as _warnings
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from resilience._core.compose import Role, Worst, worst
from resilience.checks import count, number
from resilience.pipeline.clients import requests_of
from resilience.pipeline.pipeline import AsyncPipeline
from resilience.pipeline.rules import Setting, advice
from resilience.pipeline.steps import steps_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from resilience._core.compose import Step
    from resilience.pipeline.rules import Advice

_AWAITED = ("Async", "Hedge")
"""How the names of what is for tasks begin."""


class CompositionWarning(UserWarning):
    """A composition of policies has something that has surprised people."""


class Report(NamedTuple):
    """What a composition comes to; `str()` of it is for people."""

    attempts: int
    """Requests that one call makes at worst, those of a client that retries below included."""
    seconds: float
    """Seconds that it takes at worst, waits and the longest `Retry-After` included; infinity if unbounded."""
    seconds_by_backoff: float
    """The same where nobody asks by `Retry-After` to wait for longer."""
    warnings: tuple[Advice, ...]
    lines: tuple[str, ...]
    """What the parts do, outermost first."""
    cooperative: bool
    """Whether the bound holds only as far as the function hands `remaining()` on to its client."""

    def __str__(self) -> str:
        """Tell it."""
        return "\n".join(self._told())

    def _told(self) -> Iterator[str]:
        yield "A call, from the outside in:"
        yield from (f"  {place}. {line}" for place, line in enumerate(self.lines, 1))
        requests = "1 request" if self.attempts == 1 else f"{self.attempts} requests"
        if self.seconds == inf:
            yield f"At worst {requests}; nothing bounds the time."
        elif self.seconds == self.seconds_by_backoff:
            yield f"At worst {requests} and {_seconds(self.seconds)}."
        else:
            yield (
                f"At worst {requests} and {_seconds(self.seconds_by_backoff)}; "
                f"{_seconds(self.seconds)} if Retry-After asks for it."
            )
        if self.cooperative:
            yield "This holds if the function gives its client no more than remaining(): it is not ended."
        for warning in self.warnings:
            yield f"! {warning.what} ({warning.code})"
            yield f"    why: {warning.why}"
            yield f"    instead: {warning.instead}"


def explain(pipeline: Any, *, below: Any = 1, takes: float | None = None, warn: bool = False) -> Report:
    """Say what a pipeline comes to at worst, and what in it overlaps or contradicts.

    Args:
        pipeline: A `Pipeline` or `AsyncPipeline`, with the context that `with_` gave it; or one policy.
        below: The requests that the client makes for one call of it, at least 1; or the client itself, of
            redis-py, botocore (boto3), urllib3, requests, httpx or obstore.
        takes: Seconds that one request takes at most, by the client's own timeout, above 0; None without one.
        warn: Whether to issue each warning as a `CompositionWarning`, too.

    Returns:
        The report: `attempts`, `seconds`, `warnings`, and the whole in words as `str(report)`.

    Raises:
        TypeError, ValueError: `below` is no client that is known, or an argument is out of its range.

    It calls nothing and changes nothing. The figures are bounds: budgets and breakers mostly stop
    calls before.

    Example:
        >>> from resilience import CircuitBreaker, Pipeline, RetryManager
        >>> search = Pipeline(RetryManager(name="search", deadline=2.0), CircuitBreaker(name="search"))
        >>> print(explain(search, takes=0.5))
        A call, from the outside in:
          1. retries 'search': up to 3 attempts, delays of up to 0.3 s, 2 s in all
          2. breaker 'search': fed by first attempts
        At worst 3 requests and 1.8 s; 2.5 s if Retry-After asks for it.
    """
    requests = below if isinstance(below, int) else requests_of(below)
    count("below", requests, least=1)
    seconds = inf if takes is None else number("takes", takes, above=0) * requests
    steps = steps_of(pipeline)
    interrupts = _is_awaited(pipeline)
    call = Worst(requests, seconds)
    asked = worst(steps, call, interrupts=interrupts, asked=True)
    by_backoff = worst(steps, call, interrupts=interrupts, asked=False)
    report = Report(
        attempts=asked.attempts,
        seconds=asked.seconds,
        seconds_by_backoff=by_backoff.seconds,
        warnings=advice(steps, Setting(requests, seconds, interrupts)),
        lines=tuple(map(_line, steps)),
        cooperative=not interrupts and takes is None and asked.seconds < inf,
    )
    if warn:
        for warning in report.warnings:
            _warnings.warn(str(warning), CompositionWarning, stacklevel=2)
    return report


def _is_awaited(pipeline: Any) -> bool:
    parts = (pipeline, *getattr(pipeline, "parts", ()))
    return isinstance(pipeline, AsyncPipeline) or any(
        type(part).__name__.startswith(_AWAITED) for part in parts
    )


def _line(step: Step) -> str:
    fact = _FACTS[step.role](step)
    return f"{_TITLES.get(step.role, step.role.value)} {step.name}: {fact}"


def _waits(step: Step, at_once: str) -> str:
    if not step.wait:
        return at_once
    return "waits without an end" if step.wait == inf else f"waits up to {_seconds(step.wait)}"


def _retries(step: Step) -> str:
    within = "" if step.limit == inf else f", {_seconds(step.limit)} in all"
    if step.attempts == 1:
        return f"1 attempt{within}"
    return f"up to {step.attempts} attempts, delays of up to {_seconds(step.delays)}{within}"


_TITLES = {Role.RETRY: "retries", Role.OTHER: "part", Role.REFUSAL: "load limit"}

_FACTS: dict[Role, Callable[[Step], str]] = {
    Role.DEADLINE: lambda step: f"{_seconds(step.limit)} for everything inside",
    Role.LIMITER: lambda step: _waits(step, "refuses at once"),
    Role.BULKHEAD: lambda step: _waits(step, "rejects at once"),
    Role.REFUSAL: lambda _: "refuses under load, at once",
    Role.RETRY: _retries,
    Role.BREAKER: lambda step: "fed by first attempts" if step.first_attempts else "fed by every call",
    Role.TIMEOUT: lambda step: f"{_seconds(step.limit)}",
    Role.STREAM: lambda _: "for each item; nothing bounds the whole",
    Role.HEDGE: lambda step: f"up to {step.attempts} attempts side by side",
    Role.FALLBACK: lambda _: "answers in place of a failure; what it calls itself is not counted",
    Role.OTHER: lambda _: "not known here, so what it adds is not counted",
}


def _seconds(seconds: float) -> str:
    return f"{seconds:,.4g} s"
