from __future__ import annotations

import asyncio
import bisect
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience._core.share import HOT
from resilience.errors import DeadlineExceeded, RateLimitedError
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.share import PATIENCE, Share, share_of
from resilience.limiter.together import acquire_all
from resilience.stores import StoreUnavailable
from resilience.stores.memory import MemoryStore
from resilience.testing import FakeClock, cancel_at_every_tick, wait_until, wait_until_async
from tests.limiter.servers import AsyncServer, Server
from tests.threads import together


@pytest.fixture
def clock():
    return FakeClock(auto=False)


@pytest.fixture
def server(clock):
    return Server(clock)


@pytest.fixture
def async_server(clock):
    return AsyncServer(clock)


class Twin:
    """An `AsyncRateLimiter` that is called as its sync twin is."""

    def __init__(self, *quotas, store, **options):
        server = AsyncServer(store.clock)
        server.counts, server.asked = store.counts, store.asked
        self.store = server
        self.plain = store
        self.limiter = AsyncRateLimiter(*quotas, store=server, **options)

    def __getattr__(self, name):
        method = getattr(self.limiter, name)

        def call(*args, **options):
            self.store.is_away = self.plain.is_away
            return asyncio.run(method(*args, **options))

        return call


both = pytest.mark.parametrize("make", [RateLimiter, Twin], ids=["sync", "async"])


def takes(server):
    return [units for method, *units in server.asked if method == "take"]


def heat(limiter, key="k"):
    """Use the units that are asked for one by one."""
    for _ in range(HOT):
        assert limiter.try_acquire(key)


def left(server, limiter):
    """Return the units that the server has left."""
    charges = getattr(limiter, "limiter", limiter).charges("k", 1)
    return server.counts.peek(charges)[0].remaining


# --- how much at once ----------------------------------------------------------------------------


@both
def test_full_load_takes_fifty_decisions_a_round_trip_and_more(make, server):
    limiter = make("100000/minute", name="api", store=server, share=0.001)
    for _ in range(200):  # it gets hot, and batches grow
        limiter.try_acquire("k")
    before = server.trips
    assert all(limiter.try_acquire("k") for _ in range(5000))
    assert 5000 / (server.trips - before) >= 50
    assert max(takes(server)) == [100]


@both
def test_a_window_is_used_up_to_the_last_unit_and_no_further(make, server):
    limiter = make("1000/minute", name="api", store=server, share=0.1)
    decisions = [limiter.try_acquire("k") for _ in range(1000)]
    assert all(decisions)
    assert [decision.remaining for decision in decisions] == list(range(999, -1, -1))
    *charged, refused_batch, rest = (units for (units,) in takes(server))
    assert refused_batch > rest == 1000 - sum(charged)
    refused = limiter.try_acquire("k")
    assert (refused.allowed, refused.remaining, refused.limit) == (False, 0, 1000)
    assert refused.retry_after == limiter.peek("k").retry_after > 0


@both
def test_a_refusal_is_as_for_what_was_asked(make, server):
    limiter = make("100/minute", "60/second", name="api", store=server, share=0.5)
    assert limiter.try_acquire("k", cost=50)
    refused = limiter.try_acquire("k", cost=20)
    assert (refused.allowed, refused.remaining) == (False, 10)
    assert str(refused.quota) == "60/second"
    assert limiter.try_acquire("k", cost=10)
    assert not limiter.try_acquire("k")
    with pytest.raises(RateLimitedError, match="60/second"):
        limiter.require("k")


@both
def test_where_less_remains_than_a_batch_that_is_taken(make, server):
    limiter = make("50/minute", name="api", store=server, share=0.4)
    other = make("50/minute", name="api", store=server)
    heat(limiter)
    assert other.try_acquire("k", cost=33)  # 7 are left
    before = len(takes(server))
    assert all(limiter.try_acquire("k") for _ in range(7))
    assert takes(server)[before:] == [[11], [7]]
    assert not limiter.try_acquire("k")


@both
def test_where_even_what_remained_is_gone_the_call_itself_is_asked_for(make, server, monkeypatch):
    limiter = make("50/minute", name="api", store=server, share=0.4)
    other = RateLimiter("50/minute", name="api", store=server.counts)
    heat(limiter)
    assert other.try_acquire("k", cost=33)  # 7 are left
    asked = server.counts.take
    answers = []

    def another_is_quicker(charges):
        decisions = asked(charges)
        answers.append(decisions)
        if len(answers) == 1:
            other.try_acquire("k", cost=4)
        return decisions

    monkeypatch.setattr(server.counts, "take", another_is_quicker)
    before = len(takes(server))
    assert limiter.try_acquire("k")
    assert takes(server)[before:] == [[11], [7], [3]]
    assert all(limiter.try_acquire("k") for _ in range(2))
    assert not limiter.try_acquire("k")


