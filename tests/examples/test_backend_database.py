"""The database while it is away: all work ends soon, as 503, and goes well again by itself."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import event, text

from examples.backend.kit import drive
from examples.backend.ports import database as port
from examples.backend.ports.database import EVERY, Database, migrate
from examples.backend.ports.tables import deliveries, tenants, used_tickets
from examples.backend.ports.workers import InThisThread
from resilience import ServiceError


def outcome(database, statement="SELECT 1", kind="read"):
    """Return what a statement comes to: its only value, or the status that a client is answered with."""

    def work(db):
        result = db.execute(text(statement))
        return result.scalar_one() if result.returns_rows else None

    try:
        return drive(getattr(database, kind)(work, tenant=EVERY))
    except ServiceError as error:
        return error.status if error.retry_after else "no hint when to come back"


@pytest.fixture
def database_at():
    """Return a function that opens a database; each is closed in the end."""
    opened = []

    def at(url):
        opened.append(Database(url, InThisThread("The database", threads=4, queue=10), connections=2))
        return opened[-1]

    yield at
    for database in opened:
        database.close()


def test_a_server_that_is_halted_keeps_nobody_waiting(new_postgres_server, database_at, monkeypatch):
    monkeypatch.setattr(port, "ANSWER_WITHIN", 0.3)
    server = new_postgres_server()
    database = database_at(server.url)
    assert outcome(database) == 1
    server.stop()
    assert outcome(database) == 503  # on a connection that was there
    assert outcome(database) == 503  # and on a new one
    server.cont()
    assert outcome(database) == 1


def test_a_server_that_is_killed_is_503_until_it_is_there_again(new_postgres_server, database_at):
    server = new_postgres_server()
    database = database_at(server.url)
    assert outcome(database) == 1
    server.kill()
    assert [outcome(database), outcome(database)] == [503, 503]
    server.restart()
    assert outcome(database) == 1


def test_fault_59_a_full_disk_is_503_and_nothing_is_half_written(small_disk, database_at):
    disk = small_disk(1)
    database = database_at(f"sqlite:///{disk.folder / 'data.db'}")
    assert outcome(database, "CREATE TABLE kept (bytes)", "write") is None
    disk.fill()
    full = [outcome(database, "INSERT INTO kept VALUES (zeroblob(100000))", "write") for _ in range(2)]
    assert full == [503, 503]
    disk.free()
    assert outcome(database, "SELECT count(*) FROM kept") == 0
    assert outcome(database, "INSERT INTO kept VALUES (1)", "write") is None


def test_who_waits_too_long_for_another_writer_of_this_process_is_503(tmp_path, database_at, monkeypatch):
    database = database_at(f"sqlite:///{tmp_path / 'data.db'}")
    outcome(database, "CREATE TABLE kept (bytes)", "write")
    monkeypatch.setattr(port, "BUSY_TIMEOUT", 0.05)
    is_writing, may_end = threading.Event(), threading.Event()

    def write_slowly(_db):
        is_writing.set()
        may_end.wait(10.0)

    slow = threading.Thread(target=lambda: drive(database.write(write_slowly, tenant=EVERY)))
    slow.start()
    assert is_writing.wait(10.0)
    assert outcome(database, "INSERT INTO kept VALUES (1)", "write") == 503
    may_end.set()
    slow.join()
    assert outcome(database, "INSERT INTO kept VALUES (1)", "write") is None


def test_our_own_mistakes_are_not_called_an_outage(tmp_path, database_at):
    database = database_at(f"sqlite:///{tmp_path / 'data.db'}")
    with pytest.raises(Exception, match="no such table"):
        outcome(database, "SELECT * FROM nowhere")


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_what_is_old_is_deleted_in_small_transactions(request, tmp_path, database_at, monkeypatch, dialect):
    monkeypatch.setattr(port, "BATCH", 2)
    url = f"sqlite:///{tmp_path / 'data.db'}"
    if dialect == "postgres":
        url = request.getfixturevalue("new_postgres_server")().url
    migrate(url)
    database = database_at(url)
    with database.engine.begin() as db:
        db.execute(tenants.insert().values(id="t", name="t", webhook_hash="t", created_at=0.0))
        for number in range(8):
            one = {"tenant_id": "t", "delivery_id": str(number), "received_at": float(number)}
            db.execute(deliveries.insert().values(one))
            db.execute(used_tickets.insert().values(id=str(number), expires_at=float(number)))
    transactions = []
    event.listen(database.engine, "commit", transactions.append)

    drive(database.prune(deliveries, deliveries.c.received_at < 5.0))
    assert len(transactions) == 3
    drive(database.prune(used_tickets, used_tickets.c.expires_at < 6.0))
    assert len(transactions) == 3 + 4  # the last one finds out that no more are left

    assert outcome(database, "SELECT min(received_at) FROM deliveries") == 5.0
    assert outcome(database, "SELECT count(*) FROM used_tickets") == 2


def test_a_process_of_the_version_before_starts_beside_newer_ones(tmp_path, database_at, caplog):
    url = f"sqlite:///{tmp_path / 'data.db'}"
    migrate(url)
    database = database_at(url)
    outcome(database, "UPDATE alembic_version SET version_num = '9999'", "write")
    migrate(url)
    assert "a newer version of the backend has laid out the tables: 9999" in caplog.text
    assert outcome(database, "SELECT version_num FROM alembic_version") == "9999"
