"""Several processes that do the same: one that dies is started again, and all end together.

The rules:

- Whoever of the first ones ends before it has started ends all: the others could not start either, and a loop
  of starts would hide it. Later that is tried again, more and more rarely: the others serve.
- Who had started is replaced, but no sooner than a second after its own start.
- SIGTERM and SIGINT are passed on as SIGTERM. Who has not ended when patience is over is killed; so is
  everybody at a second SIGINT.
- A process leaves by `os._exit`: what the parent has on its stack, the fakes say, is the parent's to end.
"""

from __future__ import annotations

import logging
import mmap
import os
import queue
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

from examples.backend.serving.lifetime import NotStartedError

if TYPE_CHECKING:
    from collections.abc import Callable

logger: Final = logging.getLogger("backend.serving")

SHORTEST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
SIGNALS: Final = {signal.SIGTERM, signal.SIGINT}


class Supervisor:
    """Runs `work` in several processes. `run` belongs to the main thread.

    Args:
        work: Serves until SIGTERM. It is given a function to call when it has started, and raises
            `NotStartedError` if it cannot.
        processes: How many.
        patience: Seconds that they have to end.
    """

    def __init__(
        self, work: Callable[[Callable[[], None]], None], processes: int, *, patience: float
    ) -> None:
        self._work = work
        self._patience = patience
        self._places = [_Place() for _ in range(processes)]
        self._told: queue.SimpleQueue[int] = queue.SimpleQueue()

    def run(self) -> None:
        """Keep the processes running until this one is told to end.

        Raises:
            NotStartedError: One of the first could not start, and has said why.
        """
        handlers = {
            number: signal.signal(number, lambda number, _: self._told.put(number))
            for number in (*SIGNALS, signal.SIGCHLD)
        }
        try:
            self._start()
            while self._wait(self._until_next()) not in SIGNALS:
                self._reap()
                self._start()
        finally:
            self._end()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _start(self) -> None:
        """Start what is missing and due."""
        for place in self._places:
            if place.process is None and place.due <= time.monotonic():
                place.begin(self._fork(place))

    def _fork(self, place: _Place) -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # none is lost while the handlers are the parent's
        process = os.fork()
        if process == 0:
            self._become_worker(place)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return process

    def _become_worker(self, place: _Place) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        exit_code = 1
        try:
            self._work(place.note_start)
            exit_code = 0
        except NotStartedError as error:
            print(error, file=sys.stderr)  # noqa: T201 - to whoever starts it
        except Exception:
            logger.exception("a process has failed")
        finally:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(exit_code)

    def _until_next(self) -> float | None:
        due = [place.due for place in self._places if place.process is None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _wait(self, seconds: float | None) -> int | None:
        """Return the next signal; None if there was none in time."""
        try:
            return self._told.get(timeout=seconds)
        except queue.Empty:
            return None

    def _reap(self) -> None:
        """Take note of who has ended."""
        for place in self._places:
            exit_code = place.ended()
            if exit_code is None:
                continue
            if place.is_first and not place.has_started:
                raise NotStartedError("")
            place.plan_next()
            pause = max(0.0, place.due - time.monotonic())
            logger.error("a process ended by itself (%s); another one in %.1f s", exit_code, pause)

    def _end(self) -> None:
        self._send(signal.SIGTERM)
        give_up_at = time.monotonic() + self._patience
        while self._running():
            if self._wait(max(0.0, give_up_at - time.monotonic())) in {None, signal.SIGINT}:
                self._send(signal.SIGKILL)
            for place in self._places:
                place.ended()

    def _running(self) -> list[int]:
        return [place.process for place in self._places if place.process is not None]

    def _send(self, number: int) -> None:
        for process in self._running():
            os.kill(process, number)


class _Place:
    """Where one process runs after another."""

    def __init__(self) -> None:
        self.process: int | None = None
        self.is_first = True
        """Whether no other one has run here before."""
        self.due = 0.0
        self._begun_at = 0.0
        self._pause = SHORTEST_PAUSE
        self._started = mmap.mmap(-1, 1)  # shared with the process

    @property
    def has_started(self) -> bool:
        """Whether the last process here had started to serve."""
        return self._started[0] > 0

    def begin(self, process: int) -> None:
        """Note which process runs here."""
        self.process = process
        self._begun_at = time.monotonic()

    def note_start(self) -> None:
        """Let the parent know; called in the process that runs here."""
        self._started[0] = 1

    def ended(self) -> int | None:
        """Return the exit code of the process, if it has just ended; a negative one is a signal."""
        if self.process is None:
            return None
        process, status = os.waitpid(self.process, os.WNOHANG)
        if process == 0:
            return None
        self.process = None
        return os.waitstatus_to_exitcode(status)

    def plan_next(self) -> None:
        """Decide when the next one starts."""
        if self.has_started:
            self._pause = SHORTEST_PAUSE
            self.due = self._begun_at + self._pause
        else:
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
            self.due = time.monotonic() + self._pause
        self.is_first = False
        self._started[0] = 0