@both
def test_a_small_share_takes_one_by_one(make, server):
    limiter = make("6/minute", name="login", store=server, share=0.1)
    assert [bool(limiter.try_acquire("k")) for _ in range(7)] == [True] * 6 + [False]
    assert takes(server) == [[1]] * 7


@both
def test_peek_looks_into_the_batch_first(make, server):
    limiter = make("1000/minute", name="api", store=server, share=0.1)
    heat(limiter)
    limiter.try_acquire("k")
    before = server.trips
    assert limiter.peek("k").remaining == 989
    assert limiter.peek("k", cost=10)
    assert server.trips == before
    assert limiter.peek("k", cost=11).remaining == 979  # of which the ten in the batch are none
    assert server.asked[-1] == ("peek", 11)


@both
def test_refunds_go_to_the_store(make, server):
    limiter = make("1000/minute", name="api", store=server, share=0.1)
    heat(limiter)
    limiter.try_acquire("k")
    if make is RateLimiter:
        with limiter.reserve("k") as charge:
            charge.refund()
    else:

        async def block():
            async with limiter.limiter.reserve("k") as charge:
                await charge.refund()

        asyncio.run(block())
    assert server.asked[-1] == ("refund", 1)
    assert left(server, limiter) == 1000 - HOT - 11 + 1


@both
def test_a_reset_forgets_the_batch(make, server):
    limiter = make("1000/minute", name="api", store=server, share=0.1)
    heat(limiter)
    limiter.try_acquire("k")
    limiter.reset("k")
    assert limiter.try_acquire("k").remaining == 999


@both
def test_what_is_unused_goes_back_when_the_store_is_asked_next(make, server, clock):
    limiter = make("1000/minute", name="api", store=server, share=0.1)
    heat(limiter)
    limiter.try_acquire("k")
    clock.advance(1.0)
    assert limiter.try_acquire("other")
    assert server.asked[-2:] == [("refund", 10), ("take", 1)]
    assert left(server, limiter) == 1000 - HOT - 1


@both
def test_one_batch_gives_way_to_the_next(make, server, clock):
    limiter = make("1000/minute", name="api", store=server, share=0.1)
    heat(limiter)
    limiter.try_acquire("k")
    clock.advance(1.0)
    assert limiter.try_acquire("k")
    assert server.asked[-2:] == [("refund", 10), ("take", 11)]
    assert left(server, limiter) == 1000 - HOT - 1 - 11


@both
def test_where_giving_back_fails_the_units_lapse(make, server, clock, monkeypatch):
    limiter = make("1000/minute", name="api", store=server, share=0.1)
    heat(limiter)
    limiter.try_acquire("k")
    clock.advance(1.0)

    def fail(charges, receipts):
        raise StoreUnavailable("away")

    monkeypatch.setattr(server.counts, "refund", fail)
    assert limiter.try_acquire("other")
    assert left(server, limiter) == 1000 - HOT - 11
    clock.advance(62.0)
    assert left(server, limiter) == 1000


@both
def test_a_batch_outlives_the_store(make, server):
    limiter = make("1000/minute", name="api", store=server, share=0.1)
    heat(limiter)
    limiter.try_acquire("k")
    server.is_away = True
    assert all(limiter.try_acquire("k") for _ in range(10))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="the server is away") as caught:
            limiter.try_acquire("k")
        assert caught.value.retry_after == 5.0


def test_limiters_that_are_asked_together_take_what_they_use(server):
    limiter = RateLimiter("1000/minute", name="api", store=server, share=0.1)
    heat(limiter)
    limiter.try_acquire("k")
    assert acquire_all([(limiter, ("k",))])
    assert takes(server)[-2:] == [[11], [1]]


# --- several at once -----------------------------------------------------------------------------


async def in_flight(server, limiter, count):
    """Return the gate of a batch that one of `count` tasks is fetching, and the tasks."""
    for _ in range(HOT):
        await limiter.try_acquire("k")
    gate = server.hold()
    tasks = [asyncio.ensure_future(limiter.try_acquire("k")) for _ in range(count)]
    await server.clock.wait_for_sleepers_async(count - 1)
    return gate, tasks


async def test_one_task_fetches_for_all(async_server):
    limiter = AsyncRateLimiter("1000/minute", name="api", store=async_server, share=0.1)
    gate, tasks = await in_flight(async_server, limiter, 8)
    gate.set()
    assert all(await asyncio.gather(*tasks))
    assert takes(async_server)[HOT:] == [[11]]


