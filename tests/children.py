"""Forked children, for the tests of what survives a fork."""

from __future__ import annotations

import os
import signal
import threading

import pytest

forking = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # forking among threads is the point


def in_child(work):
    """Run `work` in a forked child that has 5 s; return its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(5)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def write_in_child_around(close, write):
    """Let a forked child `write`, then this process `close` what both have, then the child `write` again."""
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()

    def work():
        write()
        os.write(to_parent, b"1")
        os.read(from_parent, 1)
        write()

    def close_in_between():
        os.read(from_child, 1)
        close()
        os.write(to_child, b"1")

    closer = threading.Thread(target=close_in_between)
    closer.start()
    assert in_child(work) == 0
    closer.join()
    for end in (from_child, to_parent, from_parent, to_child):
        os.close(end)
