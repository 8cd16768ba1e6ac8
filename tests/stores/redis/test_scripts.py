"""What Redis counts, compared with the rules of the house, on a real server and a clock of the test."""

from __future__ import annotations

from random import Random
from uuid import uuid4

import pytest
import redis

from resilience._core.counting import Charge
from resilience._core.fixed import FixedWindow
from resilience._core.gcra import Gcra
from resilience._core.sliding import SlidingCounts, SlidingLog
from resilience.stores.redis import scripts
from resilience.stores.redis.codec import Codec
from tests.stores.conformance import counter
from tests.stores.redis.fake_time import START, ServersClock, fake_time, tell

WINDOW = 63_000_000_000
"""Nanoseconds; a 63rd of it is a whole second, so that Redis rounds nothing."""

RULES = {
    "7/63 seconds": SlidingLog(7, WINDOW),
    "70/63 seconds": SlidingCounts(70, WINDOW),
    "7/63 seconds gcra": Gcra(7, WINDOW),
    "7/63 seconds fixed-window": FixedWindow(7, WINDOW),
}


class Server:
    """Runs requests one by one, as an engine would."""

    def __init__(self, client):
        self.client = client
        self.codec = Codec(f"scripts-{uuid4().hex}")

    def run(self, request):
        words = self.words(request.command)
        self.client.script_load(request.script.source)
        return self.client.execute_command(*words)

    @staticmethod
    def words(command):
        from resilience.stores.redis.wire import parsed

        return parsed(command)[0]

    def take(self, charges, token=None):
        request = self.codec.take(charges, token or uuid4().bytes, 60_000)
        return self.codec.taken(charges, self.run(request))

    def refund(self, charges, receipts):
        assert self.run(self.codec.refund(charges, receipts, uuid4().bytes, 60_000)) == b"1"

    def peek(self, charges):
        places = [(charge.counter, charge.key) for charge in charges]
        return self.codec.foreseen(charges, self.run(self.codec.peek(places)))


@pytest.fixture
def clock(redis_server):
    with redis.Redis.from_url(redis_server.url) as client, fake_time():
        one = ServersClock()
        one.client = client
        tell(client, one)
        yield one


@pytest.fixture
def server(clock):
    return Server(clock.client)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("several", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize("notation", RULES)
def test_counts_as_the_rules_do(server, clock, notation, several, seed):
    random, rules, each = Random(seed), RULES[notation], counter(notation)
    beside = [Charge(counter("1000000/hour fixed-window"), "beside")] if several else []
    state, receipts = None, []
    for _ in range(120):
        clock.advance(random.choice([0, 0.25, 1, 4.5, 17.000_001, 40]))
        now = (round(clock.now() * 1e6) + START) * 1000
        if random.random() < 0.75:
            cost = random.choice([1, 1, 2, 3]) * (7 if "70/" in notation else 1)
            after = rules.admit(state, now, cost)
            decision = server.take([Charge(each, "ada", cost), *beside])[0]
            assert bool(decision) == (after is not None)
            if after is not None:
                state = after
                receipts.append((cost, rules.receipt(state), decision.receipt))
                assert rules.receipt(state) == decision.receipt
        elif receipts:
            cost, expected, receipt = receipts.pop(random.randrange(len(receipts)))
            state = rules.refund(state, now, cost, expected)
            server.refund([Charge(each, "ada", cost)], [receipt])
        [seen] = server.peek([Charge(each, "ada")])
        assert seen.remaining == rules.remaining(state, now)
        assert seen.reset_after == (rules.whole_at(state, now) - now) / 1e9
        fits_at = rules.fits_at(state, now, 1)
        assert seen.retry_after == (fits_at - now) / 1e9


@pytest.mark.parametrize("notation", RULES)
def test_a_key_lives_until_it_is_whole_and_a_refusal_writes_nothing(server, clock, notation):
    each, limit = counter(notation), int(notation.split("/")[0])
    charge = Charge(each, "ada", limit)
    [decision] = server.take([charge])
    name = server.codec.form(each).name("ada")
    left = clock.client.pttl(name) / 1000
    assert decision.reset_after - 1 < left <= decision.reset_after + 0.001
    clock.client.pexpire(name, 12_345)
    before = clock.client.dump(name)
    [refusal] = server.take([charge])
    assert not refusal
    assert clock.client.dump(name) == before
    assert 12_000 < clock.client.pttl(name) <= 12_345
    assert not server.take([charge, Charge(each, "bob")])[0]
    assert not clock.client.exists(server.codec.form(each).name("bob"))


def test_keys_are_small(server, clock):
    """What the issue allows: 140 bytes for gcra, 250 for six in 15 minutes, names included."""
    for notation, most in {"100/hour gcra": 140, "6/15 minutes": 250}.items():
        each = counter(notation, limiter="login")
        codec = Codec("resilience")
        name = codec.form(each).name("ada.lovelace@example.com")
        server.codec = codec
        try:
            for _ in range(6):
                server.take([Charge(each, "ada.lovelace@example.com")])
            assert clock.client.memory_usage(name) <= most
        finally:
            clock.client.delete(name)


def test_sources_are_constants_of_one_arithmetic():
    assert len({script.sha for script in scripts.EVERY}) == len(scripts.EVERY) == 8
    for script in scripts.EVERY:
        assert script.source.count(scripts.TIME.encode()) == 1
        assert scripts.script(script.source.decode()) == script
    for single in scripts.TAKE_ONE.values():
        admit = single.source.partition(b"local function admit")[2].partition(b"\nend")[0]
        assert admit in scripts.TAKE.source
