"""The servers, spoken to in bytes: what is malformed, slow, or never ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.examples.backend_process import PATIENCE, SHELLS, Running, start, wait_until

ME = b"GET /api/auth/me HTTP/1.1\r\nHost: a\r\n"
LOGIN = b"POST /api/auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module", params=SHELLS)
def server(request, tmp_path_factory):
    var = tmp_path_factory.mktemp(request.param) / "var"
    with Running(var, request.param, body_timeout=1.0, request_threads=4) as server:
        yield server


def connect(server):
    host, port = server.url.removeprefix("http://").split(":")
    return closing(socket.create_connection((host, int(port)), timeout=PATIENCE))


def answer(connection):
    """Return status, headers and body of the next answer; nothing behind it is read."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        assert piece, head
        head += piece
    status, *lines = head[:-4].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = b""
    while len(body) < int(headers.get("content-length", 0)):
        piece = connection.recv(int(headers["content-length"]) - len(body))
        assert piece, body
        body += piece
    return int(status.split()[1]), headers, body


def ask(server, request):
    with connect(server) as connection:
        connection.sendall(request)
        return answer(connection)


MALFORMED = {
    "no HTTP": (b"nonsense\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "a space in the path": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "a header without a colon": (ME + b"nonsense\r\n\r\n", 400),
    "a NUL in a header": (ME + b"X: a\x00b\r\n\r\n", 400),
    "a space before the colon": (ME + b"X : a\r\n\r\n", 400),
    "two lengths": (LOGIN + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", 400),
    "a negative length": (LOGIN + b"Content-Length: -1\r\n\r\n", 400),
    "a chunk that is none": (LOGIN + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n", 400),
    "a chunk that is none, in another case": (LOGIN + b"transfer-encoding: Chunked\r\n\r\n-1\r\n\r\n", 400),
    "a long first line": (b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
    "a long header": (ME + b"X: " + b"a" * 30_000 + b"\r\n\r\n", 431),
    "many headers": (ME + b"X: a\r\n" * 5000 + b"\r\n", 431),
    "a header without end": (ME + b"X: " + b"a" * 30_000, 431),
}


@pytest.mark.parametrize(("request_bytes", "status"), MALFORMED.values(), ids=MALFORMED)
def test_what_cannot_be_read_is_said_in_the_same_form(server, request_bytes, status):
    given, headers, body = ask(server, request_bytes)
    content = json.loads(body)
    assert given == status
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"] == content["requestId"]
    assert headers["x-content-type-options"] == "nosniff"
    assert content.keys() == {"error", "code", "requestId", "timestamp"}
    assert "server" not in headers
    assert "Traceback" not in server.log()


@pytest.mark.parametrize(
    "length", [b"Content-Length: 1000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nfffff\r\n"]
)
def test_fault_85_a_body_that_is_too_long_is_refused_before_it_is_there(server, length):
    status, _, body = ask(server, LOGIN + length + b" " * 66_000)
    assert (status, json.loads(body)["code"]) == (413, "CONTENT_TOO_LARGE")


def test_a_body_in_chunks_is_taken(server):
    with connect(server) as connection:
        for piece in (
            LOGIN + b"Transfer-Encoding: chunked\r\n",
            b"\r\n1\r\n{\r\n1",
            b"\r\n}\r\n0\r\n\r\n",
            ME + b"\r\n",
        ):
            connection.sendall(piece)
            time.sleep(0.02)
        status, _, body = answer(connection)
        assert (status, json.loads(body)["code"]) == (400, "VALIDATION_ERROR")
        assert answer(connection)[0] == 401


def test_who_waits_to_be_told_to_go_on_is_told(server):
    with connect(server) as connection:
        connection.sendall(LOGIN + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert answer(connection)[0] == 400


def test_a_connection_serves_one_request_after_another_also_at_once(server):
    with connect(server) as connection:
        connection.sendall((ME + b"\r\n") * 3 + ME[:20])
        assert [answer(connection)[0] for _ in range(3)] == [401] * 3
        connection.sendall(ME[20:] + b"Connection: close\r\n\r\n")
        assert answer(connection)[0] == 401
        assert connection.recv(1) == b""


def test_fault_84_whoever_sends_slowly_holds_nobody_up_and_is_cut_off(server):
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(20)]
        heads = [stack.enter_context(connect(server)) for _ in range(20)]
        bodies = [stack.enter_context(connect(server)) for _ in range(20)]
        chunks = [stack.enter_context(connect(server)) for _ in range(20)]
        behind = [stack.enter_context(connect(server)) for _ in range(20)]
        for connection in heads:
            connection.sendall(ME)
        for connection in bodies:
            connection.sendall(LOGIN + b"Content-Length: 10\r\n\r\n{")
        for connection in chunks:
            connection.sendall(LOGIN + b"Transfer-Encoding: chunked\r\n\r\n5\r\na\r\n\r\n")
        for connection in behind:  # a request, and the beginning of another
            connection.sendall(ME + b"\r\n" + ME)
            assert answer(connection)[0] == 401
        for _ in range(10):
            assert ask(server, ME + b"Connection: close\r\n\r\n")[0] == 401
        for connection in (*bodies, *chunks):
            assert answer(connection)[0] == 408
        assert ask(server, ME + b"\r\n")[0] == 401
        assert len(silent) == 20


def test_who_does_not_close_holds_nobody_up(server):
    began = time.monotonic()
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connect(server))
            connection.sendall(ME + b"Connection: close\r\n\r\n")
            assert answer(connection)[0] == 401  # and is not closed from our side
        assert ask(server, ME + b"\r\n")[0] == 401
    assert time.monotonic() - began < PATIENCE  # two seconds for each, if the server waits for them


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not tell children")
def test_a_process_that_is_killed_is_replaced_and_all_end_together(tmp_path, app):
    with Running(tmp_path / "var", app, 2, limiter_store="sqlite") as server:
        # Both have started: who is killed before that ends all.
        wait_until(lambda: len(server.monitoring("processes")["processes"]) == 2)
        first, second = workers(server)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: first not in workers(server) and len(workers(server)) == 2)
        assert second in workers(server)
        assert server.is_ready()
        exit_code, seconds = server.stop()
        assert exit_code == 0, server.log()
        assert seconds < 5
        assert "Traceback" not in server.log()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not tell children")
def test_processes_end_when_the_one_that_started_them_is_gone(tmp_path, app):
    with Running(tmp_path / "var", app, 2, limiter_store="sqlite") as server:
        wait_until(lambda: len(workers(server)) == 2)
        left = workers(server)
        server.process.kill()
        server.process.wait()
        wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in left))


