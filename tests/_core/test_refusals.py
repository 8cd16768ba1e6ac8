from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.counting import Charge
from resilience._core.quota import Decision, Quota, counter_of
from resilience._core.refusals import Refusals

SECOND = 1_000_000_000
HERE = 5 * SECOND
THERE = 900 * SECOND
"""The same instant on this process's clock and on the store's."""

LOGIN = counter_of("login", Quota.parse("2/minute"))
ADDRESS = counter_of("address", Quota.parse("100/minute"))


def refused(counter=LOGIN, cost=1, *, at=THERE):
    """Return the refusal of a key that has used up its units a second before."""
    state = counter.rules.admit(None, at - SECOND, counter.quota.limit)
    return Decision((False, state, at, cost, counter))


def noted(*charges, decisions=None, most=10, longest=inf, asked=HERE):
    refusals = Refusals(most, longest)
    refusals.note(
        charges, decisions or [refused(charge.counter, charge.cost) for charge in charges], asked, 0
    )
    return refusals


ADA = Charge(LOGIN, "ada")


def test_knows_nothing_at_first():
    assert Refusals(10, inf).decide([ADA], HERE) is None


def test_a_refusal_is_given_again_with_its_figures_as_of_now():
    (again,) = noted(ADA).decide([ADA], HERE + 9 * SECOND)
    assert not again
    assert again.retry_after == 50.0
    assert (again.remaining, again.reset_after, again.limiter, again.limit) == (0, 50.0, "login", 2)


def test_it_ends_at_the_very_instant_that_was_told():
    refusals = noted(ADA)
    last = refusals.decide([ADA], HERE + 59 * SECOND - 1)
    assert last[0].retry_after == 1e-9
    assert refusals.decide([ADA], HERE + 59 * SECOND) is None


def test_it_is_forgotten_sooner_if_so_wished():
    refusals = noted(ADA, longest=10 * SECOND)
    assert refusals.decide([ADA], HERE + 10 * SECOND - 1)[0].retry_after == pytest.approx(49.0)
    assert refusals.decide([ADA], HERE + 10 * SECOND) is None


def test_others_are_not_concerned():
    refusals = noted(ADA)
    assert refusals.decide([Charge(LOGIN, "bob")], HERE) is None
    assert refusals.decide([Charge(LOGIN, b"ada")], HERE) is None
    assert refusals.decide([Charge(ADDRESS, "ada")], HERE) is None


def test_who_asks_for_more_is_refused_too_and_for_longer_if_need_be():
    limit = counter_of("paced", Quota.parse("10/second gcra"))
    state = limit.rules.admit(None, THERE, 10)
    charge = Charge(limit, "ada", 2)
    refusals = noted(charge, decisions=[Decision((False, state, THERE, 2, limit))])
    assert refusals.decide([charge._replace(cost=1)], HERE) is None
    assert refusals.decide([charge], HERE)[0].retry_after == pytest.approx(0.2)
    assert refusals.decide([charge._replace(cost=5)], HERE)[0].retry_after == pytest.approx(0.5)
    assert refusals.decide([charge._replace(cost=11)], HERE)[0].retry_after is None


def test_of_others_asked_along_only_what_is_certain_is_said():
    along = Charge(ADDRESS, "192.0.2.1")
    decisions = noted(ADA).decide([along, ADA, along._replace(cost=101)], HERE)
    assert [bool(decision) for decision in decisions] == [True, False, False]
    assert decisions[0].remaining == 100
    assert decisions[2].retry_after is None


def test_two_that_are_known_are_both_refused():
    bob = Charge(LOGIN, "bob")
    assert list(map(bool, noted(ADA, bob).decide([ADA, bob], HERE))) == [False, False]


def test_what_was_allowed_is_not_remembered():
    allowed = Decision((True, None, THERE, 1, LOGIN))
    assert not noted(ADA, decisions=[allowed]).held


def test_what_never_fits_is_not_remembered():
    charge = ADA._replace(cost=3)
    assert not noted(charge).held


