from __future__ import annotations

import psycopg
import pytest

from resilience.deadline import deadline
from resilience.janitor.postgres.call import Call
from resilience.stores import StoreUnavailable
from resilience.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def call(clock):
    return Call("db:5432/shop", clock, timeout=5.0, lock_timeout=1.0)


def test_a_call_knows_what_time_is_left(call, clock):
    assert call.left() == 5.0
    clock.advance(2.0)
    assert call.left() == 3.0
    clock.advance(9.0)
    assert call.left() == 0.0


def test_a_deadline_around_it_leaves_less(clock):
    with deadline(2.0, clock=clock):
        assert Call("db", clock, timeout=5.0, lock_timeout=1.0).left() == 2.0
    with deadline(20.0, clock=clock):
        assert Call("db", clock, timeout=5.0, lock_timeout=1.0).left() == 5.0


def test_the_limits_of_the_server_are_never_none(call, clock):
    assert call.bounds() == (5000, 1000)
    clock.advance(4.5)
    assert call.bounds() == (500, 500)
    clock.advance(9.0)
    assert call.bounds() == (1, 1)  # 0 would be for ever


def test_an_exchange_goes_on_while_time_is_left(call):
    def exchange():
        assert (yield "reading") == "ready"
        return "answer"

    going = call.on_time(exchange())
    assert next(going) == "reading"
    with pytest.raises(StopIteration) as ended:
        going.send("ready")
    assert ended.value.value == "answer"


def test_an_exchange_ends_when_time_is_up(call, clock):
    def exchange():
        while True:
            yield "reading"

    going = call.on_time(exchange())
    next(going)
    going.send("nothing yet")
    clock.advance(5.0)
    with pytest.raises(TimeoutError):
        going.send("nothing yet")


def test_a_conflict_is_repeated_twice_after_a_moment(call):
    error = psycopg.errors.SerializationFailure("could not serialize access")
    assert 0.0 <= call.delay_after(error) < 0.02
    assert 0.0 <= call.delay_after(error) < 0.04
    with pytest.raises(StoreUnavailable, match="into each other's way") as raised:
        call.delay_after(error)

    assert raised.value.__cause__ is error
    assert raised.value.retry_after == 1.0


def test_what_was_asked_on_a_stale_connection_is_repeated_at_once(call):
    error = psycopg.OperationalError("server closed the connection unexpectedly")
    call.may_be_stale = True
    assert call.delay_after(error) == 0.0
    call.may_be_stale = False
    with pytest.raises(StoreUnavailable, match="in db:5432/shop are unavailable: server closed the conn"):
        call.delay_after(error)


def test_nothing_is_repeated_when_time_is_up(call, clock):
    call.may_be_stale = True
    clock.advance(5.0)
    with pytest.raises(StoreUnavailable):
        call.delay_after(psycopg.OperationalError("lost"))
    with pytest.raises(StoreUnavailable):
        call.delay_after(psycopg.errors.DeadlockDetected("deadlock"))


def test_a_late_answer_is_no_errors_message(call):
    with pytest.raises(StoreUnavailable, match=r"unavailable: it did not answer in time$") as raised:
        call.delay_after(TimeoutError())

    assert raised.value.retry_after == 1.0


def test_only_the_first_line_of_what_the_server_says_is_told(call):
    error = psycopg.errors.UniqueViolation("duplicate key\nDETAIL: Key (user_id)=(ada) already exists.")
    with pytest.raises(StoreUnavailable, match=r"duplicate key; SQLSTATE 23505$") as raised:
        call.delay_after(error)

    assert raised.value.retry_after is None
