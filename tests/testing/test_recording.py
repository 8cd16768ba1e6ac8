from __future__ import annotations

import threading

from resilience.events import MemoryAlert, RateLimited, hooks, publish
from resilience.testing import EventRecorder

LIMITED = RateLimited("login", ("ada",), 12.5)
ALERT = MemoryAlert("janitor", 9, 10, 0.5)


def test_it_hears_only_inside_its_block():
    recorder = EventRecorder()

    publish(LIMITED)
    with recorder as same:
        assert same is recorder
        publish(ALERT)
    publish(LIMITED)

    assert list(recorder) == [ALERT]


def test_it_picks_by_kind():
    with EventRecorder() as recorder:
        for event in (LIMITED, ALERT, LIMITED):
            publish(event)

    assert recorder.of(RateLimited) == [LIMITED, LIMITED]
    assert recorder.of(MemoryAlert) == [ALERT]
    assert len(recorder) == 3


def test_it_forgets():
    with EventRecorder() as recorder:
        publish(LIMITED)
        recorder.clear()
        publish(ALERT)

    assert list(recorder) == [ALERT]


def test_as_a_hook_it_hears_one_policy():
    recorder = EventRecorder()

    publish(LIMITED, hooks(recorder))
    publish(ALERT)

    assert list(recorder) == [LIMITED]


def test_an_exception_ends_the_subscription():
    recorder = EventRecorder()
    try:
        with recorder:
            raise LookupError
    except LookupError:
        publish(LIMITED)

    assert len(recorder) == 0


def test_threads_share_it():
    with EventRecorder() as recorder:
        threads = [threading.Thread(target=lambda: [publish(LIMITED) for _ in range(100)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert len(recorder) == 800
