from __future__ import annotations

import pytest

from resilience import CircuitBreaker
from resilience.boards import Board
from resilience.boards.board import ThreadedBoard
from resilience.testing import FakeClock
from tests.boards.doubles import MemoryEngine


def test_a_board_has_a_way_to_enrol_and_nothing_more():
    assert [name for name in vars(Board) if not name.startswith("_")] == ["enrol"]
    assert callable(ThreadedBoard(MemoryEngine(FakeClock()), 1.0).enrol)


def test_what_nobody_can_enrol_at_is_no_board():
    with pytest.raises(TypeError, match="must be a board, such as"):
        CircuitBreaker(name="storage", shared="redis://localhost")
