from __future__ import annotations

import asyncio
import copy
import pickle
import threading

import pytest

from resilience.testing import FakeClock, FaultInjector, cancel_at_every_tick


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def faults(clock):
    return FaultInjector(clock=clock)


def outcomes(call, times):
    """Call so often; return each time what came back, or the type of what was raised."""
    seen = []
    for _ in range(times):
        try:
            seen.append(call())
        except (ConnectionError, TimeoutError) as error:
            seen.append(type(error))
    return seen


def test_nothing_happens_unless_planned(faults):
    assert outcomes(faults.wrap(lambda: "well"), 3) == ["well"] * 3
    assert faults.calls == 3


@pytest.mark.parametrize(
    ("on", "failing"),
    [(1, [1]), (3, [3]), (range(2, 4), [2, 3]), ([1, 4], [1, 4]), ({2}, [2]), (None, [1, 2, 3, 4])],
)
def test_the_picked_calls_fail(faults, on, failing):
    faults.fail(ConnectionError, on=on)

    seen = outcomes(faults.wrap(lambda: "well"), 4)

    assert seen == [ConnectionError if number in failing else "well" for number in range(1, 5)]


def test_a_failing_call_does_not_run_the_function(faults):
    ran = []

    outcomes(faults.fail(ConnectionError, on=1).wrap(lambda: ran.append(1)), 2)

    assert ran == [1]


def test_an_error_can_be_a_type_an_exception_or_a_function(faults):
    same = ConnectionError("refused")
    faults.fail(same, on=1).fail(TimeoutError, on=2).fail(lambda: OSError(5, "I/O"), on=3)

    with pytest.raises(ConnectionError) as first:
        faults.strike()
    with pytest.raises(TimeoutError):
        faults.strike()
    with pytest.raises(OSError, match="I/O"):
        faults.strike()

    assert first.value is same


def test_errors_that_are_made_are_fresh(faults):
    faults.fail(ConnectionError)

    with pytest.raises(ConnectionError) as first:
        faults.strike()
    with pytest.raises(ConnectionError) as second:
        faults.strike()

    assert first.value is not second.value


def test_a_delay_sleeps_on_the_clock(faults, clock):
    faults.delay(30.0, on=2)

    outcomes(faults.wrap(lambda: "well"), 3)

    assert clock.sleeps == [30.0]


def test_faults_happen_in_the_order_of_their_plans(faults, clock):
    faults.delay(1.0).fail(ConnectionError).delay(5.0)

    assert outcomes(faults.wrap(lambda: "well"), 1) == [ConnectionError]
    assert clock.sleeps == [1.0]


def test_cleared_plans_leave_the_count(faults):
    call = faults.fail(ConnectionError).wrap(lambda: "well")
    outcomes(call, 2)

    faults.clear()

    assert outcomes(call, 1) == ["well"]
    assert faults.calls == 3


def test_a_hang_ends_by_release(faults):
    faults.hang(on=1)
    returned = []
    thread = threading.Thread(target=lambda: returned.append(faults.wrap(lambda: "well")()))
    thread.start()
    faults.wait_for_hanging(1)
    assert returned == []

    faults.release()
    thread.join()

    assert returned == ["well"]
    assert faults.hanging == 0


def test_after_a_release_later_calls_hang_again(faults):
    faults.hang()
    for _ in range(2):
        thread = threading.Thread(target=faults.strike)
        thread.start()
        faults.wait_for_hanging(1)
        faults.release()
        thread.join()


def test_waiting_for_hanging_calls_in_vain_says_how_many_there_are(faults):
    with pytest.raises(TimeoutError, match="1 hanging calls, 0 so far"):
        faults.wait_for_hanging(1, timeout=0.01)


def test_each_thread_gets_a_number_of_its_own(faults):
    faults.fail(ConnectionError, on=range(1, 201))
    seen = []
    threads = [
        threading.Thread(target=lambda: seen.extend(outcomes(faults.wrap(lambda: "well"), 100)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen.count(ConnectionError) == 200
    assert seen.count("well") == 600
    assert faults.calls == 800


# --- coroutine functions -------------------------------------------------------------------------


async def test_a_coroutine_function_meets_its_faults(faults, clock):
    @faults.delay(2.0, on=1).fail(ConnectionError, on=2).wrap
    async def fetch(url):
        return url

    assert await fetch("/a") == "/a"
    with pytest.raises(ConnectionError):
        await fetch("/b")
    assert await fetch(url="/c") == "/c"

    assert clock.sleeps == [2.0]
    assert fetch.__name__ == "fetch"


async def test_an_async_hang_ends_by_release(faults):
    call = asyncio.create_task(faults.hang().strike_async())
    await faults.wait_for_hanging_async(1)

    faults.release()

    await call
    assert faults.hanging == 0


async def test_waiting_for_hanging_calls_async_in_vain_says_how_many_there_are(faults):
    with pytest.raises(TimeoutError, match="1 hanging calls, 0 so far"):
        await faults.wait_for_hanging_async(1, timeout=0.01)


def test_a_cancelled_call_hangs_no_more(faults):
    faults.hang()

    async def two_calls():
        calls = [asyncio.create_task(faults.strike_async()) for _ in range(2)]
        for _ in range(3):
            await asyncio.sleep(0)
        faults.release()
        await asyncio.wait(calls)

    def nothing_hangs():
        assert faults.hanging == 0

    assert cancel_at_every_tick(two_calls, nothing_hangs) > 6


# --- refusals ------------------------------------------------------------------------------------


def test_there_is_no_call_zero(faults):
    with pytest.raises(ValueError, match="there is no call 0"):
        faults.hang(on=0)


def test_a_negative_delay_is_refused(faults):
    with pytest.raises(ValueError, match=r"zero or more seconds, not -1\.0"):
        faults.delay(-1.0)


def test_generators_are_refused(faults):
    def pages():
        yield 1

    with pytest.raises(TypeError, match="is a generator function: call strike"):
        faults.wrap(pages)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_not_copied(faults, duplicate):
    with pytest.raises(TypeError, match="share this one"):
        duplicate(faults)
