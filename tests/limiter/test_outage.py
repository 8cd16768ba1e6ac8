from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from resilience import events
from resilience._core.quota import Decision, Quota
from resilience.errors import RateLimitedError
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.outage import is_uncounted
from resilience.limiter.together import (
    acquire_all,
    acquire_all_async,
    require_all,
    reserve_all,
    reserve_all_async,
)
from resilience.stores import StoreUnavailable
from resilience.stores.memory import MemoryStore
from resilience.testing import EventRecorder, FakeClock
from tests.limiter.servers import AsyncServer, Server


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def told():
    recorder = EventRecorder()
    unsubscribe = events.subscribe(recorder)
    yield recorder
    unsubscribe()


class Twin:
    """An `AsyncRateLimiter` that is called as its sync twin is."""

    def __init__(self, *quotas, **options):
        self.limiter = AsyncRateLimiter(*quotas, **options)

    def __getattr__(self, name):
        method = getattr(self.limiter, name)
        return lambda *args, **options: asyncio.run(method(*args, **options))

    def reserve(self, *key, **options):
        return Block(self.limiter.reserve(*key, **options))


class Block:
    """An async reservation that is used as its sync twin is."""

    def __init__(self, reservation):
        self.reservation = reservation

    def __enter__(self):
        asyncio.run(self.reservation.__aenter__())
        self.decision = self.reservation.decision
        return self

    def __exit__(self, *exception):
        asyncio.run(self.reservation.__aexit__(*exception))

    def refund(self):
        asyncio.run(self.reservation.refund())


class Sync:
    """The sync functions and classes, with a server."""

    def __init__(self, clock):
        self.server = Server(clock)
        self.acquire_all = acquire_all
        self.reserve_all = reserve_all

    def limiter(self, *quotas, **options):
        return RateLimiter(*quotas, store=self.server, **options)

    def pairs(self, *limiters):
        return [(limiter, ("k",)) for limiter in limiters]


class Async:
    """The async ones, called the same way."""

    def __init__(self, clock):
        self.server = AsyncServer(clock)

    def limiter(self, *quotas, **options):
        return Twin(*quotas, store=self.server, **options)

    def pairs(self, *limiters):
        return [(limiter.limiter, ("k",)) for limiter in limiters]

    def acquire_all(self, pairs, **options):
        return asyncio.run(acquire_all_async(pairs, **options))

    def reserve_all(self, pairs, **options):
        return Block(reserve_all_async(pairs, **options))


@pytest.fixture(params=[Sync, Async])
def side(request, clock):
    return request.param(clock)


@pytest.fixture
def server(side):
    return side.server


# --- closed, and without a policy ----------------------------------------------------------------


@pytest.mark.parametrize("policy", [None, "closed"])
def test_closed_raises_and_never_refuses(side, server, policy):
    login = side.limiter("6/minute", name="login", on_outage=policy)
    with login.reserve("k") as charge:
        server.is_away = True
        for call in (login.try_acquire, login.require, login.acquire, login.peek, login.reset):
            with pytest.raises(StoreUnavailable, match="the server is away") as caught:
                call("k")
            assert caught.value.status == 503
            assert caught.value.retry_after == 5.0
        with pytest.raises(StoreUnavailable):
            charge.refund()
    with pytest.raises(StoreUnavailable):
        login.stats()
    server.is_away = False
    assert login.try_acquire("k").remaining == 4


# --- open ----------------------------------------------------------------------------------------


def test_open_lets_all_pass_uncounted(side, server, told):
    login = side.limiter("2/minute", name="login", on_outage="open")
    assert login.try_acquire("k").remaining == 1
    server.is_away = True
    for call in (login.try_acquire, login.require, login.acquire, login.peek):
        for _ in range(3):
            decision = call("k")
            assert decision.allowed
            assert (decision.remaining, decision.limit, decision.limiter) == (2, 2, "login")
            assert (decision.reset_after, decision.retry_after) == (0.0, 0.0)
    assert {(type(event).__name__, event.limiter, event.policy) for event in told} == {
        ("StoreOutage", "login", "open")
    }
    assert all(isinstance(event.exception, StoreUnavailable) for event in told)
    assert len(told) == 12
    server.is_away = False
    assert login.try_acquire("k").remaining == 0
    assert not login.try_acquire("k")


def test_open_refuses_what_can_never_fit(side, server):
    login = side.limiter("2/minute", name="login", on_outage="open")
    server.is_away = True
    assert login.try_acquire("k", cost=2)
    refused = login.try_acquire("k", cost=3)
    assert (refused.allowed, refused.retry_after) == (False, None)
    with pytest.raises(RateLimitedError, match="costs more than 2/minute ever allows"):
        login.acquire("k", cost=3)


