from __future__ import annotations

import asyncio
import copy
import importlib.util
import logging
import sys

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from resilience.events import ConnectionsReaped, SweepFailed, subscribe
from resilience.janitor import connections
from resilience.janitor.connections import AsyncConnectionReaper, ConnectionReaper
from resilience.janitor.idle import identities
from resilience.testing import FakeClock
from tests.janitor.shop import Shop
from tests.proxy import Proxy


@pytest.fixture(scope="module")
def shop_of_this_module(postgres_server):
    shop = Shop(postgres_server, "reaped")
    yield shop
    shop.close()


@pytest.fixture
def shop(shop_of_this_module):
    shop_of_this_module.ahead(0)
    yield shop_of_this_module
    shop_of_this_module.end_all()


@pytest.fixture(params=[ConnectionReaper, AsyncConnectionReaper])
def kind(request):
    return request.param


def sweep(reaper):
    """Sweep, whichever of the twins it is."""
    result = reaper.sweep()
    return asyncio.run(result) if isinstance(reaper, AsyncConnectionReaper) else result


def pids(records):
    return {record.pid for record in records}


def reasons(event):
    return {spared.connection.pid: spared.reason for spared in event.spared}


def pid_of(connection):
    return connection.info.backend_pid


def check_nothing_is_seen(kind, shop, **settings):
    """Check that a sweep neither ends nor reports anything."""
    event = sweep(kind(shop.url, "shop-", dry_run=False, **settings))

    assert (event.ended, event.spared) == ((), ())


# --- what is ended ----------------------------------------------------------------------------------


def test_it_only_reports_unless_told_otherwise(kind, shop, caplog):
    forgotten = shop.idle_in_transaction()
    shop.ahead(61)
    reaper = kind(shop.url, "shop-")

    with caplog.at_level(logging.INFO, "resilience"):
        event = sweep(reaper)

    assert event.dry_run
    (seen,) = event.ended
    assert (seen.pid, seen.application_name, seen.client, seen.state) == (
        pid_of(forgotten),
        "shop-web",
        "127.0.0.1",
        "idle in transaction",
    )
    assert seen.seconds > 61
    assert reaper.stats().ended == 0
    assert forgotten.execute("SELECT 1").fetchone() == (1,)
    (record,) = caplog.records
    assert record.levelname == "INFO"
    assert record.getMessage() == (
        f"the reaper connections would have ended 1 idle connections: {pid_of(forgotten)} shop-web"
        " (idle in transaction for 61 s)"
    )


def test_a_forgotten_transaction_is_ended(kind, shop, caplog):
    forgotten = shop.idle_in_transaction()
    failed = shop.connect()
    failed.execute("BEGIN")
    with pytest.raises(psycopg.errors.DivisionByZero):
        failed.execute("SELECT 1 / 0")
    shop.wait_for(failed, "idle in transaction (aborted)")
    at_rest = shop.connect()
    shop.ahead(61)
    told = []
    reaper = kind(shop.url, "shop-", dry_run=False, on_reap=told.append, clock=FakeClock(wall=500.0))

    event = sweep(reaper)

    assert pids(event.ended) == {pid_of(forgotten), pid_of(failed)}
    assert event.spared == ()
    assert told == [event]
    assert (event.reaper, event.dry_run) == ("connections", False)
    for connection in (forgotten, failed):
        shop.wait_until_gone(pid_of(connection))
    with pytest.raises(psycopg.errors.AdminShutdown):
        forgotten.execute("SELECT 1")
    assert shop.is_alive(at_rest)
    assert reaper.stats().as_dict() == {"ended": 2, "sweeps": 1, "failed_sweeps": 0, "last_sweep_at": 500.0}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_transaction_that_is_not_idle_for_long_is_none_of_its_business(kind, shop, caplog):
    recent = shop.idle_in_transaction()
    shop.ahead(59)

    check_nothing_is_seen(kind, shop)
    assert shop.is_alive(recent)
    assert not caplog.records


def test_plainly_idle_connections_are_ended_by_choice(kind, shop):
    at_rest = shop.connect()
    shop.ahead(301)

    check_nothing_is_seen(kind, shop)
    event = sweep(kind(shop.url, "shop-", dry_run=False, idle=300.0))

    assert pids(event.ended) == {pid_of(at_rest)}
    shop.wait_until_gone(pid_of(at_rest))


