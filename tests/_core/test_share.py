from __future__ import annotations

import pytest

from resilience._core import share
from resilience._core.counting import Charge
from resilience._core.quota import Decision, Quota, counter_of
from resilience._core.share import HOT, MOST_GIVEN_BACK, Batch, Fetch, Flight, Shares

COUNTER = counter_of("api", Quota(1000, per=60.0))
START = 1_000_000_000_000  # of the store's clock, which is not ours


def charged(units, key="k"):
    charge = Charge(COUNTER, key, units)
    state = COUNTER.rules.admit(None, START, units)
    return [charge], [Decision((True, state, START, units, COUNTER))]


def batch_of(units, now, key="k", *, cost=1):
    return Batch(*charged(units, key), units - cost, now, 1.0)


def heated(shares, key="k", now=0.0):
    """Ask for as many units as are asked for one by one."""
    for _ in range(HOT):
        assert shares.ask(key, 1, now) is None


def fetched(shares, key="k", now=0.0):
    """Return the batch that the next call fetches."""
    fetch = shares.ask(key, 1, now)
    assert isinstance(fetch, Fetch)
    batch = batch_of(fetch.units, now, key)
    shares.land(fetch.flight, batch)
    return batch


@pytest.fixture
def shares():
    return Shares(100, 1.0)


def test_the_first_units_are_asked_for_one_by_one_and_batches_grow_with_what_is_wanted(shares):
    heated(shares)
    sizes = []
    for _ in range(5):
        batch = fetched(shares)
        sizes.append(batch.rest + 1)
        while batch.rest:
            assert shares.ask("k", 1, 0.0) is batch
    assert sizes == [11, 22, 44, 88, 100]


def test_a_key_that_is_asked_slowly_is_never_hot(shares):
    assert all(shares.ask("k", 1, now * 0.11) is None for now in range(200))


def test_a_batch_is_what_was_wanted_in_the_life_before(shares):
    heated(shares)
    batch = fetched(shares)
    for _ in range(10):
        assert shares.ask("k", 1, 0.9) is batch
    fetch = shares.ask("k", 1, 1.5)
    assert fetch.units == 21
    shares.land(fetch.flight, None)
    assert shares.ask("k", 1, 4.0) is None  # of two lives ago nothing is known


def test_batches_are_whole_calls_and_what_is_wanted_at_once_is_no_batch(shares):
    for _ in range(5):
        assert shares.ask("k", 2, 0.0) is None
    assert shares.ask("k", 7, 0.0).units == 14
    assert shares.ask("x", 60, 0.0) is None
    assert shares.ask("x", 60, 0.0) is None  # two of them are more than a batch
    assert shares.ask("x", 101, 0.0) is None


def test_nobody_fetches_beside_another_and_what_is_too_little_is_put_away(shares):
    heated(shares)
    batch = fetched(shares)
    for _ in range(9):
        shares.ask("k", 1, 0.5)
    assert batch.rest == 1
    fetch = shares.ask("k", 2, 0.5)
    assert isinstance(fetch, Fetch)
    assert shares.ask("k", 1, 0.5) is fetch.flight
    assert shares.at_hand("k", 1, 0.5) is None
    assert shares.unused(0.5) == [(batch, 1)]
    shares.land(fetch.flight, None)
    assert fetch.flight.has_landed
    assert isinstance(shares.ask("k", 1, 0.5), Fetch)


def test_while_one_fetches_others_are_served_by_no_batch_of_before(shares):
    heated(shares)
    fetch = shares.ask("k", 1, 0.0)
    waiting = shares.ask("k", 1, 0.0)
    assert waiting is fetch.flight
    assert isinstance(waiting, Flight)


def test_a_batch_ends_on_the_instant(shares):
    heated(shares)
    batch = fetched(shares)
    assert shares.ask("k", 1, 0.999) is batch
    assert shares.at_hand("k", batch.rest, 0.999) is batch
    assert shares.at_hand("k", batch.rest + 1, 0.999) is None
    assert shares.at_hand("k", 1, 1.0) is None
    assert shares.at_hand("x", 1, 0.0) is None
    assert shares.ask("k", 1, 1.0) is not batch


def test_what_is_unused_is_handed_over_once(shares):
    heated(shares, "a")
    heated(shares, "b", 0.5)
    first = fetched(shares, "a")
    second = fetched(shares, "b", 0.5)
    assert shares.unused(0.99) == []
    assert shares.unused(1.0) == [(first, 10)]
    assert first.rest == 0
    assert shares.unused(1.0) == []
    assert shares.unused(1.5) == [(second, 10)]


