from __future__ import annotations

import asyncio
import copy
import math

import pytest

from resilience._core.quota import Decision
from resilience.clock import SYSTEM_CLOCK
from resilience.deadline import deadline
from resilience.errors import DeadlineExceeded, RateLimitedError
from resilience.limiter import AsyncRateLimiter, RateLimiter
from resilience.limiter.base import Limiter, chosen_store
from resilience.limiter.waiting import AsyncWaiter, Waiter
from resilience.stores import Entry, Holding
from resilience.stores.memory import MemoryStore
from resilience.stores.sqlite import SQLiteStore
from resilience.testing import EventRecorder, FakeClock


def gone():
    """Return a waiter whose loop has ended."""

    async def make():
        return AsyncWaiter()

    return asyncio.run(make())


def test_those_whose_loop_has_ended_are_sent_away():
    limiter = AsyncRateLimiter("1/minute")
    for _ in range(2):
        limiter._join("k", 1, gone())
    alive = Waiter()
    limiter._join("k", 1, alive)
    assert limiter.first("k") is alive
    limiter._leave("k", alive)
    assert limiter.first("k") is None


def test_who_leaves_wakes_the_next_who_is_still_there():
    limiter = RateLimiter("1/minute")
    first, alive = Waiter(), Waiter()
    for waiter in (first, gone(), alive):
        limiter._join("k", 1, waiter)
    limiter._leave("k", first)
    assert limiter.first("k") is alive
    assert alive._event.is_set()
    assert not first._event.is_set()


def test_whoever_is_first_can_be_stirred():
    limiter = RateLimiter("1/minute")
    limiter.stir("k")
    first, second = Waiter(), Waiter()
    for waiter in (gone(), first, second):
        limiter._join("k", 1, waiter)
    first._event.clear()
    limiter.stir("k")
    assert first._event.is_set()
    assert not second._event.is_set()


def test_nobody_waits_in_a_forked_child():
    limiter = RateLimiter("1/minute")
    limiter._join("k", 1, Waiter())
    before = limiter._lock
    limiter.after_fork()
    assert limiter._lock is not before
    assert not limiter._lines.by_key


# --- what both limiters have in common, without either -------------------------------------------


def limiter(*quotas, name="login", store=None, on_refused=None, require_shared=False):
    return Limiter(
        quotas or ("2/minute",), name, store or MemoryStore(clock=FakeClock()), on_refused, require_shared
    )


def test_what_it_is():
    one = limiter("2/minute", "3/hour")
    assert one.name == "login"
    assert list(map(str, one.quotas)) == ["2/minute", "3/hour"]
    assert repr(one) == "<Limiter 'login': 2/minute, 3/hour>"
    assert limiter("2/minute", "3/hour", name=None).name == "2/minute, 3/hour"
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copy.copy(one)


def test_arguments():
    with pytest.raises(TypeError, match="at least one quota"):
        Limiter((), "x", MemoryStore(), None, False)
    with pytest.raises(ValueError, match="given twice"):
        limiter("1/s", "1/second")
    with pytest.raises(ValueError, match="non-empty string"):
        limiter(name="")
    with pytest.raises(ValueError, match="a MemoryStore counts each by itself"):
        limiter(require_shared=True)


def test_the_store():
    clock = FakeClock()
    given = MemoryStore(clock=clock)
    assert chosen_store(given, "x", clock) is given
    assert chosen_store(None, None, clock).clock is clock
    assert chosen_store(None, None, None).clock is SYSTEM_CLOCK
    with pytest.raises(ValueError, match="needs a name"):
        chosen_store(given, None, None)
    with pytest.raises(ValueError, match="by its own clock"):
        chosen_store(given, "x", FakeClock())


def test_charges():
    one = limiter("2/minute", "3/hour")
    assert [(charge.key, charge.cost) for charge in one.charges("k", 2)] == [("k", 2), ("k", 2)]
    with pytest.raises(TypeError, match="cost must be a whole number, not True"):
        one.charges("k", True)
    with pytest.raises(ValueError, match="at least 1"):
        one.charges("k", 0)


def test_decorating():
    one = limiter()
    one._check_decoration(None, 1)
    one._check_decoration(len, 2)
    with pytest.raises(TypeError, match="key must be a function of the call's arguments"):
        one._check_decoration("user", 1)
    with pytest.raises(ValueError, match="cost must be at least 1"):
        one._check_decoration(None, 0)


