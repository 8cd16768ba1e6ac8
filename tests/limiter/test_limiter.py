from __future__ import annotations

import asyncio
import copy
import functools
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from resilience._core.key import canonical
from resilience.deadline import deadline
from resilience.errors import DeadlineExceeded, RateLimitedError
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.stores.memory import MemoryStore
from resilience.stores.sqlite import SQLiteStore
from resilience.testing import EventRecorder, FakeClock, wait_until_async


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def still():
    """A clock that moves only when told."""
    return FakeClock(auto=False)


class AsyncStoreDouble:
    """A store that is awaited, as those of servers are."""

    shared = True

    def __init__(self, clock):
        self._memory = MemoryStore(clock=clock)
        self.clock = clock

    async def take(self, charges):
        return self._memory.take(charges)

    async def peek(self, charges):
        return self._memory.peek(charges)


# --- both, made to look alike --------------------------------------------------------------------


class Twin:
    """An `AsyncRateLimiter` that is called as its sync twin is."""

    def __init__(self, *quotas, **options):
        self.limiter = AsyncRateLimiter(*quotas, **options)

    def __getattr__(self, name):
        method = getattr(self.limiter, name)
        return lambda *args, **options: asyncio.run(method(*args, **options))


both = pytest.mark.parametrize("make", [RateLimiter, Twin], ids=["sync", "async"])


@both
def test_six_and_no_more(make, clock):
    login = make("6/15 minutes", name="login", clock=clock)
    decisions = [login.try_acquire("ada", "192.0.2.1") for _ in range(7)]
    assert [bool(decision) for decision in decisions] == [True] * 6 + [False]
    assert decisions[6].retry_after == 900
    assert decisions[6].limiter == "login"
    assert login.try_acquire("ada", "192.0.2.2")
    clock.advance(900)
    assert login.try_acquire("ada", "192.0.2.1")


@both
def test_the_quick_way_and_the_long_way_count_together(make, clock):
    login = make("3/hour", clock=clock)
    assert login.try_acquire(42).remaining == 2
    assert login.try_acquire("42").remaining == 1
    assert login.try_acquire("42", cost=1).remaining == 0
    assert login.try_acquire("e\u0301", cost=2).remaining == 1
    assert login.try_acquire("é").remaining == 0
    assert login.try_acquire().remaining == 2
    assert login.try_acquire().remaining == 1


@both
def test_several_quotas_are_all_or_nothing(make, clock):
    limiter = make("2/second", "3/hour", name="api", clock=clock)
    assert [limiter.try_acquire("k").remaining for _ in range(2)] == [1, 0]
    refused = limiter.try_acquire("k")
    assert (refused.allowed, str(refused.quota), refused.retry_after) == (False, "2/second", 1)
    clock.advance(1)
    last = limiter.try_acquire("k")
    assert (last.allowed, str(last.quota)) == (True, "3/hour")
    refused = limiter.try_acquire("k", cost=2)
    assert str(refused.quota) == "3/hour"
    assert refused.retry_after == 3599
    assert refused.remaining == 0


@both
def test_cost(make, clock):
    limiter = make("10/minute", clock=clock)
    assert limiter.try_acquire("k", cost=8).remaining == 2
    assert limiter.try_acquire("k", cost=3).retry_after == 60
    assert limiter.try_acquire("k", cost=11).retry_after is None
    with pytest.raises(RateLimitedError, match="costs more than 10/minute ever allows"):
        limiter.require("k", cost=11)
    for cost in (0, -1):
        with pytest.raises(ValueError, match="cost must be at least 1"):
            limiter.try_acquire("k", cost=cost)
    for cost in (True, 1.5, "1", None):
        with pytest.raises(TypeError, match="cost must be a whole number"):
            limiter.acquire("k", cost=cost)


@both
def test_keys_that_are_none(make):
    limiter = make("1/hour")
    for _ in range(2):
        for key in (None, ["ada"], 1.5, b"ada"):
            with pytest.raises(TypeError, match="the parts of a key"):
                limiter.try_acquire(key)
        with pytest.raises(ValueError, match="a part of the key is empty"):
            limiter.require("ada", "")


@both
def test_require_raises_with_the_decision(make, clock):
    login = make("1/minute", name="login", clock=clock)
    assert login.require("ada").remaining == 0
    with pytest.raises(RateLimitedError, match="rate limiter 'login': 1/minute reached") as caught:
        login.require("ada")
    assert caught.value.retry_after == 60
    assert caught.value.decision == login.peek("ada")


