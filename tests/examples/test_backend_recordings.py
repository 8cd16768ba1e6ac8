"""Recordings: fetched over real HTTP from the fake provider, with every fault it can have."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import threading

import httpx2
import pytest

from examples.backend.assembly import telephony_policies
from examples.backend.domain.recordings import NotReady, Recordings
from examples.backend.fakes.telephony import Fault, Provider, Server, recording_of
from examples.backend.ports.catalogue import SQLiteCatalogue
from examples.backend.ports.database import Database
from examples.backend.ports.flights import Flights
from examples.backend.ports.objects import FolderObjects
from examples.backend.ports.telephony import HTTPTelephony
from examples.backend.settings import Settings
from resilience import AsyncRetryManager, CircuitOpenError, DeadlineExceeded, ServiceError
from resilience.testing import FakeClock
from tests.examples.backend_process import wait_until

SID = "c0ffee00000000000000000000000001"
SOUND = recording_of(SID)
CALL_ENDED = 1_736_937_000.0  # 2025-01-15 16:00 in India, where the fake's clocks are


@pytest.fixture
def fake():
    server = Server(0, Provider("demo", "demo-key", "demo-token"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Subject:
    """The use cases over real ports, and what watches over them."""

    def __init__(self, fake, folder, **settings):
        self.clock = FakeClock(wall=CALL_ENDED + 60)
        self.settings = Settings(telephony_url=fake.address, telephony_recovery=30.0, **settings)
        retries, self.breaker = telephony_policies(self.settings)
        self.retries = retries.replace(initial_delay=0.001, budget=None)
        self.telephony = HTTPTelephony(self.settings, self.retries, self.breaker)
        self.database = Database(folder / "backend.db")
        self.folder = folder
        self.recordings = Recordings(
            telephony=self.telephony,
            objects=FolderObjects(folder / "objects", AsyncRetryManager(name="object-store")),
            catalogue=SQLiteCatalogue(self.database),
            flights=Flights(),
            downloads=folder / "downloads",
            within=self.settings.recording_deadline,
            patience=self.settings.recording_patience,
            clock=self.clock,
        )

    async def fetch(self, sid=SID):
        return await self.recordings.fetch(sid)

    def leftovers(self):
        return [file for file in self.folder.rglob("*") if file.is_file() and "db" not in file.name]


@pytest.fixture
async def subject_with(fake, tmp_path):
    made = []

    def make(**settings):
        made.append(Subject(fake, tmp_path, **settings))
        return made[-1]

    yield make
    for subject in made:
        await subject.telephony.close()
        subject.database.close()


@pytest.fixture
def subject(subject_with):
    return subject_with()


async def test_a_recording_is_brought_into_the_store_once(subject, fake):
    recording = await subject.fetch()
    assert recording.sound.size == len(SOUND)
    assert recording.sound.sha256 == hashlib.sha256(SOUND).hexdigest()
    assert recording.call.started_at == CALL_ENDED
    assert b"".join([piece async for piece in await subject.recordings.sound(recording)]) == SOUND
    again = await subject.fetch()
    assert (again.sound, again.object_key) == (recording.sound, recording.object_key)
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}


@pytest.mark.parametrize("fault", [Fault(status=503, next=2), Fault(cut=True, next=2)], ids=["503", "cut"])
async def test_a_passing_fault_is_retried(subject, fake, fault):
    fake.provider.add_fault(fault)
    assert (await subject.fetch()).sound.size == len(SOUND)
    assert subject.retries.stats().total_retries == 2
    assert subject.retries.stats().successful_retries == 1


async def test_a_torn_download_is_begun_anew_and_leaves_nothing(subject, fake):
    fake.provider.add_fault(Fault(on="recordings", cut=True, next=1))
    recording = await subject.fetch()
    assert recording.sound.sha256 == hashlib.sha256(SOUND).hexdigest()
    assert [file.name for file in subject.leftovers()] == [recording.sound.sha256]


async def test_fetches_of_one_recording_at_the_same_time_share_one_download(subject, fake):
    recordings = await asyncio.gather(*(subject.fetch() for _ in range(10)))
    assert len({(recording.object_key, recording.stored_at) for recording in recordings}) == 1
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}
    assert len(subject.leftovers()) == 1


async def test_those_who_share_a_fetch_share_its_failure_and_the_next_begins_anew(subject, fake):
    fake.provider.add_fault(Fault(status=400, next=1))
    outcomes = await asyncio.gather(subject.fetch(), subject.fetch(), return_exceptions=True)
    assert [outcome.status for outcome in outcomes] == [502, 502]
    assert fake.provider.requests() == {"calls": 1}
    assert (await subject.fetch()).sound.size == len(SOUND)


async def test_who_leaves_a_shared_fetch_does_not_end_it_for_the_others(subject, fake):
    fake.provider.add_fault(Fault(on="recordings", delay=0.1))
    first, second = (asyncio.create_task(subject.fetch()) for _ in range(2))
    await asyncio.to_thread(wait_until, lambda: "recordings" in fake.provider.requests())
    first.cancel()
    assert (await second).sound.size == len(SOUND)
    assert first.cancelled()
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}


async def test_a_fetch_that_fails_after_all_have_left_is_no_complaint_in_the_log(subject, fake, caplog):
    fake.provider.add_fault(Fault(status=400, delay=0.05, next=1))
    only = asyncio.create_task(subject.fetch())
    await asyncio.to_thread(wait_until, fake.provider.requests)
    only.cancel()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    del only  # it holds on to the fetch, and asyncio complains when that is forgotten
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_two_processes_that_fetch_one_recording_agree_on_it(subject_with):
    subjects = subject_with(), subject_with()
    one, other = await asyncio.gather(*(subject.fetch() for subject in subjects))
    assert (one.object_key, one.stored_at) == (other.object_key, other.stored_at)
    assert len(subjects[0].leftovers()) == 1


async def test_what_a_killed_process_left_unfinished_is_removed_and_nothing_younger(subject_with, tmp_path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for name, written_at in (("abandoned", CALL_ENDED - 3600), ("another process's", CALL_ENDED + 60)):
        (downloads / name).write_bytes(SOUND)
        os.utime(downloads / name, (written_at, written_at))
    subject = subject_with()
    assert [file.name for file in subject.leftovers()] == ["another process's"]


async def test_the_details_of_another_call_are_refused(subject, fake):
    fake.provider.change_call(SID, {"Sid": "../../etc"})
    with pytest.raises(ServiceError) as caught:
        await subject.fetch()
    assert caught.value.status == 502


async def test_an_unknown_call_is_not_found_and_says_nothing_against_the_provider(subject):
    for _ in range(10):
        with pytest.raises(ServiceError) as caught:
            await subject.fetch("unknown")
        assert caught.value.status == 404
    assert subject.breaker.snapshot().state == "closed"


@pytest.mark.parametrize(
    "details", [{"RecordingUrl": None}, {"RecordingUrl": "", "Status": "in-progress", "EndTime": None}]
)
async def test_a_recording_that_is_not_there_yet_is_no_failure(subject, fake, details):
    fake.provider.change_call(SID, details)
    pending = await subject.fetch()
    assert isinstance(pending, NotReady)
    assert pending.retry_after > 0
    assert subject.retries.stats().total_retries == 0


async def test_a_recording_whose_file_is_not_there_yet_is_no_failure(subject, fake):
    fake.provider.add_fault(Fault(on="recordings", status=404))
    assert isinstance(await subject.fetch(), NotReady)
    assert not subject.leftovers()


@pytest.mark.parametrize("details", [{"Status": "busy"}, {"EndTime": "2025-01-15 15:40:00"}])
async def test_a_recording_that_will_never_come_is_not_found(subject, fake, details):
    fake.provider.change_call(SID, {"RecordingUrl": None, **details})
    with pytest.raises(ServiceError, match="Recording not found"):
        await subject.fetch()


async def test_a_provider_that_is_down_opens_the_breaker(subject, fake):
    fake.provider.add_fault(Fault(status=500))
    for _ in range(5):
        with pytest.raises(ServiceError) as caught:
            await subject.fetch()
        assert caught.value.status == 503
    with pytest.raises(CircuitOpenError) as rejected:
        await subject.fetch()
    assert 0 < rejected.value.retry_after <= 33.0
    asked = fake.provider.requests()["calls"]
    with pytest.raises(CircuitOpenError):
        await subject.fetch()
    assert fake.provider.requests()["calls"] == asked


async def test_a_provider_that_asks_to_wait_too_long_is_not_asked_again(subject_with, fake):
    subject = subject_with(recording_deadline=1.0)
    fake.provider.add_fault(Fault(status=429, retry_after="60"))
    with pytest.raises(ServiceError) as caught:
        await subject.fetch()
    assert (caught.value.status, caught.value.retry_after) == (503, 60.0)
    assert fake.provider.requests() == {"calls": 1}


async def test_a_silent_provider_costs_no_more_than_the_deadline(subject_with, fake):
    subject = subject_with(recording_deadline=0.2, telephony_timeout=5.0)
    fake.provider.add_fault(Fault(delay=1.0))
    with pytest.raises(DeadlineExceeded):
        await subject.fetch()


async def test_a_provider_that_is_too_slow_opens_the_breaker(subject_with, fake):
    subject = subject_with(recording_deadline=0.02)
    fake.provider.add_fault(Fault(delay=0.1))
    for _ in range(5):
        with pytest.raises(DeadlineExceeded):
            await subject.fetch()
    with pytest.raises(CircuitOpenError):
        await subject.fetch()


async def test_fault_64_a_byte_at_a_time_is_ended_by_the_deadline(subject_with, fake):
    subject = subject_with(recording_deadline=0.3)
    fake.provider.add_fault(Fault(on="recordings", trickle=0.02, next=1))
    with pytest.raises(DeadlineExceeded):
        await subject.fetch()
    assert not subject.leftovers()


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:1/recordings/x.wav",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "//example.com/x.wav",
        "http://user@example.com/x.wav",
        "not a url",
        "http://[",
        17,
    ],
)
async def test_a_recording_is_taken_from_allowed_hosts_only(subject, fake, url):
    fake.provider.change_call(SID, {"RecordingUrl": url})
    with pytest.raises(ServiceError) as caught:
        await subject.fetch()
    assert caught.value.status == 502
    assert "recordings" not in fake.provider.requests()


async def test_a_recording_that_comes_in_small_pieces_is_a_recording_too(subject, fake, monkeypatch):
    monkeypatch.setattr("examples.backend.fakes.telephony.recording_of", lambda _: SOUND[:100])
    fake.provider.add_fault(Fault(on="recordings", trickle=0.0005))
    assert (await subject.fetch()).sound.size == 100


async def test_a_redirect_is_not_followed(subject, fake):
    elsewhere = f"{fake.address}/recordings/{SID}.wav"
    fake.provider.add_fault(Fault(on="recordings", status=302, location=elsewhere, next=1))
    with pytest.raises(ServiceError) as caught:
        await subject.fetch()
    assert caught.value.status == 502
    assert fake.provider.requests()["recordings"] == 1


async def test_a_recording_longer_than_allowed_is_refused_and_not_kept(subject_with):
    subject = subject_with(recording_max_size=1000)
    with pytest.raises(ServiceError) as caught:
        await subject.fetch()
    assert caught.value.status == 502
    assert not subject.leftovers()


async def test_what_is_no_sound_is_refused_without_a_retry(subject, fake):
    fake.provider.add_fault(Fault(on="recordings", content_type="text/html"))
    with pytest.raises(ServiceError) as caught:
        await subject.fetch()
    assert caught.value.status == 502
    assert fake.provider.requests()["recordings"] == 1
    assert not subject.leftovers()


@pytest.mark.parametrize(
    "details",
    [
        {"Duration": "long"},
        {"Duration": [17]},
        {"Duration": str(2**70)},
        {"StartTime": "yesterday"},
        {"StartTime": 5},
        {"EndTime": "0001-01-01 00:00:00"},
        {"From": "\ud800"},
    ],
)
async def test_details_that_cannot_be_read_are_the_providers_failure(subject, fake, details):
    fake.provider.change_call(SID, details)
    with pytest.raises(ServiceError) as caught:
        await subject.fetch()
    assert caught.value.status == 502


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_a_fake_that_is_told_nonsense_says_so(fake, body):
    assert httpx2.post(f"{fake.address}/_control/faults", content=body).status_code == 400
    assert httpx2.put(f"{fake.address}/_control/calls/{SID}", content=body).status_code == 400
    assert httpx2.post(f"{fake.address}/_control/faults", json={"stauts": 503}).status_code == 400


async def test_our_wrong_password_is_a_failure_of_ours_and_opens_no_breaker(subject_with):
    subject = subject_with(telephony_token="wrong")
    for _ in range(10):
        with pytest.raises(ServiceError) as caught:
            await subject.fetch()
        assert caught.value.status == 502
    assert subject.breaker.snapshot().state == "closed"
