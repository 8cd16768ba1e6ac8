from __future__ import annotations

import gc
import os
import runpy
import threading
import weakref

import pytest

from resilience import fork
from resilience.fork import bound_lock, survive_fork


class Owner:
    def __init__(self):
        self.made = 0
        survive_fork(self)

    def after_fork(self):
        self.made += 1
        self._lock = threading.RLock()


def test_the_lock_is_made_at_once():
    assert Owner().made == 1


def test_an_owner_is_not_kept_alive():
    owner = weakref.ref(Owner())
    gc.collect()

    assert owner() is None


def test_living_owners_are_renewed_in_a_child():
    owners = [Owner(), Owner()]

    fork._after_fork_in_child()

    assert [owner.made for owner in owners] == [2, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking with threads is the point
def test_a_child_gets_free_locks():
    owner = Owner()
    held, release = threading.Event(), threading.Event()

    def hold():
        with owner._lock:
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if child == 0:
        os._exit(0 if owner._lock.acquire(blocking=False) and owner.made == 2 else 1)
    _, status = os.waitpid(child, 0)
    release.set()
    holder.join()

    assert os.waitstatus_to_exitcode(status) == 0
    assert owner.made == 1, "the parent keeps its lock"


def test_a_system_without_fork_is_fine(monkeypatch):
    monkeypatch.delattr(os, "register_at_fork", raising=False)

    assert runpy.run_path(fork.__file__)["survive_fork"]


def test_a_bound_lock_is_held_by_one_thread_at_a_time_and_let_go_of_by_an_exception():
    lock = bound_lock()
    order = []

    def other():
        with lock:
            order.append("other")

    def fail():
        with lock, lock:  # re-entrant
            waiting.start()
            order.append("first")
            raise KeyError

    waiting = threading.Thread(target=other)
    with pytest.raises(KeyError):
        fail()
    waiting.join(5)

    assert order == ["first", "other"]
