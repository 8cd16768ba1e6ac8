"""The limiter against exact arithmetic and an adversary, in short."""

from __future__ import annotations

from experiments import experiment_09
from resilience import Quota


def test_the_marks_are_reached():
    marks = experiment_09.run(False, lambda _: None)

    assert [mark for mark in marks if mark.passed is False] == []
    assert sum(mark.passed is True for mark in marks) == 8


def test_the_adversary_gets_more_than_the_limit_where_that_is_known_to_be_possible():
    for quota in experiment_09.LOOSE:
        admitted = experiment_09.attack(quota, 5_000, seed=1)
        assert experiment_09.most_in_a_window(admitted, 60 * experiment_09.SECOND) > quota.limit


def test_the_adversary_gets_all_that_there_is():
    admitted = experiment_09.attack(Quota(6, per=900.0), 2_000, seed=1)

    assert experiment_09.most_in_a_window(admitted, 900 * experiment_09.SECOND) == 6


def test_a_window_holds_its_beginning_and_not_its_end():
    assert experiment_09.most_in_a_window([0, 0, 10, 19], 10) == 2
    assert experiment_09.most_in_a_window([0, 0, 9], 10) == 3
    assert experiment_09.most_in_a_window([], 10) == 0


def test_the_figure_shows_a_fixed_window_pass_twice_the_limit():
    drawing = experiment_09.figure(False, lambda _: None)

    assert "fixed-window" in drawing
    assert max(y for _, y in experiment_09.burst_at_the_edge("sliding-window")) == experiment_09.LIMIT
    assert max(y for _, y in experiment_09.burst_at_the_edge("fixed-window")) > 1.9 * experiment_09.LIMIT
