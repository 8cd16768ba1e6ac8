"""What every store must do, tested over each of them: a test module gives the fixture `make_store`.

`make_store(clock)` returns a store that counts on `clock`, a `FakeClock`. A store for event loops is tested
by the same suite: the fixture `awaited` asks it as if it were one for threads.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from resilience._core.counting import Charge
from resilience._core.quota import Quota, counter_of
from resilience.stores.memory import MemoryStore
from resilience.testing import FakeClock

ALGORITHMS = ["sliding-window", "gcra", "fixed-window"]


def counter(notation="6/15 minutes", limiter="login", **options):
    return counter_of(limiter, Quota.parse(notation, **options))


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(make_store, clock):
    return make_store(clock)


@pytest.fixture(params=[*ALGORITHMS, "sliding counts"])
def six(request):
    """Six units in 15 minutes; the sliding window in parts needs costs of 11 out of 66 to be that."""
    if request.param == "sliding counts":
        return counter("66/15 minutes"), 11
    return counter(algorithm=request.param), 1


class Awaited:
    """A store for event loops, asked from threads: each question is awaited on one loop in its own thread."""

    blocking = True

    def __init__(self, make):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._store = make()
        self.clock = self._store.clock
        self.shared = self._store.shared

    def _awaited(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(60)

    def take(self, charges):
        return self._awaited(self._store.take(charges))

    def peek(self, charges):
        return self._awaited(self._store.peek(charges))

    def refund(self, charges, receipts):
        self._awaited(self._store.refund(charges, receipts))

    def reset(self, counters, key):
        self._awaited(self._store.reset(counters, key))

    def holding(self, counters, limit):
        return self._awaited(self._store.holding(counters, limit))

    def close(self):
        if hasattr(self._store, "close"):
            self._awaited(self._store.close())
        self._awaited(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def awaited():
    """Return a function that makes one for threads of a store for event loops, which `make()` returns."""
    made = []

    def new(make):
        made.append(Awaited(make))
        return made[-1]

    yield new
    for each in made:
        each.close()


def figures(decisions):
    """What decisions say, whatever they were worked out from."""
    return [
        (each.allowed, each.limit, each.remaining, each.reset_after, each.retry_after, each.limiter)
        for each in decisions
    ]


def taken(store, *charges):
    return [bool(decision) for decision in store.take(list(charges))]


class StoreConformance:
    """The tests; collected through a subclass in each store's own module."""

    def test_admits_the_limit_and_no_more(self, store, six):
        each, cost = six
        decisions = [store.take([Charge(each, "ada", cost)])[0] for _ in range(8)]
        assert [bool(decision) for decision in decisions] == [True] * 6 + [False] * 2
        assert [decision.remaining // cost for decision in decisions] == [5, 4, 3, 2, 1, 0, 0, 0]
        assert decisions[-1].retry_after > 0
        assert decisions[-1].limiter == "login"

    def test_admits_again_after_exactly_the_time_it_told(self, store, clock, six):
        each, cost = six
        for _ in range(6):
            store.take([Charge(each, "ada", cost)])
        wait = store.take([Charge(each, "ada", cost)])[0].retry_after
        clock.advance(wait - 0.000_01)
        assert taken(store, Charge(each, "ada", cost)) == [False]
        clock.advance(0.000_01)
        assert taken(store, Charge(each, "ada", cost)) == [True]

    def test_a_refusal_changes_nothing(self, store, clock, six):
        each, cost = six
        for _ in range(6):
            store.take([Charge(each, "ada", cost)])
        before = store.peek([Charge(each, "ada", cost)])
        for _ in range(3):
            store.take([Charge(each, "ada", cost)])
        assert store.peek([Charge(each, "ada", cost)]) == before

    def test_is_whole_again_after_the_time_it_told(self, store, clock, six):
        each, cost = six
        reset = store.take([Charge(each, "ada", cost)])[0].reset_after
        clock.advance(reset)
        assert store.peek([Charge(each, "ada")])[0].remaining == each.quota.limit
        assert store.holding([each], 10).entries == ()

    def test_keys_and_counters_count_apart(self, store):
        login, other = counter(), counter(limiter="other")
        for _ in range(6):
            store.take([Charge(login, "ada")])
        assert taken(store, Charge(login, "ada")) == [False]
        assert taken(store, Charge(login, "bob")) == [True]
        assert taken(store, Charge(other, "ada")) == [True]
        assert taken(store, Charge(counter("7/15 minutes"), "ada")) == [True]

    @pytest.mark.parametrize(
        "key", ["a\0b", "ключ", "a'; DROP TABLE x; --\n", "{a}:*", b"1:a1:b", b"#\x00\xff", b""]
    )
    def test_any_canonical_key(self, store, key):
        each = counter("1/hour")
        assert taken(store, Charge(each, key)) == [True]
        assert taken(store, Charge(each, key)) == [False]
        assert [entry.key for entry in store.holding([each], 10).entries] == [key]
        store.reset([each], key)
        assert taken(store, Charge(each, key)) == [True]

    def test_several_are_taken_all_or_none(self, store):
        narrow, wide = counter("1/hour"), counter("5/hour", limiter="address")
        charges = [Charge(narrow, "ada"), Charge(wide, "::1")]
        assert taken(store, *charges) == [True, True]
        decisions = store.take(charges)
        assert [bool(decision) for decision in decisions] == [False, True]
        assert decisions[1].remaining == 4
        assert store.peek([Charge(wide, "::1")])[0].remaining == 4

    def test_cost_above_the_limit_never_fits(self, store, six):
        each, _ = six
        for _ in range(2):
            decision = store.take([Charge(each, "ada", each.quota.limit + 1)])[0]
            assert not decision
            assert decision.retry_after is None
            assert decision.remaining == each.quota.limit
        assert taken(store, Charge(each, "ada", each.quota.limit)) == [True]

    def test_large_limits_and_long_windows(self, store):
        each = counter("1000000000/3660 days", algorithm="fixed-window")
        assert store.take([Charge(each, "ada", 999_999_999)])[0].remaining == 1
        assert store.take([Charge(each, "ada", 1)])[0].remaining == 0

    def test_peek_takes_nothing(self, store, six):
        each, cost = six
        first = store.peek([Charge(each, "ada", cost)])[0]
        assert first.allowed
        assert first.remaining == each.quota.limit
        assert store.peek([Charge(each, "ada", cost)])[0] == first
        assert not store.peek([Charge(each, "ada", each.quota.limit + 1)])[0]

    def test_refund_gives_back(self, store, six):
        each, cost = six
        kept = store.take([Charge(each, "ada", cost)])[0]
        charge = Charge(each, "ada", 2 * cost)
        decision = store.take([charge])[0]
        assert decision.remaining == 3 * cost
        store.refund([charge], [decision.receipt])
        assert store.peek([charge])[0].remaining == kept.remaining == 5 * cost

    def test_refund_of_a_single_unit_leaves_nothing(self, store, six):
        each, cost = six
        charge = Charge(each, "ada", cost)
        store.refund([charge], [store.take([charge])[0].receipt])
        assert store.holding([each], 10).entries == ()

    def test_refund_after_the_window_gives_nothing(self, store, clock, six):
        each, cost = six
        charge = Charge(each, "ada", cost)
        first = store.take([charge])[0]
        clock.advance(first.reset_after)
        store.take([charge])
        store.refund([charge], [first.receipt])
        assert store.peek([charge])[0].remaining == 5 * cost

    def test_reset_forgets_the_key(self, store):
        login, other = counter(), counter("9/hour")
        store.take([Charge(login, "ada", 6), Charge(other, "ada", 6), Charge(login, "bob", 6)])
        store.reset([login, other], "ada")
        store.reset([login, other], "nobody")
        left = store.peek([Charge(login, "ada"), Charge(other, "ada"), Charge(login, "bob")])
        assert [decision.remaining for decision in left] == [6, 9, 0]

    def test_holding_shows_what_counts(self, store, clock):
        login, other = counter(), counter("9/hour")
        store.take([Charge(login, "ada", 2), Charge(other, "ada", 2)])
        clock.advance(600)
        store.take([Charge(login, "bob")])
        holding = store.holding([login, other], 10)
        shown = {(entry.counter.scope, entry.key): entry for entry in holding.entries}
        assert holding.size == len(shown) == 3
        assert shown[login.scope, "ada"].remaining == 4
        assert shown[login.scope, "ada"].reset_after == pytest.approx(300)
        assert len(store.holding([login, other], 2).entries) == 2
        assert store.holding([counter("1/s")], 2) == (0, ())

    def test_a_clock_that_steps_back_admits_no_more(self, store, clock, six):
        each, cost = six
        for _ in range(6):
            store.take([Charge(each, "ada", cost)])
        for step in (-1, -30, -600, -7200):
            clock.step(step)
            assert taken(store, Charge(each, "ada", cost)) == [False]

    @pytest.mark.parametrize("seed", range(8))
    def test_decides_as_the_memory_store_does(self, store, clock, seed):
        # Large sliding windows are left out: where their parts begin depends on what a clock counts from.
        memory = MemoryStore(clock=clock)
        random = Random(seed)
        counters = [counter("3/minute"), counter("5/hour gcra"), counter("4/2 minutes fixed-window")]
        taken = []
        for _ in range(80):
            clock.advance(random.choice([0, 0, 0.25, 10, 45.5]))
            asked = random.sample(counters, random.choice([1, 1, 2]))
            charges = [Charge(each, random.choice("ab"), random.choice([1, 1, 2])) for each in asked]
            what = random.random()
            if what < 0.7:
                here, there = store.take(charges), memory.take(charges)
                assert figures(here) == figures(there)
                if all(here):
                    taken.append((charges, [decision.receipt for decision in here], there))
            elif what < 0.9 and taken:
                charges, receipts, decisions = taken.pop(random.randrange(len(taken)))
                store.refund(charges, receipts)
                memory.refund(charges, [decision.receipt for decision in decisions])
            elif what < 0.95:
                store.reset(asked, "a")
                memory.reset(asked, "a")
            assert figures(store.peek(charges)) == figures(memory.peek(charges))

    def test_a_thousand_threads_at_once(self, make_store):
        store = make_store(FakeClock(yielding=True))
        each = counter()
        barrier = threading.Barrier(16)

        def work(_):
            barrier.wait()
            return sum(taken(store, Charge(each, "ada"))[0] for _ in range(63))

        with ThreadPoolExecutor(16) as pool:
            assert sum(pool.map(work, range(16))) == 6

    def test_says_what_it_is(self, store, clock):
        assert store.clock is clock
        assert isinstance(store.shared, bool)
        assert isinstance(store.blocking, bool)
