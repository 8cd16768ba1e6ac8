"""The programs behind docs/backend-figures.md, in short: that they run, and what must not depend on luck."""

from __future__ import annotations

import random

import pytest

from benchmarks import error_path, exact, retry_success


@pytest.mark.parametrize("row", exact.ROWS, ids=exact.title)
def test_no_decision_differs_from_exact_arithmetic(row):
    tally = exact.compare(row, 3000, seed=1)
    assert tally.decisions == 3000
    assert (tally.false_refusals, tally.false_admissions) == (0, 0)


@pytest.mark.parametrize("row", exact.BOUNDED, ids=exact.title)
def test_where_a_limiter_errs_by_design_it_is_towards_refusal_and_within_what_is_documented(row):
    tally = exact.compare(row, 6000, seed=1)
    assert tally.false_refusals > 0  # else nothing was tried
    assert (tally.too_late, tally.false_admissions) == (0, 0)


@pytest.mark.parametrize(
    ("algorithm", "wrong"),
    [("sliding-window", "fixed-window"), ("gcra", "sliding-window"), ("fixed-window", "gcra")],
)
def test_a_limiter_that_decides_otherwise_is_found_out(monkeypatch, algorithm, wrong):
    monkeypatch.setitem(exact.EXACT, algorithm, exact.EXACT[wrong])
    tally = exact.compare(exact.Row(exact.Quota(6, per=900.0, algorithm=algorithm)), 3000, seed=1)
    assert tally.false_refusals + tally.false_admissions > 0


@pytest.mark.parametrize("way", error_path.WAYS.values(), ids=error_path.WAYS.keys())
def test_the_error_path_can_be_measured(way):
    with way() as ask:
        figure = error_path.measured(ask, pairs=20, chance=random.Random(1))
    assert figure.low <= figure.mean <= figure.high
    with way() as ask, pytest.raises(ValueError, match="not 404"):
        ask("/neither")


def test_the_interval_holds_what_it_should():
    """The mean of a known distribution lies within nineteen times of twenty."""
    chance = random.Random(1)
    held = 0
    for _ in range(100):
        low, high = error_path.interval([chance.gauss(1, 1) for _ in range(50)], chance=chance, resamples=200)
        held += low <= 1 <= high
    assert 85 <= held <= 100


def test_how_many_retried_calls_are_saved_can_be_measured(capsys):
    retry_success.main(["--recordings", "20", "--rate", "0.3", "--within", "1"])
    row = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")
    recordings, requests, retries, retried = (int(row[column].replace(",", "")) for column in (1, 2, 4, 5))
    assert recordings == 20
    assert requests >= 2 * recordings + retries
    assert 0 < retried <= retries
