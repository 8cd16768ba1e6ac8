"""What several processes count together is counted once each: none lost, none doubled, all or none."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from resilience._core.counting import Charge
from tests.processes import workers
from tests.stores.conformance import ALGORITHMS, counter
from tests.stores.places import postgres_place, redis_place, sqlite_place


@pytest.fixture(scope="module")
def team():
    with workers(4) as four:
        yield four


@pytest.fixture
def name():
    return f"processes_{uuid4().hex}"


def plenty(algorithm):
    return counter("1000/hour", limiter="plenty", algorithm=algorithm)


def take_and_give_back(number, ready, place, each):
    """Take 50 times two units for a key that all share, and give every second of them back."""
    charge = Charge(each, "shared", 2)
    with place.opened() as store:
        store.peek([charge])
        ready()
        for turn in range(50):
            (decision,) = store.take([charge])
            assert decision
            if turn % 2:
                store.refund([charge], [decision.receipt])


def take_and_give_back_on_a_loop(number, ready, place, each):
    """The same, in 50 tasks."""
    charge = Charge(each, "shared", 2)

    async def turn(store, turn):
        (decision,) = await store.take([charge])
        assert decision
        if turn % 2:
            await store.refund([charge], [decision.receipt])

    async def work():
        async with place.opened_on_a_loop() as store:
            await store.peek([charge])
            ready()
            await asyncio.gather(*[turn(store, number) for number in range(50)])

    asyncio.run(work())


def take_pairs(number, ready, place):
    """Take from two limits at once, in one order or the other; return how often both were admitted."""
    pair = [Charge(counter("30/hour", limiter="one"), "ada"), Charge(counter("7/hour", limiter="two"), "::1")]
    if number % 2:
        pair.reverse()
    with place.opened() as store:
        store.peek(pair)
        ready()
        return sum(all(store.take(pair)) for _ in range(20))


class Processes:
    """The tests; collected through a subclass for each place."""

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    @pytest.mark.parametrize("act", [take_and_give_back, take_and_give_back_on_a_loop])
    def test_no_count_is_lost_or_doubled(self, team, place, algorithm, act):
        each = plenty(algorithm)
        team.at_once(act, place, each)
        with place.opened() as store:
            # 4 processes, 25 charges each that stand, 2 units each. In gcra units come back while it runs.
            left = store.peek([Charge(each, "shared")])[0].remaining
            assert left == 800 if algorithm != "gcra" else 800 <= left <= 805

    def test_several_limits_are_taken_all_or_none(self, team, place):
        assert sum(team.at_once(take_pairs, place)) == 7
        with place.opened() as store:
            one, two = counter("30/hour", limiter="one"), counter("7/hour", limiter="two")
            decisions = store.peek([Charge(one, "ada"), Charge(two, "::1")])
            assert [decision.remaining for decision in decisions] == [23, 0]


class TestSQLite(Processes):
    @pytest.fixture
    def place(self, tmp_path):
        return sqlite_place(tmp_path)


class TestRedis(Processes):
    @pytest.fixture
    def place(self, redis_server, name):
        return redis_place(redis_server, name)


class TestPostgres(Processes):
    @pytest.fixture
    def place(self, postgres_server, name):
        return postgres_place(postgres_server, name)
