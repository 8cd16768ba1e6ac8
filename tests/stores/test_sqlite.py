from __future__ import annotations

import gc
import os
import pickle
import sqlite3
import subprocess
import sys
import threading

import pytest

from resilience._core.counting import Charge
from resilience.stores import StoreUnavailable
from resilience.stores.sqlite import SQLiteStore
from resilience.testing import FakeClock
from tests.stores.conformance import StoreConformance, clock, counter, six, store  # noqa: F401 - fixtures


@pytest.fixture
def path(tmp_path):
    return tmp_path / "limits.db"


@pytest.fixture
def make_store(path):
    made = []

    def make(clock):  # noqa: F811 - the fixture's name is the argument's too
        made.append(SQLiteStore(path, clock=clock, busy_timeout=30))
        return made[-1]

    yield make
    for one in made:
        one.close()


class TestConformance(StoreConformance):
    pass


def rows(path):
    connection = sqlite3.connect(path)
    count = connection.execute("SELECT count(*) FROM resilience_quota").fetchone()[0]
    connection.close()
    return count


def test_processes_count_together_and_calls_block():
    assert SQLiteStore.shared
    assert SQLiteStore.blocking


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_a_database_in_memory_is_refused(path):
    with pytest.raises(ValueError, match="cannot be shared"):
        SQLiteStore(path)


@pytest.mark.parametrize("seconds", [-1, 61, float("nan")])
def test_busy_timeout_is_bounded(path, seconds):
    with pytest.raises(ValueError, match="busy_timeout"):
        SQLiteStore(path, busy_timeout=seconds)


def test_two_stores_on_one_file_count_together(path):
    with SQLiteStore(path) as one, SQLiteStore(str(path)) as other:
        each = counter("2/hour")
        assert one.take([Charge(each, "ada")])[0]
        assert other.take([Charge(each, "ada")])[0].remaining == 0
        assert not one.take([Charge(each, "ada")])[0]


def test_a_restart_forgets_nothing(path):
    with SQLiteStore(path) as one:
        one.take([Charge(counter("1/hour"), "ada")])
    with SQLiteStore(path) as other:
        assert not other.take([Charge(counter("1/hour"), "ada")])[0]


