from __future__ import annotations

import asyncio
import time

import psycopg
import pytest
from psycopg import pq

from resilience._core.counting import Charge
from resilience.stores import StoreUnavailable
from resilience.stores.postgres.engines import AsyncPostgresEngine, PostgresEngine
from resilience.stores.postgres.pools import AsyncOwnPool, OwnPool
from tests.stores.conformance import counter

TOKEN = b"0123456789abcdef"


class OnALoop:
    def __init__(self, engine, run):
        self.engine = engine
        self._run = run

    def __getattr__(self, name):
        return lambda *arguments: self._run(getattr(self.engine, name)(*arguments))


@pytest.fixture(params=["for threads", "for tasks"])
def made(request):
    """Return a function that makes an engine on a pool of lines, which is a double where one is given."""
    with asyncio.Runner() as runner:

        def make(sync_pool, async_pool):
            if request.param == "for threads":
                return PostgresEngine(sync_pool, "it", 1000, time.monotonic)
            return OnALoop(AsyncPostgresEngine(async_pool, "it", 1000, time.monotonic), runner.run)

        yield make


@pytest.fixture
def engine(made, url):
    def connect():
        return psycopg.connect(url, autocommit=True)

    one = made(OwnPool(connect, "it", 1, prepare=True), AsyncOwnPool(connect, "it", 1, prepare=True))
    yield one
    one.close()


def in_time():
    return time.monotonic() + 30


def test_all_that_is_asked(engine):
    login, other = counter(), counter("9/hour gcra")
    charges = [Charge(login, "ada"), Charge(other, "ada", 2)]
    decisions = engine.take(charges, TOKEN, in_time())
    assert [decision.remaining for decision in decisions] == [5, 7]
    assert [decision.remaining for decision in engine.peek(charges, in_time())] == [5, 7]
    held = engine.holding([login, other], 10, in_time())
    assert (held.size, len(held.entries)) == (2, 2)
    assert len(engine.holding([login, other], 1, in_time()).entries) == 1
    engine.refund(charges, [decision.receipt for decision in decisions], TOKEN[::-1], in_time())
    assert engine.holding([login, other], 10, in_time()) == (0, ())
    engine.take(charges, TOKEN[::-1], in_time())
    engine.reset([login, other], "ada", in_time())
    assert engine.holding([login, other], 10, in_time()) == (0, ())


class Result:
    def __init__(self, state):
        self.state = state
        self.status = pq.ExecStatus.FATAL_ERROR

    def error_field(self, field):
        return self.state if field == pq.DiagnosticField.SQLSTATE else b"could not serialize"


class Answers:
    """A pool with one line that answers by these errors, one after the other."""

    def __init__(self, *states):
        self.results = [Result(state) for state in states]
        self.asked = []
        self.out = 0

    def ask(self, question, left):
        self.asked.append(question.values)
        return self.results.pop(0)

    def borrow(self, left):
        self.out += 1
        return self

    def give_back(self, line):
        self.out -= 1


class AsyncAnswers(Answers):
    async def ask_async(self, question, left):
        return Answers.ask(self, question, left)

    async def borrow(self, left):
        return Answers.borrow(self, left)

    async def give_back(self, line):
        Answers.give_back(self, line)


def take(engine, until=None):
    return engine.take([Charge(counter(), "ada")], TOKEN, in_time() if until is None else until)


def test_what_lost_against_others_is_made_anew_as_a_whole_three_times_at_most(made):
    pools = [kind(b"40001", b"40P01", b"40001", b"XX000") for kind in (Answers, AsyncAnswers)]
    with pytest.raises(StoreUnavailable, match="40001"):
        take(made(*pools))
    (used,) = [pool for pool in pools if pool.asked]
    assert len(used.asked) == 3
    assert used.asked[0] == used.asked[1] == used.asked[2]
    assert used.out == 0


def test_it_is_not_made_anew_when_the_time_is_over(made):
    pools = [kind(b"40001", b"XX000") for kind in (Answers, AsyncAnswers)]
    with pytest.raises(StoreUnavailable, match="40001"):
        take(made(*pools), until=0)


def test_another_error_is_told_at_once(made):
    pools = [kind(b"42P01") for kind in (Answers, AsyncAnswers)]
    with pytest.raises(StoreUnavailable, match="create_schema"):
        take(made(*pools))


def test_a_line_is_given_back_whatever_happens(made):
    pools = [kind() for kind in (Answers, AsyncAnswers)]
    with pytest.raises(IndexError):
        take(made(*pools))
    assert [pool.out for pool in pools] == [0, 0]
