"""The program that measures whether the time of a refused login tells who has an account, in short."""

from __future__ import annotations

import random

import pytest

from benchmarks import login_times
from benchmarks.login_times import CHEAP, KINDS, critical, distances, kolmogorov_smirnov, measured, row


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.0], [3.0, 4.0], 1.0),
        ([3.0, 4.0], [1.0, 2.0], 1.0),
        ([1.0, 1.0, 2.0], [1.0, 2.0, 2.0], pytest.approx(1 / 3, abs=1e-6)),
        ([2.0], [1.0, 2.0, 3.0, 4.0], 0.5),
    ],
)
def test_the_distance_is_the_largest_between_the_shares(one, other, distance):
    assert kolmogorov_smirnov(one, other) == distance


def test_one_in_twenty_samples_of_one_distribution_is_farther_apart_than_critical():
    chance = random.Random(1)
    farther = sum(
        kolmogorov_smirnov(*([chance.random() for _ in range(100)] for _ in range(2))) > critical(100)
        for _ in range(400)
    )
    assert 5 <= farther <= 30  # 20 of 400 in the limit; fewer, since the formula is for large samples


@pytest.mark.parametrize("what", ["work", "answers"])
def test_each_kind_is_measured_and_each_two_are_compared(what):
    times = measured(3, CHEAP, what, random.Random(1))
    assert {kind: len(samples) for kind, samples in times.items()} == dict.fromkeys(KINDS, 3)
    assert len(distances(times)) == 6
    assert row("a title", times).startswith("| a title | 3 | ")


def test_a_login_that_succeeds_is_no_refusal(monkeypatch):
    class Open:
        async def login(self, *_):
            return "a token"

    monkeypatch.setattr(login_times.Logins, "_accounts", lambda *_: Open())
    with pytest.raises(AssertionError, match="was let in"):
        measured(1, CHEAP, "work", random.Random(1))
