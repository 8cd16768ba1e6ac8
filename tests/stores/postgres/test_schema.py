"""The functions in the database: that their arithmetic is that of `resilience._core`, and what they keep."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from random import Random
from uuid import uuid4

import psycopg
import pytest

from resilience._core.sliding import SlidingCounts
from resilience.stores.postgres.schema import SCHEMA, create_schema

LATE = 10**18


@pytest.fixture
def connection(url):
    with psycopg.connect(url, autocommit=True) as one:
        yield one


@pytest.fixture
def empty(postgres_server):
    """A schema without the store's table."""
    name = f"empty_{uuid4().hex}"
    url = f"{postgres_server.url}?options=-csearch_path%3D{name}"
    with psycopg.connect(url, autocommit=True) as one:
        one.execute(f"CREATE SCHEMA {name}")
    return url


def call(connection, function, *values):
    holes = ", ".join(["%s"] * len(values))
    return connection.execute(f"SELECT {function}({holes})", values).fetchone()[0]


def persistence(url):
    with psycopg.connect(url) as one:
        return one.execute(
            "SELECT relpersistence FROM pg_class WHERE oid = 'resilience_quota'::regclass"
        ).fetchone()[0]


def test_the_table_is_unlogged_unless_told_otherwise(empty):
    with psycopg.connect(empty) as one:
        create_schema(one)
    assert persistence(empty) == "u"


def test_the_table_may_be_logged_and_stays_as_it_is(empty):
    create_schema(empty, logged=True)
    create_schema(empty)
    assert persistence(empty) == "p"


def test_the_schema_is_one_text_for_a_migration_and_may_be_run_again(empty):
    with psycopg.connect(empty) as one:
        one.execute(SCHEMA)
        one.execute("INSERT INTO resilience_quota VALUES ('a', 'b', '{1}', '')")
        one.execute(SCHEMA)
        assert one.execute("SELECT count(*) FROM resilience_quota").fetchone() == (1,)


def test_several_may_make_it_at_once(empty):
    def make(_):
        create_schema(empty)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(make, range(8)))
    assert persistence(empty) == "u"


@pytest.mark.parametrize("seed", range(4))
def test_sliding_counts_are_those_of_the_core(connection, seed):
    random = Random(seed)
    window = random.choice([1_000, 63_000, 10**12 + 1])
    rules = SlidingCounts(100, window)
    part = rules.horizon - window
    here, there, now, receipts = None, None, LATE, []
    for _ in range(120):
        now += random.choice([0, 1, part // 2, part, 5 * part, window // 2])
        cost = random.choice([1, 1, 3, 20])
        if random.random() < 0.8 or not receipts:
            after = rules.admit(here, now, cost)
            figures = (there, now, cost, 100, part, rules.horizon)
            got = call(connection, "resilience_admit", "sliding-counts", *figures)
            assert (got is None) == (after is None)
            if after is None:
                continue
            here, there = after, got
            receipts.append((cost, rules.receipt(after)))
        else:
            cost, receipt = receipts.pop(random.randrange(len(receipts)))
            here = rules.refund(here, now, cost, receipt)
            figures = (there, now, cost, part, receipt)
            there = call(connection, "resilience_without", "sliding-counts", *figures)
        counting = call(connection, "resilience_counting", there, now)
        assert rules.remaining(here, now) == 100 - (counting[-1] if counting else 0)
        if here is not None and counting:
            assert counting[0] == rules.whole_at(here, now)
            assert sum(counting[1:-1:2]) == counting[-1]
            assert all(later > sooner for later, sooner in pairwise(counting[:-1:2]))


@pytest.mark.parametrize(
    ("algorithm", "state", "kept"),
    [
        ("gcra", [900], [500]),
        ("gcra", [400], [400]),
        ("fixed-window", [900, 7], [500, 7]),
        ("sliding-log", [900, 600, 400], [500, 500, 400]),
        ("sliding-counts", [900, 3, 700, 1, 300, 2, 6], [500, 3, 500, 1, 300, 2, 6]),
        ("gcra", None, None),
    ],
)
def test_a_clock_that_was_set_back_brings_the_lapses_with_it(connection, algorithm, state, kept):
    assert call(connection, "resilience_not_after", algorithm, state, 500) == kept


def test_only_the_last_sixteen_tokens_are_kept(connection):
    tokens = b""
    for number in range(20):
        tokens = call(connection, "resilience_with_token", tokens, b"token%03d" % number)
    assert tokens == b"".join(b"token%03d" % number for number in range(4, 20))


def test_what_has_lapsed_is_removed_page_by_page_and_what_counts_stays(connection):
    connection.execute(
        "INSERT INTO resilience_quota "
        "SELECT 'scope', int4send(i), ARRAY[CASE i % 2 WHEN 0 THEN 1 ELSE 9e18 END], '' "
        "FROM generate_series(1, 1000) i"
    )
    for _ in range(400):
        call(connection, "resilience_remove_lapsed")
    held = connection.execute("SELECT state[1] > 1, count(*) FROM resilience_quota GROUP BY 1").fetchall()
    assert held == [(True, 500)]


def test_a_row_that_somebody_holds_is_not_waited_for(url, connection):
    connection.execute("INSERT INTO resilience_quota VALUES ('scope', 'held', '{1}', '')")
    with psycopg.connect(url) as other:
        other.execute("SELECT FROM resilience_quota FOR UPDATE")
        call(connection, "resilience_remove_lapsed")
    assert connection.execute("SELECT count(*) FROM resilience_quota").fetchone() == (1,)


def test_the_arithmetic_is_taken_into_the_statement(connection):
    """A function that is called in place of being taken in would cost several times as much."""
    plan = connection.execute(
        "EXPLAIN VERBOSE SELECT resilience_admit('gcra', state, 1, 2, 3, 4, 5) FROM resilience_quota"
    ).fetchall()
    assert "resilience_admit" not in str(plan)
    assert "fixed-window" not in str(plan)


def test_a_decision_goes_by_the_index_however_small_the_table_was(url, connection):
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("INSERT INTO resilience_quota VALUES ('scope', 'key', '{1}', '')")
        other.execute("ANALYZE resilience_quota")
        before = other.execute(
            "SELECT seq_scan FROM pg_stat_user_tables WHERE relid = 'resilience_quota'::regclass"
        )
        (before,) = before.fetchone()
        for _ in range(10):
            other.execute(
                "SELECT resilience_take_gcra('scope', 'key', 5, 1, 5, 1, %s, '50')", (uuid4().bytes[:8],)
            )
        other.execute("SELECT pg_stat_force_next_flush()")
        after = other.execute(
            "SELECT seq_scan FROM pg_stat_user_tables WHERE relid = 'resilience_quota'::regclass"
        )
        assert after.fetchone() == (before,)
