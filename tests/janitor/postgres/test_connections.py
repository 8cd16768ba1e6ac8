from __future__ import annotations

import asyncio
import gc
import os
import socket

import psycopg
import pytest

from resilience.clock import SYSTEM_CLOCK
from resilience.janitor.postgres import connections
from resilience.janitor.postgres.call import Call
from resilience.janitor.postgres.connections import AsyncConnections, Connections, Server
from resilience.stores import StoreUnavailable


@pytest.fixture
def server(postgres_server):
    return Server(postgres_server.url)


def call(timeout=10.0):
    return Call("db", SYSTEM_CLOCK, timeout, lock_timeout=1.0)


# --- where it is -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://shop:secret@db.example/shop", "db.example:5432/shop"),
        ("postgresql://db:5433/shop", "db:5433/shop"),
        ("host=/run/postgresql dbname=shop", "/run/postgresql:5432/shop"),
        ("", "localhost:5432/"),
    ],
)
def test_a_server_has_a_name_without_a_password(url, name):
    assert Server(url).name == name


def test_what_the_url_says_of_time_is_respected():
    assert "connect_timeout=2" in Server("postgresql://db/shop").url
    assert "connect_timeout=7" in Server("postgresql://db/shop?connect_timeout=7").url


def test_what_is_no_url_is_refused_without_showing_it():
    with pytest.raises(ValueError, match="the URL must say where the database is") as raised:
        Server("postgres:/hunter2@db")
    assert "hunter2" not in str(raised.value)
    assert raised.value.__suppress_context__


# --- threads -----------------------------------------------------------------------------------------


def test_a_connection_is_lent_again(server):
    pool = Connections(server, 2)
    calls = [call(), call()]
    with pool.lent(calls[0]) as first:
        assert first.autocommit
    with pool.lent(calls[1]) as second:
        assert second is first

    assert [one.may_be_stale for one in calls] == [False, True]
    pool.close()
    assert first.closed


def test_one_that_comes_back_closed_is_not_lent_again(server):
    pool = Connections(server, 1)
    with pool.lent(call()) as first:
        first.close()
    with pool.lent(call()) as second:
        assert second is not first
        assert not second.closed
    pool.close()


def test_one_that_cannot_be_made_leaves_its_place_free():
    pool = Connections(Server("host=127.0.0.1 port=1"), 1)
    for _ in range(3):
        with pytest.raises(psycopg.OperationalError), pool.lent(call(1.0)):
            pass
    pool.close()


def test_whoever_comes_when_all_are_in_use_waits_within_its_time(server):
    pool = Connections(server, 1)
    with (
        pool.lent(call()),
        pytest.raises(StoreUnavailable, match="all 1 connections are in use") as raised,
        pool.lent(call(0.01)),
    ):
        pass
    assert raised.value.retry_after == 1.0
    pool.close()


def test_after_the_end_none_is_lent_and_those_in_use_are_closed_when_they_come_back(server):
    pool = Connections(server, 3)
    with pool.lent(call()) as first, pool.lent(call()) as second:
        pass
    with pool.lent(call()) as in_use:
        pool.close()
        pool.close()
        assert in_use.closed is False
    with pytest.raises(StoreUnavailable, match="the store was closed"), pool.lent(call()):
        pass
    assert (first.closed, second.closed) == (True, True)


def test_a_pool_that_is_forgotten_closes_its_connections(server):
    pool = Connections(server, 2)
    with pool.lent(call()) as first:
        pass
    del pool
    gc.collect()

    assert first.closed


def test_a_child_leaves_the_connections_of_its_parent_alone(server, monkeypatch):
    pool = Connections(server, 1)
    with pool.lent(call()) as first:
        pass
    parents = pool._slots
    pool.after_fork()
    assert pool._slots is not parents
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)  # another process, for all that the finaliser knows
        connections._close_all(parents, process=os.getpid() + 1)
        connections._close_all_idle({None: connections._OfLoop(None, [first])}, process=os.getpid() + 1)

    assert not first.closed
    first.close()
    pool.close()


# --- event loops -------------------------------------------------------------------------------------


async def test_a_connection_is_lent_again_on_its_loop(server):
    pool = AsyncConnections(server, 2)
    calls = [call(), call()]
    async with pool.lent(calls[0]) as first:
        assert first.autocommit
    async with pool.lent(calls[1]) as second:
        assert second is first

    assert [one.may_be_stale for one in calls] == [False, True]
    pool.close()
    assert first.closed


async def test_a_task_that_comes_when_all_are_in_use_waits_within_its_time(server):
    pool = AsyncConnections(server, 1)
    async with pool.lent(call()) as first:
        with pytest.raises(StoreUnavailable, match="all 1 connections are in use"):
            async with pool.lent(call(0.01)):
                pass
        await first.close()
    async with pool.lent(call()) as second:
        assert second is not first
    pool.close()


async def test_after_the_end_none_is_lent_to_a_task(server):
    pool = AsyncConnections(server, 2)
    async with pool.lent(call()) as in_use:
        pool.close()
    assert in_use.closed
    with pytest.raises(StoreUnavailable, match="the store was closed"):
        async with pool.lent(call()):
            pass


async def test_a_server_that_does_not_let_us_in_is_left_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        pool = AsyncConnections(Server(f"host=127.0.0.1 port={silent.getsockname()[1]}"), 1)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with pool.lent(call(0.05)):
                    pass
        pool.close()


def test_connections_of_a_loop_that_has_ended_are_closed_when_another_begins(server):
    pool = AsyncConnections(server, 2)

    async def use():
        async with pool.lent(call()) as connection:
            return connection

    first = asyncio.run(use())
    assert not first.closed
    second = asyncio.run(use())

    assert first.closed
    assert len(pool._loops) == 1
    pool.close()
    assert second.closed
