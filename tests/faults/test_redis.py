"""The fault catalogue's lines about Redis, by number, on real servers."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from contextlib import suppress
from unittest import mock
from uuid import uuid4

import pytest
import redis
from redis.crc import key_slot

from resilience._core.counting import Charge
from resilience.breaker import CircuitBreaker
from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost, Unable
from resilience.stores.redis import AsyncRedisStore, RedisStore, conversation
from resilience.stores.redis.answers import RIGHTS
from resilience.stores.redis.sync import RedisEngine
from resilience.testing import FakeClock, wait_until
from tests import servers
from tests.proxy import Proxy
from tests.servers import RedisServer, free_port
from tests.stores.conformance import counter
from tests.stores.redis.fake_time import ServersClock, fake_time, tell
from tests.threads import together

PATIENT = 30.0
SIX = counter()
CHARGE = Charge(SIX, "ada")


@pytest.fixture
def prefix():
    return f"fault-{uuid4().hex}"


@pytest.fixture
def client(redis_server):
    with redis.Redis.from_url(redis_server.url) as one:
        yield one


@pytest.fixture
def open_store():
    """Return a function that makes a store which is closed in the end; it asks the server each time."""
    made = []

    def new(url, **options):
        made.append(RedisStore(url, **{"timeout": PATIENT, "remember_refusals": 0, **options}))
        return made[-1]

    yield new
    for store in made:
        store.close()


@pytest.fixture
def proxy(redis_server):
    with Proxy(redis_server.port) as one:
        yield one


def quick_breaker(threshold=5):
    return CircuitBreaker(threshold, 0.05, recovery_jitter=0, name="redis")


def taken(store, *charges):
    return [bool(decision) for decision in store.take(list(charges or [CHARGE]))]


def until_served(store):
    """Wait until a store answers again."""

    def served():
        with suppress(StoreUnavailable):
            store.peek([CHARGE])
            return True
        return False

    wait_until(served, PATIENT, lambda: "the store to answer again")


# --- A. Cancellation -----------------------------------------------------------------------------


@pytest.mark.parametrize("tick", range(8))
async def test_fault_07_a_call_cancelled_while_its_reply_is_on_its_way_leaves_it_to_nobody(
    redis_server, prefix, tick
):
    async with AsyncRedisStore(redis_server.url, prefix=prefix, timeout=PATIENT) as store:
        wide = counter("1000/hour")
        await store.take([Charge(wide, "first")])
        others = [
            asyncio.create_task(store.take([Charge(wide, key, cost)])) for key, cost in (("b", 2), ("d", 4))
        ]
        cancelled = asyncio.create_task(store.take([CHARGE]))
        last = asyncio.create_task(store.take([Charge(wide, "c", 3)]))
        for _ in range(tick):
            await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        remaining = [(await task)[0].remaining for task in (*others, last)]
        assert remaining == [998, 996, 997]
    async with AsyncRedisStore(redis_server.url, prefix=prefix, timeout=PATIENT) as store:
        [decision] = await store.peek([CHARGE])
        assert decision.remaining == (6 if cancelled.cancelled() else 5)


# --- D. Processes --------------------------------------------------------------------------------
# Line 29 is tested beside the limiter: tests/faults/test_shared_limiter.py.


# --- E. Clocks -----------------------------------------------------------------------------------


def test_fault_37_nodes_whose_clocks_are_apart_count_together(redis_server, prefix, open_store):
    early, late = (open_store(redis_server.url, prefix=prefix, clock=FakeClock(start)) for start in (0, 5))
    decisions = [store.take([CHARGE])[0] for _ in range(4) for store in (early, late)]
    assert [bool(decision) for decision in decisions] == [True] * 6 + [False] * 2
    assert all(0 < decision.retry_after <= 900 for decision in decisions[6:])


@pytest.mark.parametrize("jump", [-7200, -1, 1, 7200, -40 * 365 * 86400])
@pytest.mark.parametrize("algorithm", ["sliding-window", "gcra", "fixed-window", "sliding counts"])
def test_fault_38_a_clock_that_jumps_leaves_no_key_for_ever_and_no_wait_without_bound(
    redis_server, client, prefix, open_store, jump, algorithm
):
    counts = algorithm == "sliding counts"
    each = counter("66/15 minutes") if counts else counter(algorithm=algorithm)
    charge = Charge(each, "ada", 11 if counts else 1)
    clock = ServersClock()
    clock.client = client
    tell(client, clock)
    longest = 900 + 900 / 63 if counts else 900
    with fake_time():
        store = open_store(redis_server.url, prefix=prefix, clock=clock)
        before = [store.take([charge])[0] for _ in range(6)]
        clock.step(jump)
        after = [store.take([charge])[0] for _ in range(6)]
        left = {name: client.pttl(name) for name in client.scan_iter(f"{prefix}:*")}
        assert left
        assert all(0 < milliseconds <= 1000 * longest + 1000 for milliseconds in left.values())
        refused = [decision for decision in after if not decision]
        assert all(0 < decision.retry_after <= longest for decision in refused)
        assert all(decision.reset_after <= longest for decision in before + after)
        if jump < 0:
            assert len(refused) == 6  # a clock that was set back admits no more
            clock.advance(after[-1].retry_after)
            assert taken(store, charge) == [True]


# --- F. Redis ------------------------------------------------------------------------------------


def test_fault_41_killed_under_load_each_call_ends_and_the_log_has_a_line(
    new_redis_server, open_store, caplog
):
    server = new_redis_server()
    store = open_store(server.url, timeout=0.5, breaker=quick_breaker())
    store.peek([CHARGE])
    running = threading.Event()
    ends = []

    def attempt(number):
        wide = Charge(counter("1000000/hour"), f"key {number}")
        for turn in range(200):
            if turn == 20:
                running.set()
            try:
                ends.append(bool(store.take([wide])[0]))
            except StoreUnavailable as error:
                ends.append(error)

    def kill():
        running.wait()
        server.kill()

    with caplog.at_level(logging.WARNING, "resilience"):
        together(5, lambda number: attempt(number) if number else kill())
    assert len(ends) == 800
    assert {end.status for end in ends if isinstance(end, StoreUnavailable)} == {503}
    assert sum("unavailable" in record.getMessage() for record in caplog.records) == 1
    server.restart()
    until_served(store)
    assert taken(store) == [True]


def test_fault_42_a_restart_without_persistence_forgets_counts_and_goes_on(new_redis_server, open_store):
    server = new_redis_server()
    store = open_store(server.url, breaker=quick_breaker())
    assert [taken(store) for _ in range(7)] == [[True]] * 6 + [[False]]
    server.restart()
    until_served(store)
    assert store.peek([CHARGE])[0].remaining == 6
    assert [taken(store) for _ in range(7)] == [[True]] * 6 + [[False]]


@pytest.mark.parametrize("algorithm", ["sliding-window", "gcra", "fixed-window"])
def test_fault_43_a_script_that_was_forgotten_is_loaded_once_and_charges_once(
    redis_server, client, prefix, open_store, algorithm
):
    store = open_store(redis_server.url, prefix=prefix)
    charge = Charge(counter(algorithm=algorithm), "ada")
    with mock.patch.object(conversation, "load", wraps=conversation.load) as load:
        for turn in range(3):
            client.script_flush()
            assert store.take([charge])[0].remaining == 5 - turn
            assert load.call_count == turn + 1
        store.take([charge])
        assert load.call_count == 3


async def test_fault_43_many_tasks_miss_a_script_at_once_and_each_charges_once(redis_server, client, prefix):
    async with AsyncRedisStore(redis_server.url, prefix=prefix, timeout=PATIENT) as store:
        await store.peek([CHARGE])
        client.script_flush()
        decisions = await asyncio.gather(*[store.take([CHARGE]) for _ in range(10)])
        assert sum(bool(decision) for [decision] in decisions) == 6


def test_fault_44_after_a_failover_the_new_primary_decides_and_at_most_one_limit_more_gets_in(
    new_redis_server, open_store, caplog
):
    old, new = new_redis_server("--repl-diskless-sync-delay", "0"), new_redis_server()
    with Proxy(old.port) as address, redis.Redis.from_url(new.url) as replica:
        store = open_store(f"redis://127.0.0.1:{address.port}", breaker=quick_breaker(1000))
        store.take([Charge(SIX, "warm")])
        replica.replicaof("127.0.0.1", old.port)
        wait_until(lambda: replica.info("replication")["master_link_status"] == "up", PATIENT)
        assert [taken(store) for _ in range(6)] == [[True]] * 6
        wait_until(lambda: any(b"ada" in key for key in replica.scan_iter()), PATIENT)
        address.target_port = new.port
        address.reset()
        with pytest.raises(Unable, match="it is a replica: name the primary"):
            store.take([Charge(SIX, "bob")])
        replica.replicaof("NO", "ONE")
        # The name leads to the new primary, which knows what was replicated in time.
        admitted = sum(taken(store)[0] for _ in range(12))
        assert admitted <= 6
        assert taken(store) == [False]
        assert taken(store, Charge(SIX, "bob")) == [True]


def test_fault_44_a_connection_to_what_became_a_replica_is_left_for_the_new_primary(
    new_redis_server, open_store
):
    old, new = new_redis_server(), new_redis_server()
    with Proxy(old.port) as address, redis.Redis.from_url(old.url) as client:
        store = open_store(f"redis://127.0.0.1:{address.port}", breaker=quick_breaker(1000))
        store.take([CHARGE])
        client.replicaof("127.0.0.1", new.port)
        address.target_port = new.port  # the connection that stands still leads to the old one
        with pytest.raises(Unable, match="it is a replica"):
            store.take([CHARGE])
        assert taken(store) == [True]


def test_fault_44_a_replica_that_lost_its_primary_is_not_able(new_redis_server, open_store):
    server = new_redis_server("--replicaof", "127.0.0.1", "1", "--replica-serve-stale-data", "no")
    store = open_store(server.url, breaker=CircuitBreaker(1, 60.0))
    with pytest.raises(Unable, match="has lost its primary"):
        store.take([CHARGE])
    with pytest.raises(StoreUnavailable, match="did not answer lately"):
        store.take([CHARGE])


def test_fault_45_in_a_blackhole_calls_end_in_time_and_others_are_not_affected(
    redis_server, prefix, proxy, open_store
):
    breaker = CircuitBreaker(2, 60.0)
    store = open_store(f"redis://127.0.0.1:{proxy.port}", timeout=0.1, breaker=breaker, prefix=prefix)
    other = open_store(redis_server.url, prefix=prefix)
    store.peek([CHARGE])
    proxy.blackhole()
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"within 0\.1 s"):
            store.take([CHARGE])
    assert breaker.snapshot().state == "open"
    with pytest.raises(StoreUnavailable, match="did not answer lately"):
        store.take([CHARGE])
    assert taken(other) == [True]


async def test_fault_45_in_a_blackhole_the_other_tasks_of_the_loop_go_on(redis_server, prefix, proxy):
    async with (
        AsyncRedisStore(f"redis://127.0.0.1:{proxy.port}", timeout=0.1, prefix=prefix) as store,
        AsyncRedisStore(redis_server.url, timeout=PATIENT, prefix=prefix) as other,
    ):
        await store.peek([CHARGE])
        proxy.blackhole()
        stuck = [asyncio.create_task(store.take([CHARGE])) for _ in range(3)]
        while not all(task.done() for task in stuck):
            assert (await other.peek([Charge(SIX, "bob")]))[0].remaining == 6
        assert all(isinstance(task.exception(), StoreUnavailable) for task in stuck)


def test_fault_46_late_replies_cost_the_bound_and_use_up_no_connections(prefix, proxy, open_store):
    store = open_store(
        f"redis://127.0.0.1:{proxy.port}", timeout=0.05, breaker=quick_breaker(1000), prefix=prefix
    )
    until_served(store)
    proxy.delay(0.5)

    def attempt(_):
        with pytest.raises(StoreUnavailable, match=r"within 0\.05 s"):
            store.take([CHARGE])

    together(8, attempt)
    proxy.heal()
    until_served(store)
    wait_until(lambda: proxy.open_connections <= 2, PATIENT)  # each late one was closed
    assert store.peek([CHARGE])[0].remaining == 0  # all were charged, once each, and nobody was told


@pytest.mark.parametrize("count", [*range(48), 55, 89])
def test_fault_47_a_reply_cut_anywhere_is_read_by_nobody(prefix, proxy, open_store, count):
    store = open_store(
        f"redis://127.0.0.1:{proxy.port}", breaker=quick_breaker(1000), prefix=prefix, timeout=5
    )
    store.peek([CHARGE])
    proxy.cut_after(count)
    try:
        first = taken(store)[0]
    except StoreUnavailable:
        first = None
    proxy.heal()
    wide = counter("1000/hour gcra")
    assert [store.take([Charge(wide, "bob", cost)])[0].remaining for cost in (7, 13)] == [993, 980]
    left = store.peek([CHARGE])[0].remaining
    assert left == 5 if first else left in {5, 6}


@pytest.mark.parametrize("count", [0, 1, 5, 17, 23])
async def test_fault_47_a_cut_link_tells_all_who_wait(prefix, proxy, count):
    url = f"redis://127.0.0.1:{proxy.port}"
    wide = counter("1000/hour gcra")
    async with AsyncRedisStore(url, prefix=prefix, timeout=5, breaker=quick_breaker(1000)) as store:
        await store.peek([CHARGE])
        proxy.cut_after(count)
        calls = [store.take([Charge(wide, f"key {cost}", cost)]) for cost in range(1, 9)]
        ends = await asyncio.gather(*calls, return_exceptions=True)
        assert any(isinstance(end, StoreUnavailable) for end in ends)
        proxy.heal()
        for cost, end in enumerate(ends, 1):
            [decision] = await store.peek([Charge(wide, f"key {cost}")])
            assert decision.remaining in (
                {1000, 1000 - cost} if isinstance(end, Exception) else {1000 - cost}
            )


@pytest.mark.parametrize("notation", ["6/15 minutes", "6/hour gcra", "66/hour", "6/hour fixed-window"])
def test_fault_48_a_charge_whose_reply_came_too_late_is_charged_once(
    redis_server, prefix, proxy, open_store, notation
):
    store = open_store(f"redis://127.0.0.1:{proxy.port}", prefix=prefix)
    engine, now = store._engine, store.clock.now
    each = counter(notation)
    one, several = [Charge(each, "ada")], [Charge(each, "ada"), Charge(SIX, "ada")]
    store.take(one)
    for turn, charges in enumerate([one, several], 1):
        token = uuid4().bytes
        proxy.delay(0.2)
        with pytest.raises(Lost):
            engine.take(charges, token, now() + 0.1)
        proxy.heal()
        again = [engine.take(charges, token, now() + PATIENT) for _ in range(2)]
        assert again[0] == again[1]
        assert all(again[0])
        assert again[0][0].remaining == store.peek(one)[0].remaining == each.quota.limit - 1 - turn
    store.refund(several, [decision.receipt for decision in again[0]])
    assert store.peek(one)[0].remaining == each.quota.limit - 2


def test_fault_48_a_refund_asked_for_twice_gives_back_once(redis_server, prefix, open_store):
    store = open_store(redis_server.url, prefix=prefix)
    _, [second] = store.take([CHARGE]), store.take([CHARGE])
    token = uuid4().bytes
    for _ in range(2):
        store._engine.refund([CHARGE], [second.receipt], token, store.clock.now() + 5)
    assert store.peek([CHARGE])[0].remaining == 5


def test_fault_49_a_flood_of_keys_frees_nobody_and_an_evicting_server_is_told_of(
    new_redis_server, open_store, caplog
):
    with caplog.at_level(logging.WARNING, "resilience"):
        server = new_redis_server("--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
        store = open_store(server.url)
        assert [taken(store) for _ in range(7)] == [[True]] * 6 + [[False]]
        assert not caplog.records
        with redis.Redis.from_url(server.url) as client:
            for start in range(0, 60_000, 10_000):
                pipe = client.pipeline(transaction=False)
                for number in range(start, start + 10_000):
                    pipe.set(f"resilience:login: 6/15 minutes:{{flood {number}}}", "x" * 60, ex=900)
                pipe.execute(raise_on_error=False)
            assert client.info("stats")["evicted_keys"] == 0
            with pytest.raises(StoreUnavailable, match="raise its maxmemory"):
                store.take([Charge(SIX, "newcomer")])
            assert taken(store) == [False]
            client.config_set("maxmemory-policy", "volatile-lru")
        caplog.clear()
        for evicting in (open_store(server.url), open_store(server.url)):
            for _ in range(2):
                evicting.peek([CHARGE])
    told = f"Redis at 127.0.0.1:{server.port} drops keys when its memory is full (volatile-lru)"
    assert [record.getMessage()[: len(told)] for record in caplog.records] == [told] * 2


def test_fault_50_out_of_memory_is_an_outage_and_limits_that_are_reached_hold(new_redis_server, open_store):
    server = new_redis_server()
    store = open_store(server.url)
    wide = counter("1000/hour")
    assert [taken(store) for _ in range(6)] == [[True]] * 6
    store.take([Charge(wide, "bob")])
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="it has no room for new counts: raise its maxmemory"):
            store.take([Charge(wide, "bob")])
        with pytest.raises(StoreUnavailable, match="it has no room"):
            store.take([Charge(wide, "bob"), Charge(counter("2000/hour"), "bob")])
        assert taken(store) == [False]
        client.config_set("maxmemory", 0)
    assert store.take([Charge(wide, "bob")])[0].remaining == 998


def test_fault_51_after_a_partition_few_connections_are_made(prefix, proxy, open_store):
    breaker = CircuitBreaker(3, 0.2, recovery_jitter=0, probes=2)
    store = open_store(f"redis://127.0.0.1:{proxy.port}", timeout=0.1, breaker=breaker, prefix=prefix)
    store.peek([CHARGE])
    proxy.blackhole()
    ended = threading.Event()

    def keep_asking():
        while not ended.is_set():
            with suppress(StoreUnavailable):
                store.take([CHARGE])
            ended.wait(0.001)

    def part_and_heal():
        wait_until(lambda: breaker.snapshot().state == "open", PATIENT)
        before = proxy.connections
        proxy.heal()
        wait_until(lambda: breaker.snapshot().state == "closed", PATIENT)
        ended.set()
        assert proxy.connections - before <= 2 + 8  # the probes; then whoever asks at once

    together(9, lambda number: keep_asking() if number else part_and_heal())
    assert store.peek([CHARGE])[0].remaining == 0


def port_of_a_node():
    """Return a port that is free, and that 10,000 beyond it: there the nodes talk to each other."""
    while True:
        port = free_port()
        if port < 22_000:
            with socket.socket() as probe, suppress(OSError):
                probe.bind(("127.0.0.1", port + 10_000))
                return port


@pytest.fixture(scope="module")
def cluster(redis_kind):
    """Two nodes of a Cluster, each with half of the slots."""
    with mock.patch.object(servers, "free_port", side_effect=port_of_a_node):
        nodes = [RedisServer(redis_kind, "--cluster-enabled", "yes") for _ in range(2)]
    clients = [redis.Redis.from_url(node.url) for node in nodes]
    try:
        for client, slots in zip(clients, [range(8192), range(8192, 16384)], strict=True):
            client.execute_command("CLUSTER", "ADDSLOTS", *slots)
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port)
        for client in clients:
            wait_until(lambda c=client: _is_whole(c), PATIENT)
        yield nodes
    finally:
        for client in clients:
            client.close()
        for node in nodes:
            node.end()


def _is_whole(client):
    return b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO")


PAIR = counter("2/hour", limiter="pair")
WIDE = counter("3/hour", limiter="address")


def scattered():
    """Charges whose keys lie in both nodes."""
    return [Charge(PAIR, "ada"), Charge(WIDE, "192.0.2.1"), Charge(WIDE, "192.0.2.7")]


@pytest.mark.parametrize("first", [0, 1])
def test_fault_52_moved_is_followed_and_a_decision_in_several_slots_takes_all_or_none(
    cluster, prefix, open_store, first
):
    store = open_store(cluster[first].url, prefix=prefix)
    assert [bool(decision) for decision in store.take(scattered())] == [True] * 3
    assert [decision.remaining for decision in store.peek(scattered())] == [1, 2, 2]
    assert all(store.take(scattered()))
    for _ in range(2):
        decisions = store.take(scattered())
        assert [bool(decision) for decision in decisions] == [False, True, True]
    assert [decision.remaining for decision in store.peek(scattered())] == [0, 1, 1]
    held = store.holding([PAIR, WIDE], 10)
    assert held.size == len(held.entries) == 3
    store.reset([PAIR], "ada")
    decisions = store.take(scattered())
    assert all(decisions)
    assert [decision.remaining for decision in store.take(scattered())] == [1, 0, 0]
    store.refund(scattered(), [decision.receipt for decision in decisions])
    assert [decision.remaining for decision in store.peek(scattered())] == [2, 1, 1]


def test_fault_52_a_prefix_in_braces_brings_all_into_one_slot(cluster, prefix, open_store):
    store = open_store(cluster[0].url, prefix=f"{{{prefix}}}")
    with mock.patch.object(RedisEngine, "_ask", autospec=True, side_effect=RedisEngine._ask) as ask:
        store.take(scattered())
        ask.reset_mock()
        store.take(scattered())
    assert ask.call_count == 1


async def test_fault_52_on_a_loop(cluster, prefix):
    async with AsyncRedisStore(cluster[1].url, prefix=prefix, timeout=PATIENT, remember_refusals=0) as store:
        ends = await asyncio.gather(*[store.take(scattered()) for _ in range(10)])
        assert sum(map(all, ends)) <= 2
        left = [decision.remaining for decision in await store.peek(scattered())]
        assert left == [2 - sum(map(all, ends)), *[3 - sum(map(all, ends))] * 2]


def test_fault_52_a_slot_on_its_way_is_asked_at_its_new_place(cluster, prefix, open_store):
    store = open_store(cluster[0].url, prefix=prefix)
    slot = key_slot(b"{ada}")
    with redis.Redis.from_url(cluster[0].url) as one, redis.Redis.from_url(cluster[1].url) as two:
        source, target = (one, two) if slot < 8192 else (two, one)
        ids = [client.execute_command("CLUSTER", "MYID").decode() for client in (source, target)]
        target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        try:
            assert [taken(store) for _ in range(7)] == [[True]] * 6 + [[False]]
            assert any(prefix.encode() in key for key in target.scan_iter())
        finally:
            for client in (source, target):
                client.execute_command("CLUSTER", "SETSLOT", slot, "STABLE")


@pytest.mark.parametrize("forbidden", ["evalsha", "getrange", "set"])
def test_fault_53_a_missing_right_is_told_at_the_start(new_redis_server, open_store, forbidden):
    server = new_redis_server()
    with redis.Redis.from_url(server.url) as client:
        rights = [right for right in RIGHTS.split() if right != f"+{forbidden}"]
        client.execute_command("ACL", "SETUSER", "limits", "on", ">secret", "~resilience:*", *rights)
        store = open_store(f"redis://limits:secret@127.0.0.1:{server.port}")
        with pytest.raises(StoreUnavailable, match=r"allow it by: ACL SETUSER … \+evalsha"):
            store.check()
        with pytest.raises(StoreUnavailable, match="allow it by"):
            store.take([CHARGE])
        assert not client.keys("*")
        client.execute_command("ACL", "SETUSER", "limits", *RIGHTS.split())
        store.check()
        assert taken(store) == [True]


@pytest.mark.parametrize("notation", ["6/15 minutes", "6/hour gcra", "66/hour", "6/hour fixed-window"])
@pytest.mark.parametrize("held", ["list", "text", "text of that length", "10 MB"])
def test_fault_54_what_is_not_ours_is_an_error_and_stays_as_it_is(
    redis_server, client, prefix, open_store, notation, held
):
    store = open_store(redis_server.url, prefix=prefix)
    each = counter(notation)
    name = f"{prefix}:{each.scope}:{{ada}}"
    if held == "list":
        client.rpush(name, "x")
    else:
        length = {"6/15 minutes": 8, "6/hour gcra": 16, "66/hour": 16, "6/hour fixed-window": 12}[notation]
        texts = {"text": b"hello", "text of that length": b"x" * length, "10 MB": bytes(10_000_000)}
        client.set(name, texts[held])
    before = client.dump(name)
    for ask in (store.take, store.peek):
        with pytest.raises(StoreUnavailable, match="holds what no limiter wrote: give the store a prefix"):
            ask([Charge(each, "ada")])
    with pytest.raises(StoreUnavailable, match="holds what no limiter wrote"):
        store.take([Charge(each, "bob"), Charge(each, "ada")])
    assert store.peek([Charge(each, "bob")])[0].remaining == each.quota.limit
    assert client.dump(name) == before
    client.delete(name)


@pytest.mark.parametrize(
    "key",
    ["a'b", 'a"b', "a\nb\r\nDEL x\r\n", "a\0b", "{", "}", "{}", "a}{b", "redis.call('FLUSHALL')", b"}\xff"],
)
def test_fault_55_keys_are_data_whatever_they_hold(redis_server, client, prefix, open_store, key):
    store = open_store(redis_server.url, prefix=prefix)
    client.set(f"{prefix}-witness", 1)
    several = [Charge(SIX, key), Charge(counter("7/hour"), key)]
    assert [taken(store, Charge(SIX, key)) for _ in range(7)] == [[True]] * 6 + [[False]]
    assert [bool(decision) for decision in store.take(several)] == [False, True]
    assert [entry.key for entry in store.holding([SIX], 10).entries] == [key]
    store.reset([SIX], key)
    store.take([Charge(SIX, "warm"), Charge(SIX, "up")])
    scripts = client.info("memory").get("number_of_cached_scripts")
    assert taken(store, Charge(SIX, key)) == [True]
    assert client.info("memory").get("number_of_cached_scripts") == scripts
    assert client.get(f"{prefix}-witness") == b"1"
    client.delete(f"{prefix}-witness")