def test_transactions_can_be_left_alone(kind, shop):
    shop.idle_in_transaction()
    shop.ahead(1000)

    check_nothing_is_seen(kind, shop, idle_in_transaction=None)


def test_of_many_those_idle_longest_are_ended_first(kind, shop):
    in_order = [shop.idle_in_transaction() for _ in range(3)]
    shop.ahead(61)

    event = sweep(kind(shop.url, "shop-", dry_run=False, limit=2))

    assert [each.pid for each in event.ended] == [pid_of(connection) for connection in in_order[:2]]
    assert reasons(event) == {pid_of(in_order[2]): "left for the next sweep"}


# --- whose are spared ---------------------------------------------------------------------------------


def test_others_are_not_even_seen(kind, shop, postgres_server):
    shop.admin.execute("CREATE ROLE neighbour LOGIN")
    shop.admin.execute(f"GRANT neighbour, pg_read_all_stats TO {shop.name}")  # so it might end theirs
    others = [
        shop.idle_in_transaction("other-web"),
        shop.idle_in_transaction("my shop-web"),
        shop.idle_in_transaction("SHOP-WEB"),
        psycopg.connect(make_conninfo(shop.url, user="neighbour"), application_name="shop-web"),
        psycopg.connect(make_conninfo(shop.url, user="postgres"), application_name="shop-web"),
        psycopg.connect(make_conninfo(shop.url, dbname="postgres"), application_name="shop-web"),
    ]
    for connection in others[3:]:
        connection.execute("SELECT 1")
        shop.wait_for(connection, "idle in transaction")
    shop.ahead(100_000)

    check_nothing_is_seen(kind, shop, idle=300.0)

    assert all(shop.is_alive(connection) for connection in others)
    for connection in others[3:]:
        connection.close()
    shop.admin.execute(f"REVOKE pg_read_all_stats FROM {shop.name}")
    shop.admin.execute("DROP ROLE neighbour")


def test_who_holds_an_advisory_lock_is_spared(kind, shop):
    by_session = shop.connect()
    by_session.execute("SELECT pg_advisory_lock(1)")
    by_session.execute("SELECT 1")
    shared = shop.connect()
    shared.execute("SELECT pg_advisory_lock_shared(2)")
    in_transaction = shop.idle_in_transaction()
    in_transaction.execute("SELECT pg_advisory_xact_lock(3)")
    holders = [by_session, shared, in_transaction]
    shop.wait_for(in_transaction, "idle in transaction")
    shop.ahead(301)

    event = sweep(kind(shop.url, "shop-", dry_run=False, idle=300.0))

    assert event.ended == ()
    assert reasons(event) == dict.fromkeys(map(pid_of, holders), "holds an advisory lock")
    assert all(shop.is_alive(connection) for connection in holders)


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("shop-web", "LISTEN orders"),
        ("shop-web", "/* at start */ listen orders"),
        ("shop-web", "UNLISTEN other"),
        ("shop-Listener", "SELECT 1"),
    ],
)
def test_who_may_be_listening_is_spared(kind, shop, name, statement):
    listener = shop.connect(name)
    listener.execute(statement)
    shop.wait_for(listener, "idle")
    shop.ahead(301)

    event = sweep(kind(shop.url, "shop-", dry_run=False, idle=300.0))

    assert event.ended == ()
    assert reasons(event) == {pid_of(listener): "may be listening"}
    assert shop.is_alive(listener)


def test_a_word_that_only_has_it_inside_is_no_listening(kind, shop):
    connection = shop.connect()
    connection.execute("SELECT 1 AS listened, 2 AS glisten")
    shop.wait_for(connection, "idle")
    shop.ahead(301)

    assert pids(sweep(kind(shop.url, "shop-", idle=300.0)).ended) == {pid_of(connection)}


def test_what_is_kept_by_name_is_spared(kind, shop):
    kept, other = shop.idle_in_transaction("shop-report-7"), shop.idle_in_transaction("shop-web")
    shop.ahead(61)

    event = sweep(kind(shop.url, "shop-", dry_run=False, keep=["shop-batch", "shop-report"]))

    assert reasons(event) == {pid_of(kept): "kept by name"}
    assert pids(event.ended) == {pid_of(other)}
    assert shop.is_alive(kept)


