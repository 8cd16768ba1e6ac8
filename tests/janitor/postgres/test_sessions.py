from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from resilience.janitor.postgres import AsyncPostgresSessions, Bloat, PostgresSessions
from resilience.janitor.sessions import session_id_of
from resilience.stores import StoreUnavailable
from resilience.testing import FakeClock
from tests.janitor.conformance import IDLE, SessionConformance
from tests.janitor.places import InPostgres


@pytest.fixture
def clock(postgres_server):
    place = InPostgres(postgres_server)
    yield place
    place.close()


class TestConformance(SessionConformance):
    @pytest.fixture
    def open_store(self, clock):
        return clock.open


class TestConformanceOnALoop(SessionConformance):
    @pytest.fixture
    def open_store(self, clock):
        return clock.open_async


# --- what only PostgreSQL has --------------------------------------------------------------------------


def test_the_longest_expired_go_first(clock):
    store = clock.open(idle_timeout=IDLE)
    for user in "abcde":
        store.create(user)
        clock.advance(1)
    clock.advance(IDLE)
    store.delete_expired(2)

    assert [user for (user,) in clock.rows("user_id")] == ["c", "d", "e"]


def test_a_renewal_writes_nothing_before_a_tenth_of_the_idle_timeout(clock):
    store = clock.open(idle_timeout=IDLE)
    token = store.create("ada")
    before = clock.rows("xmin, ctid")
    clock.advance(IDLE / 11)
    store.renew(token)
    assert clock.rows("xmin, ctid") == before

    clock.advance(IDLE / 11)
    store.renew(token)
    assert clock.rows("xmin, ctid") != before


def test_a_token_is_nowhere_in_the_table(clock):
    token = clock.open().create("ada")

    assert token not in str(clock.rows("resilience_sessions"))
    assert session_id_of(token) in str(clock.rows("resilience_sessions"))


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_schema_may_be_made_by_several_at_once(clock, kind):
    clock.admin.execute("DROP TABLE resilience_sessions")
    stores = [clock.open_at(clock.url, kind) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda store: store.create_schema(), stores))

    assert stores[0].count() == 0


def test_a_table_that_is_not_there_is_said_so(clock):
    clock.admin.execute("DROP TABLE resilience_sessions")
    with pytest.raises(StoreUnavailable, match=r"call create_schema\(\), or run SCHEMA in a migration"):
        clock.open().count()


@pytest.mark.parametrize("user_id", ["a\0b", "\ud800", "x" * 2001])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_user_id_that_cannot_be_stored_is_refused(clock, kind, user_id):
    store = clock.open_at(clock.url, kind)
    with pytest.raises(ValueError, match="user_id must"):
        store.create(user_id)
    assert store.count() == 0


def test_nobody_is_logged_out_of_what_cannot_be_stored(clock):
    assert clock.open().delete_user("a\0b") == []
    assert clock.open_async().delete_user("a\0b") == []


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_bloat_is_what_the_database_says(clock, kind):
    store = clock.open_at(clock.url, kind)
    bloat = store.bloat()

    assert (bloat.live, bloat.dead, bloat.last_autovacuum) == (0, 0, None)
    assert bloat.size > 0


def test_a_table_full_of_dead_rows_is_warned_about_before_a_sweep_and_not_at_each_batch(clock, caplog):
    time = FakeClock()
    looks, few, many = [], Bloat(100, 100, 8192, None), Bloat(20_000, 30_000, 9_000_000, None)

    def bloat():
        looks.append(time.now())
        return many if len(looks) > 1 else few

    store = clock.open(clock=time)
    store.bloat = bloat
    for _ in range(3):
        store.delete_expired(10)
    assert len(looks) == 1
    assert caplog.text == ""
    time.advance(600.0)
    store.delete_expired(10)

    assert len(looks) == 2
    assert "60 % are dead (30000, and 9000000 bytes with the indexes)" in caplog.text


async def test_it_is_so_on_a_loop_too(clock, caplog):
    async def bloat():
        return Bloat(20_000, 30_000, 9_000_000, None)

    async with AsyncPostgresSessions(clock.url) as store:
        store.bloat = bloat
        await store.delete_expired(10)

    assert "60 % are dead" in caplog.text


def test_a_share_that_is_none_is_refused(clock):
    with pytest.raises(ValueError, match="bloat_warning"):
        clock.open(bloat_warning=1.5)


def test_the_end_of_a_block_closes_the_store(clock):
    with PostgresSessions(clock.url) as store:
        store.count()
    with pytest.raises(StoreUnavailable, match="the store was closed"):
        store.count()


async def test_the_end_of_a_block_closes_the_store_on_a_loop(clock):
    async with AsyncPostgresSessions(clock.url) as store:
        await store.count()
    with pytest.raises(StoreUnavailable, match="the store was closed"):
        await store.count()
