"""The fake telephony provider: the real one's shapes, and faults as told."""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
from standardwebhooks import Webhook

from examples.backend.fakes.process import started
from resilience.testing import wait_until

LOGIN = ("demo-key", "demo-token")


@pytest.fixture(scope="module")
def address():
    with started("telephony", "--calls", "3") as address:
        yield address


@pytest.fixture
def provider(address):
    """A client that is logged in; the provider is well before and after."""
    with httpx2.Client(base_url=address, auth=LOGIN, timeout=10.0) as client:
        yield client
        client.delete("/_control/faults")
        client.put("/_control/knobs", json={"limit": None, "minute": 60.0, "ready_after": 0.0})


def place(provider, **wanted):
    answer = provider.post("/_control/calls", json=wanted)
    assert answer.status_code == 200, answer.text
    return answer.json()["sids"]


def details(provider, sid, **query):
    return provider.get(f"/v1/Accounts/demo/Calls/{sid}.json", params={"details": "true", **query})


def calls(provider, **query):
    return provider.get("/v1/Accounts/demo/Calls.json", params=query)


def test_a_placed_call_has_details_as_strings_and_a_recording(provider):
    (sid,) = place(provider)
    call = details(provider, sid).json()["Call"]
    began, ended = (datetime.fromisoformat(call[name]) for name in ("StartTime", "EndTime"))
    assert abs((ended - began).total_seconds() - int(call["Duration"])) <= 1
    assert began.tzinfo is None
    assert call["Status"] == "completed"
    sound = provider.get(call["RecordingUrl"])
    assert sound.content.startswith(b"RIFF")
    known = provider.get("/_control/calls").json()[sid]
    assert known["sha256"] == hashlib.sha256(sound.content).hexdigest()
    assert known["size"] == len(sound.content)


def test_who_is_not_logged_in_is_refused(provider):
    (sid,) = place(provider)
    with httpx2.Client(base_url=provider.base_url, auth=("demo-key", "wrong")) as stranger:
        assert details(stranger, sid).status_code == 401
        assert calls(stranger).json()["RestException"]["Status"] == 401
        assert stranger.get(f"/recordings/{sid}.wav").status_code == 401


def test_calls_that_there_are_not(provider):
    assert details(provider, "0" * 32).status_code == 404
    assert provider.get("/v1/Accounts/other/Calls.json").status_code == 404
    assert provider.get("/elsewhere").status_code == 404
    (sid,) = place(provider, status="busy")
    assert details(provider, sid).json()["Call"]["RecordingUrl"] is None
    assert provider.get(f"/recordings/{sid}.wav").status_code == 404


def test_a_list_is_paged_both_ways_and_new_calls_do_not_shift_it(provider):
    began = datetime.fromisoformat("2025-06-01 00:00:00")
    ago = datetime.now().astimezone().timestamp() - began.timestamp()
    sids = place(provider, count=7, ended_ago=ago)
    between = f"gte:{began - timedelta(days=2)};lte:{began + timedelta(days=2)}"
    page = calls(provider, DateCreated=between, PageSize=3).json()
    assert page["Metadata"]["Total"] == 7
    assert page["Metadata"]["PrevPageUri"] is None
    place(provider, ended_ago=ago - 60)
    seen, pages = list(page["Calls"]), [page]
    while address := page["Metadata"]["NextPageUri"]:
        page = provider.get(address).json()
        pages.append(page)
        seen += page["Calls"]
    assert sorted(call["Sid"] for call in seen) == sorted(sids)
    back = provider.get(pages[2]["Metadata"]["PrevPageUri"]).json()
    assert back["Calls"] == pages[1]["Calls"]
    upwards = calls(provider, DateCreated=between, SortBy="DateCreated:asc").json()["Calls"]
    assert [call["Sid"] for call in upwards[:7]] == [call["Sid"] for call in reversed(seen)]


