"""One pipeline for each key: bounded, and nothing is forgiven."""

from __future__ import annotations

import copy
import gc
import threading
import weakref

import pytest

from resilience import (
    AsyncPipeline,
    AsyncRateLimiter,
    BreakerRegistry,
    Bulkhead,
    CircuitBreaker,
    KeyedPipelines,
    Pipeline,
    RateLimiter,
    RetryManager,
)
from resilience.pipeline import Waiting
from resilience.testing import FakeClock


def guarding(host):
    return Pipeline(RetryManager(name=host), CircuitBreaker(1, 5.0, name=host))


def trip(pipeline):
    pipeline.parts[-1].acquire().failure(ConnectionError())


def test_each_key_has_one():
    hosts = KeyedPipelines(guarding)
    a = hosts.get("a")
    assert hosts.get("a") is a
    assert hosts.get("b") is not a
    assert a.parts[0].name == "a"
    assert len(hosts) == 2


def test_pipelines_at_rest_are_forgotten_those_unasked_for_first():
    made = []

    def make(host):
        made.append(host)
        return guarding(host)

    hosts = KeyedPipelines(make, most=3)
    for host in "abcdbe":
        hosts.get(host)
    assert len(hosts) == 3
    for host in "bde":
        hosts.get(host)
    assert made == [*"abcde"]


def test_one_in_use_is_remembered():
    hosts = KeyedPipelines(guarding, most=1)
    a = hosts.get("a")
    hosts.get("b")
    assert hosts.get("a") is a
    hosts.get("b")
    gone = weakref.ref(a)
    del a
    gc.collect()
    assert gone() is None
    assert len(hosts) == 1


def test_one_in_use_is_itself_also_when_there_is_no_room():
    clock = FakeClock()
    hosts = KeyedPipelines(
        lambda host: Pipeline(CircuitBreaker(1, 5.0, name=host, clock=clock)), most=1, clock=clock
    )
    a = hosts.get("a")
    trip(hosts.get("b"))
    assert hosts.get("a") is a


def test_trouble_is_kept_until_it_is_old_and_the_rest_share():
    clock = FakeClock()

    def make(host):
        return Pipeline(CircuitBreaker(1, 5.0, name=host, clock=clock, recovery_jitter=0.0))

    hosts = KeyedPipelines(make, most=2, forget_after=60.0, clock=clock)
    for host in "ab":
        trip(hosts.get(host))
    shared = hosts.get("c")
    assert shared.parts[0].name == "(overflow)"
    assert hosts.get("d") is shared
    assert hosts.get("a").parts[0].state == "open"
    clock.advance(66.0)
    assert hosts.get("c").parts[0].name == "c"


def test_what_counts_or_is_occupied_is_kept():
    clock = FakeClock()
    place = Bulkhead(1)
    limiter, waiting, awaited = (
        RateLimiter("9/minute", clock=clock),
        RateLimiter("9/minute"),
        AsyncRateLimiter("9/s"),
    )
    registry = BreakerRegistry()
    parts = {
        "limiter": limiter,
        "waiting": Waiting(waiting),
        "bulkhead": place,
        "registry": registry,
        "pipeline": Pipeline(RetryManager(), Pipeline(CircuitBreaker(1, 5.0))),
    }
    hosts = KeyedPipelines(lambda key: Pipeline(parts.get(key, awaited)), most=5, forget_after=60.0)
    limiter.try_acquire("ada")
    waiting.try_acquire()
    registry.get("a")
    trip(parts["pipeline"].parts[1])
    with place.guard():
        kept = {key: hosts.get(key) for key in parts}
        assert hosts.get("new").parts == (awaited,)
        assert len(hosts) == 5
        assert all(hosts.get(key) is pipeline for key, pipeline in kept.items())
    del kept
    assert hosts.get("another") is not None
    assert len(hosts) == 5


def test_a_pipeline_at_rest_within_a_pipeline_makes_room():
    hosts = KeyedPipelines(lambda key: Pipeline(Pipeline(CircuitBreaker(name=key))), most=1)
    hosts.get("a")
    hosts.get("b")
    assert hosts.get("b").parts[0].parts[0].name == "b"


def test_all_go_on_by_what_is_made_anew():
    clock = FakeClock()

    def make(threshold):
        return lambda host: Pipeline(CircuitBreaker(threshold, 5.0, name=host, clock=clock))

    hosts = KeyedPipelines(make(1), most=2, clock=clock)
    in_use = hosts.get("used")
    hosts.get("a")
    hosts.get("b")
    for host in "ab":
        trip(hosts.get(host))
    shared = hosts.get("c")
    hosts.reconfigure(make(7))
    assert hosts.get("a").parts[0].state == "open"
    for pipeline in (in_use, shared, hosts.get("a")):
        assert pipeline.parts[0].snapshot().threshold == 7


def test_without_an_overflow_too():
    hosts = KeyedPipelines(guarding)
    a = hosts.get("a")
    hosts.reconfigure(lambda host: Pipeline(RetryManager(name=host)))
    assert len(a.parts) == 1


@pytest.mark.parametrize("most", [1, 2])
def test_what_was_being_made_meanwhile_is_made_anew(most):
    """By `reconfigure`, that is; for its own key, or as the overflow."""

    def patient(host):
        return Pipeline(CircuitBreaker(7, 60.0, name=str(host)))

    def make(host):
        if host == ("(overflow)" if most == 1 else "b"):
            hosts.reconfigure(patient)  # as another thread might
        return guarding(host)

    hosts = KeyedPipelines(make, most=most)
    trip(hosts.get("a"))
    assert hosts.get("b").parts[0].snapshot().threshold == 7
    assert hosts.get("b") is hosts.get("b")


def test_threads_get_the_same():
    barrier = threading.Barrier(8)
    hosts = KeyedPipelines(lambda host: (barrier.wait(5) and None) or guarding(host))
    found = []
    threads = [threading.Thread(target=lambda: found.append(hosts.get("a"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_threads_share_one_overflow():
    barrier = threading.Barrier(4)

    def make(host):
        if host == "(overflow)":
            barrier.wait(5)
        return guarding(host)

    hosts = KeyedPipelines(make, most=1)
    trip(hosts.get("a"))
    found = []
    threads = [threading.Thread(target=lambda key=key: found.append(hosts.get(key))) for key in "bcde"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (5, {}, TypeError, "make=5 must be a function of a key"),
        (guarding, {"most": 0}, ValueError, "most must be at least 1"),
        (guarding, {"forget_after": 0}, ValueError, "forget_after must be a finite number above 0"),
    ],
)
def test_what_it_refuses(make, options, error, message):
    with pytest.raises(error, match=message):
        KeyedPipelines(make, **options)


def test_what_make_must_return():
    with pytest.raises(TypeError, match=r"make\('a'\) returned None, which is no pipeline"):
        KeyedPipelines(lambda key: None).get("a")
    assert KeyedPipelines(lambda key: AsyncPipeline(RetryManager())).get(1) is not None


def test_no_copies_and_a_fork():
    hosts = KeyedPipelines(guarding)
    with pytest.raises(TypeError, match="cannot be copied or pickled"):
        copy.copy(hosts)
    before = hosts._lock
    hosts.after_fork()
    assert hosts._lock is not before