def test_what_was_never_taken_is_not_given_back_to_the_store(side, server):
    login = side.limiter("6/minute", name="login", on_outage="open")
    assert login.try_acquire("k", cost=3)
    server.is_away = True
    with login.reserve("k") as charge:
        server.is_away = False
        before = server.trips
        charge.refund()
    assert server.trips == before
    assert login.peek("k").remaining == 3


def test_what_cannot_be_given_back_or_reset_counts_until_it_lapses(side, server, told):
    login = side.limiter("6/minute", name="login", on_outage="open")
    with login.reserve("k") as charge:
        server.is_away = True
        charge.refund()
        login.reset("k")
    assert [event.policy for event in told] == ["open", "open"]
    server.is_away = False
    assert login.peek("k").remaining == 5


# --- local ---------------------------------------------------------------------------------------


def test_local_counts_a_part_of_the_limit(side, server, clock, told):
    login = side.limiter("6/minute", "9/hour", name="login", on_outage="local", processes=3)
    assert login.try_acquire("k").remaining == 5
    server.is_away = True
    decisions = [login.try_acquire("k") for _ in range(3)]
    assert [bool(decision) for decision in decisions] == [True, True, False]
    assert (decisions[2].limit, decisions[2].retry_after, decisions[2].limiter) == (2, 60.0, "login")
    assert str(decisions[2].quota) == "2/minute"
    assert login.peek("k") == decisions[2]
    clock.advance(60)
    assert login.acquire("k").remaining == 0
    with pytest.raises(RateLimitedError):
        login.require("k")
    assert {event.policy for event in told if isinstance(event, events.StoreOutage)} == {"local"}
    server.is_away = False
    assert login.try_acquire("k").remaining == 5  # of what was counted here the server knows nothing
    server.is_away = True
    assert not login.try_acquire("k")  # and here it counts until it lapses


def test_local_waits_for_its_own_units(side, server, clock):
    login = side.limiter("4/minute", name="login", on_outage="local", processes=4)
    server.is_away = True
    started = clock.now()
    for _ in range(3):
        login.acquire("k")
    assert clock.now() - started == 120


def test_local_has_at_least_one_unit(side, server):
    login = side.limiter("6/minute", name="login", on_outage="local", processes=100)
    server.is_away = True
    assert [bool(login.try_acquire("k")) for _ in range(2)] == [True, False]


def test_local_takes_all_of_its_part_for_what_costs_more(side, server):
    login = side.limiter("6/minute", name="login", on_outage="local", processes=3)
    server.is_away = True
    with login.reserve("k", cost=5) as charge:
        assert charge.decision.remaining == 0
        charge.refund()
    assert login.try_acquire("k", cost=5).remaining == 0
    refused = login.try_acquire("k", cost=5)
    assert (refused.allowed, refused.retry_after) == (False, 60.0)
    assert login.try_acquire("k", cost=7).retry_after is None


def test_local_units_come_back_here(side, server):
    login = side.limiter("6/minute", name="login", on_outage="local", processes=3)
    server.is_away = True
    with login.reserve("k") as charge:
        server.is_away = False
        before = server.trips
        charge.refund()
        assert server.trips == before
    server.is_away = True
    assert login.peek("k").remaining == 2
    login.try_acquire("k")
    login.reset("k")
    assert login.peek("k").remaining == 2


def test_units_of_the_store_go_back_to_it_in_the_end(side, server):
    login = side.limiter("6/minute", name="login", on_outage="local", processes=3)
    with login.reserve("k") as charge:
        charge.refund()
    assert server.asked[-1] == ("refund", 1)
    assert login.peek("k").remaining == 6


def test_limiters_of_one_name_and_quota_count_together_here_too(side, server):
    first, second = (side.limiter("6/minute", name="login", on_outage="local", processes=3) for _ in range(2))
    server.is_away = True
    assert first.try_acquire("k").remaining == 1
    assert second.try_acquire("k").remaining == 0


@pytest.mark.parametrize("algorithm", ["sliding-window", "gcra", "fixed-window"])
def test_local_goes_by_the_same_algorithm(side, server, algorithm):
    quota = Quota(200, per=60.0, algorithm=algorithm)
    login = side.limiter(quota, name="login", on_outage="local", processes=2)
    server.is_away = True
    decision = login.try_acquire("k", cost=100)
    assert str(decision.quota) == str(Quota(100, per=60.0, algorithm=algorithm))
    assert decision.remaining == 0


# --- several limiters ----------------------------------------------------------------------------


def test_of_several_the_strictest_decides(side, server, told):
    opened = side.limiter("6/minute", name="open", on_outage="open")
    local = side.limiter("6/minute", name="local", on_outage="local", processes=3)
    closed = side.limiter("6/minute", name="closed", on_outage="closed")
    without = side.limiter("6/minute", name="without")
    server.is_away = True
    assert side.acquire_all(side.pairs(opened, opened)).remaining == 6
    assert side.acquire_all(side.pairs(opened, local)).limiter == "local"
    for strict in (closed, without):
        with pytest.raises(StoreUnavailable):
            side.acquire_all(side.pairs(opened, local, strict))
    assert side.acquire_all(side.pairs(opened, local)).remaining == 0  # the two that raised took nothing
    refused = side.acquire_all(side.pairs(opened, local))
    assert (refused.allowed, refused.limiter) == (False, "local")
    assert {(event.limiter, event.policy) for event in told if isinstance(event, events.StoreOutage)} == {
        ("open", "open"),
        ("local", "local"),
        ("closed", "closed"),
    }
    with pytest.raises(StoreUnavailable):
        side.acquire_all(side.pairs(without))


