"""The example backend from outside: recordings, while the provider does what providers do."""

from __future__ import annotations

import hashlib

import httpx2

from examples.backend.fakes.telephony import recording_of
from tests.examples.backend_process import assert_error, everywhere, fresh_sid, wait_until


def test_a_provider_that_fails_twice_then_well_is_retried_and_counted(server, user):
    before = server.monitoring("retry-stats")
    sid = fresh_sid()
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


@everywhere
def test_a_recording_is_fetched_once(server, user):
    sid = fresh_sid()
    first = user.get(f"/api/recordings/{sid}").json()
    assert first["status"] == "stored"
    assert user.get(f"/api/recordings/{sid}").json() == first
    assert user.get(first["sound"]).content == recording_of(sid)
    assert server.asked_for(sid) == {"calls": 1, "recordings": 1}


@everywhere
def test_a_provider_that_is_down_opens_the_breaker_which_recovers(server, user):
    sid = fresh_sid()
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


@everywhere
def test_a_recording_that_is_not_ready_is_accepted_for_later(server, user):
    sid = fresh_sid()
    call = f"/_control/calls/{sid}"
    nothing = {"RecordingUrl": None, "PreSignedRecordingUrl": None}
    server.provider.put(call, json={**nothing, "Status": "in-progress"})
    answer = user.get(f"/api/recordings/{sid}")
    assert answer.status_code == 202
    assert answer.json()["status"] == "processing"
    assert int(answer.headers["Retry-After"]) >= 1
    url = f"{server.provider_url}/recordings/{sid}.wav"
    server.provider.put(call, json={**nothing, "RecordingUrl": url, "Status": "completed"})
    assert user.get(f"/api/recordings/{sid}").status_code == 200


@everywhere
def test_an_unknown_call_is_not_found(user):
    assert_error(user.get("/api/recordings/nosuchcall"), 404, "RESOURCE_NOT_FOUND")
    assert_error(user.get("/api/recordings/..%2Fsecret.key"), 404, "NOT_FOUND")
    assert_error(user.get("/api/recordings/a.b"), 404, "NOT_FOUND")


@everywhere
def test_recordings_are_for_those_who_are_logged_in(client):
    assert_error(client.get(f"/api/recordings/{fresh_sid()}"), 401, "UNAUTHORIZED")
