"""Peers' policies, modelled as controls: what else a client might do. Each names its source.

The models are of budgets, delays and breakers, which is what the experiments are about: all of them take
every failure for one that is worth another attempt, as most of their users do. A peer is shown in the set-up
that its own documentation shows first, and where that is silent about a figure, in its defaults.

`naive_retries` and `backoff_retries` stand in `resilience.simulation.controls`.
"""

from __future__ import annotations

from collections import deque
from functools import wraps
from typing import TYPE_CHECKING, Any

from resilience.errors import service_unavailable_error
from resilience.simulation.controls import backoff_retries, naive_retries

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from resilience.clock import Clock

    Call = Callable[[Any], Awaitable[object]]
    Decorator = Callable[[Call], Call]
    Random = Callable[[], float]
    Delay = Callable[[int], float]

__all__ = [
    "aws_new",
    "aws_old",
    "backoff",
    "backoff_retries",
    "envoy",
    "finagle",
    "grpc",
    "naive_retries",
    "pybreaker",
    "sre",
    "stamina",
    "tenacity",
]


# --- libraries -----------------------------------------------------------------------------------


def tenacity(clock: Clock, random: Random) -> Decorator:
    """Return `retry(stop=stop_after_attempt(7), wait=wait_random_exponential(multiplier=1, max=60))`.

    Both are in the examples of tenacity's documentation; 9.2.
    """
    return _retrying(clock, 7, lambda attempt: random() * min(60.0, 2.0 ** (attempt - 1)))


def stamina(clock: Clock, random: Random) -> Decorator:
    """Return `stamina.retry(on=Exception)`: 10 attempts within 45 s, with its own delays; 26.1."""
    return _retrying(
        clock, 10, lambda attempt: min(5.0, 0.1 * 2.0 ** (attempt - 1) + random()), stop_after=45.0
    )


def backoff(clock: Clock, random: Random) -> Decorator:
    """Return `backoff.on_exception(backoff.expo, Exception, max_tries=8)`, with its full jitter; 2.2."""
    return _retrying(clock, 8, lambda attempt: random() * 2.0 ** (attempt - 1))


def pybreaker(clock: Clock) -> Decorator:
    """Return `pybreaker.CircuitBreaker(fail_max=5, reset_timeout=60)`; 1.4.

    Five failures in a row open it; after a minute, whatever comes is let through until one has ended.
    """

    def decorate(call: Call) -> Call:
        in_a_row = 0
        open_until: float | None = None

        @wraps(call)
        async def guarded(request: Any) -> object:
            nonlocal in_a_row, open_until
            if open_until is not None and clock.now() < open_until:
                raise service_unavailable_error("The dependency")
            try:
                result = await call(request)
            except Exception:
                in_a_row += 1
                if in_a_row >= 5 or open_until is not None:
                    open_until = clock.now() + 60.0
                raise
            in_a_row, open_until = 0, None
            return result

        return guarded

    return decorate


# --- budgets -------------------------------------------------------------------------------------


class _Budget:
    """Says whether a retry may be made; this one always does."""

    def begin(self) -> None:
        """Take note of a call that begins."""

    def failed(self) -> None:
        """Take note of an attempt that failed."""

    def pays(self, error: Exception) -> bool:  # noqa: ARG002 - any will do
        """Say whether a retry after `error` may be made, and pay for it."""
        return True

    def end(self, retries: int, *, succeeded: bool) -> None:
        """Take note of a call that has ended, after so many retries."""


class _Aws(_Budget):
    """The retry quota of the AWS SDKs' standard mode: 500 tokens, and the last retry's back if it succeeds.

    AWS SDKs and Tools Reference Guide, "Retry behavior".
    """

    def __init__(self, cost: float, cost_of_timeout: float) -> None:
        self._tokens = 500.0
        self._cost, self._cost_of_timeout = cost, cost_of_timeout
        self._paid = cost

    def pays(self, error: Exception) -> bool:
        cost = self._cost_of_timeout if isinstance(error, TimeoutError) else self._cost
        if cost > self._tokens:
            return False
        self._tokens -= cost
        self._paid = cost
        return True

    def end(self, retries: int, *, succeeded: bool) -> None:
        if succeeded:
            self._tokens = min(500.0, self._tokens + (self._paid if retries else 1.0))


class _Grpc(_Budget):
    """gRPC's retry throttling: a failure takes a token, a success earns 0.1, none above half no retry.

    gRPC proposal A6, with maxTokens = 10 and tokenRatio = 0.1 as in its example. Every failed attempt takes
    one, also the last of a call.
    """

    def __init__(self) -> None:
        self._tokens = 10.0

    def failed(self) -> None:
        self._tokens = max(0.0, self._tokens - 1.0)

    def pays(self, error: Exception) -> bool:  # noqa: ARG002 - any will do
        return self._tokens > 5.0

    def end(self, retries: int, *, succeeded: bool) -> None:  # noqa: ARG002 - whichever attempt it was
        if succeeded:
            self._tokens = min(10.0, self._tokens + 0.1)


