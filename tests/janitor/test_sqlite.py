from __future__ import annotations

import asyncio
import copy
import pickle
import sqlite3
from functools import partial

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resilience.janitor.sessions import session_id_of
from resilience.janitor.sqlite import AsyncSQLiteSessionStore, SQLiteSessionStore
from resilience.testing import FakeClock
from tests.janitor.conformance import Awaited, SessionConformance

IDLE, LIFETIME = 100.0, 1000.0


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
def store(path, clock):
    with SQLiteSessionStore(path, idle_timeout=IDLE, absolute_lifetime=LIFETIME, clock=clock) as store:
        yield store


def rows(path, query="SELECT * FROM resilience_sessions", *values):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


class TestConformance(SessionConformance):
    @pytest.fixture
    def open_store(self, path, clock):
        return partial(SQLiteSessionStore, path, clock=clock)


class TestConformanceOnALoop(SessionConformance):
    @pytest.fixture
    def open_store(self, path, clock):
        made = []

        def open_store(**options):
            store = AsyncSQLiteSessionStore(path, clock=clock, **options)
            made.append(Awaited(lambda: store))
            return made[-1]

        yield open_store
        for store in made:
            store.close()


# --- a session's life ------------------------------------------------------------------------------


def test_a_token_is_new_long_and_nowhere_in_the_file(store, path):
    tokens = {store.create("ada") for _ in range(50)}
    store.close()

    assert len(tokens) == 50
    assert min(map(len, tokens)) * 6 >= 128
    written = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert not any(token.encode() in written for token in tokens)


def test_a_renewal_writes_only_after_a_tenth_of_the_idle_timeout(store, path, clock):
    token = store.create("ada")
    before = rows(path)
    clock.advance(IDLE / 10 - 0.01)
    session = store.renew(token)
    assert rows(path) == before
    assert session.expires_at == clock.wall() - (IDLE / 10 - 0.01) + IDLE

    clock.advance(0.02)
    session = store.renew(token)

    assert session.expires_at == pytest.approx(clock.wall() + IDLE)
    assert rows(path, "SELECT expires_at FROM resilience_sessions") == [(session.expires_at,)]


def test_a_clock_set_back_shortens_nothing(store, clock):
    token = store.create("ada")
    expires_at = store.validate(token).expires_at
    clock.step_wall(-3600)

    assert store.renew(token).expires_at == expires_at


def test_a_renewal_that_a_later_one_has_passed_does_not_undo_it(store, clock, monkeypatch):
    token, change, promised = store.create("ada"), store._change, []

    def be_passed(*statement):
        monkeypatch.setattr(store, "_change", change)
        clock.advance(IDLE / 4)  # as long as the first waits for the write lock
        promised.append(store.renew(token).expires_at)
        return change(*statement)

    monkeypatch.setattr(store, "_change", be_passed)
    clock.advance(IDLE / 2)
    session = store.renew(token)

    assert promised == [clock.wall() + IDLE]
    assert store.validate(token).expires_at == promised[0]
    assert session.expires_at <= promised[0]


def test_a_session_logged_out_between_the_reading_and_the_writing_is_not_revived(store, clock, monkeypatch):
    token = store.create("ada")
    clock.advance(IDLE / 2)
    read = store.validate

    def read_then_logout(token):
        session = read(token)
        store.delete(session.session_id)
        return session

    monkeypatch.setattr(store, "validate", read_then_logout)

    assert store.renew(token) is None
    assert store.count() == 0


# --- ending sessions -------------------------------------------------------------------------------


def test_the_longest_expired_go_first_a_batch_at_a_time(store, clock, path):
    for user in "abcde":
        store.create(user)
        clock.advance(1)
    clock.advance(IDLE)
    fresh = store.create("fresh")

    assert store.count_expired(10) == 5
    assert store.count_expired(3) == 3
    assert store.delete_expired(2) == 2
    assert {user for (user,) in rows(path, "SELECT user_id FROM resilience_sessions")} == {*"cde", "fresh"}
    assert store.delete_expired(10) == 3
    assert store.delete_expired(10) == 0
    assert store.count() == 1
    assert store.validate(fresh) is not None


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM resilience_sessions WHERE session_id = ? AND expires_at > ?",
        "SELECT * FROM resilience_sessions WHERE user_id = ? ORDER BY created_at DESC LIMIT ?",
        "DELETE FROM resilience_sessions WHERE user_id = ?",
        "SELECT rowid FROM resilience_sessions WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
    ],
)
def test_every_question_is_answered_by_an_index(store, path, query):
    plan = rows(path, f"EXPLAIN QUERY PLAN {query}", *[1] * query.count("?"))

    assert all("USING" in line[-1] and "INDEX" in line[-1] for line in plan), plan
    assert not any("TEMP B-TREE" in line[-1] for line in plan)


# --- a model ---------------------------------------------------------------------------------------