@both
def test_peek_and_reset(make, clock):
    login = make("2/minute", clock=clock)
    assert login.peek("ada").remaining == 2
    login.try_acquire("ada")
    assert login.peek("ada", cost=2).retry_after == 60
    login.reset("ada")
    assert login.peek("ada").remaining == 2


@both
def test_refusals_are_told(make, clock):
    told = EventRecorder()
    login = make("1/minute", name="login", clock=clock, on_refused=told)
    login.try_acquire("ada", "::1")
    login.try_acquire("ada", "::1")
    login.try_acquire("ada", cost=2)
    with pytest.raises(RateLimitedError):
        login.acquire("ada", "::1", timeout=0)
    assert [(event.limiter, event.key, event.retry_after) for event in told] == [
        ("login", ("ada", "::1"), 60),
        ("login", ("ada",), None),
        ("login", ("ada", "::1"), 60),
    ]


@both
def test_refusals_of_a_key_in_use_are_told_too(make, clock):
    told = EventRecorder()
    login = make("1/minute", clock=clock, on_refused=told)
    for _ in range(3):
        login.try_acquire("ada")
    assert len(told) == 2


@both
def test_stats(make, clock):
    login = make("6/15 minutes", name="login", clock=clock)
    login.try_acquire("ada", "::1", cost=2)
    clock.advance(60)
    login.try_acquire("bob")
    stats = login.stats()
    assert (stats.name, stats.active_keys, stats.complete) == ("login", 2, True)
    ada = next(entry for entry in stats.entries if entry.key == ("ada", "::1"))
    assert (ada.count, ada.reset_after, ada.reset_at) == (2, 840, clock.wall() + 840)
    assert str(ada.quota) == "6/15 minutes"
    some = login.stats(1)
    assert (len(some.entries), some.active_keys, some.complete) == (1, 2, False)
    hashed = {entry.key for entry in login.stats(hashed=True).entries}
    assert len(hashed) == 2
    assert not hashed & {("ada", "::1"), ("bob",)}
    assert hashed == {entry.key for entry in login.stats(hashed=True).entries}
    clock.advance(900)
    assert login.stats().active_keys == 0


@both
def test_stats_count_keys_and_not_quotas(make, clock):
    limiter = make("6/minute", "9/hour", clock=clock)
    limiter.try_acquire("ada")
    assert limiter.stats().active_keys == 1
    assert len(limiter.stats().entries) == 2


@both
@pytest.mark.parametrize("limit", [0, -1])
def test_stats_show_at_least_one(make, limit):
    with pytest.raises(ValueError, match="limit must be at least 1"):
        make("6/minute").stats(limit)


@both
def test_acquire_waits_as_long_as_it_takes(make, clock):
    limiter = make("1/minute", clock=clock)
    limiter.acquire("k")
    started = clock.now()
    assert limiter.acquire("k").allowed
    assert clock.now() - started == 60


@both
def test_acquire_does_not_begin_a_wait_that_is_too_long(make, clock):
    limiter = make("1/minute", clock=clock)
    limiter.acquire("k", timeout=0)
    with pytest.raises(RateLimitedError):
        limiter.acquire("k", timeout=59.9)
    with pytest.raises(RateLimitedError):
        limiter.acquire("k", cost=2)
    assert clock.now() == 1000
    assert limiter.acquire("k", timeout=60)


@both
def test_acquire_keeps_to_the_deadline(make, clock):
    limiter = make("1/minute", name="slow", clock=clock)
    with deadline(30, clock=clock):
        limiter.acquire("k")
        with pytest.raises(RateLimitedError):
            limiter.acquire("k")
        clock.advance(30)
        with pytest.raises(DeadlineExceeded, match="waiting for rate limiter 'slow' was not begun"):
            limiter.acquire("k")
    assert clock.now() == 1030


@both
@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_acquire_refuses_a_timeout_that_is_none(make, timeout):
    with pytest.raises(ValueError, match="timeout must be a finite number of at least 0"):
        make("1/minute").acquire("k", timeout=timeout)


# --- construction --------------------------------------------------------------------------------

either = pytest.mark.parametrize("kind", [RateLimiter, AsyncRateLimiter])


