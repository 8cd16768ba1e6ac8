"""The fault catalogue, on what everything stands on: listeners, finalisers, forks, interpreters, exit."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from resilience import fork
from resilience.breaker import CircuitBreaker
from resilience.events import BreakerChanged, RateLimited, hooks, publish, subscribe
from resilience.limiter import RateLimiter
from resilience.retry import AsyncRetryManager, RetryManager
from resilience.testing import EventRecorder, FakeClock, FaultInjector
from tests.children import forking, in_child

SOURCE = Path(__file__).parents[2] / "src"
EVENT = RateLimited("login", ("ada",), 12.5)


# --- what is put to use while locks are held -----------------------------------------------------


def events():
    def use():
        with EventRecorder() as recorder:
            publish(EVENT)
        assert len(recorder) == 1

    return use


def clock():
    clock = FakeClock(auto=False)

    def use():
        clock.step(1.0)
        clock.advance(1.0)

    return use


def faults():
    return FaultInjector(clock=FakeClock()).delay(1.0).strike


def breaker():
    breaker = CircuitBreaker(1, 60.0)

    def use():
        breaker.reset()
        breaker.execute(int)
        with contextlib.suppress(ValueError):
            breaker.execute(int, "x")
        assert breaker.snapshot().state == "open"

    return use


def retries():
    retries = RetryManager(name="fork", clock=FakeClock(), budget=None)
    calls = FaultInjector().fail(ConnectionError, on=range(1, 1000, 2)).wrap(lambda: "well")

    def use():
        assert retries.execute(calls) == "well"
        assert retries.stats().successful_retries > 0

    return use


def budget():
    return RetryManager(name="fork", clock=FakeClock()).budget.try_withdraw


def async_retries():
    retries = AsyncRetryManager(clock=FakeClock(), budget=None)

    def use():
        faults = FaultInjector().fail(ConnectionError, on=1)
        asyncio.run(retries.execute(faults.strike_async))

    return use


def limiter():
    limiter = RateLimiter("6/15 minutes", clock=FakeClock())

    def use():
        limiter.reset("ada")
        assert [bool(limiter.try_acquire("ada")) for _ in range(7)] == [True] * 6 + [False]
        assert limiter.stats().active_keys == 1

    return use


def waiting_limiter():
    limiter = RateLimiter("1/second", clock=FakeClock())

    def use():
        for _ in range(3):
            assert limiter.acquire("ada", timeout=60.0)

    return use


USES = [events, clock, faults, breaker, retries, budget, async_retries, limiter, waiting_limiter]
each_use = pytest.mark.parametrize("make", USES, ids=lambda make: make.__name__)


def all_locks():
    """Return every lock of every object in this process that has to survive a fork."""
    plain = type(threading.RLock())
    owners = tuple(fork._owners)
    assert owners
    found = (lock for owner in owners for lock in attributes(owner))
    return [lock for lock in found if isinstance(lock, plain) or type(lock).__name__ == "BoundLock"]


def attributes(owner):
    slots = (name for kind in type(owner).__mro__ for name in getattr(kind, "__slots__", ()))
    names = {*slots, *getattr(owner, "__dict__", ())}
    return [getattr(owner, name, None) for name in names]


@contextlib.contextmanager
def held(locks):
    if not locks:
        yield
        return
    with locks[0], held(locks[1:]):  # an ExitStack would not do: it cannot enter a bound lock
        yield


# --- listeners -----------------------------------------------------------------------------------


def test_fault_22_a_raising_listener_changes_nothing_and_is_logged_once(caplog):
    def fail(event):
        raise LookupError

    def enter_again(event):
        heard.append((event.after, breaker.snapshot().state, breaker.state))

    heard = []
    first, second = subscribe(fail), subscribe(enter_again)
    breaker = CircuitBreaker(1, 60.0)
    for _ in range(3):
        with contextlib.suppress(ValueError):
            breaker.execute(int, "x")
        breaker.reset()
    first()
    second()

    assert heard == [("open", "open", "open"), ("closed", "closed", "closed")] * 3
    assert len(caplog.records) == 1


def test_fault_22_a_blocked_listener_holds_up_only_its_own_call():
    blocked, go_on = threading.Event(), threading.Event()

    def block(event):
        if not blocked.is_set():
            blocked.set()
            go_on.wait()

    breaker = CircuitBreaker(1, 60.0)
    unsubscribe = subscribe(block)
    caller = threading.Thread(target=breaker.force_open)
    caller.start()
    blocked.wait()

    with EventRecorder() as recorder:  # subscribing, publishing and the same breaker all go on
        publish(EVENT, hooks(recorder))
        breaker.reset()

    assert caller.is_alive()
    assert [event.after for event in recorder.of(BreakerChanged)] == ["closed"]
    go_on.set()
    caller.join()
    unsubscribe()


# --- finalisers ----------------------------------------------------------------------------------


@each_use
def test_fault_23_a_finaliser_may_use_what_its_thread_has_locked(make):
    use = make()
    used = []

    class Garbage:
        def __init__(self):
            self.itself = self

        def __del__(self):
            use()
            used.append(1)

    def collect_while_locked():
        with held(all_locks()):
            Garbage()
            gc.collect()

    thread = threading.Thread(target=collect_while_locked, daemon=True)  # so that a deadlock ends, too
    thread.start()
    thread.join(10.0)

    assert used == [1]


# --- forks ---------------------------------------------------------------------------------------


@forking
@each_use
def test_fault_28_a_child_works_that_was_forked_while_locks_were_held(make):
    use = make()
    locked, done = threading.Event(), threading.Event()

    def hold():
        with held(all_locks()):
            locked.set()
            done.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(10.0)
    try:
        outcomes = [in_child(use) for _ in range(100)]
    finally:
        done.set()
        holder.join()

    assert outcomes == [0] * 100


# --- interpreters --------------------------------------------------------------------------------

USE_ALL = """
import sys
sys.path.insert(0, {source!r})
from resilience import *
from resilience.events import publish, subscribe

