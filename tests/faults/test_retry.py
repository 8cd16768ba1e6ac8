"""The fault catalogue's lines on retries, by number."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import math
import os
import pickle
import random
import threading
import time
import warnings
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.backoff import JITTERS, Backoff
from resilience._core.budget import Tokens
from resilience.breaker import CircuitBreaker
from resilience.deadline import deadline, remaining
from resilience.errors import CircuitOpenError, DeadlineExceeded, ServiceError
from resilience.http import is_request_id, request_id
from resilience.retry import AsyncRetryManager, RetryManager, with_retry
from resilience.retry.budget import MOST_NAMES, RetryBudget, _Registry
from resilience.retry.stats import RetryStats
from resilience.testing import FakeClock, cancel_at_every_tick, wait_until_async
from tests.children import forking, in_child
from tests.threads import together


@pytest.fixture
def clock():
    return FakeClock()


class Down:
    """A dependency that is down, and counts who asks."""

    def __init__(self):
        self.calls = 0

    def fetch(self):
        self.calls += 1
        raise ConnectionError("down")

    async def fetch_async(self):
        self.calls += 1
        await asyncio.sleep(0)
        raise ConnectionError("down")


@pytest.fixture
def yielding_tokens(monkeypatch):
    """Let other threads in between each look at a budget's tokens and what follows from it."""
    capacity = Tokens.capacity

    def let_others_in(self):
        time.sleep(0)
        return capacity.__get__(self)

    monkeypatch.setattr(Tokens, "capacity", property(let_others_in, capacity.__set__))


# --- A. cancellation -----------------------------------------------------------------------------


async def by_execute(retries, fn):
    return await retries.execute(fn)


async def by_decorator(retries, fn):
    return await retries(fn)()


async def by_block(retries, fn):
    async for attempt in retries:
        with attempt:
            await fn()


ways = pytest.mark.parametrize("way", [by_execute, by_decorator, by_block])


@ways
async def test_fault_05_a_cancelled_delay_leaves_at_once(way):
    clock, down = FakeClock(auto=False), Down()
    retries = AsyncRetryManager(clock=clock)
    task = asyncio.create_task(way(retries, down.fetch_async))
    await wait_until_async(lambda: clock.sleepers)
    task.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough") as caught:
        await task
    assert down.calls == 1
    assert not hasattr(caught.value, "__notes__")
    assert clock.sleepers == 0
    assert retries.budget.tokens == 5.0
    assert retries.stats() == RetryStats()


@ways
def test_fault_05_a_cancellation_at_any_tick_is_never_retried(way):
    state = {}

    async def work():
        state["down"] = Down()
        state["retries"] = AsyncRetryManager(clock=FakeClock(), retry_on=lambda error: True)
        with suppress(ConnectionError):
            await way(state["retries"], state["down"].fetch_async)

    def check():
        stats, tokens = state["retries"].stats(), state["retries"].budget.tokens
        assert stats.total_retries <= state["down"].calls
        assert tokens == 5.0 - max(0, state["down"].calls - 1)  # paid for what was made, and no more

    assert cancel_at_every_tick(work, check) > 3


@ways
async def test_fault_06_with_no_time_left_nothing_is_begun_or_charged(way, clock):
    down = Down()
    breaker = CircuitBreaker(2, 60.0, clock=clock)
    retries = AsyncRetryManager(clock=clock, circuit_breaker=breaker)
    with deadline(0.0, clock=clock), pytest.raises(DeadlineExceeded):
        await way(retries, down.fetch_async)
    with pytest.raises(DeadlineExceeded):
        await way(retries.replace(deadline=0), down.fetch_async)
    assert down.calls == 0
    assert retries.budget.tokens == 5.0
    assert retries.stats() == RetryStats()
    assert breaker.snapshot().failures == 0


def sync_execute(retries, fn):
    return retries.execute(fn)


def sync_decorator(retries, fn):
    return retries(fn)()


def sync_block(retries, fn):
    for attempt in retries:
        with attempt:
            result = fn()
    return result


sync_ways = pytest.mark.parametrize("way", [sync_execute, sync_decorator, sync_block])


@sync_ways
def test_fault_06_nor_in_sync_code(way, clock):
    down = Down()
    retries = RetryManager(clock=clock)
    with deadline(0.0, clock=clock), pytest.raises(DeadlineExceeded):
        way(retries, down.fetch)
    assert (down.calls, retries.budget.tokens) == (0, 5.0)


