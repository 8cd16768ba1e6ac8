"""What a forked child must make anew: locks that another thread held, connections that the parent owns.

A lock that is held by some other thread at the moment of a fork stays held in the child for ever, since
that thread does not exist there. So every object with a lock makes it in a method `after_fork`, calls
`survive_fork` once, and always reaches the lock as `self._lock`. The locks are re-entrant, because a
finaliser may call the same object while its own thread is inside.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """An object that knows how to make its locks and connections anew."""

    def after_fork(self) -> None:
        """Replace what must not be shared with the parent process."""
        ...


_owners: WeakSet[ForkAware] = WeakSet()


def survive_fork(owner: ForkAware) -> None:
    """Call `owner.after_fork()` now, and again in every child that is forked while `owner` lives."""
    owner.after_fork()
    _owners.add(owner)


def _after_fork_in_child() -> None:
    for owner in tuple(_owners):
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