@pytest.mark.parametrize("way", ["works", "has worked and idles again", "is gone"])
def test_what_changes_after_it_was_seen_is_spared(kind, shop, way):
    waking = shop.idle_in_transaction()
    shop.ahead(61)

    class Slow(kind):
        def _chosen(self, found):
            if way == "works":
                waking.execute("COMMIT")
            elif way == "has worked and idles again":
                waking.execute("SELECT 1")
                shop.wait_for(waking, "idle in transaction")
            else:
                waking.close()
                shop.wait_until_gone(pid)
            return super()._chosen(found)

    pid = pid_of(waking)
    event = sweep(Slow(shop.url, "shop-", dry_run=False))

    assert event.ended == ()
    assert reasons(event) == {pid: "changed since it was seen"}
    assert way == "is gone" or shop.is_alive(waking)


def test_who_takes_a_lock_or_begins_to_listen_after_it_was_seen_is_spared(kind, shop, monkeypatch):
    """The statement that ends looks at everything anew, even where nothing tells that it was busy."""
    monkeypatch.setattr(connections, "identities", lambda found: everything)
    connection = shop.connect()
    connection.execute("SELECT pg_advisory_lock(1)")
    shop.wait_for(connection, "idle")
    shop.ahead(301)
    found = []

    class Blind(kind):
        def _chosen(self, seen):
            found.extend(each._replace(reason=None) for each in seen)
            everything.update({name: [getattr(each, name) for each in found] for name in everything})
            return found

    everything = {"pid": [], "began": [], "idle_since": [], "state": []}
    event = sweep(Blind(shop.url, "shop-", dry_run=False, idle=300.0))

    assert everything["pid"] == [pid_of(connection)]
    assert event.ended == ()
    assert shop.is_alive(connection)


@pytest.mark.parametrize("column", ["pid", "began", "idle_since", "state"])
def test_one_that_is_not_the_same_in_every_column_is_spared(kind, shop, monkeypatch, column):
    def differing(found):
        values = identities(found)
        values[column] = [value + (1 if isinstance(value, int) else "?") for value in values[column]]
        return values

    monkeypatch.setattr(connections, "identities", differing)
    forgotten = shop.idle_in_transaction()
    shop.ahead(61)

    event = sweep(kind(shop.url, "shop-", dry_run=False))

    assert reasons(event) == {pid_of(forgotten): "changed since it was seen"}
    assert shop.is_alive(forgotten)


def test_a_replication_connection_is_spared(new_postgres_server):
    server = new_postgres_server(wal_level="logical", max_wal_senders="2")
    shop = Shop(server, "shop")
    shop.admin.execute("ALTER ROLE shop REPLICATION")
    sender = shop.connect(replication="database", options="-c search_path=pg_catalog")
    worker = shop.connect()
    shop.ahead(301)

    event = ConnectionReaper(shop.url, "shop-", dry_run=False, idle=300.0).sweep()

    assert pids(event.ended) == {pid_of(worker)}
    assert event.spared == ()
    assert shop.is_alive(sender)
    shop.close()


# --- what goes wrong ----------------------------------------------------------------------------------


def test_a_superuser_is_refused(kind, shop, postgres_server):
    forgotten = shop.idle_in_transaction()
    reaper = kind(make_conninfo(shop.url, user="postgres"), "shop-", dry_run=False, idle_in_transaction=1e-6)

    with pytest.raises(
        RuntimeError, match=r"the reaper connections is connected as a superuser.* role of its"
    ):
        sweep(reaper)

    assert shop.is_alive(forgotten)
    assert reaper.stats().failed_sweeps == 1


def test_one_that_became_a_superuser_in_the_meantime_sees_nobody(kind, shop):
    class Late(kind):
        def _refuse_superuser(self, rows):
            assert rows == [(True,)]

    url = make_conninfo(shop.url, user="postgres")
    with psycopg.connect(url, application_name="shop-web") as connection:
        connection.execute("SELECT 1")
        shop.wait_for(connection, "idle in transaction")

        event = sweep(Late(url, "shop-", dry_run=False, idle_in_transaction=1e-6))

        assert (event.ended, event.spared) == ((), ())
        assert shop.is_alive(connection)


def test_a_server_that_is_not_there_is_told(kind):
    told = []
    unsubscribe = subscribe(told.append)
    reaper = kind("postgresql://shop@127.0.0.1:1/shop", "shop-", name="night")

    with pytest.raises(psycopg.OperationalError) as raised:
        sweep(reaper)

    unsubscribe()
    assert told == [SweepFailed("night", raised.value)]
    assert reaper.stats().as_dict() == {
        "ended": 0,
        "sweeps": 0,
        "failed_sweeps": 1,
        "last_sweep_at": None,
    }


