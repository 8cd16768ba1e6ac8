from __future__ import annotations

import asyncio
import gc

import pytest

from resilience import AdaptiveLimit, OverloadedError, service_unavailable_error
from resilience.adaptive import AdaptiveLimitStats
from resilience.events import AdaptiveLimitChanged, CallRefused
from resilience.testing import FakeClock
from tests.children import forking, in_child
from tests.threads import together


def flying(limit, number):
    return [limit.acquire() for _ in range(number)]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"initial": 0}, ValueError),
        ({"initial": 1.5}, TypeError),
        ({"initial": 5, "minimum": 6}, ValueError),
        ({"initial": 5, "maximum": 4}, ValueError),
        ({"minimum": 0}, ValueError),
        ({"minimum": 30, "maximum": 20}, ValueError),
        ({"cut": 0}, ValueError),
        ({"cut": 1}, ValueError),
        ({"cut": True}, TypeError),
        ({"slow_after": 0}, ValueError),
        ({"overload": 7}, TypeError),
        ({"name": 7}, TypeError),
        ({"on_refused": 7}, TypeError),
        ({"on_change": 7}, TypeError),
    ],
)
def test_wrong_arguments(arguments, error):
    with pytest.raises(error):
        AdaptiveLimit(**arguments)


def test_one_call_too_many_is_refused():
    told = []
    limit = AdaptiveLimit(2, name="search", on_refused=told.append)
    permits = flying(limit, 2)
    with pytest.raises(OverloadedError, match="all 2 calls of the limit are in flight"):
        limit.guard()
    assert told == [CallRefused("adaptive limit", "search", "all 2 calls of the limit are in flight")]
    permits[0].neutral()
    with limit.guard():
        assert limit.stats() == AdaptiveLimitStats("search", 2, 2, 1, 0)


def test_an_overload_cuts_it_and_other_failures_do_not():
    changes = []
    limit = AdaptiveLimit(8, name="search", on_change=changes.append)
    for error in (OSError("broken"), ValueError("bad"), OverloadedError("inner", "full", None)):
        limit.acquire().failure(error)
    assert limit.limit == 8
    permits = flying(limit, 8)
    for permit in permits[:4]:
        permit.failure(service_unavailable_error("busy"))
    assert limit.limit == 4
    assert changes == [AdaptiveLimitChanged("search", 8, 4)]
    assert repr(limit) == "<AdaptiveLimit 'search', 4>"
    assert limit.stats() == AdaptiveLimitStats("search", 4, 4, 0, 1)


def test_it_grows_while_it_is_used():
    changes = []
    limit = AdaptiveLimit(1, maximum=3, name="search", on_change=changes.append)
    for _ in range(20):
        for permit in flying(limit, limit.limit):
            permit.success()
    assert [change.after for change in changes] == [2, 3]
    assert limit.limit == 3


def test_a_change_that_nobody_hears():
    limit = AdaptiveLimit(2)
    limit.acquire().failure(TimeoutError())
    assert limit.limit == 1


def test_who_says_what_an_overload_is():
    limit = AdaptiveLimit(8, overload=(KeyError, lambda error: "busy" in str(error)))
    limit.acquire().failure(TimeoutError())
    assert limit.limit == 8
    limit.acquire().failure(KeyError())
    assert limit.limit == 4
    limit.acquire().failure(OSError("busy"))
    assert limit.limit == 2


def test_a_slow_success_is_a_drop():
    clock = FakeClock()
    limit = AdaptiveLimit(8, slow_after=1.0, clock=clock)
    limit.execute(clock.sleep, 1.0)
    assert limit.limit == 8
    limit.execute(clock.sleep, 1.1)
    assert limit.limit == 4


def test_a_predicate_that_raises_leaves_no_call_in_flight():
    def ask(error):
        raise LookupError("a broken predicate")

    limit = AdaptiveLimit(1, overload=ask)
    for _ in range(3):
        with pytest.raises(LookupError):
            limit.acquire().failure(OSError())
    assert limit.stats().in_flight == 0


async def test_a_cancelled_call_is_neutral():
    limit = AdaptiveLimit(1)
    task = asyncio.ensure_future(limit.execute_async(asyncio.sleep, 60))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await limit.execute_async(asyncio.sleep, 0, "done") == "done"


def test_a_permit_that_is_dropped_in_the_middle_of_a_decision_is_neutral():
    limit = AdaptiveLimit(2)
    dropped = [limit.acquire()]
    admit = limit._core.__class__.admit

    class Collecting(limit._core.__class__):
        def admit(self):
            in_flight = self.in_flight
            dropped.clear()
            gc.collect()
            assert self.in_flight == in_flight
            return admit(self)

    core = Collecting(2.0, 1, 2, 0.5)
    core.in_flight = 1
    dropped[0].ticket = (core, 1, 0.0)
    limit._core = core
    limit.acquire().success()
    assert limit.stats().in_flight == 0


@forking
def test_a_forked_child_knows_the_limit_and_has_no_calls_in_flight():
    limit = AdaptiveLimit(4)
    permits = flying(limit, 2)
    permits[0].failure(TimeoutError())

    def look():
        assert limit.stats()[1:3] == (2, 0)
        permits[1].neutral()
        assert limit.stats().in_flight == 0
        flying(limit, 2)

    assert in_child(look) == 0
    assert limit.stats()[1:3] == (2, 1)


def test_threads_never_have_more_in_flight_than_may_be():
    clock = FakeClock(yielding=True)
    limit = AdaptiveLimit(3, maximum=3, slow_after=1.0, clock=clock)
    running, most = [], []

    def call():
        running.append(1)
        most.append(len(running))
        running.pop()

    def run(_):
        for _ in range(50):
            try:
                limit.execute(call)
            except OverloadedError:
                continue

    together(8, run)
    assert max(most) <= 3
    assert limit.stats().in_flight == 0