def test_four_processes_admit_exactly_six(path):
    program = (
        "import sys\n"
        "from resilience.limiter import RateLimiter\n"
        "from resilience.stores.sqlite import SQLiteStore\n"
        "with SQLiteStore(sys.argv[1], busy_timeout=30) as store:\n"
        "    login = RateLimiter('6/15 minutes', name='login', store=store, require_shared=True)\n"
        "    print(sum(bool(login.try_acquire('ada', '192.0.2.1')) for _ in range(100)))\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, outputs
    assert sum(int(out) for out, _ in outputs) == 6


def test_what_has_lapsed_is_removed_as_new_keys_come(path):
    fake = FakeClock()
    with SQLiteStore(path, clock=fake) as here:
        each = counter("1/minute")
        for number in range(20):
            here.take([Charge(each, f"user-{number}")])
        assert rows(path) == 20
        fake.advance(60)
        here.take([Charge(each, "user-1")])  # not new
        assert rows(path) == 20
        for number in range(10):
            here.take([Charge(each, f"new-{number}")])
        assert rows(path) == 11


def test_a_clock_set_back_a_little_stands_still(path):
    fake = FakeClock()
    with SQLiteStore(path, clock=fake) as here:
        each = counter("1/minute")
        here.take([Charge(each, "ada")])
        fake.step_wall(-30)
        assert here.take([Charge(each, "ada")])[0].retry_after == 60
        fake.advance(30)
        assert here.take([Charge(each, "ada")])[0].retry_after == 60
        fake.advance(60)
        assert here.take([Charge(each, "ada")])[0]


def test_a_clock_set_back_by_hours_goes_on_from_where_it_was(path):
    fake = FakeClock()
    with SQLiteStore(path, clock=fake) as here:
        each = counter("1/minute")
        here.take([Charge(each, "ada")])
        fake.step_wall(-7200)
        assert here.peek([Charge(each, "ada")])[0].retry_after == 60
        assert here.take([Charge(each, "ada")])[0].retry_after == 60
        fake.advance(59.9)
        assert not here.take([Charge(each, "ada")])[0]
        fake.advance(0.1)
        assert here.take([Charge(each, "ada")])[0]


def test_a_path_that_cannot_be_opened(tmp_path):
    with pytest.raises(StoreUnavailable, match="unable to open") as caught:
        SQLiteStore(tmp_path / "nowhere" / "limits.db")
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    (tmp_path / "text.db").write_text("This is no database, and long enough to be sure of it. " * 100)
    with pytest.raises(StoreUnavailable, match="not a database"):
        SQLiteStore(tmp_path / "text.db")


def test_somebody_else_holds_the_file(path):
    with SQLiteStore(path, busy_timeout=0.01) as here:
        blocker = sqlite3.connect(path)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            here.take([Charge(counter(), "ada")])
        assert here.peek([Charge(counter(), "ada")])[0].remaining == 6  # readers are not held up
        blocker.close()
        assert here.take([Charge(counter(), "ada")])[0].remaining == 5


def test_a_failure_in_between_takes_nothing(path):
    with SQLiteStore(path) as here:
        login, broken = counter(), counter("9/hour")

        class Broken:
            def admit(self, *args):
                raise KeyboardInterrupt

        charges = [Charge(login, "ada"), Charge(broken._replace(rules=Broken()), "ada")]
        with pytest.raises(KeyboardInterrupt):
            here.take(charges)
        assert not here._lent
        assert here.take([Charge(login, "ada")])[0].remaining == 5


def test_connections_are_kept_up_to_a_few(path):
    with SQLiteStore(path) as here:
        connections = [here._borrow() for _ in range(6)]
        for connection in connections:
            here._give_back(connection)
        assert len(here._idle) == 4
        assert not here._lent
        with pytest.raises(sqlite3.ProgrammingError):
            connections[-1].execute("SELECT 1")
    assert not here._idle


def test_a_store_that_nobody_closed_closes_itself(path):
    here = SQLiteStore(path)
    connection = here._idle[0]
    del here
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")


def test_a_pickled_store_opens_connections_of_its_own(path):
    with SQLiteStore(path, busy_timeout=2) as here:
        here.take([Charge(counter("1/hour"), "ada")])
        with pickle.loads(pickle.dumps(here)) as twin:
            assert twin._busy_timeout == 2
            assert not twin.take([Charge(counter("1/hour"), "ada")])[0]


def test_the_application_s_rollback_refunds_nothing(path):
    application = sqlite3.connect(path)
    with SQLiteStore(path) as here:
        application.execute("CREATE TABLE mine (id)")
        here.take([Charge(counter(), "ada")])
        application.rollback()
        assert here.peek([Charge(counter(), "ada")])[0].remaining == 5
    application.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_connections_are_not_carried_over_a_fork(path):
    with SQLiteStore(path, busy_timeout=30) as here:
        each = counter("2/hour")
        here.take([Charge(each, "ada")])
        read, write = os.pipe()
        child = os.fork()
        if not child:
            here.take([Charge(each, "ada")])
            os.write(write, b"%d" % here.take([Charge(each, "ada")])[0].allowed)
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 1) == b"0"
        os.close(read)
        os.close(write)
        assert not here.take([Charge(each, "ada")])[0]


def test_after_a_fork_everything_is_made_anew(path):
    with SQLiteStore(path) as here:
        lent = here._borrow()
        here._give_back(here._borrow())
        inherited = [*here._idle, lent]
        here.after_fork()
        assert not here._idle
        assert not here._lent
        assert isinstance(here._lock, type(threading.RLock()))
        here.peek([Charge(counter(), "ada")])
        assert here._idle[0] not in inherited
        for connection in inherited:
            connection.close()
