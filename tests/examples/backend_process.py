"""The example backend as a process of its own, for black-box tests over real HTTP.

In `conftest.py` the fixture `server` is such a process that many tests share, once under each shell.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from examples.backend.fakes import real as real_mode

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 20.0
"""Seconds for what should take a moment; a busy machine may take longer."""
SHELLS = ("asgi", "wsgi")
PASSWORD = "correct horse battery"
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")

everywhere = pytest.mark.parametrize("server", [*SHELLS, "asgi-real", "wsgi-real"], indirect=True)
"""For tests that run in the real mode too: two processes, on PostgreSQL, Redis, an S3 and a mail server."""

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that have no use for one: making one of their own takes each 17 ms."""

_numbers = itertools.count(1)


def start(var, *arguments, variables=None, **settings):
    """Start a backend that writes below `var`; settings are environment variables without their prefix."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BACKEND_")}
    environ |= variables or {}
    environ |= {f"BACKEND_{name.upper()}": str(value) for name, value in settings.items()}
    log = (var.parent / f"{var.name}.log").open("a+")
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.backend", *(arguments or ("--port", "0"))],
        cwd=ROOT,
        env={**environ, "BACKEND_VAR": str(var)},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    return process, log


class Running:
    """A backend that runs, and the fake provider beside it.

    Args:
        var: Where it writes.
        app: Under which shell.
        workers: How many processes serve.
        real: Whether on PostgreSQL, Redis, an S3 store and a mail server, which run as long as it does.
        settings: As `start` has them.
    """

    def __init__(self, var, app="asgi", workers=1, real=False, **settings):
        self.var = var
        self.app = app
        self.is_real = real
        self._mail = {}
        """What was sent, by the name of its file."""
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            self.variables = stack.enter_context(real_mode.servers(var)) if real else {}
            self._start(app, workers, {"limiter_store": "redis"} if real else {}, settings)
            self._stack = stack.pop_all()

    def _start(self, app, workers, usual, settings):
        self.process, self._log = start(
            self.var,
            *("--app", app, "--workers", str(workers), "--port", "0"),
            variables=self.variables,
            **{"trusted_proxies": "127.0.0.1/32"} | usual | settings,
        )
        self.greeting = ""
        for line in self.process.stdout:
            self.greeting += line
            if "Ctrl-C" in line:
                break
        addresses = re.findall(r"runs at (http://127\.0\.0\.1:\d+)", self.greeting)
        assert len(addresses) == 2, self.log()
        self.url, self.provider_url = addresses
        self.provider = httpx2.Client(base_url=self.provider_url, verify=NO_TLS)
        self.operator = httpx2.Client(base_url=self.url, verify=NO_TLS, timeout=PATIENCE)
        """Somebody on this machine, whom no proxy is between."""

    def __enter__(self):
        try:
            wait_until(self.is_ready)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info):
        with self._stack:
            self.provider.close()
            self.operator.close()
            try:
                if self.process.poll() is None:
                    self.stop()
            finally:
                self.process.kill()  # does nothing to one that has ended
                self.process.stdout.close()
                self._log.close()

    def is_ready(self):
        try:
            return self.operator.get("/health/ready").status_code == 200
        except httpx2.TransportError:
            assert self.process.poll() is None, self.log()
            return False

    def client(self, address=None, **options):
        """Return a client at a network address of its own, as a trusted proxy tells it."""
        address = address or fresh_address()
        headers = {"X-Forwarded-For": address} | options.pop("headers", {})
        return httpx2.Client(base_url=self.url, headers=headers, timeout=PATIENCE, verify=NO_TLS, **options)

    def monitoring(self, report):
        return self.operator.get(f"/api/monitoring/{report}").json()

    def fault(self, **fault):
        """Have the provider fail; see `examples.backend.fakes.faults.Fault`."""
        assert self.provider.post("/_control/faults", json=fault).status_code == 200

    def heal(self):
        assert self.provider.delete("/_control/faults").status_code == 200

    def mend(self):
        """Heal the provider, and have the breakers know."""
        self.heal()
        for breaker in self.monitoring("breakers")["breakers"]:
            answer = self.operator.post(f"/api/monitoring/breakers/{breaker['name']}/reset")
            assert answer.status_code == 200, answer.text
        wait_until(lambda: self.monitoring("health")["status"] == "pass")

    def asked_for(self, call_sid):
        """Return how often the provider was asked for a call and its recording, by kind."""
        return self.provider.get("/_control/subjects").json().get(call_sid, {})

    def mail_to(self, email):
        """Return the messages that were sent to `email`, the oldest first."""
        for file in (self.var / "outbox").glob("*.eml"):
            if file.name not in self._mail:
                self._mail[file.name] = file.read_text()
        messages = [message for _, message in sorted(self._mail.items())]
        return [message for message in messages if f"\nTo: {email}\n" in message]

    def code_for(self, email, number=1):
        """Return the last code that was sent to `email`, once there are so many; mail takes a moment."""
        codes = wait_until(lambda: self._codes_for(email)[number - 1 :])
        return codes[-1]

    def _codes_for(self, email):
        found = (re.search(r"^Your code is (\d{6})$", mail, re.MULTILINE) for mail in self.mail_to(email))
        return [code[1] for code in found if code]

    def stop(self):
        """Ask the backend to end; return its exit code and how long it took."""
        told_at = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE), time.monotonic() - told_at

    def log(self):
        self._log.seek(0)
        return self._log.read()


@contextlib.contextmanager
def logged_in(server, email=None, password=PASSWORD, **registration):
    """Open an account, prove its address and log in; yield a client that is logged in.

    It has the token and the account's email address as attributes. Whoever brings an `invitation` joins its
    tenant, and has no address to prove.
    """
    email = email or fresh_email()
    account = {"email": email, "password": password}
    with server.client() as client:
        opened = client.post("/api/auth/register", json={**account, **registration})
        assert opened.status_code == 202, opened.text
        if "invitation" not in registration:
            code = {"email": email, "code": server.code_for(email)}
            assert client.post("/api/auth/verify-email", json=code).status_code == 200
        log_in(client, email, password)
        yield client


def log_in(client, email, password=PASSWORD):
    """Log a client in; as a program, it sends its token itself."""
    answer = login(client, email, password)
    assert answer.status_code == 200, answer.text
    client.cookies.clear()
    client.email, client.token = email, answer.json()["token"]
    client.headers["Authorization"] = f"Bearer {client.token}"


@contextlib.contextmanager
def invited(server, administrator, role="member"):
    """Have an administrator invite somebody, who accepts and logs in; yield that client."""
    email = fresh_email()
    asked = administrator.post("/api/tenant/invitations", json={"email": email, "role": role})
    assert asked.status_code == 202, asked.text
    [mail] = wait_until(lambda: server.mail_to(email))
    invitation = re.search(r"^    (\S+)$", mail, re.MULTILINE)[1]
    with logged_in(server, email, invitation=invitation) as client:
        yield client


def fresh_email():
    """Return an address that nobody has used."""
    return f"user{next(_numbers)}.{os.getpid()}@example.com"


def fresh_address():
    """Return a network address that no other client of this process has (RFC 2544's, for tests)."""
    number = next(_numbers)
    return f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}"


def wait_until(condition):
    """Wait until `condition()` holds; return what it returned."""
    give_up_at = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < give_up_at, "it never came true"
        time.sleep(0.01)
    return found


def fresh_sid():
    """Return the id of a call that the fake provider knows and nobody has asked for."""
    return f"c0ffee{os.getpid():08x}{next(_numbers):018x}"


def assert_error(answer, status, code):
    """Every error has the library's body, and the id that is in the header too; return the body."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert body["error"]
    assert REQUEST_ID.fullmatch(body["requestId"])
    assert body["requestId"] == answer.headers["X-Request-Id"]
    assert TIMESTAMP.fullmatch(body["timestamp"])
    assert "details" not in body
    return body


def login(client, email, password="a wrong guess"):
    return client.post("/api/auth/login", json={"email": email, "password": password})
