"""Start the backend, and beside it what it needs that is not there.

    python -m examples.backend --port 8000
    python -m examples.backend --app wsgi --workers 2 --real

Without `--real` it keeps everything in files. With it, PostgreSQL, Redis, an S3 store and a mail server are
started first. The fake telephony provider runs beside it, unless `BACKEND_TELEPHONY_URL` names another one.

Ends with exit code 0 within five seconds of SIGTERM or Ctrl-C, plus `BACKEND_DRAIN_NOTICE`, and takes along
what it has started, as it does even when it is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import logging
import os
import secrets
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final

from examples.backend.domain.accounts import DEMO
from examples.backend.fakes import seeds
from examples.backend.fakes.process import started
from examples.backend.serving.lifetime import NotStartedError, let_go
from examples.backend.settings import Settings

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

BACKLOG: Final = 2048
"""Connections that may wait to be accepted."""
PASSWORD_BYTES: Final = 12
"""Of chance, in the password of the account that a newcomer finds ready."""
DEMO_TENANT: Final = "demo"
"""The part of the webhooks' address that nobody should guess, beside the fake provider."""
CURL: Final = "curl -sw '\\n'"
"""How one asks from a terminal: without a progress bar, and with a line's end after each answer."""


def main() -> None:
    """Read the settings and the command line, and serve."""
    parser = argparse.ArgumentParser(prog="python -m examples.backend", description="The example backend.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one (default: %(default)s)")
    parser.add_argument(
        "--app", choices=["asgi", "wsgi"], default="asgi",
        help="FastAPI on uvicorn, or Flask on gunicorn (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--real", action="store_true", help="start PostgreSQL, Redis, an S3 and a mail server"
    )
    parser.add_argument(
        "--demo",
        action="store_true",
        help="have the fake provider announce some calls, to be seen",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the server has its own handler
    prepare()
    try:
        with contextlib.ExitStack() as stack:
            run(options, stack)
        let_go()
    except KeyboardInterrupt:
        parser.exit(0)
    except (NotStartedError, ValueError, OSError, OverflowError) as error:
        # The last is for a port that no port can be; where several processes have said why, nothing is left.
        parser.exit(1, f"{error}\n" if str(error) else None)


def prepare() -> None:
    """Set up what concerns the whole process."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s  %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # what it says of each request, the policies count
    allow_many_connections()
    os.umask(0o077)  # what is written concerns nobody else on this machine


def run(options: Namespace, stack: contextlib.ExitStack) -> None:
    """Start what is needed, say what to try, and serve until told to end."""
    listener = stack.enter_context(listen(options.host, options.port))
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{host}:{listener.getsockname()[1]}"
    settings = Settings.from_environment()
    if options.real:
        settings = Settings.from_environment(real_environment(settings.var, stack))
    settings = dataclasses.replace(settings, public_url=settings.public_url or address)
    settings.check_processes(options.workers)
    greeting = accounts_to_try(address, settings.var)
    if not settings.telephony_url:
        provider = stack.enter_context(
            started(
                "telephony",
                "--account", settings.telephony_account,
                "--key", settings.telephony_key,
                "--token", settings.telephony_token,
            )
        )  # fmt: skip
        password = settings.demo_password or secrets.token_urlsafe(PASSWORD_BYTES)
        tenants = settings.webhook_tenants or (DEMO_TENANT,)
        settings = dataclasses.replace(
            settings, telephony_url=provider, demo_password=password, webhook_tenants=tenants
        )
        greeting += demo_to_try(address, settings.var, password)
        greeting += faults_to_try(address, settings.var, provider)
        if options.demo:
            seeds.announce(provider, address, tenants[0])
    print(f"{greeting}\nCtrl-C ends it.\n", flush=True)  # noqa: T201 - what a newcomer sees
    serve(options.app, settings, listener, options.workers)


def real_environment(var: Path, stack: contextlib.ExitStack) -> dict[str, str]:
    """Start the servers of the real mode; return its settings, and the addresses of these servers.

    What is set already is kept: it may lead to a server elsewhere.
    """
    from examples.backend.fakes import real  # noqa: PLC0415 - its packages are for those who use it

    try:
        environment = stack.enter_context(real.servers(var))
    except real.MissingError as error:
        raise NotStartedError(str(error)) from error
    return {**real.settings(), **environment, **os.environ}


def allow_many_connections() -> None:
    """Let this process have as many open files as the system allows it: each connection is one."""
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource  # noqa: PLC0415 - see above

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve(app: str, settings: Settings, listener: socket.socket, workers: int) -> None:
    """Serve on `listener` until told to end."""
    if app == "wsgi":
        from examples.backend.serving import gunicorn  # noqa: PLC0415 - only the one that serves

        gunicorn.serve(settings, listener, workers)
    else:
        from examples.backend.serving import uvicorn  # noqa: PLC0415 - likewise

        uvicorn.serve(settings, listener, workers)


def accounts_to_try(address: str, var: Path) -> str:
    """Return what a newcomer may want to copy into another terminal."""
    send = f"{CURL} -H 'Content-Type: application/json' {address}/api/auth"
    return f"""
The backend runs at {address}

What it does, breakers and limits and all: {address}/dashboard
What can be asked of it: {address}/docs

Open an account. Mail goes to {var}/outbox; take the code from there, and log in:

    {send}/register -d '{{"email": "ada@example.com", "password": "correct horse"}}'
    code=$(sed -n 's/^Your code is //p' {var}/outbox/*.eml | tail -1)
    {send}/verify-email -d '{{"email": "ada@example.com", "code": "'$code'"}}'
    {send}/login -c {var}/cookies -d '{{"email": "ada@example.com", "password": "correct horse"}}'

Guess a password seven times, and be refused:

    for i in 1 2 3 4 5 6 7; do {send}/login -i -d '{{"email": "eve@example.com", "password": "guess"}}'; done
"""


def demo_to_try(address: str, var: Path, password: str) -> str:
    """Return how one logs in without opening an account; the password holds until the next start."""
    body = f'{{"email": "{DEMO}", "password": "{password}"}}'
    return f"""
Or log in at once as {DEMO}, with the password {password}

    {CURL} -H 'Content-Type: application/json' {address}/api/auth/login -c {var}/cookies -d '{body}'
"""


def faults_to_try(address: str, var: Path, provider: str) -> str:
    """Return what one may want to do to the fake provider, logged in by one of the ways above."""
    recordings = f"-b {var}/cookies {address}/api/recordings"
    sid = "c0ffee0000000000000000000000000"
    return f"""
The fake telephony provider runs at {provider}

Have it fail twice, fetch the recording of a call all the same, and see the retries:

    {CURL} {provider}/_control/faults -d '{{"next": 2, "status": 503}}'
    {CURL} {recordings}/{sid}1
    {CURL} {address}/api/monitoring/retry-stats

Have it fail for good, fetch another one a few times, and see the breaker open; then mend it:

    {CURL} {provider}/_control/faults -d '{{"status": 503}}'
    for i in 1 2 3 4 5 6; do {CURL} -i {recordings}/{sid}2; done
    {CURL} {address}/api/monitoring/breakers
    {CURL} -X DELETE {provider}/_control/faults
"""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there.

    Raises:
        OSError: Somebody else does; says what to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OSError(
            f"Port {port} is taken by another process. Try another, or let the system find a free one:\n"
            f"    make run PORT={port + 1}\n"
            "    make run PORT=0"
        ) from error
    # Connections inherit it. asyncio sets it only on sockets that name their protocol, and without it an
    # answer's body waits 40 ms for the client to acknowledge its headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


if __name__ == "__main__":
    main()
