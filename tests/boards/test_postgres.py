from __future__ import annotations

import importlib
import os
import sys
from itertools import count

import psycopg
import pytest

from resilience import CircuitBreaker
from resilience._core.ledger import NO_NEWS, Report
from resilience.boards import postgres as module
from resilience.boards.coding import GarbledError
from resilience.boards.postgres import ROUNDS, PostgresBoard, _Postgres, _Session, create_schema
from resilience.clock import SYSTEM_CLOCK
from resilience.testing import wait_until
from tests.boards import real
from tests.children import forking, in_child

prefixes = count(1)


@pytest.fixture(scope="module")
def url(postgres_server):
    create_schema(postgres_server.url)
    create_schema(postgres_server.url)  # it is there already
    return postgres_server.url


@pytest.fixture
def prefix():
    return f'"test_{next(prefixes)}\\"'


@pytest.fixture
def new_board(url, prefix):
    return lambda **options: PostgresBoard(url, prefix=prefix, **options)


@pytest.fixture
def connection(url):
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def engine(url, prefix):
    engine = _Postgres(url, prefix)
    yield engine
    engine.close()


def rows(connection, prefix):
    found = "SELECT ledger FROM resilience_breakers WHERE starts_with(name, %s)"
    return [ledger for (ledger,) in connection.execute(found, [prefix])]


def write(connection, name, ledger):
    connection.execute(
        "INSERT INTO resilience_breakers VALUES (%s, %s, 'tomorrow')"
        " ON CONFLICT (name) DO UPDATE SET ledger = excluded.ledger",
        [name, ledger],
    )


def test_they_open_are_tested_and_close_together(new_board):
    real.the_whole_way_round(new_board)


def test_news_come_at_once(new_board):
    real.at_once(new_board)


def test_a_quorum_opens_for_all(new_board):
    real.a_quorum(new_board)


def test_data_that_is_lost_is_told_again(new_board, connection, prefix):
    with real.pair(lambda: new_board(refresh=0.05)) as (here, there):
        real.trip(here)
        wait_until(lambda: there.state == "open")
        connection.execute("DELETE FROM resilience_breakers WHERE starts_with(name, %s)", [prefix])
        wait_until(lambda: rows(connection, prefix))


def test_what_changes_nothing_is_not_written(engine, connection, prefix):
    engine.take("storage", Report("p", NO_NEWS))

    assert rows(connection, prefix) == []


def test_a_ledger_that_is_over_is_forgotten_once_an_hour(engine, connection, prefix):
    engine.take("storage", Report("p", NO_NEWS, opens=True, rest=60.0))
    left = connection.execute(
        "SELECT extract(epoch FROM keep_until - clock_timestamp()) FROM resilience_breakers"
        " WHERE starts_with(name, %s)",
        [prefix],
    ).fetchone()[0]
    assert 3650 < left <= 3660
    connection.execute(
        "UPDATE resilience_breakers SET keep_until = clock_timestamp() WHERE starts_with(name, %s)", [prefix]
    )
    engine.read(["storage"])
    assert len(rows(connection, prefix)) == 1
    engine._forget_at = SYSTEM_CLOCK.now()
    engine.read(["storage"])

    assert rows(connection, prefix) == []


@pytest.mark.parametrize("known", [False, True])
def test_of_two_that_write_at_once_the_second_begins_anew(engine, url, prefix, monkeypatch, known):
    said = NO_NEWS
    if known:
        said = engine.take("storage", Report("q", NO_NEWS, opens=True, rest=1.0)).news
    taken, meanwhile = module.taken, iter([Report("q", said, opens=True, rest=60.0)])

    def let_another_in(text, report, now):
        for report_of_another in meanwhile:
            other = _Postgres(url, prefix)
            other.take("storage", report_of_another)
            other.close()
        return taken(text, report, now)

    monkeypatch.setattr(module, "taken", let_another_in)
    answer = engine.take("storage", Report("p", said, opens=True, rest=30.0))

    assert not answer.accepted
    assert 59.0 < answer.news.remaining <= 60.0


def test_who_is_never_quick_enough_gives_up(engine, connection, prefix, monkeypatch):
    taken = module.taken
    versions = count(1)

    def disturb(text, report, now):
        write(connection, f"{prefix}storage", str(next(versions)))
        return taken(None, report, now)

    monkeypatch.setattr(module, "taken", disturb)

    with pytest.raises(TimeoutError, match=f"changed under {ROUNDS} attempts"):
        engine.take("storage", Report("p", NO_NEWS, opens=True))


