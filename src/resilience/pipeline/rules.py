"""What is wrong with an order of policies, or seems so: one rule, one function.

A rule looks at the steps, outermost first, and says what it found, why that matters and what to do instead. A
warning is no error: each of these compositions may be meant. But each has surprised somebody.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from resilience._core.compose import Role, Worst, worst

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from resilience._core.compose import Step

    Steps = Sequence[Step]


class Advice(NamedTuple):
    """One warning about a composition."""

    code: str
    """What to call it, such as `"nested-retries"`."""
    what: str
    why: str
    instead: str
    """What to do."""

    def __str__(self) -> str:
        """Return it in one line."""
        return f"{self.code}: {self.what}. {self.why}. {self.instead}."


class Setting(NamedTuple):
    """What the rules look at beside the steps."""

    below: int
    """How many requests a client makes for one call."""
    takes: float
    """Seconds that one attempt takes at most by itself; infinity where that is unknown."""
    interrupts: bool
    """Whether what takes too long is ended, as tasks are."""


def advice(steps: Steps, setting: Setting) -> tuple[Advice, ...]:
    """Return all warnings about `steps`, in the order of the rules."""
    return tuple(warning for rule in RULES for warning in rule(steps, setting))


def _pairs(steps: Steps, outer: Role, inner: Role) -> Iterator[tuple[Step, Step]]:
    """Yield each step of one role with each of another that is inside it."""
    for number, step in enumerate(steps):
        if step.role is outer:
            yield from ((step, within) for within in steps[number + 1 :] if within.role is inner)


def _has(steps: Steps, role: Role) -> bool:
    return any(step.role is role for step in steps)


def nested_retries(steps: Steps, _: Setting) -> Iterator[Advice]:
    """Retries inside retries."""
    for outer, inner in _pairs(steps, Role.RETRY, Role.RETRY):
        yield Advice(
            "nested-retries",
            f"{outer.name} repeats {inner.name}, which repeats",
            f"at worst {outer.attempts} x {inner.attempts} attempts are made; an exhausted retry tells those "
            "around it, but not where they retry for other reasons",
            "Retry at one level, the one nearest to what fails",
        )


def retries_below(steps: Steps, setting: Setting) -> Iterator[Advice]:
    """A client that retries by itself."""
    if setting.below > 1 and _has(steps, Role.RETRY):
        yield Advice(
            "retries-below",
            f"the client below makes {setting.below} requests for one attempt",
            "its retries know neither the budget nor the breaker, and multiply those of the pipeline",
            "Switch the client's own retries off",
        )


def no_budget(steps: Steps, _: Setting) -> Iterator[Advice]:
    """Retries or hedges that nothing caps."""
    for step in steps:
        if step.role is Role.RETRY and step.attempts > 1 and not step.budgeted:
            yield Advice(
                "retry-without-budget",
                f"{step.name} has no budget",
                f"while all fail, each call makes {step.attempts} attempts, and that can keep an outage up",
                "Leave budget= out, or pass a RetryBudget",
            )
        if step.role is Role.HEDGE and not step.budgeted:
            yield Advice(
                "hedge-without-budget",
                f"{step.name} has no budget",
                "when everything is slow, every call is made twice, just when there is least room for it",
                "Give it the budget of the retries",
            )


def hedge_not_idempotent(steps: Steps, _: Setting) -> Iterator[Advice]:
    """Hedges of what must not be done twice."""
    hedges = [step for step in steps if step.role is Role.HEDGE]
    if hedges and not all(step.idempotent for step in steps):
        yield Advice(
            "hedge-of-non-idempotent",
            f"{hedges[0].name} makes a call twice that is said not to be idempotent",
            "both may be done: a loser that is cancelled has perhaps been processed",
            "Hedge reads, or writes that carry an idempotency key",
        )


def waiting_limiter(steps: Steps, _: Setting) -> Iterator[Advice]:
    """A limiter that waits, inside of what pays for that."""
    for outer, inner in _pairs(steps, Role.RETRY, Role.LIMITER):
        if inner.wait:
            yield Advice(
                "retry-outside-waiting-limiter",
                f"{outer.name} is outside limiter {inner.name}, which waits",
                "each attempt queues anew, behind calls that have not failed, while its deadline runs",
                "Put the limiter outside the retries, or let it refuse",
            )
        else:
            yield Advice(
                "limiter-inside-retry",
                f"limiter {inner.name} is inside {outer.name}",
                "each attempt is charged, not each call, and what it refuses is worth a retry",
                "Put it outside, unless it stands for a quota of the other side, which counts requests",
            )
    for outer, inner in _pairs(steps, Role.BULKHEAD, Role.LIMITER):
        if inner.wait:
            yield Advice(
                "bulkhead-outside-waiting-limiter",
                f"bulkhead {outer.name} is outside limiter {inner.name}, which waits",
                "its places are held by calls that only wait, and others are rejected for it",
                "Put the limiter outside the bulkhead",
            )


def bulkhead_outside_retry(steps: Steps, _: Setting) -> Iterator[Advice]:
    """Places that are held during delays."""
    for outer, inner in _pairs(steps, Role.BULKHEAD, Role.RETRY):
        if inner.attempts > 1:
            yield Advice(
                "bulkhead-outside-retry",
                f"bulkhead {outer.name} is outside {inner.name}",
                "a place is held during the delays too, in which the dependency does nothing for the call",
                "Put the bulkhead inside the retries",
            )


def two_limiters(steps: Steps, _: Setting) -> Iterator[Advice]:
    """One limiter is charged although the next refuses."""
    for outer, inner in _pairs(steps, Role.LIMITER, Role.LIMITER):
        yield Advice(
            "two-limiters",
            f"limiter {outer.name} is charged although limiter {inner.name} refuses",
            "refused calls use up a quota that they did not need",
            "Use one limiter with both quotas, or require_all",
        )


def breaker_and_retry(steps: Steps, _: Setting) -> Iterator[Advice]:
    """A breaker that learns of something else than first attempts."""
    for outer, inner in _pairs(steps, Role.BREAKER, Role.RETRY):
        yield Advice(
            "breaker-outside-retry",
            f"breaker {outer.name} is outside {inner.name}",
            "it learns of a failure only when all attempts have failed, and retries go on while it is open",
            "Put the breaker directly after the retries",
        )
    for outer, inner in _pairs(steps, Role.RETRY, Role.BREAKER):
        if not inner.first_attempts:
            yield Advice(
                "breaker-counts-retries",
                f"breaker {inner.name} is inside {outer.name}, but not directly after it",
                "it counts every attempt, and so measures the retries instead of the dependency",
                "Put it directly after the retries: it is then fed by first attempts only",
            )


def breaker_inside_timeout(steps: Steps, setting: Setting) -> Iterator[Advice]:
    """A breaker that never learns of timeouts."""
    if not setting.interrupts:
        return
    for number, step in enumerate(steps):
        outside, inside = steps[:number], steps[number + 1 :]
        if step.role is Role.BREAKER and _has(outside, Role.TIMEOUT) and not _has(inside, Role.TIMEOUT):
            yield Advice(
                "breaker-inside-timeout",
                f"breaker {step.name} is inside a timeout",
                "a call that is too slow reaches it as a cancellation, which says nothing: calls that hang "
                "never open it",
                "Put a timeout inside the breaker",
            )


def hidden_failures(steps: Steps, _: Setting) -> Iterator[Advice]:
    """A fallback that hides failures from who should act on them."""
    for role, code, why in (
        (Role.RETRY, "fallback-inside-retry", "nothing is ever retried: the fallback has answered"),
        (Role.BREAKER, "fallback-inside-breaker", "the breaker sees successes only, and never opens"),
    ):
        for outer, inner in _pairs(steps, role, Role.FALLBACK):
            yield Advice(
                code,
                f"fallback {inner.name} is inside {outer.name}",
                why,
                "Put the fallback outermost",
            )


def attempts_beyond_deadline(steps: Steps, setting: Setting) -> Iterator[Advice]:
    """Attempts that the time will not suffice for."""
    for number, step in enumerate(steps):
        if step.role is not Role.RETRY or step.attempts == 1:
            continue
        inside = steps[number + 1 :]
        limit = min([step.limit, *(outer.limit for outer in steps[:number])])
        each = worst(inside, Worst(1, setting.takes), interrupts=setting.interrupts, asked=False).seconds
        if limit < inf and each < inf and each * step.attempts + step.delays > limit:
            fitting = max(1, int(limit // each)) if each else step.attempts
            yield Advice(
                "attempts-beyond-deadline",
                f"{step.attempts} attempts of {each:g} s and their delays do not fit into {limit:g} s",
                f"where attempts time out, {fitting} at most will be made",
                "Shorten the timeout of an attempt, or allow more time in all",
            )
        if each == inf:
            yield Advice(
                "no-attempt-timeout",
                f"nothing bounds one attempt of {step.name}",
                "one that hangs uses up all the time there is, and no other follows",
                "Put a Timeout inside the retries; if the client has one, say so by takes=",
            )


def no_deadline(steps: Steps, _: Setting) -> Iterator[Advice]:
    """A whole that nothing bounds, and waits without an end."""
    bounded = False
    for step in steps:
        if step.wait == inf and not bounded:
            yield Advice(
                "endless-wait",
                f"{step.role.value} {step.name} lets calls wait without an end",
                "under load they wait for longer than anybody waits for them",
                "Give it a timeout, or the call a deadline",
            )
        bounded = bounded or step.limit < inf
        if step.role is Role.RETRY and step.attempts > 1 and not bounded:
            yield Advice(
                "no-deadline",
                f"{step.name} has no deadline",
                "whoever called may be gone before the last attempt, and a Retry-After may be long",
                "Set deadline= of the retries, with_(deadline=...), or a resilience.deadline around the call",
            )


RULES: Final[tuple[Callable[[Steps, Setting], Iterator[Advice]], ...]] = (
    no_deadline,
    attempts_beyond_deadline,
    retries_below,
    nested_retries,
    no_budget,
    breaker_and_retry,
    breaker_inside_timeout,
    waiting_limiter,
    two_limiters,
    bulkhead_outside_retry,
    hidden_failures,
    hedge_not_idempotent,
)
