"""Start the backend, and the fake telephony provider beside it.

    python -m examples.backend --port 8000

Ends with exit code 0 within five seconds of SIGTERM or Ctrl-C, and takes the fake provider along, as it
does even when it is killed.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import logging
import os
import socket
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import SQLAlchemyError

from examples.backend.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BACKLOG: Final = 2048
"""Connections that may wait to be accepted."""
CURL: Final = "curl -sw '\\n'"
"""How one asks from a terminal: without a progress bar, and with a line's end after each answer."""


def main() -> None:
    """Read the settings and the command line, and serve."""
    parser = argparse.ArgumentParser(prog="python -m examples.backend", description="The example backend.")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free one (default: %(default)s)")
    parser.add_argument("--app", choices=["asgi", "wsgi"], default="asgi", help="(default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s  %(message)s")
    allow_many_connections()
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # what it says of each request, the policies count
    os.umask(0o077)  # what is written concerns nobody else on this machine
    try:
        settings = Settings.from_environment()
        listener = listen(options.host, options.port)
    except (ValueError, OSError, OverflowError) as error:  # the last for a port that no port can be
        parser.exit(1, f"{error}\n")
    address = f"http://{options.host}:{listener.getsockname()[1]}"
    settings = dataclasses.replace(settings, public_url=settings.public_url or address)
    greeting = accounts_to_try(address, settings.var)
    with listener, contextlib.ExitStack() as stack:
        if not settings.telephony_url:
            provider = stack.enter_context(fake_telephony(settings))
            settings = dataclasses.replace(settings, telephony_url=provider)
            greeting += faults_to_try(address, settings.var, provider)
        print(f"{greeting}\nCtrl-C ends it.\n", flush=True)  # noqa: T201 - what a newcomer sees
        try:
            serve(options.app, settings, listener, options.workers)
        except (OSError, SQLAlchemyError, sqlite3.Error) as error:
            parser.exit(1, f"cannot keep anything in {settings.var}: {error}; see BACKEND_VAR\n")
        except ValueError as error:  # two settings that do not go together
            parser.exit(1, f"{error}\n")


def allow_many_connections() -> None:
    """Let this process have as many open files as the system allows it: each connection is one."""
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource  # noqa: PLC0415 - see above

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve(app: str, settings: Settings, listener: socket.socket, workers: int) -> None:
    """Serve on `listener` until told to end."""
    if app == "wsgi":
        from examples.backend.serving import gunicorn as server  # noqa: PLC0415 - only the one that serves
    else:
        from examples.backend.serving import uvicorn as server  # noqa: PLC0415 - likewise
    server.serve(settings, listener, workers)


def accounts_to_try(address: str, var: Path) -> str:
    """Return what a newcomer may want to copy into another terminal."""
    send = f"{CURL} -H 'Content-Type: application/json' {address}/api/auth"
    return f"""
The backend runs at {address}

Open an account. Mail goes to {var}/outbox; take the code from there, and log in:

    {send}/register -d '{{"email": "ada@example.com", "password": "correct horse"}}'
    code=$(sed -n 's/^Your code is //p' {var}/outbox/*.eml | tail -1)
    {send}/verify-email -d '{{"email": "ada@example.com", "code": "'$code'"}}'
    {send}/login -c {var}/cookies -d '{{"email": "ada@example.com", "password": "correct horse"}}'

Guess a password seven times, and be refused:

    for i in 1 2 3 4 5 6 7; do {send}/login -i -d '{{"email": "eve@example.com", "password": "guess"}}'; done
"""


def faults_to_try(address: str, var: Path, provider: str) -> str:
    """Return what one may want to do to the fake provider, logged in as `accounts_to_try` says."""
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


@contextlib.contextmanager
def fake_telephony(settings: Settings) -> Iterator[str]:
    """Run the fake provider as a process of its own for the length of the block; yield its address.

    It ends when its standard input closes, which the system does for us however we end.
    """
    command = [
        sys.executable, "-m", "examples.backend.fakes.telephony", "--with-parent",
        "--account", settings.telephony_account,
        "--key", settings.telephony_key,
        "--token", settings.telephony_token,
    ]  # fmt: skip
    with subprocess.Popen(  # noqa: S603 - our own module
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us; we still need it while requests end
    ) as process:
        assert process.stdout is not None  # noqa: S101 - for the type checker: it is piped
        address = process.stdout.readline().strip()
        try:
            if not address:
                raise RuntimeError("the fake telephony provider did not start; see its message above")
            yield address
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
