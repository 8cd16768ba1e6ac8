"""What the log is told of work that is done again and again, and fails.

The first failure is told with its traceback, unless it is an outage that somebody has put in words already
(a `ServiceError` with a cause); then a line a minute with how many there were meanwhile, and one when it goes
well again. What fails twice a second, with a traceback each, hides in the log whatever else happens.
"""

from __future__ import annotations

from math import inf
from threading import RLock
from typing import TYPE_CHECKING, Final

from resilience.errors import ServiceError
from resilience.fork import survive_fork

if TYPE_CHECKING:
    from resilience.clock import Clock

INTERVAL: Final = 60.0
"""Seconds between two lines about failures in a row."""


class FailureLog:
    """What is told of one kind of work.

    Threads and tasks that do it side by side may share it.

    Args:
        name: What the work is called.
        clock: What the interval is counted on.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._failures = 0
        """In a row."""
        self._untold = 0
        """How many of them the log has not been told of."""
        self._quiet_until = -inf
        survive_fork(self)

    def after_fork(self) -> None:
        """Make the lock anew."""
        self._lock = RLock()

    def failed(self, error: Exception) -> None:
        """Note a failure."""
        now = self._clock.now()
        with self._lock:
            is_first = self._failures == 0
            self._failures += 1
            if not is_first and now < self._quiet_until:
                self._untold += 1
                return
            self._quiet_until = now + INTERVAL
            untold, self._untold = self._untold, 0
        import logging  # noqa: PLC0415 - loaded only when something went wrong

        logger = logging.getLogger("resilience")
        cause = error.__cause__ or error if isinstance(error, ServiceError) else error
        if is_first and cause is error:
            logger.error("%s failed; it goes on", self._name, exc_info=error)
        elif is_first:
            logger.error("%s failed; it goes on: %r", self._name, cause)
        else:
            logger.error("%s still fails (%d times since the last line): %r", self._name, untold + 1, cause)

    def succeeded(self) -> None:
        """Note that it went well."""
        if not self._failures:  # mostly; one that fails at this moment is noted by the next that goes well
            return
        with self._lock:
            failures, self._failures = self._failures, 0
            self._untold = 0
        if failures > 1:
            import logging  # noqa: PLC0415 - as above

            logging.getLogger("resilience").warning("%s works again, after %d failures", self._name, failures)
