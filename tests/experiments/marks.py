"""What the tests of experiments share: each is run in its short form, or in its long one when thorough."""

from __future__ import annotations

import os

IS_LONG = os.environ.get("RESILIENCE_TESTS") == "thorough"


def check(experiment):
    """Run `experiment`, and draw it; every mark must be reached."""
    marks = experiment.run(IS_LONG, lambda done: None)

    assert [mark for mark in marks if mark.passed is False] == []
    assert experiment.figure(IS_LONG, lambda done: None).startswith("<svg")
