"""Forked children, for the tests of what survives a fork."""

from __future__ import annotations

import os
import signal

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
