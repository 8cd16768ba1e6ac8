"""The bar of a long run."""

from __future__ import annotations

import io
import sys

import pytest

from resilience.simulation.progress import Progress
from resilience.testing import FakeClock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def drawn(stream, seconds=0.6):
    clock = FakeClock()
    with Progress("outage", stream, clock) as progress:
        for step in range(5):
            progress(step / 4)
            clock.advance(seconds)
    return stream.getvalue()


def test_it_shows_after_a_second_and_is_wiped_off():
    pictures = drawn(Terminal()).split("\r")
    assert pictures[0] == ""
    assert pictures[1] == "outage " + "█" * 20 + "░" * 20 + "  50%"
    assert pictures[3] == "outage " + "█" * 40 + " 100%"
    assert pictures[4].strip() == ""
    assert len(pictures[4]) == len(pictures[3])
    assert pictures[5] == ""


def test_it_is_not_drawn_more_often_than_it_can_be_read():
    assert drawn(Terminal(), 0.3).count("\r") == 3  # one picture, and wiped off


@pytest.mark.parametrize(("stream", "seconds"), [(io.StringIO(), 0.6), (Terminal(), 0.1)])
def test_there_is_none_in_a_file_or_for_a_short_run(stream, seconds):
    assert drawn(stream, seconds) == ""


def test_it_goes_to_stderr():
    assert Progress()._stream is sys.stderr