def test_a_list_is_filtered(provider):
    done, busy = place(provider) + place(provider, status="busy")
    assert [call["Sid"] for call in calls(provider, Status="busy", Sid=f"{done},{busy}").json()["Calls"]] == [
        busy
    ]
    future = f"gte:{datetime.now().astimezone() + timedelta(days=2):%Y-%m-%d %H:%M:%S}"
    assert calls(provider, DateCreated=future).json()["Calls"] == []
    assert calls(provider, DateCreated=future).json()["Metadata"]["NextPageUri"] is None
    (going_on,) = place(provider, status="in-progress")
    assert calls(provider, Sid=going_on).json()["Calls"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"PageSize": "0"},
        {"PageSize": "101"},
        {"PageSize": "many"},
        {"After": "nowhere"},
        {"DateCreated": "eq:2025-01-01 00:00:00"},
        {"DateCreated": "gte:yesterday"},
        {"RecordingUrlValidity": "4"},
        {"RecordingUrlValidity": "61"},
    ],
)
def test_a_query_that_cannot_be_read_is_refused(provider, query):
    assert calls(provider, **query).json()["RestException"]["Status"] == 400


def test_a_presigned_address_needs_no_login_until_it_expires(provider):
    provider.put("/_control/knobs", json={"minute": 0.1})
    (sid,) = place(provider)
    url = details(provider, sid, RecordingUrlValidity="5").json()["Call"]["PreSignedRecordingUrl"]
    assert httpx2.get(url).content.startswith(b"RIFF")
    assert "SignatureDoesNotMatch" in httpx2.get(f"{url}0").text
    wait_until(lambda: httpx2.get(url).status_code == 403, 10.0)
    assert "Request has expired" in httpx2.get(url).text
    again = details(provider, sid, RecordingUrlValidity="60").json()["Call"]["PreSignedRecordingUrl"]
    assert httpx2.get(again).status_code == 200
    listed = calls(provider, Sid=sid, RecordingUrlValidity="60").json()["Calls"][0]
    assert httpx2.get(listed["PreSignedRecordingUrl"]).status_code == 200


def test_a_recording_is_there_only_some_time_after_the_call(provider):
    (sid,) = place(provider, ready_after=0.3)
    call = details(provider, sid, RecordingUrlValidity="5").json()["Call"]
    assert (call["Status"], call["RecordingUrl"], call["PreSignedRecordingUrl"]) == ("completed", None, None)
    assert provider.get(f"/recordings/{sid}.wav").status_code == 404
    wait_until(lambda: details(provider, sid).json()["Call"]["RecordingUrl"] is not None, 10.0)
    assert provider.get(f"/recordings/{sid}.wav").status_code == 200


