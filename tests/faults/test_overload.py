"""The fault catalogue's lines on bulkheads, adaptive limits, throttles and load shedders, by number."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import time

import pytest

from resilience import (
    AdaptiveLimit,
    AdaptiveThrottle,
    AsyncBulkhead,
    Bulkhead,
    BulkheadFullError,
    LoadShedder,
    OverloadedError,
    deadline,
    service_unavailable_error,
)
from resilience.bulkhead.base import Base
from resilience.testing import FakeClock, cancel_at_every_tick
from tests.children import forking, in_child
from tests.threads import together

ADMISSIONS = [AdaptiveLimit, AdaptiveThrottle, LoadShedder]
each_admission = pytest.mark.parametrize("make", ADMISSIONS, ids=lambda cls: cls.__name__)


@pytest.fixture
def clock():
    return FakeClock(auto=False)


def nothing_held(bulkhead):
    assert bulkhead.stats()[3:5] == (0, 0)
    assert not bulkhead._slots._lines
    assert not bulkhead._returned


# --- A. cancellation -----------------------------------------------------------------------------


def crowd(scene):
    """Return a scene in which six tasks share two places, and who waits is told by priority."""

    async def run():
        bulkhead = scene["bulkhead"] = AsyncBulkhead(2, 4)
        served = scene["served"] = []
        most = scene["most"] = [0]

        async def call(number):
            async with bulkhead.guard(priority=number % 2):
                most[0] = max(most[0], bulkhead.stats().running)
                await asyncio.sleep(0)
                served.append(number)

        await asyncio.wait([asyncio.ensure_future(call(number)) for number in range(6)])

    return run


def test_fault_01_a_waiter_cancelled_at_any_tick_leaves_no_place_taken():
    scene = {}

    def check():
        nothing_held(scene["bulkhead"])
        assert scene["most"][0] <= 2

    assert cancel_at_every_tick(crowd(scene), check) > 20


def test_fault_02_a_place_handed_to_one_cancelled_in_that_tick_goes_to_the_next():
    scene = {}

    async def run():
        bulkhead = scene["bulkhead"] = AsyncBulkhead(1, 4)
        served = scene["served"] = []
        scene["undisturbed"] = False

        async def call(number):
            async with bulkhead.guard():
                await asyncio.sleep(0)
                served.append(number)

        async with bulkhead.guard():
            calls = [asyncio.ensure_future(call(number)) for number in range(4)]
            await asyncio.sleep(0)
        await asyncio.wait(calls)
        scene["undisturbed"] = True

    def check():
        nothing_held(scene["bulkhead"])
        assert scene["served"] == sorted(scene["served"])
        if scene[
            "undisturbed"
        ]:  # then one of the calls was cancelled, if any, and all the others were served
            assert len(scene["served"]) >= 3

    assert cancel_at_every_tick(run, check) > 20


async def test_fault_03_between_release_and_wake_up_nobody_else_gets_the_place():
    bulkhead = AsyncBulkhead(1, 1)
    served = []

    async def call(name):
        async with bulkhead.guard():
            served.append(name)

    async with bulkhead.guard():
        waiting = asyncio.ensure_future(call("first"))
        await asyncio.sleep(0)
    # It has been given back, and the one who waits has not run yet.
    barging = asyncio.ensure_future(call("second"))
    await asyncio.gather(waiting, barging)
    assert served == ["first", "second"]


async def test_fault_03_a_block_begun_at_that_moment_is_rejected_without_a_queue():
    bulkhead = AsyncBulkhead(1, 1)
    block = bulkhead.guard()
    await block.__aenter__()
    waiting = asyncio.ensure_future(bulkhead.execute(asyncio.sleep, 0))
    full = asyncio.ensure_future(bulkhead.execute(asyncio.sleep, 0))
    await asyncio.sleep(0)
    await block.__aexit__(None, None, None)
    assert bulkhead.stats()[3:5] == (1, 0)
    with pytest.raises(BulkheadFullError):
        await full
    await waiting


@pytest.mark.parametrize("time_left", [0.0, 1.0])
async def test_fault_06_with_no_time_to_wait_nothing_is_begun_or_taken(clock, time_left):
    bulkhead = AsyncBulkhead(1, 1, 0.0 if time_left else None, clock=clock)
    begun = []

    async def work():
        begun.append(1)

    async with bulkhead.guard():
        with deadline(time_left, clock=clock), pytest.raises((BulkheadFullError, TimeoutError)):
            await bulkhead.execute(work)
        assert bulkhead.stats()[3:5] == (1, 0)
    assert not begun


async def test_fault_06_a_task_cancelled_before_it_ran_takes_nothing():
    bulkhead = AsyncBulkhead(1)
    task = asyncio.ensure_future(bulkhead.execute(asyncio.sleep, 0))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    nothing_held(bulkhead)


async def test_fault_08_when_a_sibling_fails_the_places_of_all_are_back():
    bulkhead = AsyncBulkhead(2, 5)
    limit = AdaptiveLimit(5)

    async def fail():
        await asyncio.sleep(0)
        raise OSError("down")

    async def siblings():
        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(limit.execute_async(bulkhead.execute, asyncio.sleep, 60))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup):
        await siblings()
    nothing_held(bulkhead)
    assert limit.stats().in_flight == 0


def test_fault_09_a_call_cancelled_twice_while_it_ends_gives_its_place_back_once():
    scene = {}

    async def run():
        scene["bulkhead"] = bulkhead = AsyncBulkhead(1, 2)
        await asyncio.wait([asyncio.ensure_future(bulkhead.execute(asyncio.sleep, 0)) for _ in range(3)])

    cancel_at_every_tick(run, lambda: nothing_held(scene["bulkhead"]), times=2)


@each_admission
def test_fault_04_a_call_cancelled_at_any_tick_is_neutral(make):
    scene = {}

    async def run():
        scene["policy"] = policy = make()
        await asyncio.wait([asyncio.ensure_future(policy.execute_async(asyncio.sleep, 0)) for _ in range(3)])

    def check():
        stats = scene["policy"].stats()._asdict()
        assert (stats.get("in_flight", 0), stats.get("pending", 0), stats.get("cuts", 0)) == (0, 0, 0)
        assert stats.get("requests", 0) == stats.get("accepts", 0)

    assert cancel_at_every_tick(run, check) > 3


# --- B. event loops ------------------------------------------------------------------------------


def test_fault_11_one_bulkhead_serves_three_loops_in_succession():
    bulkhead = AsyncBulkhead(1, 10)

    async def crowd():
        await asyncio.gather(*(bulkhead.execute(asyncio.sleep, 0) for _ in range(5)))

    for _ in range(3):
        asyncio.run(crowd())
    nothing_held(bulkhead)


def test_fault_12_two_loops_in_two_threads_share_the_places():
    bulkhead = AsyncBulkhead(2, 100)
    running, most = [], []

    async def call():
        running.append(1)
        most.append(len(running))
        await asyncio.sleep(0)
        running.pop()

    async def crowd():
        await asyncio.gather(*(bulkhead.execute(call) for _ in range(30)))

    together(2, lambda _: asyncio.run(crowd()))
    assert max(most) <= 2
    assert len(most) == 60
    nothing_held(bulkhead)


def test_fault_13_a_loop_closed_with_a_call_and_a_waiter_gives_back_what_they_had():
    bulkhead = AsyncBulkhead(1, 1)

    async def begin():
        tasks = [asyncio.ensure_future(bulkhead.execute(asyncio.Event().wait)) for _ in range(2)]
        await asyncio.sleep(0)
        return tasks

    loop = asyncio.new_event_loop()
    tasks = loop.run_until_complete(begin())
    loop.close()
    assert bulkhead.stats()[3:5] == (1, 1)
    for task in tasks:
        task._log_destroy_pending = False  # that asyncio itself complains is its right
    del tasks, task
    gc.collect()

    nothing_held(bulkhead)
    asyncio.run(bulkhead.execute(asyncio.sleep, 0))


@pytest.mark.parametrize("make", [AsyncBulkhead, AdaptiveLimit], ids=lambda cls: cls.__name__)
async def test_fault_15_a_refused_call_makes_no_coroutine(make):
    policy = make(1)
    made = []

    def call():
        made.append(1)
        return asyncio.sleep(0)

    execute = policy.execute if make is AsyncBulkhead else policy.execute_async
    running = asyncio.ensure_future(execute(asyncio.Event().wait))
    await asyncio.sleep(0)
    with pytest.raises((BulkheadFullError, OverloadedError)):  # and no warning, which would be an error here
        await execute(call)
    assert not made
    running.cancel()


async def test_fault_16_a_stream_abandoned_half_way_gives_its_place_back_once():
    bulkhead = AsyncBulkhead(1)

    @bulkhead
    async def stream():
        yield 1
        yield 2

    closed = stream()
    await anext(closed)
    await closed.aclose()
    await closed.aclose()
    nothing_held(bulkhead)
    dropped = stream()
    await anext(dropped)
    assert bulkhead.stats().running == 1
    del dropped
    gc.collect()
    for _ in range(3):
        await asyncio.sleep(0)
    nothing_held(bulkhead)


# --- C. threads ----------------------------------------------------------------------------------


class YieldingLock:
    """A lock that lets other threads in before it is taken: between any check and the act."""

    def __init__(self):
        self._lock = threading.RLock()

    def __enter__(self):
        time.sleep(0)
        return self._lock.__enter__()

    def __exit__(self, *exception):
        return self._lock.__exit__(*exception)


def test_fault_17_of_a_thousand_calls_at_once_just_as_many_run_as_may():
    for _ in range(5):
        bulkhead = Bulkhead(6)
        bulkhead._lock = YieldingLock()
        go_on = threading.Event()
        admitted, rejected = [], []

        def call(bulkhead=bulkhead, admitted=admitted, rejected=rejected, go_on=go_on):
            try:
                bulkhead.execute(lambda: (admitted.append(1), go_on.wait()))
            except BulkheadFullError:
                rejected.append(1)
                if len(rejected) == 74:
                    go_on.set()

        together(80, lambda _, call=call: call())
        assert (len(admitted), len(rejected)) == (6, 74)
        nothing_held(bulkhead)


def test_fault_17_nobody_who_waits_is_forgotten(clock):
    bulkhead = Bulkhead(2, 100, clock=clock)
    bulkhead._lock = YieldingLock()
    together(8, lambda _: [bulkhead.execute(time.sleep, 0) for _ in range(30)])
    nothing_held(bulkhead)


@pytest.mark.parametrize("make", [Bulkhead, *ADMISSIONS], ids=lambda cls: cls.__name__)
def test_fault_22_a_listener_that_raises_or_asks_again_breaks_nothing(make, caplog):
    heard = []

    def listen(event):
        heard.append((event, policy.stats()))
        raise ValueError("a broken listener")

    option = "on_rejected" if make is Bulkhead else "on_refused"
    policy = make(**({"limit": 1} if make is Bulkhead else {}), name="storage", **{option: listen})
    refusal = policy._rejection if make is Bulkhead else lambda reason: policy._refusal(reason, None)
    for _ in range(2):
        assert isinstance(refusal("full"), (BulkheadFullError, OverloadedError))
    assert len(heard) == 2
    assert caplog.text.count("the listener") == 1


async def test_fault_23_a_finaliser_while_the_lock_is_held_neither_blocks_nor_miscounts():
    bulkhead = AsyncBulkhead(1, 1)
    garbage = [bulkhead.execute(asyncio.Event().wait)]
    garbage[0].send(None)
    limit = AdaptiveLimit(1)
    permits = [limit.acquire()]
    with bulkhead._lock, limit._lock:
        garbage.pop().close()
        permits.clear()
        gc.collect()
    nothing_held(bulkhead)
    assert limit.stats().in_flight == 0


@pytest.mark.parametrize("make", [AdaptiveLimit, AdaptiveThrottle], ids=lambda cls: cls.__name__)
def test_fault_26_a_predicate_that_raises_leaves_nothing_in_flight(make):
    def ask(error):
        raise LookupError("a broken predicate")

    policy = make(overload=ask)
    for _ in range(50):
        with pytest.raises(LookupError, match="a broken predicate"):
            policy.execute(int, "no number")
    stats = policy.stats()._asdict()
    assert (stats.get("in_flight", 0), stats.get("requests", 0)) == (0, 0)


# --- D. processes --------------------------------------------------------------------------------


@forking
def test_fault_28_a_child_forked_while_a_lock_is_held_works(clock):
    bulkhead = Bulkhead(1, 1, name="storage")
    limit, throttle, shedder = AdaptiveLimit(1), AdaptiveThrottle(), LoadShedder()
    policies = (bulkhead, limit, throttle, shedder)
    in_flight = limit.acquire()
    held, leave = threading.Event(), threading.Event()

    def hold():
        with bulkhead.guard(), bulkhead._lock, limit._lock, throttle._lock, shedder._lock:
            held.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        # Neither the lock nor the place is held there: the thread that has them does not exist there.
        assert in_child(lambda: [policy.execute(str) for policy in policies]) == 0
    finally:
        leave.set()
        thread.join()
    in_flight.success()
    nothing_held(bulkhead)


@pytest.mark.parametrize("make", [Bulkhead, AsyncBulkhead, *ADMISSIONS], ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda fn: fn.__name__)
def test_fault_31_none_is_copied_and_each_says_why(make, copied):
    policy = make(**({"limit": 1} if issubclass(make, Base) else {}), name="storage")
    with pytest.raises(TypeError, match="'storage' cannot be copied or pickled: it holds a lock"):
        copied(policy)


def test_fault_31_the_errors_round_trip():
    for error in (BulkheadFullError("b", "full", 2.0), OverloadedError("o", "full", None)):
        twin = pickle.loads(pickle.dumps(error))
        assert (str(twin), twin.retry_after, type(twin)) == (str(error), error.retry_after, type(error))


# --- E. clocks -----------------------------------------------------------------------------------


def test_fault_34_a_clock_that_is_set_back_neither_traps_nor_frees_anybody():
    clock = FakeClock(start=10_000.0)
    throttle = AdaptiveThrottle(clock=clock, random=lambda: 0.95)
    shedder = LoadShedder(clock=clock)
    for _ in range(10):
        throttle.acquire().failure(service_unavailable_error("busy"))
        with shedder.acquire("work"):
            clock.advance(0.9)
    clock.step(-5_000.0)
    assert throttle.stats().probability > 0
    with deadline(0.1, clock=clock):
        shedder.execute(str)
    for _ in range(30):
        clock.advance(1.0)
        throttle.acquire().success()
    assert throttle.stats().probability == 0


# --- L. resources --------------------------------------------------------------------------------


def test_fault_100_a_million_names_of_kinds_take_bounded_memory():
    shedder = LoadShedder()
    for number in range(3000):
        shedder.acquire(f"/customers/{number}").success()
    assert len(shedder._core._kinds) <= 1000


def test_fault_100_rejections_keep_nothing():
    def kept():
        gc.collect()
        return sum(isinstance(thing, BulkheadFullError) for thing in gc.get_objects())

    before = kept()  # by the reports of other tests
    bulkhead = Bulkhead(1)
    with bulkhead.guard():
        for _ in range(200):
            with pytest.raises(BulkheadFullError):
                bulkhead.execute(str)
    assert kept() <= before
