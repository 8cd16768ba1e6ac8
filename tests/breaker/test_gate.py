from __future__ import annotations

import concurrent.futures
import gc
import pickle
import threading
from asyncio import CancelledError
from contextlib import suppress
from math import inf

import pytest

from resilience._core.breaker import Event, Outcome, Policy
from resilience._core.trip import InARow, Ratio
from resilience.breaker.gate import Gate
from resilience.conditions import matcher
from resilience.errors import CircuitOpenError, DeadlineExceeded, DeadlinePassed
from resilience.events import BreakerChanged, hooks
from resilience.testing import FakeClock

POLICY = Policy(InARow(2), 60.0, 0.0, 1.0, 60.0, 2, 30.0)


def gate_of(policy=POLICY, **options):
    defaults = {
        "slow_after": None,
        "recorded": matcher(Exception, "record_on"),
        "ignored": matcher((), "ignore"),
        "fails_by_result": None,
        "clock": FakeClock(),
        "random": lambda: 0.0,
        "on_change": (),
    }
    return Gate(policy, "storage", **(defaults | options))


def opened(**options):
    clock = FakeClock()
    gate = gate_of(clock=clock, **options)
    for _ in range(2):
        gate.count(gate.core.period, inf, OSError())
    return gate, clock


def half_open(**options):
    gate, clock = opened(**options)
    clock.advance(60.0)
    return gate, clock


def state(gate):
    return gate.core.period.state.value


def failures(gate):
    return gate.core.figures(gate.now()).failures


def places_taken(gate):
    with gate.lock:
        gate.take_back(gate.now())
    return len(gate.core.period.leases)


def raising(error):
    raise error


# --- admission -----------------------------------------------------------------------------------


def test_while_closed_a_permit_holds_no_place():
    permit = gate_of().admit()

    assert (permit.generation, permit.ticket, permit.deadline, permit.started) == (1, 0, inf, inf)


def test_a_permit_knows_when_it_began_where_that_matters():
    gate = gate_of(slow_after=1.0)

    assert gate.admit().started == 1000.0
    assert gate.admit(timed=False).started == inf


def test_while_open_every_call_is_rejected_with_a_fresh_error():
    gate, clock = opened()
    clock.advance(15.0)

    with pytest.raises(CircuitOpenError) as first:
        gate.admit()
    with pytest.raises(CircuitOpenError) as second:
        gate.admit()

    assert first.value is not second.value
    assert (first.value.name, first.value.retry_after) == ("storage", 45.0)


def test_held_open_nobody_can_say_when_to_try_again():
    gate = gate_of()
    gate.apply(Event.FORCE_OPEN)

    with pytest.raises(CircuitOpenError) as rejected:
        gate.admit()

    assert rejected.value.retry_after is None


def test_a_call_from_before_a_forced_opening_by_a_clock_set_back_is_rejected_too():
    clock = FakeClock()
    gate = gate_of(clock=clock)
    gate.apply(Event.FORCE_OPEN)
    clock.step(-3600.0)

    with pytest.raises(CircuitOpenError) as rejected:
        gate.admit()

    assert rejected.value.retry_after is None


def test_half_open_gives_out_places_and_then_rejects():
    gate, _ = half_open()
    permits = [gate.admit() for _ in range(2)]

    assert [permit.ticket for permit in permits] == [1, 2]
    assert permits[0].deadline == 1090.0
    with pytest.raises(CircuitOpenError) as rejected:
        gate.admit()
    assert rejected.value.retry_after == 30.0


# --- sharing -------------------------------------------------------------------------------------


class Noting:
    """A board that only counts how often it is woken."""

    def __init__(self):
        self.woken = 0

    def enrol(self, gate, core):
        assert gate.core is core
        return self.wake

    def wake(self):
        self.woken += 1


def shared_gate():
    clock, board = FakeClock(), Noting()
    gate = gate_of(clock=clock)
    gate.join(board, 1)
    return gate, clock, board


def test_one_that_is_not_shared_wakes_nobody():
    assert gate_of().wake is None


def test_a_board_is_woken_by_changes_probes_and_callers_without_a_place_and_by_nothing_else():
    gate, clock, board = shared_gate()
    gate.count(gate.core.period, inf, OSError())
    gate.count_success(gate.core.period)
    gate.admit().success()
    assert board.woken == 0
    for _ in range(2):
        gate.count(gate.core.period, inf, OSError())
    assert board.woken == 1
    with pytest.raises(CircuitOpenError):
        gate.admit()
    assert board.woken == 1

    clock.advance(60.0)
    first, second = gate.admit(), gate.admit()
    assert board.woken == 2
    with pytest.raises(CircuitOpenError):
        gate.admit()
    assert board.woken == 3
    first.success()
    assert board.woken == 4
    second.neutral()
    assert board.woken == 5


# --- permits -------------------------------------------------------------------------------------


def test_the_first_outcome_counts_and_no_other():
    gate = gate_of()
    permit = gate.admit()
    permit.failure(OSError())
    permit.failure(OSError())
    permit.success()
    permit.neutral()

    assert failures(gate) == 1


