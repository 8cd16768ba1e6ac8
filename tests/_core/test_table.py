from __future__ import annotations

from itertools import count, islice

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from resilience._core.gcra import Gcra
from resilience._core.sliding import SlidingLog
from resilience._core.table import SHARDS, SPARE, Table


def take(table, rules, key, now):
    place, state = table.find(key, now)
    after = rules.admit(state, now)
    if after is not None:
        table.put(place, after, now)
    return after is not None


def forget(table, key, now):
    place, _ = table.find(key, now)  # which brings it back from the old generation, whatever its shard
    table.put(place, None, now)


def test_a_key_is_found_where_it_was_put():
    table, rules = Table(Gcra(6, 600), 10), Gcra(6, 600)
    assert table.find("ada", 0) == ("ada", None)
    assert take(table, rules, "ada", 0)
    assert table.find("ada", 0) == ("ada", 100 - 500 + 0)
    assert table.size == 1
    table.put("ada", None, 0)
    table.put("ada", None, 0)
    assert table.size == 0
    assert table.find("ada", 0) == ("ada", None)


def test_what_has_lapsed_is_freed_one_shard_at_a_time():
    rules = SlidingLog(6, 60_000)
    table = Table(rules, 10_000)
    for number in range(2_000):
        take(table, rules, f"user-{number}", 0)
    assert table.size == 2_000
    now, biggest = 0, 0
    for _ in range(2 * SHARDS):
        now += 60_000 // SHARDS + 1
        before = table.size
        table.find("nobody", now)
        biggest = max(biggest, before - table.size)
    assert table.size == 0
    assert biggest < 2_000 / SHARDS * 4


def test_what_has_fallen_is_freed_in_slices():
    rules = SlidingLog(6, 60_000)
    table = Table(rules, 10_000)
    of_one_shard = (key for key in map("user-{}".format, count()) if hash(key) % SHARDS == 0)
    for key in islice(of_one_shard, 600):
        take(table, rules, key, 0)
    while table.size:
        table.find("nobody", table.tidy_at)
    now, left = table.tidy_at, [600]
    while left[-1]:
        table.find("nobody", now)
        left.append(len(table._fallen))
    assert left == [600, 344, 88, 0]


def test_a_key_in_use_stays_through_any_number_of_rounds():
    rules = SlidingLog(6, 60_000)
    table = Table(rules, 10)
    admitted = sum(take(table, rules, "ada", now) for now in range(0, 600_000, 100))
    assert admitted == 6 * 10
    assert table.size == 1


def test_newcomers_share_spare_places_where_the_table_is_full():
    rules = SlidingLog(1, 1_000)
    table = Table(rules, 16)
    assert all(take(table, rules, f"user-{number}", 0) for number in range(16))
    # One spare place for sixteen keys: one newcomer is let in, the others are refused.
    assert sum(take(table, rules, f"late-{number}", 0) for number in range(100)) == 1
    assert table.size == 17
    assert not any(take(table, rules, f"user-{number}", 999) for number in range(16))
    assert table.find("late-1", 0)[0] == SPARE + b"0"


def test_a_newcomer_stays_with_its_spare_place_while_anything_counts_there():
    rules = SlidingLog(2, 1_000)
    table = Table(rules, 1)
    assert take(table, rules, "first", 0)
    assert take(table, rules, "late", 500)
    forget(table, "first", 600)  # there is room again
    assert take(table, rules, "late", 600)
    assert not take(table, rules, "late", 700)
    assert table.size == 1
    for now in range(1_600, 5_000, 4):
        table.find("nobody", now)
    assert table.size == 0
    assert table.find("late", 5_000) == ("late", None)


def test_a_newcomer_leaves_its_spare_place_once_nothing_counts_there():
    rules = SlidingLog(2, 1_000)
    table = Table(rules, 2)
    for key, now in (("first", 0), ("second", 0), ("late", 500)):
        take(table, rules, key, now)
    forget(table, "first", 600)
    forget(table, "second", 600)
    assert table.find("late", 1_499)[0] == SPARE + b"0"
    assert table.find("late", 1_500)[0] == "late"


class Flood(RuleBasedStateMachine):
    """However keys come and go: no key ever gets more than the limit in any window, and memory is bounded."""

    def __init__(self):
        super().__init__()
        self.rules = SlidingLog(2, 1_000)
        self.table = Table(self.rules, 4)
        self.now = 0
        self.admitted = {}

    @rule(elapsed=st.integers(0, 700))
    def wait(self, elapsed):
        self.now += elapsed

    @rule(number=st.integers(0, 12))
    def call(self, number):
        if take(self.table, self.rules, f"user-{number}", self.now):
            self.admitted.setdefault(number, []).append(self.now)

    @invariant()
    def never_more_than_the_limit(self):
        for times in self.admitted.values():
            assert all(later - earlier >= 1_000 for earlier, later in zip(times, times[2:], strict=False))

    @invariant()
    def bounded(self):
        held = [*self.table.young, *self.table.old]
        assert self.table.size == sum(map(len, held)) <= 4 + 1


TestFlood = Flood.TestCase
