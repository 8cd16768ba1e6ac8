"""The object store: what is put is there, whole and once, whatever S3 answers; one attempt is one request."""

from __future__ import annotations

import hashlib

import httpx2
import pytest

from examples.backend.fakes.process import started
from examples.backend.fakes.telephony import recording_of
from examples.backend.ports import objects as port
from resilience import CircuitOpenError, ServiceError
from tests.examples.recordings_house import KITS, House, start_provider, stop_provider

NUMBERS = iter(range(1, 10_000))


@pytest.fixture(scope="module")
def fake():
    server = start_provider()
    yield server
    stop_provider(server)


@pytest.fixture(scope="module")
def address():
    with started("storage") as address:
        yield address


class Control:
    """The S3 stand-in's controls."""

    def __init__(self, client):
        self._client = client

    def fault(self, **fault):
        assert self._client.post("/_control/faults", json=fault).status_code == 200

    def heal(self):
        self._client.delete("/_control/faults")

    def objects(self, sid):
        stored = self._client.get("/_control/objects").json()
        return {key: about for key, about in stored.items() if sid in key}

    def requests(self, sid):
        subjects = self._client.get("/_control/subjects").json()
        found = [counts for subject, counts in subjects.items() if sid in subject]
        return found[0] if found else {}


@pytest.fixture
def control(address):
    with httpx2.Client(base_url=address, timeout=10.0) as client:
        control = Control(client)
        yield control
        control.heal()


@pytest.fixture(params=KITS)
async def house(request, fake, tmp_path, address):
    house = House(
        fake, tmp_path, request.param,
        storage_url=address, storage_key="demo-key", storage_secret="demo-secret",
    )  # fmt: skip
    yield house
    await house.close()


@pytest.fixture
def sid():
    return f"c0ffee{next(NUMBERS):026x}"


def whole(sid):
    sound = recording_of(sid)
    return {"size": len(sound), "sha256": hashlib.sha256(sound).hexdigest()}


async def test_one_put_is_one_request_and_one_look(house, control, sid):
    recording = await house.fetch(sid)
    assert control.objects(sid) == {recording.object_key: whole(sid)}
    assert control.requests(sid) == {"PUT": 1, "HEAD": 1}


PASSING = ["slow-down", "unavailable", "internal-error", "reset", "late-error", "late-reset", "rate"]


@pytest.mark.parametrize("kind", PASSING)
async def test_fault_63_an_upload_that_fails_is_made_again_and_arrives_whole(house, control, sid, kind):
    control.fault(on="PUT", kinds=[kind], next=1)
    recording = await house.fetch(sid)
    assert control.objects(sid) == {recording.object_key: whole(sid)}
    assert control.requests(sid) == {"PUT": 2, "HEAD": 1}
    assert house.retries["object-store"].stats().total_retries == 1


async def test_fault_63_an_upload_that_goes_on_failing_is_given_up_within_bounds(house, control, sid):
    control.fault(on="PUT", kinds=["slow-down"])
    with pytest.raises(ServiceError) as caught:
        await house.fetch(sid)
    assert (caught.value.status, control.requests(sid)) == (503, {"PUT": 3})
    assert control.objects(sid) == {}
    control.heal()
    await house.announce(sid)
    await house.settle()
    assert house.state(sid) == "stored"
    assert list(control.objects(sid).values()) == [whole(sid)]


@pytest.mark.parametrize("kind", [None, "internal-error"])
async def test_fault_63_a_long_recording_is_put_in_pieces_and_looked_at(
    house, control, sid, monkeypatch, kind
):
    monkeypatch.setattr(port, "PIECE", 5 * 1024 * 1024)
    sound = recording_of(sid) * 170  # more than a piece, however short the call
    monkeypatch.setattr("examples.backend.fakes.telephony.recording_of", lambda _: sound)
    if kind:
        control.fault(on="PUT", kinds=[kind], next=1)  # one of the pieces
    recording = await house.fetch(sid)
    about = {"size": len(sound), "sha256": hashlib.sha256(sound).hexdigest()}
    assert control.objects(sid) == {recording.object_key: about}
    assert control.requests(sid)["POST"] >= 2  # begun and completed
    assert control.requests(sid)["HEAD"] == 1


async def test_an_object_that_is_not_what_was_put_is_no_success(house, control, sid, monkeypatch):
    true_head = port.obstore.head
    monkeypatch.setattr(port.obstore, "head", lambda *_: true_head(*_) | {"e_tag": '"' + "0" * 32 + '"'})
    with pytest.raises(ServiceError) as caught:
        await house.fetch(sid)
    assert caught.value.status == 503

    def lost(*_):
        raise FileNotFoundError("gone")

    monkeypatch.setattr(port.obstore, "head", lost)
    with pytest.raises(ServiceError) as caught:
        await house.fetch(sid)
    assert caught.value.status == 503
    assert house.state(sid) is None


