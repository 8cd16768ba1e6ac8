from __future__ import annotations

import asyncio
import copy
import functools
import gc
import pickle
import threading
from contextlib import suppress

import pytest

from resilience.breaker import CircuitBreaker
from resilience.deadline import deadline
from resilience.errors import CircuitOpenError, DeadlinePassed
from resilience.retry import RetryManager
from resilience.testing import FakeClock
from resilience.timeout import Timeout


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(clock):
    """Return a maker of breakers: two failures in a row, 60 s without jitter, one probe."""

    def make(**options):
        settings = {"recovery_time": 60.0, "probes": 1, "recovery_jitter": 0.0, "clock": clock, "name": "b"}
        if not {"failure_ratio", "slow_after", "window_calls"} & options.keys():
            settings["failure_threshold"] = 2
        return CircuitBreaker(**(settings | options))

    return make


def work(value="done"):
    return value


async def work_async(value="done"):
    await asyncio.sleep(0)
    return value


def disguise():
    return work_async()


def fail(error=OSError):
    raise error


async def fail_async(error=OSError):
    await asyncio.sleep(0)
    raise error


def attempt(fn, *args):
    """Call `fn` and return its result, or what it raised."""
    try:
        return fn(*args)
    except Exception as error:  # noqa: BLE001 - whatever it was is the result
        return error


def open_up(breaker):
    for _ in range(2):
        attempt(breaker.execute, fail)
    assert breaker.state == "open"


# --- what it is ----------------------------------------------------------------------------------


def test_the_positional_form_is_failures_in_a_row_and_seconds():
    breaker = CircuitBreaker(5, 60.0, recovery_jitter=0.0, clock=FakeClock())
    for _ in range(4):
        attempt(breaker.execute, fail)
    assert breaker.is_closed

    attempt(breaker.execute, fail)

    assert not breaker.is_closed
    snapshot = breaker.snapshot()
    assert (snapshot.state, snapshot.failures, snapshot.threshold, snapshot.time_until_retry) == (
        "open",
        5,
        5,
        60.0,
    )


def test_by_default_half_of_at_least_five_calls_in_ten_seconds_open_it(clock):
    breaker = CircuitBreaker(clock=clock)
    for outcome in (fail, work, fail, work):
        attempt(breaker.execute, outcome)
    clock.advance(10.0)  # those are forgotten
    for outcome in (work, work, fail, fail):
        attempt(breaker.execute, outcome)
    assert breaker.state == "closed"

    attempt(breaker.execute, fail)

    assert breaker.state == "open"
    snapshot = breaker.snapshot()
    assert (snapshot.calls, snapshot.failures, snapshot.slow, snapshot.threshold) == (5, 3, 0, 0.5)
    assert 5.0 <= snapshot.time_until_retry <= 5.5


def test_a_ratio_over_the_last_calls(make):
    breaker = make(window_calls=10, minimum_calls=10)
    for outcome in [work] * 5 + [fail] * 4:
        attempt(breaker.execute, outcome)
    assert breaker.is_closed

    attempt(breaker.execute, fail)

    assert breaker.state == "open"


def test_slow_calls_open_it(make, clock):
    breaker = make(slow_after=1.0, slow_ratio=0.8)
    breaker.execute(clock.sleep, 1.0)
    for _ in range(4):
        breaker.execute(clock.sleep, 1.5)

    assert breaker.state == "open"
    assert breaker.snapshot().slow == 4


async def test_slow_coroutines_open_it(make, clock):
    breaker = make(slow_after=1.0, slow_ratio=0.8)
    slow = breaker(clock.sleep_async)
    for _ in range(5):
        await slow(1.5)

    assert breaker.state == "open"


def test_streams_are_never_slow(make, clock):
    breaker = make(slow_after=1.0)

    @breaker
    def numbers():
        yield 1
        yield 2

    for _ in range(9):
        for _ in numbers():
            clock.advance(5.0)

    assert breaker.snapshot().slow == 0


