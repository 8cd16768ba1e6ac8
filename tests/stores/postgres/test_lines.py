from __future__ import annotations

import asyncio
from contextlib import closing

import psycopg
import pytest

from resilience.stores.engine import Lost
from resilience.stores.postgres import lines
from resilience.stores.postgres.failures import sqlstate_of
from resilience.stores.postgres.lines import Line
from resilience.stores.postgres.questions import Question, Statement
from resilience.testing import wait_until_async
from tests.children import forking, in_child

BYTEA, INT4 = 17, 23


def question(text, *values, types=(), name=b"asked"):
    statement = Statement(name, text.encode(), types, (1,) * len(types))
    return Question(statement, values, lambda result: result.get_value(0, 0))


ONE = question("SELECT 1")
SLOW = question("SELECT pg_sleep(5)", name=b"slow")


def plenty():
    return 30.0


@pytest.fixture
def connection(postgres_server):
    with closing(psycopg.connect(postgres_server.url, autocommit=True)) as one:
        yield one


@pytest.fixture
def line(connection):
    return Line(connection, set())


@pytest.fixture(params=["in a thread", "on a loop"])
def ask(request):
    if request.param == "in a thread":
        return lambda line, asked, left=plenty: line.ask(asked, left)
    return lambda line, asked, left=plenty: asyncio.run(line.ask_async(asked, left))


def read(result):
    return int.from_bytes(result.get_value(0, 0), "big")


def test_an_answer(line, ask):
    assert read(ask(line, ONE)) == 1
    assert read(ask(line, ONE)) == 1
    assert line.is_sound
    assert line.stands


def test_what_is_prepared_once_is_prepared_no_more(connection, line, ask):
    for _ in range(3):
        ask(line, ONE)
    assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (1,)


def test_nothing_is_prepared_where_that_is_not_wanted(connection, ask):
    assert read(ask(Line(connection, None), ONE)) == 1
    assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)


def test_a_statement_that_was_discarded_is_asked_without(connection, line, ask):
    ask(line, ONE)
    connection.execute("DISCARD ALL")
    assert read(ask(line, ONE)) == 1
    assert read(ask(line, ONE)) == 1


def test_a_statement_that_is_prepared_already_is_used(connection, line, ask):
    connection.execute("PREPARE asked AS SELECT 2")
    assert read(ask(line, ONE)) == 2


def test_a_statement_that_cannot_be_prepared_is_an_error(line, ask):
    assert sqlstate_of(ask(line, question("SELECT * FROM nowhere"))) == "42P01"
    assert line.is_sound


def test_an_error_leaves_the_line_sound(line, ask):
    assert sqlstate_of(ask(line, question("SELECT 1 / 0"))) == "22012"
    assert read(ask(line, question("SELECT 3", name=b"third"))) == 3


def test_no_answer_in_time(line, ask):
    with pytest.raises(Lost, match="there was no answer in time"):
        ask(line, SLOW, iter([plenty(), 0.01]).__next__)
    assert not line.is_sound
    assert line.stands


def test_no_time_at_all(line, ask):
    with pytest.raises(Lost, match="there was no answer in time"):
        ask(line, ONE, lambda: 0.0)
    assert not line.is_sound


def test_much_is_sent_while_the_server_reads(line, ask):
    much = question("SELECT length($1)", bytes(20_000_000), types=(BYTEA,))
    assert read(ask(line, much)) == 20_000_000


def test_a_connection_that_broke(connection, postgres_server, line, ask):
    ask(line, ONE)
    with psycopg.connect(postgres_server.url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
    try:
        assert sqlstate_of(ask(line, ONE)) == "57P01"
    except Lost as lost:
        assert str(lost).startswith("the connection broke: ")  # noqa: PT017 - either may be seen first
    assert not line.is_sound
    assert not line.stands
    with pytest.raises(Lost, match="the connection broke"):
        ask(line, ONE)


async def test_a_cancelled_question_leaves_at_once(connection, line):
    asked = asyncio.create_task(line.ask_async(SLOW, plenty))
    selector = asyncio.get_running_loop()._selector
    await wait_until_async(lambda: selector.get_map().get(connection.fileno()))
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert not line.is_sound


async def test_a_reply_and_the_end_of_the_time_at_once_are_one():
    ready = asyncio.get_running_loop().create_future()
    lines._settle(ready, True)
    lines._settle(ready, False)
    assert await ready


def test_an_answer_without_a_result_is_none():
    class Wire:
        flush = is_busy = staticmethod(lambda: 0)
        get_result = staticmethod(lambda: None)

    with pytest.raises(psycopg.OperationalError, match="no result"):
        next(lines._result(Wire()))


def test_a_closed_line_does_not_stand(line):
    line.close()
    assert not line.stands
    line.disown()


def test_a_line_that_was_disowned_is_closed_here(line):
    line.disown()
    assert not line.stands
    with pytest.raises(Lost, match="the connection broke"):
        line.ask(ONE, plenty)


@forking
def test_a_child_lets_go_and_the_parent_goes_on(line):
    line.ask(ONE, plenty)

    def let_go():
        line.disown()
        assert not line.stands

    assert in_child(let_go) == 0
    assert read(line.ask(ONE, plenty)) == 1