@either
def test_names_and_quotas(kind):
    limiter = kind("6/15 minutes", "100/day gcra")
    assert limiter.name == "6/15 minutes, 100/day gcra"
    assert [str(quota) for quota in limiter.quotas] == ["6/15 minutes", "100/day gcra"]
    assert repr(kind("6/minute", name="login")) == f"<{kind.__name__} 'login': 6/minute>"


@either
def test_what_is_refused(kind, clock):
    with pytest.raises(TypeError, match="at least one quota"):
        kind()
    with pytest.raises(ValueError, match="given twice: 6/15 minutes, 6/15 minutes"):
        kind("6/15 min", "6/15 minutes")
    with pytest.raises(TypeError, match="written as a string"):
        kind(6)
    with pytest.raises(ValueError, match="needs a name"):
        kind("6/minute", store=MemoryStore())
    with pytest.raises(ValueError, match="by its own clock"):
        kind("6/minute", name="x", store=MemoryStore(), clock=clock)
    for name in ("", 6):
        with pytest.raises(ValueError, match="name must be a non-empty string"):
            kind("6/minute", name=name)


@either
def test_one_clock_for_both_is_fine(kind, clock):
    assert kind("6/minute", name="x", store=MemoryStore(clock=clock), clock=clock)


@either
def test_a_limiter_is_neither_copied_nor_pickled(kind):
    limiter = kind("6/minute", name="login")
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            attempt(limiter)


def test_limiters_of_one_name_and_quota_share_a_store_s_counts():
    store = MemoryStore()
    one, other = (RateLimiter("2/hour", name="login", store=store) for _ in range(2))
    changed = RateLimiter("3/hour", name="login", store=store)
    one.try_acquire("ada")
    assert other.try_acquire("ada").remaining == 0
    assert changed.peek("ada").remaining == 3


def test_a_store_that_is_awaited_needs_the_async_limiter(clock):
    with pytest.raises(TypeError, match="is awaited: use AsyncRateLimiter"):
        RateLimiter("6/minute", name="x", store=AsyncStoreDouble(clock))


async def test_a_store_that_is_awaited(clock):
    limiter = AsyncRateLimiter("1/minute", name="x", store=AsyncStoreDouble(clock), require_shared=True)
    assert await limiter.try_acquire("k")
    assert await limiter.acquire("k")
    assert clock.now() == 1060


def test_a_subclass_keeps_its_own_try_acquire():
    class Lenient(RateLimiter):
        def try_acquire(self, *key, cost=1):
            return "always"

    assert Lenient("1/hour").try_acquire("k") == "always"


def test_on_sqlite(tmp_path, clock):
    with SQLiteStore(tmp_path / "limits.db", clock=clock) as store:
        limiter = RateLimiter("1/minute", "5/hour", name="x", store=store, require_shared=True)
        assert limiter.try_acquire("k")
        assert limiter.acquire("k")
        assert clock.now() == 1060


# --- reserve -------------------------------------------------------------------------------------


def test_reserve_refuses_as_require_does(clock):
    told = EventRecorder()
    login = RateLimiter("1/minute", name="login", clock=clock, on_refused=told)
    login.try_acquire("ada")
    with pytest.raises(RateLimitedError, match="'login'"), login.reserve("ada"):
        pytest.fail("it was refused")
    assert len(told) == 1


# --- decorators ----------------------------------------------------------------------------------


def test_limit_decorates_functions(clock):
    limiter = RateLimiter("3/minute", clock=clock)

    @limiter.limit(key=lambda user, text: user, cost=2)
    def search(user, text):
        """Search."""
        return f"{user}: {text}"

    assert search("ada", text="x") == "ada: x"
    assert (search.__name__, search.__doc__) == ("search", "Search.")
    with pytest.raises(RateLimitedError):
        search("ada", "y")
    assert search("bob", "y") == "bob: y"


def test_limit_takes_parts_methods_and_partials():
    limiter = RateLimiter("1/minute")

    class Service:
        @limiter.limit(key=lambda self, user, ip: (user, ip))
        def login(self, user, ip):
            return user

    assert Service().login("ada", "::1") == "ada"
    assert Service().login("ada", "::2") == "ada"
    with pytest.raises(RateLimitedError):
        Service().login("ada", "::1")
    everybody = limiter.limit()(functools.partial(int, "7"))
    assert everybody() == 7
    with pytest.raises(RateLimitedError):
        everybody()