class _Share(_Budget):
    """Retries up to a share of the requests of the last seconds, and so many on top.

    Finagle's `RetryBudget`: 20 % of 10 s, and 10 a second. The SRE book, chapter 21: 10 % of the requests;
    over which time it does not say, here 60 s.
    """

    def __init__(self, clock: Clock, share: float, seconds: float, on_top: float) -> None:
        self._now = clock.now
        self._seconds = seconds
        self._share = share
        self._balance = on_top
        self._movements: deque[tuple[float, float]] = deque()

    def begin(self) -> None:
        self._move(self._share)

    def pays(self, error: Exception) -> bool:  # noqa: ARG002 - any will do
        self._forget()
        if self._balance < 1.0:
            return False
        self._move(-1.0)
        return True

    def _move(self, tokens: float) -> None:
        self._balance += tokens
        self._movements.append((self._now(), tokens))

    def _forget(self) -> None:
        oldest = self._now() - self._seconds
        while self._movements and self._movements[0][0] <= oldest:
            self._balance -= self._movements.popleft()[1]


class _InFlight(_Budget):
    """Envoy's retry budget: retries in flight up to 20 % of what is in flight, and at least 3."""

    def __init__(self) -> None:
        self._calls = 0
        self._retries = 0

    def begin(self) -> None:
        self._calls += 1

    def pays(self, error: Exception) -> bool:  # noqa: ARG002 - any will do
        if self._retries >= max(3.0, 0.2 * self._calls):
            return False
        self._retries += 1
        return True

    def end(self, retries: int, *, succeeded: bool) -> None:  # noqa: ARG002 - it is over
        self._calls -= 1
        self._retries -= retries


def aws_old(clock: Clock, random: Random) -> Decorator:
    """Return AWS's quota until 2026: 5 tokens a retry, 10 after a timeout; three attempts."""
    return _retrying(clock, 3, _full_jitter(random), budget=_Aws(5.0, 10.0))


def aws_new(clock: Clock, random: Random) -> Decorator:
    """Return AWS's quota since November 2026: 14 tokens a retry; three attempts."""
    return _retrying(clock, 3, _full_jitter(random), budget=_Aws(14.0, 14.0))


def grpc(clock: Clock, random: Random) -> Decorator:
    """Return gRPC's retry throttling, with the four attempts of proposal A6's example."""
    return _retrying(clock, 4, _full_jitter(random), budget=_Grpc())


def finagle(clock: Clock, random: Random) -> Decorator:
    """Return Finagle's default budget, with four attempts."""
    return _retrying(clock, 4, _full_jitter(random), budget=_Share(clock, 0.2, 10.0, 100.0))


def envoy(clock: Clock, random: Random) -> Decorator:
    """Return Envoy's retry budget in its defaults, with four attempts."""
    return _retrying(clock, 4, _full_jitter(random), budget=_InFlight())


def sre(clock: Clock, random: Random) -> Decorator:
    """Return the SRE book's budgets: three attempts for a call, and 10 % for a client."""
    return _retrying(clock, 3, _full_jitter(random), budget=_Share(clock, 0.1, 60.0, 0.0))


# --- what they share -----------------------------------------------------------------------------


def _full_jitter(random: Random) -> Delay:
    """Return delays of up to 0.1 s, doubling: this library's, so that only budgets differ."""
    return lambda attempt: random() * min(10.0, 0.1 * 2.0 ** (attempt - 1))


def _retrying(
    clock: Clock,
    attempts: int,
    delay: Delay,
    *,
    budget: _Budget | None = None,
    stop_after: float | None = None,
) -> Decorator:
    """Return a decorator that tries so often, with such delays, as long as the budget pays for it."""
    purse = budget or _Budget()

    def decorate(call: Call) -> Call:
        @wraps(call)
        async def retried(request: Any) -> object:
            began = clock.now()
            purse.begin()
            retries = 0
            succeeded = False
            try:
                while True:
                    try:
                        result = await call(request)
                    except Exception as error:
                        purse.failed()
                        late = stop_after is not None and clock.now() - began >= stop_after
                        if late or retries + 1 >= attempts or not purse.pays(error):
                            raise
                    else:
                        succeeded = True
                        return result
                    retries += 1
                    await clock.sleep_async(delay(retries))
            finally:
                purse.end(retries, succeeded=succeeded)

        return retried

    return decorate
