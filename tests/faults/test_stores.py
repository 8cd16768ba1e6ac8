"""The fault catalogue's lines on what all stores on a server have in common, by number.

The server is a scripted one, so that a fault strikes where it is meant to. The lines are tested on real
servers too, beside each store.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import tracemalloc
from contextlib import suppress

import pytest

from resilience._core.counting import Charge
from resilience.breaker import CircuitBreaker
from resilience.errors import ErrorCode
from resilience.limiter import RateLimiter
from resilience.stores import StoreUnavailable
from resilience.stores.remote import AsyncRemote, Remote
from resilience.testing import FakeClock
from tests.children import forking, in_child
from tests.stores.conformance import counter
from tests.stores.scripted import AsyncScriptedEngine, ScriptedEngine, ScriptedServer
from tests.threads import together

WHAT = "redis://cache:6379/0"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def server(clock):
    return ScriptedServer(clock)


@pytest.fixture
def remote(server):
    return Remote(ScriptedEngine(server), WHAT, clock=server.clock)


async def ended(coroutine, *, cancelled_after):
    """Cancel `coroutine` after so many ticks of the loop, and return whether that came in time."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(cancelled_after):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


# --- A. Cancellation -----------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, "unsent", "cut"])
async def test_fault_07_what_a_call_cancelled_at_any_tick_took_comes_back(server, step):
    store = AsyncRemote(AsyncScriptedEngine(server), WHAT, clock=server.clock)
    charge = Charge(counter("3/minute"), "ada")
    ticks = 0
    was_cancelled = True
    while was_cancelled:
        ticks += 1
        server.store.reset([charge.counter], "ada")
        server.script = [step]
        was_cancelled = await ended(store.take([charge]), cancelled_after=ticks)
        await store.close()
        assert server.store.peek([charge])[0].remaining == (3 if was_cancelled else 2)
    assert ticks >= 3


async def test_fault_09_a_refund_or_a_reset_that_is_cancelled_is_made_once(server):
    store = AsyncRemote(AsyncScriptedEngine(server), WHAT, clock=server.clock)
    charge = Charge(counter("3/minute"), "ada")
    was_cancelled, ticks = True, 0
    while was_cancelled:
        ticks += 1
        server.store.reset([charge.counter], "ada")
        receipts = [(await store.take([charge]))[0].receipt for _ in range(3)]
        was_cancelled = await ended(store.refund([charge], receipts[:1]), cancelled_after=ticks)
        await store.close()
        assert server.store.peek([charge])[0].remaining == 1
        await ended(store.reset([charge.counter], "ada"), cancelled_after=ticks)
        await store.close()
        assert server.store.peek([charge])[0].remaining == 3


# --- D. Processes --------------------------------------------------------------------------------


@forking
@pytest.mark.parametrize("locked", ["the guard", "the log"])
def test_fault_28_a_fork_while_a_thread_holds_a_lock_of_the_store(remote, server, locked):
    owner = remote._guard if locked == "the guard" else remote._guard.log
    held, done = threading.Event(), threading.Event()

    def hold():
        with owner._lock:
            held.set()
            done.wait(10)

    def work():
        one = counter("1/minute")
        assert list(map(bool, [*remote.take([Charge(one, "ada")]), *remote.take([Charge(one, "ada")])])) == [
            True,
            False,
        ]
        remote.reset([one], "ada")
        server.always = "unsent"
        with pytest.raises(StoreUnavailable):
            remote.take([Charge(one, "ada")])

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10)
    try:
        assert in_child(work) == 0
    finally:
        done.set()
        holder.join()


# --- F. Servers ----------------------------------------------------------------------------------


def test_fault_41_a_server_killed_under_load_is_a_503_a_line_a_minute_and_few_questions(
    remote, server, clock, caplog
):
    limiter = RateLimiter("1000/minute", name="login", store=remote)
    assert limiter.try_acquire("ada")
    server.always = "unsent"
    server.asked.clear()
    began = clock.now()

    def load(number):
        errors = []
        for _ in range(250):
            with pytest.raises(StoreUnavailable) as caught:
                limiter.require(f"user-{number}")
            errors.append(caught.value)
        return errors

    errors = [error for of_one in together(8, load) for error in of_one]
    assert {error.code for error in errors} == {ErrorCode.SERVICE_UNAVAILABLE}
    assert len(errors) == 2000
    assert clock.now() == began
    assert len(caplog.messages) == 1
    assert len(server.asked) <= 2 * (5 + 8)  # until the breaker opens: those under way, each asked twice
    clock.advance(60)
    load(0)
    assert len(caplog.messages) == 2


def test_fault_45_a_server_that_swallows_everything_costs_its_time_until_the_breaker_opens(
    remote, server, clock
):
    server.always = "silent"
    charge = Charge(counter(), "ada")
    for _ in range(100):
        began = clock.now()
        with pytest.raises(StoreUnavailable):
            remote.take([charge])
        assert clock.now() - began <= 0.05 + 1e-9
    assert len(server.asked) == 5
    assert remote.breaker.state == "open"


