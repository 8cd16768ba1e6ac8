from __future__ import annotations

import copy
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.counting import Charge
from resilience._core.fixed import FixedWindow
from resilience._core.gcra import Gcra
from resilience._core.quota import Decision, Quota, counter_of, foreseen, merged
from resilience._core.sliding import SlidingCounts, SlidingLog

LOGIN = Quota(6, per=900.0)


@pytest.mark.parametrize(
    ("notation", "limit", "per", "back"),
    [
        ("6/15 minutes", 6, 900.0, "6/15 minutes"),
        ("100/hour", 100, 3600.0, "100/hour"),
        ("10/s", 10, 1.0, "10/second"),
        ("10/sec", 10, 1.0, "10/second"),
        ("6 per 15 min", 6, 900.0, "6/15 minutes"),
        ("6/15min", 6, 900.0, "6/15 minutes"),
        (" 1 / 1.5 Seconds ", 1, 1.5, "1/1.5 seconds"),
        ("2/90 min", 2, 5400.0, "2/90 minutes"),
        ("5/2 d", 5, 172800.0, "5/2 days"),
        ("5/24 h", 5, 86400.0, "5/day"),
        ("3/0.001 s", 3, 0.001, "3/0.001 seconds"),
        ("3/100 seconds", 3, 100.0, "3/100 seconds"),
    ],
)
def test_notation(notation, limit, per, back):
    quota = Quota.parse(notation)
    assert (quota.limit, quota.per, quota.algorithm) == (limit, per, "sliding-window")
    assert str(quota) == back


def test_notation_names_the_algorithm():
    assert Quota.parse("100/hour gcra").algorithm == "gcra"
    assert Quota.parse("100/hour", algorithm="fixed-window").algorithm == "fixed-window"
    assert Quota.parse("100/hour gcra", algorithm="fixed-window").algorithm == "gcra"
    assert str(Quota(100, per=3600, algorithm="fixed-window")) == "100/hour fixed-window"


@given(
    st.integers(1, 1_000_000_000),
    st.one_of(st.floats(0.001, 316_224_000), st.integers(1, 100_000)),
    st.sampled_from(["sliding-window", "gcra", "fixed-window"]),
)
def test_notation_reads_itself_back(limit, per, algorithm):
    quota = Quota(limit, per, algorithm)
    assert Quota.parse(str(quota)) == quota
    assert eval(repr(quota)) == quota


@pytest.mark.parametrize(
    "notation",
    [
        *("", "6", "6/", "/minute", "six/minute", "6/fortnight", "6/m", "-6/minute", "6.5/minute", "6/-1 s"),
        *("6/minute gcra x", "6 15 minutes", "6per minute", "٦/minute", "6/nan s", "1e3/s", "6/1e3 s"),
    ],
)
def test_what_cannot_be_read_is_refused(notation):
    with pytest.raises(ValueError, match="cannot read the quota"):
        Quota.parse(notation)


@pytest.mark.parametrize("notation", ["0/minute", "6/0 s", "1000000001/s", "6/3661 d", "6/0.0001 s"])
def test_numbers_out_of_range_are_refused(notation):
    with pytest.raises(ValueError, match="must be from"):
        Quota.parse(notation)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match="written as a string"):
        Quota.parse(6)
    with pytest.raises(ValueError, match="algorithm must be one of"):
        Quota.parse("6/minute leaky")
    with pytest.raises(ValueError, match="algorithm must be one of"):
        Quota(6, 60, "leaky")


@pytest.mark.parametrize("limit", [True, 6.0, "6", None])
def test_limit_must_be_a_whole_number(limit):
    with pytest.raises(TypeError, match="limit must be a whole number"):
        Quota(limit, per=60)


@pytest.mark.parametrize("per", [True, "60", None])
def test_window_must_be_a_number(per):
    with pytest.raises(TypeError, match="window must be a number"):
        Quota(6, per=per)


@pytest.mark.parametrize("per", [0, -1, math.nan, math.inf, 1e10])
def test_window_must_be_in_range(per):
    with pytest.raises(ValueError, match="window must be from"):
        Quota(6, per=per)


@pytest.mark.parametrize("limit", [0, -6])
def test_limit_must_be_in_range(limit):
    with pytest.raises(ValueError, match="limit must be from"):
        Quota(limit, per=60)