def test_one_thread_fetches_for_all(server, clock):
    limiter = RateLimiter("1000/minute", name="api", store=server, share=0.1)
    heat(limiter)
    gate = server.hold()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(limiter.try_acquire("k"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    clock.wait_for_sleepers(4)
    assert limiter.try_acquire("other")  # who waits for one key is in nobody's way with another
    gate.set()
    for thread in threads:
        thread.join(30)
    assert len(answers) == 5
    assert all(answers)
    assert takes(server)[HOT:] == [[1], [11]]


async def test_a_refusal_goes_for_all_who_want_as_much(async_server):
    limiter = AsyncRateLimiter("50/minute", name="api", store=async_server, share=0.5)
    for _ in range(5):
        await limiter.try_acquire("k", cost=2)
    assert await AsyncRateLimiter("50/minute", name="api", store=async_server).try_acquire("k", cost=39)
    gate = async_server.hold()
    large, larger, small = (asyncio.ensure_future(limiter.try_acquire("k", cost=cost)) for cost in (2, 3, 1))
    await async_server.clock.wait_for_sleepers_async(2)
    gate.set()
    assert not await large
    refused = await larger
    assert (refused.allowed, refused.remaining) == (False, 1)
    assert await small
    assert takes(async_server)[6:] == [[12], [13], [1]]


async def test_an_outage_goes_for_all_who_wait(async_server):
    limiter = AsyncRateLimiter("1000/minute", name="api", store=async_server, share=0.1)
    gate, tasks = await in_flight(async_server, limiter, 8)
    async_server.is_away = True
    gate.set()
    failures = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(failure, StoreUnavailable) for failure in failures)
    assert len(set(map(id, failures))) == 8  # one shared exception would gather everybody's traceback
    assert len(takes(async_server)) == HOT + 1


async def test_another_failure_is_that_callers_own(async_server, monkeypatch):
    limiter = AsyncRateLimiter("1000/minute", name="api", store=async_server, share=0.1)
    gate, tasks = await in_flight(async_server, limiter, 3)
    ask = async_server.ask

    def fail_once(*arguments):
        monkeypatch.setattr(async_server, "ask", ask)
        raise DeadlineExceeded("the caller had no more time")

    monkeypatch.setattr(async_server, "ask", fail_once)
    gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes].count("DeadlineExceeded") == 1
    assert sum(bool(outcome) for outcome in outcomes[1:]) == 2


class Hurried(FakeClock):
    """A clock on which every wait for an event is over at once."""

    async def wait_async(self, event, timeout):  # noqa: ASYNC109 - as a clock has it
        assert timeout == PATIENCE
        await asyncio.sleep(0)
        return event.is_set()


async def test_one_who_is_stopped_in_the_middle_stops_nobody():
    server = AsyncServer(Hurried())
    limiter = AsyncRateLimiter("1000/minute", name="api", store=server, share=0.1)
    for _ in range(HOT):
        await limiter.try_acquire("k")
    gate = server.hold()
    tasks = [asyncio.ensure_future(limiter.try_acquire("k")) for _ in range(3)]
    assert all(await asyncio.gather(*tasks[1:]))
    assert takes(server)[HOT:] == [[1], [1]]
    gate.set()
    assert await tasks[0]


def test_a_thread_that_is_stopped_in_the_middle_stops_nobody(server, clock):
    limiter = RateLimiter("1000/minute", name="api", store=server, share=0.1)
    heat(limiter)
    gate = server.hold()
    fetching = threading.Thread(target=limiter.try_acquire, args=("k",))
    fetching.start()
    wait_until(lambda: not server.gates)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(limiter.try_acquire("k")))
    waiting.start()
    clock.wait_for_sleepers(1)
    clock.advance(PATIENCE)
    waiting.join(30)
    assert all(answers)
    gate.set()
    fetching.join(30)


