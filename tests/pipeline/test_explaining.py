"""A composition in plain words."""

from __future__ import annotations

import asyncio
import warnings
from math import inf

import pytest
import redis

from resilience import (
    AdaptiveLimit,
    AsyncPipeline,
    AsyncRateLimiter,
    AsyncRetryManager,
    Bulkhead,
    CircuitBreaker,
    Fallback,
    Hedge,
    Pipeline,
    RateLimiter,
    RetryBudget,
    RetryManager,
    Timeout,
    explain,
)
from resilience.pipeline import CompositionWarning, Waiting
from resilience.testing import FakeClock


def codes(report):
    return [warning.code for warning in report.warnings]


def test_the_figures():
    report = explain(
        AsyncPipeline(AsyncRetryManager(jitter="none", deadline=60.0), CircuitBreaker(), Timeout(2.0)),
        below=3,
    )
    assert (report.attempts, report.seconds_by_backoff, report.seconds) == (9, pytest.approx(6.3), 60.0)
    assert codes(report) == ["retries-below"]
    assert not report.cooperative


def test_it_is_told_in_words():
    pipeline = Pipeline(
        Fallback(value=None, name="f"),
        Waiting(RateLimiter("5/s", name="l"), timeout=1.0),
        Waiting(RateLimiter("5/s", name="e")),
        RateLimiter("5/s", name="n"),
        Bulkhead(1, name="p"),
        AdaptiveLimit(name="a"),
        CircuitBreaker(name="c"),
        RetryManager(name="r", deadline=4.0),
        CircuitBreaker(name="b"),
        Timeout(2.0, name="t"),
        RetryManager(1, name="once"),
        lambda fn: fn,
    ).with_(deadline=5.0)
    report = explain(pipeline)
    assert report.lines == (
        "deadline of the call: 5 s for everything inside",
        "fallback 'f': answers in place of a failure; what it calls itself is not counted",
        "limiter 'l': waits up to 1 s",
        "limiter 'e': waits without an end",
        "limiter 'n': refuses at once",
        "bulkhead 'p': rejects at once",
        "load limit 'a': refuses under load, at once",
        "breaker 'c': fed by every call",
        "retries 'r': up to 3 attempts, delays of up to 0.3 s, 4 s in all",
        "breaker 'b': fed by first attempts",
        "timeout 't': 2 s",
        "retries 'once': 1 attempt",
        "part 'test_it_is_told_in_words.<locals>.<lambda>': not known here, so what it adds is not counted",
    )
    text = str(report)
    assert text.startswith("A call, from the outside in:\n  1. deadline of the call: 5 s")
    assert (
        "At worst 3 requests and 5 s.\nThis holds if the function gives its client no more than remaining()"
        in text
    )
    assert "\n! 'r' repeats 'once', which repeats (nested-retries)\n    why: at worst 3 x 1 attempts" in text


def test_the_two_bounds_are_told_apart():
    told = str(explain(Pipeline(RetryManager(3, 0.1, name="r")), takes=1.0))
    assert "At worst 3 requests and 3.3 s; 135 s if Retry-After asks for it." in told


def test_one_policy_by_itself():
    assert str(explain(Timeout(2.0, name="t"), takes=1.0)).splitlines()[1:] == [
        "  1. timeout 't': 2 s",
        "At worst 1 request and 1 s.",
    ]
    assert str(explain(CircuitBreaker(name="b"))).endswith("At worst 1 request; nothing bounds the time.")
    hedged = explain(Hedge(0.5, name="h"), takes=2.0)
    assert (hedged.attempts, hedged.seconds, hedged.cooperative) == (2, 2.5, False)
    assert hedged.lines == ("hedge 'h': up to 2 attempts side by side",)


def test_what_is_awaited_is_ended():
    for parts, overrun in (((AsyncRetryManager(deadline=3.0),), 0.0), ((RetryManager(deadline=3.0),), 5.0)):
        report = explain(Pipeline(*parts), takes=5.0)
        assert report.seconds == 3.0 + overrun
    assert explain(AsyncPipeline(RetryManager(deadline=3.0)), takes=5.0).seconds == 3.0
    assert explain(Pipeline(AsyncRateLimiter("1/s"))).seconds == inf


def test_it_warns_aloud_only_when_it_is_asked_to():
    pipeline = Pipeline(RetryManager(), RetryManager())
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        report = explain(pipeline)
        assert not heard
        explain(pipeline, warn=True)
    assert [str(warning.message) for warning in heard] == list(map(str, report.warnings))
    assert {warning.filename for warning in heard} == {__file__}
    with pytest.raises(CompositionWarning, match="no-deadline: RetryManager has no deadline"):
        explain(pipeline, warn=True)


def test_a_client_below():
    report = explain(Pipeline(RetryManager(deadline=9.0)), below=redis.Redis(), takes=0.1)
    assert (report.attempts, report.seconds_by_backoff) == (33, pytest.approx(3.6))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"below": 0}, ValueError),
        ({"below": True}, TypeError),
        ({"below": "s3"}, TypeError),
        ({"takes": 0}, ValueError),
    ],
)
def test_what_it_refuses(options, error):
    with pytest.raises(error):
        explain(Timeout(1.0), **options)


# --- the figures hold ----------------------------------------------------------------------------


def test_no_call_makes_more_attempts_or_takes_longer():
    """A call that always fails, after as long as it may, with the longest delays."""
    clock = FakeClock()
    retries = RetryManager(
        5,
        1.0,
        clock=clock,
        budget=RetryBudget(99.0),
        random=lambda: 0.999999,
        deadline=100.0,
        max_retry_after=30.0,
    )
    limiter = RateLimiter("1/minute", clock=clock)
    pipeline = Pipeline(Waiting(limiter, timeout=60.0), retries, CircuitBreaker(99, 1.0, clock=clock))
    limiter.try_acquire()
    attempts = 0

    class BusyError(ConnectionError):
        retry_after = 30.0

    def fail():
        nonlocal attempts
        attempts += 1
        clock.advance(4.0)
        raise BusyError

    report = explain(pipeline, takes=4.0)
    before = clock.now()
    with pytest.raises(BusyError):
        pipeline.execute(fail)
    assert attempts <= report.attempts == 5
    assert 100.0 < clock.now() - before <= report.seconds == 164.0


def test_an_async_call_is_ended_when_it_is_said():
    report = explain(AsyncPipeline(AsyncRetryManager(), Timeout(0.01)).with_(deadline=5.0))
    assert report.seconds == 5.0
    assert report.seconds_by_backoff == pytest.approx(0.33)

    async def hang():
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(AsyncPipeline(AsyncRetryManager(2, 0.0), Timeout(0.01)).execute(hang))