def test_telling():
    told = EventRecorder()
    one = limiter(on_refused=told)
    yes, no = (Decision.of(allowed, one.quotas[0], remaining=0) for allowed in (True, False))
    assert one.tell("k", yes) is one.required("k", yes) is yes
    assert not told
    assert one.tell("k", no) is no
    with pytest.raises(RateLimitedError):
        one.required("k", no)
    assert len(told) == 2
    assert limiter().tell("k", no) is no


def test_behind_others_no_more_than_the_limit_is_asked_for():
    one = limiter("4/minute")
    first, second = Waiter(), Waiter()
    one._join("k", 3, first)
    one._join("k", 3, second)
    charge = one.charges("k", 1)[0]
    assert one.behind(charge).cost == 4
    assert one.behind(charge, second).cost == 4
    assert one.behind(charge, first).cost == 1
    assert one.behind(charge._replace(cost=9)).cost == 9


def test_the_refusal_for_one_behind_others():
    one = limiter("4/minute")
    refused = Decision.of(False, one.quotas[0], remaining=1, retry_after=7.0)
    assert one.refusal_behind(refused) is refused
    fits = Decision.of(True, one.quotas[0], "login", remaining=1, reset_after=9.0)
    behind = one.refusal_behind(fits)
    assert (behind.allowed, behind.remaining, behind.reset_after, behind.retry_after) == (False, 0, 9.0, 15.0)


def test_pauses():
    one = limiter()
    patience = one._patience(30)

    def pause(retry_after, least=0.0):
        decision = Decision.of(False, one.quotas[0], remaining=0, retry_after=retry_after)
        return one._pause("k", decision, patience, least)

    assert pause(12.0) == 12.0
    assert pause(0.0, 0.1) == 0.1
    assert pause(30.0) == 30.0
    for too_long in (30.1, None):
        with pytest.raises(RateLimitedError):
            pause(too_long)
    one._clock.advance(30)
    with pytest.raises(RateLimitedError):
        pause(0.0)


def test_patience():
    one = limiter()
    assert one._patience(None).left() == math.inf
    for timeout in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="timeout must be a finite number of at least 0"):
            one._patience(timeout)
    for timeout in ("5", True):
        with pytest.raises(TypeError, match="timeout must be a number"):
            one._patience(timeout)
    with deadline(5, clock=one._clock):
        assert one._patience(None).left() == 5
        one._clock.advance(5)
        with pytest.raises(DeadlineExceeded, match="'login' was not begun"):
            one._patience(None)


def test_stats():
    one = limiter("6/minute")
    counter = one.charges("k", 1)[0].counter
    holding = Holding(2, (Entry(counter, "ada", 4, 30.0), Entry(counter, b"3:bob", 5, 40.0)))
    stats = one._stats(holding, 10, hashed=False)
    assert (stats.name, stats.active_keys, stats.complete) == ("login", 2, True)
    assert [entry.key for entry in stats.entries] == [("ada",), ("bob",)]
    assert stats.entries[0].count == 2
    assert stats.entries[0].reset_at == one._clock.wall() + 30
    hashed = one._stats(holding, 2, hashed=True)
    assert (hashed.active_keys, hashed.complete) == (2, False)
    assert [len(part) for entry in hashed.entries for part in entry.key] == [16, 16]


def test_an_entry_for_one_quota_in_memory_only(tmp_path):
    one = RateLimiter("2/minute", name="a", clock=FakeClock())
    entry = one.entry()
    assert not entry("ada")
    one.try_acquire("ada")
    assert entry("ada")
    assert one.peek("ada").remaining == 0
    assert limiter("2/minute", "3/hour").entry() is None
    with SQLiteStore(tmp_path / "counts") as store:
        assert RateLimiter("2/minute", name="a", store=store).entry() is None
        assert not RateLimiter("2/minute", name="a", store=store).is_counting


def test_whether_anything_counts():
    clock = FakeClock()
    one = RateLimiter("2/minute", clock=clock)
    assert not one.is_counting
    one.try_acquire("ada")
    assert one.is_counting
    clock.advance(61.0)
    assert not one.is_counting
