from __future__ import annotations

import copy
import os
import pickle
import sqlite3
import subprocess
import sys

import pytest

from resilience._core.counting import Charge
from resilience.clock import SYSTEM_CLOCK
from resilience.stores import StoreUnavailable
from resilience.stores.on_loop import on_loop
from resilience.stores.sqlite import SQLiteStore
from resilience.testing import FakeClock
from tests.children import forking
from tests.stores.conformance import (  # noqa: F401 - fixtures
    StoreConformance,
    awaited,
    clock,
    counter,
    six,
    store,
)


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


class TestConformanceOnALoop(StoreConformance):
    @pytest.fixture
    def make_store(self, make_store, awaited):  # noqa: F811 - the fixture's name is the argument's too
        return lambda clock: awaited(lambda: on_loop(make_store(clock)))  # noqa: F811 - as above


def select(path, query):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def rows(path):
    return select(path, "SELECT count(*) FROM resilience_quota")[0][0]


def change(path, statement):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


def test_processes_count_together_and_calls_block():
    assert SQLiteStore.shared
    assert SQLiteStore.blocking


def test_a_database_in_memory_is_refused():
    with pytest.raises(ValueError, match="must name a file"):
        SQLiteStore(":memory:")


@pytest.mark.parametrize("seconds", [-1, 61, float("nan")])
def test_busy_timeout_is_bounded(path, seconds):
    with pytest.raises(ValueError, match="busy_timeout"):
        SQLiteStore(path, busy_timeout=seconds)


@pytest.mark.parametrize(("keys", "error"), [(0, ValueError), (True, TypeError), (1e6, TypeError)])
def test_max_keys_is_a_number_of_keys(path, keys, error):
    with pytest.raises(error, match="max_keys"):
        SQLiteStore(path, max_keys=keys)


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


def test_processes_whose_clocks_are_apart_do_not_drive_each_other_on(path):
    """Two hours apart, as no two processes of one machine should be; each call must not add two more."""
    ahead, behind = FakeClock(wall=1_700_007_200.0), FakeClock(wall=1_700_000_000.0)
    with SQLiteStore(path, clock=ahead) as one, SQLiteStore(path, clock=behind) as other:
        each = counter("6/hour")
        admitted = 0
        for _ in range(20):
            for store in (one, other):
                admitted += store.take([Charge(each, "ada")])[0].allowed
            ahead.advance(60)
            behind.advance(60)
        assert admitted == 6


# --- how many keys -------------------------------------------------------------------------------


def test_a_flood_of_keys_stays_within_the_cap(path):
    fake = FakeClock()
    with SQLiteStore(path, max_keys=32, clock=fake) as here:
        each = counter("1/hour")
        assert here.take([Charge(each, "victim")])[0]
        admitted = sum(here.take([Charge(each, f"flood-{number}")])[0].allowed for number in range(200))
        assert rows(path) == 1 + admitted == 32 + 2  # one spare place for sixteen keys
        assert not here.take([Charge(each, "victim")])[0]
        assert not here.take([Charge(each, "flood-0")])[0]
        here.reset([each], "newcomer")  # empties no place that others share
        assert not here.take([Charge(each, "newcomer")])[0]
        assert not here.peek([Charge(each, "newcomer")])[0]
        assert len(here.holding([each], 100).entries) == 32

        fake.advance(3600)
        assert here.take([Charge(each, "newcomer")])[0]
        for number in range(20):
            here.take([Charge(each, f"later-{number}")])
        assert rows(path) == 21


def test_there_is_room_again_after_a_reset_or_a_refund(path):
    with SQLiteStore(path, max_keys=2, clock=FakeClock()) as here:
        each = counter("1/hour")
        here.take([Charge(each, "ada")])
        bob = Charge(each, "bob")
        receipt = here.take([bob])[0].receipt
        assert here.take([Charge(each, "eve")])[0]  # in the spare place
        assert not here.take([Charge(each, "mal")])[0]
        here.refund([bob], [receipt])
        here.reset([each], "ada")
        assert not here.take([Charge(each, "eve")])[0]  # stays where it counts, though there is room
        assert rows(path) == 1


def test_one_who_counts_in_a_spare_place_gets_back_what_was_taken_there(path):
    with SQLiteStore(path, max_keys=1, clock=FakeClock()) as here:
        each = counter("2/hour")
        here.take([Charge(each, "ada")])
        eve = Charge(each, "eve")
        receipt = here.take([eve])[0].receipt
        here.refund([eve], [receipt])
        assert here.peek([eve])[0].remaining == 2
        assert rows(path) == 1
        here.reset([each], "ada")
        here.take([eve])  # in a place of its own, since there is room and nothing counts in the spare one
        assert [entry.key for entry in here.holding([each], 9).entries] == ["eve"]


