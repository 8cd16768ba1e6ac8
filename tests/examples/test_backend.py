"""The example backend from outside: a process on a free port, over real HTTP, as its users meet it."""

from __future__ import annotations

import asyncio
import collections
import hashlib
import json
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from examples.backend.__main__ import listen
from examples.backend.fakes.telephony import recording_of
from tests.examples.backend_process import PATIENCE, Running, logged_in, start, wait_until

SIDS = (f"c0ffee{number:026x}" for number in range(1000))
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Running(tmp_path_factory.mktemp("backend") / "var", telephony_recovery=0.3) as server:
        yield server


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def user(server):
    with logged_in(server) as client:
        yield client


def assert_error(answer, status, code):
    """Every error has the library's body, and the id that is in the header too."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert body["error"]
    assert REQUEST_ID.fullmatch(body["requestId"])
    assert body["requestId"] == answer.headers["X-Request-Id"]
    assert TIMESTAMP.fullmatch(body["timestamp"])
    assert "details" not in body
    return body


def login(client, email, password="a wrong guess"):
    return client.post("/api/auth/login", json={"email": email, "password": password})


# --- errors --------------------------------------------------------------------------------------


def test_an_invalid_registration_says_what_is_wrong_with_each_field(client):
    answer = client.post("/api/auth/register", json={"email": "invalid"})
    body = assert_error(answer, 400, "VALIDATION_ERROR")
    assert body["fields"].keys() == {"email", "password"}


def test_what_is_not_there_is_not_found(client):
    assert_error(client.get("/api/nonexistent"), 404, "NOT_FOUND")


def test_a_wrong_method_is_told_which_are_right(client):
    answer = client.get("/api/auth/login")
    assert_error(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize("body", [b"{", b"", b"[]", b"\xff", b"[" * 50_000, b'{"email": 1e400}'])
def test_a_body_that_cannot_be_read_is_a_bad_request(client, body):
    answer = client.post("/api/auth/login", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["code"] in {"VALIDATION_ERROR", "BAD_REQUEST"}


def test_a_body_that_is_too_long_is_refused(client):
    answer = client.post("/api/auth/login", content=b" " * 100_000)
    assert_error(answer, 413, "CONTENT_TOO_LARGE")


def test_fault_93_a_huge_password_is_refused_before_it_is_hashed(client):
    assert login(client, "ada@example.com", "x" * 1_000_000).status_code == 413
    assert_error(login(client, "ada@example.com", "x" * 1025), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "email",
    [
        "a@b",
        "a b@example.com",
        "a@example.com\r\nBcc: all",
        "a\x00@example.com",
        "@",
        "=?utf-8?b?YQ0K?=@example.com",
    ],
)
def test_what_is_no_address_is_refused(client, email):
    answer = client.post("/api/auth/register", json={"email": email, "password": "long enough"})
    assert assert_error(answer, 400, "VALIDATION_ERROR")["fields"].keys() == {"email"}


def test_a_lone_surrogate_is_refused(client):
    body = b'{"email": "ada@example.com", "password": "\\ud800 and so on"}'
    answer = client.post("/api/auth/login", content=body, headers={"Content-Type": "application/json"})
    assert_error(answer, 400, "VALIDATION_ERROR")


def test_an_error_comes_as_problem_details_for_those_who_ask(client):
    answer = client.get("/api/nonexistent", headers={"Accept": "application/problem+json"})
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == 404


def test_a_request_id_is_kept_if_it_is_harmless(client):
    assert client.get("/health/live", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    forged = client.get("/health/live", headers={"X-Request-Id": "a<script>"}).headers["X-Request-Id"]
    assert REQUEST_ID.fullmatch(forged)


# --- limits --------------------------------------------------------------------------------------


def test_the_seventh_wrong_login_is_refused(server, client):
    for left in (5, 4, 3, 2, 1, 0):
        answer = login(client, "victim@example.com")
        assert_error(answer, 401, "UNAUTHORIZED")
        assert answer.headers["X-RateLimit-Limit"] == "6"
        assert answer.headers["X-RateLimit-Remaining"] == str(left)
        assert "Retry-After" not in answer.headers
    refused = login(client, "VICTIM@example.com")
    assert_error(refused, 429, "RATE_LIMIT_EXCEEDED")
    assert refused.headers["X-RateLimit-Limit"] == "6"
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert int(refused.headers["X-RateLimit-Reset"]) > 1_700_000_000
    assert 800 < int(refused.headers["Retry-After"]) <= 900
    assert "limit login refused v***@example.com, 198.51." in server.log()


def test_the_sixth_registration_from_an_address_is_refused(client):
    def register(number):
        account = {"email": f"new{number}@example.com", "password": "long enough"}
        return client.post("/api/auth/register", json=account)

    assert [register(number).status_code for number in range(5)] == [202] * 5
    refused = register(5)
    assert_error(refused, 429, "RATE_LIMIT_EXCEEDED")
    assert int(refused.headers["Retry-After"]) >= 1


async def test_fault_17_of_a_thousand_parallel_logins_exactly_six_are_admitted(server):
    body = json.dumps({"email": "crowd@example.com", "password": "a wrong guess"})
    request = (
        f"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.7\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()
    host, port = server.url.removeprefix("http://").split(":")

    async def attempt():
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        status = int((await reader.readline()).split()[1])
        await reader.read()
        writer.close()
        await writer.wait_closed()
        return status

    async with asyncio.timeout(PATIENCE):
        statuses = await asyncio.gather(*(attempt() for _ in range(1000)))
    assert collections.Counter(statuses) == {401: 6, 429: 994}


def test_the_api_is_limited_by_client_and_tells_what_is_left(user, client):
    mine = user.get("/api/auth/me").headers
    assert mine["X-RateLimit-Limit"] == "100"
    strangers = client.get("/api/auth/me")
    assert_error(strangers, 401, "UNAUTHORIZED")
    assert strangers.headers["X-RateLimit-Remaining"] == "99"
    again = user.get("/api/auth/me").headers
    assert int(again["X-RateLimit-Remaining"]) == int(mine["X-RateLimit-Remaining"]) - 1


def test_every_limited_route_tells_what_is_left(server, user, client):
    someone = {"email": "someone@example.com"}
    account, code = {**someone, "password": "long enough"}, {**someone, "code": "000000"}
    callback = {"CallSid": "c1", "Status": "busy"}
    answers = {
        ("5", "4"): [
            client.post("/api/auth/register", json=account),
            client.post("/api/auth/verify-email", json=code),
        ],
        ("3", "2"): [client.post("/api/auth/resend-otp", json=someone)],
        ("6", "5"): [login(client, "someone@example.com")],
        ("100", "99"): [client.get(f"/api/recordings/{next(SIDS)}")],  # to a stranger
    }
    for (limit, left), given in answers.items():
        for answer in given:
            assert answer.headers["X-RateLimit-Limit"] == limit
            assert answer.headers["X-RateLimit-Remaining"] == left
            assert answer.headers["X-RateLimit-Reset"].isdecimal()
    told = user.get("/api/recordings/nosuchcall"), client.post("/api/webhooks/demo/telephony", json=callback)
    assert [answer.headers["X-RateLimit-Limit"] for answer in told] == ["100", "1000"]


def test_an_address_that_no_trusted_proxy_tells_is_not_believed(tmp_path):
    with Running(tmp_path / "var", trusted_proxies="") as server:
        answers = []
        for number in range(7):
            with server.client(f"192.0.2.{number}") as client:
                answers.append(login(client, "ada@example.com").status_code)
        assert answers == [401] * 6 + [429]


def test_limits_in_sqlite_survive_a_restart(tmp_path):
    for expected in ([401] * 6, [429]):
        with (
            Running(tmp_path / "var", limiter_store="sqlite") as server,
            server.client("192.0.2.1") as client,
        ):
            assert [login(client, "ada@example.com").status_code for _ in expected] == expected


# --- accounts ------------------------------------------------------------------------------------


def test_from_registration_to_logout(server, client):
    email = "Ada.Lovelace@example.com"
    account = {"email": email, "password": "correct horse", "name": "Ada"}
    assert client.post("/api/auth/register", json=account).status_code == 202
    assert_error(login(client, email, "correct horse"), 403, "FORBIDDEN")  # not verified yet
    assert "login refused for the unverified A***@example.com" in server.log()
    code = server.code_for(email)
    assert client.post("/api/auth/verify-email", json={"email": email, "code": code}).status_code == 200

    answer = login(client, email.lower(), "correct horse")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie  # over plain HTTP no browser would send it back
    assert (
        client.get("/api/auth/me").json().items()
        >= {"email": email, "name": "Ada", "emailVerified": True}.items()
    )

    with server.client() as program:  # without cookies
        program.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        assert program.get("/api/auth/me").status_code == 200
        assert client.post("/api/auth/logout").status_code == 200
        assert_error(program.get("/api/auth/me"), 401, "UNAUTHORIZED")
    assert_error(client.get("/api/auth/me"), 401, "UNAUTHORIZED")


def test_fault_94_a_login_ends_the_session_before_it(server):
    with logged_in(server, "twice@example.com") as client:
        answer = login(client, "twice@example.com", "correct horse")
        assert answer.status_code == 200
        assert answer.json()["token"] != client.token
        assert client.get("/api/auth/me").status_code == 401  # its header still has the first token


@pytest.mark.parametrize("token", ["forged", "x" * 5000, "%00", "a b", "é"])
def test_fault_95_what_is_no_token_is_nobodys(client, token):
    answer = client.get("/api/auth/me", headers={"Authorization": f"Bearer {token}".encode("latin-1")})
    assert_error(answer, 401, "UNAUTHORIZED")


def test_a_known_address_is_answered_like_a_new_one_and_told_by_mail(server):
    with logged_in(server, "known@example.com") as client:
        answers = [
            client.post("/api/auth/register", json={"email": email, "password": "another one"})
            for email in ("known@example.com", "unknown@example.com")
        ]
        known, unknown = (answer.json() for answer in answers)
        assert known["registration"] != unknown["registration"]
        assert known | {"registration": ""} == unknown | {"registration": ""}
        assert [answer.status_code for answer in answers] == [202, 202]
        assert "You have an account already" in server.mail_to("known@example.com")[-1]
        assert login(client, "known@example.com", "another one").status_code == 401


def test_a_wrong_code_is_refused_and_five_void_the_right_one(server, client):
    email = "guessed@example.com"
    client.post("/api/auth/register", json={"email": email, "password": "correct horse"})
    code = server.code_for(email)
    wrong = f"{(int(code) + 1) % 1_000_000:06}"

    def verify(digits):
        return client.post("/api/auth/verify-email", json={"email": email, "code": digits})

    body = assert_error(verify(wrong), 400, "VALIDATION_ERROR")
    assert "code" in body["fields"]
    assert [verify(wrong).status_code for _ in range(4)] == [400] * 4
    refused = verify(code)
    assert_error(refused, 429, "RATE_LIMIT_EXCEEDED")
    assert int(refused.headers["Retry-After"]) <= 300


def test_a_new_code_voids_the_old_one(server, client):
    email = "impatient@example.com"
    client.post("/api/auth/register", json={"email": email, "password": "correct horse"})
    codes = [server.code_for(email)]
    for _ in range(3):
        assert client.post("/api/auth/resend-otp", json={"email": email}).status_code == 202
        codes.append(server.code_for(email))
    assert_error(client.post("/api/auth/resend-otp", json={"email": email}), 429, "RATE_LIMIT_EXCEEDED")
    assert len(server.mail_to(email)) == 4
    if codes[0] != codes[-1]:  # one in a million
        old = client.post("/api/auth/verify-email", json={"email": email, "code": codes[0]})
        assert_error(old, 400, "VALIDATION_ERROR")
    new = client.post("/api/auth/verify-email", json={"email": email, "otp": codes[-1]})
    assert new.status_code == 200


def test_a_new_code_is_no_new_set_of_guesses(server, client):
    email = "patient@example.com"
    client.post("/api/auth/register", json={"email": email, "password": "correct horse"})

    def guess():
        wrong = f"{(int(server.code_for(email)) + 1) % 1_000_000:06}"
        return client.post("/api/auth/verify-email", json={"email": email, "code": wrong}).status_code

    assert [guess() for _ in range(3)] == [400] * 3
    assert client.post("/api/auth/resend-otp", json={"email": email}).status_code == 202
    assert [guess() for _ in range(3)] == [400, 400, 429]


def test_a_code_can_be_bound_to_its_registration(server):
    def register(client, password):
        answer = client.post("/api/auth/register", json={"email": "raced@example.com", "password": password})
        return answer.json()["registration"]

    def verify(client, registration):
        code = {"email": "raced@example.com", "code": server.code_for("raced@example.com")}
        return client.post("/api/auth/verify-email", json={**code, "registration": registration}).status_code

    with server.client() as ada, server.client() as eve:
        own = register(ada, "Ada's password")
        register(eve, "Eve's password")
        assert verify(ada, own) == 400
        assert login(eve, "raced@example.com", "Eve's password").status_code == 403
        assert verify(ada, register(ada, "Ada's password")) == 200
        assert login(ada, "raced@example.com", "Ada's password").status_code == 200


def test_nobody_unknown_is_sent_a_code(server, client):
    answer = client.post("/api/auth/resend-otp", json={"email": "nobody@example.com"})
    assert answer.status_code == 202
    assert server.mail_to("nobody@example.com") == []


# --- recordings ----------------------------------------------------------------------------------


def test_a_provider_that_fails_twice_then_well_is_retried_and_counted(server, user):
    before = server.monitoring("retry-stats")
    sid = next(SIDS)
    server.fault(next=2, status=503)
    answer = user.get(f"/api/recordings/{sid}")
    sound = recording_of(sid)
    assert answer.status_code == 200
    assert answer.json()["size"] == len(sound)
    assert answer.json()["sha256"] == hashlib.sha256(sound).hexdigest()
    played = user.get(answer.json()["sound"])
    assert played.content == sound
    assert played.headers["Content-Type"] == "audio/x-wav"
    after = server.monitoring("retry-stats")
    assert after["total_retries"] - before["total_retries"] == 2
    assert after["successful_retries"] - before["successful_retries"] == 1
    assert after["policies"]["telephony"]["total_retries"] == after["total_retries"]


def test_a_recording_is_fetched_once(server, user):
    sid = next(SIDS)
    first = user.get(f"/api/recordings/{sid}").json()
    asked = server.provider.get("/_control/requests").json()
    assert user.get(f"/api/recordings/{sid}").json() == first
    assert server.provider.get("/_control/requests").json() == asked


def test_a_provider_that_is_down_opens_the_breaker_which_recovers(server, user):
    sid = next(SIDS)
    server.fault(status=503)
    answers = [user.get(f"/api/recordings/{sid}") for _ in range(7)]
    for answer in answers:
        assert_error(answer, 503, "SERVICE_UNAVAILABLE")
        assert int(answer.headers["Retry-After"]) >= 1
    assert "breaker telephony: open, was closed (" in server.log()
    telephony = next(one for one in server.monitoring("breakers")["breakers"] if one["name"] == "telephony")
    assert telephony["state"] in {"open", "half-open"}
    assert server.monitoring("health")["status"] == "warn"
    assert httpx2.get(f"{server.url}/health/ready").status_code == 200  # a warning is no reason to go away
    server.heal()
    wait_until(lambda: user.get(f"/api/recordings/{sid}").status_code == 200)
    wait_until(lambda: server.monitoring("health")["status"] == "pass")


def test_a_recording_that_is_not_ready_is_accepted_for_later(server, user):
    sid = next(SIDS)
    server.provider.put(f"/_control/calls/{sid}", json={"RecordingUrl": None, "Status": "in-progress"})
    answer = user.get(f"/api/recordings/{sid}")
    assert answer.status_code == 202
    assert answer.json()["status"] == "processing"
    assert int(answer.headers["Retry-After"]) >= 1
    url = f"{server.provider_url}/recordings/{sid}.wav"
    server.provider.put(f"/_control/calls/{sid}", json={"RecordingUrl": url, "Status": "completed"})
    assert user.get(f"/api/recordings/{sid}").status_code == 200


def test_an_unknown_call_is_not_found(user):
    assert_error(user.get("/api/recordings/nosuchcall"), 404, "RESOURCE_NOT_FOUND")
    assert_error(user.get("/api/recordings/..%2Fsecret.key"), 404, "NOT_FOUND")
    assert_error(user.get("/api/recordings/a.b"), 400, "VALIDATION_ERROR")


def test_recordings_are_for_those_who_are_logged_in(client):
    assert_error(client.get(f"/api/recordings/{next(SIDS)}"), 401, "UNAUTHORIZED")


# --- webhooks ------------------------------------------------------------------------------------


def test_a_webhook_is_taken_in_both_forms_and_repeated_without_harm(client):
    callback = {
        "CallSid": next(SIDS),
        "Status": "completed",
        "DateUpdated": "2025-01-15 16:05:00",
        "Legs": "2",
    }
    for _ in range(2):
        assert client.post("/api/webhooks/demo/telephony", json=callback).json() == {"accepted": True}
    taken = client.post("/api/webhooks/demo/telephony", data=callback)
    assert taken.status_code == 200
    assert taken.headers["X-RateLimit-Limit"] == "1000"


def test_a_tenant_s_secret_is_not_in_the_log(tmp_path):
    with Running(tmp_path / "var", webhook_tenants="unguessable") as server, server.client() as client:
        callback = {"CallSid": next(SIDS), "Status": "completed"}
        path = "/api/webhooks/unguessable/telephony"
        answers = [client.post(path, json=callback) for _ in range(1001)]
        assert [answer.status_code for answer in answers] == [200] * 1000 + [429]
        assert_error(answers[-1], 429, "RATE_LIMIT_EXCEEDED")
        assert "limit webhook refused telephony, " in server.log()
        assert "unguessable" not in server.log()


def test_a_webhook_that_makes_no_sense_is_refused(client):
    answer = client.post("/api/webhooks/demo/telephony", json={"CallSid": "x", "Status": "singing"})
    assert assert_error(answer, 400, "VALIDATION_ERROR")["fields"].keys() == {"Status"}
    assert client.post("/api/webhooks/demo/telephony", content=b"\xff").status_code == 400


def test_a_webhook_for_nobody_is_not_found(client):
    assert_error(client.post("/api/webhooks/guessed/telephony", json={}), 404, "NOT_FOUND")


# --- monitoring ----------------------------------------------------------------------------------


def test_monitoring_tells_about_every_policy(server, user):
    user.get("/api/auth/me")
    assert server.monitoring("health")["checks"].keys() >= {"database", "breaker:telephony", "janitor"}
    cleanup = server.monitoring("cleanup-stats")
    assert cleanup["is_running"] is True
    assert re.fullmatch(r"\d+MB", cleanup["memory"])
    breakers = {breaker["name"]: breaker for breaker in server.monitoring("breakers")["breakers"]}
    assert breakers.keys() == {"telephony", "object-store"}
    assert breakers["object-store"]["state"] == "closed"
    assert server.monitoring("retry-stats").keys() >= {"total_retries", "retry_success_rate", "policies"}


def test_the_limits_are_shown_without_saying_whose_they_are(server, client):
    login(client, "private@example.com")
    text = json.dumps(server.monitoring("rate-limit-stats"))
    assert "login" in text
    assert "private" not in text
    assert client.headers["X-Forwarded-For"] not in text


def test_monitoring_is_for_this_machine_only(client):
    assert_error(client.get("/api/monitoring/health"), 403, "FORBIDDEN")
    assert client.get("/health/live").json() == {"status": "pass"}


# --- from start to end ---------------------------------------------------------------------------


def test_fault_98_sigterm_finishes_what_runs_and_ends_all(tmp_path):
    with (
        Running(tmp_path / "var", telephony_timeout=5.0) as server,
        logged_in(server) as user,
        ThreadPoolExecutor() as threads,
    ):
        server.fault(delay=0.7, next=1)
        running = threads.submit(user.get, f"/api/recordings/{next(SIDS)}")
        wait_until(lambda: server.provider.get("/_control/requests").json().get("calls"))
        exit_code, seconds = server.stop()
        assert exit_code == 0, server.log()
        assert seconds < 5
        assert running.result().json()["status"] == "stored"
        with pytest.raises(httpx2.TransportError):
            server.provider.get("/_control/requests")
        assert "Traceback" not in server.log()


def test_sigterm_does_not_wait_for_ever_for_what_runs(tmp_path):
    with (
        Running(tmp_path / "var", telephony_timeout=30.0, recording_deadline=30.0) as server,
        logged_in(server) as user,
        ThreadPoolExecutor() as threads,
    ):
        server.fault(delay=20.0, next=1)
        running = threads.submit(user.get, f"/api/recordings/{next(SIDS)}")
        wait_until(lambda: server.provider.get("/_control/requests").json().get("calls"))
        exit_code, seconds = server.stop()
        assert exit_code == 0, server.log()
        assert seconds < 5
        assert_error(running.result(), 503, "SERVICE_UNAVAILABLE")
        assert running.result().headers["Retry-After"] == "1"
        assert "Traceback" not in server.log()


def test_a_killed_backend_takes_the_provider_along(tmp_path):
    with Running(tmp_path / "var") as server:
        server.process.kill()
        server.process.wait()

        def is_gone():
            try:
                httpx2.get(f"{server.provider_url}/_control/requests")
            except httpx2.TransportError:
                return True
            return False

        wait_until(is_gone)


def test_behind_https_with_a_token_in_development(tmp_path):
    settings = {
        "public_url": "https://backend.example.com",
        "monitoring_token": "a token for operators",
        "environment": "development",
        "drain_notice": 1.0,
    }
    with Running(tmp_path / "var", **settings) as server:
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
        process, log = start(tmp_path / "var", "--port", str(port))
        assert process.wait(PATIENCE) == 1
    log.seek(0)
    said = log.read()
    assert f"Port {port} is taken" in said
    assert f"make run PORT={port + 1}" in said
    assert "Traceback" not in said
    process.stdout.close()
    log.close()


@pytest.mark.parametrize("port", ["99999", "0"])
def test_what_keeps_it_from_starting_is_said_without_a_traceback(tmp_path, port):
    (tmp_path / "var").write_text("a file where the folder should be")
    process, log = start(tmp_path / "var", "--port", port)
    assert process.wait(PATIENCE) == 1
    log.seek(0)
    said = log.read()
    assert "Traceback" not in said
    assert ("port must be 0-65535" if port == "99999" else "see BACKEND_VAR") in said
    process.stdout.close()
    log.close()


def test_answers_do_not_wait_to_be_acknowledged():
    with listen("127.0.0.1", 0) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_only_its_user_can_read_what_it_writes(server):
    files = [file for file in server.var.rglob("*") if file.is_file()]
    assert {file.name for file in files} >= {"backend.db", "sessions.db", "secret.key"}
    assert not [file for file in files if file.stat().st_mode & 0o077]
