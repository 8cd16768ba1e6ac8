"""Live events in a database, and mailboxes: of tasks and of threads."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading

import psycopg
import pytest
from sqlalchemy import insert, make_url

from examples.backend.domain.live import Ending, Follower, LiveEvent
from examples.backend.kit import drive
from examples.backend.ports.database import EVERY, Database, migrate
from examples.backend.ports.database import insert as insert_or_not
from examples.backend.ports.live import DatabaseLiveEvents, TaskMailbox, ThreadMailbox, announce
from examples.backend.ports.tables import tenants, used_tickets
from examples.backend.ports.tickets import DatabaseUsedTickets
from examples.backend.ports.workers import InThisThread
from resilience.janitor.sockets import SocketRegistry
from resilience.testing import wait_until

EVENT = LiveEvent(id=1, tenant_id="a", at=0.0, kind="recording")


# --- the table -------------------------------------------------------------------------------------


def open_database(url):
    migrate(url)
    database = Database(url, InThisThread("The database", threads=8, queue=10))

    def work(connection):
        for name in ("a", "b"):
            connection.execute(insert(tenants).values(id=name, name=name, webhook_hash=name, created_at=0.0))

    drive(database.write(work, tenant=EVERY))
    return database


@pytest.fixture
def database(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'data.db'}")
    yield database
    database.close()


@pytest.fixture
def postgres(postgres_server):
    name = f"live_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_server.url, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        database = open_database(make_url(postgres_server.url).set(database=name).render_as_string(False))
        yield database
        database.close()
        admin.execute(f"DROP DATABASE {name}")


def tell(database, *tenant_ids, at=1.0):
    def work(connection):
        for tenant_id in tenant_ids:
            announce(connection, tenant_id=tenant_id, at=at, kind="recording", body={"callSid": "c1"})

    drive(database.write(work, tenant=EVERY))


def numbers(events):
    return [event.id for event in events]


def test_events_are_read_as_they_were_written(database):
    tell(database, "a")
    (event,) = drive(DatabaseLiveEvents(database).since(0, [], 10))

    assert event == LiveEvent(id=1, tenant_id="a", at=1.0, kind="recording", body={"callSid": "c1"})


def test_events_are_read_from_a_number_on_and_those_that_were_missing(database):
    events = DatabaseLiveEvents(database)
    assert drive(events.newest()) == 0
    tell(database, "a", "b", "a", "b", "a")

    assert drive(events.newest()) == 5
    assert numbers(drive(events.since(3, [], 10))) == [4, 5]
    assert numbers(drive(events.since(3, [1, 2], 3))) == [1, 2, 4]


def test_a_tenant_is_told_of_its_own_events(database):
    events = DatabaseLiveEvents(database)
    tell(database, "a", "b", "a", "b", "a")

    assert numbers(drive(events.of_tenant("a", 1, 10))) == [3, 5]
    assert numbers(drive(events.of_tenant("b", 0, 1))) == [2]
    assert drive(events.of_tenant("c", 5, 10)) == []


def test_who_asks_for_what_is_forgotten_is_told_so(database):
    events = DatabaseLiveEvents(database)
    tell(database, "a", "a")
    tell(database, "a", at=100.0)
    drive(events.forget(50.0))

    assert drive(events.of_tenant("a", 1, 10)) is None
    assert numbers(drive(events.of_tenant("a", 2, 10))) == [3]


def test_numbers_go_on_when_all_is_forgotten(database):
    events = DatabaseLiveEvents(database)
    tell(database, "a", "a")
    drive(events.forget(1000.0))
    assert drive(events.newest()) == 2  # the newest stays

    def drop_tenant(connection):
        connection.execute(tenants.delete())

    drive(database.write(drop_tenant, tenant=EVERY))
    assert drive(events.newest()) == 0
    drive(database.write(lambda one: one.execute(insert(tenants).values(
        id="c", name="c", webhook_hash="c", created_at=0.0)), tenant=EVERY))  # fmt: skip
    tell(database, "c")
    assert drive(events.newest()) == 3


def test_what_is_rolled_back_was_never_told(database):
    def work(connection):
        announce(connection, tenant_id="a", at=1.0, kind="recording", body={})
        raise KeyError

    with pytest.raises(KeyError):
        drive(database.write(work, tenant="a"))

    assert drive(DatabaseLiveEvents(database).newest()) == 0


def test_transactions_of_postgres_that_overlap_are_all_told(postgres):
    events, told = DatabaseLiveEvents(postgres), []
    follower = Follower(events, lambda event: told.append(event.body["n"]))
    drive(follower.start())
    written = [threading.Event() for _ in range(4)]
    may_end = [threading.Event() for _ in range(4)]

    def write(n):
        def work(connection):
            announce(connection, tenant_id="a", at=1.0, kind="recording", body={"n": n})
            written[n].set()
            may_end[n].wait(10)
            if n == 2:
                raise KeyError

        with contextlib.suppress(KeyError):
            drive(postgres.write(work, tenant="a"))

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for n, thread in enumerate(threads):  # they get their numbers in this order …
        thread.start()
        assert written[n].wait(10)
    for n in (3, 1, 2, 0):  # … and end in this one
        may_end[n].set()
        threads[n].join(10)
        drive(follower.look())

    assert told == [3, 1, 0]


def test_postgres_tells_whether_an_insert_met_a_conflict(postgres):
    def work(connection):
        row = insert_or_not(connection, used_tickets).values(id="t1", expires_at=1.0).on_conflict_do_nothing()
        return [connection.execute(row).rowcount for _ in range(2)]

    assert drive(postgres.write(work, tenant=EVERY)) == [1, 0]


def test_postgres_lets_a_ticket_be_used_once(postgres):
    used = DatabaseUsedTickets(postgres)

    assert drive(used.use("t1", 1000.0)) is True
    assert drive(used.use("t1", 1000.0)) is False
    drive(used.forget(2000.0))
    assert drive(used.use("t1", 1000.0)) is True


def test_postgres_answers_the_same_questions(postgres):
    events = DatabaseLiveEvents(postgres)
    tell(postgres, "a", "b", "a")
    tell(postgres, "b", at=100.0)
    assert numbers(drive(events.since(2, [1], 10))) == [1, 3, 4]
    assert numbers(drive(events.of_tenant("a", 0, 10))) == [1, 3]
    drive(events.forget(50.0))

    assert drive(events.newest()) == 4
    assert drive(events.of_tenant("b", 1, 10)) is None


# --- mailboxes of tasks ----------------------------------------------------------------------------


async def test_a_task_waits_for_something_to_take():
    box = TaskMailbox()
    waiting = asyncio.ensure_future(box.wait(60))
    await asyncio.sleep(0)
    assert not waiting.done()
    box.put(EVENT)

    assert await waiting is True
    assert box.take() == EVENT
    assert await box.wait(0.001) is False


async def test_a_task_is_closed_when_whoever_serves_it_has_closed_it():
    box, sockets = TaskMailbox(), SocketRegistry()
    sockets.register(box, "s1")
    closing = asyncio.ensure_future(sockets.end_sessions_async(["s1"]))

    assert await box.wait_for_ending() == Ending(1008, "session ended")
    assert await box.wait(60) is True
    assert not closing.done()
    box.served()
    assert await closing == 1


# --- mailboxes of threads --------------------------------------------------------------------------


def test_a_thread_waits_for_something_to_take():
    box = ThreadMailbox()
    assert drive(box.wait(0)) is False
    telling = threading.Timer(0.01, box.put, [EVENT])
    telling.start()

    assert drive(box.wait(10)) is True
    assert box.take() == EVENT
    assert drive(box.wait(0)) is False
    telling.join()
    box.served()


def test_a_thread_that_does_not_look_is_rung_without_blocking_anybody():
    box = ThreadMailbox()
    for _ in range(100_000):  # more than the bell holds
        box.wake()

    assert drive(box.wait(0)) is True
    assert drive(box.wait(0)) is False
    box.served()


def test_a_thread_is_closed_when_whoever_serves_it_has_closed_it():
    box, sockets = ThreadMailbox(), SocketRegistry(spread=0.0)
    sockets.register(box, "s1")
    counts = []
    closing = threading.Thread(target=lambda: counts.append(sockets.shut_down()))
    closing.start()
    assert drive(box.wait(10)) is True
    assert box.ending == Ending(1012, "service restart")
    assert counts == []
    box.served()
    closing.join(10)

    assert counts == [1]
    wait_until(lambda: sockets.closed == 1)
    box.put(EVENT)  # too late, and no harm
