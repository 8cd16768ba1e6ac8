from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resilience import sqlite_file
from resilience.sqlite_file import SQLiteFile
from tests.children import forking, write_in_child_around

SCHEMA = "CREATE TABLE IF NOT EXISTS names (name)"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "names.db"


def opened(path, **options):
    return SQLiteFile(path, SCHEMA, **{"synchronous": "NORMAL", "busy_timeout": 10.0} | options)


@pytest.fixture
def file(path):
    file = opened(path)
    yield file
    file.close()


def add(file, name="ada"):
    with file.borrowed() as connection:
        connection.execute("INSERT INTO names VALUES (?)", (name,))


def names(path):
    connection = sqlite3.connect(path)
    try:
        return sorted(name for (name,) in connection.execute("SELECT name FROM names"))
    finally:
        connection.close()


def is_closed(connection):
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return True
    return False


# --- what it opens -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", ":memory:", "file:names?mode=memory", b":memory:"])
def test_a_path_that_is_no_file_is_refused(path):
    with pytest.raises(ValueError, match="must name a file"):
        opened(path)


def test_a_path_that_is_no_path_is_refused():
    with pytest.raises(TypeError):
        opened(None)


def test_a_file_that_cannot_be_opened_is_known_at_once(tmp_path):
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        opened(tmp_path / "missing" / "names.db")
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        opened(tmp_path)


def test_a_file_that_is_no_database_leaves_no_connection_open(path):
    path.write_text("dear diary " * 1000)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        opened(path)


def test_it_stays_where_it_is_whatever_becomes_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    file = opened("names.db")
    with file.borrowed():
        monkeypatch.chdir("elsewhere")
        add(file)  # by another connection
    file.close()
    assert names(tmp_path / "names.db") == ["ada"]
    assert file.path == str(Path(tmp_path, "names.db").resolve())


@pytest.mark.parametrize(("synchronous", "number"), [("NORMAL", 1), ("FULL", 2)])
def test_how_it_writes(path, synchronous, number):
    file = opened(path, synchronous=synchronous, busy_timeout=2.5)
    with file.borrowed() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (number,)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (2500,)
    file.close()


# --- what it lends -------------------------------------------------------------------------------


def test_threads_use_a_connection_each_and_lend_them_on(file, path):
    together = threading.Barrier(4)

    def work(_):
        together.wait(5)
        for _ in range(5):
            add(file)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert names(path) == ["ada"] * 20
    assert 1 <= len(file._idle) <= 5


def test_some_are_kept_and_the_rest_are_closed(file):
    lent = [file._take() for _ in range(sqlite_file._KEPT + 1)]
    for connection in lent:
        file._put_back(connection)
    assert [is_closed(connection) for connection in lent] == [False] * sqlite_file._KEPT + [True]


def test_what_a_failing_block_has_begun_is_undone(file, path):
    add(file)

    def fail_half_way():
        with file.borrowed() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("DELETE FROM names")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    add(file)  # nobody holds the write lock
    assert names(path) == ["ada", "ada"]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_one_that_an_interrupt_lost_holds_nothing(file, path):
    lost = file._take()
    lost.execute("BEGIN IMMEDIATE")
    del lost
    gc.collect()
    add(file)
    assert names(path) == ["ada"]


def test_a_closed_file_says_so(file):
    file.close()
    file.close()
    with pytest.raises(sqlite3.ProgrammingError, match="is closed"):
        add(file)


def test_what_is_in_use_while_it_closes_is_closed_when_it_comes_back(file):
    with file.borrowed() as connection:
        file.close()
        assert not is_closed(connection)
    assert is_closed(connection)


def test_a_file_that_nobody_closed_closes_itself(path):
    file = opened(path)
    (connection,) = file._idle
    del file
    gc.collect()
    assert is_closed(connection)


# --- several processes ---------------------------------------------------------------------------


def test_six_processes_may_make_the_file_at_once(tmp_path):
    program = (
        "import sys\n"
        "from resilience.sqlite_file import SQLiteFile\n"
        f"for number in range(20):\n"
        f"    sys.stdin.readline()\n"
        f"    SQLiteFile(f'{{sys.argv[1]}}/{{number}}.db', {SCHEMA!r}, synchronous='NORMAL', "
        f"busy_timeout=10.0).close()\n"
        f"    print('made', flush=True)\n"
    )
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for _ in range(20):
        for maker in makers:
            maker.stdin.write("\n")
            maker.stdin.flush()
        assert [maker.stdout.readline() for maker in makers] == ["made\n"] * 6
    for maker in makers:
        assert maker.communicate(timeout=10)[1] == ""


class BusyConnection:
    """Answers as SQLite does while other processes make the same file."""

    def __init__(self, *codes):
        self.codes = list(codes)
        self.statements = []

    def execute(self, statement):
        self.statements.append(statement)
        if statement.startswith("PRAGMA") and self.codes:
            error = sqlite3.OperationalError("no")
            error.sqlite_errorcode = self.codes.pop(0)
            raise error


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_RECOVERY])
def test_a_file_that_others_are_making_is_waited_for(code):
    connection = BusyConnection(code)
    sqlite_file._use_write_ahead_log(connection)

    assert connection.statements == [
        "PRAGMA journal_mode = WAL",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "PRAGMA journal_mode = WAL",
    ]


def test_another_failure_is_not_waited_out():
    with pytest.raises(sqlite3.OperationalError):
        sqlite_file._use_write_ahead_log(BusyConnection(sqlite3.SQLITE_READONLY))


def test_a_file_that_stays_busy_is_an_error_in_the_end():
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite_file._use_write_ahead_log(BusyConnection(*[sqlite3.SQLITE_BUSY] * 1000))


# --- forks ---------------------------------------------------------------------------------------


@pytest.fixture
def inherited(monkeypatch):
    """What a child inherited, apart from what this process may have inherited itself."""
    fresh = sqlite_file._Inherited()
    monkeypatch.setattr(sqlite_file, "_inherited", fresh)
    return fresh


def test_a_child_closes_what_it_inherited_before_it_opens_anything(file, path, inherited):
    other = opened(path)
    before = [*file._idle, *other._idle]
    file.after_fork()  # as in a child
    other.after_fork()
    assert [is_closed(connection) for connection in before] == [False, False]  # not by the fork itself

    add(file)
    assert [is_closed(connection) for connection in before] == [True, True]
    assert not inherited.idle
    other.close()


def test_a_child_cannot_have_what_was_in_use_when_it_was_forked(file, path, tmp_path, inherited):
    with file.borrowed() as connection:
        file.after_fork()  # as in a child that some other thread forked
        for one in (file, lambda: opened(path)):
            with pytest.raises(sqlite3.OperationalError, match="fork before threads use the store"):
                add(one) if one is file else one()
        opened(tmp_path / "another.db").close()
        assert not is_closed(connection)
    inherited.in_use.clear()


@forking
@pytest.mark.parametrize("same", [True, False], ids=["the same object", "an object of its own"])
def test_what_a_child_writes_is_not_lost_when_its_parent_closes_the_file(path, same):
    # Without closing what it inherited, the child would not hold SQLite's lock on the file, and the
    # parent, as the last one, would delete the log into which the child writes.
    file = opened(path)
    add(file, "parent")

    mine = [file] if same else []

    def write():
        if not mine:
            mine.append(opened(path))
        add(mine[0], "child")

    write_in_child_around(file.close, write)
    assert names(path) == ["child", "child", "parent"]
