"""The example backend from outside: from its start to its end, told or not."""

from __future__ import annotations

import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from examples.backend.__main__ import listen
from tests.examples.backend_process import (
    PATIENCE,
    Running,
    assert_error,
    fresh_sid,
    logged_in,
    start,
    wait_until,
)


def test_fault_98_sigterm_finishes_what_runs_and_ends_all(tmp_path, app):
    with (
        Running(tmp_path / "var", app, telephony_timeout=5.0) as server,
        logged_in(server) as user,
        ThreadPoolExecutor() as threads,
    ):
        sid = fresh_sid()
        server.fault(delay=0.7, next=1)
        running = threads.submit(user.get, f"/api/recordings/{sid}")
        wait_until(lambda: server.asked_for(sid))
        exit_code, seconds = server.stop()
        assert exit_code == 0, server.log()
        assert seconds < 5
        assert running.result().json()["status"] == "stored"
        with pytest.raises(httpx2.TransportError):
            server.provider.get("/_control/requests")
        assert "Traceback" not in server.log()


def test_sigterm_does_not_wait_for_ever_for_what_runs(tmp_path, app):
    with (
        Running(tmp_path / "var", app, telephony_timeout=30.0, recording_deadline=30.0) as server,
        logged_in(server) as user,
        ThreadPoolExecutor() as threads,
    ):
        sid = fresh_sid()
        server.fault(delay=20.0, next=1)
        running = threads.submit(user.get, f"/api/recordings/{sid}")
        wait_until(lambda: server.asked_for(sid))
        exit_code, seconds = server.stop()
        assert exit_code == 0, server.log()
        assert seconds < 5
        assert_error(running.result(), 503, "SERVICE_UNAVAILABLE")
        assert running.result().headers["Retry-After"] == "1"
        assert "Traceback" not in server.log()


def test_a_killed_backend_takes_the_provider_along(tmp_path, app):
    with Running(tmp_path / "var", app) as server:
        server.process.kill()
        server.process.wait()

        def is_gone():
            try:
                httpx2.get(f"{server.provider_url}/_control/requests")
            except httpx2.TransportError:
                return True
            return False

        wait_until(is_gone)


def test_behind_https_with_a_token_in_development(tmp_path, app):
    settings = {
        "public_url": "https://backend.example.com",
        "monitoring_token": "a token for operators",
        "environment": "development",
        "drain_notice": 1.0,
    }
    with Running(tmp_path / "var", app, **settings) as server:
        with logged_in(server) as user:
            cookie = user.post("/api/auth/logout").headers["Set-Cookie"]
            assert cookie.startswith("__Host-session=")
            assert "Secure" in cookie
            assert "Path=/" in cookie
            assert "Domain" not in cookie
        details = httpx2.get(f"{server.url}/api/auth/me").json()["details"]
        assert details["exception"].startswith("resilience.errors.service.ServiceError: ")
        assert "traceback" not in details

        refused = httpx2.get(f"{server.url}/api/monitoring/health")
        assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHORIZED")
        token = {"Authorization": "Bearer a token for operators", "X-Forwarded-For": "203.0.113.1"}
        assert httpx2.get(f"{server.url}/api/monitoring/health", headers=token).status_code == 200

        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx2.get(f"{server.url}/health/ready").status_code == 503)
        assert server.process.wait(PATIENCE) == 0


def test_a_port_that_is_taken_is_said_and_what_to_do(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        exit_code, said = end_of_a_start(tmp_path, "--port", str(port))
    assert exit_code == 1
    assert f"Port {port} is taken" in said
    assert f"make run PORT={port + 1}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("port", ["99999", "0"])
def test_what_keeps_it_from_starting_is_said_without_a_traceback(tmp_path, app, port):
    (tmp_path / "var").write_text("a file where the folder should be")
    exit_code, said = end_of_a_start(tmp_path, "--app", app, "--port", port)
    assert exit_code == 1
    assert "Traceback" not in said
    assert ("port must be 0-65535" if port == "99999" else "see BACKEND_VAR") in said


def end_of_a_start(folder, *arguments):
    """Start a backend that is not going to run; return its exit code and what it said."""
    process, log = start(folder / "var", *arguments)
    with process, log:
        try:
            exit_code = process.wait(PATIENCE)
        finally:
            process.terminate()  # does nothing to one that has ended
        log.seek(0)
        return exit_code, log.read()


def test_answers_do_not_wait_to_be_acknowledged():
    with listen("127.0.0.1", 0) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_only_its_user_can_read_what_it_writes(server):
    files = [file for file in server.var.rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"data.db", "sessions.db", "secret.key"}
    assert not [file for file in files if file.stat().st_mode & 0o077]
