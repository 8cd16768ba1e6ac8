"""The threads of a board: one that reports and reads, one that listens; both only where there is a breaker.

They are daemons, so the interpreter ends without them; the places that they had leased then run out. A forked
child starts its own.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn
from weakref import WeakSet

from resilience._core.ledger import KEPT
from resilience.boards.exchange import Exchange
from resilience.checks import number
from resilience.clock import SYSTEM_CLOCK
from resilience.fork import survive_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from resilience._core.shared import SharedBreaker
    from resilience.boards.exchange import Engine
    from resilience.breaker.gate import Gate

LISTENING: Final = 0.2
"""Seconds after which one who listens looks whether to go on."""

ENDING: Final = 3.0
"""Seconds for which `close` waits for the threads: longer than an engine may take to answer."""


_boards: WeakSet[ThreadedBoard] = WeakSet()


class ThreadedBoard:
    """What the boards of all engines have in common.

    Args:
        engine: Where the ledgers are.
        refresh: Seconds from one reading of all ledgers to the next, above 0, an hour at most.

    Threads may share it.
    """

    def __init__(self, engine: Engine, refresh: float) -> None:
        self._refresh = number("refresh", refresh, above=0, most=KEPT)
        self._engine = engine
        self._exchange = Exchange(engine, self._refresh)
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        survive_fork(self)
        _boards.add(self)

    def after_fork(self) -> None:
        """Leave to the parent of a forked process what belongs to it: locks, threads and connections."""
        self._lock = threading.RLock()
        was_closed = self._closing.is_set()
        self._closing = threading.Event()
        if was_closed:
            self._closing.set()
        self._threads = []
        self._exchange.after_fork()

    def go_on_in_child(self) -> None:
        """Start threads anew, once all that they will touch has left the parent behind."""
        if self._exchange.is_needed and not self._closing.is_set():
            self._start()

    @property
    def in_touch(self) -> bool:
        """Whether the engine answered when it was last asked."""
        return self._exchange.in_touch

    def enrol(self, gate: Gate, core: SharedBreaker) -> Callable[[], object]:
        """Let a breaker take part; `CircuitBreaker(shared=…)` calls this.

        Raises:
            RuntimeError: The board has been closed.
        """
        with self._lock:
            if self._closing.is_set():
                raise RuntimeError(f"{self!r} has been closed: make a new one for new breakers")
            wake = self._exchange.enrol(gate, core)
            if not self._threads:
                self._start()
        return wake

    def close(self) -> None:
        """End the threads and connections, and give back unused places. Breakers go on, each process alone.

        Closing it again does nothing.
        """
        with self._lock:
            self._closing.set()
            threads = tuple(self._threads)
        self._exchange.hear(None)
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(ENDING)
        self._engine.close()

    def __enter__(self) -> Self:
        """Return itself; the end of the block closes it."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled."""
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled: it holds connections; share this one"
        )

    def _start(self) -> None:
        for work in (self._work, self._listen):
            thread = threading.Thread(target=work, name=f"resilience {type(self).__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        closing = self._closing
        while not closing.is_set():
            self._exchange.step()
        try:
            self._exchange.leave()
        except Exception as error:  # noqa: BLE001 - at the end there is nothing left to do but say so
            self._exchange.log(error, "the places that it had leased come back by and by")

    def _listen(self) -> None:
        """Listen, and begin anew where that fails or the engine has been out of reach."""
        closing = self._closing
        while not closing.is_set():
            is_over = partial(self._is_listening_over, closing, self._exchange.recoveries)
            try:
                self._engine.listen(self._exchange.hear, is_over)
            except Exception as error:  # noqa: BLE001 - news are then read by the refresh, and the thread lives
                SYSTEM_CLOCK.wait(closing, self._refresh)
                if self._exchange.in_touch:  # otherwise the other thread has said that nothing works
                    self._exchange.log(error, "news come by the refresh only")

    def _is_listening_over(self, closing: threading.Event, recoveries: int) -> bool:
        """Whether the board is closed, or the engine was out of reach and may have forgotten who listens."""
        return closing.is_set() or self._exchange.recoveries != recoveries


def _go_on_in_child() -> None:
    for board in tuple(_boards):
        board.go_on_in_child()


# Such calls are made in the order of their registration, so the locks of `resilience.fork` are new by then: a
# thread that came before would wait for ever at one that some thread of the parent had held.
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_go_on_in_child)