def test_a_success_that_changes_nothing_settles_too():
    gate = gate_of()
    permit = gate.admit()
    permit.success()
    permit.failure(OSError())

    assert failures(gate) == 0


def test_a_success_ends_the_row():
    gate = gate_of()
    gate.admit().failure(OSError())
    gate.admit().success()

    assert failures(gate) == 0


def test_a_slow_success_counts_where_that_is_asked_for():
    clock = FakeClock()
    gate = gate_of(POLICY._replace(rule=Ratio(0.5, 1.0, 1, 10.0, None)), slow_after=1.0, clock=clock)
    quick, slow = gate.admit(), gate.admit()
    clock.advance(1.0)
    quick.success()
    assert state(gate) == "closed"
    clock.advance(0.001)
    gate.apply(Event.RESET)
    slow.success()
    assert state(gate) == "closed"  # late: of the generation before

    slow = gate.admit()
    clock.advance(1.001)
    slow.success()

    assert state(gate) == "open"


def test_a_block_settles_by_how_it_ends():
    gate = gate_of()
    with suppress(OSError), gate.admit():
        raise OSError
    assert failures(gate) == 1

    with gate.admit():
        pass
    assert failures(gate) == 0


async def test_an_async_block_settles_by_how_it_ends():
    gate = gate_of()
    with suppress(OSError):
        async with gate.admit():
            raise OSError
    assert failures(gate) == 1

    async with gate.admit():
        pass
    assert failures(gate) == 0


def test_a_place_that_is_given_back_in_the_middle_of_a_decision_is_not_lost():
    gate, _ = half_open()
    permit = gate.admit()

    class Interrupted(dict):
        def items(self):
            leases = list(super().items())
            if not permit.settled:
                permit.neutral()  # as the garbage collector does when it finds an abandoned stream
            return leases

    gate.core.period.leases = Interrupted(gate.core.period.leases)
    assert gate.admit().ticket == 2
    assert gate.admit().ticket == 3


async def test_one_permit_is_not_for_two_blocks():
    gate = gate_of()
    permit = gate.admit()
    with permit:
        pass

    with pytest.raises(TypeError, match="for each block"), permit:
        pytest.fail("it ran unguarded")
    with pytest.raises(TypeError, match="for each block"):
        async with permit:
            pytest.fail("it ran unguarded")


def test_a_dropped_permit_gives_its_place_back():
    gate, _ = half_open()
    for _ in range(10):
        permit = gate.admit()
        assert permit.ticket
        del permit
        gc.collect()

    assert state(gate) == "half-open"
    assert gate.core.period.successes == 0


def test_a_settled_permit_and_one_without_a_place_leave_no_note():
    gate, _ = half_open()
    permit = gate.admit()
    permit.success()
    del permit
    gate.apply(Event.RESET)
    gate.admit()
    gc.collect()

    assert not gate.free


def test_a_permit_that_has_succeeded_has_no_place_to_give_back_any_more():
    gate, _ = half_open()
    permit, other = gate.admit(), gate.admit()
    permit.success()
    gate.give_back(permit)  # as a thread does that lost the race to settle

    assert places_taken(gate) == 1
    other.success()
    assert state(gate) == "closed"


def test_two_threads_that_settle_one_permit_count_once():
    gate, _ = half_open()
    permit = gate.admit()
    barrier = threading.Barrier(8)

    def settle():
        barrier.wait()
        permit.success()

    threads = [threading.Thread(target=settle) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert gate.core.period.successes == 1


def test_a_permit_that_lost_the_race_to_settle_changes_nothing():
    gate, _ = half_open()
    permit = gate.admit()
    permit.success()
    gate.settle(permit, Outcome.FAILURE)

    assert state(gate) == "half-open"


def test_a_permit_cannot_be_pickled():
    with pytest.raises(TypeError, match="settled once"):
        pickle.dumps(gate_of().admit())


# --- outcomes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(),
        GeneratorExit(),
        CancelledError(),
        concurrent.futures.CancelledError(),
        CircuitOpenError("inner", 1.0),
        DeadlinePassed("fetch was not begun: the deadline passed 0.000 s before"),
    ],
    ids=lambda error: type(error).__qualname__,
)
def test_what_says_nothing_about_the_dependency_is_neutral(error):
    assert gate_of().outcome_of(error) is Outcome.NEUTRAL
    gate, _ = half_open()
    permit = gate.admit()
    permit.failure(error)
    assert places_taken(gate) == 0
    assert state(gate) == "half-open"


def test_a_deadline_that_passed_while_the_call_was_under_way_is_a_failure():
    assert gate_of().outcome_of(DeadlineExceeded("fetch was cancelled at its deadline")) is Outcome.FAILURE


def group(*errors):
    return ExceptionGroup("as a TaskGroup raises it", errors)


