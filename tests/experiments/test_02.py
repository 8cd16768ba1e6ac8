"""Experiment 2: a tenth of the capacity for ten seconds."""

from __future__ import annotations

from experiments import experiment_02
from tests.experiments.marks import check


def test_every_mark_is_reached():
    check(experiment_02)
