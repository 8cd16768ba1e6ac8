from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from contextlib import suppress

import pytest

from resilience import CircuitBreaker
from resilience.boards import board as module
from resilience.boards.board import ThreadedBoard
from resilience.clock import SYSTEM_CLOCK
from resilience.testing import wait_until
from tests.boards.doubles import MemoryEngine
from tests.children import forking, in_child


def engine_of(ledgers=None):
    return MemoryEngine(SYSTEM_CLOCK, ledgers)


@pytest.fixture
def engine():
    return engine_of()


@pytest.fixture
def board(engine):
    with ThreadedBoard(engine, 0.02) as board:
        yield board


def threads():
    return [thread for thread in threading.enumerate() if "ThreadedBoard" in thread.name]


def failing():
    raise OSError


def trip(breaker):
    with suppress(OSError):
        breaker.execute(failing)


def test_it_has_no_threads_until_a_breaker_joins(board, engine):
    assert threads() == []
    breaker = CircuitBreaker(name="storage", shared=board)
    wait_until(lambda: board.in_touch)

    assert [thread.daemon for thread in threads()] == [True, True]
    CircuitBreaker(name="storage", shared=board)
    assert len(threads()) == 2
    board.close()
    assert threads() == []
    assert engine.is_closed
    assert breaker.execute(len, "") == 0
    board.close()


def test_two_boards_carry_news(board, engine):
    with ThreadedBoard(engine_of(engine.ledgers), 0.02) as other:
        here, there = (CircuitBreaker(1, 60.0, name="storage", shared=each) for each in (board, other))
        wait_until(lambda: board.in_touch and other.in_touch)
        trip(here)
        wait_until(lambda: there.state == "open")
        there.reset()
        wait_until(lambda: here.state == "closed")


def test_one_who_listens_begins_anew_after_an_outage(board, engine):
    breaker = CircuitBreaker(1, 60.0, name="storage", shared=board)
    wait_until(lambda: engine.listening.is_set() and board.in_touch)
    engine.error = OSError()
    wait_until(lambda: not board.in_touch)
    engine.listening.clear()
    engine.error = None
    wait_until(engine.listening.is_set)
    wait_until(lambda: board.in_touch and len(engine.listeners) == 1)

    assert breaker.state == "closed"


def test_a_channel_that_fails_is_tried_again(board, engine, monkeypatch, caplog):
    failed = threading.Event()
    listen = engine.listen

    def fail_once(heard, is_over):
        if not failed.is_set():
            wait_until(lambda: board.in_touch)
            failed.set()
            raise PermissionError("no right to listen")
        listen(heard, is_over)

    monkeypatch.setattr(engine, "listen", fail_once)
    breaker = CircuitBreaker(1, 60.0, name="storage", shared=board)

    wait_until(engine.listening.is_set)
    assert failed.is_set()
    assert breaker.is_closed
    assert "news come by the refresh only: PermissionError: no right to listen" in caplog.text


def test_of_an_engine_out_of_reach_only_one_of_the_threads_speaks(board, engine, caplog):
    engine.error = OSError("no route")
    breaker = CircuitBreaker(1, 60.0, name="storage", shared=board)
    wait_until(lambda: engine.tried.count("listen") > 2 and engine.tried.count("read") > 2)

    assert len(caplog.records) == 1
    assert "its breakers go on alone" in caplog.text
    assert breaker.is_closed


def test_an_engine_that_fails_at_the_end_is_logged(engine, caplog):
    board = ThreadedBoard(engine, 0.02)
    breaker = CircuitBreaker(1, 60.0, name="storage", shared=board)
    wait_until(lambda: board.in_touch)
    board._exchange.leave = failing
    board.close()

    assert breaker.is_closed
    assert "OSError" in caplog.text


def test_closed_from_its_own_thread_it_does_not_wait_for_itself(board):
    closed = threading.Event()

    def close(change):
        board.close()
        closed.set()

    breaker = CircuitBreaker(1, 60.0, name="storage", shared=board, on_change=close)
    wait_until(lambda: board.in_touch)
    other = CircuitBreaker(1, 60.0, name="storage", shared=board)
    trip(other)

    assert closed.wait(10.0)
    assert breaker.state == "open"


