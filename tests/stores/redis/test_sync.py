from __future__ import annotations

import time
from unittest import mock
from uuid import uuid4

import pytest
import redis
from redis.credentials import UsernamePasswordCredentialProvider

from resilience._core.counting import Charge
from resilience.clock import SYSTEM_CLOCK
from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost, Unable
from resilience.stores.redis import sync
from resilience.stores.redis.codec import Codec
from resilience.stores.redis.sync import Connection, RedisEngine
from resilience.stores.redis.wire import packed
from tests.children import forking, in_child
from tests.stores.conformance import counter
from tests.stores.redis.stub import LOOKED, Stub, after_the_look
from tests.threads import together

SIX = counter()
ONE = [Charge(SIX, "ada")]


def soon(seconds=30.0):
    return time.monotonic() + seconds


@pytest.fixture
def new_engine():
    made = []

    def new(server, prefix="limits"):
        made.append(RedisEngine(server, Codec(prefix), SYSTEM_CLOCK))
        return made[-1]

    yield new
    for engine in made:
        engine.close()


@pytest.fixture
def engine(redis_server, new_engine):
    return new_engine(redis_server.url, f"sync-{uuid4().hex}")


@pytest.fixture
def stub():
    made = []

    def new(script):
        made.append(Stub(script))
        return made[-1]

    yield new
    for one in made:
        one.close()


def take(engine, charges=ONE, until=None):
    return engine.take(charges, uuid4().bytes, until or soon())


def idle(engine):
    return sum(map(len, engine._idle.values()))


def test_decides_and_gives_back(engine):
    [decision] = take(engine)
    assert decision.remaining == 5
    engine.refund(ONE, [decision.receipt], uuid4().bytes, soon())
    assert engine.peek(ONE, soon())[0].remaining == 6
    take(engine, [*ONE, Charge(counter("9/hour"), "ada")])
    assert engine.holding([SIX], 9, soon()).size == 1
    engine.reset([SIX], "ada", soon())
    assert engine.holding([SIX], 9, soon()).size == 0
    engine.load(soon())
    assert idle(engine) == 1


def test_what_the_server_says_no_to_leaves_the_connection_as_it_was(engine, redis_server):
    take(engine)
    with redis.Redis.from_url(redis_server.url) as client:
        name = engine._conversations._codec.form(SIX).name("eve")
        client.rpush(name, 1)
        with pytest.raises(StoreUnavailable):
            take(engine, [Charge(SIX, "eve")])
        client.delete(name)
    assert idle(engine) == 1


def test_threads_have_connections_of_their_own_and_leave_a_bounded_number(engine, monkeypatch):
    monkeypatch.setattr(sync, "_MOST_IDLE", 2)
    decisions = together(6, lambda _: [take(engine)[0] for _ in range(5)])
    assert sum(bool(decision) for each in decisions for decision in each) == 6
    assert 1 <= idle(engine) <= 2


def test_closing_lets_go_and_may_be_repeated(engine):
    take(engine)
    engine.close()
    engine.close()
    assert idle(engine) == 0


def test_two_threads_that_close_at_once_do_not_mind(engine):
    class Emptied:
        """Looks full, and is empty by the time one is taken."""

        def pop(self):
            raise IndexError

    engine._idle[None] = Emptied()
    engine.close()
    assert idle(engine) == 0


def test_a_server_that_dribbles_does_not_stretch_the_bound(new_engine, stub):
    engine = new_engine(stub(after_the_look(b"$1000\r\n" + bytes(1000), pause=0.005)).url)
    began = time.monotonic()
    with pytest.raises(Lost, match=r"in time|timed out"):
        take(engine, until=soon(0.1))
    assert time.monotonic() - began < 2.5  # a piece every 5 ms would take 5 s
    assert idle(engine) == 0


def test_dribbling_at_the_greeting_does_not_stretch_it_either(new_engine, stub):
    def dribble(connection):
        while True:
            connection.sendall(b"+")
            time.sleep(0.005)

    engine = new_engine(stub(dribble).url.replace("//", "//:secret@"))
    with pytest.raises(Lost, match="no connection"):
        take(engine, until=soon(0.1))


def test_time_that_is_over_asks_nobody(engine, new_engine):
    with pytest.raises(Lost, match="no time left to connect"):
        take(engine, until=soon(-1))
    take(engine)
    with pytest.raises(Lost, match="no whole reply in time"):
        take(engine, until=soon(-1))


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "is no reply"),
        (b"+OK\r\n+OK\r\n", "more replies than questions"),
    ],
)
def test_what_is_no_reply_ends_the_connection(new_engine, stub, reply, why):
    def play(connection):
        connection.recv(65536)
        connection.sendall(LOOKED)
        connection.recv(65536)
        connection.sendall(reply)
        connection.recv(65536)

    engine = new_engine(stub(play).url)
    with pytest.raises(Lost, match=why):
        take(engine)
    assert idle(engine) == 0


