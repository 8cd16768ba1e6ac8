"""What any board must do on a real engine: for `test_redis.py` and `test_postgres.py`."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from itertools import count

from resilience import CircuitBreaker
from resilience.errors import CircuitOpenError
from resilience.testing import wait_until

names = count(1)


def failing():
    raise OSError


def trip(breaker):
    with suppress(OSError):
        breaker.execute(failing)


def is_let_through(breaker):
    try:
        breaker.execute(len, "")
    except CircuitOpenError:
        return False
    return True


@contextmanager
def pair(new_board, recovery_time=60.0, boards=2, **options):
    """Yield breakers of one name, each on a board of its own, that are in touch."""
    all_of_them = [new_board() for _ in range(boards)]
    options = {"name": f"breaker {next(names)}", "recovery_jitter": 0.0, "probes": 1, **options}
    try:
        breakers = [CircuitBreaker(1, recovery_time, shared=board, **options) for board in all_of_them]
        wait_until(lambda: all(board.in_touch for board in all_of_them))
        yield breakers
    finally:
        for board in all_of_them:
            board._closing.set()  # so that they end at the same time
        for board in all_of_them:
            board.close()


def the_whole_way_round(new_board):
    """Open, test and close."""
    with pair(new_board, recovery_time=0.2) as (here, there):
        trip(here)
        wait_until(lambda: there.state == "open")
        wait_until(lambda: is_let_through(there) or is_let_through(here))
        wait_until(lambda: here.is_closed and there.is_closed)


def at_once(new_board):
    """Carry news by the channel, long before the refresh."""
    with pair(lambda: new_board(refresh=3600.0)) as (here, there):
        wait_until(lambda: here._gate.core.in_touch and there._gate.core.in_touch)
        trip(here)
        wait_until(lambda: there.state == "open" or here.reset() or trip(here))


def a_quorum(new_board):
    """Open for all when two have tripped."""
    with pair(new_board, boards=3, quorum=2) as breakers:
        trip(breakers[0])
        trip(breakers[1])
        wait_until(lambda: breakers[2].state == "open")
