from __future__ import annotations

import asyncio
import threading

import psycopg
import psycopg_pool
import pytest

from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost, Unable
from resilience.stores.postgres.lines import Line
from resilience.stores.postgres.pools import AsyncLentPool, AsyncOwnPool, LentPool, OwnPool
from resilience.stores.postgres.questions import Question, Statement
from resilience.testing import wait_until
from tests.children import forking, in_child

ONE = Question(Statement(b"one", b"SELECT 1", (), ()), (), lambda result: result)


def plenty():
    return 30.0


def soon():
    return 0.02


class OnALoop:
    """An async pool as a sync one."""

    def __init__(self, pool, run):
        self._lines = getattr(pool, "_lines", None)
        self.pool = pool
        self._run = run

    def borrow(self, left):
        return self._run(self.pool.borrow(left))

    def give_back(self, line):
        self._run(self.pool.give_back(line))

    def close(self):
        self._run(self.pool.close())


class Connecting:
    """Makes connections when it is let to, and as it is told."""

    def __init__(self, url):
        self.url = url
        self.made = []
        self.errors = []
        self.open = threading.Event()
        self.open.set()

    def __call__(self):
        assert self.open.wait(30)
        if self.errors:
            raise self.errors.pop(0)
        self.made.append(psycopg.connect(self.url, autocommit=True))
        return self.made[-1]


@pytest.fixture
def connecting(postgres_server):
    one = Connecting(postgres_server.url)
    yield one
    one.open.set()
    for connection in one.made:
        connection.close()


@pytest.fixture(params=["for threads", "for tasks"])
def make(request, connecting):
    """Return a function that makes a pool."""
    made = []
    with asyncio.Runner() as runner:

        def make(size=2):
            if request.param == "for threads":
                pool = OwnPool(connecting, "it", size, prepare=True)
            else:
                pool = OnALoop(AsyncOwnPool(connecting, "it", size, prepare=True), runner.run)
            made.append(pool)
            return pool

        yield make
        for pool in made:
            pool.close()


def test_a_line_is_made_when_it_is_needed_and_kept(make, connecting):
    pool = make()
    assert not connecting.made
    line = pool.borrow(plenty)
    line.ask(ONE, plenty)
    pool.give_back(line)
    assert pool.borrow(plenty) is line
    assert len(connecting.made) == 1


def test_each_has_a_line_alone(make, connecting):
    pool = make()
    assert pool.borrow(plenty) is not pool.borrow(plenty)
    assert len(connecting.made) == 2


def test_all_in_use_is_told_in_time(make):
    pool = make(1)
    pool.borrow(plenty)
    with pytest.raises(StoreUnavailable, match="all 1 connections of the store were in use") as told:
        pool.borrow(soon)
    assert told.value.retry_after == 1.0
    assert not pool._lines._waiting


def test_who_waits_longest_gets_a_line_that_comes_back(make):
    pool = make(1)
    line = pool.borrow(plenty)
    lines = pool._lines
    first, second = lines.get(), lines.get()
    pool.give_back(line)
    assert first.result(0) is line
    assert not second.done()
    pool.give_back(line)
    assert second.result(0) is line


def test_one_that_is_made_too_late_is_there_for_the_next(make, connecting):
    pool = make()
    connecting.open.clear()
    with pytest.raises(Lost, match="there was no connection in time"):
        pool.borrow(soon)
    connecting.open.set()
    wait_until(lambda: pool._lines._idle)
    assert pool.borrow(soon).stands
    assert len(connecting.made) == 1


def test_who_waits_is_told_why_there_is_none(make, connecting):
    pool = make()
    connecting.errors += [psycopg.OperationalError("connection refused")]
    with pytest.raises(Lost, match="there is no connection: connection refused"):
        pool.borrow(plenty)
    connecting.errors += [psycopg.OperationalError("FATAL:  password authentication failed")]
    with pytest.raises(Unable, match="password is wrong"):
        pool.borrow(plenty)
    assert pool.borrow(plenty).stands


def test_each_of_those_who_wait_is_told_by_an_error_of_its_own(make, connecting):
    lines = make()._lines
    connecting.open.clear()
    promises = [lines.get(), lines.get(), lines.get()]
    assert promises[1].cancel()
    connecting.errors += [psycopg.OperationalError("refused"), psycopg.OperationalError("refused")]
    connecting.open.set()
    errors = [promise.exception(30) for promise in (promises[0], promises[2])]
    assert all(isinstance(error, Lost) for error in errors)
    assert errors[0] is not errors[1]
    for promise in promises:
        lines.withdraw(promise)


def test_where_there_is_a_line_it_is_waited_for(make, connecting):
    pool = make(2)
    line = pool.borrow(plenty)
    connecting.errors += [psycopg.OperationalError("too many clients")]
    promise = pool._lines.get()
    wait_until(lambda: not connecting.errors and not pool._lines._coming)
    assert not promise.done()
    pool.give_back(line)
    assert promise.result(0) is line


def test_a_line_that_comes_as_its_caller_leaves_is_not_lost(make):
    pool = make(1)
    line = pool.borrow(plenty)
    promise = pool._lines.get()
    pool.give_back(line)
    pool._lines.withdraw(promise)
    assert pool.borrow(soon) is line


def test_a_line_with_a_reply_on_its_way_is_closed_and_another_is_made(make):
    pool = make(1)
    line = pool.borrow(plenty)
    with pytest.raises(Lost):
        line.ask(ONE, lambda: 0.0)
    promise = pool._lines.get()
    pool.give_back(line)
    assert not line.stands
    assert promise.result(30) is not line