def test_a_server_that_does_not_answer_holds_nobody_up(kind, shop, postgres_server):
    with Proxy(postgres_server.port) as proxy:

        class Cut(kind):
            def _chosen(self, found):
                proxy.blackhole()
                return super()._chosen(found)

        shop.idle_in_transaction()
        shop.ahead(61)
        reaper = Cut(make_conninfo(shop.url, port=proxy.port), "shop-", dry_run=False, timeout=0.3)

        with pytest.raises(
            TimeoutError, match=r"PostgreSQL did not answer the reaper connections within 0\.3 s"
        ):
            sweep(reaper)

    assert reaper.stats().failed_sweeps == 1


def test_the_server_bounds_each_statement_and_remembers_nothing(kind, shop, monkeypatch):
    seen = []

    class Asking(kind):
        def _refuse_superuser(self, rows):
            seen.append(rows)

    monkeypatch.setattr(
        connections,
        "WHO",
        "SELECT current_setting('statement_timeout'), current_setting('transaction_read_only')",
    )
    sweep(Asking(shop.url, "shop-", timeout=2.5))

    assert seen == [[("2500ms", "on")]]


# --- arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"application_prefix": ""}, ValueError, "1 to 63 printable ASCII characters"),
        ({"application_prefix": "  "}, ValueError, "application_prefix must be 1 to 63"),
        ({"application_prefix": "s" * 64}, ValueError, "application_prefix must be 1 to 63"),
        ({"application_prefix": "läden"}, ValueError, "application_prefix must be 1 to 63"),
        ({"application_prefix": "shop\n"}, ValueError, "application_prefix must be 1 to 63"),
        ({"application_prefix": None}, TypeError, "application_prefix must be a string, not None"),
        ({"keep": "shop-report"}, TypeError, r"such as \['shop-report'\]"),
        ({"keep": [""]}, ValueError, "keep must be 1 to 63"),
        ({"dry_run": ""}, TypeError, "dry_run must be True or False, not ''"),
        ({"idle": 299.0}, ValueError, "idle must be a finite number of at least 300"),
        ({"idle_in_transaction": 0}, ValueError, "idle_in_transaction must be a finite number above 0"),
        ({"limit": 0}, ValueError, "limit must be at least 1"),
        ({"timeout": float("nan")}, ValueError, "timeout must be"),
        ({"timeout": 86_401.0}, ValueError, "timeout must be a finite number .* at most 86400"),
        ({"url": "secret and no URL"}, ValueError, "url must say where the database is"),
        ({"url": 5432}, TypeError, "url must be a string, not int"),
    ],
)
def test_what_makes_no_sense_is_refused(kind, arguments, error, text):
    with pytest.raises(error, match=text) as raised:
        kind(**{"url": "postgresql://shop@localhost/shop", "application_prefix": "shop-", **arguments})

    assert "secret" not in str(raised.value)


def test_it_cannot_be_copied(kind):
    with pytest.raises(TypeError, match="make a new one"):
        copy.copy(kind("dbname=shop", "shop-"))


def test_without_psycopg_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    spec = importlib.util.spec_from_file_location("connections_without_psycopg", connections.__file__)

    with pytest.raises(ImportError, match=r"install the extra, resilience-py\[postgres\]"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


async def test_a_cancelled_sweep_leaves_at_once(shop, postgres_server):
    with Proxy(postgres_server.port) as proxy:
        waiting = asyncio.Event()

        class Cut(AsyncConnectionReaper):
            def _refuse_superuser(self, rows):
                proxy.blackhole()
                waiting.set()

        reaper = Cut(make_conninfo(shop.url, port=proxy.port), "shop-", timeout=60.0)
        sweeping = asyncio.ensure_future(reaper.sweep())
        await waiting.wait()
        sweeping.cancel()
        done, _ = await asyncio.wait([sweeping], timeout=2.0)  # psycopg's own takes five seconds or ten

        assert done
        assert sweeping.cancelled()
        assert reaper.stats().failed_sweeps == 0


def test_everybody_may_hear_of_it(shop):
    told = []
    unsubscribe = subscribe(told.append)

    ConnectionReaper(shop.url, "shop-").sweep()

    unsubscribe()
    assert [type(event) for event in told] == [ConnectionsReaped]
