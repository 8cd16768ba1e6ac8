"""One call's decisions, told step by step what happened."""

from __future__ import annotations

import concurrent.futures

import pytest

from resilience.breaker import CircuitBreaker
from resilience.callables import MisuseError
from resilience.deadline import CURRENT, deadline
from resilience.errors import (
    CircuitOpenError,
    DeadlineExceeded,
    DeadlinePassed,
    RateLimitedError,
    ServiceError,
)
from resilience.events import RetryScheduled, RetryStopped, RetrySucceeded
from resilience.retry.attempts import Call
from resilience.retry.budget import BOOKS, RetryBudget
from resilience.retry.policy import Policy
from resilience.retry.stats import RetryStats
from resilience.testing import FakeClock
from resilience.transient import is_transient


class StubBreaker:
    """A breaker that is told what to be."""

    def __init__(self):
        self.is_closed = True
        self.rejects = False
        self.settled = []

    def acquire(self):
        if self.rejects:
            raise CircuitOpenError("stub", 4.0)
        return self

    def success(self, result):
        self.settled.append(("success", result))

    def failure(self, error):
        self.settled.append(("failure", error))

    def neutral(self):
        self.settled.append("neutral")


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(clock):
    def make(**options):
        options = {"initial_delay": 1.0, "jitter": "none", "clock": clock, "retry_on": OSError, **options}
        policy = Policy(**options)
        return policy, Call(policy, CURRENT.get())

    return make


def fail(call, error=None):
    return call.failed(OSError("down") if error is None else error, BOOKS.given_up)


def note_of(error):
    (note,) = error.__notes__
    return note


# --- failures ------------------------------------------------------------------------------------


def test_failures_are_followed_by_delays_until_no_attempts_are_left(make, clock):
    policy, call = make()
    assert fail(call) == 1.0
    assert fail(call) == 2.0
    clock.advance(2.06)
    error = OSError("down")
    assert fail(call, error) is None
    assert (
        note_of(error) == "resilience: 3 attempts in 2.1 s since the first failure; stopped: no attempts left"
    )
    assert policy.stats() == RetryStats(total_retries=2, failed_retries=1)
    assert policy.budget.tokens == 3.0


def test_what_is_not_retryable_passes_untouched(make):
    policy, call = make()
    error = KeyError("x")
    assert fail(call, error) is None
    assert not hasattr(error, "__notes__")
    assert error.__dict__ == {}
    assert policy.stats() == RetryStats()


def test_what_is_not_retryable_after_a_retry_gets_a_note_but_no_mark(make):
    _, call = make()
    fail(call)
    error, began = KeyError("x"), BOOKS.given_up
    assert call.failed(error, began) is None
    assert note_of(error).endswith("; stopped: not retryable")
    _, outer = make(retry_on=KeyError)
    assert outer.failed(error, began) == 1.0


def test_a_single_attempt_is_nobodys_exhausted_retry(make):
    _, call = make(max_attempts=1)
    error, began = OSError(), BOOKS.given_up
    assert call.failed(error, began) is None
    assert not hasattr(error, "__notes__")
    _, outer = make()
    assert outer.failed(error, began) == 1.0


@pytest.mark.parametrize("retry_on", [Exception, is_transient, lambda error: True])
@pytest.mark.parametrize(
    "error", [CircuitOpenError("storage", 1.0), DeadlineExceeded("too late"), MisuseError("no coroutine")]
)
def test_our_own_refusals_are_never_retried(make, error, retry_on):
    _, call = make(retry_on=retry_on)
    assert fail(call, error) is None


def test_a_limiters_refusal_is_retried_if_told_to(make):
    class Decision:
        retry_after = 5.0

    _, call = make(retry_on=RateLimitedError, random=lambda: 0.0)
    assert fail(call, RateLimitedError(Decision())) == 5.0


def test_an_exhausted_inner_retry_is_not_repeated(make):
    policy, outer = make()
    _, inner = make()
    began = BOOKS.given_up
    error = OSError()
    for _ in range(2):
        fail(inner)
    assert inner.failed(error, BOOKS.given_up) is None
    assert outer.failed(error, began) is None
    assert error.__notes__[-1] == "resilience: 1 attempt; stopped: an inner retry is exhausted"
    assert policy.budget.tokens == 5.0


def test_the_same_exception_in_a_later_call_is_retried_again(make):
    singleton = OSError("always the same")
    for _ in range(3):
        _, call = make()
        assert [fail(call, singleton) for _ in range(3)] == [1.0, 2.0, None]
    assert len(singleton.__notes__) == 1


