"""gunicorn, with our worker and our settings.

It starts the processes, replaces one that dies, and ends them; what each of them does stands in `threads.py`.
"""

from __future__ import annotations

import logging
import math
import os
import resource
from typing import TYPE_CHECKING, Any, Final

import gunicorn.arbiter
import gunicorn.errors
import gunicorn.glogging
from gunicorn.app.base import BaseApplication

from examples.backend.api.standing import StandingHeaders
from examples.backend.kit import BlockingKit, drive
from examples.backend.serving.lifetime import CLOSING, GRACE, KEEP_ALIVE, NotStartedError, started
from examples.backend.serving.threads import Requests, Worker
from examples.backend.wsgi import create_app

if TYPE_CHECKING:
    import socket

    from examples.backend.assembly import Backend
    from examples.backend.settings import Settings

MOST_CONNECTIONS: Final = 10_000
"""Of one process. Who waits costs no thread, only a descriptor and what has arrived."""
OTHER_FILES: Final = 256
"""Descriptors that are kept for everything else: with none left, gunicorn's accepting thread would fail."""


def serve(settings: Settings, listener: socket.socket, workers: int) -> None:
    """Serve on `listener` until told to end.

    Raises:
        NotStartedError: The backend cannot start; the processes have said why.
    """
    try:
        Application(settings, listener, workers).run()
    except SystemExit as ending:
        if ending.code == Arbiter.WORKER_BOOT_ERROR:
            raise NotStartedError("") from None
        if ending.code:
            raise


class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn, with our settings; the backend is made in each process, after the fork."""

    def __init__(self, settings: Settings, listener: socket.socket, workers: int) -> None:
        self.settings = settings
        self.standing = StandingHeaders(settings)
        self._listener = listener
        self._workers = workers
        self.backend: Backend | None = None
        self.requests: Requests | None = None
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn what it asks."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        options: dict[str, Any] = {
            "bind": [f"fd://{os.dup(self._listener.fileno())}"],  # gunicorn closes it
            "workers": self._workers,
            "worker_class": Worker,
            "logger_class": Log,
            "threads": self.settings.request_threads,
            "worker_connections": max(1, min(MOST_CONNECTIONS, descriptors - OTHER_FILES)),
            "timeout": 60,  # a process whose accepting thread is stuck is killed, and replaced
            # Until gunicorn kills: a worker has `GRACE` of it, and then closes.
            "graceful_timeout": math.ceil(self.settings.drain_notice) + GRACE + CLOSING,
            "keepalive": KEEP_ALIVE,
            "limit_request_line": 0,  # the head as a whole is limited before it is parsed
            "limit_request_fields": 32_768,
            "limit_request_field_size": 0,
            "forwarded_allow_ips": "",  # `resilience.http.client_address` trusts proxies by their network
            "secure_scheme_headers": {},
            "forwarder_headers": "",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Requests:
        """Return the application, in a process that serves."""
        self.backend = drive(started(self.settings, BlockingKit()))
        self.requests = Requests(create_app(self.backend), self.standing)
        return self.requests

    def run(self) -> None:
        """Serve until told to end; leaves by SystemExit."""
        Arbiter(self).run()


class Arbiter(gunicorn.arbiter.Arbiter):  # type: ignore[misc]  # gunicorn has no types
    """What starts and ends the processes."""

    _has_failed = False

    def spawn_worker(self) -> int:
        """Start a process. It leaves here: what we have on our stack, the fakes say, is ours to end."""
        arbiter = os.getpid()
        try:
            process: int = super().spawn_worker()
        except SystemExit as ending:
            if os.getpid() == arbiter:
                raise
            logging.shutdown()
            os._exit(ending.code if isinstance(ending.code, int) else 0)
        return process

    def handle_int(self) -> None:
        """Ctrl-C ends as SIGTERM does; a second one does not wait for what runs."""
        self.handle_term()

    def reap_workers(self) -> None:
        """Take note of who has ended; when all fail to start, once is enough."""
        try:
            super().reap_workers()
        except gunicorn.errors.HaltServer:
            if not self._has_failed:
                self._has_failed = True
                raise


class Log(gunicorn.glogging.Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's log, written as everybody's is."""

    def setup(self, cfg: Any) -> None:
        """Leave it to the root logger."""
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True
