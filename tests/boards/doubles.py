"""An engine in memory, for the tests of what carries news to and from it."""

from __future__ import annotations

import threading

from resilience.boards.coding import taken


class MemoryEngine:
    """A dictionary that several exchanges may share; `error` is raised where it is set.

    Its clock is another's, and 5 seconds and some decades ahead.
    """

    what = "a dictionary"

    def __init__(self, clock, ledgers=None):
        self.clock = clock
        self.ledgers = {} if ledgers is None else ledgers
        self.listeners = []
        self.error = None
        self.asked = []
        self.tried = []
        self.is_closed = False
        self.forks = 0
        self.listening = threading.Event()

    def now(self):
        return 1_700_000_005.0 + self.clock.now()

    def read(self, labels):
        self.ask("read", labels)
        return [self.ledgers.get(label) for label in labels], self.now()

    def take(self, label, report):
        self.ask("take", report)
        written, _, answer = taken(self.ledgers.get(label), report, self.now())
        if written is not None:
            self.ledgers[label] = written
            for heard in self.listeners:
                heard(label)
        return answer

    def listen(self, heard, is_over):
        self.ask("listen", None)
        self.listeners.append(heard)
        self.listening.set()
        while not is_over():
            threading.Event().wait(0.005)
        self.listeners.remove(heard)

    def after_fork(self):
        self.forks += 1

    def close(self):
        self.is_closed = True

    def ask(self, what, about):
        self.tried.append(what)
        if self.error is not None:
            raise self.error
        self.asked.append((what, about))