async def test_fault_06_an_already_cancelled_task_starts_nothing(clock):
    down = Down()
    retries = AsyncRetryManager(clock=clock)
    task = asyncio.create_task(retries.execute(down.fetch_async))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert down.calls == 0


class Recording:
    """Passes a breaker on, and remembers how each permit was settled by the call itself."""

    def __init__(self, breaker):
        self.breaker = breaker
        self.settled = []

    @property
    def is_closed(self):
        return self.breaker.is_closed

    def acquire(self):
        permit = self.breaker.acquire()
        recording = self

        class Permit:
            def success(self, result):
                recording.settled.append("success")
                permit.success(result)

            def failure(self, error):
                recording.settled.append("failure")
                permit.failure(error)

            def neutral(self):
                recording.settled.append("neutral")
                permit.neutral()

        return Permit()


async def test_fault_08_when_a_sibling_fails_permit_and_payment_return():
    clock = FakeClock(auto=False)
    breaker = Recording(CircuitBreaker(2, 60.0, clock=clock, probes=1, recovery_jitter=0.0))
    retries = AsyncRetryManager(clock=clock)
    probing = AsyncRetryManager(clock=clock, circuit_breaker=breaker)
    for _ in range(2):
        with suppress(OSError), breaker.breaker.guard():
            raise OSError
    clock.advance(60.0)  # one probe may go

    async def hang():
        await asyncio.Event().wait()

    async def fail():
        await wait_until_async(lambda: clock.sleepers and breaker.breaker.state == "half-open")
        raise ValueError("the sibling")

    async def together():
        async with asyncio.TaskGroup() as group:
            group.create_task(retries.execute(Down().fetch_async))
            group.create_task(probing.execute(hang))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        await together()
    assert [str(error) for error in caught.value.exceptions] == ["the sibling"]
    assert retries.budget.tokens == 5.0
    assert breaker.settled == ["neutral"]
    breaker.acquire().neutral()  # the probe's place is free again


# --- B. event loops ------------------------------------------------------------------------------


def test_fault_11_one_manager_serves_successive_loops(clock):
    retries = AsyncRetryManager(clock=clock, budget=None)

    async def contend():
        downs = [Down() for _ in range(10)]
        results = await asyncio.gather(
            *(retries.execute(down.fetch_async) for down in downs), return_exceptions=True
        )
        assert all(isinstance(result, ConnectionError) for result in results)
        return sum(down.calls for down in downs)

    assert [asyncio.run(contend()) for _ in range(3)] == [30, 30, 30]
    assert retries.stats() == RetryStats(total_retries=60, failed_retries=30)


def test_fault_12_two_loops_in_two_threads_share_the_budget_exactly(clock, yielding_tokens):
    retries = AsyncRetryManager(clock=clock, budget=RetryBudget(20.0))
    down = Down()

    both_loops_run = threading.Barrier(2)

    async def contend():
        both_loops_run.wait(10)
        await asyncio.gather(*(retries.execute(down.fetch_async) for _ in range(50)), return_exceptions=True)

    together(2, lambda _: asyncio.run(contend()))
    assert retries.budget.tokens == 0.0
    assert retries.stats().total_retries == 20


@ways
def test_fault_13_a_loop_closed_during_a_delay_gives_the_payment_back(way):
    retries = AsyncRetryManager(initial_delay=10.0, jitter="none")

    async def begin():
        call = asyncio.ensure_future(way(retries, Down().fetch_async))
        await wait_until_async(lambda: retries.budget.tokens == 4.0)
        await asyncio.sleep(0)
        return call

    loop = asyncio.new_event_loop()
    call = loop.run_until_complete(begin())
    loop.close()
    assert retries.budget.tokens == 4.0
    call._log_destroy_pending = False  # that asyncio itself complains is its right
    del call
    gc.collect()

    assert retries.budget.tokens == 5.0


async def test_fault_15_an_open_breaker_creates_no_coroutine(clock):
    breaker = CircuitBreaker(1, 60.0, clock=clock)
    breaker.force_open()
    made = []

    def make():
        made.append(1)
        return asyncio.sleep(0)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for way in (by_execute, by_block):
            with pytest.raises(CircuitOpenError):
                await way(AsyncRetryManager(circuit_breaker=breaker, clock=clock), make)
        down = Down()
        with pytest.raises(CircuitOpenError):
            await with_retry(down.fetch_async, circuit_breaker=breaker)()
        gc.collect()
    assert made == []
    assert down.calls == 0