def test_the_limit_is_told_and_kept(provider):
    provider.put("/_control/knobs", json={"limit": 3, "minute": 1.0})
    (sid,) = place(provider)
    answers = [details(provider, sid) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["2", "1", "0", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert abs(int(answers[3].headers["X-RateLimit-Reset"]) - time.time()) < 3
    assert answers[3].headers["Retry-After"] == "1"
    assert provider.get(f"/recordings/{sid}.wav").status_code == 200
    wait_until(lambda: details(provider, sid).status_code == 200, 10.0)


def fault(provider, **wanted):
    answer = provider.post("/_control/faults", json=wanted)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_statuses_by_kind(provider, status):
    (sid,) = place(provider)
    fault(provider, kinds=[str(status)], next=1)
    answer = details(provider, sid)
    assert answer.status_code == status
    assert answer.headers.get("Retry-After") == ("1" if status == 429 else None)
    assert details(provider, sid).status_code == 200


def test_recordings_go_wrong_by_kind(provider):
    (sid,) = place(provider)
    path = f"/recordings/{sid}.wav"
    fault(provider, kinds=["expired"], next=1)
    assert details(provider, sid).status_code == 200, "details do not expire"
    assert provider.get(path).status_code == 403
    fault(provider, kinds=["wrong-type"], next=1)
    assert provider.get(path).headers["Content-Type"] == "text/html"
    fault(provider, kinds=["torn"], next=1)
    with pytest.raises(httpx2.RemoteProtocolError):
        provider.get(path)
    fault(provider, kinds=["reset"], next=1)
    with pytest.raises(httpx2.TransportError):
        provider.get(path)
    fault(provider, kinds=["wrong-length"], next=1)
    with pytest.raises(httpx2.ReadTimeout):
        provider.get(path, timeout=0.2)
    fault(provider, slow=0.2, next=1)
    began = time.monotonic()
    assert provider.get(path).content == provider.get(path).content
    assert time.monotonic() - began >= 0.2
    fault(provider, kinds=["hang"], next=1)
    with pytest.raises(httpx2.ReadTimeout):
        provider.get(path, timeout=0.1)
    struck = provider.get("/_control/faults").json()
    assert struck.keys() >= {"expired", "wrong-type", "torn", "reset", "wrong-length", "as told", "hang"}


def test_chance_depends_on_the_seed_and_the_call_only(provider):
    def outcomes(sids):
        fault(provider, rate=0.5, seed=7, kinds=["500", "503"])
        answered = {sid: [details(provider, sid).status_code for _ in range(4)] for sid in sids}
        provider.delete("/_control/faults")
        return answered

    one = ["c0ffee" + f"{number:026x}" for number in range(1000, 1010)]
    first = outcomes(one)
    with started("telephony") as another, httpx2.Client(base_url=another, auth=LOGIN) as other:
        fault(other, rate=0.5, seed=7, kinds=["500", "503"])
        second = {sid: [details(other, sid).status_code for _ in range(4)] for sid in reversed(one)}
    assert first == second
    assert {status for statuses in first.values() for status in statuses} == {200, 500, 503}


@pytest.mark.parametrize("wanted", [{"kinds": ["no-such"]}, {"rate": 1.5}, {"next": 0}, {"no_such_field": 1}])
def test_a_fault_that_could_not_strike_is_refused(provider, wanted):
    assert provider.post("/_control/faults", json=wanted).status_code == 400


def test_a_control_request_that_makes_no_sense_is_refused(provider):
    assert provider.get("/_control/nothing").status_code == 404
    assert provider.post("/_control/faults", content=b"[]").status_code == 400
    assert provider.post("/_control/faults", content=b"{").status_code == 400
    assert provider.post("/_control/calls", json={"count": 0}).status_code == 400
    assert provider.put("/_control/knobs", json={"no_such": 1}).status_code == 400


def test_requests_are_counted_for_each_call(provider):
    (sid,) = place(provider)
    before = provider.get("/_control/requests").json()
    details(provider, sid)
    details(provider, sid)
    provider.get(f"/recordings/{sid}.wav")
    after = provider.get("/_control/requests").json()
    assert after["calls"] - before.get("calls", 0) == 2
    assert provider.get("/_control/subjects").json()[sid] == {"calls": 2, "recordings": 1}


def test_calls_to_begin_with_are_spread_over_the_last_day(provider):
    listed = calls(provider, PageSize=100, SortBy="DateCreated:asc").json()["Calls"]
    began = [datetime.fromisoformat(call["DateCreated"]) for call in listed]
    assert len({instant.replace(minute=0, second=0) for instant in began[-30:]}) >= 3


# --- webhooks ------------------------------------------------------------------------------------


class Receiver:
    """Takes deliveries; the first `refusals` of them are answered 500."""

    def __init__(self, refusals=0):
        outer = self
        self.taken = []
        self.refusals = refusals

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.taken.append((dict(self.headers), body))
                outer.refusals -= 1
                self.send_response(500 if outer.refusals >= 0 else 200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def test_webhooks_come_twice_in_disorder_or_not_at_all(provider):
    with Receiver() as receiver:
        webhook = {"url": receiver.url, "copies": 2, "spread": 0.3, "lost": 0.2, "seed": 3}
        sids = place(provider, count=20, webhook=webhook)
        wait_until(lambda: provider.get("/_control/deliveries").json()["pending"] == 0, 10.0)
        counts = provider.get("/_control/deliveries").json()
        assert counts["lost"] > 0
        assert len(receiver.taken) == 2 * (20 - counts["lost"])
        told = [httpx2.Response(200, content=body).json() for _, body in receiver.taken]
        assert set(told[0]) == {"CallSid", "DateUpdated", "Status", "RecordingUrl"}
        order = [event["CallSid"] for event in told]
        assert set(order) <= set(sids)
        assert order != sorted(order, key=sids.index)


def test_a_webhook_that_is_refused_is_delivered_again_and_may_be_a_form(provider):
    with Receiver(refusals=1) as receiver:
        (sid,) = place(provider, webhook={"url": receiver.url, "form": True})
        wait_until(lambda: len(receiver.taken) == 2, 10.0)
        headers, body = receiver.taken[1]
        assert headers["Content-Type"] == "application/x-www-form-urlencoded"
        assert f"CallSid={sid}".encode() in body


def test_a_webhook_is_signed_if_there_is_a_secret(provider):
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    with Receiver() as receiver:
        place(provider, webhook={"url": receiver.url, "secret": secret})
        wait_until(lambda: receiver.taken, 10.0)
        headers, body = receiver.taken[0]
        Webhook(secret).verify(body, headers)
