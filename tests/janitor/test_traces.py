from __future__ import annotations

import threading
import time
import tracemalloc

import pytest

from resilience.janitor import traces
from resilience.janitor.traces import growth, tracing
from tests.children import forking, in_child

MB = 1_000_000


def test_the_lines_that_keep_the_most_come_first():
    kept = []
    with tracing():
        kept.append(bytearray(2 * MB))
        kept.append(bytearray(5 * MB))
        bytearray(9 * MB)  # released at once
        first, second = growth(top=2)

    assert first.file == second.file == __file__
    assert first.line == second.line + 1
    assert 5 * MB <= first.size < 6 * MB
    assert first.blocks >= 1
    assert not tracemalloc.is_tracing()


def test_a_block_that_fails_ends_the_trace():
    with pytest.raises(ZeroDivisionError), tracing():
        _ = 1 / 0

    assert not tracemalloc.is_tracing()


def test_anothers_trace_is_not_ended():
    tracemalloc.start()
    try:
        with pytest.raises(RuntimeError, match="running already"), tracing():
            pass
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_of_two_who_begin_in_the_same_instant_one_is_refused(monkeypatch):
    outcomes, over, ask = [], threading.Barrier(2), tracemalloc.is_tracing

    def ask_slowly():
        answer = ask()
        time.sleep(0.01)  # lets the other in, if anything does
        return answer

    def trace():
        try:
            with tracing():
                over.wait(5)
        except RuntimeError:
            outcomes.append("refused")
            over.wait(5)
        else:
            outcomes.append("traced")

    monkeypatch.setattr(tracemalloc, "is_tracing", ask_slowly)
    threads = [threading.Thread(target=trace) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert sorted(outcomes) == ["refused", "traced"]


def test_what_a_child_makes_anew_has_no_trace():
    with tracing():
        traces._TRACER.after_fork()
        assert not tracemalloc.is_tracing()


@forking
def test_a_child_does_not_go_on_with_its_parents_trace():
    def work():
        assert not tracemalloc.is_tracing()

    with tracing():
        assert in_child(work) == 0
        assert tracemalloc.is_tracing()
