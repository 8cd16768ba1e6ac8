"""What waits, in each shell's way: driving coroutines, sharing work, and what flows with a request."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from examples.backend import wsgi
from examples.backend.kit import AsyncKit, Awaited, BlockingKit, Kit, drive, settled
from examples.backend.ports.flights import SharedByTasks, SharedByThreads
from resilience import CircuitBreaker, DeadlineExceeded, deadline, remaining
from resilience.stores.memory import MemoryStore

PATIENCE = 10.0


class BreakageError(Exception):
    """What a test breaks."""


# --- driving -------------------------------------------------------------------------------------


def test_a_coroutine_that_never_suspends_needs_no_event_loop():
    async def inner(number):
        return number + 1

    async def outer():
        return await inner(1) + await inner(2)

    assert drive(outer()) == 5


def test_what_a_coroutine_raises_comes_out_as_it_is():
    async def broken():
        raise BreakageError

    with pytest.raises(BreakageError):
        drive(broken())


def test_a_port_that_suspends_is_named_and_its_coroutine_closed():
    closed = []

    class Port:
        def __await__(self):
            yield "the wrong way of waiting"

    async def use_case():
        try:
            await Port()
        finally:
            closed.append(True)

    coroutine = use_case()
    with pytest.raises(RuntimeError, match=r"use_case suspended .* 'the wrong way of waiting'"):
        drive(coroutine)
    assert closed == [True]
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def test_asyncio_itself_is_refused_too():
    with pytest.raises(RuntimeError, match="no running event loop"):
        drive(asyncio.sleep(1))


async def test_either_twin_s_outcome_is_settled():
    async def eventually():
        return 1

    assert await settled(eventually()) == 1
    assert await settled(1) == 1


def test_a_blocking_object_s_methods_can_be_awaited():
    class Blocking:
        def add(self, a, *, b):
            return a + b

        def fail(self):
            raise BreakageError

    awaited = Awaited(Blocking())
    assert drive(awaited.add(1, b=2)) == 3
    with pytest.raises(BreakageError):
        drive(awaited.fail())
    with pytest.raises(AttributeError, match="nothing"):
        awaited.nothing  # noqa: B018 - it is looked up


# --- both kits -----------------------------------------------------------------------------------


def test_both_kits_offer_the_same():
    offered = {name for name in vars(Kit) if not name.startswith("_")}
    for kit in (AsyncKit, BlockingKit):
        assert {name for name in vars(kit) if not name.startswith("_")} == offered
        for name in offered:
            assert (
                inspect.signature(getattr(kit, name)).parameters.keys()
                == inspect.signature(getattr(Kit, name)).parameters.keys()
            )


def both():
    return pytest.mark.parametrize("kit", [AsyncKit(), BlockingKit()], ids=["async", "blocking"])


def run(kit, coroutine):
    return drive(coroutine) if isinstance(kit, BlockingKit) else asyncio.run(coroutine)


@both()
def test_retries_are_made_counted_and_given_another_breaker(kit):
    retries = kit.retries(name="kit", max_attempts=3, initial_delay=0.001)
    calls = []

    async def fails_twice(what):
        calls.append(what)
        if len(calls) < 3:
            raise ConnectionError
        return what

    assert run(kit, retries.execute(fails_twice, "this")) == "this"
    assert retries.stats().total_retries == 2
    breaker = CircuitBreaker(1, 60.0)
    breaker.force_open()
    with pytest.raises(Exception, match="open"):
        run(kit, retries.replace(circuit_breaker=breaker).execute(fails_twice, "that"))


@pytest.mark.parametrize("apart", [True, False])
def test_work_is_done_apart_if_that_is_wanted(apart):
    workers = BlockingKit().workers("Hashing", threads=1, queue=0, apart=apart)

    assert (drive(workers.run(threading.get_ident)) != threading.get_ident()) is apart
    workers.close()


@both()
def test_limits_are_counted(kit):
    store = MemoryStore()
    limiters = [kit.limiter("1/minute", name=name, store=store) for name in ("one", "other")]

    async def charge():
        return await kit.acquire_all([(limiter, ["key"]) for limiter in limiters])

    async def twice():
        return (await charge()).allowed, (await charge()).allowed

    assert run(kit, twice()) == (True, False)


@both()
def test_what_is_periodic_is_done_and_stopped(kit):
    done = threading.Event()

    async def job():
        done.set()

    async def whole():
        periodic = kit.periodic(job, 0.01, name="job")
        await settled(periodic.start())
        give_up_at = time.monotonic() + PATIENCE
        while not done.is_set() and time.monotonic() < give_up_at:
            await kit.sleep(0.005)
        return await settled(periodic.stop(timeout=PATIENCE))

    assert run(kit, whole())
    assert done.is_set()


# --- flights -------------------------------------------------------------------------------------


class Work:
    """A piece of work that waits until all who ask for it are there."""

    def __init__(self, outcome="done"):
        self.begun = 0
        self.may_end = threading.Event()
        self._outcome = outcome

    async def __call__(self):
        self.begun += 1
        assert self.may_end.wait(PATIENCE)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def share_on_threads(flights, work, threads=50):
    """Have so many threads ask for the same, and the work end when all but the first wait for it."""
    waiting = threading.Semaphore(0)

    def ask():
        waiting.release()
        return drive(flights.share("key", work))

    with ThreadPoolExecutor(threads) as pool:
        asking = [pool.submit(ask) for _ in range(threads)]
        for _ in range(threads):
            assert waiting.acquire(timeout=PATIENCE)
        time.sleep(0.05)  # until the last ones wait as well; if not, they begin a flight of their own
        work.may_end.set()
        return asking


def test_fifty_threads_share_one_flight():
    flights, work = SharedByThreads(), Work()
    assert {future.result() for future in share_on_threads(flights, work)} == {"done"}
    assert work.begun == 1
    drive(flights.share("key", work))
    assert work.begun == 2  # that one has landed


def test_fifty_threads_share_one_failure():
    flights, work = SharedByThreads(), Work(BreakageError("once"))
    failures = [future.exception() for future in share_on_threads(flights, work)]
    assert {type(failure) for failure in failures} == {BreakageError}
    assert work.begun == 1
    with pytest.raises(BreakageError):
        drive(flights.share("key", work))
    assert work.begun == 2


def test_a_thread_whose_time_is_up_waits_no_more_and_the_flight_goes_on():
    flights, work = SharedByThreads(), Work()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(lambda: drive(flights.share("key", work)))
        while not work.begun:
            time.sleep(0.001)
        with deadline(0.02), pytest.raises(DeadlineExceeded):
            drive(flights.share("key", work))
        work.may_end.set()
        assert first.result() == "done"


def test_a_time_out_of_the_flight_s_own_stays_what_it_is():
    flights, work = SharedByThreads(), Work(TimeoutError("the work's"))
    for failure in [future.exception() for future in share_on_threads(flights, work, threads=5)]:
        assert type(failure) is TimeoutError
        assert str(failure) == "the work's"


def test_flights_of_other_keys_do_not_wait():
    flights, work = SharedByThreads(), Work()

    async def other():
        return "other"

    with ThreadPoolExecutor() as pool:
        first = pool.submit(lambda: drive(flights.share("key", work)))
        assert drive(flights.share("other key", other)) == "other"
        work.may_end.set()
        assert first.result() == "done"


class TaskWork:
    """The same for tasks."""

    def __init__(self, outcome="done"):
        self.begun = 0
        self.may_end = asyncio.Event()
        self._outcome = outcome

    async def __call__(self):
        self.begun += 1
        await self.may_end.wait()
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


@pytest.mark.parametrize("outcome", ["done", BreakageError("once"), TimeoutError("the work's")])
async def test_fifty_tasks_share_one_flight(outcome):
    flights, work = SharedByTasks(), TaskWork(outcome)
    asking = [asyncio.create_task(flights.share("key", work)) for _ in range(50)]
    await asyncio.sleep(0)
    work.may_end.set()
    assert await asyncio.gather(*asking, return_exceptions=True) == [outcome] * 50
    assert work.begun == 1


async def test_a_cancelled_task_leaves_and_the_flight_goes_on():
    flights, work = SharedByTasks(), TaskWork()
    first = asyncio.create_task(flights.share("key", work))
    second = asyncio.create_task(flights.share("key", work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.may_end.set()
    assert await second == "done"
    assert work.begun == 1


async def test_a_flight_that_everybody_has_left_ends_without_a_word(caplog):
    flights, work = SharedByTasks(), TaskWork(BreakageError())
    first = asyncio.create_task(flights.share("key", work))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    work.may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0.01)
    assert not caplog.records
    work.may_end.clear()
    again = asyncio.create_task(flights.share("key", work))
    await asyncio.sleep(0.01)
    assert work.begun == 2
    work.may_end.set()
    with pytest.raises(BreakageError):
        await again


async def test_a_task_whose_time_is_up_waits_no_more():
    flights, work = SharedByTasks(), TaskWork()
    first = asyncio.create_task(flights.share("key", work))
    await asyncio.sleep(0)
    with deadline(0.02), pytest.raises(DeadlineExceeded):
        await flights.share("key", work)
    work.may_end.set()
    assert await first == "done"


# --- what flows with a request -------------------------------------------------------------------


def test_a_driven_coroutine_sees_the_caller_s_context_and_deadline():
    variable = contextvars.ContextVar("variable")

    async def look():
        return variable.get(), remaining()

    variable.set("set")
    with deadline(5.0):
        value, left = drive(look())
    assert value == "set"
    assert 4 < left <= 5


def test_a_reply_in_pieces_is_made_in_the_context_of_whoever_takes_them_and_closed():
    variable = contextvars.ContextVar("variable", default="outside")
    closed = []

    class Source:
        def __init__(self):
            self.left = 2

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return variable.get().encode()

        async def aclose(self):
            closed.append(variable.get())

    context = contextvars.copy_context()
    context.run(variable.set, "inside")
    pieces = wsgi.Pieces(Source())
    assert context.run(list, pieces) == [b"inside", b"inside"]
    context.run(pieces.close)
    assert closed == ["inside"]
    abandoned = wsgi.Pieces(Source())
    assert next(abandoned) == b"outside"
    abandoned.close()
    assert closed == ["inside", "outside"]
