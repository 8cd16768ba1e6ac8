from __future__ import annotations

import asyncio
import gc
import threading
import time
from unittest import mock
from uuid import uuid4

import pytest
import redis
import redis.asyncio
from redis.credentials import UsernamePasswordCredentialProvider

from resilience._core.counting import Charge
from resilience.clock import SYSTEM_CLOCK
from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost, Unable
from resilience.stores.redis import pipelined
from resilience.stores.redis.codec import Codec
from resilience.stores.redis.pipelined import AsyncRedisEngine, Link
from resilience.stores.redis.wire import packed
from resilience.testing import wait_until_async
from tests.children import forking, in_child
from tests.stores.conformance import counter
from tests.stores.redis.stub import LOOKED, Stub, after_the_look

SIX = counter()
ONE = [Charge(SIX, "ada")]
WIDE = counter("1000/hour gcra")


def soon(seconds=30.0):
    return time.monotonic() + seconds


@pytest.fixture
async def new_engine():
    made = []

    def new(server, prefix="limits"):
        made.append(AsyncRedisEngine(server, Codec(prefix), SYSTEM_CLOCK))
        return made[-1]

    yield new
    for engine in made:
        await engine.close()


@pytest.fixture
async def engine(redis_server, new_engine):
    return new_engine(redis_server.url, f"pipelined-{uuid4().hex}")


@pytest.fixture
def stub():
    made = []

    def new(script):
        made.append(Stub(script))
        return made[-1]

    yield new
    for one in made:
        one.close()


async def take(engine, charges=ONE, until=None):
    return await engine.take(charges, uuid4().bytes, until or soon())


def link(engine):
    [one] = engine._links.values()
    return one


async def test_decides_and_gives_back(engine):
    [decision] = await take(engine)
    assert decision.remaining == 5
    await engine.refund(ONE, [decision.receipt], uuid4().bytes, soon())
    assert (await engine.peek(ONE, soon()))[0].remaining == 6
    await take(engine, [*ONE, Charge(counter("9/hour"), "ada")])
    assert (await engine.holding([SIX], 9, soon())).size == 1
    await engine.reset([SIX], "ada", soon())
    assert (await engine.holding([SIX], 9, soon())).size == 0
    await engine.load(soon())


async def test_the_tasks_of_a_loop_share_one_connection_and_each_gets_its_own_reply(engine, redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        before = client.info("clients")["connected_clients"]
        decisions = await asyncio.gather(*[take(engine, [Charge(WIDE, str(n), n)]) for n in range(1, 101)])
        assert client.info("clients")["connected_clients"] == before + 1
    assert [decision.remaining for [decision] in decisions] == [1000 - n for n in range(1, 101)]


async def test_questions_of_one_turn_go_out_together(engine):
    await take(engine)
    one = link(engine)
    with mock.patch.object(one, "_transport", wraps=one._transport) as transport:
        await asyncio.gather(*[take(engine) for _ in range(5)])
        assert transport.write.call_count == 1
        await asyncio.gather(*[take(engine) for _ in range(2 * pipelined._TOGETHER)])
        assert transport.write.call_count == 3


async def test_a_busy_loop_is_not_taken_for_a_silent_server(engine):
    await take(engine)
    asked = asyncio.ensure_future(take(engine, until=soon(0.05)))
    asyncio.get_running_loop().call_soon(time.sleep, 0.2)  # once it is asked, and before it is sent
    [decision] = await asked
    assert decision.remaining == 4
    assert link(engine).is_usable


async def test_a_busy_loop_waits_no_longer_for_a_silent_server(new_engine, stub):
    engine = new_engine(stub(after_the_look()).url)
    asked = asyncio.ensure_future(take(engine, until=soon(0.1)))
    await wait_until_async(lambda: engine._links and link(engine)._waiting)
    time.sleep(0.2)  # noqa: ASYNC251 - a busy loop
    with pytest.raises(Lost, match="no whole reply in time"):
        await asked


async def test_a_server_that_dribbles_does_not_stretch_the_bound(new_engine, stub):
    engine = new_engine(stub(after_the_look(b"$1000\r\n" + bytes(1000), pause=0.005)).url)
    with pytest.raises(Lost, match="no whole reply in time"):
        await take(engine, until=soon(0.1))
    assert not link(engine).is_usable


async def test_dribbling_at_the_greeting_does_not_stretch_it_either(new_engine, stub):
    def dribble(connection):
        while True:
            connection.sendall(b"+")
            time.sleep(0.005)

    engine = new_engine(stub(dribble).url.replace("//", "//:secret@"))
    with pytest.raises(Lost, match="no connection"):
        await take(engine, until=soon(0.1))


async def test_a_link_with_a_late_reply_is_replaced_and_serves_those_who_wait(new_engine, stub):
    answered = threading.Event()

    def play(connection):
        connection.recv(65536)
        if not answered.is_set():
            answered.set()
            connection.sendall(LOOKED)
            connection.recv(65536)
            time.sleep(0.2)
            connection.sendall(b"+late\r\n+in time\r\n")
        connection.recv(65536)

    engine = new_engine(stub(play).url)
    with pytest.raises(Lost):
        await take(engine, until=soon(-1))
    connected = asyncio.ensure_future(take(engine, until=soon(0.1)))
    await asyncio.sleep(0.05)
    one = link(engine)
    patient = one.ask(packed(b"PING"), 1, 5)
    with pytest.raises(Lost, match="no whole reply in time"):
        await connected
    assert not one.is_usable
    assert await patient == [b"in time"]
    assert one._transport.is_closing()


async def test_time_that_is_over_asks_nobody(engine):
    with pytest.raises(Lost, match="no time left to connect"):
        await take(engine, until=soon(-1))
    await take(engine)
    with pytest.raises(Lost, match="no time left to ask"):
        await take(engine, until=soon(-1))


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "it sent what is no reply"),
        (b"", "closed the connection"),
    ],
)
async def test_what_is_no_reply_ends_the_link_for_all(new_engine, stub, reply, why):
    def play(connection):
        connection.recv(65536)
        connection.sendall(LOOKED)
        connection.recv(65536)
        connection.sendall(reply)
        connection.close()

    engine = new_engine(stub(play).url)
    ends = await asyncio.gather(*[take(engine) for _ in range(3)], return_exceptions=True)
    assert [type(end) for end in ends] == [Lost] * 3
    assert len(set(map(id, ends))) == 3
    assert all(why in str(end) or "reset" in str(end) for end in ends)