class SessionMachine(RuleBasedStateMachine):
    """The store against a dict, with a clock that only goes forward."""

    def __init__(self):
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.store = SQLiteSessionStore(
            f"{self.folder.name}/s.db", idle_timeout=10.0, absolute_lifetime=25.0, clock=self.clock
        )
        self.model = {}  # token -> [user, last write, expires, ends]

    def alive(self, token):
        return token in self.model and self.model[token][1] > self.clock.wall()

    @rule(user=st.sampled_from("ab"))
    def create(self, user):
        now = self.clock.wall()
        self.model[self.store.create(user)] = [user, now + 10.0, now + 25.0]

    @rule(seconds=st.sampled_from([0.5, 1.5, 6.0, 11.0]))
    def advance(self, seconds):
        self.clock.advance(seconds)

    @rule(data=st.data())
    def renew(self, data):
        if self.model:
            token = data.draw(st.sampled_from(sorted(self.model)))
            session = self.store.renew(token)
            assert (session is not None) == self.alive(token)
            if session is not None:
                entry = self.model[token]
                latest = min(self.clock.wall() + 10.0, entry[2])
                if latest - entry[1] >= 1.0 or entry[1] < latest == entry[2]:
                    entry[1] = latest
                assert session.expires_at == entry[1]

    @rule(data=st.data())
    def delete(self, data):
        if self.model:
            token = data.draw(st.sampled_from(sorted(self.model)))
            assert self.store.delete(session_id_of(token))
            del self.model[token]

    @rule(user=st.sampled_from("ab"))
    def delete_user(self, user):
        theirs = {token for token, entry in self.model.items() if entry[0] == user}
        assert set(self.store.delete_user(user)) == {session_id_of(token) for token in theirs}
        for token in theirs:
            del self.model[token]

    @rule(limit=st.integers(1, 3))
    def delete_expired(self, limit):
        expired = sorted((t for t in self.model if not self.alive(t)), key=lambda t: self.model[t][1])
        assert self.store.count_expired(limit) == min(limit, len(expired))
        assert self.store.delete_expired(limit) == min(limit, len(expired))
        left = set(self.store.ended([session_id_of(token) for token in self.model]))
        for token in expired:
            if not rows(
                f"{self.folder.name}/s.db",
                "SELECT 1 FROM resilience_sessions WHERE session_id = ?",
                session_id_of(token),
            ):
                assert session_id_of(token) in left
                del self.model[token]

    @invariant()
    def agree(self):
        assert self.store.count() == sum(map(self.alive, self.model))

    def teardown(self):
        self.store.close()
        self.folder.cleanup()


TestSessionModel = SessionMachine.TestCase
TestSessionModel.settings = settings(max_examples=10, stateful_step_count=15, deadline=None)


# --- the file and its connections ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("idle_timeout", 0, ValueError),
        ("idle_timeout", float("nan"), ValueError),
        ("idle_timeout", "30", TypeError),
        ("absolute_lifetime", -1.0, ValueError),
        ("absolute_lifetime", True, TypeError),
        ("absolute_lifetime", 60.0, ValueError),  # shorter than the idle timeout
    ],
)
def test_a_duration_that_makes_no_sense_is_refused(path, option, value, error):
    with pytest.raises(error, match=option.replace("absolute_lifetime", "absolute_lifetime|idle_timeout")):
        SQLiteSessionStore(path, **{option: value})
    assert not path.exists()


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        SQLiteSessionStore(tmp_path / "missing" / "sessions.db")


def test_a_file_that_is_no_database_is_an_error_and_leaves_no_connection_open(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("dear diary " * 1000)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        SQLiteSessionStore(path)


def test_sessions_outlive_the_store(path, clock):
    with SQLiteSessionStore(path, clock=clock) as store:
        token = store.create("ada")
    with SQLiteSessionStore(path, clock=clock) as store:
        assert store.validate(token).user_id == "ada"


def test_a_closed_store_says_so(store):
    store.close()
    store.close()
    with pytest.raises(sqlite3.ProgrammingError, match="is closed"):
        store.count()


@pytest.mark.parametrize("make", [SQLiteSessionStore, AsyncSQLiteSessionStore])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_store_is_not_copied(path, make, duplicate):
    store = make(path)
    with pytest.raises(TypeError, match="another one for the same path"):
        duplicate(store)
    if make is SQLiteSessionStore:
        store.close()
    else:
        asyncio.run(store.close())


# --- the asynchronous face -------------------------------------------------------------------------


async def test_the_asynchronous_store_does_the_same(path, clock):
    async with AsyncSQLiteSessionStore(
        path, idle_timeout=IDLE, absolute_lifetime=LIFETIME, clock=clock
    ) as store:
        token = await store.create("ada", {"a": 1})
        session = await store.validate(token)
        assert session.data == {"a": 1}
        clock.advance(IDLE / 2)
        assert (await store.renew(token)).expires_at == clock.wall() + IDLE
        assert await store.count() == 1
        assert await store.delete(session.session_id)
        other = await store.create("ada")
        assert await store.delete_user("ada") == [session_id_of(other)]
        last = await store.create("ada")
        clock.advance(IDLE)
        assert await store.count_expired(5) == 1
        assert await store.ended([session_id_of(last)]) == [session_id_of(last)]
        assert await store.delete_expired(5) == 1
    with pytest.raises(sqlite3.ProgrammingError, match="is closed"):
        await store.count()