def test_the_recovery_time_is_jittered_upwards_only(clock):
    for draw, seconds in ((0.0, 60.0), (0.5, 63.0), (1.0, 66.0)):
        breaker = CircuitBreaker(2, 60.0, clock=clock, random=lambda draw=draw: draw)
        open_up(breaker)
        assert breaker.snapshot().time_until_retry == pytest.approx(seconds)


def test_the_recovery_time_grows_where_that_is_asked_for(make, clock):
    breaker = make(recovery_growth=3.0, max_recovery_time=100.0)
    open_up(breaker)
    clock.advance(60.0)
    attempt(breaker.execute, fail)

    assert breaker.snapshot().time_until_retry == 100.0


def test_names():
    first, second = CircuitBreaker(), CircuitBreaker()
    assert first.name.startswith("breaker-")
    assert first.name != second.name

    first(work)
    first(fail)
    assert first.name == f"{__name__}.work"

    named = CircuitBreaker(name="storage")
    named(work)
    assert named.name == "storage"
    assert repr(named) == "<CircuitBreaker 'storage', closed>"


def test_the_whole_way_round(make, clock):
    seen = []
    breaker = make(on_change=seen.append)
    open_up(breaker)
    rejected = attempt(breaker.execute, work)
    assert isinstance(rejected, CircuitOpenError)
    assert (rejected.name, rejected.retry_after) == ("b", 60.0)
    clock.advance(60.0)
    assert breaker.state == "open"  # until somebody calls
    assert breaker.snapshot().time_until_retry == 0.0

    assert breaker.execute(work) == "done"

    assert breaker.state == "closed"
    assert [(change.before, change.after) for change in seen] == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
    ]


def test_a_snapshot_counts_probes(make, clock):
    breaker = make(probes=3)
    open_up(breaker)
    clock.advance(60.0)
    breaker.execute(work)
    permit = breaker.acquire()

    snapshot = breaker.snapshot()

    assert (snapshot.state, snapshot.probes, snapshot.probe_successes, snapshot.generation) == (
        "half-open",
        1,
        1,
        3,
    )
    permit.neutral()


def test_a_snapshot_takes_dropped_places_back(make, clock):
    breaker = make()
    open_up(breaker)
    clock.advance(60.0)
    permit = breaker.acquire()
    assert breaker.snapshot().time_until_retry == 30.0
    del permit
    gc.collect()

    assert breaker.snapshot().time_until_retry == 0.0


def test_last_trouble(make, clock):
    breaker = make()
    attempt(breaker.execute, fail)

    assert breaker.last_trouble(clock.now()) == 1000.0


# --- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [Timeout(5.0), RetryManager(name="late")])
def test_callers_without_time_neither_open_it_nor_spoil_a_test(make, clock, policy):
    breaker = make()
    begun = []
    late = policy(lambda: begun.append("begun"))
    with deadline(0, clock=clock):
        assert [type(attempt(breaker.execute, late)) for _ in range(3)] == [DeadlinePassed] * 3
        assert breaker.state == "closed"
        open_up(breaker)
        clock.advance(60.0)
        assert type(attempt(breaker.execute, late)) is DeadlinePassed
    assert not begun
    assert breaker.state == "half-open"
    breaker.execute(late)
    assert breaker.state == "closed"


def test_held_open(make, clock):
    breaker = make()
    breaker.force_open()
    clock.advance(1e9)

    assert attempt(breaker.execute, work).retry_after is None
    assert breaker.state == "forced-open"
    assert breaker.snapshot().time_until_retry is None

    breaker.reset()
    assert breaker.execute(work) == "done"


def test_held_closed(make):
    breaker = make()
    breaker.force_close()
    for _ in range(9):
        attempt(breaker.execute, fail)

    assert breaker.state == "forced-closed"
    assert breaker.is_closed
    assert breaker.snapshot().failures == 9


def test_reset_counts_afresh(make):
    breaker = make()
    attempt(breaker.execute, fail)
    breaker.reset()
    attempt(breaker.execute, fail)

    assert breaker.is_closed


# --- functions -----------------------------------------------------------------------------------


@pytest.fixture(params=["decorated", "executed"])
def run(request):
    """Return a way to call a function through a breaker."""
    if request.param == "executed":
        return lambda breaker, fn: functools.partial(breaker.execute, fn)
    return lambda breaker, fn: breaker(fn)