def test_threads_learn_of_a_refusal_together(server, clock):
    limiter = RateLimiter("50/minute", name="api", store=server, share=0.5)
    heat(limiter)
    assert RateLimiter("50/minute", name="api", store=server).try_acquire("k", cost=40)
    gate = server.hold()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(limiter.try_acquire("k"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    clock.wait_for_sleepers(2)
    gate.set()
    for thread in threads:
        thread.join(30)
    assert [bool(answer) for answer in answers] == [False] * 3
    assert len(takes(server)) == HOT + 2


async def test_who_is_cancelled_while_fetching_lets_another_fetch(async_server):
    limiter = AsyncRateLimiter("1000/minute", name="api", store=async_server, share=0.1)
    _, tasks = await in_flight(async_server, limiter, 4)
    await wait_until_async(lambda: not async_server.gates)
    tasks[0].cancel()
    assert all(await asyncio.gather(*tasks[1:]))
    assert tasks[0].cancelled()
    assert takes(async_server)[HOT:] == [[12]]


def test_whoever_is_cancelled_whenever_the_others_are_served():
    scene = {}

    async def run():
        server = AsyncServer(FakeClock(auto=False))
        limiter = AsyncRateLimiter("1000/minute", name="api", store=server, share=0.1)
        scene.update(served=[], whole=False)
        served = scene["served"]

        async def work():
            await limiter.try_acquire("k")
            await asyncio.sleep(0)
            served.append(1)

        for _ in range(HOT):
            await limiter.try_acquire("k")
        gate = server.hold()
        tasks = [asyncio.ensure_future(work()) for _ in range(4)]
        for _ in range(3):
            await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        scene["whole"] = True

    def check():
        assert not scene["whole"] or len(scene["served"]) >= 3

    assert cancel_at_every_tick(run, check) > 10


def test_threads_on_one_key_get_no_more_than_the_limit(server):
    server.clock = FakeClock(auto=False, yielding=True)
    limiter = RateLimiter("500/minute", name="api", store=server, share=0.1)
    admitted = together(4, lambda _: sum(bool(limiter.try_acquire("k")) for _ in range(200)))
    assert sum(admitted) == 500


# --- what a window can be overshot by ------------------------------------------------------------


def most_in_a_window(used, seconds):
    """Return the most units in any window, of which it is enough to look at those that begin with a use."""
    instants = [round(at * 1e9) for at in used]  # in order, and as stores count time
    window = round(seconds * 1e9)
    return max(bisect.bisect_left(instants, start + window) - at for at, start in enumerate(instants))


ALL_THERE_IS = 1000

STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # the process
        st.sampled_from([1, 12, 22, 23, 40, ALL_THERE_IS, ALL_THERE_IS]),  # its calls, till one is refused
        st.sampled_from([1, 1, 1, 1, 2, 3]),  # what each costs
        st.sampled_from([0.0, 0.0, 0.05, 0.2, 0.24, 0.25, 0.75, 0.8, 1.0]),  # the pause after them
        st.sampled_from([True] * 8 + [False]),  # whether the units are used, or given back
    ),
    min_size=3,
    max_size=20,
)


@settings(max_examples=10 * settings().max_examples)
@given(steps=STEPS, limit=st.sampled_from([64, 100]), processes=st.integers(1, 3))
def test_no_window_is_overshot_by_more_than_a_batch_of_each_process(steps, limit, processes):
    clock = FakeClock(auto=False)
    server = Server(clock)
    limiters = [
        RateLimiter(f"{limit}/second", name="api", store=server, share=0.25) for _ in range(processes)
    ]
    used = []
    for process, calls, cost, pause, are_used in steps:
        limiter = limiters[process % processes]
        for _ in range(calls):
            try:
                with limiter.reserve("k", cost=cost) as charge:
                    if are_used:
                        used += [clock.now()] * cost
                    else:
                        charge.refund()
            except RateLimitedError:
                break
            if not are_used and calls == ALL_THERE_IS:
                break
        clock.advance(pause)
    if used:
        assert most_in_a_window(used, 1.0) <= limit + processes * limit // 4


def test_a_window_can_be_overshot_so_the_bound_is_not_an_idle_one(clock):
    limiter = RateLimiter("64/10 seconds", name="api", store=Server(clock), share=0.25)
    used = []

    def use(count):
        for _ in range(count):
            assert limiter.try_acquire("k")
            used.append(clock.now())

    use(10 + 11 + 1)  # the last one takes a batch of 16, of which 15 are left
    clock.advance(0.75)
    use(15)  # charged 0.75 s earlier
    use(64 - 37)
    clock.advance(9.25)
    use(37)
    assert most_in_a_window(used, 10.0) == 64 + 15


# --- making one ----------------------------------------------------------------------------------


def test_arguments(server):
    for share in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share must be a finite number above 0 and of at most 1"):
            RateLimiter("6/minute", name="api", store=server, share=share)
    for share in (True, "0.1"):
        with pytest.raises(TypeError, match="share must be a number"):
            AsyncRateLimiter("6/minute", name="api", store=server, share=share)
    with pytest.raises(ValueError, match="a MemoryStore has none to spare: leave share out"):
        RateLimiter("6/minute", name="api", store=MemoryStore(), share=0.1)


def test_what_it_comes_to(server):
    quotas = RateLimiter("100/minute", "20/second", name="api", store=server).quotas
    assert share_of(None, quotas, server) is None
    assert share_of(0.05, quotas, server) is None
    assert share_of(0.1, quotas, server) == Share(2, 0.1)
    assert share_of(1, quotas[:1], server) == Share(100, 1.0)