heard = []
subscribe(heard.append)
breaker = CircuitBreaker(1, 60.0, name={name!r})
breaker.force_open()
assert [event.name for event in heard] == [{name!r}], heard
retries = RetryManager(name="storage")
assert retries.execute(int, "3") == 3
assert retries.budget.tokens == retries.budget.capacity
retries.budget.try_withdraw()
limiter = RateLimiter("1/hour", name="login")
assert limiter.try_acquire("ada") and not limiter.try_acquire("ada")
with deadline(5.0):
    assert remaining() < 5.1
"""


def test_fault_32_two_subinterpreters_use_it_independently():
    if sys.version_info >= (3, 13):
        import _interpreters as interpreters
    else:
        import _xxsubinterpreters as interpreters

    both = [interpreters.create() for _ in range(2)]
    try:
        for name, interpreter in zip("ab", both, strict=True):
            source = textwrap.dedent(USE_ALL).format(source=str(SOURCE), name=name)
            failure = interpreters.run_string(interpreter, source)  # before 3.13, raised instead
            assert failure is None, failure.formatted
    finally:
        for interpreter in both:
            interpreters.destroy(interpreter)


# --- exit ----------------------------------------------------------------------------------------

LEAVE_ALL_RUNNING = """
import asyncio, threading
from resilience import *
from resilience.events import subscribe
from resilience.testing import FakeClock, FaultInjector

subscribe(print)
CircuitBreaker(1, 60.0).force_open()
faults = FaultInjector().hang()
clock = FakeClock(auto=False)
limiter = RateLimiter("1/hour", clock=clock)
limiter.try_acquire()
for wait in (faults.strike, lambda: clock.sleep(3600.0), limiter.acquire):
    threading.Thread(target=wait, daemon=True).start()
faults.wait_for_hanging(1)
clock.wait_for_sleepers(2)
"""


def test_fault_33_a_process_ends_that_leaves_all_running():
    # Whatever waits would wait for an hour: that it ends at all is the assertion.
    process = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", LEAVE_ALL_RUNNING],
        capture_output=True,
        text=True,
        timeout=30.0,
        check=False,
        env={"PYTHONPATH": str(SOURCE)},
    )

    assert (process.returncode, process.stderr) == (0, "")
