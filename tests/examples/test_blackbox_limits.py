"""The example backend from outside: what is limited, for whom, and what the answers say of it."""

from __future__ import annotations

import asyncio
import collections
import json

from tests.examples.backend_process import (
    PATIENCE,
    Running,
    assert_error,
    everywhere,
    fresh_sid,
    login,
)


@everywhere
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
    assert "refused v***@example.com, 198." in server.log()


@everywhere
def test_the_sixth_registration_from_an_address_is_refused(client):
    def register(number):
        account = {"email": f"new{number}@example.com", "password": "a long enough one"}
        return client.post("/api/auth/register", json=account)

    assert [register(number).status_code for number in range(5)] == [202] * 5
    refused = register(5)
    assert_error(refused, 429, "RATE_LIMIT_EXCEEDED")
    assert int(refused.headers["Retry-After"]) >= 1


@everywhere
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
    # Redis too counts them all in time: that this process is busy is not taken for an outage (503), which
    # would keep out everybody else as well, for seconds.
    assert collections.Counter(statuses) == {401: 6, 429: 994}
    with server.client() as bystander:
        assert login(bystander, "bystander@example.com").status_code == 401


def test_the_api_is_limited_by_client_and_tells_what_is_left(user, client):
    mine = user.get("/api/auth/me").headers
    assert mine["X-RateLimit-Limit"] == "100"
    strangers = client.get("/api/auth/me")
    assert_error(strangers, 401, "UNAUTHORIZED")
    assert strangers.headers["X-RateLimit-Remaining"] == "99"
    again = user.get("/api/auth/me").headers
    assert int(again["X-RateLimit-Remaining"]) == int(mine["X-RateLimit-Remaining"]) - 1


def test_every_limited_route_tells_what_is_left(user, client):
    someone = {"email": "someone@example.com"}
    account, code = {**someone, "password": "a long enough one"}, {**someone, "code": "000000"}
    callback = {"CallSid": "c1", "Status": "busy"}
    answers = {
        ("5", "4"): [
            client.post("/api/auth/register", json=account),
            client.post("/api/auth/verify-email", json=code),
        ],
        ("3", "2"): [client.post("/api/auth/resend-otp", json=someone)],
        ("6", "5"): [login(client, "someone@example.com")],
        ("100", "99"): [client.get(f"/api/recordings/{fresh_sid()}")],  # to a stranger
    }
    for (limit, left), given in answers.items():
        for answer in given:
            assert answer.headers["X-RateLimit-Limit"] == limit
            assert answer.headers["X-RateLimit-Remaining"] == left
            assert answer.headers["X-RateLimit-Reset"].isdecimal()
    told = user.get("/api/recordings/nosuchcall"), client.post("/api/webhooks/demo/telephony", json=callback)
    assert [answer.headers["X-RateLimit-Limit"] for answer in told] == ["100", "1000"]


def test_limits_in_sqlite_survive_a_restart(tmp_path, app):
    for expected in ([401] * 6, [429]):
        with (
            Running(tmp_path / "var", app, limiter_store="sqlite") as server,
            server.client("192.0.2.1") as client,
        ):
            assert [login(client, "ada@example.com").status_code for _ in expected] == expected
