"""Threads that begin together, for the tests of what they share."""

from __future__ import annotations

import threading


def together(count, run):
    """Call `run(number)` on so many threads at once, and return what each returned."""
    barrier = threading.Barrier(count)
    results = [None] * count

    def begin(number):
        barrier.wait()
        results[number] = run(number)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
        assert not thread.is_alive(), "deadlock"
    return results
