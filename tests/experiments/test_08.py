"""Experiment 8, in its short form, or in its long one when thorough."""

from __future__ import annotations

from experiments import experiment_08
from tests.experiments.marks import check


def test_every_mark_is_reached():
    check(experiment_08)
