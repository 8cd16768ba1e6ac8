"""Contention, in short: what the library's delays come to, beside the published ones."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from experiments import experiment_07


def test_the_marks_are_reached_but_for_decorrelated_jitter_which_is_faster_than_published():
    marks = experiment_07.run(False, lambda _: None)
    missed = [mark.name for mark in marks if mark.passed is False]

    assert missed == [
        "decorrelated, 100 clients: until all are done",
        "decorrelated: greatest difference from published",
    ]
    mine, published = (
        experiment_07.mean(100, partial(whose, "decorrelated"), 20)
        for whose in (experiment_07.ours, experiment_07.published)
    )
    assert mine.seconds < published.seconds


def test_a_client_alone_reads_and_writes_once():
    alone = experiment_07.contend(1, partial(experiment_07.ours, "full"), Random(1))

    assert alone.calls == 1
    assert alone.seconds == pytest.approx(0.040, abs=0.020)  # four messages


def test_the_first_ceiling_is_twice_the_base():
    delays = experiment_07.ours("none", Random(1))

    assert [delays(failure) for failure in (1, 2, 9, 1000)] == [0.010, 0.020, 2.0, 2.0]


def test_the_figure_shows_every_jitter():
    drawing = experiment_07.figure(False, lambda _: None)

    assert all(f">{jitter}<" in drawing for jitter in experiment_07.JITTERS)
