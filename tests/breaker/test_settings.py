from __future__ import annotations

from math import inf, nan

import pytest

from resilience._core.breaker import Policy
from resilience._core.trip import InARow, Ratio
from resilience.breaker.settings import policy_of, rule_of

RULE = {
    "failure_ratio": 0.5,
    "minimum_calls": 5,
    "window": 10.0,
    "window_calls": None,
    "slow_after": None,
    "slow_ratio": 1.0,
}
POLICY = {
    "recovery_time": 5,
    "recovery_jitter": 0.1,
    "recovery_growth": 1.0,
    "max_recovery_time": None,
    "probes": 3,
    "probe_lease": 30.0,
    "ramp_up": 4.0,
}


def test_a_threshold_means_failures_in_a_row():
    assert rule_of(5, **RULE) == InARow(5)


def test_without_one_a_ratio_is_meant():
    assert rule_of(None, **RULE) == Ratio(0.5, inf, 5, 10.0, None)


def test_slow_calls_are_judged_where_it_is_said_what_is_slow():
    chosen = RULE | {"slow_after": 1.0, "slow_ratio": 0.8, "window_calls": 5}

    assert rule_of(None, **chosen) == Ratio(0.5, 0.8, 5, 10.0, 5)


@pytest.mark.parametrize(
    "extra",
    [
        {"failure_ratio": 0.4},
        {"minimum_calls": 6},
        {"window": 1.0},
        {"window_calls": 9},
        {"slow_after": 1.0},
        {"slow_ratio": 0.9},
    ],
)
def test_a_threshold_and_a_ratio_contradict_each_other(extra):
    with pytest.raises(ValueError, match="leave it out to open by"):
        rule_of(5, **(RULE | extra))


def test_a_ratio_over_fewer_calls_than_it_takes_is_refused():
    with pytest.raises(ValueError, match="would never open"):
        rule_of(None, **(RULE | {"window_calls": 4}))


def test_a_share_of_slow_calls_is_refused_where_nothing_is_slow():
    with pytest.raises(ValueError, match="say what is slow"):
        rule_of(None, **(RULE | {"slow_ratio": 0.9}))


@pytest.mark.parametrize("threshold", [0, -1, True, 1.5, "5"])
def test_wrong_thresholds(threshold):
    with pytest.raises((TypeError, ValueError), match="failure_threshold"):
        rule_of(threshold, **RULE)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("failure_ratio", 0),
        ("failure_ratio", 1.1),
        ("failure_ratio", nan),
        ("minimum_calls", 0),
        ("window", 0),
        ("window", inf),
        ("window_calls", 0),
        ("slow_after", 0),
        ("slow_after", -1),
        ("slow_ratio", 0),
        ("slow_ratio", 2),
    ],
)
def test_wrong_rules(argument, value):
    with pytest.raises((TypeError, ValueError), match=argument):
        rule_of(None, **(RULE | {argument: value}))


def test_the_recovery_time_grows_to_ten_times_itself_unless_told():
    assert policy_of(InARow(5), **POLICY) == Policy(InARow(5), 5.0, 0.1, 1.0, 50.0, 3, 30.0, 4.0)
    assert policy_of(InARow(5), **(POLICY | {"max_recovery_time": 6})).max_recovery_time == 6.0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("recovery_time", 0),
        ("recovery_time", True),
        ("recovery_time", "5"),
        ("recovery_time", 10**400),
        ("recovery_jitter", -0.1),
        ("recovery_jitter", 1.1),
        ("recovery_growth", 0.9),
        ("max_recovery_time", 4.9),
        ("probes", 0),
        ("probes", 1.0),
        ("probe_lease", 0),
        ("ramp_up", -1),
    ],
)
def test_wrong_policies(argument, value):
    with pytest.raises((TypeError, ValueError), match=argument):
        policy_of(InARow(5), **(POLICY | {argument: value}))