def test_a_call_that_is_not_idempotent_stops_at_what_may_have_been_processed(make):
    _, call = make(idempotent=False)
    error = ConnectionResetError()
    assert fail(call, error) is None
    assert note_of(error) == (
        "resilience: 1 attempt; stopped: not idempotent, and it may have been processed"
    )
    _, call = make(idempotent=False)
    assert fail(call, ConnectionRefusedError()) == 1.0  # never sent


# --- Retry-After ---------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ServiceError(retry_after=7.0), OSError(ServiceError(retry_after=7.0))])
def test_what_the_exception_asks_for_is_waited_for(make, error):
    _, call = make(retry_on=Exception, random=lambda: 0.0)
    assert fail(call, error) == 7.0


def test_an_attribute_or_a_cause_of_a_builtin_exception_is_asked_too(make):
    error = ConnectionError()
    error.retry_after = 7
    _, call = make(random=lambda: 0.0)
    assert fail(call, error) == 7.0
    error = ConnectionError()
    error.__cause__ = ServiceError(retry_after=8.0)
    assert fail(call, error) == 8.0


def test_too_long_a_retry_after_ends_the_call(make):
    _, call = make(retry_on=Exception)
    error = ServiceError(retry_after=3600)
    assert fail(call, error) is None
    assert note_of(error) == (
        "resilience: 1 attempt; stopped: Retry-After of 3600.0 s is longer than max_retry_after, 60.0 s"
    )


# --- budget --------------------------------------------------------------------------------------


def test_the_budget_ends_the_call(make):
    policy, call = make(budget=RetryBudget(1.0))
    assert fail(call) == 1.0
    error = OSError()
    assert fail(call, error) is None
    assert note_of(error).endswith("; stopped: budget exhausted")
    assert policy.stats() == RetryStats(total_retries=1, failed_retries=1, budget_rejections=1)


def test_a_retry_that_succeeds_gets_its_price_back_and_a_clean_success_a_tenth(make):
    policy, call = make()
    fail(call)
    assert policy.budget.tokens == 4.0
    assert call.returned("up") is None
    assert policy.budget.tokens == 5.0
    policy.budget.try_withdraw()
    assert Call(policy, CURRENT.get()).returned("up") is None
    assert policy.budget.tokens == 4.1


def test_a_delay_that_is_left_gives_the_price_back(make):
    policy, call = make()
    fail(call)
    call.delay_abandoned()
    assert policy.budget.tokens == 5.0
    assert policy.stats() == RetryStats()


# --- deadline ------------------------------------------------------------------------------------


def test_a_call_whose_deadline_has_passed_is_not_admitted(make, clock):
    with deadline(1.0, clock=clock):
        policy, call = make()
        call.admit()
        clock.advance(1.0)
        with pytest.raises(DeadlinePassed, match="Policy was not begun"):
            Call(policy, CURRENT.get()).admit()


def test_no_delay_is_begun_that_would_not_end_in_time(make, clock):
    with deadline(1.5, clock=clock):
        policy, call = make()
        assert fail(call) == 1.0
        call.admit_retry()
        error = OSError()
        assert fail(call, error) is None
    assert note_of(error).endswith("stopped: the next delay of 2.0 s would not end within the 1.5 s left")
    assert policy.budget.tokens == 4.0


def test_after_a_delay_that_took_too_long_the_last_failure_is_raised(make, clock):
    with deadline(1.5, clock=clock):
        policy, call = make()
        error = OSError("down")
        fail(call, error)
        clock.advance(2.0)
        with pytest.raises(OSError, match="down") as caught:
            call.admit_retry()
    assert caught.value is error
    assert note_of(error) == "resilience: 1 attempt; stopped: the deadline has passed"
    assert policy.budget.tokens == 5.0
    assert policy.stats() == RetryStats()


def test_after_a_refused_result_and_too_long_a_delay_there_is_only_the_deadline(make, clock):
    with deadline(1.5, clock=clock):
        _, call = make(retry_if_result=lambda result: result is None)
        assert call.returned(None) == 1.0
        clock.advance(2.0)
        with pytest.raises(DeadlineExceeded, match="before the next attempt") as caught:
            call.admit_retry()
    assert type(caught.value) is DeadlineExceeded  # an attempt was made, so it is no call that was not begun


# --- results -------------------------------------------------------------------------------------


def test_a_refused_result_is_followed_by_a_delay_and_the_last_one_is_final(make, resilience_events):
    policy, call = make(retry_if_result=lambda result: result is None, max_attempts=2)
    assert call.returned(None) == 1.0
    assert call.returned(None) is None
    assert policy.stats() == RetryStats(total_retries=1, failed_retries=1)
    scheduled, stopped = resilience_events
    assert scheduled == RetryScheduled("Policy", 1, 1.0, None, None)
    assert stopped == RetryStopped("Policy", 2, 0.0, "no attempts left", None)