async def test_a_clock_that_is_wrong_is_said_and_not_retried(house, control, sid, caplog):
    control.fault(kinds=["skew"], next=1)
    with pytest.raises(ServiceError) as caught:
        await house.fetch(sid)
    assert (caught.value.status, control.requests(sid)) == (502, {"PUT": 1})
    assert "mend the clock" in caplog.text
    await house.announce(sid)
    await house.settle()
    assert house.state(sid) == "stored"


async def test_a_store_that_locks_us_out_is_left_alone_for_minutes(house, control, sid):
    control.fault(kinds=["lockout"])
    with pytest.raises(ServiceError) as caught:
        await house.fetch(sid)
    assert caught.value.status == 503
    assert control.requests(sid) == {"PUT": 1}
    with pytest.raises(CircuitOpenError) as rejected:
        await house.fetch(sid)
    assert 290.0 < rejected.value.retry_after <= 330.0
    assert control.requests(sid) == {"PUT": 1}
    await house.announce(sid)
    await house.work()
    assert house.job(sid)["attempts"] == 0
    assert house.job(sid)["not_before"] - house.clock.wall() > 290.0
    snapshots = {breaker.name: breaker.snapshot().state for breaker in house.bringing.breakers}
    assert snapshots == {"object-store-lockout": "open"}
    assert house.breakers["object-store"].snapshot().state == "closed"


async def test_our_wrong_secret_is_a_failure_of_ours(fake, tmp_path, address, control, sid):
    house = House(fake, tmp_path, storage_url=address, storage_key="demo-key", storage_secret="wrong")
    with pytest.raises(ServiceError) as caught:
        await house.fetch(sid)
    assert (caught.value.status, control.requests(sid)) == (502, {"PUT": 1})
    await house.announce(sid)
    await house.work()
    assert house.state(sid) == "expected"  # mended, it will be brought
    await house.close()


async def test_a_store_that_is_down_opens_its_breaker(house, control, sid):
    control.fault(kinds=["unavailable"])
    for _ in range(5):
        with pytest.raises(ServiceError):
            await house.fetch(sid)
    assert house.breakers["object-store"].snapshot().state == "open"
    assert house.breakers["telephony"].snapshot().state == "closed"


async def test_a_recording_can_be_heard_and_handed_on(house, sid):
    recording = await house.fetch(sid)

    async def hear(part=None):
        return b"".join([piece async for piece in await house.recordings.sound(recording, part)])

    assert await house.run(hear()) == recording_of(sid)
    assert await house.run(hear(range(44, 144))) == recording_of(sid)[44:144]
    url = await house.run(house.recordings.url(recording))
    answer = httpx2.get(url)
    assert answer.content == recording_of(sid)
    assert answer.headers["Content-Type"] == "audio/x-wav"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{sid}.wav"'
    assert httpx2.get(url.replace("X-Amz-Signature=", "X-Amz-Signature=0")).status_code == 403


async def test_a_slow_listener_hears_all_though_the_store_fails_meanwhile(house, control, sid, monkeypatch):
    monkeypatch.setattr(port, "STRETCH", 10_000)
    monkeypatch.setattr(port, "SLICE", 3_000)
    recording = await house.fetch(sid)
    sound = recording_of(sid)
    heard = []

    async def hear():
        async for piece in await house.recordings.sound(recording):
            heard.append(piece)
            if len(heard) == 5:  # in the middle of it
                control.fault(kinds=["torn"], next=1)
                control.fault(kinds=["unavailable"], next=1)

    await house.run(hear())
    assert b"".join(heard) == sound
    assert max(map(len, heard)) == 3_000
    assert control.requests(sid)["GET"] == -(-len(sound) // 10_000) + 2


async def test_who_stops_listening_costs_the_store_no_more(house, control, sid, monkeypatch):
    monkeypatch.setattr(port, "STRETCH", 10_000)
    recording = await house.fetch(sid)

    async def hear():
        pieces = await house.recordings.sound(recording)
        await anext(pieces)
        await pieces.aclose()

    await house.run(hear())
    assert control.requests(sid)["GET"] == 1


async def test_deleting_removes_whatever_lies_there_of_the_call_and_nothing_else(house, control, sid):
    recording = await house.fetch(sid)
    neighbour = f"c0ffee{next(NUMBERS):026x}"
    await house.fetch(neighbour)
    await house.run(house.recordings.delete(sid, "ours"))
    await house.settle()
    assert control.objects(sid) == {}
    assert len(control.objects(neighbour)) == 1
    with pytest.raises(ServiceError) as caught:
        await house.run(house.recordings.sound(recording))
    assert caught.value.status == 404