async def test_a_reply_nobody_asked_for_ends_the_link(new_engine, stub):
    engine = new_engine(stub(after_the_look(b"+OK\r\n+OK\r\n")).url)
    with pytest.raises(StoreUnavailable, match="is no Redis"):
        await take(engine)
    await wait_until_async(lambda: not link(engine).is_usable)


async def test_nobody_there_and_each_who_waits_hears_of_it(new_engine):
    engine = new_engine("redis://127.0.0.1:1")
    ends = await asyncio.gather(*[take(engine) for _ in range(3)], return_exceptions=True)
    assert [type(end) for end in ends] == [Lost] * 3
    assert len(set(map(id, ends))) == 3
    assert all("no connection" in str(end) for end in ends)
    assert not engine._connecting


async def test_whoever_cannot_wait_for_a_connection_leaves_it_to_the_others(new_engine, stub):
    go_on = threading.Event()

    def play(connection):
        connection.recv(65536)
        go_on.wait(5)
        connection.sendall(LOOKED)
        connection.recv(65536)
        connection.sendall(b"+PONG\r\n")
        connection.recv(65536)

    engine = new_engine(stub(play).url)
    patient = asyncio.ensure_future(engine._linked(None, soon()))
    await asyncio.sleep(0)
    with pytest.raises(Lost, match="no connection in time"):
        await take(engine, until=soon(0.05))
    cancelled = asyncio.ensure_future(take(engine))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    assert cancelled.cancelled()
    go_on.set()
    assert (await patient).is_usable


async def test_a_connection_that_fails_when_nobody_waits_any_more_is_no_warning(new_engine, stub):
    engine = new_engine(stub(lambda connection: connection.recv(65536)).url)
    waiting = asyncio.ensure_future(take(engine, until=soon(0.1)))
    await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.wait([waiting])
    await wait_until_async(lambda: not engine._connecting)
    gc.collect()


async def test_a_connect_that_is_cancelled_leaves_nothing_open(new_engine, stub):
    engine = new_engine(stub(lambda connection: connection.recv(65536)).url)
    waiting = asyncio.ensure_future(take(engine))
    await wait_until_async(lambda: engine._connecting)
    await asyncio.sleep(0.02)
    [connecting] = engine._connecting.values()
    connecting.cancel()
    await asyncio.wait([waiting])
    assert not engine._connecting
    assert not engine._links


async def test_a_server_that_became_a_replica_is_connected_to_anew(new_engine, stub):
    readonly = b"-READONLY You can't write against a read only replica.\r\n"
    engine = new_engine(stub(after_the_look(readonly)).url)
    with pytest.raises(Unable, match="name the primary"):
        await take(engine)
    assert not link(engine).is_usable


async def test_a_link_that_is_to_be_asked_no_more_waits_for_replies_on_their_way(engine):
    await take(engine)
    one = link(engine)
    answer = one.ask(packed(b"PING"), 1, 5)
    one.retire()
    assert await answer == [b"PONG"]
    assert one._transport.is_closing()
    one.close("again")


async def test_asking_while_the_transport_closes_is_not_written(engine):
    await take(engine)
    one = link(engine)
    one._transport.abort()
    with pytest.raises(Lost):
        await one.ask(packed(b"PING"), 1, 5)


