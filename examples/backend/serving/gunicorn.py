"""gunicorn with threads, ending in our order: readiness says no, nothing new is accepted, what runs is
finished.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from gunicorn.app.base import BaseApplication

from examples.backend.assembly import Backend
from examples.backend.kit import BlockingKit, drive
from examples.backend.wsgi import create_app

if TYPE_CHECKING:
    import socket

    from examples.backend.settings import Settings

GRACE: Final = 3
"""Whole seconds that running requests get to end after SIGTERM."""


class Application(BaseApplication):  # type: ignore[misc] - gunicorn has no types
    """gunicorn, with our settings; the backend is made in each worker, after the fork."""

    def __init__(self, settings: Settings, listener: socket.socket, workers: int) -> None:
        self._settings = settings
        self._listener = listener
        self._workers = workers
        super().__init__()

    def load_config(self) -> None:
        """Tell gunicorn what it asks."""
        options: dict[str, Any] = {
            "bind": [f"fd://{self._listener.fileno()}"],
            "workers": self._workers,
            "worker_class": "gthread",
            "threads": self._settings.request_threads,
            "graceful_timeout": GRACE,
            "timeout": 60,
            "keepalive": 5,
            "worker_exit": lambda _, worker: drive(worker.wsgi_backend.close()),
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Return the application, in a worker."""
        self._backend = Backend(self._settings, BlockingKit())
        drive(self._backend.start())
        return create_app(self._backend)


def serve(settings: Settings, listener: socket.socket, workers: int) -> None:
    """Serve on `listener` until told to end."""
    Application(settings, listener, workers).run()
