"""Distributions: their figures, and what is none."""

from __future__ import annotations

import asyncio
from random import Random
from statistics import fmean, quantiles

import pytest

from resilience.simulation.distributions import Constant, Exponential, LogNormal, Mixture, distribution


def drawn(times, count=20_000):
    random = Random(1)
    return [times(random) for _ in range(count)]


def test_constant():
    assert set(drawn(Constant(0.02), 10)) == {0.02}


def test_exponential():
    seconds = drawn(Exponential(0.02))
    assert min(seconds) >= 0
    assert fmean(seconds) == pytest.approx(0.02, rel=0.03)
    assert quantiles(seconds, n=2)[0] == pytest.approx(0.02 * 0.693, rel=0.03)


def test_log_normal():
    times = LogNormal(median=0.01, p99=0.1)
    seconds = drawn(times)
    assert fmean(seconds) == pytest.approx(times.mean, rel=0.03)
    assert quantiles(seconds, n=2)[0] == pytest.approx(0.01, rel=0.03)
    assert quantiles(seconds, n=100)[-1] == pytest.approx(0.1, rel=0.1)


def test_mixture():
    seconds = drawn(Mixture(0.25, Constant(1.0), Constant(0.1)))
    assert set(seconds) == {1.0, 0.1}
    assert seconds.count(1.0) / len(seconds) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Constant(-1), ValueError),
        (lambda: Exponential(0), ValueError),
        (lambda: Exponential("1"), TypeError),
        (lambda: LogNormal(0, 1), ValueError),
        (lambda: LogNormal(1.0, 1.0), ValueError),
        (lambda: Mixture(1.5, Constant(1), Constant(1)), ValueError),
        (lambda: Mixture(0.5, 1.0, Constant(1)), TypeError),
        (lambda: Mixture(0.5, Constant(1), Constant), TypeError),
    ],
)
def test_figures_out_of_range_are_refused(make, error):
    with pytest.raises(error):
        make()


def test_any_plain_function_will_do():
    distribution("service_time", lambda random: random.random())
    with pytest.raises(TypeError, match=r"^service_time=.* must be a distribution, such as Constant"):
        distribution("service_time", asyncio.sleep)