def test_a_closed_board_takes_no_more_breakers(board):
    board.close()

    with pytest.raises(RuntimeError, match="has been closed"):
        CircuitBreaker(name="storage", shared=board)


def test_it_cannot_be_pickled(board):
    with pytest.raises(TypeError, match="share this one"):
        pickle.dumps(board)


@pytest.mark.parametrize("refresh", [0, -1.0, float("nan"), 3601.0, True, "1"])
def test_a_refresh_that_makes_no_sense_is_refused(engine, refresh):
    with pytest.raises((TypeError, ValueError), match="refresh must be a"):
        ThreadedBoard(engine, refresh)


# --- forks and the end of the process --------------------------------------------------------------


@forking
def test_a_forked_child_starts_threads_of_its_own(board, engine):
    breaker = CircuitBreaker(1, 60.0, name="storage", shared=board)
    wait_until(lambda: board.in_touch)

    def work():
        assert len(threads()) == 2
        wait_until(lambda: board.in_touch)
        trip(breaker)
        wait_until(lambda: "storage" in engine.ledgers)
        board.close()
        assert threads() == []

    assert in_child(work) == 0
    assert breaker.is_closed


def test_what_a_child_does_leaves_nothing_of_the_parent_behind(board):
    """As in a child, but here, where it is measured: the threads of before end by themselves."""
    board.after_fork()  # there is nothing yet
    board.go_on_in_child()
    assert threads() == []
    breaker = CircuitBreaker(1, 60.0, name="storage", shared=board)
    wait_until(lambda: board.in_touch)
    before = threads()
    closing = board._closing
    board.after_fork()
    module._go_on_in_child()
    closing.set()
    wait_until(lambda: not any(thread.is_alive() for thread in before))
    wait_until(lambda: board.in_touch)
    assert len(threads()) == 2

    board.close()
    board.after_fork()
    board.go_on_in_child()
    assert threads() == []
    assert breaker.is_closed


@forking
def test_a_child_forked_while_a_breaker_s_lock_is_held_goes_on(board, engine):
    breaker = CircuitBreaker(1, 60.0, name="storage", shared=board)
    wait_until(lambda: board.in_touch)
    held, over = threading.Event(), threading.Event()

    def hold():
        with breaker._gate.lock:
            held.set()
            over.wait(10.0)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(10.0)

    def work():
        wait_until(lambda: board.in_touch)
        trip(breaker)
        wait_until(lambda: "storage" in engine.ledgers)

    assert [in_child(work) for _ in range(10)] == [0] * 10
    over.set()
    holder.join()


@forking
def test_a_forked_child_of_a_board_without_breakers_or_a_closed_one_starts_none(engine):
    unused, closed, orphaned = (ThreadedBoard(engine_of(), 0.02) for _ in range(3))
    breaker = CircuitBreaker(name="storage", shared=closed)
    CircuitBreaker(name="storage", shared=orphaned)  # which nobody holds
    wait_until(lambda: orphaned.in_touch or not orphaned._exchange.is_needed)
    closed.close()

    def work():
        assert threads() == []
        with pytest.raises(RuntimeError):
            CircuitBreaker(name="storage", shared=closed)

    assert in_child(work) == 0
    unused.close()
    orphaned.close()
    assert breaker.is_closed


def test_the_interpreter_ends_at_once_with_a_board_at_work():
    source = (
        "import sys; sys.path[:0] = ['src', '.'];"
        "from resilience import CircuitBreaker; from resilience.boards.board import ThreadedBoard;"
        "from resilience.clock import SYSTEM_CLOCK; from resilience.testing import wait_until;"
        "from tests.boards.doubles import MemoryEngine;"
        "board = ThreadedBoard(MemoryEngine(SYSTEM_CLOCK), 3600.0);"
        "breaker = CircuitBreaker(name='storage', shared=board);"
        "wait_until(lambda: board.in_touch)"
    )

    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], timeout=30, capture_output=True, check=False
    )

    assert (ended.returncode, ended.stderr) == (0, b"")