def test_quotas_are_values():
    assert LOGIN == Quota(6, 900) != Quota(6, 901)
    assert LOGIN != "6/15 minutes"
    assert len({LOGIN, Quota(6, 900), Quota(7, 900)}) == 2
    assert copy.deepcopy(LOGIN) == pickle.loads(pickle.dumps(LOGIN)) == LOGIN
    with pytest.raises(AttributeError):
        LOGIN.limit = 7


def test_each_algorithm_has_its_rules():
    assert isinstance(counter_of("x", Quota(64, 1)).rules, SlidingLog)
    assert isinstance(counter_of("x", Quota(65, 1)).rules, SlidingCounts)
    assert isinstance(counter_of("x", Quota(65, 1, "gcra")).rules, Gcra)
    assert isinstance(counter_of("x", Quota(65, 1, "fixed-window")).rules, FixedWindow)


def decided(allowed, state, now, cost=1, quota=LOGIN):
    return Decision((allowed, state, now, cost, counter_of("login", quota)))


def test_figures_of_a_decision():
    rules = counter_of("login", LOGIN).rules
    state = rules.admit(None, 0, 5)
    allowed = decided(True, state, 0, 5)
    assert allowed
    assert (allowed.limit, allowed.remaining, allowed.reset_after, allowed.retry_after) == (6, 1, 900.0, 0.0)
    assert (allowed.quota, allowed.limiter) == (LOGIN, "login")
    assert allowed.receipt == 900_000_000_000
    refused = decided(False, state, 60_000_000_000, 2)
    assert not refused
    assert (refused.allowed, refused.remaining, refused.retry_after) == (False, 1, 840.0)
    assert decided(False, state, 0, 7).retry_after is None
    assert repr(refused) == (
        "Decision(allowed=False, limit=6, remaining=1, reset_after=840.0, retry_after=840.0, "
        "quota='6/15 minutes', limiter='login')"
    )


def test_decisions_are_compared_by_their_figures():
    refused = decided(False, None, 5, 7)
    told = Decision.of(False, LOGIN, "login", remaining=6, retry_after=None)
    assert refused == told
    assert not refused != told  # noqa: SIM202 - both operators are under test
    assert hash(refused) == hash(told)
    assert refused != decided(True, None, 5)
    assert refused != (False, None, 5, 7)
    assert pickle.loads(pickle.dumps(refused)) == copy.copy(refused) == copy.deepcopy(refused) == told


def test_figures_that_are_told():
    told = Decision.of(False, LOGIN, remaining=2, reset_after=0.1, retry_after=12.5)
    assert (told.remaining, told.reset_after, told.retry_after, told.limiter) == (2, 0.1, 12.5, "")


def of(allowed, remaining, reset_after, retry_after, limiter):
    return Decision.of(
        allowed, LOGIN, limiter, remaining=remaining, reset_after=reset_after, retry_after=retry_after
    )


def test_merging_names_what_refuses_longest_and_keeps_the_least_left():
    short, long = of(False, 1, 9.0, 3.0, "short"), of(False, 2, 8.0, 7.0, "long")
    roomy = of(True, 0, 1.0, 0.0, "roomy")
    assert merged([short]) is short
    assert merged([short, long, roomy]) == of(False, 0, 8.0, 7.0, "long")
    never = of(False, 5, 0.0, None, "never")
    assert merged([never, long]).retry_after is None
    assert merged([never, long]).limiter == "never"


def test_merging_allowed_ones_takes_the_one_with_the_least_left():
    near, far = of(True, 1, 2.0, 0.0, "near"), of(True, 5, 9.0, 0.0, "far")
    assert merged([far, near]) is near
    assert merged([near, of(True, 1, 3.0, 0.0, "later")]).limiter == "later"


def test_what_is_foreseen_is_each_decision_by_itself_with_nothing_taken():
    login = counter_of("login", LOGIN)
    state = login.rules.admit(None, 0, 5)
    charges = [Charge(login, "new"), Charge(login, "ada"), Charge(login, "ada", 2)]
    decisions = foreseen(charges, [None, state, state], 0)
    assert [(decision.allowed, decision.remaining) for decision in decisions] == [
        (True, 6),
        (True, 1),
        (False, 1),
    ]
    assert decisions[2].retry_after == 900


def test_a_refusal_that_has_the_least_left_too_stands_for_all():
    quota = Quota(6, per=900)
    refusing = Decision.of(False, quota, remaining=0, retry_after=5.0)
    assert merged([Decision.of(True, quota, remaining=3), refusing]) is refusing
