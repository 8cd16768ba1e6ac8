"""OWASP ASVS 5.0, chapters 1, 4, 5, 8, 13, 15 and 16, as far as they are tried here; see docs/asvs.md."""

from __future__ import annotations

import contextlib
import re
import socket
import sqlite3
import threading

import pytest

from examples.backend.api import ROUTES
from examples.backend.api.http import Access
from tests.examples.backend_process import (
    PASSWORD,
    SHELLS,
    Running,
    assert_error,
    everywhere,
    fresh_address,
    fresh_email,
    fresh_sid,
    invited,
    log_in,
    logged_in,
    login,
)


@contextlib.contextmanager
def trap():
    """Listen where nothing should come; yield the address, and a list of those who came."""
    came = []

    def listen():
        with contextlib.suppress(OSError):  # it is closed in the end
            while True:
                connection, peer = listener.accept()
                came.append(peer)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=listen)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", came
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


# --- where our requests go -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://{trap}/recordings/{sid}.wav",
        "http://{provider}@{trap}/recordings/{sid}.wav",
        "http://{trap}#@{provider}/{sid}.wav",
        "http://{trap}\\@{provider}/{sid}.wav",
        "//{trap}/{sid}.wav",
        "file:///etc/passwd",
        "gopher://{trap}/_",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:127.0.0.1]/{sid}.wav",
        "http://localhost.{provider}/{sid}.wav",
    ],
)
def test_asvs_1_3_6_a_recording_is_taken_from_no_other_host(server, user, url):
    sid = fresh_sid()
    with trap() as (address, came):
        provider = server.provider_url.removeprefix("http://")
        elsewhere = url.format(trap=address, provider=provider, sid=sid)
        details = {"RecordingUrl": elsewhere, "PreSignedRecordingUrl": elsewhere}
        server.provider.put(f"/_control/calls/{sid}", json=details)
        assert_error(user.get(f"/api/recordings/{sid}"), 502, "EXTERNAL_SERVICE_ERROR")
        assert came == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_asvs_15_3_2_redirects_are_not_followed(server, user, status):
    sid = fresh_sid()
    with trap() as (address, came):
        server.fault(on="recordings", status=status, location=f"http://{address}/{sid}.wav", next=3)
        assert user.get(f"/api/recordings/{sid}").status_code in {502, 503}
        assert came == []


# --- files -----------------------------------------------------------------------------------------


def test_asvs_5_2_1_a_body_is_not_longer_than_is_allowed(client):
    assert_error(client.post("/api/auth/login", content=b" " * 70_000), 413, "CONTENT_TOO_LARGE")


@pytest.mark.parametrize("server", ["asgi-brief", "wsgi-brief"], indirect=True)
def test_asvs_5_2_1_nor_is_a_recording(server, user):
    assert_error(user.get(f"/api/recordings/{fresh_sid()}"), 502, "EXTERNAL_SERVICE_ERROR")
    assert stored(server) == []


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "application/octet-stream"])
def test_asvs_5_2_2_a_recording_is_sound(server, user, content_type):
    sid = fresh_sid()
    server.fault(on="recordings", content_type=content_type, next=3)
    assert_error(user.get(f"/api/recordings/{sid}"), 502, "EXTERNAL_SERVICE_ERROR")
    assert not [name for name in stored(server) if sid in name]


def test_asvs_5_3_2_it_is_stored_under_a_name_of_ours(server, user):
    sid = fresh_sid()
    sha256 = user.get(f"/api/recordings/{sid}").json()["sha256"]
    [name] = [name for name in stored(server) if sid in name]
    assert re.fullmatch(rf"recordings/[0-9a-f]+/{sid}/{sha256}", name)
    for name in ("..%2F..%2Fsecret.key", "%2e%2e", "a%00b", "a%0ab", "a/../../b", "é"):
        assert_error(user.get(f"/api/recordings/{name}"), 404, "NOT_FOUND")


def stored(server):
    """Return the names of what is in the object store."""
    folder = server.var / "objects"
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


@everywhere
def test_asvs_5_4_1_it_is_sent_as_a_file_and_under_a_name_of_ours(server, user):
    sid = fresh_sid()
    played = user.get(user.get(f"/api/recordings/{sid}").json()["sound"])
    assert re.fullmatch(rf'attachment; filename="{sid}(\.wav)?"', played.headers["Content-Disposition"])
    assert played.headers["X-Content-Type-Options"] == "nosniff"
    assert played.headers["Content-Type"] in {"audio/x-wav", "audio/wav"}