@pytest.fixture(params=["decorated", "executed"])
def run_async(request):
    """Return a way to await a coroutine function through a breaker."""
    if request.param == "executed":
        return lambda breaker, fn: functools.partial(breaker.execute_async, fn)
    return lambda breaker, fn: breaker(fn)


@pytest.mark.parametrize(
    "rule", [{}, {"failure_ratio": 0.5}, {"window_calls": 9}, {"slow_after": 9.0}], ids=str
)
def test_functions(make, run, clock, rule):
    breaker = make(**rule)
    good, bad = run(breaker, work), run(breaker, fail)
    assert good("x") == "x"
    assert good(value="y") == "y"
    for _ in range(9):
        attempt(bad)
    assert isinstance(attempt(good), CircuitOpenError)
    clock.advance(60.0)
    assert isinstance(attempt(bad), OSError)
    assert isinstance(attempt(good), CircuitOpenError)
    clock.advance(60.0)
    assert good("z") == "z"
    assert breaker.state == "closed"
    assert good() == "done"


@pytest.mark.parametrize(
    "rule", [{}, {"failure_ratio": 0.5}, {"window_calls": 9}, {"slow_after": 9.0}], ids=str
)
async def test_coroutine_functions(make, run_async, clock, rule):
    breaker = make(**rule)
    good, bad = run_async(breaker, work_async), run_async(breaker, fail_async)
    assert await good("x") == "x"
    for _ in range(9):
        with suppress(OSError, CircuitOpenError):
            await bad()
    with pytest.raises(CircuitOpenError):
        await good()
    clock.advance(60.0)
    with pytest.raises(OSError):
        await bad()
    with pytest.raises(CircuitOpenError):
        await good()
    clock.advance(60.0)
    assert await good("z") == "z"
    assert breaker.state == "closed"
    assert await good() == "done"


def test_a_function_that_has_worked_may_fail(make, run):
    breaker = make()
    call = run(breaker, lambda fn: fn())
    for fn in (work, fail, work, fail, fail):
        attempt(call, fn)

    assert breaker.state == "open"


def test_a_success_ends_the_row(make, run):
    breaker = make()
    bad, good = run(breaker, fail), run(breaker, work)
    good()
    for _ in range(5):
        attempt(bad)
        good()

    assert breaker.is_closed
    assert breaker.snapshot().failures == 0


async def test_a_coroutine_s_success_ends_the_row(make, run_async):
    breaker = make()
    bad, good = run_async(breaker, fail_async), run_async(breaker, work_async)
    for _ in range(5):
        with pytest.raises(OSError):
            await bad()
        await good()

    assert breaker.is_closed


def test_what_is_returned_may_be_a_failure(make, run, clock):
    breaker = make(failure_if_result=lambda result: result == 503)
    respond = run(breaker, work)
    for _ in range(2):
        assert respond(503) == 503
    assert breaker.state == "open"
    clock.advance(60.0)
    assert respond(503) == 503
    assert breaker.state == "open"
    clock.advance(60.0)
    assert respond(200) == 200
    assert breaker.state == "closed"


async def test_what_a_coroutine_returns_may_be_a_failure(make, run_async, clock):
    breaker = make(failure_if_result=lambda result: result == 503)
    respond = run_async(breaker, work_async)
    for _ in range(2):
        assert await respond(503) == 503
    assert breaker.state == "open"
    clock.advance(60.0)
    await respond(200)
    assert breaker.state == "closed"


def test_one_breaker_serves_functions_and_coroutines(make):
    breaker = make()
    good = breaker(work_async)
    open_up(breaker)

    with pytest.raises(CircuitOpenError):
        asyncio.run(good())


# --- coroutines in disguise ----------------------------------------------------------------------


def test_a_function_that_returns_a_coroutine_is_refused_at_its_first_call(make, run):
    breaker = make()
    attempt(breaker.execute, fail)
    disguised = run(breaker, disguise)

    with pytest.raises(TypeError, match="use execute_async"):
        disguised()

    assert breaker.snapshot().failures == 1  # and that was no success


