"""Recordings: fetched over HTTP from the fake provider, with every fault it can have, under both kits."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import shutil

import pytest

from examples.backend.domain.recordings import LISTENERS, NotReady, Position, Search
from examples.backend.fakes.telephony import Fault, recording_of
from examples.backend.ports.tables import calls
from resilience import CircuitOpenError, DeadlineExceeded, RetryBudget, ServiceError
from tests.examples.backend_process import wait_until
from tests.examples.recordings_house import CALL_ENDED, House, start_provider, stop_provider

SID = "c0ffee00000000000000000000000001"
OTHER = "c0ffee00000000000000000000000002"
SOUND = recording_of(SID)
DIGEST = hashlib.sha256(SOUND).hexdigest()


async def refused(coroutine, status):
    with pytest.raises(ServiceError) as caught:
        await coroutine
    assert caught.value.status == status
    return caught.value


# --- fetched on demand ---------------------------------------------------------------------------


async def test_a_recording_is_brought_into_the_store_once(house, fake):
    recording = await house.fetch(SID)
    assert (recording.sound.size, recording.sound.sha256) == (len(SOUND), DIGEST)
    assert recording.call.started_at == CALL_ENDED
    pieces = await house.run(pieces_of(house, recording))
    assert b"".join(pieces) == SOUND
    again = await house.fetch(SID)
    assert again.object_key == recording.object_key
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}
    assert house.downloads() == []


async def pieces_of(house, recording, part=None):
    return [piece async for piece in await house.recordings.sound(recording, part)]


async def test_asvs_5_3_2_an_object_has_a_name_of_our_own_below_its_tenant_s(house):
    recording = await house.fetch(SID)
    assert recording.object_key == f"recordings/ours/{SID}/{DIGEST}"
    assert house.objects() == {recording.object_key: SOUND}


async def test_a_part_of_a_recording_can_be_had(house):
    recording = await house.fetch(SID)
    pieces = await house.run(pieces_of(house, recording, range(100, 200)))
    assert b"".join(pieces) == SOUND[100:200]


async def test_a_full_disk_is_503_and_is_got_over(house, fake, small_disk, caplog):
    disk = small_disk(1)
    shutil.rmtree(house.folder / "downloads")
    (house.folder / "downloads").symlink_to(disk.folder)
    disk.fill()
    error = await refused(house.fetch(SID), 503)
    assert error.retry_after == 60.0
    assert "No space left on device" in caplog.text
    assert house.breakers["telephony"].snapshot().state == "closed"
    assert fake.provider.requests()["recordings"] == 1  # asking again would make no room
    disk.free()
    assert (await house.fetch(SID)).sound.sha256 == DIGEST


async def test_only_so_many_listen_at_a_time_and_each_place_is_given_back(house_with):
    house = house_with(request_threads=8)  # under WSGI, two may listen
    recording = await house.fetch(SID)
    most = house.kit.most_listeners(LISTENERS, 4)
    listening = [await house.run(house.recordings.sound(recording)) for _ in range(most)]
    await refused(house.run(house.recordings.sound(recording)), 503)

    await house.run(listening.pop().aclose())  # one has heard enough
    listening.append(await house.run(house.recordings.sound(recording)))
    await refused(house.run(house.recordings.sound(recording)), 503)
    for hearing in listening:
        await house.run(hearing.aclose())
        await house.run(hearing.aclose())
    assert len([await house.run(house.recordings.sound(recording)) for _ in range(most)]) == most


async def test_what_cannot_be_opened_takes_no_place(house_with):
    house = house_with(request_threads=8)
    recording = await house.fetch(SID)
    (house.folder / "objects" / recording.object_key).unlink()
    for _ in range(LISTENERS + 1):
        await refused(house.run(house.recordings.sound(recording)), 404)


async def test_a_recording_that_the_store_has_lost_is_not_found(house, caplog):
    recording = await house.fetch(SID)
    (house.folder / "objects" / recording.object_key).unlink()
    await refused(house.run(house.recordings.sound(recording)), 404)
    assert "has lost" in caplog.text


@pytest.mark.parametrize("fault", [Fault(status=503, next=2), Fault(cut=True, next=2)], ids=["503", "cut"])
async def test_a_passing_fault_is_retried(house, fake, fault):
    fake.provider.add_fault(fault)
    assert (await house.fetch(SID)).sound.size == len(SOUND)
    stats = house.retries["telephony"].stats()
    assert (stats.total_retries, stats.successful_retries) == (2, 1)


async def test_fault_63_a_torn_download_is_begun_anew_and_leaves_nothing(house, fake):
    fake.provider.add_fault(Fault(on="recordings", cut=True, next=1))
    recording = await house.fetch(SID)
    assert recording.sound.sha256 == DIGEST
    assert house.objects() == {recording.object_key: SOUND}
    assert house.downloads() == []


async def test_fetches_of_one_recording_at_the_same_time_share_one_download(house, fake):
    fake.provider.add_fault(Fault(on="calls", delay=0.2, next=1))
    recordings = await asyncio.gather(*(house.fetch(SID) for _ in range(10)))
    assert len({(recording.object_key, recording.stored_at) for recording in recordings}) == 1
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}


async def test_those_who_share_a_fetch_share_its_failure_and_the_next_begins_anew(house, fake):
    fake.provider.add_fault(Fault(status=400, delay=0.2, next=1))
    outcomes = await asyncio.gather(house.fetch(SID), house.fetch(SID), return_exceptions=True)
    assert [outcome.status for outcome in outcomes] == [502, 502]
    assert fake.provider.requests() == {"calls": 1}
    assert (await house.fetch(SID)).sound.size == len(SOUND)


async def test_who_leaves_a_shared_fetch_does_not_end_it_for_the_others(fake, tmp_path):
    house = House(fake, tmp_path)
    fake.provider.add_fault(Fault(on="recordings", delay=0.1))
    first, second = (asyncio.create_task(house.fetch(SID)) for _ in range(2))
    await asyncio.to_thread(wait_until, lambda: "recordings" in fake.provider.requests())
    first.cancel()
    assert (await second).sound.size == len(SOUND)
    assert first.cancelled()
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}
    await house.close()


async def test_a_fetch_that_fails_after_all_have_left_is_no_complaint_in_the_log(fake, tmp_path, caplog):
    house = House(fake, tmp_path)
    fake.provider.add_fault(Fault(status=400, delay=0.05, next=1))
    only = asyncio.create_task(house.fetch(SID))
    await asyncio.to_thread(wait_until, fake.provider.requests)
    only.cancel()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})
    del only  # it holds on to the fetch, and asyncio complains when that is forgotten
    gc.collect()
    assert "never retrieved" not in caplog.text
    await house.close()


async def test_two_processes_that_fetch_one_recording_agree_on_it(house_with):
    houses = house_with(), house_with()
    one, other = await asyncio.gather(*(house.fetch(SID) for house in houses))
    assert (one.object_key, one.stored_at) == (other.object_key, other.stored_at)
    assert houses[0].objects() == {one.object_key: SOUND}


async def test_what_a_killed_process_left_unfinished_is_removed_and_nothing_younger(house_with, tmp_path):
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    for name, written_at in (("abandoned", CALL_ENDED - 3600), ("another process's", CALL_ENDED + 60)):
        (downloads / name).write_bytes(SOUND)
        os.utime(downloads / name, (written_at, written_at))
    assert [file.name for file in house_with().downloads()] == ["another process's"]


async def test_an_unknown_call_is_not_found_and_says_nothing_against_the_provider(house):
    for _ in range(10):
        await refused(house.fetch("unknown"), 404)
    assert house.breakers["telephony"].snapshot().state == "closed"
    assert house.rows(calls) == []


@pytest.mark.parametrize("details", [{}, {"Status": "in-progress", "EndTime": None, "RecordingUrl": ""}])
async def test_a_recording_that_is_not_there_yet_is_no_failure_and_is_looked_for_again(house, details):
    house.not_ready(SID, **details)
    pending = await house.fetch(SID)
    assert isinstance(pending, NotReady)
    assert pending.retry_after > 0
    assert house.retries["telephony"].stats().total_retries == 0
    assert house.state(SID) == "expected"
    house.ready(SID)
    await house.settle()
    assert house.state(SID) == "stored"


async def test_a_recording_whose_file_is_not_there_yet_is_no_failure(house, fake):
    fake.provider.change_call(SID, {"EndTime": "2025-01-15 16:00:59"})
    fake.provider.add_fault(Fault(on="recordings", status=404))
    assert isinstance(await house.fetch(SID), NotReady)
    assert house.objects() == {}


@pytest.mark.parametrize("details", [{"Status": "busy"}, {"EndTime": "2025-01-15 15:40:00"}])
async def test_a_recording_that_will_never_come_is_not_found(house, details):
    house.not_ready(SID, **details)
    assert "Recording not found" in (await refused(house.fetch(SID), 404)).message


# --- what the provider has, and ails -------------------------------------------------------------


async def test_a_provider_that_is_down_opens_the_breaker(house, fake):
    fake.provider.add_fault(Fault(status=500))
    for _ in range(5):
        await refused(house.fetch(SID), 503)
    with pytest.raises(CircuitOpenError) as rejected:
        await house.fetch(SID)
    assert 0 < rejected.value.retry_after <= 33.0
    asked = fake.provider.requests()["calls"]
    with pytest.raises(CircuitOpenError):
        await house.fetch(SID)
    assert fake.provider.requests()["calls"] == asked


RETRY_AFTERS = [("60", 60.0), ("-5", 1.0), ("soon", 1.0), ("1000000000", 21_600.0)]


@pytest.mark.parametrize(("told", "understood"), RETRY_AFTERS)
async def test_fault_65_what_429_asks_for_is_heeded_if_it_makes_sense(house_with, fake, told, understood):
    house = house_with(recording_deadline=1.0)
    fake.provider.add_fault(Fault(status=429, retry_after=told))
    assert (await refused(house.fetch(SID), 503)).retry_after == understood
    asked = fake.provider.requests()["calls"]
    assert asked == (1 if understood > 1.0 else 3)


async def test_a_silent_provider_costs_no_more_than_the_deadline(house_with, fake):
    house = house_with(recording_deadline=0.2, telephony_timeout=5.0)
    fake.provider.add_fault(Fault(delay=1.0))
    with pytest.raises((DeadlineExceeded, ServiceError)):
        await house.fetch(SID)
    assert house.breakers["telephony"].snapshot().failures == 1


async def test_a_provider_that_is_too_slow_opens_the_breaker(house_with, fake):
    house = house_with(recording_deadline=0.02)
    fake.provider.add_fault(Fault(delay=0.1))
    for _ in range(5):
        with pytest.raises((DeadlineExceeded, ServiceError)):
            await house.fetch(SID)
    with pytest.raises(CircuitOpenError):
        await house.fetch(SID)


async def test_fault_64_a_byte_at_a_time_is_ended_by_the_deadline(house_with, fake):
    house = house_with(recording_deadline=0.3)
    fake.provider.add_fault(Fault(on="recordings", trickle=0.02, next=1))
    with pytest.raises(DeadlineExceeded):
        await house.fetch(SID)
    assert house.objects() == {}
    assert house.downloads() == []


async def test_fault_67_a_provider_that_is_down_is_asked_no_more_often_than_the_budget_allows(
    house_with, fake
):
    house = house_with(retry={"budget": RetryBudget()}, recording_deadline=1.0)
    fake.provider.add_fault(Fault(status=503))
    for number in range(20):
        await house.announce(f"c0ffee{number:026x}")
    for _ in range(3):
        await house.work()
        house.clock.advance(60.0)
    asked = fake.provider.requests()["calls"]
    stats = house.retries["telephony"].stats()
    assert stats.total_retries <= 5  # the whole budget, as nothing succeeds
    assert asked <= 5 + stats.total_retries + 1  # five failures open the breaker, which then lets one probe


async def test_an_expired_address_is_asked_for_anew_and_not_retried(house, fake):
    fake.provider.add_fault(Fault(on="recordings", status=403, code="AccessDenied", next=1))
    assert (await house.fetch(SID)).sound.size == len(SOUND)
    assert fake.provider.requests() == {"calls": 2, "recordings": 2}
    assert house.retries["telephony"].stats().total_retries == 0


async def test_addresses_that_all_have_expired_are_given_up_for_now(house, fake):
    fake.provider.add_fault(Fault(on="recordings", status=410))
    await refused(house.fetch(SID), 503)
    assert fake.provider.requests() == {"calls": 2, "recordings": 2}


async def test_our_own_limit_keeps_requests_back_and_opens_no_breaker(house_with, fake):
    house = house_with(telephony_rate=3, recording_deadline=0.5)
    await house.fetch(SID)
    for _ in range(6):
        error = await refused(house.fetch(OTHER), 503)
        assert error.retry_after > 1.0
    assert fake.provider.requests() == {"calls": 2, "recordings": 1}
    assert house.breakers["telephony"].snapshot().state == "closed"
    assert house.retries["telephony"].stats().total_retries == 0


async def test_a_probe_that_our_own_limit_keeps_back_says_nothing_about_the_provider(house_with, fake):
    house = house_with(telephony_rate=3, recording_deadline=0.5, telephony_recovery=0.01)
    fake.provider.add_fault(Fault(status=400))
    for _ in range(3):
        await refused(house.fetch(SID), 502)
    breaker = house.breakers["telephony"]
    before = breaker.snapshot()
    await refused(house.fetch(SID), 503)
    assert breaker.snapshot().calls == before.calls  # neither a failure nor a success


async def test_our_wrong_password_is_a_failure_of_ours_and_opens_no_breaker(house_with):
    house = house_with(telephony_token="wrong")
    for _ in range(10):
        await refused(house.fetch(SID), 502)
    assert house.breakers["telephony"].snapshot().state == "closed"


# --- what the provider says is a claim -----------------------------------------------------------


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
async def test_asvs_1_3_6_a_recording_is_taken_from_allowed_hosts_only(house, fake, url):
    fake.provider.change_call(SID, {"RecordingUrl": url, "PreSignedRecordingUrl": None})
    await refused(house.fetch(SID), 502)
    assert "recordings" not in fake.provider.requests()


async def test_asvs_1_3_6_an_address_may_carry_no_login(house, fake):
    url = fake.address.replace("http://", "http://user:password@") + f"/recordings/{SID}.wav"
    fake.provider.change_call(SID, {"RecordingUrl": url, "PreSignedRecordingUrl": None})
    await refused(house.fetch(SID), 502)
    assert "recordings" not in fake.provider.requests()


async def test_asvs_15_3_2_a_redirect_is_not_followed(house, fake):
    elsewhere = f"{fake.address}/recordings/{SID}.wav"
    fake.provider.add_fault(Fault(on="recordings", status=302, location=elsewhere, next=1))
    await refused(house.fetch(SID), 502)
    assert fake.provider.requests()["recordings"] == 1


async def test_a_foreign_host_gets_no_key_of_ours_and_a_breaker_of_its_own(house_with, fake):
    foreign = start_provider()
    try:
        host = foreign.address.removeprefix("http://")
        house = house_with(telephony_recording_hosts=(host,))
        url = f"{foreign.address}/recordings/{SID}.wav"
        fake.provider.change_call(SID, {"RecordingUrl": url, "PreSignedRecordingUrl": None})
        await refused(house.fetch(SID), 502)  # 401: the other one was not told who we are
        details = foreign.provider.details(foreign.provider.call(SID), foreign.address, 5)
        fake.provider.change_call(SID, {"PreSignedRecordingUrl": details["PreSignedRecordingUrl"]})
        assert (await house.fetch(SID)).sound.size == len(SOUND)
        assert f"telephony:{host}" in {breaker.name for breaker in house.bringing.breakers}
        foreign.provider.add_fault(Fault(on="recordings", status=503))
        fake.provider.change_call(OTHER, {"PreSignedRecordingUrl": details["PreSignedRecordingUrl"]})
        for _ in range(5):
            await refused(house.fetch(OTHER), 503)
        with pytest.raises(CircuitOpenError, match=host):
            await house.fetch(OTHER)
        assert house.breakers["telephony"].snapshot().state == "closed"
    finally:
        stop_provider(foreign)


async def test_the_details_of_another_call_are_refused(house, fake):
    fake.provider.change_call(SID, {"Sid": "../../etc"})
    await refused(house.fetch(SID), 502)


async def test_a_recording_that_comes_in_small_pieces_is_a_recording_too(house, fake, monkeypatch):
    monkeypatch.setattr("examples.backend.fakes.telephony.recording_of", lambda _: SOUND[:100])
    fake.provider.add_fault(Fault(on="recordings", trickle=0.0005))
    assert (await house.fetch(SID)).sound.size == 100


async def test_asvs_5_2_1_a_recording_longer_than_allowed_is_refused_and_not_kept(house_with):
    house = house_with(recording_max_size=1000)
    await refused(house.fetch(SID), 502)
    assert house.objects() == {}
    assert house.downloads() == []


async def test_asvs_5_2_2_what_is_no_sound_is_refused_without_a_retry(house, fake, monkeypatch):
    fake.provider.add_fault(Fault(on="recordings", content_type="text/html", next=1))
    await refused(house.fetch(SID), 502)
    monkeypatch.setattr("examples.backend.fakes.telephony.recording_of", lambda _: b"<html>" * 100)
    await refused(house.fetch(SID), 502)  # whatever it is said to be
    assert fake.provider.requests()["recordings"] == 2
    assert house.objects() == {}


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
        {"From": "0\0"},
        {"To": "0" * 1000},
        {"Status": "com\npleted"},
        {"PhoneNumberSid": "\x1b[31m"},
    ],
)
async def test_details_that_cannot_be_read_are_the_providers_failure(house, fake, details):
    fake.provider.change_call(SID, details)
    await refused(house.fetch(SID), 502)


# --- whose it is, the list, and deleting ---------------------------------------------------------


async def test_asvs_8_4_1_a_call_belongs_to_whom_it_was_announced(house, fake):
    await house.announce(SID, "ours")
    await refused(house.fetch(SID, "theirs"), 404)
    await house.work()
    await refused(house.fetch(SID, "theirs"), 404)
    await refused(house.run(house.recordings.stored(SID, "theirs")), 404)
    await refused(house.run(house.recordings.delete(SID, "theirs")), 404)
    assert (await house.fetch(SID, "ours")).sound.sha256 == DIGEST
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}


async def test_a_call_belongs_to_who_first_fetched_it(house):
    await house.fetch(SID, "ours")
    await refused(house.fetch(SID, "theirs"), 404)


async def test_two_tenants_that_fetch_one_call_at_the_same_time_do_not_both_get_it(house, fake):
    fake.provider.add_fault(Fault(on="recordings", delay=0.2))
    outcomes = await asyncio.gather(
        house.fetch(SID, "ours"), house.fetch(SID, "theirs"), return_exceptions=True
    )
    refusal = next(outcome for outcome in outcomes if isinstance(outcome, ServiceError))
    assert refusal.status == 404
    assert len(house.objects()) == 1  # the loser's is removed


async def listed(house, search=None, after=None, limit=2, tenant="ours"):
    page, following = await house.run(house.recordings.page(tenant, search or Search(), after, limit))
    return [entry.call_sid for entry in page], following


async def test_the_list_is_read_page_by_page_the_newest_first(house):
    sids = [f"c0ffee{number:026x}" for number in range(5)]
    for sid in sids:
        await house.announce(sid)
        house.clock.advance(1.0)
    await house.announce("c0ffee" + "f" * 26, "theirs")
    first, after = await listed(house)
    second, after = await listed(house, after=after)
    await house.announce("c0ffee" + "e" * 26)  # between two pages: it moves none of the others
    third, after = await listed(house, after=after)
    assert first + second + third == sids[::-1]
    assert after is None
    assert await listed(house, after=Position(0.0, "0")) == ([], None)


async def test_the_list_can_be_searched(house, fake):
    fake.provider.change_call(SID, {"From": "0811_222%", "StartTime": "2025-01-15 16:00:00"})
    await house.fetch(SID)
    house.not_ready(OTHER, From="07000000000", StartTime="2025-01-15 18:00:00")
    await house.fetch(OTHER)
    house.clock.advance(60.0)
    await house.work()  # it asks again, and keeps what it is told
    for search, found in {
        Search(state="stored"): [SID],
        Search(state="expected"): [OTHER],
        Search(text="11_222%"): [SID],
        Search(text="11x222"): [],
        Search(text="0803075"): [OTHER, SID],
        Search(text=SID): [SID],
        Search(text=SID[3:]): [],
        Search(until=CALL_ENDED + 1): [SID],
        Search(since=CALL_ENDED + 61): [OTHER],
    }.items():
        sids, _ = await listed(house, search)
        assert sorted(sids) == sorted(found), search


async def test_deleting_is_for_good_and_can_be_repeated(house, fake):
    recording = await house.fetch(SID)
    for _ in range(2):
        await house.run(house.recordings.delete(SID, "ours"))
    await refused(house.fetch(SID), 404)
    assert await listed(house) == ([], None)
    assert house.objects() == {recording.object_key: SOUND}  # a worker's business
    await house.work()
    assert house.objects() == {}
    await house.announce(SID, updated="again")
    await house.settle()
    assert house.state(SID) == "deleted"
    assert house.call(SID)["from_number"] is None
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}
    assert house.told(SID) == ["expected", "stored", "deleted"]


async def test_who_fetches_what_is_deleted_meanwhile_does_not_bring_it_back(house, fake):
    await house.announce(SID)
    fake.provider.add_fault(Fault(on="recordings", delay=0.3))
    fetching = asyncio.create_task(house.fetch(SID))
    await asyncio.to_thread(wait_until, lambda: "recordings" in fake.provider.requests())
    await house.run(house.recordings.delete(SID, "ours"))
    await refused(fetching, 404)
    await house.settle()
    assert house.state(SID) == "deleted"
    assert house.objects() == {}


async def test_what_was_never_there_cannot_be_deleted(house):
    await refused(house.run(house.recordings.delete(SID, "ours")), 404)
