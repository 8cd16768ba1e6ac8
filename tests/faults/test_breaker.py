"""The fault catalogue's lines on circuit breakers, by number."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import multiprocessing
import os
import pickle
import threading
import time
import warnings
from contextlib import suppress

import pytest

from resilience._core.breaker import Breaker
from resilience.breaker import CircuitBreaker
from resilience.breaker.registry import BreakerRegistry
from resilience.errors import CircuitOpenError
from resilience.testing import FakeClock, cancel_at_every_tick
from tests.children import forking, in_child
from tests.threads import together


@pytest.fixture
def clock():
    return FakeClock()


def breaker_of(clock, **options):
    defaults = {"probes": 1, "recovery_jitter": 0.0, "clock": clock, "name": "storage"}
    return CircuitBreaker(2, 60.0, **(defaults | options))


def open_up(breaker):
    for _ in range(2):
        with suppress(OSError), breaker.guard():
            raise OSError
    assert breaker.state == "open"


def half_open(clock, **options):
    """Return a breaker whose recovery time is over."""
    breaker = breaker_of(clock, **options)
    open_up(breaker)
    clock.advance(60.0)
    return breaker


@pytest.fixture
def yielding_places(monkeypatch):
    """Let other threads in between each look for a free place and what follows from it."""
    free_places = Breaker._free_places

    def let_others_in_after_the_look(self, now):
        free = free_places(self, now)
        time.sleep(0)
        return free

    monkeypatch.setattr(Breaker, "_free_places", let_others_in_after_the_look)


# --- A. cancellation -----------------------------------------------------------------------------


def by_decorator(breaker, fn):
    return breaker(fn)()


def by_execute(breaker, fn):
    return breaker.execute_async(fn)


async def by_guard(breaker, fn):
    async with breaker.guard():
        await fn()


async def by_stream(breaker, fn):
    @breaker
    async def stream():
        yield await fn()
        await asyncio.sleep(0)
        yield 2

    async for _ in stream():
        await asyncio.sleep(0)


@pytest.mark.parametrize("way", [by_decorator, by_execute, by_guard, by_stream])
def test_fault_04_a_probe_cancelled_at_any_tick_returns_its_place(way):
    worlds = []

    def make():
        # Not even if it is told to record everything.
        breaker = half_open(FakeClock(), probes=2, record_on=BaseException)
        worlds.append(breaker)

        async def call():
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        return way(breaker, call)

    def check():
        gc.collect()
        snapshot = worlds[-1].snapshot()
        assert snapshot.probes == 0
        assert snapshot.state in {"open", "half-open"}  # never reopened: 60 s are over
        assert snapshot.time_until_retry == 0.0
        assert snapshot.failures == 2

    assert cancel_at_every_tick(make, check) > 2


@pytest.mark.parametrize("way", [by_decorator, by_execute, by_guard, by_stream])
def test_fault_04_a_call_cancelled_while_closed_counts_for_nothing(way):
    breaker = breaker_of(FakeClock(), record_on=BaseException)
    with suppress(OSError), breaker.guard():
        raise OSError

    async def call():
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async def cancelled():
        with pytest.raises(asyncio.CancelledError):
            await way(breaker, call)

    for _ in range(3):
        asyncio.run(cancelled())

    assert breaker.snapshot().failures == 1


def test_fault_09_a_probe_cancelled_twice_while_its_block_ends_returns_its_place_once():
    worlds = []

    async def clean_up_slowly():
        try:
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)

    def make():
        worlds.append(half_open(FakeClock(), probes=2))
        return by_guard(worlds[-1], clean_up_slowly)

    def check():
        snapshot = worlds[-1].snapshot()
        assert (snapshot.probes, snapshot.failures) == (0, 2)
        permits = [worlds[-1].acquire() for _ in range(2 - snapshot.probe_successes)]
        with pytest.raises(CircuitOpenError):
            worlds[-1].acquire()  # and no place was made that is not there
        for permit in permits:
            permit.neutral()

    assert cancel_at_every_tick(make, check, times=2) > 2


# --- B. loops, generators, coroutines ------------------------------------------------------------


def test_fault_11_one_breaker_serves_three_loops_in_succession(clock):
    breaker = breaker_of(clock)

    @breaker
    async def call(broken):
        await asyncio.sleep(0)
        if broken:
            raise OSError

    async def many(broken):
        return await asyncio.gather(*(call(broken) for _ in range(8)), return_exceptions=True)

    asyncio.run(many(broken=False))
    assert {type(error) for error in asyncio.run(many(broken=True))} == {OSError}
    assert {type(error) for error in asyncio.run(many(broken=False))} == {CircuitOpenError}


def test_fault_12_two_loops_in_two_threads_share_the_places(yielding_places):
    clock = FakeClock(yielding=True)
    breaker = half_open(clock, probes=3)

    @breaker
    async def probe():
        await asyncio.sleep(0.05)

    both_loops_run = threading.Barrier(2)

    async def many():
        both_loops_run.wait()
        return await asyncio.gather(*(probe() for _ in range(8)), return_exceptions=True)

    outcomes = [outcome for run in together(2, lambda _: asyncio.run(many())) for outcome in run]

    assert outcomes.count(None) == 3
    assert sum(isinstance(outcome, CircuitOpenError) for outcome in outcomes) == 13
    assert breaker.is_closed


def test_fault_13_a_loop_closed_with_a_probe_in_flight_returns_its_place(clock):
    breaker = half_open(clock)

    async def begin():
        probe = asyncio.ensure_future(breaker.execute_async(asyncio.Event().wait))
        await asyncio.sleep(0)
        return probe

    loop = asyncio.new_event_loop()
    probe = loop.run_until_complete(begin())
    loop.close()
    assert breaker.snapshot().probes == 1
    probe._log_destroy_pending = False  # that asyncio itself complains is its right
    del probe
    gc.collect()

    assert breaker.snapshot().probes == 0
    breaker.execute(int)
    assert breaker.is_closed


def test_fault_15_an_open_breaker_makes_no_coroutine(clock):
    breaker = breaker_of(clock)
    made = []

    def call():
        made.append(1)
        return asyncio.sleep(0)

    async def coroutine_function():
        made.append(1)

    async def rejected():
        for refuse in (lambda: breaker.execute_async(call), breaker(coroutine_function)):
            with pytest.raises(CircuitOpenError):
                await refuse()

    open_up(breaker)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(rejected())
        gc.collect()

    assert not made


async def test_fault_16_a_stream_abandoned_half_way_returns_its_place_once(clock):
    breaker = half_open(clock, probes=2)

    @breaker
    async def stream():
        yield 1
        yield 2

    closed = stream()
    await anext(closed)
    assert breaker.snapshot().probes == 1
    await closed.aclose()
    assert breaker.snapshot().probes == 0

    dropped = stream()
    await anext(dropped)
    del dropped
    gc.collect()
    await asyncio.sleep(0)  # the loop closes what was dropped
    await asyncio.sleep(0)
    assert breaker.snapshot().probes == 0
    assert breaker.snapshot().probe_successes == 0


def test_fault_16_so_does_a_plain_generator(clock):
    breaker = half_open(clock)

    @breaker
    def stream():
        yield 1
        yield 2

    for _ in stream():
        assert breaker.snapshot().probes == 1
        break
    gc.collect()

    assert breaker.snapshot().probes == 0
    assert breaker.state == "half-open"


def test_fault_16_so_does_a_permit_that_nobody_settles(clock):
    breaker = half_open(clock)
    breaker.acquire()
    gc.collect()

    assert breaker.acquire().ticket == 2


# --- C. threads ----------------------------------------------------------------------------------


def test_fault_20_of_64_simultaneous_callers_exactly_the_probes_get_in(yielding_places):
    for _ in range(10):
        breaker = half_open(FakeClock(yielding=True), probes=3)
        running = threading.Semaphore(0)
        all_rejected = threading.Event()
        rejections = []

        def call(_, breaker=breaker, running=running, all_rejected=all_rejected, rejections=rejections):
            try:
                with breaker.guard():
                    running.release()
                    all_rejected.wait(10.0)
                    return "probe"
            except CircuitOpenError as rejection:
                rejections.append(rejection)
                if len(rejections) == 61:
                    all_rejected.set()
                return "rejected"

        outcomes = together(64, call)

        assert outcomes.count("probe") == 3
        assert outcomes.count("rejected") == 61
        assert len(set(map(id, rejections))) == 61
        assert breaker.is_closed


@pytest.mark.parametrize("end", ["success", "failure", "neutral"])
def test_fault_21_a_late_result_of_an_earlier_half_open_period_is_ignored(clock, end):
    breaker = half_open(clock, probes=2)
    late, failing = breaker.acquire(), breaker.acquire()
    failing.failure(OSError())
    clock.advance(60.0)
    fresh = breaker.acquire()
    before = breaker.snapshot()

    getattr(late, end)(*([OSError()] if end == "failure" else []))

    assert breaker.snapshot() == before
    assert not fresh.settled


def test_fault_21_a_success_from_before_the_trip_does_not_close(clock):
    breaker = breaker_of(clock)
    early = breaker.acquire()
    open_up(breaker)
    clock.advance(60.0)
    probe = breaker.acquire()

    early.success()

    assert breaker.state == "half-open"
    probe.success()
    assert breaker.is_closed


def test_fault_22_a_listener_that_raises_changes_nothing_and_is_logged_once(clock, caplog):
    def raising(event):
        raise ZeroDivisionError

    breaker = breaker_of(clock, on_change=raising)
    with caplog.at_level(logging.ERROR):
        open_up(breaker)
        breaker.reset()
        open_up(breaker)

    assert len(caplog.records) == 1


def test_fault_22_a_listener_that_re_enters_finds_the_new_state(clock):
    seen = []

    def asking(event):
        seen.append((event.after, breaker.state, breaker.snapshot().state, breaker.is_closed))
        with suppress(CircuitOpenError), breaker.guard():
            pass

    breaker = breaker_of(clock, on_change=asking)
    open_up(breaker)

    assert seen == [("open", "open", "open", False)]


def test_fault_22_a_listener_that_blocks_stops_nobody_else(clock):
    entered, release = threading.Event(), threading.Event()
    let_go = []

    def blocking(event):
        entered.set()
        let_go.append(release.wait(5.0))

    breaker = breaker_of(clock, on_change=blocking)
    thread = threading.Thread(target=open_up, args=(breaker,))
    thread.start()
    entered.wait(10.0)
    try:
        with pytest.raises(CircuitOpenError):
            breaker.execute(int)
        assert breaker.snapshot().state == "open"
    finally:
        release.set()
        thread.join()
    assert let_go == [True]  # it was not the end of its patience


def test_fault_23_a_permit_finalised_while_the_lock_is_held_neither_deadlocks_nor_disturbs(clock):
    breaker = half_open(clock, probes=2)
    permits = [breaker.acquire()]

    gate = permits[0]._gate
    with gate.lock:
        leases = dict(gate.core.period.leases)
        permits.clear()  # the finaliser runs here
        gc.collect()
        assert gate.core.period.leases == leases  # it has touched nothing

    assert breaker.snapshot().probes == 0


def test_fault_24_a_hundred_threads_get_one_breaker_for_a_name():
    for _ in range(5):
        hosts = BreakerRegistry(2, 60.0, clock=FakeClock(yielding=True))
        assert len(set(map(id, together(100, lambda _, hosts=hosts: hosts.get("a"))))) == 1
        with pytest.raises(ValueError, match="was made with"):
            hosts.get("a", failure_threshold=9)


@pytest.mark.parametrize("setting", ["record_on", "ignore", "failure_if_result"])
@pytest.mark.parametrize("way", ["decorated", "executed", "guarded", "async"])
def test_fault_26_a_predicate_that_raises_is_heard_and_the_place_returns(clock, setting, way):
    armed = []

    def judge(subject):
        if armed:
            raise ZeroDivisionError
        return setting == "record_on"

    def call():
        if setting != "failure_if_result":
            raise OSError("original")
        return "result"

    async def call_async():
        return call()

    def by_hand():
        permit = breaker.acquire()
        try:
            result = call()
        except OSError as error:
            permit.failure(error)
        else:
            permit.success(result)

    breaker = half_open_with(clock, setting, judge)
    run = {
        "decorated": breaker(call),
        "executed": lambda: breaker.execute(call),
        "guarded": by_hand,
        "async": lambda: asyncio.run(breaker.execute_async(call_async)),
    }[way]
    armed.append(True)
    with pytest.raises(ZeroDivisionError) as raised:
        run()

    if setting != "failure_if_result":
        assert str(raised.value.__context__) == "original"
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.probes, snapshot.probe_successes) == ("half-open", 0, 0)
    armed.clear()
    breaker.execute(int)
    assert breaker.is_closed


def half_open_with(clock, setting, judge):
    """Return a half-open breaker with one predicate; it is opened by errors, which nobody ignores."""
    breaker = breaker_of(clock, **{setting: judge})
    open_up(breaker)
    clock.advance(60.0)
    return breaker


# --- D. processes and copies ---------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@forking
def test_fault_28_a_child_forked_while_the_lock_is_held_goes_on(clock):
    breaker = breaker_of(clock)
    hosts = BreakerRegistry(2, 60.0)
    held, release = threading.Event(), threading.Event()

    def hold():
        with breaker._gate.lock, hosts._lock:
            held.set()
            release.wait(10.0)

    def work():
        with suppress(OSError), breaker.guard():
            raise OSError
        hosts.get("a")
        assert breaker.snapshot().failures == 1

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10.0)
    try:
        assert in_child(work) == 0
    finally:
        release.set()
        thread.join()


@pytest.mark.parametrize(
    "thing",
    [lambda: CircuitBreaker(name="b"), lambda: CircuitBreaker().acquire(), BreakerRegistry],
    ids=["breaker", "permit", "registry"],
)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_fault_31_what_holds_a_lock_says_why_it_is_not_copied(thing, duplicate):
    with pytest.raises(TypeError, match="cannot be copied or pickled: it"):
        duplicate(thing())


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_fault_31_nor_sent_to_another_process(method):
    process = multiprocessing.get_context(method).Process(target=print, args=(CircuitBreaker(name="b"),))

    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        process.start()


# --- E. clocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-3600, -1, 1, 3600, 2**31 - 1_700_000_000, -1_700_000_000])
def test_fault_34_setting_the_wall_clock_changes_no_decision(clock, step):
    breaker = breaker_of(clock, failure_ratio=0.5)
    open_up(breaker)
    before = breaker.snapshot()
    clock.step_wall(step)

    assert breaker.snapshot() == before
    clock.advance(59.0)
    with pytest.raises(CircuitOpenError) as rejected:
        breaker.acquire()
    assert rejected.value.retry_after == 1.0
    clock.advance(1.0)
    breaker.acquire().success()
    assert breaker.is_closed


def test_fault_39_at_the_end_of_the_recovery_time_a_probe_goes_and_not_a_nanosecond_before():
    for nanoseconds, goes in ((-1, False), (0, True), (1, True)):
        clock = FakeClock()
        breaker = breaker_of(clock)
        open_up(breaker)
        clock.advance(60.0 + nanoseconds * 1e-9)
        assert (breaker.snapshot().time_until_retry == 0.0) is goes
        if goes:
            breaker.acquire()
        else:
            with pytest.raises(CircuitOpenError):
                breaker.acquire()


def test_fault_36_after_an_hour_of_suspension_there_is_one_evaluation(clock):
    seen = []
    breaker = breaker_of(clock, probes=3, on_change=seen.append)
    open_up(breaker)
    seen.clear()
    clock.step(3600.0)

    permits = [breaker.acquire() for _ in range(3)]
    with pytest.raises(CircuitOpenError):
        breaker.acquire()

    assert [(change.before, change.after) for change in seen] == [("open", "half-open")]
    assert [permit.ticket for permit in permits] == [1, 2, 3]


def test_fault_36_the_window_of_before_is_forgotten(clock):
    breaker = CircuitBreaker(clock=clock)
    for _ in range(4):
        with suppress(OSError), breaker.guard():
            raise OSError
    clock.step(3600.0)
    with suppress(OSError), breaker.guard():
        raise OSError

    assert breaker.is_closed
    assert breaker.snapshot().calls == 1


def test_fault_35_a_clock_that_steps_back_neither_opens_for_longer_nor_lets_more_in(clock):
    breaker = breaker_of(clock)
    open_up(breaker)
    clock.step(-3600.0)
    with pytest.raises(CircuitOpenError) as rejected:
        breaker.acquire()
    assert rejected.value.retry_after == 60.0

    clock.advance(60.0)
    breaker.acquire().success()
    assert breaker.is_closed


# --- I. key abuse --------------------------------------------------------------------------------


def test_fault_73_a_flood_of_keys_makes_no_more_breakers_than_the_cap(clock):
    hosts = BreakerRegistry(2, 60.0, max_keys=100, clock=clock)
    for number in range(10_000):
        hosts.get(f"host-{number}").execute(int)

    assert len(hosts) == 100


def test_fault_74_a_flood_of_keys_forgets_no_open_breaker(clock):
    hosts = BreakerRegistry(2, 60.0, max_keys=100, recovery_jitter=0.0, clock=clock)
    open_up(hosts.get("down"))
    for number in range(10_000):
        hosts.get(f"host-{number}").execute(int)
        with pytest.raises(CircuitOpenError):
            hosts.get("down").execute(int)
