"""What the tests of experiments share: each is run in its short form, or in its long one when thorough."""

from __future__ import annotations

import os

IS_LONG = os.environ.get("RESILIENCE_TESTS") == "thorough"


def check(experiment):
    """Run `experiment`, and draw it; the marks that it misses must be those that it is known to miss."""
    marks = experiment.run(IS_LONG, lambda done: None)
    missed = [mark.name for mark in marks if mark.passed is False]

    assert missed == list(getattr(experiment, "MISSED", ()) if IS_LONG else ()), marks
    assert experiment.figure(IS_LONG, lambda done: None).startswith("<svg")