def test_fault_45_other_stores_are_not_affected(remote, server, clock):
    healthy = ScriptedServer(clock)
    other = Remote(ScriptedEngine(healthy), "redis://other:6379/0", clock=clock)
    server.always = "silent"
    for _ in range(10):
        with pytest.raises(StoreUnavailable):
            remote.take([Charge(counter(), "ada")])
        assert other.take([Charge(counter("1000/minute"), "ada")])[0]


def test_fault_46_slow_replies_add_no_more_than_the_bound(remote, server, clock):
    server.always = "late"  # the reply would come after 500 ms, say
    began = clock.now()
    for _ in range(1000):
        with suppress(StoreUnavailable):
            remote.take([Charge(counter("1000/minute"), "ada")])
    assert clock.now() - began <= 5 * 0.05 + 1e-9


def test_fault_48_a_reply_lost_after_the_charge_charges_once(remote, server):
    charge = Charge(counter("6/15 minutes"), "ada")
    admitted = 0
    for _ in range(10):
        server.script = ["cut"]
        admitted += remote.take([charge])[0].allowed
    assert admitted == 6
    assert remote.peek([charge])[0].remaining == 0


def test_fault_48_a_refund_whose_reply_is_lost_gives_back_once(remote, server):
    charge = Charge(counter("6/15 minutes"), "ada")
    receipts = [remote.take([charge])[0].receipt for _ in range(6)]
    server.script = ["cut"]
    remote.refund([charge], receipts[:1])
    assert remote.peek([charge])[0].remaining == 1


def test_fault_51_after_a_partition_few_ask_and_at_different_times(clock):
    server = ScriptedServer(clock)
    random.seed(51)
    processes = [Remote(ScriptedEngine(server), WHAT, clock=clock) for _ in range(50)]
    one = counter("1000000/minute gcra")

    def all_ask():
        for number, process in enumerate(processes):
            with suppress(StoreUnavailable):
                process.take([Charge(one, f"user-{number}")])

    server.always = "unsent"
    for _ in range(5):
        all_ask()
    server.asked.clear()
    probes = []
    for _ in range(600):  # a minute, a tenth of a second at a time, each process asked once in each
        clock.advance(0.1)
        before = len(server.asked)
        all_ask()
        probes.append((len(server.asked) - before) // 2)
    assert sum(probes) <= 60 * 50  # of 30,000 calls, each process lets one through a second at most
    assert max(probes[10:]) <= 25  # and never all of them at once

    server.always = None
    recovering = []
    for _ in range(20):
        clock.advance(0.1)
        before = len(server.asked)
        all_ask()
        recovering.append(len(server.asked) - before)
    assert recovering[0] < 25
    assert recovering[-1] == 50
    assert all(process.breaker.is_closed for process in processes)


def test_fault_51_inside_a_process_three_look_whether_it_is_back(clock):
    server = ScriptedServer(clock)
    remote = Remote(ScriptedEngine(server), WHAT, clock=clock, timeout=5)
    server.always = "unsent"
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            remote.take([Charge(counter(), "ada")])
    clock.advance(2)
    server.always = None
    server.asked.clear()
    arrived, go_on = threading.Semaphore(0), threading.Event()
    do = server.answer

    def held_up(*question):
        arrived.release()
        go_on.wait(10)
        return do(*question)

    server.answer = held_up
    rejected = threading.Semaphore(0)

    def ask(_):
        try:
            return bool(remote.take([Charge(counter("1000/minute"), "ada")])[0])
        except StoreUnavailable:
            rejected.release()
            return None

    def let_go():
        for _ in range(61):
            assert rejected.acquire(timeout=10)
        go_on.set()

    releasing = threading.Thread(target=let_go)
    releasing.start()
    results = together(64, ask)
    releasing.join()
    assert results.count(True) == 3
    assert remote.breaker.is_closed


# --- I. Keys as a weapon, L. Resources -----------------------------------------------------------


def test_fault_74_an_attack_on_refused_keys_costs_no_questions(remote, server, clock):
    limiter = RateLimiter("6/15 minutes", name="login", store=remote)
    for _ in range(7):
        limiter.try_acquire("ada")
    server.asked.clear()
    for _ in range(899):
        clock.advance(1)
        assert not limiter.try_acquire("ada")
    assert not server.asked
    clock.advance(1)
    assert limiter.try_acquire("ada")


def test_fault_100_an_outage_and_a_flood_of_refused_keys_leave_nothing_behind(server, clock):
    idle = CircuitBreaker(10**9, 1.0, clock=clock)  # so that each call fails for itself
    remote = Remote(ScriptedEngine(server), WHAT, clock=clock, breaker=idle)
    server.always = "unsent"

    def fail(times):
        for _ in range(times):
            with suppress(StoreUnavailable):
                remote.take([Charge(counter(), "ada")])
        server.asked.clear()
        gc.collect()

    fail(200)
    tracemalloc.start()
    try:
        fail(200)
        before = tracemalloc.take_snapshot()
        fail(2000)
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    ours = [tracemalloc.Filter(True, "*/resilience/*")]
    grown = after.filter_traces(ours).compare_to(before.filter_traces(ours), "filename")
    assert sum(entry.size_diff for entry in grown) < 4000
