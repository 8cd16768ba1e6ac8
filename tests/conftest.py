"""What all tests share.

- hypothesis profiles: quick by default, thorough by RESILIENCE_TESTS=thorough;
- coverage knows which test file is running, so that `tests/run.py` can hold each module to its own;
- what was not run is written down for `tests/run.py` to say;
- real servers (see `tests/servers.py`).
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.servers"]

ROOT = Path(__file__).parent.parent

settings.register_profile(
    "quick", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "thorough", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("RESILIENCE_TESTS", "quick"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Let all that runs from a test's set-up to its end, on whatever thread or task, count for its file.

    Coverage's own `dynamic_context = "test_function"` goes by frames: it loses a test at its first `await`.
    """
    measured = Coverage.current()
    if measured is None:
        return (yield)
    measured.switch_context(item.path.relative_to(ROOT).as_posix())
    try:
        return (yield)
    finally:
        measured.switch_context("")


def pytest_terminal_summary(terminalreporter):
    """Write what was not run, and why, to the file that `tests/run.py` named."""
    if target := os.environ.get("RESILIENCE_NOT_RUN"):
        skipped = terminalreporter.stats.get("skipped", ())
        reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped)
        lines = (f"{reason} ({count})\n" for reason, count in sorted(reasons.items()))
        Path(target).write_text("".join(lines))
