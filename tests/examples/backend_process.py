"""The example backend as a process of its own, for black-box tests over real HTTP."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 20.0
"""Seconds for what should take a moment; a busy machine may take longer."""

_numbers = itertools.count(1)


def start(var, *arguments, **settings):
    """Start a backend that writes below `var`; settings are environment variables without their prefix."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BACKEND_")}
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
    """A backend that runs, and the fake provider beside it."""

    def __init__(self, var, **settings):
        self.var = var
        self.process, self._log = start(var, **{"trusted_proxies": "127.0.0.1/32"} | settings)
        self.greeting = ""
        for line in self.process.stdout:
            self.greeting += line
            if "Ctrl-C" in line:
                break
        addresses = re.findall(r"runs at (http://127\.0\.0\.1:\d+)", self.greeting)
        assert len(addresses) == 2, self.log()
        self.url, self.provider_url = addresses
        self.provider = httpx2.Client(base_url=self.provider_url)

    def __enter__(self):
        try:
            wait_until(self.is_ready)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info):
        self.provider.close()
        try:
            if self.process.poll() is None:
                self.stop()
        finally:
            self.process.kill()  # does nothing to one that has ended
            self.process.stdout.close()
            self._log.close()

    def is_ready(self):
        try:
            return httpx2.get(f"{self.url}/health/ready").status_code == 200
        except httpx2.TransportError:
            assert self.process.poll() is None, self.log()
            return False

    def client(self, address=None):
        """Return a client at a network address of its own, as a trusted proxy tells it."""
        number = next(_numbers)
        address = address or f"198.51.{number // 256}.{number % 256}"
        return httpx2.Client(base_url=self.url, headers={"X-Forwarded-For": address}, timeout=PATIENCE)

    def monitoring(self, report):
        return httpx2.get(f"{self.url}/api/monitoring/{report}").json()

    def fault(self, **fault):
        """Have the provider fail; see `examples.backend.fakes.telephony.Fault`."""
        assert self.provider.post("/_control/faults", json=fault).status_code == 200

    def heal(self):
        assert self.provider.delete("/_control/faults").status_code == 200

    def mail_to(self, email):
        """Return the messages that were sent to `email`, the oldest first."""
        messages = [file.read_text() for file in sorted((self.var / "outbox").glob("*.eml"))]
        return [message for message in messages if f"\nTo: {email}\n" in message]

    def code_for(self, email):
        """Return the last code that was sent to `email`."""
        return re.search(r"^Your code is (\d{6})$", self.mail_to(email)[-1], re.MULTILINE)[1]

    def stop(self):
        """Ask the backend to end; return its exit code and how long it took."""
        told_at = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE), time.monotonic() - told_at

    def log(self):
        self._log.seek(0)
        return self._log.read()


@contextlib.contextmanager
def logged_in(server, email=None):
    """Open an account, prove its address and log in; yield a client that is logged in."""
    email = email or f"user{next(_numbers)}@example.com"
    account = {"email": email, "password": "correct horse"}
    with server.client() as client:
        assert client.post("/api/auth/register", json=account).status_code == 202
        code = {"email": email, "code": server.code_for(email)}
        assert client.post("/api/auth/verify-email", json=code).status_code == 200
        client.token = client.post("/api/auth/login", json=account).json()["token"]
        client.headers["Authorization"] = f"Bearer {client.token}"
        yield client


def wait_until(condition):
    """Wait until `condition()` holds."""
    give_up_at = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up_at, "it never came true"
        time.sleep(0.01)
