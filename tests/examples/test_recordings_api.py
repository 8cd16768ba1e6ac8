"""Recordings from outside: announced, listed, heard, handed on and deleted, under both shells and modes."""

from __future__ import annotations

import hashlib
import time
from collections import Counter

import httpx2
import pytest

from examples.backend.fakes import seeds
from examples.backend.fakes.telephony import recording_of
from tests.examples.backend_process import assert_error, everywhere, fresh_sid, logged_in, wait_until


def stored(user, sid=None):
    sid = sid or fresh_sid()
    assert user.get(f"/api/recordings/{sid}").json()["status"] == "stored"
    return sid


def listed(user, **query):
    answer = user.get("/api/recordings", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


@everywhere
def test_what_the_provider_announces_is_there_a_moment_later(server, user):
    secret = user.post("/api/tenant/webhook-url").json()["url"].rsplit("/", 2)[-2]
    calls = {"count": 3, "webhook": {"url": f"{server.url}/api/webhooks/{secret}/telephony", "copies": 3}}
    sids = server.provider.post("/_control/calls", json=calls).json()["sids"]
    wait_until(lambda: [one["state"] for one in listed(user)["recordings"]] == ["stored"] * 3)
    assert {one["callSid"] for one in listed(user)["recordings"]} == set(sids)
    for sid in sids:
        assert server.asked_for(sid) == {"calls": 1, "recordings": 1}
        told = user.get(f"/api/recordings/{sid}").json()
        assert told["sha256"] == hashlib.sha256(recording_of(sid)).hexdigest()


@everywhere
def test_the_list_goes_on_where_its_cursor_says(user):
    assert listed(user) == {"recordings": [], "next": None}
    sids = [stored(user) for _ in range(5)]
    first = listed(user, limit=2)
    second = listed(user, limit=2, cursor=first["next"])
    third = listed(user, limit=2, cursor=second["next"])
    pages = first["recordings"] + second["recordings"] + third["recordings"]
    assert [one["callSid"] for one in pages] == sids[::-1]
    assert third["next"] is None


def test_the_list_can_be_searched_and_refuses_what_makes_no_sense(user):
    sid = stored(user)
    for query in ({"q": sid}, {"q": "0803075"}, {"state": "stored"}, {"to": "2025-06-01T00:00:00Z"}):
        assert [one["callSid"] for one in listed(user, **query)["recordings"]] == [sid]
    for query in ({"q": "nobody"}, {"state": "failed"}, {"from": "2025-06-01T00:00:00+05:30"}):
        assert listed(user, **query) == {"recordings": [], "next": None}
    for query in (
        {"state": "deleted"},
        {"q": ""},
        {"q": "x" * 65},
        {"q": "0\0"},
        {"from": "yesterday"},
        {"from": "2025-06-01T00:00:00"},
        {"limit": "0"},
        {"limit": "101"},
        {"cursor": "?"},
        {"cursor": "bm9uc2Vuc2U"},
        {"cursor": "bmFuIHg"},
        {"cursor": "MWU5OTkgeA"},
    ):
        assert_error(user.get("/api/recordings", params=query), 400, "VALIDATION_ERROR")


@everywhere
def test_asvs_5_4_1_a_recording_is_handed_on_by_an_address_and_saved_under_a_safe_name(server, user):
    sid = stored(user)
    answer = user.post(f"/api/recordings/{sid}/download-url")
    url = answer.json()["url"]
    told = httpx2.get(url)
    assert told.content == recording_of(sid)
    assert told.headers["Content-Disposition"] == f'attachment; filename="{sid}.wav"'
    assert answer.json()["expiresAt"] > answer.headers.get("Date", "")[:0]
    if not server.is_real:
        assert told.headers["X-Content-Type-Options"] == "nosniff"
        other = stored(user)
        assert_error(httpx2.get(url.replace(sid, other)), 401, "INVALID_TOKEN")
        assert_error(httpx2.get(url[:-5]), 401, "INVALID_TOKEN")
    played = user.get(f"/api/recordings/{sid}/sound")
    assert played.headers["Content-Disposition"] == f'attachment; filename="{sid}.wav"'
    assert played.headers["X-Content-Type-Options"] == "nosniff"
    assert_error(user.post("/api/recordings/nosuchcall/download-url"), 404, "RESOURCE_NOT_FOUND")


PARTS = {
    "bytes=0-9": (206, 0, 10),
    "bytes=10-": (206, 10, None),
    "bytes=-10": (206, -10, None),
    "bytes=5-4": (200, 0, None),
    "bytes=0-1,4-5": (200, 0, None),
    "pages=1-2": (200, 0, None),
    "bytes=-0": (416, 0, 0),
    "bytes=99999999-": (416, 0, 0),
}


@everywhere
def test_a_player_can_ask_for_parts(user):
    sid = stored(user)
    sound = recording_of(sid)
    for header, (status, start, stop) in PARTS.items():
        answer = user.get(f"/api/recordings/{sid}/sound", headers={"Range": header})
        assert answer.status_code == status, header
        if status != 416:
            assert answer.content == sound[start:stop], header
        if status == 206:
            first = start % len(sound)
            last = (len(sound) if stop is None else stop) - 1
            assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(sound)}"


@everywhere
def test_what_is_deleted_is_gone_for_good(server, user):
    sid = stored(user)
    for _ in range(2):
        answer = user.delete(f"/api/recordings/{sid}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert "Content-Type" not in answer.headers
    for path in (f"/api/recordings/{sid}", f"/api/recordings/{sid}/sound"):
        assert_error(user.get(path), 404, "RESOURCE_NOT_FOUND")
    assert_error(user.post(f"/api/recordings/{sid}/download-url"), 404, "RESOURCE_NOT_FOUND")
    assert listed(user)["recordings"] == []
    assert_error(user.delete(f"/api/recordings/{fresh_sid()}"), 404, "RESOURCE_NOT_FOUND")
    assert server.asked_for(sid) == {"calls": 1, "recordings": 1}


@everywhere
def test_asvs_8_2_2_a_recording_of_another_tenant_does_not_exist(server, user):
    sid = stored(user)
    with logged_in(server) as stranger:
        for method, path in [
            ("GET", ""), ("GET", "/sound"), ("POST", "/download-url"), ("DELETE", ""),
        ]:  # fmt: skip
            answer = stranger.request(method, f"/api/recordings/{sid}{path}")
            assert_error(answer, 404, "RESOURCE_NOT_FOUND")
        assert listed(stranger)["recordings"] == []
    assert user.get(f"/api/recordings/{sid}").status_code == 200
    assert server.asked_for(sid) == {"calls": 1, "recordings": 1}


@pytest.mark.parametrize("sid", ["..%2Fsecret", "%22quoted", "a%0d%0ab", "é", "x" * 65])
def test_a_call_s_id_is_letters_and_digits(user, sid):
    for method, path in [("GET", ""), ("GET", "/sound"), ("GET", "/download"), ("DELETE", "")]:
        assert user.request(method, f"/api/recordings/{sid}{path}").status_code == 404


def test_calls_to_begin_with_are_announced_and_brought(server, user):
    secret = user.post("/api/tenant/webhook-url").json()["url"].rsplit("/", 2)[-2]
    seeds.announce(server.provider_url, server.url, secret)
    wanted = {"stored": 12, "missing": 3, "expected": 3}

    def states():
        time.sleep(0.5)  # whoever asks more often is soon limited
        return Counter(one["state"] for one in listed(user, limit=100)["recordings"])

    wait_until(lambda: states() == wanted)