def test_used_up_batches_are_passed_over_and_each_key_is_named_once(shares):
    heated(shares, "a")
    fetched(shares, "a").rest = 0
    again = fetched(shares, "a")
    assert shares.ask("a", 6, 0.0) is again
    fetch = shares.ask("a", 6, 0.0)  # more than is left of it
    shares.land(fetch.flight, batch_of(6, 0.0, "a", cost=6))
    assert shares.unused(0.0) == [(again, 5)]
    heated(shares, "b", 5.0)
    first = fetched(shares, "b", 5.0)
    assert shares.ask("b", 6, 5.0) is first
    second = shares.ask("b", 6, 5.0)
    other = batch_of(24, 5.0, "b", cost=6)
    shares.land(second.flight, other)
    assert shares.unused(7.0) == [(first, 4)]
    assert shares.unused(7.0) == [(other, 18)]


def test_few_are_given_back_at_a_time(shares):
    for key in map(str, range(MOST_GIVEN_BACK + 1)):
        heated(shares, key)
        fetched(shares, key)
    assert [len(shares.unused(9.0)) for _ in range(3)] == [MOST_GIVEN_BACK, 1, 0]


def test_a_key_that_is_forgotten_has_no_batch_that_could_be_used_or_given_back(shares):
    shares.forget("k")
    shares.ask("k", 1, 0.0)
    shares.forget("k")
    heated(shares)
    batch = fetched(shares)
    shares.forget("k")
    assert batch.rest == 0
    heated(shares)
    fetch = shares.ask("k", 1, 0.0)
    shares.forget("k")
    shares.land(fetch.flight, batch_of(11, 0.0))
    assert fetch.flight.has_landed
    assert shares.at_hand("k", 1, 0.0) is None
    assert shares.unused(9.0) == []
    heated(shares)
    later = shares.ask("k", 1, 0.0)
    shares.land(fetch.flight, batch_of(11, 0.0))  # of an earlier flight
    assert shares.ask("k", 1, 0.0) is later.flight


def test_keys_are_forgotten_and_bounded(shares, monkeypatch):
    monkeypatch.setattr(share, "MOST_KEYS", 2)
    heated(shares, "a")
    batch = fetched(shares, "a")
    assert shares.ask("b", 1, 0.0) is None
    heated(shares, "c")
    assert shares.ask("c", 1, 0.0) is None  # it was one too many, so nothing is known of it
    assert shares.ask("a", 1, 0.0) is batch
    assert isinstance(shares.ask("a", 1, 1.0), Fetch)  # it was old, and is young again
    assert shares.at_hand("b", 1, 1.0) is None
    assert shares.ask("a", 1, 3.0) is None  # both generations have gone


def test_what_is_old_keeps_its_batch(shares):
    heated(shares, now=0.0)
    assert shares.ask("x", 1, 0.5) is None
    batch = fetched(shares, now=0.5)
    assert shares.ask("x", 1, 1.0) is None
    assert shares.at_hand("k", 1, 1.0) is batch
    fetch = None
    for _ in range(batch.rest):
        assert shares.ask("k", 1, 1.2) is batch
    fetch = shares.ask("k", 1, 1.2)
    assert shares.ask("x", 1, 2.0) is None
    shares.land(fetch.flight, batch_of(10, 1.2))
    assert shares.at_hand("k", 1, 2.0) is not None


def test_figures_of_what_is_handed_out():
    batch = batch_of(100, 50.0)
    (one,) = batch.decisions([1], 50.5)
    assert one.allowed
    assert (one.remaining, one.retry_after, str(one.quota), one.limiter) == (999, 0.0, "1000/minute", "api")
    assert 59.4 < one.reset_after < 60.6
    assert one.receipt == batch.receipts[0]
    assert batch.decisions([1], 49.0)[0].reset_after > one.reset_after  # as at the beginning, not more


def test_no_more_is_left_than_the_limit():
    counter = counter_of("api", Quota(100, per=100.0, algorithm="gcra"))
    state = counter.rules.admit(None, START, 50)
    batch = Batch([Charge(counter, "k", 50)], [Decision((True, state, START, 50, counter))], 49, 0.0, 60.0)
    assert [batch.decisions([1], now)[0].remaining for now in (0.0, 0.5, 50.0)] == [99, 99, 100]
