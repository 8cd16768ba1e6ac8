"""Jobs: done once, whatever happens to those who do them; and what the provider's list brings to light."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from examples.backend.domain.bringing import UnknownCallError, UnusableError
from examples.backend.domain.jobs import MOST_DOUBTS, TOO_OLD, Job, Later, Never, next_step
from examples.backend.fakes.telephony import Fault, Handler, recording_of
from examples.backend.ports.crew import TaskCrew, ThreadCrew
from examples.backend.ports.jobs import DatabaseJobs
from examples.backend.ports.tables import jobs, watermarks
from resilience import CircuitOpenError, DeadlineExceeded, ServiceError, service_unavailable_error
from resilience.testing import FakeClock
from tests.examples.backend_process import wait_until

SIDS = [f"c0ffee{number:026x}" for number in range(1, 21)]
SID, OTHER = SIDS[:2]


# --- what becomes of a job -----------------------------------------------------------------------


async def test_what_was_announced_is_brought(house):
    await house.announce(SID)
    assert house.told(SID) == ["expected"]
    assert await house.work() == 1
    assert house.told(SID) == ["expected", "fetching", "stored"]
    assert house.job(SID) is None
    assert list(house.objects().values()) == [recording_of(SID)]


async def test_a_recording_that_is_not_there_yet_is_no_attempt(house, fake):
    house.not_ready(SID)
    await house.announce(SID)
    for _ in range(3):
        assert await house.work() == 1
        assert house.job(SID)["attempts"] == 0
        assert house.state(SID) == "expected"
        assert await house.work() == 0  # not before it is worth it
        house.clock.advance(16.0)
    house.ready(SID)
    assert await house.work() == 1
    assert house.state(SID) == "stored"
    assert fake.provider.requests()["calls"] == 4


async def test_a_recording_that_does_not_come_in_time_is_missing(house, fake):
    house.not_ready(SID)
    await house.announce(SID)
    await house.settle()
    assert (house.state(SID), house.call(SID)["failure"]) == ("missing", "Recording not found")
    patience = house.settings.recording_patience
    assert fake.provider.requests()["calls"] <= patience / 15 + 2


async def test_a_call_that_nobody_answered_is_missing_at_once(house):
    house.not_ready(SID, Status="no-answer")
    await house.announce(SID)
    assert await house.work() == 1
    assert house.state(SID) == "missing"


async def test_a_call_that_the_provider_does_not_know_yet_is_asked_for_again(house):
    await house.announce("early1")
    await house.work()
    assert house.state("early1") == "expected"
    await house.settle()
    assert house.state("early1") == "missing"


async def test_a_provider_that_is_down_is_left_alone_for_longer_and_longer(house, fake):
    fake.provider.add_fault(Fault(status=503))
    await house.announce(SID)
    waits = []
    for _ in range(4):
        house.clock.advance(max(0.0, await house.run(house.next_due()) - house.clock.wall()))
        await house.work()
        waits.append(await house.run(house.next_due()) - house.clock.wall())
    assert all(wait >= 1.0 for wait in waits)
    assert waits[-1] > waits[0]
    assert house.job(SID)["attempts"] == 4
    assert "provider" in house.job(SID)["last_error"]
    fake.provider.heal()
    await house.settle()
    assert house.state(SID) == "stored"


async def test_an_open_breaker_costs_no_attempt_and_no_request(house, fake):
    fake.provider.add_fault(Fault(status=503))
    house.breakers["telephony"].force_open()
    await house.announce(SID)
    await house.work()
    assert house.job(SID)["attempts"] == 0
    assert fake.provider.requests() == {}
    assert await house.run(house.next_due()) - house.clock.wall() >= 1.0


async def test_nonsense_is_given_up_in_the_end_and_its_tenant_can_read_why(house, fake):
    fake.provider.add_fault(Fault(on="recordings", content_type="text/html"))
    await house.announce(SID)
    await house.settle()
    assert (house.state(SID), house.call(SID)["failure"]) == ("failed", "the recording is no sound")
    assert fake.provider.requests()["recordings"] == MOST_DOUBTS


async def test_an_address_that_is_not_allowed_is_given_up_at_once(house, fake):
    url = "http://169.254.169.254/latest"
    fake.provider.change_call(SID, {"RecordingUrl": url, "PreSignedRecordingUrl": None})
    await house.announce(SID)
    assert await house.work() == 1
    assert house.state(SID) == "failed"
    assert "169" not in house.call(SID)["failure"]  # nothing of the provider's text


async def test_what_was_given_up_is_looked_for_again_when_there_is_news(house):
    house.not_ready(SID, Status="busy")
    await house.announce(SID)
    await house.work()
    house.ready(SID)
    await house.announce(SID, updated="later")
    await house.work()
    assert house.state(SID) == "stored"
    assert house.call(SID)["failure"] is None


async def test_news_does_not_hurry_a_job_that_waits_because_something_failed(house, fake):
    fake.provider.add_fault(Fault(status=503))
    await house.announce(SID)
    await house.work()
    due = await house.run(house.next_due())
    await house.announce(SID, updated="later")
    assert await house.run(house.next_due()) == due


async def test_news_hurries_a_job_that_waits_for_a_recording(house):
    house.not_ready(SID, Status="in-progress", EndTime=None)
    await house.announce(SID)
    await house.work()
    assert await house.run(house.next_due()) > house.clock.wall() + 30
    house.ready(SID)
    await house.announce(SID, updated="later")
    assert await house.work() == 1
    assert house.state(SID) == "stored"


ERRORS = {
    "unknown": UnknownCallError(),
    "nonsense": UnusableError("no sound"),
    "bug": KeyError("oops"),
    "down": service_unavailable_error("The telephony provider", 60.0),
    "open": CircuitOpenError("telephony", 7.0),
    "held": CircuitOpenError("telephony", None),
}


@pytest.mark.parametrize("chance", [0.0, 0.999])
@pytest.mark.parametrize("attempts", [0, 1, 6, 10**6])
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_job_never_goes_round_in_a_circle_and_never_waits_for_ever(error, attempts, chance):
    step = next_step(error, attempts, 0.0, chance)
    assert isinstance(step, Never) or 1.0 <= step.seconds <= 300.0


def test_a_job_that_fails_for_days_is_given_up_but_never_for_an_open_breaker():
    assert isinstance(next_step(TimeoutError(), 900, TOO_OLD + 1, 0.5), Never)
    assert next_step(CircuitOpenError("x", 7.0), 900, TOO_OLD + 1, 0.5) == Later(7.0, failed=False)


# --- leases --------------------------------------------------------------------------------------


async def test_a_job_is_leased_to_one_only(house):
    queue = DatabaseJobs(house.database, house.clock)
    for sid in SIDS:
        await house.announce(sid)
    now = house.clock.wall()
    claimed = await asyncio.gather(
        *(house.run(queue.claim(f"p/{number}", now, now + 30)) for number in range(30))
    )
    sids = [job.call_sid for job in claimed if job is not None]
    assert sorted(sids) == sorted(SIDS)


async def test_a_killed_worker_s_job_is_taken_up_when_its_lease_has_run_out(house, fake):
    await house.announce(SID)
    queue = DatabaseJobs(house.database, house.clock)
    now = house.clock.wall()
    dead = await house.run(queue.claim("dead/1", now, now + 30))
    assert await house.work() == 0
    house.clock.advance(31.0)
    assert await house.work() == 1
    assert house.state(SID) == "stored"
    assert not await house.run(queue.put_off(dead, now, 1, "I was only asleep"))
    assert house.state(SID) == "stored"
    assert fake.provider.requests() == {"calls": 1, "recordings": 1}


async def test_who_has_lost_the_lease_changes_nothing(house):
    queue = DatabaseJobs(house.database, house.clock)
    await house.announce(SID)
    now = house.clock.wall()
    first = await house.run(queue.claim("first/1", now, now + 30))
    second = await house.run(queue.claim("second/1", now + 31, now + 61))
    assert isinstance(second, Job)
    recording = await house.run(house.bringing.recordings._bringer.bring(SID, "ours"))
    assert not await house.run(queue.store(first, recording))
    assert not await house.run(queue.note(first, recording.call))
    assert not await house.run(queue.give_up(first, Never("failed", "no")))
    assert not await house.run(queue.finish(first))
    assert house.state(SID) == "expected"
    assert await house.run(queue.store(second, recording))
    assert house.told(SID) == ["expected", "stored"]


async def test_two_workers_that_bring_the_same_store_it_once(house_with, fake):
    one, other = house_with(), house_with()
    await one.announce(SID)
    fake.provider.add_fault(Fault(on="recordings", delay=0.3, next=1))
    slow = asyncio.create_task(one.work())
    await asyncio.to_thread(wait_until, lambda: "recordings" in fake.provider.requests())
    other.clock.advance(1000.0)  # its lease has run out, says the other one's clock
    assert await other.work() == 1
    await slow
    assert one.told(SID) == ["expected", "fetching", "stored"]
    assert len(one.objects()) == 1
    assert one.rows(jobs) == []


async def test_what_is_handed_back_can_be_had_at_once(house):
    queue = DatabaseJobs(house.database, house.clock)
    await house.announce(SID)
    now = house.clock.wall()
    await house.run(queue.claim("ours/1", now, now + 30))
    assert await house.run(queue.hand_back("theirs/")) == 0
    assert await house.work() == 0
    assert await house.run(queue.hand_back("ours/")) == 1
    assert await house.work() == 1


async def test_a_job_that_is_deleted_while_it_is_done_does_not_bring_the_call_back(house, fake):
    await house.announce(SID)
    fake.provider.add_fault(Fault(on="recordings", delay=0.3))
    working = asyncio.create_task(house.work())
    await asyncio.to_thread(wait_until, lambda: "recordings" in fake.provider.requests())
    await house.run(house.recordings.delete(SID, "ours"))
    await house.run(house.worker.work())  # removes what is there, which is nothing yet
    await working
    await house.settle()
    assert house.state(SID) == "deleted"
    assert house.objects() == {}
    assert house.told(SID) == ["expected", "fetching", "deleted"]


async def test_an_object_that_cannot_be_removed_is_tried_again_for_ever(house, monkeypatch):
    await house.fetch(SID)
    await house.run(house.recordings.delete(SID, "ours"))

    async def fail(*_):
        raise ServiceError("no", status=404)

    with monkeypatch.context() as patch:
        patch.setattr(house.bringing.recordings._bringer, "discard", fail)
        await house.work()
    assert house.job(SID)["attempts"] == 1
    await house.settle()
    assert house.objects() == {}


# --- crews ---------------------------------------------------------------------------------------


async def test_a_crew_of_tasks_works_side_by_side_wakes_and_ends(caplog):
    at_once, most, todo = 0, 0, 8

    async def job():
        nonlocal at_once, most, todo
        if not todo:
            return False
        todo -= 1
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        if todo == 3:
            raise KeyError("one that fails ends nothing")
        return True

    crew = TaskCrew(job, size=4, pause=60.0, name="tests")
    await crew.start()
    async with asyncio.timeout(5):
        while todo:
            await asyncio.sleep(0.01)
            crew.wake()
    assert await crew.stop(1.0)
    assert most == 4
    assert "tests failed; it goes on" in caplog.text


async def test_a_crew_of_tasks_that_takes_too_long_is_cancelled():
    begun = asyncio.Event()

    async def job():
        begun.set()
        await asyncio.sleep(60.0)
        return True

    crew = TaskCrew(job, size=2, pause=60.0, name="tests")
    assert await crew.stop(0.0)
    await crew.start()
    await begun.wait()
    assert not await crew.stop(0.0)


def test_a_crew_of_threads_works_side_by_side_wakes_and_ends(caplog):
    together = threading.Barrier(3)
    lock, todo = threading.Lock(), 6

    def job():
        nonlocal todo
        with lock:
            if not todo:
                return False
            todo -= 1
        together.wait(5.0)
        if todo == 0:
            raise KeyError("one that fails ends nothing")
        return True

    crew = ThreadCrew(job, size=3, pause=60.0, name="tests")
    crew.start()
    wait_until(lambda: not todo)
    todo = 3
    crew.wake()
    wait_until(lambda: not todo)
    assert crew.stop(5.0)
    assert "tests failed; it goes on" in caplog.text


def test_a_crew_of_threads_that_takes_too_long_ends_later():
    begun, go_on = threading.Event(), threading.Event()

    def job():
        begun.set()
        return not go_on.wait(5.0)

    crew = ThreadCrew(job, size=1, pause=60.0, name="tests")
    crew.start()
    begun.wait(5.0)
    assert not crew.stop(0.0)
    go_on.set()
    assert crew.stop(5.0)


async def test_workers_bring_what_they_are_told_of_and_end(house):
    await house.run(start(house))
    try:
        for sid in SIDS[:8]:
            await house.announce(sid)
        await asyncio.to_thread(wait_until, lambda: len(house.objects()) == 8)
        await asyncio.to_thread(wait_until, lambda: not house.rows(jobs))
    finally:
        await house.run(house.bringing.stop())
    assert {house.state(sid) for sid in SIDS[:8]} == {"stored"}


async def start(house):
    await house.bringing.start()


async def test_at_the_end_work_in_hand_is_handed_back(house_with, fake):
    house = house_with(recording_deadline=20.0, telephony_timeout=20.0)
    fake.provider.add_fault(Fault(on="recordings", delay=4.0, next=1))
    await house.announce(SID)
    await house.run(start(house))
    await asyncio.to_thread(wait_until, lambda: "recordings" in fake.provider.requests())
    await house.run(house.bringing.stop())
    assert house.job(SID)["lease"] is None
    following = house_with()
    assert await following.work() == 1
    assert house.state(SID) == "stored"


async def test_the_end_does_not_fail_though_the_database_is_away(house, caplog, monkeypatch):
    def away(*_, **__):
        raise service_unavailable_error("The database") from ConnectionError("refused")

    await house.run(house.bringing.start())
    monkeypatch.setattr(house.database, "write", away)
    await house.run(house.bringing.stop())
    assert "jobs could not be handed back; their leases run out in a moment: refused" in caplog.text


# --- reconciliation ------------------------------------------------------------------------------


@pytest.fixture
def now(fake):
    """A house's clock at the time of the fake's, whose placed calls end now."""
    return FakeClock(wall=time.time())


async def test_reconciliation_finds_the_calls_that_webhooks_lost(house_with, fake, now):
    house = house_with(clock=now)
    known, *lost = fake.place_calls(5, ended_within=60.0)
    await house.announce(known)
    await house.work()  # now it is known whose number that is
    assert await house.run(house.bringing.reconciliation.look()) == 4
    await house.work()
    assert {house.state(sid) for sid in lost} == {"stored"}
    assert {house.call(sid)["tenant_id"] for sid in lost} == {"ours"}
    house.clock.advance(301.0)
    assert await house.run(house.bringing.reconciliation.look()) == 0


async def test_reconciliation_leaves_calls_alone_whose_number_is_nobody_s(house_with, fake, now, caplog):
    caplog.set_level("INFO")
    house = house_with(clock=now)
    fake.place_calls(3)
    await house.fetch(SID)  # that somebody fetched a call by this number proves nothing
    assert await house.run(house.bringing.reconciliation.look()) == 0
    assert "3 calls by numbers" in caplog.text
    assert [house.state(sid) for sid in fake.place_calls(1)] == [None]


async def test_a_number_is_the_tenant_s_whose_webhooks_told_of_it_last(house_with, fake, now):
    house = house_with(clock=now)
    for tenant in ("ours", "theirs"):
        (sid,) = fake.place_calls(1)
        await house.announce(sid, tenant)
        await house.work()
    (lost,) = fake.place_calls(1)
    await house.run(house.bringing.reconciliation.look())
    assert house.call(lost)["tenant_id"] == "theirs"


async def test_reconciliation_reads_page_by_page_and_goes_on_where_it_was(house_with, fake, now, monkeypatch):
    monkeypatch.setattr("examples.backend.ports.telephony.PAGE", 2)
    house = house_with(clock=now)
    known, *_ = fake.place_calls(5, ended_within=50.0)
    await house.announce(known)
    await house.work()
    fake.provider.add_fault(Fault(on="lists", status=400))
    with pytest.raises(ServiceError):
        await house.run(house.bringing.reconciliation.look())
    fake.provider.heal()
    assert await house.run(house.bringing.reconciliation.look()) == 0  # it is not time yet
    house.clock.advance(301.0)
    assert await house.run(house.bringing.reconciliation.look()) == 4
    assert fake.provider.requests()["lists"] == 4
    (mark,) = house.rows(watermarks)
    assert mark["at"] > now.wall() - 3600 - 600  # an hour before the last one, some minutes ago


@pytest.fixture
async def house_with_a_busy_hour(house_with, fake, now, monkeypatch):
    """A house whose turns take four calls, and eleven ids; a webhook told of the first one only."""
    monkeypatch.setattr("examples.backend.ports.telephony.PAGE", 2)
    monkeypatch.setattr("examples.backend.domain.reconciliation.MOST_PAGES", 2)
    house = house_with(clock=now)
    sids = fake.place_calls(11, ended_within=50.0)
    await house.announce(sids[0])
    await house.work()
    return house, sids


async def test_reconciliation_gets_on_though_one_turn_is_not_enough_for_an_hour(house_with_a_busy_hour):
    house, sids = house_with_a_busy_hour
    for _ in range(6):
        await house.run(house.bringing.reconciliation.look())
        house.clock.advance(301.0)
    await house.work()
    assert {house.state(sid) for sid in sids} == {"stored"}


async def test_reconciliation_gets_on_though_the_provider_is_too_slow_for_an_hour(
    house_with_a_busy_hour, fake, now, monkeypatch
):
    house, _ = house_with_a_busy_hour
    await house.run(house.bringing.reconciliation.look())
    house.clock.advance(301.0)
    monkeypatch.setattr("examples.backend.domain.reconciliation.LONGEST_READING", 0.5)
    fake.provider.add_fault(Fault(on="lists", next=1))  # which goes well
    fake.provider.add_fault(Fault(on="lists", delay=1.0, next=1))
    with pytest.raises((DeadlineExceeded, ServiceError)):
        await house.run(house.bringing.reconciliation.look())
    assert house.rows(watermarks)[0]["at"] > now.wall() - 3600


async def test_reconciliation_does_not_go_on_for_ever(house_with, fake, now, monkeypatch):
    monkeypatch.setattr("examples.backend.domain.reconciliation.LONGEST_READING", 0.2)
    house = house_with(clock=now)
    fake.provider.add_fault(Fault(on="lists", trickle=0.05))
    with pytest.raises(DeadlineExceeded):
        await house.run(house.bringing.reconciliation.look())


async def test_reconciliation_by_several_processes_is_done_by_one(house_with, fake, now):
    one, other = house_with(clock=now), house_with(clock=now)
    fake.place_calls(1)
    for house in (one, other):
        await house.run(house.bringing.reconciliation.look())
    assert fake.provider.requests()["lists"] == 1


@pytest.mark.parametrize(
    "following", ["http://169.254.169.254/", "/v1/Accounts/other/Calls.json?x=1", 17, "//x/Calls.json?"]
)
async def test_asvs_1_3_6_the_list_is_followed_within_the_api_only(
    house_with, fake, now, following, monkeypatch
):
    house = house_with(clock=now)

    def page(*_):
        return {"Metadata": {"NextPageUri": following}, "Calls": []}

    monkeypatch.setattr(Handler, "_page", page)
    with pytest.raises(UnusableError):
        await house.run(house.bringing.reconciliation.look())
    assert fake.provider.requests() == {"lists": 1}


@pytest.mark.parametrize("call", [{"Sid": "../x"}, {"DateCreated": "yesterday"}, 17])
async def test_a_list_that_cannot_be_read_is_the_provider_s_failure(house_with, fake, now, call, monkeypatch):
    house = house_with(clock=now)
    good = {"Sid": "a", "Status": "completed", "PhoneNumberSid": "1", "DateCreated": "2026-01-01 00:00:00"}

    def page(*_):
        return {"Metadata": {"NextPageUri": None}, "Calls": [good | call if isinstance(call, dict) else call]}

    monkeypatch.setattr(Handler, "_page", page)
    with pytest.raises(UnusableError):
        await house.run(house.bringing.reconciliation.look())


async def test_a_call_that_is_expected_without_a_job_gets_one(house):
    await house.announce(SID)
    with house.database.engine.begin() as db:
        db.execute(jobs.delete())
    await house.run(house.bringing.reconciliation.look())
    await house.work()
    assert house.state(SID) == "stored"
