"""The chaos program, in short; its figures in docs/backend-figures.md are those of 500 recordings."""

from __future__ import annotations

import os

import pytest

from tests.examples import chaos

RECORDINGS = int(os.environ.get("CHAOS_RECORDINGS", "40"))
KILLS = max(2, RECORDINGS // 20)


@pytest.mark.parametrize("app", ["asgi", "wsgi"])
def test_fault_63_under_chaos_no_recording_is_lost_doubled_or_different(app, tmp_path):
    outcome = chaos.run(RECORDINGS, app=app, every=2.0, most_kills=KILLS, folder=tmp_path)
    assert (outcome.lost, outcome.doubled, outcome.wrong) == ([], [], [])
    assert outcome.states == {"stored": RECORDINGS}
    assert outcome.killed
    assert outcome.webhooks["lost"]
    assert all(sum(kinds.values()) for kinds in outcome.failures.values())
    for name in outcome.retries:
        unearned, allowed = outcome.unearned(name)
        assert unearned <= allowed
