"""No tenant sees, changes or learns of another's things: over every route, by whatever ids and orders."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from datetime import UTC, datetime

import httpx2
import pytest
from standardwebhooks import Webhook

from examples.backend.api import ROUTES
from examples.backend.api.http import Access
from examples.backend.fakes.telephony import recording_of
from tests.examples.backend_process import (
    SHELLS,
    assert_error,
    fresh_email,
    fresh_sid,
    invited,
    logged_in,
)

OF_NOBODY = {
    ("POST", "/api/auth/register"),
    ("POST", "/api/auth/verify-email"),
    ("POST", "/api/auth/resend-otp"),
    ("POST", "/api/auth/login"),
    ("POST", "/api/auth/logout"),
    ("POST", "/api/auth/forgot-password"),
    ("POST", "/api/auth/reset-password"),
    ("GET", "/api/live"),
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/health/startup"),
    ("GET", "/dashboard"),
    ("GET", "/dashboard/{file}"),
}
"""Open to anybody and about no tenant's things; of accounts, a test of ASVS 6.3.8 tells what they say."""
BY_SECRET = {
    ("POST", "/api/webhooks/{secret}/telephony"),
    ("POST", "/api/webhooks/{secret}/signed"),
    ("GET", "/api/recordings/{call_sid}/download"),
}
"""Open to whoever has what stands in the address; each has a test below."""
OF_A_TENANT = [route for route in ROUTES if route.access in {Access.MEMBER, Access.ADMINISTRATOR}]
UNKNOWN = {"session_id": "0" * 64, "user_id": "0" * 32, "call_sid": "nosuchcall"}
"""Ids of things that there never were, by what they are ids of. A route with another kind of id is to be
taken up here, and in `Someone`."""
BODIES = {
    "TicketRequest": {"purpose": "live"},
    "InvitationRequest": {"email": "invited@example.com"},
    "PasswordChange": {"currentPassword": "wrong", "newPassword": "another long one"},
}
"""What is sent where a route asks for a body."""


def name_of(route):
    return f"{route.method} {route.path}"


class Someone:
    """An administrator of a tenant, and what that tenant has."""

    def __init__(self, server, stack):
        self.server = server
        self.client = stack.enter_context(logged_in(server, name=f"somebody {fresh_email()}"))
        self.member = stack.enter_context(invited(server, self.client))
        self.sid = fresh_sid()
        assert self.client.get(f"/api/recordings/{self.sid}").status_code == 200
        self.webhook = self.client.post("/api/tenant/webhook-url").json()
        me = self.client.get("/api/auth/me").json()
        [session] = self.client.get("/api/auth/sessions").json()["sessions"]
        self.ids = {
            "session_id": session["id"],
            "user_id": self.member.get("/api/auth/me").json()["id"],
            "call_sid": self.sid,
        }
        self.words = {
            *self.ids.values(),
            *(me["id"], me["email"], me["name"], self.member.email),
            *(self.client.token, self.webhook["url"], self.webhook["signingSecret"]),
            self.client.get("/api/tenant").json()["id"],
        }
        """What an answer to another tenant may not contain."""

    def is_untouched(self):
        """Return whether all that the tenant has is as it was."""
        [session] = self.client.get("/api/auth/sessions").json()["sessions"]
        users = self.client.get("/api/tenant/users").json()["users"]
        recordings = self.client.get("/api/recordings").json()["recordings"]
        return (
            session["id"] == self.ids["session_id"]
            and sorted(user["disabled"] for user in users) == [False, False]
            and [(call["callSid"], call["state"]) for call in recordings] == [(self.sid, "stored")]
        )


@pytest.fixture(scope="module", params=[*SHELLS, "asgi-real", "wsgi-real"])
def two(request, backends):
    """Two who have nothing to do with one another."""
    server = backends(request.param)
    with contextlib.ExitStack() as stack:
        yield Someone(server, stack), Someone(server, stack)


def ask(client, route, ids):
    """Ask as a route wants to be asked; return the answer, or what a stream of events begins with."""
    body = None if route.body is None else BODIES[route.body.__name__]
    path = route.path.format(**{name: ids[name] for name in route.parameters})
    if "text/event-stream" not in route.answers.values():
        return client.request(route.method, path, json=body)
    with client.stream(route.method, path) as answer:
        beginning = next(answer.iter_bytes())
    return httpx2.Response(answer.status_code, headers=answer.headers, content=beginning)


def told(answer):
    """Return all that an answer tells, but for what is another one in each."""
    always_new = r'"(requestId|timestamp)": ?"[^"]*"'
    return answer.status_code, sorted(answer.headers), re.sub(always_new, "", answer.text)