def test_a_file_whose_book_was_lost_counts_its_rows_anew(path):
    with SQLiteStore(path, clock=FakeClock()) as here:
        each = counter("1/hour")
        for number in range(3):
            here.take([Charge(each, f"user-{number}")])
        change(path, "DELETE FROM resilience_quota_book")
        here.take([Charge(each, "one more")])
        assert select(path, "SELECT held FROM resilience_quota_book") == [(4,)]


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_path_that_cannot_be_opened(tmp_path):
    with pytest.raises(StoreUnavailable, match=r"unable to open.*; its folder must exist") as caught:
        SQLiteStore(tmp_path / "nowhere" / "limits.db")
    assert isinstance(caught.value.__cause__, sqlite3.Error)
    assert caught.value.status == 503
    with pytest.raises(StoreUnavailable, match="unable to open"):
        SQLiteStore(tmp_path)
    (tmp_path / "text.db").write_text("This is no database, and long enough to be sure of it. " * 100)
    with pytest.raises(StoreUnavailable, match="not a database; name another file"):
        SQLiteStore(tmp_path / "text.db")


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE resilience_quota_book (mine)",
        "CREATE TABLE resilience_quota (scope, key, lapses)",
        "CREATE VIEW resilience_quota_book AS SELECT 'a' AS latest, 1 AS held, 2 AS crowded, x'00' AS salt",
    ],
)
def test_another_program_s_table(path, statement):
    change(path, statement)
    with pytest.raises(StoreUnavailable, match="name another file"):
        SQLiteStore(path).take([Charge(counter(), "ada")])


@pytest.mark.parametrize("state", ["'six'", "6", "NULL"])
def test_another_program_s_row(path, state):
    change(path, "CREATE TABLE resilience_quota (scope, key, state, lapses, PRIMARY KEY (scope, key))")
    with SQLiteStore(path) as here:
        each = counter()
        change(path, f"INSERT INTO resilience_quota VALUES ('{each.scope}', 'ada', {state}, 9e18)")
        with pytest.raises(StoreUnavailable, match="which no limiter wrote: name another file"):
            here.take([Charge(each, "ada")])
        assert here.take([Charge(each, "bob")])[0]


def test_a_damaged_file(path):
    with SQLiteStore(path) as here:
        for number in range(200):
            here.take([Charge(counter(), f"user-{number}")])
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(byte ^ 0x5A for byte in content[4096:])
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="malformed; restore it, or remove it"):
        SQLiteStore(path).take([Charge(counter(), "ada")])


def test_a_file_that_may_not_be_written(path):
    SQLiteStore(path).close()
    program = (
        "import os, sys\n"
        "from resilience.stores.sqlite import SQLiteStore\n"
        "from resilience.stores import StoreUnavailable\n"
        "os.chmod(sys.argv[1], 0o444); os.chmod(os.path.dirname(sys.argv[1]), 0o555)\n"
        "if os.geteuid() == 0: os.chmod(os.path.dirname(sys.argv[1]) + '/..', 0o755); os.seteuid(65534)\n"
        "try:\n"
        "    SQLiteStore(sys.argv[1])\n"
        "except StoreUnavailable as error:\n"
        "    print(error)\n"
        "else:\n"
        "    print('it was opened')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True, timeout=30
    )
    path.parent.chmod(0o755)
    assert "are unavailable" in done.stdout
    assert "this process must be allowed to" in done.stdout


def test_a_full_disk_charges_nothing_and_is_got_over(path):
    program = (
        "import os, resource, sys\n"
        "from resilience.limiter import RateLimiter\n"
        "from resilience.stores import StoreUnavailable\n"
        "from resilience.stores.sqlite import SQLiteStore\n"
        "with SQLiteStore(sys.argv[1]) as store:\n"
        "    login = RateLimiter('6/hour', name='login', store=store)\n"
        "    login.require('ada')\n"
        "    most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "    used = os.path.getsize(sys.argv[1] + '-wal')\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (used + 2000, most))\n"
        "    try:\n"
        "        login.require('ada')\n"
        "    except StoreUnavailable as error:\n"
        "        print(error)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))\n"
        "    print(login.require('ada').remaining)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path], capture_output=True, text=True, check=True, timeout=30
    )
    error, remaining = done.stdout.splitlines()
    assert "; look at its disk" in error or "; make room on its disk" in error
    assert remaining == "4"


def test_somebody_else_holds_the_file(path):
    with SQLiteStore(path, busy_timeout=0.01) as here:
        blocker = sqlite3.connect(path)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="others kept it locked for all of"):
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
        assert here.take([Charge(login, "ada")])[0].remaining == 5


def test_a_closed_store_is_unavailable(path):
    here = SQLiteStore(path)
    here.close()
    here.close()
    with pytest.raises(StoreUnavailable, match="is closed"):
        here.take([Charge(counter(), "ada")])


@pytest.mark.parametrize("twin_of", [lambda here: pickle.loads(pickle.dumps(here)), copy.copy])
def test_a_twin_opens_connections_of_its_own(path, twin_of):
    with SQLiteStore(path, busy_timeout=2, max_keys=50) as here:
        here.take([Charge(counter("1/hour"), "ada")])
        with twin_of(here) as twin:
            assert (twin._busy_timeout, twin._max_keys, twin.clock) == (2, 50, SYSTEM_CLOCK)
            assert not twin.take([Charge(counter("1/hour"), "ada")])[0]


def test_a_twin_keeps_the_clock(path):
    fake = FakeClock()
    with SQLiteStore(path, clock=fake) as here, copy.copy(here) as twin:
        assert twin.clock is fake


def test_the_application_s_rollback_refunds_nothing(path):
    application = sqlite3.connect(path)
    with SQLiteStore(path) as here:
        application.execute("CREATE TABLE mine (id)")
        here.take([Charge(counter(), "ada")])
        application.rollback()
        assert here.peek([Charge(counter(), "ada")])[0].remaining == 5
    application.close()


@forking
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
