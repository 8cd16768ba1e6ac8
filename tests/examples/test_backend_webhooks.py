"""Webhooks: taken at once, whatever comes and in whatever order; believed only where they are signed."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook

from examples.backend.assembly import derived
from examples.backend.domain.tenants import SigningSecrets
from examples.backend.domain.tokens import hash_of
from examples.backend.domain.webhooks import EVENTS_KEPT, KEPT
from examples.backend.fakes.telephony import Fault
from examples.backend.ports.signatures import StandardSignatures
from examples.backend.ports.tables import call_events, calls, deliveries, jobs
from resilience import RateLimitedError, ServiceError
from tests.examples.backend_process import assert_error, fresh_sid, wait_until
from tests.examples.recordings_house import SECRET, House

ROOT = Path(__file__).parent.parent.parent
SID = "c0ffee00000000000000000000000001"
BODY = json.dumps({"type": "call.completed", "data": {"callSid": SID}}).encode()


# --- deliveries ----------------------------------------------------------------------------------


async def test_fault_68_a_delivery_that_comes_twice_or_fifty_times_at_once_counts_once(house, fake):
    news = await asyncio.gather(*(house.announce(SID, updated="now") for _ in range(50)))
    assert sum(news) == 1
    await house.settle()
    assert [row["state"] for row in house.rows(calls)] == ["stored"]
    assert len(house.rows(call_events)) == 1
    assert house.told(SID) == ["expected", "fetching", "stored"]
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}


DELIVERIES = [
    ("completed", "16:05"),
    ("completed", "16:06"),
    ("no-answer", "16:01"),
    ("failed", ""),
    ("busy", ""),
]
STEPS = st.lists(st.sampled_from([*DELIVERIES, "work"]), max_size=12)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=STEPS)
async def test_fault_69_any_order_of_deliveries_ends_in_the_same_state(fake, tmp_path_factory, steps):
    house = House(fake, tmp_path_factory.mktemp("order"))
    try:
        for step in [*steps, DELIVERIES[0]]:
            if step == "work":
                await house.work()
            else:
                await house.announce(SID, status=step[0], updated=step[1])
        await house.settle()
        (call,) = house.rows(calls)
        assert (call["state"], call["status"], call["failure"]) == ("stored", "completed", None)
        assert house.told(SID) == ["expected", "fetching", "stored"]
        assert house.rows(jobs) == []
    finally:
        await house.close()


async def test_a_delivery_is_taken_whatever_the_provider_is_like(house, fake):
    fake.provider.add_fault(Fault(delay=30.0, reset=True))
    house.breakers["telephony"].force_open()
    assert await house.announce(SID)
    assert fake.provider.requests() == {}


async def test_nothing_in_a_delivery_is_believed(house, fake):
    fake.provider.change_call(
        SID, {"Status": "no-answer", "RecordingUrl": None, "PreSignedRecordingUrl": None}
    )
    await house.announce(SID, status="completed")
    await house.settle()
    assert (house.state(SID), house.call(SID)["status"]) == ("missing", "no-answer")


async def test_asvs_8_4_1_a_delivery_about_another_tenant_s_call_means_nothing(house):
    await house.announce(SID, "theirs")
    await house.settle()
    before = house.call(SID), house.told(SID)
    assert not await house.announce(SID, "ours")
    assert not await house.announce(SID, "ours", delivery="msg_1")
    assert not await house.run(house.webhooks.remove("ours", SID, "msg_2"))
    await house.settle()
    assert (house.call(SID), house.told(SID)) == before


async def test_deliveries_are_limited_by_path_and_tenant(house):
    async def admit(path, times):
        for _ in range(times):
            assert await house.webhooks.admit(path, "secret") == "ours"

    await house.run(admit("telephony", 1000))
    with pytest.raises(RateLimitedError):
        await house.run(admit("telephony", 1))
    await house.run(admit("signed", 1))


async def test_deliveries_that_cannot_come_again_are_forgotten(house):
    await house.announce(SID, delivery="msg_1")
    house.clock.advance(KEPT + 1)
    await house.run(house.webhooks.forget())
    assert (house.rows(deliveries), len(house.rows(call_events))) == ([], 1)
    house.clock.advance(EVENTS_KEPT)
    await house.run(house.webhooks.forget())
    assert house.rows(call_events) == []


# --- signatures ----------------------------------------------------------------------------------


def signed(body=BODY, secret=SECRET, at=None, delivery="msg_1"):
    """Return the headers of a delivery that was signed `at` this Unix time."""
    instant = dt.datetime.fromtimestamp(time.time() if at is None else at, tz=dt.UTC)
    signature = Webhook(secret).sign(delivery, instant, body.decode())
    return {
        "webhook-id": delivery,
        "webhook-timestamp": str(int(instant.timestamp())),
        "webhook-signature": signature,
    }


def check(headers, body=BODY, secret=SECRET):
    return StandardSignatures().check(secret, body, headers)


def test_a_signed_delivery_is_known_by_its_id():
    assert check(signed()) == "msg_1"


def test_one_of_several_signatures_is_enough_while_a_secret_is_changed():
    headers = signed()
    headers["webhook-signature"] = f"v1,{base64.b64encode(b'x' * 32).decode()} {headers['webhook-signature']}"
    assert check(headers) == "msg_1"


FORGED = {
    "missing": None,
    "empty": "",
    "short": "v1,YQ==",
    "no version": "YQ==",
    "another version": "v2,YQ==",
    "no base64": "v1,§",
    "non-ascii": "v1,\xe9\u20ac",
    "two commas": "v1,a,b",
    "odd length": "v1,abc",
    "long": "v1," + "A" * 10_000,
    "nul": "v1,\0",
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_fault_71_a_signature_that_is_none_is_refused(header, forged):
    headers = {**signed(), header: forged}
    with pytest.raises(ServiceError) as caught:
        check(headers)
    assert caught.value.status == 401


def test_fault_71_without_a_secret_nothing_is_signed():
    with pytest.raises(ServiceError) as caught:
        check(signed(), secret="")
    assert caught.value.status == 401


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(json.loads(BODY), indent=1).encode(),
        BODY + b"\n",
        BODY.replace(b" ", b""),
        b"",
        b"\xff" + BODY,
    ],
)
def test_fault_71_the_raw_bytes_are_signed(body):
    with pytest.raises(ServiceError) as caught:
        check(signed(), body=body)
    assert caught.value.status == 401


def test_fault_71_signatures_are_compared_in_constant_time(monkeypatch):
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return False

    monkeypatch.setattr("standardwebhooks.webhooks.hmac.compare_digest", compare)
    with pytest.raises(ServiceError):
        check(signed())
    assert [len(one) for one, _ in compared] == [32]


@pytest.mark.parametrize("away", [-301.0, 301.0, -1e9, 1e9])
def test_fault_70_a_replay_outside_the_tolerance_is_refused(away):
    with pytest.raises(ServiceError) as caught:
        check(signed(at=time.time() + away))
    assert caught.value.status == 401


@pytest.mark.parametrize("timestamp", ["NaN", "inf", "1e400", "-1", "0x10", " "])
def test_fault_70_a_time_that_is_none_is_refused(timestamp):
    with pytest.raises(ServiceError) as caught:
        check({**signed(), "webhook-timestamp": timestamp})
    assert caught.value.status == 401


async def test_fault_70_a_known_id_has_no_effect(house, fake):
    assert await house.announce(SID, delivery="msg_1")
    await house.settle()
    assert not await house.announce(SID, delivery="msg_1")
    assert not await house.run(house.webhooks.remove("ours", SID, "msg_1"))  # not even with another meaning
    assert house.state(SID) == "stored"
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}


async def test_a_signed_delivery_has_a_recording_deleted(house):
    await house.announce(SID, delivery="msg_1")
    await house.settle()
    assert await house.run(house.webhooks.remove("ours", SID, "msg_2"))
    await house.settle()
    assert house.state(SID) == "deleted"
    assert house.objects() == {}


# --- from outside --------------------------------------------------------------------------------


def test_fault_71_what_is_not_signed_is_refused_over_http(server):
    """Signed deliveries over HTTP. The signing secret is the demo tenant's, made of the backend's own."""
    key = (server.var / "secret.key").read_bytes()
    secret = SigningSecrets(derived(key, "webhook signatures")).of(hash_of("demo")[:32], 0)
    sid = fresh_sid()
    body = json.dumps({"type": "call.completed", "data": {"callSid": sid}}).encode()
    with server.client() as client:

        def post(headers, content=body, path="/api/webhooks/demo/signed"):
            json_type = {"Content-Type": "application/json"}
            return client.post(path, content=content, headers=headers | json_type)

        good = signed(body, secret, delivery=sid)
        for _ in range(2):
            answer = post(good)
            assert (answer.status_code, answer.json()) == (200, {"accepted": True})
        assert_error(post({**good, "webhook-signature": "v1,YQ=="}), 401, "UNAUTHORIZED")
        assert_error(post({**good, "webhook-signature": "v1,é".encode()}), 401, "UNAUTHORIZED")
        assert_error(post({}), 401, "UNAUTHORIZED")
        assert_error(post(good, body + b" "), 401, "UNAUTHORIZED")
        assert_error(post(signed(body, secret, at=time.time() - 400)), 401, "UNAUTHORIZED")
        assert_error(post(good, path="/api/webhooks/guessed/signed"), 404, "NOT_FOUND")
        nonsense = b'{"type": "call.completed", "data": {"callSid": "../x"}}'
        assert_error(post(signed(nonsense, secret, delivery="2"), nonsense), 400, "VALIDATION_ERROR")
        unknown = b'{"type": "weather.changed", "data": {}}'
        assert post(signed(unknown, secret, delivery="3"), unknown).status_code == 200
        wait_until(lambda: server.asked_for(sid) == {"calls": 1, "recordings": 1})


def test_fault_68_fifty_deliveries_at_once_from_outside(server):
    callback = {"CallSid": fresh_sid(), "Status": "completed", "DateUpdated": "2025-01-15 16:05:00"}
    with server.client() as client, ThreadPoolExecutor(50) as threads:
        answers = threads.map(
            lambda _: client.post("/api/webhooks/demo/telephony", json=callback).status_code, range(50)
        )
        assert set(answers) == {200}
    wait_until(lambda: server.asked_for(callback["CallSid"]) == {"calls": 1, "recordings": 1})


DIES = """
import asyncio, os, signal, sys
from sqlalchemy import event
from examples.backend.domain.webhooks import CallEvent
from examples.backend.ports.call_events import DatabaseCallEvents
from examples.backend.ports.database import Database
from examples.backend.ports.workers import OnThreads

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

url, sid, when = sys.argv[1:]
database = Database(url, OnThreads("The database", threads=1, queue=1))
if when == "before the commit":
    event.listen(database.engine, "commit", die)
news = CallEvent(tenant="ours", call_sid=sid, status="completed", date_updated="", received_at=0.0)
asyncio.run(DatabaseCallEvents(database).add(news))
die()
"""


@pytest.mark.parametrize("when", ["before the commit", "before the answer"])
async def test_fault_72_a_handler_that_dies_leaves_all_or_nothing_and_redelivery_completes_it(
    house, fake, when
):
    died = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", DIES, house.url, SID, when], cwd=ROOT, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert (house.state(SID) is None) == (when == "before the commit")
    assert (house.job(SID) is None) == (house.state(SID) is None)
    assert await house.announce(SID) == (when == "before the commit")  # the provider delivers it again
    await house.settle()
    assert house.told(SID) == ["expected", "fetching", "stored"]
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}