async def test_limit_decorates_coroutine_functions(clock):
    limiter = AsyncRateLimiter("1/minute", clock=clock)

    @limiter.limit(key=lambda user: user)
    async def search(user):
        return user

    assert await search("ada") == "ada"
    with pytest.raises(RateLimitedError):
        await search("ada")

    @limiter.limit()
    async def anything():
        return 1

    assert await anything() == 1


@pytest.mark.parametrize("kind", [RateLimiter, AsyncRateLimiter])
def test_limit_refuses_at_decoration_what_no_call_could_use(kind):
    with pytest.raises(TypeError, match="key must be a function"):
        kind("1/s").limit(key="user")
    with pytest.raises(ValueError, match="cost must be at least 1"):
        kind("1/s").limit(cost=0)


def test_limit_refuses_what_it_cannot_guard():
    async def coroutine(): ...

    def generator():
        yield

    async def asynchronous_generator():
        yield

    for fn in (coroutine, generator, asynchronous_generator):
        with pytest.raises(TypeError, match="use AsyncRateLimiter"):
            RateLimiter("1/s").limit()(fn)
    for fn in (generator, asynchronous_generator, len):
        with pytest.raises(TypeError, match="use RateLimiter"):
            AsyncRateLimiter("1/s").limit()(fn)


# --- waiting in line -----------------------------------------------------------------------------


def wait_in_line(limiter, count):
    """Return once `count` calls wait for any key."""
    from resilience.testing import wait_until

    wait_until(lambda: sum(map(len, tuple(limiter._lines.by_key.values()))) >= count)


def test_threads_are_served_in_order_of_arrival(still):
    limiter = RateLimiter("1/minute", clock=still)
    limiter.acquire("k")
    served = []

    def work(number):
        limiter.acquire("k")
        served.append(number)

    threads = []
    for number in range(4):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        wait_in_line(limiter, number + 1)
        still.wait_for_sleepers(number + 1)
    for number in range(4):
        still.advance(60)
        threads[number].join(5)
        assert served == list(range(number + 1))
    assert not limiter._lines.by_key


async def test_tasks_are_served_in_order_of_arrival(still):
    limiter = AsyncRateLimiter("1/minute", clock=still)
    await limiter.acquire("k")
    served = []

    async def work(number):
        await limiter.acquire("k")
        served.append(number)

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(work(number)))
        await still.wait_for_sleepers_async(number + 1)
    for number in range(4):
        still.advance(60)
        await tasks[number]
        assert served == list(range(number + 1))
    assert not limiter._lines.by_key


async def test_a_big_cost_is_not_overtaken_by_small_ones(still):
    limiter = AsyncRateLimiter("4/minute", clock=still)
    for _ in range(4):
        await limiter.try_acquire("k")
        still.advance(10)
    big = asyncio.create_task(limiter.acquire("k", cost=4))
    await still.wait_for_sleepers_async(1)
    still.advance(20)  # one unit has lapsed, but it is the big one's turn
    refused = await limiter.try_acquire("k")
    assert not refused
    assert refused.retry_after > 0
    assert await limiter.try_acquire("other")
    small = asyncio.create_task(limiter.acquire("k"))
    await asyncio.sleep(0)
    still.advance(30)
    assert (await big).remaining == 0
    assert not small.done()
    await still.wait_for_sleepers_async(1)
    still.advance(60)
    assert await small


async def test_those_who_wait_for_another_key_are_not_waited_for(still):
    limiter = AsyncRateLimiter("1/minute", clock=still)
    await limiter.acquire("k")
    waiting = asyncio.create_task(limiter.acquire("k"))
    await still.wait_for_sleepers_async(1)
    assert await limiter.acquire("other")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not limiter._lines.by_key


async def test_one_who_would_wait_too_long_behind_others_is_refused_at_once(still):
    limiter = AsyncRateLimiter("2/minute", clock=still)
    await limiter.acquire("k")
    still.advance(30)
    await limiter.acquire("k")
    waiting = asyncio.create_task(limiter.acquire("k"))
    await still.wait_for_sleepers_async(1)
    with pytest.raises(RateLimitedError) as caught:
        await limiter.acquire("k", timeout=50)  # one is free in 30 s, but it is spoken for
    assert caught.value.retry_after == 60
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


