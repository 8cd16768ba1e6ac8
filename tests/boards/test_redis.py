from __future__ import annotations

import importlib
import sys
import threading
from itertools import count

import pytest
import redis

from resilience import CircuitBreaker
from resilience._core.ledger import NO_NEWS, Report
from resilience.boards import redis as module
from resilience.boards.coding import GarbledError
from resilience.boards.redis import ROUNDS, RedisBoard, _Redis
from resilience.testing import wait_until
from tests.boards import real

prefixes = count(1)


@pytest.fixture
def prefix():
    return f"test_redis:{next(prefixes)}:"


@pytest.fixture
def new_board(redis_server, prefix):
    return lambda **options: RedisBoard(redis_server.url, prefix=prefix, **options)


@pytest.fixture
def client(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def engine(client, prefix):
    return _Redis(client, prefix, closes=False)


def test_they_open_are_tested_and_close_together(new_board):
    real.the_whole_way_round(new_board)


def test_news_come_at_once(new_board):
    real.at_once(new_board)


def test_a_quorum_opens_for_all(new_board):
    real.a_quorum(new_board)


@pytest.mark.parametrize("decodes", [False, True])
def test_a_client_of_ones_own(redis_server, prefix, decodes):
    with redis.Redis.from_url(redis_server.url, decode_responses=decodes) as client:
        real.the_whole_way_round(lambda: RedisBoard(client, prefix=prefix))


def test_a_client_of_ones_own_is_left_open(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        in_use = client.connection_pool.get_connection()
        RedisBoard(client).close()

        assert in_use._sock is not None
        client.connection_pool.release(in_use)


def test_data_that_is_lost_is_told_again(new_board, client, prefix):
    with real.pair(lambda: new_board(refresh=0.05)) as (here, there):
        real.trip(here)
        wait_until(lambda: there.state == "open")
        client.delete(prefix + here.name)
        wait_until(lambda: client.exists(prefix + here.name))


def test_a_ledger_is_a_small_key_that_runs_out(engine, client, prefix):
    answer = engine.take("storage", Report("p", NO_NEWS, opens=True, rest=60.0))

    assert answer.news.is_open
    assert client.keys(f"{prefix}*") == [f"{prefix}storage".encode()]
    assert 3_650_000 < client.pttl(f"{prefix}storage") <= 3_660_000
    assert client.strlen(f"{prefix}storage") < 300


def test_what_changes_nothing_is_not_written(engine, client, prefix):
    engine.take("storage", Report("p", NO_NEWS))

    assert client.keys(f"{prefix}*") == []


def test_of_two_that_write_at_once_the_second_begins_anew(engine, client, monkeypatch):
    taken, meanwhile = module.taken, iter([Report("q", NO_NEWS, opens=True, rest=60.0)])

    def let_another_in(text, report, now):
        for other in meanwhile:
            _Redis(client, engine._prefix, closes=False).take("storage", other)
        return taken(text, report, now)

    monkeypatch.setattr(module, "taken", let_another_in)
    answer = engine.take("storage", Report("p", NO_NEWS, opens=True, rest=30.0))

    assert not answer.accepted
    assert answer.news.recovery_time == 0.0
    assert 59.0 < answer.news.remaining <= 60.0


def test_who_is_never_quick_enough_gives_up(engine, client, prefix, monkeypatch):
    taken = module.taken

    def disturb(text, report, now):
        client.delete(f"{prefix}storage")
        client.set(f"{prefix}storage", "{}")
        return taken(None, report, now)

    monkeypatch.setattr(module, "taken", disturb)

    with pytest.raises(TimeoutError, match=f"changed under {ROUNDS} attempts"):
        engine.take("storage", Report("p", NO_NEWS, opens=True))


@pytest.mark.parametrize("garbage", ["not json", b"\xff\xfe", "[]"])
def test_garbage_is_refused_and_left(engine, client, prefix, garbage):
    client.set(f"{prefix}storage", garbage)
    before = client.get(f"{prefix}storage")

    with pytest.raises(GarbledError):
        engine.take("storage", Report("p", NO_NEWS, opens=True))
    assert client.get(f"{prefix}storage") == before


def test_a_key_of_another_type_is_refused_and_left(engine, client, prefix):
    client.rpush(f"{prefix}storage", "somebody's")

    with pytest.raises(GarbledError, match="WRONGTYPE"):
        engine.take("storage", Report("p", NO_NEWS, opens=True))
    assert client.lrange(f"{prefix}storage", 0, -1) == [b"somebody's"]
    assert engine.read(["storage"])[0] == [None]


def test_garbage_on_the_channel_is_ignored(new_board, client, prefix):
    with real.pair(new_board) as (here, there):
        for noise in (b"\xff\xfe", b"", b"nobody's", b"x" * 100_000):
            client.publish(f"{prefix}changes", noise)
        real.trip(here)
        wait_until(lambda: there.state == "open")


def test_an_engine_out_of_reach_is_no_error(caplog):
    with RedisBoard("redis://nobody:secret@127.0.0.1:1/0", refresh=0.02) as board:
        breaker = CircuitBreaker(1, 0.02, name="storage", shared=board, probes=1)
        real.trip(breaker)
        wait_until(lambda: real.is_let_through(breaker))
        wait_until(lambda: caplog.records)

        assert breaker.is_closed
        assert not board.in_touch
    assert "the board on Redis at 127.0.0.1 failed" in caplog.text
    assert "secret" not in caplog.text
    assert len(caplog.records) == 1


def test_one_who_listens_ends_when_it_is_told_to(engine):
    rounds = iter([False, True])
    engine.listen(lambda label: None, lambda: next(rounds))

    assert next(rounds, None) is None


def test_closing_ends_its_threads(new_board):
    board = new_board()
    breaker = CircuitBreaker(1, 60.0, name="storage", shared=board)
    wait_until(lambda: board.in_touch)
    board.close()

    assert not [thread for thread in threading.enumerate() if "RedisBoard" in thread.name]
    assert breaker.is_closed


@pytest.mark.parametrize("server", [None, 6379, redis.asyncio.Redis()])
def test_what_is_no_server_is_refused(server):
    with pytest.raises(TypeError, match=r"must be a URL or a redis\.Redis client"):
        RedisBoard(server)


def test_without_redis_py_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "resilience.boards.redis")

    with pytest.raises(ModuleNotFoundError, match=r"pip install 'resilience-py\[redis\]'"):
        importlib.import_module("resilience.boards.redis")
