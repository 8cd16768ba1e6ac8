"""What the error path costs: `raise validation_error(…)` through the adapter, against a 400 written by hand.

    python -m benchmarks.error_path

Both answers come from the same framework in the same process, one right after the other, in an order that is
drawn anew for each pair. The figure is the mean of the pairs' differences, with its 95 % interval by
bootstrap. Once they are called as functions, and once asked over HTTP, on a connection that is kept, on
loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import random
import socket
import statistics
import threading
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple
from wsgiref.util import setup_testing_defaults

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from examples.adapters import asgi, wsgi
from resilience import validation_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Ask = Callable[[str], None]
    """Asks for a path once, and holds that the answer is a 400."""

REACH = 2.0
"""Milliseconds that the upper end of the interval may have."""

HELPER, RAW = "/helper", "/raw"
FIELDS = {"email": "invalid format"}


def asgi_application():
    """Return an application with both routes; the adapter is around one of them, as nobody would have it."""
    helper, raw = FastAPI(), FastAPI()

    @helper.get(HELPER)
    async def fail() -> None:
        raise validation_error("Email is invalid", FIELDS)

    @raw.get(RAW)
    async def answer() -> JSONResponse:
        return JSONResponse({"error": "Email is invalid", "fields": FIELDS}, 400)

    wrapped = asgi.ResilienceMiddleware(helper, max_body=64 * 1024, body_timeout=10.0)

    async def application(scope, receive, send):
        await (wrapped if scope["path"] == HELPER else raw)(scope, receive, send)

    return application


def wsgi_application():
    """Return the same for WSGI."""
    helper, raw = Flask("helper"), Flask("raw")
    helper.config["PROPAGATE_EXCEPTIONS"] = True

    @helper.get(HELPER)
    def fail():
        raise validation_error("Email is invalid", FIELDS)

    @raw.get(RAW)
    def answer():
        return {"error": "Email is invalid", "fields": FIELDS}, 400

    wrapped = wsgi.ResilienceMiddleware(helper, max_body=64 * 1024, body_timeout=10.0)

    def application(environ, start_response):
        return (wrapped if environ["PATH_INFO"] == HELPER else raw)(environ, start_response)

    return application


# --- ways of asking ------------------------------------------------------------------------------


def hold_that_it_is_refused(status: int) -> None:
    """Measure nothing else by mistake."""
    if status != 400:
        raise ValueError(f"the answer should be 400, not {status}")


@contextlib.contextmanager
def asgi_called() -> Iterator[Ask]:
    application = asgi_application()
    scope = {"type": "http", "method": "GET", "headers": [], "query_string": b"", "http_version": "1.1"}

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    with asyncio.Runner() as runner:
        loop = runner.get_loop()

        def ask(path):
            sent = []

            async def send(message):
                sent.append(message)

            loop.run_until_complete(
                application({**scope, "path": path, "raw_path": path.encode()}, receive, send)
            )
            hold_that_it_is_refused(sent[0]["status"])

        yield ask


@contextlib.contextmanager
def wsgi_called() -> Iterator[Ask]:
    application = wsgi_application()
    defaults = {}
    setup_testing_defaults(defaults)

    def ask(path):
        statuses = []
        chunks = application(
            {**defaults, "PATH_INFO": path}, lambda status, *_: statuses.append(status) or statuses.append
        )
        b"".join(chunks)
        if hasattr(chunks, "close"):
            chunks.close()
        hold_that_it_is_refused(int(statuses[0][:3]))

    yield ask


@contextlib.contextmanager
def over_http(port) -> Iterator[Ask]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(path):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        hold_that_it_is_refused(response.status)

    with contextlib.closing(connection):
        yield ask


@contextlib.contextmanager
def asgi_served() -> Iterator[Ask]:
    # asyncio sends without delay only on what says it is TCP; else each answer takes the 40 ms of Nagle's.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(asgi_application(), lifespan="off", log_config=None, access_log=False)
        server = uvicorn.Server(config)
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        serving.start()
        try:
            with over_http(listening.getsockname()[1]) as ask:
                yield ask
        finally:
            server.should_exit = True
            serving.join()


class Quiet(WSGIRequestHandler):
    """Keeps connections, and writes no line for each request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_request(self, code="-", size="-"):
        pass


@contextlib.contextmanager
def wsgi_served() -> Iterator[Ask]:
    server = make_server("127.0.0.1", 0, wsgi_application(), threaded=True, request_handler=Quiet)
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    try:
        with over_http(server.server_port) as ask:
            yield ask
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


# --- the figure ----------------------------------------------------------------------------------


class Figure(NamedTuple):
    """What the helper takes longer, in milliseconds."""

    mean: float
    low: float
    high: float
    raw: float
    """What the answer by hand takes."""

    @property
    def met(self) -> bool:
        return self.high <= REACH


def measured(ask: Ask, *, pairs: int, chance: random.Random) -> Figure:
    """Ask for both, in pairs, and return the figure."""
    for path in (HELPER, RAW) * 50:
        ask(path)
    differences, raws = [], []
    for _ in range(pairs):
        took = {}
        for path in chance.sample((HELPER, RAW), 2):
            began = perf_counter()
            ask(path)
            took[path] = (perf_counter() - began) * 1e3
        differences.append(took[HELPER] - took[RAW])
        raws.append(took[RAW])
    low, high = interval(differences, chance=chance)
    return Figure(statistics.fmean(differences), low, high, statistics.fmean(raws))


def interval(sample: list[float], *, chance: random.Random, resamples: int = 2000) -> tuple[float, float]:
    """Return the 95 % interval of the mean, by the bootstrap of its percentiles."""
    means = sorted(statistics.fmean(chance.choices(sample, k=len(sample))) for _ in range(resamples))
    return means[int(0.025 * resamples)], means[int(0.975 * resamples) - 1]


WAYS = {
    "ASGI (FastAPI), called": asgi_called,
    "WSGI (Flask), called": wsgi_called,
    "ASGI (FastAPI on uvicorn), over HTTP": asgi_served,
    "WSGI (Flask on werkzeug), over HTTP": wsgi_served,
}


def main(pairs: int = 2000) -> None:
    """Print the table of docs/backend-figures.md."""
    logging.disable()
    chance = random.Random(4)
    print("| way | a 400 by hand | the helper takes longer by | 95 % interval | reach |")
    print("|---|--:|--:|--:|--:|")
    for title, way in WAYS.items():
        with way() as ask:
            figure = measured(ask, pairs=pairs, chance=chance)
        mark = "✓" if figure.met else "✗"
        print(
            f"| {title} | {figure.raw:.3f} ms | {figure.mean:.3f} ms | "
            f"{figure.low:.3f} to {figure.high:.3f} ms | {REACH:g} ms {mark} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
