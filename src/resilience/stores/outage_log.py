"""Says in the log that a server is out of reach, without a line for each call that finds out.

One line at the first failure, then at most one a minute with how many failures there were meanwhile, and one
when the server answers again. A log that an outage fills is a second outage.
"""

from __future__ import annotations

import threading
from math import inf
from typing import TYPE_CHECKING, Final

from resilience.fork import survive_fork

if TYPE_CHECKING:
    from resilience.clock import Clock

INTERVAL: Final = 60.0
"""Seconds between two lines about failures."""


class OutageLog:
    """What the log is told about one server, by the logger "resilience".

    Args:
        what: What the server is called, without a password.
        clock: What the interval is counted on.

    Threads and event loops may share it.
    """

    def __init__(self, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        self._quiet_until = -inf
        self._suppressed = 0
        self._since = 0.0
        self.is_told = False
        """Whether the log was told of an outage, and not yet of its end; may be read without the lock."""
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew."""
        self._lock = threading.RLock()

    def failed(self, error: Exception, *, out_of_reach: bool) -> None:
        """Note a failure, and write a line if there was none for a while.

        Args:
            error: What the callers get.
            out_of_reach: Whether the server did not answer; else it did, by an error.
        """
        now = self._clock.now()
        with self._lock:
            if now < self._quiet_until:
                self._suppressed += 1
                return
            self._quiet_until = now + INTERVAL
            suppressed, self._suppressed = self._suppressed, 0
            if out_of_reach and not self.is_told:
                self.is_told, self._since = True, now
        import logging  # noqa: PLC0415 - loaded only when something went wrong

        more = f" ({suppressed} more failures since the last line)" if suppressed else ""
        logging.getLogger("resilience").warning("%s%s", error, more)

    def answered(self) -> None:
        """Note that the server answers, and write a line if the log was told that it did not."""
        now = self._clock.now()
        with self._lock:
            if not self.is_told:
                return
            self.is_told = False
            suppressed, self._suppressed = self._suppressed, 0
            since = self._since
        import logging  # noqa: PLC0415 - see failed

        logging.getLogger("resilience").warning(
            "%s answers again, %.1f s after the first failure (%d more were not logged)",
            self._what,
            now - since,
            suppressed,
        )
