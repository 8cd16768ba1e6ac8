"""Live updates from outside, under both shells: WebSockets and server-sent events."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time

import pytest
from sqlalchemy import select
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from examples.backend.domain.live import BACKLOG
from examples.backend.kit import drive
from examples.backend.ports.database import EVERY, Database
from examples.backend.ports.live import announce
from examples.backend.ports.tables import users
from examples.backend.ports.workers import InThisThread
from tests.examples.backend_process import PATIENCE, Running, assert_error, everywhere, logged_in, wait_until


@contextlib.contextmanager
def database_of(server):
    url = server.variables.get("BACKEND_DATABASE_URL") or f"sqlite:///{server.var / 'data.db'}"
    database = Database(url, InThisThread("The test", threads=4, queue=4), connections=2)
    try:
        yield database
    finally:
        database.close()


def tell(server, user, *names):
    """Have something happen in a user's tenant, as whatever changes a recording does."""

    def work(connection):
        tenant_id = connection.execute(
            select(users.c.tenant_id).where(users.c.email == user.email)
        ).scalar_one()
        for name in names:
            announce(connection, tenant_id=tenant_id, at=1.0, kind="recording", body={"callSid": name})

    with database_of(server) as database:
        drive(database.write(work, tenant=EVERY))


def ticket_of(user):
    answer = user.post("/api/auth/tickets", json={"purpose": "live"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["expiresIn"] == 60
    return answer.json()["ticket"]


def listen(server, user, *, ticket=None, after=None, **options):
    """Open a WebSocket; it has said hello."""
    address = f"{server.url.replace('http', 'ws')}/api/live?ticket={ticket or ticket_of(user)}"
    return connect(address if after is None else f"{address}&after={after}", **options)


def hear(listening):
    return json.loads(listening.recv(PATIENCE))


def heard(listening, count):
    return [hear(listening)["body"]["callSid"] for _ in range(count)]


def code_of(listening):
    """Return the code with which the server closes."""
    try:
        while True:
            listening.recv(PATIENCE)
    except ConnectionClosed as closed:
        return closed.rcvd.code


def refused(server, user, **options):
    """Return the answer to an opening request that is refused, as httpx2 has answers."""
    with pytest.raises(InvalidStatus) as refusal:
        listen(server, user, **options)
    answer = refusal.value.response
    assert answer.headers["X-Content-Type-Options"] == "nosniff"  # as every answer has it
    answer.json = lambda: json.loads(answer.body)
    return answer


@contextlib.contextmanager
def stream(user, **headers):
    """Open a stream of server-sent events; yield a function that returns the next event's fields."""
    with user.stream("GET", "/api/live/events", headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-store"
        lines = answer.iter_lines()

        def following():
            fields = {}
            for line in lines:
                if not line:
                    return fields
                name, _, value = line.partition(": ")
                fields[name] = value
            return None

        yield following


# --- what is told ----------------------------------------------------------------------------------


@everywhere
def test_a_tenant_is_told_what_happens_to_its_recordings(server, user):
    with listen(server, user) as listening, stream(user) as following:
        hello = hear(listening)
        assert hello == {"kind": "hello", "after": hello["after"]}
        assert 1000 <= int(following()["retry"]) <= 3000
        tell(server, user, "call1", "call2")
        event = hear(listening)
        assert event.keys() == {"id", "at", "kind", "body", "after"}
        assert (event["at"], event["kind"], event["body"]) == (
            "1970-01-01T00:00:01Z",
            "recording",
            {"callSid": "call1"},
        )
        assert heard(listening, 1) == ["call2"]
        assert [json.loads(following()["data"])["body"]["callSid"] for _ in range(2)] == ["call1", "call2"]


@everywhere
def test_asvs_8_4_1_nobody_is_told_of_another_tenant(server, user):
    with logged_in(server) as stranger, listen(server, user) as listening, stream(stranger) as following:
        hear(listening)
        begins_at = following()["id"]
        tell(server, stranger, "theirs")
        tell(server, user, "ours")
        assert heard(listening, 1) == ["ours"]
        assert json.loads(following()["data"])["body"]["callSid"] == "theirs"

        # Nor by asking for what was before, with whichever number.
        with listen(server, user, after=0) as again:
            hear(again)
            tell(server, user, "last")
            told = heard(again, 1)
            while told[-1] != "last":
                told += heard(again, 1)
        assert "theirs" not in told
        with stream(stranger, **{"Last-Event-ID": begins_at}) as missed:
            missed()
            assert json.loads(missed()["data"])["body"]["callSid"] == "theirs"


@everywhere
def test_who_comes_back_is_told_what_happened_meanwhile(server, user):
    with listen(server, user) as listening:
        hear(listening)
        tell(server, user, "before")
        after = hear(listening)["after"]
    tell(server, user, "meanwhile1", "meanwhile2")
    with (
        listen(server, user, after=after) as listening,
        stream(user, **{"Last-Event-ID": str(after)}) as following,
    ):
        assert hear(listening) == {"kind": "hello", "after": after}
        tell(server, user, "now")
        told = heard(listening, 3)
        assert told == ["meanwhile1", "meanwhile2", "now"]
        following()
        told = [json.loads(following()["data"])["body"]["callSid"] for _ in range(3)]
        assert told == ["meanwhile1", "meanwhile2", "now"]


def test_who_was_away_for_too_long_is_told_to_look(server, user):
    with listen(server, user) as listening:
        after = hear(listening)["after"]
    tell(server, user, *(f"call{number}" for number in range(BACKLOG + 1)))
    with listen(server, user, after=after) as listening:
        hear(listening)
        assert hear(listening)["kind"] == "reset"


def test_a_burst_is_told_as_a_whole(server, user):
    with listen(server, user) as listening:
        hear(listening)
        names = [f"call{number}" for number in range(800)]
        tell(server, user, *names)
        assert heard(listening, 800) == names


@pytest.mark.parametrize("last", ["", "x", "-1", "9" * 30, "1.5", "٣"])
def test_what_is_no_event_id_is_as_good_as_none(user, last):
    with stream(user, **{"Last-Event-ID": last.encode()}) as following:
        assert "retry" in following()


# --- who may listen --------------------------------------------------------------------------------


@everywhere
def test_asvs_4_4_3_a_socket_is_opened_by_a_ticket_once(server, user):
    ticket = ticket_of(user)
    with listen(server, user, ticket=ticket) as listening:
        hear(listening)
    for _ in range(3):  # by whichever process
        assert_error(refused(server, user, ticket=ticket), 401, "INVALID_TOKEN")


@pytest.mark.parametrize("ticket", ["x", "a.b.c", "%00", "x" * 3000])
def test_asvs_4_4_3_nothing_else_opens_a_socket(server, user, ticket):
    assert_error(refused(server, user, ticket=ticket), 401, "INVALID_TOKEN")
    bearer = {"Authorization": f"Bearer {user.token}"}
    assert_error(refused(server, user, ticket=ticket, additional_headers=bearer), 401, "INVALID_TOKEN")


def test_asvs_4_4_4_a_ticket_ends_with_its_session(server, user):
    ticket = ticket_of(user)
    assert user.post("/api/auth/logout").status_code == 200
    assert_error(refused(server, user, ticket=ticket), 401, "INVALID_TOKEN")
    assert_error(user.post("/api/auth/tickets", json={"purpose": "live"}), 401, "UNAUTHORIZED")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1"])
def test_asvs_4_4_2_a_page_of_another_site_opens_no_socket(server, user, origin):
    ticket = ticket_of(user)
    assert_error(refused(server, user, ticket=ticket, origin=origin), 403, "FORBIDDEN")
    with listen(server, user, ticket=ticket, origin=server.url) as listening:  # its ticket is still good
        hear(listening)


@pytest.mark.parametrize("after", ["-1", "x", "1.5", str(2**63)])
def test_a_place_that_makes_no_sense_is_refused(server, user, after):
    assert_error(refused(server, user, after=after), 400, "VALIDATION_ERROR")


def test_only_tickets_for_live_updates_are_to_be_had(user):
    assert_error(user.post("/api/auth/tickets", json={"purpose": "download"}), 400, "VALIDATION_ERROR")


def test_a_stream_is_for_those_who_are_logged_in(client):
    assert_error(client.get("/api/live/events"), 401, "UNAUTHORIZED")


def test_who_only_asks_about_the_stream_takes_no_place(user):
    for _ in range(10):
        answer = user.head("/api/live/events")
        assert answer.status_code in {200, 405}
    with stream(user) as following:
        assert "retry" in following()


def test_a_socket_is_no_page(client):
    assert_error(client.get("/api/live"), 400, "BAD_REQUEST")


def test_one_user_has_a_few_connections_and_gets_them_back(server, user):
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            hear(stack.enter_context(listen(server, user)))
        stack.enter_context(stream(user))()
        answer = refused(server, user)
        assert_error(answer, 429, "RATE_LIMIT_EXCEEDED")
        assert answer.headers["Retry-After"] == "5"
        assert_error(user.get("/api/live/events"), 429, "RATE_LIMIT_EXCEEDED")
        with logged_in(server) as other, listen(server, other) as listening:
            hear(listening)

    def is_free():
        try:
            with listen(server, user) as listening:
                hear(listening)
        except InvalidStatus:
            time.sleep(0.1)  # each attempt costs a ticket
            return False
        return True

    wait_until(is_free)


# --- how it ends -----------------------------------------------------------------------------------


@everywhere
def test_asvs_7_4_1_the_end_of_a_session_closes_its_connections(server, user):
    with (
        listen(server, user) as listening,
        stream(user) as following,
        logged_in(server) as other,
        listen(server, other) as stays,
    ):
        hear(listening)
        following()
        hear(stays)
        assert user.post("/api/auth/logout").status_code == 200
        assert code_of(listening) == 1008
        while following() is not None:
            pass
        tell(server, other, "still here")
        assert heard(stays, 1) == ["still here"]


@pytest.mark.parametrize(("message", "code"), [("hello?", 1003), (b"", 1003), ("x" * 2000, 1009)])
def test_a_socket_only_tells(server, user, message, code):
    with listen(server, user) as listening:
        hear(listening)
        listening.send(message)
        assert code_of(listening) == code


def test_a_client_may_ping(server, user):
    with listen(server, user) as listening:
        hear(listening)
        assert listening.ping().wait(PATIENCE)


def test_who_does_not_read_is_parted_with_and_holds_nobody_up(server, user):
    with (
        listen(server, user, sock=narrow(server), max_queue=1, close_timeout=0.1) as deaf,
        listen(server, user) as listening,
    ):
        hear(deaf)
        hear(listening)
        for size, some in ((7000, 700), (0, 700), (0, 700)):  # the first are more than the network holds
            names = [f"call{number}{'x' * size}" for number in range(some)]
            tell(server, user, *names)
            assert heard(listening, some) == names
        assert user.get("/api/auth/me").status_code == 200
        told = 0
        with contextlib.suppress(ConnectionClosed):  # with 1013, if there was room for it
            while True:
                deaf.recv(PATIENCE)
                told += 1
        assert told < 2100


def narrow(server):
    """Return a connection that holds little of what is sent to it."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, _, port = server.url.removeprefix("http://").partition(":")
    connection.connect((host, int(port)))
    return connection


def test_the_end_of_the_process_tells_them_to_come_back(tmp_path, app):
    with Running(tmp_path / "var", app) as server, logged_in(server) as user:
        with listen(server, user) as listening, stream(user) as following:
            hear(listening)
            following()
            codes = []
            waiting = threading.Thread(target=lambda: codes.append(code_of(listening)))
            waiting.start()
            exit_code, seconds = server.stop()
            waiting.join(PATIENCE)
            assert codes == [1012]
            assert following() is None
            assert "without completing" not in server.log()
        assert exit_code == 0, server.log()
        assert seconds < 5
        assert "Traceback" not in server.log()
        assert "ticket=ey" not in server.log()


def test_a_process_serves_so_many_and_the_others_are_sent_away(tmp_path, app):
    with (
        Running(tmp_path / "var", app, live_connections=2) as server,
        logged_in(server) as user,
        logged_in(server) as other,
        listen(server, user) as first,
        stream(other) as second,
    ):
        hear(first)
        second()
        answer = refused(server, other)
        assert_error(answer, 503, "SERVICE_UNAVAILABLE")
        assert answer.headers["Retry-After"] == "5"
        assert_error(user.get("/api/live/events"), 503, "SERVICE_UNAVAILABLE")
        assert user.get("/api/auth/me").status_code == 200
