"""What the processes do that share a breaker in the tests."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from resilience import CircuitBreaker
from resilience.boards.postgres import PostgresBoard
from resilience.boards.redis import RedisBoard
from resilience.errors import CircuitOpenError
from resilience.testing import wait_until
from tests.threads import together

PROBES = 3
NAME = "of many processes"


def board_at(url):
    """Return a board on the server at `url`."""
    return PostgresBoard(url) if url.startswith("postgresql") else RedisBoard(url)


def failing():
    raise OSError


def trip(breaker):
    with suppress(OSError, CircuitOpenError):
        breaker.execute(failing)


def joined(url, recovery_time, **options):
    """Return a board and a breaker on it, in touch."""
    board = board_at(url)
    options = {"name": NAME, "recovery_jitter": 0.0, **options}
    breaker = CircuitBreaker(1, recovery_time, shared=board, **options)
    wait_until(lambda: board.in_touch)
    return board, breaker


def probe_at_once(number, ready, url, folder):
    """Let 16 callers ask for places and hold what they get; return how many got in.

    They go on until as many as there are probes have got in over all processes, and then for some more.
    """
    board, breaker = joined(url, 0.5, probes=PROBES)
    ready()
    if number == 0:
        trip(breaker)
    wait_until(lambda: breaker.state != "closed")
    permits = []

    def call(caller):
        left, is_enough = 30, False
        while left:
            with suppress(CircuitOpenError):
                permits.append(breaker.acquire())
                Path(folder, f"{number} {caller} {len(permits)}").touch()
            is_enough = is_enough or len(list(Path(folder).iterdir())) >= PROBES
            left -= is_enough
            threading.Event().wait(0.005)

    together(16, call)
    board.close()
    return len(permits)


def hold_a_probe(number, ready, url):
    """As number 0, trip, get the one place that there is, and be killed; as number 1, get it after that."""
    board, breaker = joined(url, 0.2, probes=1, probe_lease=0.5)
    permits = []

    def is_let_in():
        with suppress(CircuitOpenError):
            permits.append(breaker.acquire())
        return bool(permits)

    if number == 0:
        trip(breaker)
        wait_until(is_let_in)
        ready()
        raise AssertionError("it was to be killed")
    wait_until(lambda: breaker.state != "closed")
    ready()
    was_let_in_early = is_let_in()
    wait_until(is_let_in)
    permits[0].success()
    wait_until(lambda: breaker.is_closed)
    board.close()
    return was_let_in_early


def leave_at_once(url):
    """Trip, and end without closing the board."""
    _, breaker = joined(url, 60.0)
    trip(breaker)