# --- C. threads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", ["on_retry", "on_success", "on_stop"])
def test_fault_22_a_listener_that_raises_breaks_no_call_and_is_logged_once(hook, clock, caplog):
    def listener(event):
        raise RuntimeError("a bug of the listener")

    retries = RetryManager(clock=clock, budget=None, **{hook: listener})
    for _ in range(2):
        down = Down()
        with pytest.raises(ConnectionError):
            retries.execute(down.fetch)
        assert down.calls == 3
        outcomes = iter([ConnectionError(), None])

        def recover(outcomes=outcomes):
            outcome = next(outcomes)
            if outcome is not None:
                raise outcome
            return "up"

        assert retries.execute(recover) == "up"
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


def test_fault_22_a_listener_may_use_the_manager_it_listens_to(clock):
    seen = []
    retries = RetryManager(clock=clock, on_retry=lambda event: seen.append(retries.execute(len, "four")))
    with pytest.raises(ConnectionError):
        retries.execute(Down().fetch)
    assert seen == [4, 4]


@pytest.mark.parametrize("hook", ["on_retry", "on_success", "on_stop"])
def test_fault_22_a_listener_that_blocks_stops_nobody_else(hook, clock):
    blocked, go = threading.Event(), threading.Event()
    let_go = []

    def listen(event):
        if not blocked.is_set():
            blocked.set()
            let_go.append(go.wait(5))

    retries = RetryManager(clock=clock, **{hook: listen})

    def fail_and_recover():
        outcomes = iter([ConnectionError(), None])

        def fetch():
            outcome = next(outcomes)
            if outcome is not None:
                raise outcome

        retries.execute(fetch)
        with suppress(ConnectionError):
            retries.execute(Down().fetch)

    thread = threading.Thread(target=fail_and_recover)
    thread.start()
    assert blocked.wait(10)
    fail_and_recover()
    assert retries.stats().total_retries > 0
    go.set()
    thread.join(10)
    assert let_go == [True]  # it was not the end of its patience


def test_fault_24_a_hundred_threads_get_one_budget_for_a_name(monkeypatch):
    budgets, seen = _Registry(), []
    make = RetryBudget.__init__

    def let_others_in(self, *args):
        time.sleep(0)
        make(self, *args)

    def ask():
        together.wait()
        seen.append(budgets.get("storage"))

    monkeypatch.setattr(RetryBudget, "__init__", let_others_in)
    together = threading.Barrier(100)
    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 100
    assert len(set(map(id, seen))) == 1


@pytest.mark.parametrize(
    ("where", "way"),
    [
        ("retry_on", by_execute),
        ("retry_on", by_decorator),
        ("retry_on", by_block),
        ("retry_if_result", by_execute),
        ("retry_if_result", by_decorator),  # a block has no result
    ],
)
async def test_fault_26_a_predicate_that_raises_is_reported_with_what_it_was_asked_about(where, way, clock):
    def predicate(outcome):
        raise ZeroDivisionError("a bug of the predicate")

    async def up():
        return "up"

    breaker = Recording(CircuitBreaker(2, 60.0, clock=clock))
    retries = AsyncRetryManager(clock=clock, circuit_breaker=breaker, **{where: predicate})
    down = Down()
    with pytest.raises(ZeroDivisionError) as caught:
        await way(retries, down.fetch_async if where == "retry_on" else up)
    if where == "retry_on":
        assert isinstance(caught.value.__context__, ConnectionError)
    assert down.calls == (1 if where == "retry_on" else 0)
    assert breaker.settled == (["failure"] if where == "retry_on" else ["success"])
    assert retries.budget.tokens == 5.0


def test_fault_26_a_probe_whose_predicate_raises_does_not_keep_its_place(clock):
    breaker = Recording(CircuitBreaker(1, 60.0, clock=clock, probes=1, recovery_jitter=0.0))
    with suppress(OSError), breaker.breaker.guard():
        raise OSError

    def predicate(error):
        raise ZeroDivisionError

    for _ in range(3):
        clock.advance(60.0)
        with pytest.raises(ZeroDivisionError):
            RetryManager(clock=clock, circuit_breaker=breaker, retry_on=predicate).execute(Down().fetch)
    assert breaker.settled == ["failure"] * 3
    clock.advance(60.0)
    breaker.acquire().neutral()