def test_garbage_is_refused_and_left(engine, connection, prefix):
    write(connection, f"{prefix}storage", "not json")

    with pytest.raises(GarbledError):
        engine.take("storage", Report("p", NO_NEWS, opens=True))
    assert rows(connection, prefix) == ["not json"]


def test_garbage_on_the_channel_is_ignored(new_board, connection, prefix):
    with real.pair(new_board) as (here, there):
        for noise in ("", "nobody's", prefix + "nobody's", "x" * 7000):
            connection.execute("SELECT pg_notify('resilience_breakers', %s)", [noise])
        real.trip(here)
        wait_until(lambda: there.state == "open")


def test_without_the_table_the_log_says_what_to_do(postgres_server, caplog):
    with PostgresBoard(f"{postgres_server.url}?options=-csearch_path%3Dpg_temp") as board:
        breaker = CircuitBreaker(1, 60.0, name="storage", shared=board)
        wait_until(lambda: caplog.records)

        assert breaker.is_closed
    assert "42P01" in caplog.text
    assert "run resilience.boards.postgres.create_schema" in caplog.text


def test_what_else_the_server_answers_is_said_too(engine):
    with pytest.raises(psycopg.DatabaseError, match=r"division by zero \(22012\)$"):
        engine._ask(b"SELECT 1/0")


def test_an_engine_out_of_reach_is_no_error(caplog):
    with PostgresBoard("host=127.0.0.1 port=1 password=secret", refresh=0.02) as board:
        breaker = CircuitBreaker(1, 0.02, name="storage", shared=board, probes=1)
        real.trip(breaker)
        wait_until(lambda: real.is_let_through(breaker))
        wait_until(lambda: caplog.records)

        assert breaker.is_closed
        assert not board.in_touch
    assert "the board on PostgreSQL at 127.0.0.1 failed" in caplog.text
    assert "secret" not in caplog.text


def test_a_connection_that_was_ended_is_made_anew(engine, connection):
    engine.read(["storage"])
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'resilience board'"
    )
    with pytest.raises(psycopg.Error):
        engine.read(["storage"])

    assert engine.read(["storage"])[0] == [None]


def test_no_answer_in_time_ends_the_connection(engine, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        engine._ask(b"SELECT pg_sleep(10)")

    assert engine._asking is None


def test_one_who_listens_hears_only_what_is_of_its_prefix(engine, connection, prefix):
    heard = []

    def is_over():
        connection.execute("SELECT pg_notify('resilience_breakers', 'of another')")
        connection.execute("SELECT pg_notify('resilience_breakers', %s)", [f"{prefix}storage"])
        return bool(heard)

    engine.listen(heard.append, is_over)

    assert set(heard) == {"storage"}
    assert engine._listening is None


def test_a_moment_without_news_is_no_news(url, monkeypatch):
    monkeypatch.setattr(module, "LISTENING", 0.01)
    session = _Session(url)

    assert session.notified() == []
    session.close()


@forking
def test_a_forked_child_leaves_the_parents_connections_alone(engine):
    engine.read(["storage"])
    engine._listening = _Session(engine._conninfo)

    def work():
        engine.after_fork()
        assert engine._asking is engine._listening is None
        engine.read(["storage"])
        engine.close()

    assert in_child(work) == 0
    assert engine.read(["storage"])[0] == [None]
    assert engine._listening.ask(b"SELECT 'there'") == [("there",)]
    engine._listening.close()


def test_disowning_says_nothing_to_the_server(url, connection, engine):
    session = engine._listening = _Session(url)
    ((pid,),) = session.ask(b"SELECT pg_backend_pid()")
    kept = os.dup(session._libpq.socket)
    engine.after_fork()
    session.disown()  # it is ended already
    running = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"

    assert connection.execute(running, [int(pid)]).fetchone() == (1,)
    os.close(kept)
    wait_until(lambda: connection.execute(running, [int(pid)]).fetchone() == (0,))


def test_what_is_no_server_is_refused():
    with pytest.raises(TypeError, match="must be a URL or keywords and values"):
        PostgresBoard(None)
    with pytest.raises(psycopg.ProgrammingError):
        PostgresBoard("nonsense")


def test_without_psycopg_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "resilience.boards.postgres")

    with pytest.raises(ImportError, match=r"pip install 'resilience-py\[postgres\]'"):
        importlib.import_module("resilience.boards.postgres")
