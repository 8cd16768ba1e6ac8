"""Real servers for all applications: one for ASGI, one for WSGI; the Host header says which is meant."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn

ROOT = Path(__file__).parent.parent.parent.parent
PATIENCE = 20.0
"""Seconds for what should take a moment."""


def asgi_apps():
    from tests.examples.frameworks import on_django, on_fastapi, on_litestar, on_quart, on_starlette

    return {
        "starlette": on_starlette.app,
        "fastapi": on_fastapi.app,
        "litestar": on_litestar.app,
        "quart": on_quart.app,
        "django-asgi": on_django.asgi_app,
    }


def wsgi_apps():
    from tests.examples.frameworks import on_django, on_falcon, on_flask

    return {"flask": on_flask.app, "falcon": on_falcon.app, "django-wsgi": on_django.wsgi_app}


ON_ASGI = ("starlette", "fastapi", "litestar", "quart", "django-asgi")
ON_WSGI = ("flask", "falcon", "django-wsgi")
FRAMEWORKS = (*ON_ASGI, *ON_WSGI)


def wsgi_application():
    """Return what gunicorn serves."""
    apps = wsgi_apps()
    return lambda environ, start_response: apps[environ["HTTP_HOST"]](environ, start_response)


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    def header(self, name):
        values = [value for key, value in self.headers if key.lower() == name]
        assert len(values) <= 1, values
        return values[0] if values else None


class Server(NamedTuple):
    """Where a server listens."""

    port: int

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def ask(self, framework, method, path, body=None, headers=(), *, chunked=False):
        """Return the answer to a request; raise `IncompleteRead` where it is cut."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            names = {"Host": framework, **dict(headers)}
            if chunked:
                body = iter([body])
            connection.request(method, path, body, names, encode_chunked=chunked)
            response = connection.getresponse()
            return Answer(response.status, response.getheaders(), response.read())

    def talk(self, framework, request):
        """Send raw bytes, and return all that comes until the server ends the connection."""
        with self.connect() as wire:
            wire.sendall(request.replace(b"Host: ?", b"Host: " + framework.encode()))
            return everything_from(wire)


def everything_from(wire):
    """Return all that comes until the server ends the connection, in whichever way."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := wire.recv(65536):
            answer += piece
    return answer


@pytest.fixture(scope="session")
def asgi_server():
    """All ASGI applications on one uvicorn, in a thread of this process."""
    apps = asgi_apps()

    async def app(scope, receive, send):
        (host,) = [value for name, value in scope["headers"] if name == b"host"]
        await apps[host.decode()](scope, receive, send)

    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        serving.start()
        try:
            yield Server(listening.getsockname()[1])
        finally:
            server.should_exit = True
            serving.join()


@pytest.fixture(scope="session")
def wsgi_server(tmp_path_factory):
    """All WSGI applications on one gunicorn, with threads, as a process of its own."""
    log = tmp_path_factory.mktemp("gunicorn") / "log"
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listening:
        listening.set_inheritable(True)
        command = [sys.executable, "-m", "gunicorn", "tests.examples.frameworks.serving:wsgi_application()"]
        command += ["--threads", "16", "--bind", f"fd://{listening.fileno()}", "--no-control-socket"]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stderr=output,
                pass_fds=[listening.fileno()],
                env={**os.environ, "PYTHONPATH": "."},
            )
        try:
            server = Server(listening.getsockname()[1])
            give_up_at = time.monotonic() + PATIENCE
            while b" 200 " not in server.talk("flask", b"GET /ok HTTP/1.0\r\nHost: ?\r\n\r\n"):
                assert time.monotonic() < give_up_at, log.read_text()
            yield server
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