async def test_passwords_names_and_databases(new_redis_server, new_engine):
    server = new_redis_server("--requirepass", "secret")
    place = f"127.0.0.1:{server.port}"
    for url in (f"redis://{place}", f"redis://:wrong@{place}", f"redis://:secret@{place}/77"):
        with pytest.raises(StoreUnavailable, match=r"look at the URL|asks for a password"):
            await take(new_engine(url))
    assert await take(new_engine(f"redis://:secret@{place}/1?client_name=web"))
    provider = redis.asyncio.Redis(
        host="127.0.0.1",
        port=server.port,
        credential_provider=UsernamePasswordCredentialProvider("default", "secret"),
    )
    assert (await take(new_engine(provider)))[0].remaining == 5
    await provider.aclose()


async def test_unix_sockets(new_redis_server, new_engine):
    server = new_redis_server("--unixsocket", "socket")
    assert (await take(new_engine(f"unix://{server.folder}/socket")))[0].remaining == 5


def test_loops_have_links_of_their_own_which_end_with_them(redis_server):
    engine = AsyncRedisEngine(redis_server.url, Codec(f"loops-{uuid4().hex}"), SYSTEM_CLOCK)

    def take_in_a_loop():
        return asyncio.run(take(engine))[0].remaining  # nobody closes the store

    left = [take_in_a_loop() for _ in range(3)]
    assert left == [5, 4, 3]
    threads = [
        threading.Thread(target=lambda: left.append(asyncio.run(take(engine))[0].remaining)) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(left) == [1, 2, 3, 4, 5]
    assert not any(one.is_usable for one in engine._links.values())
    gc.collect()


async def test_closing_leaves_the_links_of_other_loops_alone(engine):
    await take(engine)
    [one] = engine._links.values()
    other = asyncio.new_event_loop()
    engine._links[other, None] = mock.Mock(spec=Link)
    await engine.close()
    assert list(engine._links) == [(other, None)]
    engine._links[other, None].close.assert_not_called()
    assert not one.is_usable
    other.close()


@forking
async def test_a_forked_child_connects_anew_and_does_not_disturb_its_parent(engine):
    await take(engine)
    one = link(engine)

    def work():
        async def ask():
            return (await take(engine))[0].remaining

        asyncio.events._set_running_loop(None)  # the parent's, which does not run here
        assert not engine._links
        assert asyncio.new_event_loop().run_until_complete(ask()) == 4

    assert in_child(work) == 0
    assert (await take(engine))[0].remaining == 3
    assert link(engine) is one


async def test_replies_for_those_who_left_are_dropped(engine):
    await take(engine)
    one = link(engine)
    left, stays = (one.ask(packed(b"ECHO", word), 1, 5) for word in (b"a", b"b"))
    left.cancel()
    assert await stays == [b"b"]
    assert one.is_usable


async def test_an_earlier_deadline_is_kept_among_later_ones(engine):
    await take(engine)
    one = link(engine)
    late = one.ask(packed(b"BLPOP", b"nothing", b"5"), 1, 5)
    early = one.ask(packed(b"PING"), 1, 0.05)
    with pytest.raises(Lost, match="in time"):
        await early
    assert not late.done()
    one.close("done")
    with pytest.raises(Lost, match="done"):
        await late


async def test_a_node_of_a_cluster_is_not_looked_at(engine, redis_server):
    with mock.patch.object(engine._conversations, "see") as see:
        assert (await engine._linked(("localhost", redis_server.port), soon())).is_usable
        assert (await engine._linked(("127.0.0.1", redis_server.port), soon())).is_usable
    see.assert_not_called()


async def test_a_deadline_that_passes_after_the_reply_is_no_fault(engine):
    one = await engine._linked(None, soon(0.05))
    assert await one.ask(packed(b"PING"), 1, 0.05) == [b"PONG"]
    await wait_until_async(lambda: one._timer is None)
    assert one.is_usable


async def test_asks_the_nodes_of_a_cluster_slot_by_slot(engine):
    engine._conversations.nodes.clustered = True
    decisions = await take(engine, [*ONE, Charge(WIDE, "bob")])
    assert [decision.remaining for decision in decisions] == [5, 999]


async def test_asks_another_node_where_the_first_is_lost(new_engine, redis_server):
    engine = new_engine("redis://127.0.0.1:1", f"pipelined-{uuid4().hex}")
    engine._conversations.nodes.clustered = True
    engine._conversations.nodes._others["127.0.0.1", redis_server.port] = None
    with pytest.raises(Lost):
        await take(engine)
    assert (await take(engine))[0].remaining == 5


async def test_asks_another_node_where_one_answers_no_more(new_engine, redis_server, stub):
    engine = new_engine(stub(after_the_look()).url, f"pipelined-{uuid4().hex}")
    engine._conversations.nodes.clustered = True
    engine._conversations.nodes._others["127.0.0.1", redis_server.port] = None
    with pytest.raises(Lost):
        await take(engine, until=soon(0.1))
    assert (await take(engine))[0].remaining == 5