# --- who may what ----------------------------------------------------------------------------------


@everywhere
def test_asvs_8_2_2_a_session_is_ended_by_its_owner_only(server, user):
    with logged_in(server) as other, invited(server, user) as colleague:
        [session] = user.get("/api/auth/sessions").json()["sessions"]
        for stranger in (other, colleague):
            answer = stranger.delete(f"/api/auth/sessions/{session['id']}")
            assert_error(answer, 404, "RESOURCE_NOT_FOUND")
    assert user.get("/api/auth/me").status_code == 200


def test_asvs_8_2_2_a_member_administers_nothing(server, user):
    with invited(server, user) as member:
        me = member.get("/api/auth/me").json()
        assert me["role"] == "member"
        for route in ROUTES:
            if route.access is Access.ADMINISTRATOR:
                path = re.sub(r"{\w+}", me["id"], route.path)
                answer = member.request(route.method, path, json={"email": fresh_email()})
                assert_error(answer, 403, "FORBIDDEN")


def test_asvs_13_4_5_monitoring_is_for_operators(server, user):
    guarded = [route for route in ROUTES if route.access is Access.OPERATOR]
    assert len(guarded) > 8
    for route in guarded:
        path = route.path.format(name="telephony", action="reset")
        assert_error(user.request(route.method, path), 403, "FORBIDDEN")  # it came through a proxy


@everywhere
def test_asvs_15_3_3_a_registration_sets_no_more_than_it_may(server):
    with logged_in(server) as victim:
        theirs = victim.get("/api/tenant").json()["id"]
    more = {
        "id": "0" * 32,
        "role": "operator",
        "tenantId": theirs,
        "tenant_id": theirs,
        "verified": True,
        "emailVerified": True,
        "verified_at": 1.0,
        "password_hash": "x",
    }
    email = fresh_email()
    with server.client() as client:
        account = {"email": email, "password": PASSWORD}
        assert client.post("/api/auth/register", json={**account, **more}).status_code == 202
        assert_error(login(client, email, PASSWORD), 403, "FORBIDDEN")  # not verified
        code = {"email": email, "code": server.code_for(email), **more}
        assert client.post("/api/auth/verify-email", json=code).status_code == 200
        log_in(client, email)
        me = client.get("/api/auth/me").json()
        assert (me["role"], me["id"] == more["id"]) == ("administrator", False)
        assert client.get("/api/tenant").json()["id"] != theirs


# --- who the client is -----------------------------------------------------------------------------


def test_asvs_4_1_3_an_address_that_no_trusted_proxy_tells_is_not_believed(tmp_path, app):
    with Running(tmp_path / "var", app, trusted_proxies="") as server:
        answers = []
        for number in range(7):
            with server.client(f"192.0.2.{number}") as client:
                answers.append(login(client, "ada@example.com").status_code)
        assert answers == [401] * 6 + [429]


@everywhere
def test_asvs_15_3_4_what_a_client_says_itself_stands_before_what_the_proxy_says(server):
    email, address = fresh_email(), fresh_address()
    answers = []
    for number in range(7):
        with server.client(f"192.0.2.{number}, {address}") as client:
            answers.append(login(client, email).status_code)
    assert answers == [401] * 6 + [429]


# --- what is logged and told -----------------------------------------------------------------------


def test_asvs_16_2_5_the_log_has_no_secrets_and_nobody_s_address(server):
    with logged_in(server) as user:
        code = server.code_for(user.email)
        assert login(user, user.email, "a wrong but private guess").status_code == 401
        url = user.post("/api/tenant/webhook-url").json()
        secret = url["url"].split("/")[-2]
        callback = {"CallSid": fresh_sid(), "Status": "completed"}
        assert user.post(f"/api/webhooks/{secret}/telephony", json=callback).status_code == 200
        ticket = user.post("/api/auth/tickets", json={"purpose": "live"}).json()["ticket"]
        with server.client() as client:
            client.get(f"/api/live?ticket={ticket}")
            client.get(f"/api/nonexistent?token={user.token}")
        log = server.log()
        secrets = [PASSWORD, "a wrong but private guess", user.token, user.email, secret, ticket]
        assert [each for each in [*secrets, url["signingSecret"]] if each in log] == []
        assert not re.search(rf"\b{code}\b", log)


