"""How a process that serves begins and ends, whatever server it runs."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError

from examples.backend.assembly import Backend
from resilience import ServiceError, is_transient

if TYPE_CHECKING:
    from examples.backend.kit import Kit
    from examples.backend.settings import Settings

logger: Final = logging.getLogger("backend.serving")

GRACE: Final = 3
"""Whole seconds that running requests get to end, once nothing new is accepted."""
CLOSING: Final = 1
"""Whole seconds that are kept for closing everything after that."""
HEAD_TIMEOUT: Final = 10.0
"""Seconds for a request's headers to arrive."""
KEEP_ALIVE: Final = 5
"""Whole seconds that a connection may be silent between two requests."""
LARGEST_HEAD: Final = 16 * 1024
"""Bytes of a request's first line and headers."""


class NotStartedError(Exception):
    """The backend cannot start; the message says to a person why, and what to do."""


async def started(settings: Settings, kit: Kit) -> Backend:
    """Return a backend that has started.

    Raises:
        NotStartedError: Something that it needs is not there, or two settings do not go together.
    """
    try:
        backend = Backend(settings, kit)
        await backend.start()
    except ValueError as error:
        raise NotStartedError(str(error)) from error
    except Exception as error:
        if isinstance(error, OSError | sqlite3.Error | SQLAlchemyError) or is_transient(error):
            raise NotStartedError(_explained(settings, error)) from error
        raise
    return backend


def _explained(settings: Settings, error: Any) -> str:
    cause = error.__cause__ if isinstance(error, ServiceError) and error.__cause__ else error
    reason = " ".join(str(getattr(cause, "orig", None) or cause).split())
    if settings.database_url or settings.redis_url:
        return f"cannot start: {reason}; see BACKEND_DATABASE_URL, BACKEND_REDIS_URL, BACKEND_VAR"
    return f"cannot keep anything in {settings.var}: {reason}; see BACKEND_VAR"


def end_within(seconds: float) -> None:
    """Have this process end by then, whatever hangs in it. May be called by a signal handler.

    What is closed in an orderly way takes a fraction of that. But a driver may be stuck in a thread, which
    nobody can interrupt, and the interpreter would wait for it.
    """
    if hasattr(signal, "setitimer"):  # Windows has none
        signal.signal(signal.SIGALRM, _end_now)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def let_go() -> None:
    """Leave the rest to the interpreter, now that all is closed; unless a thread would keep it waiting."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, 0)  # in the interpreter's last moments nobody would answer it
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        _end_now()


def _end_now(*_: object) -> None:
    names = ", ".join(sorted(thread.name for thread in threading.enumerate() if not thread.daemon))
    logger.warning("something hangs: ending without it (%s)", names)
    logging.shutdown()
    os._exit(0)