def test_a_connection_that_is_closed_takes_the_idle_ones_along(new_engine, new_redis_server):
    server = new_redis_server()
    engine = new_engine(server.url)
    together(4, lambda _: take(engine))
    server.restart()
    with pytest.raises(Lost):
        take(engine)
    assert idle(engine) == 0
    assert take(engine)[0].remaining == 5


def test_nobody_there(new_engine):
    engine = new_engine("redis://127.0.0.1:1")
    with pytest.raises(Lost, match=r"no connection .*refused"):
        take(engine)


def test_an_interrupted_question_closes_its_connection(engine):
    take(engine)
    with (
        mock.patch.object(Connection, "_receive", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        take(engine)
    assert idle(engine) == 0
    assert take(engine)[0].remaining in {3, 4}


def test_an_interrupted_connect_leaves_nothing_open(engine):
    with (
        mock.patch.object(Connection, "_receive", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        take(engine)
    assert idle(engine) == 0


def test_a_server_that_became_a_replica_is_connected_to_anew(new_engine, stub):
    engine = new_engine(
        stub(after_the_look(b"-READONLY You can't write against a read only replica.\r\n")).url
    )
    with pytest.raises(Unable, match="name the primary"):
        take(engine)
    assert idle(engine) == 0


def test_passwords_names_and_databases(new_redis_server, new_engine):
    server = new_redis_server("--requirepass", "secret")
    place = f"127.0.0.1:{server.port}"
    for url in (f"redis://{place}", f"redis://:wrong@{place}", f"redis://:secret@{place}/77"):
        with pytest.raises(StoreUnavailable, match=r"look at the URL|asks for a password"):
            take(new_engine(url))
    assert take(new_engine(f"redis://:secret@{place}/1?client_name=web"))
    provider = redis.Redis(
        host="127.0.0.1",
        port=server.port,
        credential_provider=UsernamePasswordCredentialProvider("default", "secret"),
    )
    assert take(new_engine(provider))[0].remaining == 5


def test_unix_sockets(new_redis_server, new_engine, tmp_path):
    server = new_redis_server("--unixsocket", "socket")
    assert take(new_engine(f"unix://{server.folder}/socket"))[0].remaining == 5


def test_the_server_is_looked_at_once(engine):
    with mock.patch.object(engine._conversations, "see") as see:
        together(2, lambda _: take(engine))
        engine.close()
        take(engine)
    assert 1 <= see.call_count <= 2


@forking
def test_a_forked_child_connects_anew_and_does_not_disturb_its_parent(engine):
    take(engine)
    [connection] = engine._idle[None]

    def work():
        assert idle(engine) == 0
        assert take(engine)[0].remaining == 4

    assert in_child(work) == 0
    assert take(engine)[0].remaining == 3
    assert engine._idle[None][0] is connection


def test_a_node_of_a_cluster_is_not_looked_at(engine, redis_server):
    with mock.patch.object(engine._conversations, "see") as see:
        reply = engine._ask(("127.0.0.1", redis_server.port), packed(b"PING"), 1, soon())
    assert reply == [b"PONG"]
    see.assert_not_called()


def test_asks_the_nodes_of_a_cluster_slot_by_slot(engine):
    engine._conversations.nodes.clustered = True
    decisions = take(engine, [*ONE, Charge(counter("9/hour"), "bob")])
    assert [decision.remaining for decision in decisions] == [5, 8]


def test_asks_another_node_where_the_first_is_lost(new_engine, redis_server):
    engine = new_engine("redis://127.0.0.1:1", f"sync-{uuid4().hex}")
    engine._conversations.nodes.clustered = True
    engine._conversations.nodes._others["127.0.0.1", redis_server.port] = None
    with pytest.raises(Lost):
        take(engine)
    assert take(engine)[0].remaining == 5


def test_asks_another_node_where_one_answers_no_more(new_engine, redis_server, stub):
    engine = new_engine(stub(after_the_look()).url, f"sync-{uuid4().hex}")
    engine._conversations.nodes.clustered = True
    engine._conversations.nodes._others["127.0.0.1", redis_server.port] = None
    with pytest.raises(Lost):
        take(engine, until=soon(0.1))
    assert take(engine)[0].remaining == 5
