from __future__ import annotations

import logging
import random
import threading
from math import inf, nan

import pytest

from resilience._core.counting import Charge
from resilience.breaker import CircuitBreaker
from resilience.deadline import deadline
from resilience.errors import CircuitOpenError, DeadlineExceeded
from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost, Unable
from resilience.stores.guard import MOST_REFUSALS, Guard
from resilience.stores.memory import MemoryStore
from resilience.testing import FakeClock
from tests.children import forking, in_child
from tests.stores.conformance import counter

WHAT = "redis://cache:6379/0"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make_guard(clock):
    def make(**options):
        return Guard(
            WHAT, **{"timeout": 0.05, "remember_refusals": inf, "breaker": None, "clock": clock} | options
        )

    return make


@pytest.fixture
def guard(make_guard):
    return make_guard()


def ask(guard, error, meanwhile=lambda: None):
    """Ask one question that fails by `error`, after `meanwhile`."""
    with guard.call():
        meanwhile()
        raise error


def fails(guard, error):
    """Ask one question that fails by `error`, and return what the caller gets."""
    with pytest.raises(StoreUnavailable) as caught:
        ask(guard, error)
    return caught.value


def fails_often(guard, error, times=10):
    for _ in range(times):
        fails(guard, error)


# --- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, -1, 61, nan, inf])
def test_the_time_of_a_call_is_bounded(make_guard, seconds):
    with pytest.raises(ValueError, match="timeout"):
        make_guard(timeout=seconds)


@pytest.mark.parametrize("seconds", [-1, nan, -inf])
def test_refusals_are_remembered_for_a_time(make_guard, seconds):
    with pytest.raises(ValueError, match="remember_refusals"):
        make_guard(remember_refusals=seconds)


@pytest.mark.parametrize("name", ["timeout", "remember_refusals"])
def test_times_are_numbers(make_guard, name):
    with pytest.raises(TypeError, match=name):
        make_guard(**{name: "1"})


def test_a_breaker_is_a_breaker(make_guard):
    with pytest.raises(TypeError, match="breaker must be a CircuitBreaker, or be left out, not 5"):
        make_guard(breaker=5)


def test_a_breaker_may_be_brought_along(make_guard):
    mine = CircuitBreaker(1, 60.0, name="mine")
    guard = make_guard(breaker=mine)
    assert guard.breaker is mine
    fails(guard, Lost("no answer"))
    assert mine.state == "open"


# --- time ----------------------------------------------------------------------------------------


def test_a_question_has_the_whole_time(guard, clock):
    call = guard.call()
    assert (call.began, call.until) == (clock.now(), clock.now() + 0.05)
    assert not call.is_over
    clock.advance(0.0625)
    assert call.is_over


def test_a_deadline_shortens_it(guard, clock):
    with deadline(0.02, clock=clock):
        assert guard.call().until == pytest.approx(clock.now() + 0.02)
    with deadline(2.0, clock=clock):
        assert guard.call().until == pytest.approx(clock.now() + 0.05)


def test_a_deadline_may_be_on_another_clock(guard, clock):
    other = FakeClock(start=5.0)
    with deadline(0.02, clock=other):
        assert guard.call().until == pytest.approx(clock.now() + 0.02)


def test_nothing_is_asked_after_the_deadline(guard, clock):
    with deadline(0.02, clock=clock):
        clock.advance(0.02)
        with pytest.raises(DeadlineExceeded, match=f"asking {WHAT}"):
            guard.call()
        assert guard.tidying().until == clock.now() + 0.05


# --- what comes of a question --------------------------------------------------------------------


def test_a_question_that_is_answered_leaves_nothing(guard, caplog):
    for _ in range(10):
        with guard.call():
            pass
    assert guard.breaker.snapshot().failures == 0
    assert not caplog.messages


def test_a_lost_reply_is_unavailable_and_says_why(guard, caplog):
    lost = Lost("connection refused")
    error = fails(guard, lost)
    assert type(error) is StoreUnavailable
    assert error.__cause__ is lost
    assert str(error) == (
        f"the limits on {WHAT} are unavailable: connection refused; it must run, and answer within 0.05 s"
    )
    assert caplog.messages == [str(error)]
    assert guard.breaker.snapshot().failures == 1


def test_a_server_that_is_unable_is_unavailable_in_its_words(guard, caplog):
    unable = Unable("it is loading its data")
    assert fails(guard, unable) is unable
    assert guard.breaker.snapshot().failures == 1
    assert caplog.messages == ["it is loading its data"]
    with guard.call():
        pass
    assert "answers again" in caplog.messages[1]


def test_an_error_that_the_server_answers_is_no_sign_of_an_outage(guard, caplog):
    denied = StoreUnavailable("grant it EVAL")
    assert fails(guard, denied) is denied
    assert guard.breaker.snapshot().failures == 0
    with guard.call():
        pass
    assert caplog.messages == ["grant it EVAL"]


@pytest.mark.parametrize("error", [ValueError("a slip"), KeyboardInterrupt(), CircuitOpenError("other", 1.0)])
def test_anything_else_passes_and_says_nothing(guard, error, caplog):
    with pytest.raises(type(error)) as caught:
        ask(guard, error)
    assert caught.value is error
    assert guard.breaker.snapshot().failures == 0
    assert not caplog.messages