@sync_ways
def test_fault_27_calls_that_share_a_policy_have_their_own_attempts_and_delays(way):
    mine = threading.local()

    class ClockOfEachThread(FakeClock):
        """Yields at each reading, and keeps the threads' sleeps apart."""

        def sleep(self, seconds):
            mine.sleeps.append(seconds)

    retries = RetryManager(
        max_attempts=6, initial_delay=1.0, jitter="none", clock=ClockOfEachThread(yielding=True), budget=None
    )

    def fetch():
        mine.calls += 1
        if mine.calls <= mine.failures:
            raise ConnectionError
        return mine.calls

    seen = []

    def call(failures):
        mine.failures = failures
        for _ in range(20):
            mine.calls, mine.sleeps = 0, []
            seen.append((failures, way(retries, fetch), mine.sleeps))

    threads = [threading.Thread(target=call, args=(failures,)) for failures in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    delays = [1.0, 2.0, 4.0, 8.0, 10.0]
    assert sorted(seen) == sorted(
        (failures, failures + 1, delays[:failures]) for failures in range(6) for _ in range(20)
    )
    assert retries.stats() == RetryStats(total_retries=20 * 15, successful_retries=20 * 5)


# --- D. processes, copies ------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@forking
def test_fault_29_forked_workers_draw_different_delays():
    random.seed(7)  # as an application may do before it forks
    retries = RetryManager()
    delays = set()
    for _ in range(4):
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads
            child = os.fork()
        if child == 0:
            delay = retries.limits.backoff.delay(5, None, retries.random)
            os.write(writing, repr(delay).encode())
            os._exit(0)
        os.waitpid(child, 0)
        delays.add(os.read(reading, 100))
        os.close(reading)
        os.close(writing)
    assert len(delays) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@forking
def test_fault_29_forked_workers_make_different_ids():
    random.seed(7)
    reading, writing = os.pipe()
    for _ in range(4):
        assert in_child(lambda: os.write(writing, f"{request_id()}\n".encode())) == 0
    os.close(writing)
    with os.fdopen(reading) as made:
        assert len({line for line in made if is_request_id(line.strip())}) == 4


def test_fault_31_copies_are_the_same_policy_and_pickles_are_refused():
    for retries in (RetryManager(), AsyncRetryManager()):
        assert copy.copy(retries) is copy.deepcopy(retries) is retries
        with pytest.raises(TypeError, match="belong to this process"):
            pickle.dumps(retries)
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="it is the one count of its process"):
            make(RetryBudget())


def test_fault_31_what_a_retry_leaves_on_an_exception_survives_a_pickle(clock):
    with pytest.raises(ConnectionError) as caught:
        RetryManager(clock=clock).execute(Down().fetch)
    twin = pickle.loads(pickle.dumps(caught.value))
    assert twin.__notes__ == caught.value.__notes__
    assert RetryStats(*pickle.loads(pickle.dumps(RetryStats(1, 2, 3, 4, 5)))) == RetryStats(1, 2, 3, 4, 5)


# --- E. clocks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-3600, -1, 1, 3600, 2**31 - 1_700_000_000, -1_700_000_000])
def test_fault_34_setting_the_wall_clock_changes_no_deadline_and_no_delay(clock, step):
    down = Down()

    def fetch():
        clock.advance(0.5)
        clock.step_wall(step)
        down.fetch()

    retries = RetryManager(max_attempts=9, initial_delay=1.0, jitter="none", clock=clock, budget=None)
    with deadline(3.0, clock=clock):
        clock.step_wall(step)
        assert remaining() == 3.0
        with pytest.raises(ConnectionError) as caught:
            retries.execute(fetch)
        assert remaining() == 1.0
    assert clock.sleeps == [1.0]
    assert "2 attempts in 1.5 s since the first failure" in caught.value.__notes__[0]


def test_fault_36_a_machine_that_slept_during_a_delay_wakes_to_one_attempt():
    clock, down = FakeClock(auto=False), Down()
    retries = RetryManager(clock=clock)
    failures = []

    def call():
        with pytest.raises(ConnectionError) as caught, deadline(60.0, clock=clock):
            retries.execute(down.fetch)
        failures.append(caught.value)

    thread = threading.Thread(target=call)
    thread.start()
    clock.wait_for_sleepers(1)
    clock.advance(3600.0)
    thread.join(10)

    assert down.calls == 1
    assert "the deadline has passed" in failures[0].__notes__[0]
    assert retries.budget.tokens == 5.0