def test_a_group_of_what_says_nothing_says_nothing():
    gate = gate_of(ignored=matcher(KeyError, "ignore"))
    nothing = [CircuitOpenError("inner", 1.0), concurrent.futures.CancelledError(), KeyError()]

    assert gate.outcome_of(group(*nothing)) is Outcome.NEUTRAL
    assert gate.outcome_of(group(group(*nothing), KeyError())) is Outcome.NEUTRAL
    assert gate.outcome_of(group(group(*nothing), OSError())) is Outcome.FAILURE


def test_a_group_counts_by_its_leaves_or_by_itself():
    by_leaf = gate_of(recorded=matcher(OSError, "record_on"))
    assert by_leaf.outcome_of(group(ValueError(), group(TimeoutError()))) is Outcome.FAILURE
    assert by_leaf.outcome_of(group(ValueError(), group(KeyError()))) is Outcome.NEUTRAL

    by_itself = gate_of(recorded=matcher(ExceptionGroup, "record_on"))
    assert by_itself.outcome_of(group(ValueError())) is Outcome.FAILURE

    ignored = gate_of(ignored=matcher(ExceptionGroup, "ignore"))
    assert ignored.outcome_of(group(OSError())) is Outcome.NEUTRAL


@pytest.mark.parametrize("error", [OSError, "timed out", None])
def test_what_is_no_exception_cannot_be_told_as_a_failure(error):
    permit = gate_of().admit()
    with pytest.raises(TypeError, match="pass the exception"):
        permit.failure(error)

    assert not permit.settled


def test_record_on_and_ignore():
    gate = gate_of(
        recorded=matcher(OSError, "record_on"), ignored=matcher(lambda e: "quiet" in str(e), "ignore")
    )

    assert gate.outcome_of(OSError()) is Outcome.FAILURE
    assert gate.outcome_of(OSError("quiet")) is Outcome.NEUTRAL
    assert gate.outcome_of(ValueError()) is Outcome.NEUTRAL
    assert gate.outcome_of(None) is Outcome.SUCCESS


def test_a_result_is_judged_where_it_is_known():
    gate = gate_of(fails_by_result=lambda result: result == 503)

    assert gate.outcome_of(None) is Outcome.SUCCESS
    assert gate.outcome_of(None, 200) is Outcome.SUCCESS
    assert gate.outcome_of(None, 503) is Outcome.FAILURE


def test_a_raising_predicate_gives_the_place_back_and_is_heard():
    gate, _ = half_open(ignored=lambda error: isinstance(error, KeyError) and raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError) as raised, gate.admit():
        raise KeyError

    assert isinstance(raised.value.__context__, KeyError)
    assert places_taken(gate) == 0
    assert state(gate) == "half-open"


def test_calls_without_a_permit_are_counted():
    gate = gate_of(fails_by_result=lambda result: result is None)
    gate.count(gate.core.period, inf, None, None)
    assert failures(gate) == 1
    gate.count_success(gate.core.period)
    assert failures(gate) == 0


def test_a_success_within_a_time_window_is_only_noted():
    gate = gate_of(POLICY._replace(rule=Ratio(0.5, inf, 5, 10.0, None)))
    gate.count_success(gate.core.period)

    assert gate.core.figures(gate.now()).calls == 1


def test_a_late_success_lands_in_the_window_of_its_own_generation():
    gate = gate_of()
    early = gate.core.period
    gate.apply(Event.RESET)
    gate.count(gate.core.period, inf, OSError())
    gate.count_success(early)

    assert failures(gate) == 1


# --- changes -------------------------------------------------------------------------------------


def test_changes_are_told_with_the_window_s_figures():
    seen = []
    gate, clock = opened(on_change=hooks(seen.append))
    clock.advance(60.0)
    for _ in range(2):
        gate.admit().success()

    assert seen == [
        BreakerChanged("storage", "closed", "open", "failures in a row", 2, 2, 0, 60.0),
        BreakerChanged("storage", "open", "half-open", "recovery time over", 2, 2, 0, 0.0),
        BreakerChanged("storage", "half-open", "closed", "probes succeeded", 2, 2, 0, 0.0),
    ]


def test_what_the_table_refuses_is_not_told():
    seen = []
    gate = gate_of(on_change=hooks(seen.append))
    gate.apply(Event.FORCE_OPEN)
    gate.apply(Event.FORCE_OPEN)

    assert len(seen) == 1


def test_other_settings_are_taken_on_in_the_present_state():
    gate, clock = opened()
    told = []
    other = gate_of(
        POLICY._replace(probes=1),
        slow_after=2.0,
        fails_by_result=bool,
        ignored=matcher(KeyError, "ignore"),
        recorded=matcher(OSError, "record_on"),
        random=lambda: 0.5,
        on_change=hooks(told.append),
        clock=clock,
    )
    before = gate.core
    gate.go_on_by(other)
    assert gate.core is before
    assert (gate.core.policy.probes, gate.slow_after, gate.timed, gate.examines) == (1, 2.0, True, True)
    assert (gate.recorded, gate.ignored, gate.fails_by_result) == (other.recorded, other.ignored, bool)
    assert gate.random() == 0.5
    clock.advance(60.0)
    gate.admit().success(0)
    assert [change.after for change in told] == ["half-open", "closed"]