def test_when_the_server_ended_one_the_idle_ones_are_let_go(make, connecting):
    pool = make(3)
    broken, idle, busy = [pool.borrow(plenty) for _ in range(3)]
    pool.give_back(idle)
    broken._wire.finish()
    pool.give_back(broken)
    assert not idle.stands
    assert busy.stands
    pool.give_back(busy)
    assert pool.borrow(plenty) is busy


def test_closing_closes_what_is_idle_and_the_rest_as_it_comes(make, connecting):
    pool = make(3)
    idle, busy = pool.borrow(plenty), pool.borrow(plenty)
    connecting.open.clear()
    kept_by_another, left_alone = pool._lines.get(), pool._lines.get()
    pool.give_back(idle)
    assert kept_by_another.result(0) is idle
    pool.give_back(idle)
    assert left_alone.result(0) is idle
    pool.give_back(idle)
    pool.close()
    pool.close()
    assert not idle.stands
    pool.give_back(busy)
    assert not busy.stands
    connecting.open.set()
    wait_until(lambda: not pool._lines._coming)
    wait_until(lambda: all(connection.closed for connection in connecting.made))
    with pytest.raises(ValueError, match="the store on it is closed"):
        pool.borrow(plenty)


def test_an_interrupt_while_waiting_leaves_nobody_in_the_line(connecting):
    pool = OwnPool(connecting, "it", 1, prepare=False)
    connecting.open.clear()

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.borrow(interrupted)
    assert not pool._lines._waiting
    connecting.open.set()
    wait_until(lambda: pool._lines._idle)
    pool.close()


async def test_a_cancelled_task_leaves_its_place(connecting):
    pool = AsyncOwnPool(connecting, "it", 1, prepare=True)
    line = await pool.borrow(plenty)
    task = asyncio.create_task(pool.borrow(plenty))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not pool._lines._waiting
    await pool.give_back(line)
    await pool.close()


def test_after_a_fork_there_are_no_lines_and_none_is_taken_back(make):
    pool = make(2)
    idle, busy = pool.borrow(plenty), pool.borrow(plenty)
    pool.give_back(idle)
    pool._lines.after_fork()
    assert not idle.stands
    assert not busy.stands
    pool.give_back(busy)
    assert pool.borrow(plenty) not in {idle, busy}


def test_a_promise_that_was_cancelled_is_passed_over(make):
    pool = make(1)
    line = pool.borrow(plenty)
    cancelled, next_ = pool._lines.get(), pool._lines.get()
    cancelled.cancel()
    pool.give_back(line)
    assert next_.result(0) is line


@forking
def test_a_child_makes_lines_of_its_own_and_the_parents_stand(connecting):
    pool = OwnPool(connecting, "it", 2, prepare=True)
    idle, busy = pool.borrow(plenty), pool.borrow(plenty)
    pool.give_back(idle)

    def in_the_child():
        assert not idle.stands
        pool.give_back(busy)  # a block that goes on in the child
        own = pool.borrow(plenty)
        assert own.ask(ONE, plenty).ntuples == 1
        assert own not in {idle, busy}

    assert in_child(in_the_child) == 0
    assert idle.ask(ONE, plenty).ntuples == 1
    assert busy.ask(ONE, plenty).ntuples == 1
    pool.give_back(busy)
    pool.close()


@pytest.fixture
def lent(postgres_server):
    with psycopg_pool.ConnectionPool(postgres_server.url, min_size=1, max_size=1, open=True) as pool:
        yield pool


@pytest.mark.parametrize("prepare", [True, False])
def test_lines_of_a_pool_of_the_application(lent, prepare):
    pool = LentPool(lent, "it", prepare=prepare)
    for _ in range(2):
        line = pool.borrow(plenty)
        assert isinstance(line, Line)
        line.ask(ONE, plenty)
        pool.give_back(line)
    pool.close()
    with lent.connection() as connection:
        count = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert count == (int(prepare),)


def test_a_pool_without_a_connection_left_is_told_in_time(lent):
    pool = LentPool(lent, "it", prepare=True)
    line = pool.borrow(plenty)
    with pytest.raises(StoreUnavailable, match="the pool gave no connection in time") as told:
        pool.borrow(soon)
    assert told.value.retry_after == 1.0
    with pytest.raises(Lost):
        line.ask(ONE, lambda: 0.0)
    pool.give_back(line)
    again = pool.borrow(plenty)
    assert again.connection is not line.connection
    pool.give_back(again)


async def test_lines_of_an_async_pool_of_the_application(postgres_server):
    async with psycopg_pool.AsyncConnectionPool(
        postgres_server.url, min_size=1, max_size=1, open=False
    ) as lent:
        pool = AsyncLentPool(lent, "it", prepare=True)
        line = await pool.borrow(plenty)
        assert (await line.ask_async(ONE, plenty)).ntuples == 1
        with pytest.raises(StoreUnavailable, match="the pool gave no connection in time"):
            await pool.borrow(soon)
        await pool.give_back(line)
        line = await pool.borrow(plenty)
        with pytest.raises(Lost):
            await line.ask_async(ONE, lambda: 0.0)
        await pool.give_back(line)
        again = await pool.borrow(plenty)
        assert again.connection is not line.connection
        await pool.give_back(again)
        await pool.close()