def test_so_it_is_while_testing_and_the_place_is_given_back(make, run, clock):
    breaker = make()
    open_up(breaker)
    clock.advance(60.0)
    with pytest.raises(TypeError, match="use execute_async"):
        run(breaker, disguise)()

    assert breaker.snapshot().probes == 0
    assert breaker.state == "half-open"


def test_execute_refuses_generator_functions(make):
    def stream():
        yield 1

    async def stream_async():
        yield 1

    breaker = make()
    for fn in (stream, stream_async):
        with pytest.raises(TypeError, match="decorate it with the breaker"):
            breaker.execute(fn)

    assert list(breaker.execute(lambda: (item for item in (1, 2)))) == [1, 2]  # that is but a result


def test_execute_async_takes_what_returns_an_awaitable(make):
    assert asyncio.run(make().execute_async(lambda: work_async("x"))) == "x"


def test_execute_async_refuses_what_does_not(make):
    breaker = make()
    with pytest.raises(TypeError, match="use execute"):
        asyncio.run(breaker.execute_async(work))

    assert breaker.snapshot().failures == 0


# --- permits -------------------------------------------------------------------------------------


def test_a_permit_for_what_no_function_covers(make):
    breaker = make()
    permit = breaker.acquire()
    permit.failure(OSError())
    permit.success()

    assert breaker.snapshot().failures == 1
    breaker.acquire().success("result")
    assert breaker.snapshot().failures == 0


def test_a_guarded_block(make):
    breaker = make()
    for _ in range(2):
        with suppress(OSError), breaker.guard():
            fail()

    with pytest.raises(CircuitOpenError), breaker.guard():
        pytest.fail("it was begun")


async def test_a_guarded_async_block(make):
    breaker = make()
    for _ in range(2):
        with suppress(OSError):
            async with breaker.guard():
                await fail_async()

    with pytest.raises(CircuitOpenError):
        async with breaker.guard():
            pytest.fail("it was begun")


# --- what is left behind --------------------------------------------------------------------------


@pytest.mark.parametrize("failing", [False, True], ids=["rejected", "failed"])
def test_neither_rejections_nor_failures_are_left_to_the_garbage_collector(make, failing):
    breaker = make(failure_threshold=1_000)

    def block():
        with breaker.guard():
            fail()

    @breaker
    def stream():
        yield fail()

    ways = [breaker(fail), functools.partial(breaker.execute, fail), block, lambda: next(stream())]
    if not failing:
        breaker.force_open()
    gc.collect()
    gc.disable()
    try:
        for way in ways:
            attempt(way)
            assert gc.collect() == 0, way
    finally:
        gc.enable()


@pytest.mark.parametrize("failing", [False, True], ids=["rejected", "failed"])
async def test_nor_are_those_of_coroutines(make, failing):
    breaker = make(failure_threshold=1_000)

    async def fail_at_once():
        raise OSError

    async def block():
        async with breaker.guard():
            await fail_at_once()

    ways = [breaker(fail_at_once), functools.partial(breaker.execute_async, fail_at_once), block]
    if not failing:
        breaker.force_open()
    gc.collect()
    gc.disable()
    try:
        for way in ways:
            with suppress(OSError, CircuitOpenError):
                await way()
            assert gc.collect() == 0, way
    finally:
        gc.enable()


# --- what it is not ------------------------------------------------------------------------------


class Board:
    """One that carries nothing."""

    def __init__(self):
        self.names = []

    def enrol(self, gate, core):
        self.names.append(gate.name)
        return lambda: None


def test_one_that_is_shared_is_known_by_its_name(make):
    board = Board()
    breaker = make(shared=board, quorum=2, name="storage")

    assert breaker.execute(len, "ab") == 2
    assert board.names == ["storage"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shared": Board()}, ValueError, "a shared breaker needs a name"),
        (
            {"shared": "redis://localhost", "name": "a"},
            TypeError,
            "shared='redis://localhost' must be a board",
        ),
        ({"quorum": 2}, ValueError, "quorum=2 means nothing without shared"),
        ({"quorum": 0, "shared": Board(), "name": "a"}, ValueError, "quorum must be at least 1"),
        ({"quorum": True, "shared": Board(), "name": "a"}, TypeError, "quorum must be a whole number"),
    ],
)
def test_what_cannot_be_shared_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        CircuitBreaker(2, 60.0, **options)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(make, duplicate):
    with pytest.raises(TypeError, match="CircuitBreaker 'b' cannot be copied or pickled"):
        duplicate(make())


