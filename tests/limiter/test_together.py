from __future__ import annotations

import asyncio
import threading

import pytest

from resilience.errors import RateLimitedError
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.together import (
    acquire_all,
    acquire_all_async,
    require_all,
    require_all_async,
    reserve_all,
    reserve_all_async,
)
from resilience.stores.memory import MemoryStore
from resilience.stores.sqlite import SQLiteStore
from resilience.testing import EventRecorder, FakeClock


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def told():
    return EventRecorder()


class Login:
    """The three limits of a login."""

    def __init__(self, kind, store, told):
        def make(quota, name):
            return kind(quota, name=name, store=store, on_refused=told)

        self.pair = make("6/15 minutes", "login")
        self.address = make("8/hour", "per_address")
        self.email = make("10/hour", "per_email")

    def pairs(self, email="ada", address="::1"):
        return [(self.pair, (email, address)), (self.address, (address,)), (self.email, (email,))]


@pytest.fixture(params=["memory", "sqlite"])
def store(request, clock, tmp_path):
    if request.param == "memory":
        yield MemoryStore(clock=clock)
    else:
        with SQLiteStore(tmp_path / "limits.db", clock=clock) as sqlite:
            yield sqlite


@pytest.fixture
def login(store, told):
    return Login(RateLimiter, store, told)


@pytest.fixture
def login_async(store, told):
    return Login(AsyncRateLimiter, store, told)


def test_all_or_none(login, told):
    assert [acquire_all(login.pairs()).remaining for _ in range(6)] == [5, 4, 3, 2, 1, 0]
    refused = acquire_all(login.pairs())
    assert (refused.allowed, refused.limiter, refused.remaining) == (False, "login", 0)
    assert login.address.peek("::1").remaining == 2
    assert login.email.peek("ada").remaining == 4
    assert [(event.limiter, event.key) for event in told] == [("login", ("ada", "::1"))]


def test_names_the_one_that_refuses_longest(login, clock, told):
    for email in "abcdefgh":
        assert acquire_all(login.pairs(email))
    refused = acquire_all(login.pairs("ada"))
    assert (refused.limiter, refused.retry_after) == ("per_address", 3600)
    assert login.email.peek("ada").remaining == 10
    with pytest.raises(RateLimitedError, match="'per_address'"):
        require_all(login.pairs("ada"))
    assert len(told) == 2


def test_require_and_cost(login):
    assert require_all(login.pairs(), cost=2).remaining == 4
    with pytest.raises(RateLimitedError, match="'login'"):
        require_all(login.pairs(), cost=7)


def test_reserve_and_refund(login):
    with reserve_all(login.pairs()) as charge:
        assert charge.decision.limiter == "login"
        charge.refund()
    assert acquire_all(login.pairs()).remaining == 5
    for _ in range(5):
        acquire_all(login.pairs())
    with pytest.raises(RateLimitedError), reserve_all(login.pairs()):
        pytest.fail("it was refused")


def test_equal_keys_of_one_limiter_are_charged_together(login):
    assert acquire_all([(login.email, ("ada",)), (login.email, ("ada",))]).remaining == 8
    assert acquire_all([(login.email, ("ada",)), (login.email, ("bob",))]).remaining == 7


async def test_async(login_async, told):
    for _ in range(6):
        assert await acquire_all_async(login_async.pairs())
    refused = await acquire_all_async(login_async.pairs())
    assert refused.limiter == "login"
    assert (await login_async.address.peek("::1")).remaining == 2
    with pytest.raises(RateLimitedError):
        await require_all_async(login_async.pairs())
    assert (await require_all_async(login_async.pairs("bob"))).limiter == "per_address"
    async with reserve_all_async(login_async.pairs("bob")) as charge:
        await charge.refund()
    assert (await login_async.address.peek("::1")).remaining == 1
    assert len(told) == 2