# --- the table of routes ---------------------------------------------------------------------------


def test_asvs_8_4_1_every_route_is_tried():
    tried = {(route.method, route.path) for route in OF_A_TENANT}
    by_operators = {(route.method, route.path) for route in ROUTES if route.access is Access.OPERATOR}
    assert {(route.method, route.path) for route in ROUTES} == tried | by_operators | OF_NOBODY | BY_SECRET


@pytest.mark.parametrize("route", [route for route in OF_A_TENANT if route.parameters], ids=name_of)
def test_asvs_8_4_1_another_tenant_s_things_are_like_those_that_there_never_were(two, route):
    owner, stranger = two
    never = ask(stranger.client, route, UNKNOWN)
    theirs = ask(stranger.client, route, owner.ids)
    assert theirs.status_code == 404
    assert told(theirs) == told(never)
    assert owner.is_untouched()


@pytest.mark.parametrize("route", [route for route in OF_A_TENANT if not route.parameters], ids=name_of)
def test_asvs_8_4_1_no_answer_has_anything_of_another_tenant(two, route):
    owner, stranger = two
    with contextlib.ExitStack() as stack:
        client = stranger.client
        if route.method != "GET":  # which may log one out
            client = stack.enter_context(logged_in(stranger.server))
        answer = ask(client, route, {})
    assert answer.status_code < 500
    assert [word for word in owner.words if word in answer.text] == []
    assert owner.is_untouched()


def test_asvs_8_4_1_no_search_finds_anything_of_another_tenant(two):
    owner, stranger = two
    for query in (
        {"q": owner.sid},
        {"q": owner.sid[:6]},
        {"state": "stored", "limit": 100},
        {"q": "0990011"},
    ):
        found = stranger.client.get("/api/recordings", params=query).json()["recordings"]
        assert owner.sid not in [call["callSid"] for call in found]
    place = f"{time.time() + 60!r} z"  # before all recordings of anybody
    cursor = base64.urlsafe_b64encode(place.encode()).rstrip(b"=").decode()
    found = stranger.client.get("/api/recordings", params={"cursor": cursor}).json()["recordings"]
    assert stranger.sid in [call["callSid"] for call in found]
    assert owner.sid not in [call["callSid"] for call in found]
    users = stranger.client.get("/api/tenant/users", params={"after": owner.client.email[:4]}).json()["users"]
    assert not {user["email"] for user in users} & {owner.client.email, owner.member.email}


# --- what stands in an address ---------------------------------------------------------------------


def test_asvs_8_4_1_a_webhook_s_address_is_its_tenant_s_alone(two):
    owner, stranger = two
    delivery = {"CallSid": owner.sid, "Status": "failed"}
    address = stranger.webhook["url"].partition("/api/")[2]
    assert stranger.client.post(f"/api/{address}", json=delivery).json() == {"accepted": True}
    assert owner.sid not in stranger.client.get("/api/recordings").text
    assert owner.is_untouched()


@pytest.mark.parametrize("signed_by", ["owner", "stranger"])
def test_asvs_8_4_1_a_signature_counts_for_its_tenant_alone(two, signed_by):
    owner, stranger = two
    body = json.dumps({"type": "recording.delete", "data": {"callSid": owner.sid}})
    secret = (owner if signed_by == "owner" else stranger).webhook["signingSecret"]
    delivery_id, now = f"msg_{signed_by}", datetime.now(UTC)
    headers = {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign(delivery_id, now, body),
    }
    address = stranger.webhook["signedUrl"].partition("/api/")[2]
    answer = stranger.client.post(f"/api/{address}", content=body, headers=headers)
    assert answer.status_code == (401 if signed_by == "owner" else 200)
    assert owner.is_untouched()


def test_asvs_8_4_1_a_ticket_opens_what_it_was_given_for(two):
    owner, stranger = two
    own = fresh_sid()
    assert stranger.client.get(f"/api/recordings/{own}").status_code == 200
    url = stranger.client.post(f"/api/recordings/{own}/download-url").json()["url"]
    assert owner.sid not in url
    if stranger.server.is_real:  # the store signs the whole address
        assert httpx2.get(url).content == recording_of(own)
        assert httpx2.get(url.replace(own, owner.sid)).status_code == 403
    else:
        with stranger.server.client() as client:
            path = url.removeprefix(stranger.server.url)
            opened = client.get(path)
            assert opened.status_code == 200, opened.text
            assert opened.content == recording_of(own)
            assert_error(client.get(path.replace(own, owner.sid)), 401, "INVALID_TOKEN")