@pytest.mark.parametrize("wrong", [{"name": 5}, {"random": 0.5}], ids=str)
def test_what_would_fail_only_later_is_refused_at_once(make, wrong):
    with pytest.raises(TypeError, match=next(iter(wrong))):
        make(**wrong)


def test_an_asynchronous_predicate_is_refused(make):
    async def judge(result):
        return True

    with pytest.raises(TypeError, match="failure_if_result"):
        make(failure_if_result=judge)


def test_failures_are_counted_exactly_by_many_threads(clock):
    breaker = CircuitBreaker(10_000, 60.0, clock=clock)
    bad = breaker(fail)

    def run():
        for _ in range(500):
            attempt(bad)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert breaker.snapshot().failures == 4000


def test_calls_are_counted_exactly_by_many_threads(clock):
    breaker = CircuitBreaker(minimum_calls=10**9, clock=clock)
    call = breaker(lambda fn: fn())
    looking = threading.Event()

    def run():
        for number in range(1000):
            attempt(call, fail if number % 10 == 0 else work)

    def look():
        while not looking.is_set():
            breaker.snapshot()

    threads = [threading.Thread(target=run) for _ in range(8)]
    observer = threading.Thread(target=look)
    for thread in (observer, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    looking.set()
    observer.join()

    snapshot = breaker.snapshot()
    assert (snapshot.failures, snapshot.calls) == (800, 8000)


# --- ramp-up -------------------------------------------------------------------------------------


def close_again(breaker, clock):
    open_up(breaker)
    clock.advance(60.0)
    breaker.execute(work)
    assert breaker.state == "closed"


def test_after_probes_have_closed_it_a_growing_share_passes(make, clock):
    breaker = make(ramp_up=10.0)
    decorated = breaker(work)
    close_again(breaker, clock)

    assert not breaker.is_closed
    assert attempt(decorated) == "done"
    clock.advance(5.0)
    outcomes = [attempt(decorated) for _ in range(10)]
    assert 4 <= outcomes.count("done") <= 6
    rejection = next(outcome for outcome in outcomes if outcome != "done")
    assert isinstance(rejection, CircuitOpenError)
    assert rejection.retry_after == breaker.snapshot().time_until_retry == 5.0
    clock.advance(5.0)
    assert [attempt(decorated) for _ in range(10)] == ["done"] * 10
    assert breaker.is_closed


def test_failures_while_it_ramps_up_open_it_again(make, clock):
    breaker = make(ramp_up=10.0)
    close_again(breaker, clock)
    clock.advance(9.9)

    while breaker.state == "closed":
        attempt(breaker.execute, fail)

    assert breaker.snapshot().failures == 2


def test_by_default_all_pass_at_once(make, clock):
    breaker = make()
    close_again(breaker, clock)
    assert breaker.is_closed


# --- in the state of another ---------------------------------------------------------------------


def test_it_goes_on_in_the_state_of_another(make):
    old, new = make(), make(failure_threshold=5, probes=2)
    call = old.acquire()
    for _ in range(2):
        old.acquire().failure(OSError())
    new.continue_from(old)
    assert new.gate is old.gate
    assert (new.state, new.snapshot().threshold) == ("open", 5)
    call.failure(OSError())
    new.reset()
    assert old.is_closed
    new.continue_from(old)
    assert new.gate is old.gate


def test_a_shared_one_learns_from_its_board_instead(make):
    class Board:
        def enrol(self, gate, core):
            return lambda: None

    for old, new in ((make(shared=Board()), make()), (make(), make(shared=Board()))):
        before = new.gate
        new.continue_from(old)
        assert new.gate is before