def test_what_is_refused(login, login_async):
    with pytest.raises(ValueError, match="no limiter is given"):
        acquire_all([])
    with pytest.raises(TypeError, match="is not a RateLimiter"):
        acquire_all(login_async.pairs())
    with pytest.raises(TypeError, match=r"write \('ada',\)"):
        acquire_all([(login.email, "ada")])
    with pytest.raises(ValueError, match="in one store"):
        acquire_all([*login.pairs(), (RateLimiter("1/s"), ())])


def test_one_who_waits_comes_first():
    clock = FakeClock(auto=False)
    told = EventRecorder()
    store = MemoryStore(clock=clock)
    login = Login(RateLimiter, store, told)
    login.email.acquire("ada", cost=10)
    thread = threading.Thread(target=login.email.acquire, args=("ada",))
    thread.start()
    clock.wait_for_sleepers(1)
    refused = acquire_all(login.pairs())
    assert (refused.allowed, refused.limiter) == (False, "per_email")
    assert login.pair.peek("ada", "::1").remaining == 6
    assert [event.limiter for event in told] == ["per_email"]
    clock.advance(3600)
    thread.join(5)


async def test_one_who_waits_comes_first_async():
    clock = FakeClock(auto=False)
    told = EventRecorder()
    login = Login(AsyncRateLimiter, MemoryStore(clock=clock), told)
    await login.email.acquire("ada", cost=10)
    waiting = asyncio.create_task(login.email.acquire("ada"))
    await clock.wait_for_sleepers_async(1)
    assert (await acquire_all_async(login.pairs())).limiter == "per_email"
    clock.advance(3600)
    assert await waiting


def test_one_who_waits_comes_first_for_those_who_reserve_too():
    clock = FakeClock(auto=False)
    login = Login(RateLimiter, MemoryStore(clock=clock), EventRecorder())
    with reserve_all(login.pairs(), cost=6) as charge:
        thread = threading.Thread(target=login.pair.acquire, args=("ada", "::1"))
        thread.start()
        clock.wait_for_sleepers(1)
        clock.step(900)
        with pytest.raises(RateLimitedError, match="'login'"):
            reserve_all(login.pairs()).__enter__()
        charge.refund()  # which wakes it
    thread.join(5)
    assert not thread.is_alive()
    assert login.pair.peek("ada", "::1").remaining == 5
    assert login.email.peek("ada").remaining == 10


async def test_one_who_waits_comes_first_for_those_who_reserve_too_async():
    clock = FakeClock(auto=False)
    login = Login(AsyncRateLimiter, MemoryStore(clock=clock), EventRecorder())
    async with reserve_all_async(login.pairs(), cost=6) as charge:
        waiting = asyncio.create_task(login.pair.acquire("ada", "::1"))
        await clock.wait_for_sleepers_async(1)
        clock.step(900)
        with pytest.raises(RateLimitedError, match="'login'"):
            await reserve_all_async(login.pairs()).__aenter__()
        await charge.refund()
    assert await asyncio.wait_for(waiting, 5)


def test_behind_others_the_one_that_refuses_longest_is_named_too():
    clock = FakeClock(auto=False)
    told = EventRecorder()
    login = Login(RateLimiter, MemoryStore(clock=clock), told)
    login.pair.acquire("ada", "::1", cost=6)
    login.email.acquire("ada", cost=10)
    thread = threading.Thread(target=login.pair.acquire, args=("ada", "::1"))
    thread.start()
    clock.wait_for_sleepers(1)
    refused = acquire_all(login.pairs())
    assert (refused.limiter, refused.retry_after) == ("per_email", 3600)
    assert [event.limiter for event in told] == ["login", "per_email"]
    clock.advance(900)
    thread.join(5)


def test_a_limiter_that_refuses_by_two_quotas_tells_so_once(store, told):
    api = RateLimiter("1/second", "1/hour", name="api", store=store, on_refused=told)
    assert acquire_all([(api, ("ada",))])
    assert not acquire_all([(api, ("ada",))])
    assert [(event.limiter, event.retry_after) for event in told] == [("api", 3600)]
