"""The fault catalogue's lines on limiters that many processes share, by number."""

from __future__ import annotations

import asyncio
import os
from uuid import uuid4

import psycopg
import pytest
import redis

from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.together import acquire_all
from resilience.testing import wait_until
from tests.children import forking, in_child
from tests.processes import workers
from tests.stores.places import postgres_place, redis_place, sqlite_place
from tests.threads import together

ALGORITHMS = ["sliding-window", "gcra", "fixed-window"]
LOGIN = "6/15 minutes"


@pytest.fixture
def name():
    """What no other test has."""
    return f"faults_{uuid4().hex}"


@pytest.fixture(scope="module")
def team():
    with workers(4) as four:
        yield four


def limiter_at(store, notation, kind=RateLimiter):
    return kind(notation, name="login", store=store, require_shared=True)


# --- C. threads ----------------------------------------------------------------------------------


def race_of_threads(place):
    """A thousand parallel logins: also with a limit per address that is asked in the same step."""
    with place.opened() as store:
        for algorithm in ALGORITHMS:
            login = limiter_at(store, f"{LOGIN} {algorithm}")
            assert (
                sum(together(8, lambda _, one=login: sum(bool(one.try_acquire("ada")) for _ in range(125))))
                == 6
            )
        pair, address = limiter_at(store, "6/hour"), limiter_at(store, "50/hour")
        asked = [(pair, ("bob", "::1")), (address, ("::1",))]
        assert sum(together(8, lambda _: sum(bool(acquire_all(asked)) for _ in range(25)))) == 6
        assert address.peek("::1").remaining == 44


def test_fault_17_of_a_thousand_parallel_logins_exactly_six_get_in_on_redis(redis_server, name):
    race_of_threads(redis_place(redis_server, name))


def test_fault_17_of_a_thousand_parallel_logins_exactly_six_get_in_on_postgres(postgres_server, name):
    race_of_threads(postgres_place(postgres_server, name))


def attempt_in_threads(number, ready, place, notation):
    """Make 250 attempts from five threads; return how many were admitted."""
    with place.opened() as store:
        login = limiter_at(store, notation)
        login.peek("ada")
        ready()
        return sum(together(5, lambda _: sum(bool(login.try_acquire("ada")) for _ in range(50))))


def attempt_on_a_loop(number, ready, place, notation):
    """Make 250 attempts in as many tasks; return how many were admitted."""

    async def attempt():
        async with place.opened_on_a_loop() as store:
            login = limiter_at(store, notation, AsyncRateLimiter)
            await login.peek("ada")
            ready()
            return sum(map(bool, await asyncio.gather(*[login.try_acquire("ada") for _ in range(250)])))

    return asyncio.run(attempt())


def race_of_processes(team, place, attempt):
    for algorithm in ALGORITHMS:
        admitted = team.at_once(attempt, place, f"{LOGIN} {algorithm}")
        assert sum(admitted) == 6, (algorithm, admitted)


@pytest.mark.parametrize("attempt", [attempt_in_threads, attempt_on_a_loop])
def test_fault_19_of_a_thousand_attempts_of_four_processes_exactly_six_get_in_on_sqlite(
    attempt, team, tmp_path
):
    race_of_processes(team, sqlite_place(tmp_path), attempt)


@pytest.mark.parametrize("attempt", [attempt_in_threads, attempt_on_a_loop])
def test_fault_19_of_a_thousand_attempts_of_four_processes_exactly_six_get_in_on_redis(
    attempt, team, redis_server, name
):
    race_of_processes(team, redis_place(redis_server, name), attempt)


@pytest.mark.parametrize("attempt", [attempt_in_threads, attempt_on_a_loop])
def test_fault_19_of_a_thousand_attempts_of_four_processes_exactly_six_get_in_on_postgres(
    attempt, team, postgres_server, name
):
    race_of_processes(team, postgres_place(postgres_server, name), attempt)


# --- D. processes --------------------------------------------------------------------------------


def preloaded(place, connections):
    """Let four forked workers use a store that their parent has used; none has a connection in common."""
    reading, writing = os.pipe()
    with place.opened() as store, os.fdopen(reading, "rb") as reports:
        login = limiter_at(store, LOGIN)
        assert login.try_acquire("ada")
        before = connections()

        def work():
            admitted = [bool(login.try_acquire("ada")) for _ in range(2)]
            assert len(connections() - before) == 1, "a connection of its own, beside the parent's"
            os.write(writing, b"x" * sum(admitted))

        for _ in range(4):
            assert in_child(work) == 0
            wait_until(lambda: connections() == before)  # the server sees soon that the child has ended
        os.close(writing)
        assert not login.try_acquire("ada")
        assert connections() == before, "the parent's connection is the one that it had"
        assert reports.read() == b"x" * 5


@forking
def test_fault_29_workers_of_a_preloaded_app_use_no_inherited_connection_to_redis(new_redis_server, name):
    server = new_redis_server()

    def connections():
        with redis.Redis.from_url(server.url, client_name="watcher") as client:
            return {each["id"] for each in client.client_list() if each["name"] != "watcher"}

    preloaded(redis_place(server, name), connections)


@forking
def test_fault_29_workers_of_a_preloaded_app_use_no_inherited_connection_to_postgres(
    new_postgres_server, name
):
    server = new_postgres_server()

    def connections():
        with psycopg.connect(server.url) as client:
            rows = client.execute(
                "SELECT pid FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
            return {pid for (pid,) in rows}

    preloaded(postgres_place(server, name), connections)


def is_accepted_as_shared(place):
    with place.opened() as store:
        assert RateLimiter(LOGIN, name="login", store=store, require_shared=True).store is store


def test_fault_30_redis_counts_all_processes_together(redis_server, name):
    is_accepted_as_shared(redis_place(redis_server, name))


def test_fault_30_postgres_counts_all_processes_together(postgres_server, name):
    is_accepted_as_shared(postgres_place(postgres_server, name))