def test_asvs_16_2_5_nor_when_something_fails(tmp_path, app):
    with (
        Running(tmp_path / "var", app, webhook_tenants="nobody-can-guess-it") as server,
        logged_in(server) as user,
        server.client() as client,
        opened(server, "data.db") as db,
    ):
        db.execute("ALTER TABLE users RENAME TO others")
        db.execute("ALTER TABLE tenants RENAME TO others_too")
        callback = {"CallSid": fresh_sid(), "Status": "completed"}
        assert client.post("/api/webhooks/nobody-can-guess-it/telephony", json=callback).status_code == 500
        assert login(client, user.email, PASSWORD).status_code == 500
        log = server.log()
    assert "/api/webhooks/…/telephony" in log
    assert [each for each in ("nobody-can-guess-it", PASSWORD, user.email, user.token) if each in log] == []


@everywhere
def test_asvs_16_3_1_every_attempt_is_logged(server):
    with logged_in(server) as user:
        address, masked = user.headers["X-Forwarded-For"], re.escape(f"{user.email[0]}***@example.com")
        login(user, user.email)
    for said in ("registration of", "verified", "login of", "login refused for"):
        assert re.search(rf"{said} {masked} from {re.escape(address)}\b", server.log()), said


@pytest.fixture(scope="module", params=SHELLS)
def broken(request, tmp_path_factory):
    """A backend in which something is wrong that nobody has thought of: there is no table of users."""
    var = tmp_path_factory.mktemp("broken") / "var"
    with Running(var, request.param) as server:
        with opened(server, "data.db") as db:
            db.execute("ALTER TABLE users RENAME TO others")
        yield server


def test_asvs_16_5_1_what_goes_wrong_is_told_in_general_words(broken):
    with broken.client() as client:
        answer = login(client, fresh_email())
    assert_error(answer, 500, "DATABASE_ERROR")
    assert answer.json().keys() == {"error", "code", "requestId", "timestamp"}
    for inner in ("users", "table", "SQL", "sqlite", "SELECT", "Traceback", ".py"):
        assert inner not in answer.text


def test_asvs_16_5_4_whatever_it_is_is_logged_and_the_next_request_is_answered(broken):
    with broken.client() as client:
        request_id = login(client, fresh_email()).json()["requestId"]
        assert client.get("/health/live").status_code == 200
    logged = broken.log().partition(request_id)[2]
    assert "Traceback (most recent call last)" in logged
    assert "no such table: users" in logged


@everywhere
def test_asvs_16_5_2_without_the_provider_what_is_stored_is_still_to_be_heard(server, user):
    sid = fresh_sid()
    stored_before = user.get(f"/api/recordings/{sid}").json()
    server.fault(status=503)
    for _ in range(6):
        assert_error(user.get(f"/api/recordings/{fresh_sid()}"), 503, "SERVICE_UNAVAILABLE")
    assert user.get(f"/api/recordings/{sid}").json() == stored_before
    assert user.get(stored_before["sound"]).status_code == 200
    with server.client() as client:
        assert client.get("/health/ready").status_code == 200
    server.mend()


def test_asvs_16_5_3_where_limits_or_sessions_cannot_be_looked_up_nobody_is_let_in(tmp_path, app):
    with (
        Running(tmp_path / "var", app, limiter_store="sqlite") as server,
        logged_in(server) as user,
        server.client() as client,
    ):
        with opened(server, "limits.db") as limits:
            limits.execute("BEGIN EXCLUSIVE")
            assert_error(login(client, user.email, PASSWORD), 503, "SERVICE_UNAVAILABLE")
            assert user.get("/api/auth/me").status_code == 200
            limits.execute("ROLLBACK")
        with opened(server, "sessions.db") as sessions:
            sessions.execute("ALTER TABLE resilience_sessions RENAME TO gone")
        answer = user.get("/api/auth/me")
        assert answer.status_code >= 500
        assert user.email not in answer.text


def opened(server, name):
    """Open one of a backend's files beside it; a context manager that closes it."""
    return contextlib.closing(sqlite3.connect(server.var / name, isolation_level=None))
