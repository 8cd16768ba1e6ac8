from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from resilience import Criticality, criticality, current_criticality


def test_nobody_has_said():
    assert current_criticality() is Criticality.CRITICAL


def test_blocks_inside_each_other():
    with criticality("sheddable"):
        with criticality(Criticality.CRITICAL_PLUS):
            assert current_criticality() is Criticality.CRITICAL_PLUS
        assert current_criticality() is Criticality.SHEDDABLE
    assert current_criticality() is Criticality.CRITICAL


def test_a_failure_ends_it():
    with pytest.raises(OSError, match="down"), criticality("sheddable"):
        raise OSError("down")
    assert current_criticality() is Criticality.CRITICAL


def test_what_is_no_level_begins_no_block():
    with pytest.raises(ValueError, match="urgent"), criticality("urgent"):
        raise AssertionError
    assert current_criticality() is Criticality.CRITICAL


async def test_tasks_have_their_own():
    seen = []

    async def work(level):
        with criticality(level):
            await asyncio.sleep(0)
            seen.append(current_criticality().name.lower())

    await asyncio.gather(*map(work, ("sheddable", "critical_plus")))
    assert seen == ["sheddable", "critical_plus"]


def test_a_thread_begins_without():
    seen = []
    with criticality("sheddable"):
        thread = threading.Thread(target=lambda: seen.append(current_criticality()))
        thread.start()
        thread.join()
    assert seen == [Criticality.CRITICAL]


def test_a_generator_that_is_closed_elsewhere_disturbs_nobody():
    def stream():
        with criticality("sheddable"):
            yield current_criticality()

    items = stream()
    assert contextvars.copy_context().run(next, items) is Criticality.SHEDDABLE
    with criticality("critical_plus"):
        items.close()
        assert current_criticality() is Criticality.CRITICAL_PLUS
