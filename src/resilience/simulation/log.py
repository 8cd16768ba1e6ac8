"""What is written down while a simulation is under way: every call and attempt, and nothing computed."""

from __future__ import annotations

from array import array
from enum import IntEnum


class Outcome(IntEnum):
    """How a call ended."""

    UNFINISHED = 0
    """Not before the simulation did."""
    SUCCEEDED = 1
    FAILED = 2
    """The client's policy passed an error on, after at least one attempt."""
    REJECTED = 3
    """The client's policy made no attempt."""


class Log:
    """All calls and attempts of a run; one place in each array for one of them, in order of their beginning.

    A call is what the client's code asks for; attempts are what its policy makes of it.
    """

    __slots__ = (
        "attempts",
        "began",
        "ended",
        "outcome",
        "process",
        "refusals",
        "sent",
        "shard",
        "waiting",
        "wasted_at",
    )

    def __init__(self) -> None:
        self.began = array("d")
        """The instant at which each call began."""
        self.ended = array("d")
        """The instant at which it ended; the one at which it began while it has not."""
        self.outcome = array("b")
        """How it ended, an `Outcome`."""
        self.attempts = array("l")
        """How many attempts it made."""
        self.process = array("l")
        """The number of its client process."""
        self.shard = array("l")
        """The number of its shard."""
        self.sent = array("d")
        """The instant of each attempt."""
        self.refusals = array("d")
        """The instant of each refusal by a server."""
        self.wasted_at = array("d")
        """The instant at which each piece of work was done that nobody waited for any more."""
        self.waiting = array("l")
        """How much waited on all servers, at each full second."""

    def begin(self, now: float, process: int, shard: int) -> int:
        """Note that a call began; return its place."""
        self.began.append(now)
        self.ended.append(now)
        self.outcome.append(Outcome.UNFINISHED)
        self.attempts.append(0)
        self.process.append(process)
        self.shard.append(shard)
        return len(self.began) - 1

    def attempt(self, place: int, now: float) -> None:
        """Note that the call at `place` made an attempt."""
        self.attempts[place] += 1
        self.sent.append(now)

    def end(self, place: int, now: float, outcome: Outcome) -> None:
        """Note how the call at `place` ended."""
        self.ended[place] = now
        self.outcome[place] = outcome

    def refused(self, now: float) -> None:
        """Note that a server refused an attempt."""
        self.refusals.append(now)

    def wasted(self, now: float) -> None:
        """Note that a server did work for nobody."""
        self.wasted_at.append(now)