def test_one_who_comes_behind_others_just_as_they_are_served(still):
    limiter = RateLimiter("1/minute", clock=still)
    limiter.acquire("k")
    thread = threading.Thread(target=limiter.acquire, args=("k",))
    thread.start()
    wait_in_line(limiter, 1)
    still.wait_for_sleepers(1)
    still.step(60)  # the unit is there, but the one who waits for it has not woken yet
    refused = limiter.try_acquire("k")
    assert (refused.allowed, refused.remaining, refused.retry_after) == (False, 0, 60)
    still.advance(0)
    thread.join(5)


def test_nobody_gets_past_a_thread_that_waits(still):
    limiter = RateLimiter("2/minute", clock=still)
    with limiter.reserve("k", cost=2) as charge:
        thread = threading.Thread(target=limiter.acquire, args=("k",))
        thread.start()
        wait_in_line(limiter, 1)
        still.wait_for_sleepers(1)
        still.step(60)  # the units are there, but the one who waits for them has not woken yet
        assert not limiter.try_acquire("k")
        assert not limiter.peek("k")
        with pytest.raises(RateLimitedError):
            limiter.reserve("k").__enter__()
        charge.refund()  # which wakes it
    thread.join(5)
    assert limiter.peek("k").remaining == 1


async def test_nobody_gets_past_a_task_that_waits(still):
    limiter = AsyncRateLimiter("2/minute", clock=still)
    async with limiter.reserve("k", cost=2) as charge:
        waiting = asyncio.create_task(limiter.acquire("k"))
        await still.wait_for_sleepers_async(1)
        still.step(60)
        assert not await limiter.try_acquire("k")
        assert not await limiter.peek("k")
        with pytest.raises(RateLimitedError):
            await limiter.reserve("k").__aenter__()
        await charge.refund()
    assert await asyncio.wait_for(waiting, 5)
    assert (await limiter.peek("k")).remaining == 1


def test_a_thread_that_waits_is_served_when_the_key_is_forgotten(still):
    limiter = RateLimiter("1/hour", clock=still)
    limiter.acquire("k")
    thread = threading.Thread(target=limiter.acquire, args=("k",))
    thread.start()
    still.wait_for_sleepers(1)
    limiter.reset("k")
    thread.join(5)
    assert not thread.is_alive()
    assert limiter.peek("k").remaining == 0


async def test_a_task_that_waits_is_served_when_the_key_is_forgotten(still):
    limiter = AsyncRateLimiter("1/hour", clock=still)
    await limiter.acquire("k")
    waiting = asyncio.create_task(limiter.acquire("k"))
    await still.wait_for_sleepers_async(1)
    await limiter.reset("k")
    assert await asyncio.wait_for(waiting, 5)


def test_a_crowd_of_threads_gets_what_there_is(clock):
    limiter = RateLimiter("10/minute", clock=clock)
    with ThreadPoolExecutor(8) as pool:
        decisions = list(pool.map(lambda _: limiter.acquire("k"), range(40)))
    assert all(decisions)
    assert not limiter._lines.by_key


async def test_cancelled_calls_leave_the_line(still):
    limiter = AsyncRateLimiter("1/minute", clock=still)
    await limiter.acquire("k")
    first = asyncio.create_task(limiter.acquire("k"))
    second = asyncio.create_task(limiter.acquire("k"))
    await still.wait_for_sleepers_async(2)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await wait_until_async(lambda: still.sleepers == 1)
    still.advance(60)
    assert await second


async def test_a_call_that_is_cancelled_already_charges_nothing(clock):
    limiter = AsyncRateLimiter("1/minute", clock=clock)

    async def cancelled(call):
        asyncio.current_task().cancel()
        await call

    async def enter():
        async with limiter.reserve("k"):
            pytest.fail("it was cancelled")

    for make in (
        lambda: limiter.try_acquire("k"),
        lambda: limiter.acquire("k"),
        lambda: limiter.require("k"),
        enter,
    ):
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(cancelled(make()))
    assert (await limiter.peek("k")).remaining == 1


@pytest.mark.parametrize("parts", [(), ("ada", "192.0.2.1"), ("x" * 5000,)], ids=["none", "two", "long"])
def test_bytes_are_no_key_even_where_they_equal_what_a_key_is_held_as(parts):
    limiter = RateLimiter("6/hour")
    limiter.try_acquire(*parts)

    with pytest.raises(TypeError, match="the parts of a key are str or int"):
        limiter.try_acquire(canonical(parts))
    assert limiter.peek(*parts).remaining == 5
