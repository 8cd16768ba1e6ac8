"""Hedging against the tail, in short."""

from __future__ import annotations

from random import Random

import pytest

from experiments import experiment_10


def test_the_marks_are_reached():
    marks = experiment_10.run(False, lambda _: None)

    assert [mark for mark in marks if mark.passed is False] == []
    assert sum(mark.passed is True for mark in marks) == 3


@pytest.mark.parametrize(
    ("survival", "seconds"),
    [(1.0, 0.0), (0.02, 0.010), (1e-5, 1.8)],
)
def test_the_distribution_goes_through_the_published_points(survival, seconds):
    class Chance(Random):
        def random(self):
            return 1.0 - survival

    assert experiment_10.latency(Chance()) == pytest.approx(seconds, rel=1e-6)


def test_the_figure_shows_both():
    drawing = experiment_10.figure(False, lambda _: None)

    assert "one call each" in drawing
    assert "hedged after 10 ms" in drawing