def test_an_accepted_result_is_final(make):
    policy, call = make(retry_if_result=lambda result: result is None)
    call.returned(None)
    assert call.returned("up") is None
    assert policy.stats() == RetryStats(total_retries=1, successful_retries=1)


@pytest.mark.parametrize("where", ["retry_on", "retry_if_result"])
def test_a_retry_whose_predicate_raises_is_counted(make, where):
    answers = iter([True])
    policy, call = make(**{where: lambda outcome: next(answers)})

    def step():
        return fail(call) if where == "retry_on" else call.returned(None)

    assert step() == 1.0
    with pytest.raises((StopIteration, RuntimeError)):
        step()
    assert policy.stats() == RetryStats(total_retries=1)


# --- breaker -------------------------------------------------------------------------------------


def test_only_the_first_attempt_is_fed_to_the_breaker(make):
    breaker = StubBreaker()
    _, call = make(circuit_breaker=breaker)
    call.admit()
    error = OSError()
    fail(call, error)
    fail(call)
    call.returned("up")
    assert breaker.settled == [("failure", error)]


def test_a_success_and_what_is_no_exception_are_told_too(make):
    breaker = StubBreaker()
    for end in (lambda call: call.returned("up"), Call.abandoned):
        _, call = make(circuit_breaker=breaker)
        call.admit()
        end(call)
    assert breaker.settled == [("success", "up"), "neutral"]


def test_a_refused_result_is_told_once(make):
    breaker = StubBreaker()
    _, call = make(circuit_breaker=breaker, retry_if_result=lambda result: result is None)
    call.admit()
    assert call.returned(None) == 1.0
    assert call.returned("up") is None
    assert breaker.settled == [("success", None)]


def test_a_cancellation_by_futures_is_neutral(make):
    breaker = CircuitBreaker(1, 60.0)
    _, call = make(circuit_breaker=breaker, retry_on=Exception)
    call.admit()
    assert fail(call, concurrent.futures.CancelledError()) is None
    assert breaker.snapshot().failures == 0


def test_a_rejection_is_raised_and_counted(make):
    breaker = StubBreaker()
    breaker.rejects = True
    policy, call = make(circuit_breaker=breaker)
    with pytest.raises(CircuitOpenError):
        call.admit()
    assert policy.stats() == RetryStats(circuit_breaker_rejections=1)


def test_a_retry_is_begun_only_while_the_breaker_is_closed(make):
    breaker = StubBreaker()
    policy, call = make(circuit_breaker=breaker)
    call.admit()
    breaker.is_closed = False
    error = OSError()
    assert fail(call, error) is None
    assert note_of(error) == "resilience: 1 attempt; stopped: circuit open"
    assert policy.stats() == RetryStats(circuit_breaker_rejections=1)
    assert policy.budget.tokens == 5.0


# --- events --------------------------------------------------------------------------------------


def test_hooks_and_subscribers_get_each_event(make, clock, resilience_events):
    own = []
    _, call = make(on_retry=own.append, on_success=own.append, on_stop=own.append, name="storage")
    error = OSError("down")
    fail(call, error)
    clock.advance(1.0)
    call.returned("up")
    expected = [RetryScheduled("storage", 1, 1.0, error, None), RetrySucceeded("storage", 2, 1.0)]
    assert own == list(resilience_events) == expected


def test_the_end_of_a_call_is_told_with_its_reason(make, clock):
    own = []
    _, call = make(max_attempts=2, on_stop=own.append)
    fail(call)
    clock.advance(1.0)
    error = OSError()
    fail(call, error)
    assert own == [RetryStopped("Policy", 2, 1.0, "no attempts left", error)]


def test_a_listener_that_is_interrupted_gives_the_price_of_the_retry_back(make):
    def interrupted(event):
        raise KeyboardInterrupt

    policy, call = make(on_retry=interrupted)
    with pytest.raises(KeyboardInterrupt):
        fail(call)
    assert policy.budget.tokens == 5.0


def test_a_retry_that_was_abandoned_is_counted(make):
    policy, call = make()
    fail(call)
    call.abandoned()
    assert policy.stats() == RetryStats(total_retries=1)


def test_a_permit_may_be_there_already():
    breaker = StubBreaker()
    call = Call(Policy(max_attempts=1, budget=None), None)
    call.admitted(breaker)
    failure = ConnectionError()
    assert call.failed(failure, BOOKS.given_up) is None
    assert breaker.settled == [("failure", failure)]