def test_ctrl_c_ends_as_sigterm_does(tmp_path, app):
    with Running(tmp_path / "var", app) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE) == 0, server.log()
        assert "Traceback" not in server.log()


def test_several_processes_that_cannot_start_say_so_and_end(tmp_path, app):
    process, log = start(
        tmp_path / "var", "--app", app, "--workers", "3", "--port", "0",
        limiter_store="sqlite", database_url="postgresql://nobody:nothing@127.0.0.1:9/none",
    )  # fmt: skip
    with log, process.stdout:
        assert process.wait(PATIENCE) == 1
        log.seek(0)
        said = log.read()
    assert "see BACKEND_DATABASE_URL" in said
    assert "Traceback" not in said


def test_several_processes_that_would_count_by_themselves_are_refused(tmp_path):
    process, log = start(tmp_path / "var", "--workers", "2", "--port", "0")
    with log, process.stdout:
        assert process.wait(PATIENCE) == 1
        log.seek(0)
        assert "BACKEND_LIMITER_STORE=sqlite" in log.read()


def children(process):
    return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def workers(server):
    """Return the processes that serve: they are forks, and so have their parent's command line."""
    own = Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    lines = {child: Path(f"/proc/{child}/cmdline") for child in children(server.process.pid)}
    return [child for child, line in lines.items() if line.exists() and line.read_bytes() == own]
