from __future__ import annotations

from math import inf

import pytest

from resilience._core.trip import InARow, Ratio
from resilience._core.window import CallWindow, Figures, Streak, TimeWindow

RATIO = Ratio(0.5, 0.8, 5, 10.0, None)


def test_each_rule_brings_its_window():
    assert isinstance(InARow(5).fresh(0.0), Streak)
    assert isinstance(RATIO.fresh(0.0), TimeWindow)
    assert isinstance(RATIO._replace(calls=7).fresh(0.0), CallWindow)


@pytest.mark.parametrize(
    ("failures", "reason"), [(4, None), (5, "failures in a row"), (6, "failures in a row")]
)
def test_failures_in_a_row(failures, reason):
    assert InARow(5).judge(Figures(failures, failures, 0)) == reason


@pytest.mark.parametrize(
    ("figures", "reason"),
    [
        (Figures(4, 4, 4), None),  # too few calls to mean anything
        (Figures(5, 2, 3), None),
        (Figures(6, 3, 0), "failure ratio"),
        (Figures(5, 0, 4), "slow-call ratio"),
        (Figures(5, 3, 4), "failure ratio"),
    ],
)
def test_ratios(figures, reason):
    assert RATIO.judge(figures) == reason


def test_slow_calls_count_only_where_asked_for():
    assert RATIO._replace(slow_threshold=inf).judge(Figures(9, 0, 9)) is None


def test_a_ratio_is_reached_exactly_at_its_share():
    assert Ratio(0.1, inf, 5, 10.0, None).judge(Figures(30, 3, 0)) == "failure ratio"


def test_rules_that_count_alike():
    assert InARow(5).counts_as == InARow(2).counts_as
    assert InARow(5).counts_as != RATIO.counts_as
    assert RATIO.counts_as == RATIO._replace(threshold=0.1, minimum_calls=9, slow_threshold=inf).counts_as
    assert RATIO.counts_as != RATIO._replace(seconds=5.0).counts_as
    by_calls = RATIO._replace(calls=7)
    assert by_calls.counts_as == by_calls._replace(seconds=5.0).counts_as
    assert by_calls.counts_as != by_calls._replace(calls=8).counts_as