def test_a_deadline_that_passes_meanwhile_is_told_as_one(guard, clock, caplog):
    lost = Lost("no answer")
    with (
        pytest.raises(DeadlineExceeded, match=f"while {WHAT} was asked: no answer") as caught,
        deadline(0.04, clock=clock),
    ):
        ask(guard, lost, lambda: clock.advance(0.04))
    assert caught.value.__cause__ is lost
    assert not caplog.messages
    assert guard.breaker.snapshot().failures == 1


def test_too_short_a_time_says_nothing_about_the_server(guard, clock):
    for _ in range(10):
        with pytest.raises(DeadlineExceeded), deadline(0.01, clock=clock):
            ask(guard, Lost("no answer"), lambda: clock.advance(0.01))
    assert guard.breaker.is_closed


def test_a_connection_refused_before_the_deadline_is_unavailable(guard, clock):
    with deadline(0.04, clock=clock):
        assert type(fails(guard, Lost("connection refused"))) is StoreUnavailable


# --- the breaker ---------------------------------------------------------------------------------


def test_a_server_out_of_reach_is_not_asked_again_and_again(guard, caplog):
    fails_often(guard, Lost("connection refused"), 5)
    error = fails(guard, AssertionError("it is not asked"))
    assert type(error) is StoreUnavailable
    assert isinstance(error.__cause__, CircuitOpenError)
    assert 1.0 <= error.retry_after <= 1.5
    assert str(error) == (
        f"the limits on {WHAT} are unavailable: it did not answer lately, and it is asked again in "
        f"{error.retry_after:.1f} s"
    )
    assert len(caplog.messages) == 1


def test_one_failure_among_many_answers_changes_nothing(guard):
    for _ in range(5):
        fails(guard, Lost("connection reset"))
        for _ in range(9):
            with guard.call():
                pass
    assert guard.breaker.is_closed


def test_a_server_that_is_back_is_found_within_two_seconds(guard, clock, caplog):
    fails_often(guard, Lost("connection refused"), 5)
    clock.advance(1.5)
    for _ in range(3):
        with guard.call():
            pass
    assert guard.breaker.is_closed
    assert "answers again" in caplog.messages[1]


def test_processes_look_again_at_different_times(make_guard):
    def wait():
        guard = make_guard()
        fails_often(guard, Lost("connection refused"), 5)
        return guard.breaker.snapshot().time_until_retry

    random.seed(7)
    waits = {wait() for _ in range(20)}
    assert len(waits) == 20
    assert max(waits) - min(waits) > 0.25


def test_few_look_whether_it_is_back(guard, clock):
    fails_often(guard, Lost("connection refused"), 5)
    clock.advance(2)
    with guard.call(), guard.call(), guard.call():
        error = fails(guard, AssertionError("it is not asked"))
    assert error.retry_after <= 1.5


def test_a_breaker_held_open_says_so(guard):
    guard.breaker.force_open()
    error = fails(guard, AssertionError("it is not asked"))
    assert error.retry_after is None
    assert "its breaker is held open" in str(error)


# --- refusals ------------------------------------------------------------------------------------


@pytest.fixture
def refused(clock):
    """A charge that is refused, and the decision."""
    store = MemoryStore(clock=clock)
    charge = Charge(counter("1/minute"), "ada")
    store.take([charge])
    return [charge], store.take([charge])


def test_a_refusal_is_remembered_until_its_time(guard, clock, refused):
    charges, decisions = refused
    assert guard.known(charges) is None
    guard.remember(charges, decisions, clock.now(), guard.refusals.changes)
    clock.advance(59)
    assert guard.known(charges)[0].retry_after == pytest.approx(1.0)
    clock.advance(1)
    assert guard.known(charges) is None


def test_a_refusal_is_remembered_no_longer_than_wished(make_guard, clock, refused):
    charges, decisions = refused
    guard = make_guard(remember_refusals=5)
    guard.remember(charges, decisions, clock.now(), 0)
    clock.advance(4.5)
    assert guard.known(charges)
    clock.advance(0.5)
    assert guard.known(charges) is None


def test_no_refusal_is_remembered_if_so_wished(make_guard, clock, refused):
    charges, decisions = refused
    guard = make_guard(remember_refusals=0)
    guard.remember(charges, decisions, clock.now(), 0)
    assert not guard.refusals.held


def test_a_reset_makes_it_ask_again(guard, clock, refused):
    charges, decisions = refused
    guard.remember(charges, decisions, clock.now(), 0)
    guard.forget([charges[0].counter], "ada")
    assert guard.known(charges) is None


def test_a_flood_of_refused_keys_is_bounded(guard, clock, refused):
    (charge,), decisions = refused
    for number in range(MOST_REFUSALS + 100):
        guard.remember([charge._replace(key=str(number))], decisions, clock.now(), 0)
    assert len(guard.refusals.held) == MOST_REFUSALS


@forking
def test_a_child_can_forget_where_a_thread_of_its_parent_held_the_lock(guard):
    held, done = threading.Event(), threading.Event()

    def hold():
        with guard._lock:
            held.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    try:
        assert in_child(lambda: guard.forget([counter()], "ada")) == 0
    finally:
        done.set()
        holder.join()


def test_the_log_is_the_library_s(guard, caplog):
    fails(guard, Lost("connection refused"))
    assert [(record.name, record.levelno) for record in caplog.records] == [("resilience", logging.WARNING)]