def test_a_newer_answer_takes_the_place_of_an_older_one():
    refusals = noted(ADA)
    refusals.note([ADA], [refused(at=THERE + 30 * SECOND)], HERE + 30 * SECOND, 0)
    assert refusals.decide([ADA], HERE + 30 * SECOND)[0].retry_after == 59.0


def test_a_reset_forgets():
    refusals = noted(ADA, Charge(ADDRESS, "ada"), Charge(LOGIN, "bob"))
    refusals.forget([LOGIN, ADDRESS], "ada")
    assert list(refusals.held) == [(LOGIN.scope, "bob")]


def test_an_answer_to_what_was_asked_before_a_reset_is_void():
    refusals = Refusals(10, inf)
    asked_before = refusals.changes
    refusals.forget([LOGIN], "ada")
    refusals.note([ADA, Charge(LOGIN, "bob")], [refused(), refused()], HERE, asked_before)
    assert list(refusals.held) == [(LOGIN.scope, "bob")]
    refusals.note([ADA], [refused()], HERE, refusals.changes)
    assert (LOGIN.scope, "ada") in refusals.held


def test_of_more_resets_than_it_can_tell_apart_all_are_held_for_the_key_s():
    refusals = Refusals(2, inf)
    asked_before = refusals.changes
    for name in ["ada", "bob", "ada", "cy", "dee"]:
        refusals.forget([LOGIN], name)
    asked_between = 3
    refusals.note([ADA], [refused()], HERE, asked_before)
    assert not refusals.held
    refusals.note([ADA], [refused()], HERE, asked_between)
    assert refusals.held


def test_it_holds_no_more_than_it_may():
    refusals = Refusals(100, inf)
    for number in range(1000):
        refusals.note([Charge(LOGIN, f"user-{number}")], [refused()], HERE, 0)
        assert len(refusals.held) <= 100
    assert (LOGIN.scope, "user-999") in refusals.held


def test_one_place_is_enough():
    refusals = noted(ADA, Charge(LOGIN, "bob"), most=1)
    assert list(refusals.held) == [(LOGIN.scope, "bob")]


def test_what_has_lapsed_goes_as_others_come():
    refusals = Refusals(1000, inf)
    for number in range(500):
        refusals.note([Charge(LOGIN, f"user-{number}")], [refused()], HERE, 0)
    later = HERE + 100 * SECOND
    for number in range(300):
        refusals.note([Charge(LOGIN, f"new-{number}")], [refused(at=THERE + 100 * SECOND)], later, 0)
    assert len(refusals.held) == 300


def test_one_that_has_lapsed_before_it_came_leaves_nothing():
    late = refused(at=THERE)
    refusals = Refusals(10, 0.0)
    refusals.note([ADA], [late], HERE, 0)
    assert not refusals.held


@given(
    st.sampled_from(["sliding-window", "gcra", "fixed-window"]),
    st.lists(st.tuples(st.integers(0, 3 * SECOND), st.integers(1, 4)), min_size=1, max_size=30),
    st.integers(0, SECOND // 10),
)
def test_it_never_refuses_what_the_store_would_admit(algorithm, calls, latency):
    """A store, and one that asks through a memory of refusals, come to the same decisions."""
    counter = counter_of("any", Quota(4, per=3, algorithm=algorithm))
    refusals = Refusals(10, inf)
    state, now = None, 0
    for pause, cost in calls:
        now += pause
        charge = Charge(counter, "ada", cost)
        remembered = refusals.decide([charge], now)
        there = THERE + now + latency  # the store decides a while after it was asked
        after = counter.rules.admit(state, there, cost)
        if remembered is not None:
            assert counter.rules.admit(state, THERE + now, cost) is None
            assert remembered[0].retry_after is None or remembered[0].retry_after > 0
            continue
        decision = Decision((after is not None, state if after is None else after, there, cost, counter))
        refusals.note([charge], [decision], now, 0)
        state = state if after is None else after
