"""The load programs run and meet no errors; what they measure stands in docs/backend-figures.md."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from benchmarks.growth import growth
from tests.examples.backend_process import ROOT


@pytest.mark.parametrize(
    ("app", "memory"), [("asgi", []), ("wsgi", []), ("wsgi", ["--memory", "--rate", "20"])]
)
def test_a_short_load_meets_no_errors(app, memory):
    command = [
        sys.executable, "-m", "benchmarks.load", "--app", app, *memory,
        "--seconds", "1", "--warm-up", "0.3", "--users", "10", "--connections", "20",
    ]  # fmt: skip
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert told.returncode == 0, told.stderr
    rows = re.findall(rf"^\| {app} \|.*\| (\d+) \|$", told.stdout, re.MULTILINE)
    assert rows, told.stdout
    assert set(rows) == {"0"}, told.stdout


def test_growth_is_seen_through_noise_and_peaks():
    def series(grows):
        noise = [second % 7 + 50 * (200 < second < 230) for second in range(600)]
        return [(float(second), 100 + grows * second / 3600 + noise[second]) for second in range(600)]

    steady, growing = growth(series(0.0)), growth(series(120.0))
    assert steady.low <= 0 <= steady.high
    assert steady.slope == pytest.approx(0, abs=1)
    assert growing.low > 100