@pytest.mark.parametrize("initial_delay", [0, 0.1, 1e308])
@pytest.mark.parametrize("jitter", [*JITTERS, 0.5])
def test_fault_40_at_attempt_10000_the_delay_is_finite(initial_delay, jitter):
    backoff = Backoff(initial_delay, 10.0, 2.0, jitter)
    delay = backoff.delay(10_000, 10.0, random.random)
    assert math.isfinite(delay)
    assert 0 <= delay <= 10.0
    assert initial_delay or not delay or jitter == "decorrelated"


@given(st.integers(1, 1_000_000), st.floats(0, 1e308), st.floats(1, 1e308))
def test_fault_40_whatever_the_figures(attempt, initial_delay, multiplier):
    delay = Backoff(initial_delay, 1e308, multiplier, "equal").delay(attempt, None, random.random)
    assert 0 <= delay <= 1e308


# --- H. 65 and 67 --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "delays"),
    [
        ("7", [7.0]),
        ("Tue, 14 Nov 2023 22:13:27 GMT", [7.0]),  # seven seconds after the clock's wall time
        ("-7", [1.0]),
        ("soon", [1.0]),
    ],
)
def test_fault_65_retry_after_is_honoured_or_ignored(header, delays, clock):
    class TooManyRequests(Exception):  # noqa: N818 - as clients name it
        status_code = 429

        def __init__(self):
            self.headers = {"Retry-After": header}

    answers = iter([TooManyRequests(), None])

    def fetch():
        answer = next(answers)
        if answer is not None:
            raise answer

    RetryManager(
        clock=clock, initial_delay=1.0, jitter="none", random=lambda: 0.0, retry_on=TooManyRequests
    ).execute(fetch)
    assert clock.sleeps == delays


def test_fault_65_an_absurd_retry_after_is_cut_down_and_not_waited_for(clock):
    def fetch():
        raise ServiceError(retry_after=1e9)

    with pytest.raises(ServiceError) as caught:
        RetryManager(clock=clock, retry_on=ServiceError).execute(fetch)
    assert clock.sleeps == []
    assert caught.value.__notes__ == [
        "resilience: 1 attempt; stopped: Retry-After of 21600.0 s is longer than max_retry_after, 60.0 s"
    ]


def test_fault_67_a_dependency_that_is_down_gets_no_more_retries_than_the_budget(clock):
    down = Down()

    @with_retry(name="test-67-inner", clock=clock)
    def inner():
        return down.fetch()

    @with_retry(name="test-67-middle", clock=clock)
    def middle():
        try:
            return inner()
        except ConnectionError as error:
            raise TimeoutError("the layer below failed") from error

    @with_retry(name="test-67-outer", clock=clock)
    def outer():
        return middle()

    for _ in range(60):
        with pytest.raises(TimeoutError):
            outer()
        clock.advance(1.0)
    assert down.calls == 60 + 5


def test_fault_67_managers_made_for_each_call_share_the_budget_of_their_name(clock):
    down = Down()
    for _ in range(60):
        with pytest.raises(ConnectionError):
            RetryManager(name="test-67-per-call", clock=clock).execute(down.fetch)
    assert down.calls == 60 + 5


async def test_fault_67_tasks_at_once_share_it_too(clock):
    down = Down()
    retries = AsyncRetryManager(clock=clock)
    await asyncio.gather(*(retries.execute(down.fetch_async) for _ in range(200)), return_exceptions=True)
    assert down.calls == 200 + 5


# --- I. key abuse --------------------------------------------------------------------------------


def test_fault_73_a_flood_of_names_makes_no_more_budgets_than_the_cap():
    budgets = _Registry()
    spent = budgets.get("down")
    assert spent.try_withdraw()
    for number in range(5 * MOST_NAMES):
        assert budgets.get(f"host-{number}").tokens == 5.0
    assert len(budgets._by_name) <= MOST_NAMES
    assert budgets.get("down") is spent  # one in use is not forgotten


def test_fault_73_nor_if_every_one_of_them_is_in_use():
    budgets = _Registry(10)
    for number in range(100):
        budgets.get(f"host-{number}").try_withdraw()
    assert len(budgets._by_name) == 10
    assert not budgets.get("host-99").try_withdraw()  # the rest share one, and what is in it