def test_several_are_all_or_none_here_too(side, server):
    many = side.limiter("8/minute", name="many", on_outage="local", processes=2)
    few = side.limiter("2/minute", name="few", on_outage="local", processes=2)
    opened = side.limiter("3/minute", name="open", on_outage="open")
    server.is_away = True
    assert side.acquire_all(side.pairs(many, few))
    assert not side.acquire_all(side.pairs(many, few))
    assert many.peek("k").remaining == 3
    assert not side.acquire_all(side.pairs(many, opened), cost=4)  # more than the open one ever allows
    assert many.peek("k").remaining == 3
    with side.reserve_all(side.pairs(many, opened)) as charge:
        assert many.peek("k").remaining == 2
        charge.refund()
    assert many.peek("k").remaining == 3


def test_several_on_a_store_that_is_there(side, server):
    opened = side.limiter("6/minute", name="open", on_outage="open")
    without = side.limiter("3/minute", name="without")
    with side.reserve_all(side.pairs(opened, without)) as charge:
        assert charge.decision.remaining == 2
        charge.refund()
    assert opened.peek("k").remaining == 6


def test_require_all_is_a_503_too(clock):
    server = Server(clock)
    limiter = RateLimiter("6/minute", name="login", store=server)
    server.is_away = True
    with pytest.raises(StoreUnavailable):
        require_all([(limiter, ("k",))])


# --- in line -------------------------------------------------------------------------------------


async def test_nobody_is_sent_behind_others_where_nothing_is_counted():
    clock = FakeClock(auto=False)
    server = AsyncServer(clock)
    login = AsyncRateLimiter("1/hour", name="login", store=server, on_outage="open")
    await login.acquire("k")
    waiting = asyncio.ensure_future(login.acquire("k"))
    await clock.wait_for_sleepers_async(1)
    assert not await login.try_acquire("k")
    server.is_away = True
    assert await login.try_acquire("k")
    assert await acquire_all_async([(login, ("k",))])
    assert await login.peek("k")
    clock.advance(3600)
    assert (await waiting).remaining == 1


def test_only_what_is_open_is_uncounted(clock):
    server = Server(clock)
    server.is_away = True
    opened = RateLimiter("6/minute", name="open", store=server, on_outage="open")
    local = RateLimiter("6/minute", name="local", store=server, on_outage="local", processes=2)
    assert is_uncounted(opened.try_acquire())
    assert not is_uncounted(local.try_acquire())
    assert not is_uncounted(Decision.of(True, Quota(6, per=60.0), remaining=5))


# --- with a share --------------------------------------------------------------------------------


def test_a_batch_is_used_up_before_the_policy_decides(side, server):
    api = side.limiter("1000/minute", name="api", share=0.1, on_outage="local", processes=500)
    for _ in range(11):
        api.try_acquire("k")
    server.is_away = True
    assert [api.try_acquire("k").limit for _ in range(12)] == [1000] * 10 + [2] * 2
    assert not api.try_acquire("k")


# --- making one ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RateLimiter, AsyncRateLimiter])
def test_arguments(kind):
    with pytest.raises(ValueError, match="on_outage must be one of open, closed, local or None, not 'ajar'"):
        kind("6/minute", on_outage="ajar")
    with pytest.raises(TypeError, match="on_outage='local' needs processes"):
        kind("6/minute", on_outage="local")
    for policy in ("open", "closed", None):
        with pytest.raises(ValueError, match="processes is for on_outage='local'"):
            kind("6/minute", on_outage=policy, processes=4)
    with pytest.raises(ValueError, match="processes must be at least 1, not 0"):
        kind("6/minute", on_outage="local", processes=0)
    with pytest.raises(TypeError, match=r"processes must be a whole number, not 1\.5"):
        kind("6/minute", on_outage="local", processes=1.5)


def test_memory_is_never_away(clock):
    login = RateLimiter("6/minute", name="login", store=MemoryStore(clock=clock), on_outage="open")
    assert login.try_acquire("k").remaining == 5
    assert login.try_acquire("k", cost=5).remaining == 0
    assert not login.try_acquire("k")


def test_a_store_that_is_let_go_of_is_not_kept(clock):
    server = Server(clock)
    RateLimiter("6/minute", name="login", store=server, on_outage="open")
    gone = weakref.ref(server)
    del server
    gc.collect()
    assert gone() is None
