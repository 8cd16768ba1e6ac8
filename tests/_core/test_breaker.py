from __future__ import annotations

from itertools import product
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.breaker import TRANSITIONS, Action, Breaker, Event, Outcome, Period, Policy, State
from resilience._core.ramp import Ramp
from resilience._core.trip import InARow, Ratio
from resilience._core.window import NOTHING, Figures

POLICY = Policy(
    InARow(2),
    recovery_time=60.0,
    recovery_jitter=0.5,
    recovery_growth=2.0,
    max_recovery_time=200.0,
    probes=3,
    lease=30.0,
)


def breaker_in(state, policy=POLICY):
    """Return a breaker that has come to `state` at instant 0."""
    breaker = Breaker(policy, 0.0)
    if state is State.OPEN or state is State.HALF_OPEN:
        for _ in range(2):
            breaker.settle(breaker.period, 0, Outcome.FAILURE, 0.0)
    if state is State.HALF_OPEN:
        breaker.apply(Event.RECOVERY_OVER, 0.0)
    if state is State.FORCED_OPEN:
        breaker.apply(Event.FORCE_OPEN, 0.0)
    if state is State.FORCED_CLOSED:
        breaker.apply(Event.FORCE_CLOSE, 0.0)
    assert breaker.period.state is state
    return breaker


def end(breaker, grant, outcome, now=0.0, draw=0.0, **options):
    return breaker.settle(grant.period, grant.ticket, outcome, now, draw, **options)


# --- the table -----------------------------------------------------------------------------------

EXPECTED = {
    (State.CLOSED, Event.TRIPPED): (State.OPEN, Action.REST),
    (State.CLOSED, Event.OPENED_ELSEWHERE): (State.OPEN, Action.REST_AS_TOLD),
    (State.CLOSED, Event.FORCE_OPEN): (State.FORCED_OPEN, Action.HOLD),
    (State.CLOSED, Event.FORCE_CLOSE): (State.FORCED_CLOSED, Action.COUNT),
    (State.CLOSED, Event.RESET): (State.CLOSED, Action.COUNT),
    (State.OPEN, Event.RECOVERY_OVER): (State.HALF_OPEN, Action.TEST),
    (State.OPEN, Event.OPENED_ELSEWHERE): (State.OPEN, Action.REST_AS_TOLD),
    (State.OPEN, Event.CLOSED_ELSEWHERE): (State.CLOSED, Action.RAMP_UP),
    (State.OPEN, Event.FORCE_OPEN): (State.FORCED_OPEN, Action.HOLD),
    (State.OPEN, Event.FORCE_CLOSE): (State.FORCED_CLOSED, Action.COUNT),
    (State.OPEN, Event.RESET): (State.CLOSED, Action.COUNT),
    (State.HALF_OPEN, Event.PROBES_SUCCEEDED): (State.CLOSED, Action.RAMP_UP),
    (State.HALF_OPEN, Event.PROBE_FAILED): (State.OPEN, Action.REST_LONGER),
    (State.HALF_OPEN, Event.OPENED_ELSEWHERE): (State.OPEN, Action.REST_AS_TOLD),
    (State.HALF_OPEN, Event.CLOSED_ELSEWHERE): (State.CLOSED, Action.RAMP_UP),
    (State.HALF_OPEN, Event.FORCE_OPEN): (State.FORCED_OPEN, Action.HOLD),
    (State.HALF_OPEN, Event.FORCE_CLOSE): (State.FORCED_CLOSED, Action.COUNT),
    (State.HALF_OPEN, Event.RESET): (State.CLOSED, Action.COUNT),
    (State.FORCED_OPEN, Event.FORCE_CLOSE): (State.FORCED_CLOSED, Action.COUNT),
    (State.FORCED_OPEN, Event.RESET): (State.CLOSED, Action.COUNT),
    (State.FORCED_CLOSED, Event.FORCE_OPEN): (State.FORCED_OPEN, Action.HOLD),
    (State.FORCED_CLOSED, Event.RESET): (State.CLOSED, Action.COUNT),
}


@pytest.mark.parametrize(("state", "event"), list(product(State, Event)))
def test_every_state_and_event(state, event):
    breaker = breaker_in(state)
    before = breaker.period
    change = breaker.apply(event, 10.0, 1.0)

    if (state, event) not in EXPECTED:  # refused: nothing has changed
        assert change is None
        assert breaker.period is before
        return
    after, action = EXPECTED[state, event]
    period = breaker.period
    assert (change.before, change.after, change.reason) == (state, after, event.value)
    assert period.state is after
    assert period.generation == before.generation + 1
    assert period.began == 10.0
    assert period.passes is period.counts is (action is Action.COUNT or action is Action.RAMP_UP)
    assert period.rest == {Action.REST: 90.0, Action.REST_LONGER: 180.0, Action.HOLD: inf}.get(action, 0.0)
    assert change.retry_after == period.rest
    assert period.until == (10.0 + period.rest if period.rest else -inf)
    assert (period.window is not before.window) is period.counts
    assert (period.leases, period.tickets, period.successes) == ({}, 0, 0)


def test_the_table_is_what_is_written_here():
    assert {
        (state, event): step for state, events in TRANSITIONS.items() for event, step in events.items()
    } == EXPECTED


# --- closed --------------------------------------------------------------------------------------


def test_it_begins_closed():
    breaker = Breaker(POLICY, 7.0)

    assert breaker.period.state is State.CLOSED
    assert breaker.period.generation == 1
    grant = breaker.admit(7.0)
    assert (grant.period, grant.ticket, grant.deadline, grant.change) == (breaker.period, 0, inf, None)
    assert breaker.retry_after(7.0) == 0.0


def test_failures_open_it_with_the_rule_s_reason_and_figures():
    breaker = Breaker(POLICY, 0.0)
    assert breaker.settle(breaker.period, 0, Outcome.FAILURE, 0.0) is None

    change = breaker.settle(breaker.period, 0, Outcome.FAILURE, 0.0, 0.5)

    assert change == (State.CLOSED, State.OPEN, "failures in a row", Figures(2, 2, 0), 75.0)
    assert breaker.figures(1.0) == Figures(2, 2, 0)
    assert breaker.retry_after(1.0) == 74.0


def test_a_success_between_failures_begins_the_row_anew():
    breaker = Breaker(POLICY, 0.0)
    for outcome in (Outcome.FAILURE, Outcome.SUCCESS, Outcome.FAILURE):
        assert breaker.settle(breaker.period, 0, outcome, 0.0) is None

    assert breaker.figures(0.0).failures == 1


def test_neutral_outcomes_neither_count_nor_reset():
    breaker = Breaker(POLICY, 0.0)
    breaker.settle(breaker.period, 0, Outcome.FAILURE, 0.0)
    breaker.settle(breaker.period, 0, Outcome.NEUTRAL, 0.0, slow=True)

    assert breaker.figures(0.0) == Figures(1, 1, 0)


def test_slow_successes_open_it():
    breaker = Breaker(POLICY._replace(rule=Ratio(0.5, 1.0, 2, 10.0, None)), 0.0)
    breaker.settle(breaker.period, 0, Outcome.SUCCESS, 0.0, slow=True)

    change = breaker.settle(breaker.period, 0, Outcome.SUCCESS, 0.0, slow=True)

    assert change.reason == "slow-call ratio"


def test_success_alone_does_not_open_it():
    breaker = Breaker(POLICY._replace(rule=Ratio(0.5, inf, 5, 10.0, None)), 0.0)
    for outcome in [Outcome.FAILURE] * 3 + [Outcome.SUCCESS] * 2:
        assert breaker.settle(breaker.period, 0, outcome, 0.0) is None

    assert breaker.settle(breaker.period, 0, Outcome.FAILURE, 0.0).reason == "failure ratio"


# --- open ----------------------------------------------------------------------------------------


def test_it_rejects_until_the_recovery_time_is_over_to_the_instant():
    breaker = breaker_in(State.OPEN)

    assert breaker.admit(59.999) is None
    grant = breaker.admit(60.0)

    assert grant.ticket == 1
    assert grant.deadline == 90.0
    assert grant.change == (State.OPEN, State.HALF_OPEN, "recovery time over", Figures(2, 2, 0), 0.0)


def test_a_clock_set_back_does_not_keep_it_open_for_longer_than_it_rests():
    breaker = breaker_in(State.OPEN)

    assert breaker.admit(-3600.0) is None
    assert breaker.retry_after(-3600.0) == 60.0
    assert breaker.admit(-3540.0) is not None


def test_the_recovery_time_grows_with_each_failed_probe_and_not_without_end():
    breaker = breaker_in(State.OPEN)
    rests = []
    now = 0.0
    for _ in range(3):
        now += 1000.0
        rests.append(end(breaker, breaker.admit(now), Outcome.FAILURE, now).retry_after)

    assert rests == [120.0, 200.0, 200.0]


def test_once_closed_the_recovery_time_is_as_first_set():
    breaker = breaker_in(State.HALF_OPEN)
    end(breaker, breaker.admit(0.0), Outcome.FAILURE)
    for _ in range(3):
        end(breaker, breaker.admit(500.0), Outcome.SUCCESS, 500.0)
    assert breaker.period.state is State.CLOSED

    breaker.settle(breaker.period, 0, Outcome.FAILURE, 500.0)

    assert breaker.settle(breaker.period, 0, Outcome.FAILURE, 500.0).retry_after == 60.0


# --- half-open -----------------------------------------------------------------------------------


def test_as_many_places_as_probes():
    breaker = breaker_in(State.HALF_OPEN)

    assert [breaker.admit(0.0).ticket for _ in range(3)] == [1, 2, 3]
    assert breaker.admit(0.0) is None
    assert breaker.retry_after(0.0) == 30.0


def test_it_is_worth_trying_again_no_later_than_after_a_recovery_time():
    breaker = breaker_in(State.HALF_OPEN, POLICY._replace(recovery_time=5.0))
    for _ in range(3):
        breaker.admit(0.0)

    assert breaker.retry_after(1.0) == 5.0
    assert breaker.retry_after(28.0) == 2.0


def test_all_probes_must_succeed_and_no_more_are_let_in_than_are_missing():
    breaker = breaker_in(State.HALF_OPEN)
    grants = [breaker.admit(0.0) for _ in range(3)]

    assert end(breaker, grants[0], Outcome.SUCCESS) is None
    assert breaker.admit(0.0) is None
    assert end(breaker, grants[1], Outcome.SUCCESS) is None
    change = end(breaker, grants[2], Outcome.SUCCESS)

    assert change == (State.HALF_OPEN, State.CLOSED, "probes succeeded", Figures(2, 2, 0), 0.0)
    assert breaker.figures(0.0) == NOTHING


@pytest.mark.parametrize("how", [{"outcome": Outcome.FAILURE}, {"outcome": Outcome.SUCCESS, "slow": True}])
def test_the_first_failed_or_slow_probe_reopens(how):
    breaker = breaker_in(State.HALF_OPEN)
    grants = [breaker.admit(0.0) for _ in range(3)]
    end(breaker, grants[0], Outcome.SUCCESS)

    change = end(breaker, grants[1], **how)

    assert (change.after, change.reason) == (State.OPEN, "probe failed")
    assert breaker.figures(0.0) == Figures(2, 2, 0)  # of the window that opened it first
    assert end(breaker, grants[2], Outcome.SUCCESS) is None


def test_a_neutral_probe_gives_its_place_back_and_says_nothing():
    breaker = breaker_in(State.HALF_OPEN)
    grants = [breaker.admit(0.0) for _ in range(3)]

    assert end(breaker, grants[0], Outcome.NEUTRAL) is None

    assert breaker.period.successes == 0
    assert breaker.admit(0.0).ticket == 4


def test_a_place_is_settled_once():
    breaker = breaker_in(State.HALF_OPEN)
    grant = breaker.admit(0.0)
    for _ in range(3):
        end(breaker, grant, Outcome.SUCCESS)

    assert breaker.period.successes == 1


def test_a_hung_probe_loses_its_place_and_its_say():
    breaker = breaker_in(State.HALF_OPEN)
    hung = [breaker.admit(0.0) for _ in range(3)]
    assert breaker.admit(29.999) is None

    fresh = breaker.admit(30.0)

    assert fresh.ticket == 4
    for late in hung:
        assert end(breaker, late, Outcome.FAILURE, 31.0) is None
    assert breaker.period.state is State.HALF_OPEN


def test_a_lease_that_has_run_out_has_no_say_even_if_nobody_took_the_place():
    breaker = breaker_in(State.HALF_OPEN)
    grant = breaker.admit(0.0)

    assert end(breaker, grant, Outcome.FAILURE, 30.0) is None


def test_a_clock_set_back_does_not_lengthen_leases():
    breaker = breaker_in(State.HALF_OPEN)
    for _ in range(3):
        breaker.admit(0.0)

    assert breaker.admit(-3600.0) is None
    assert breaker.admit(-3570.0) is not None


# --- late results --------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("state", [State.OPEN, State.HALF_OPEN, State.FORCED_OPEN, State.FORCED_CLOSED])
def test_an_outcome_of_an_earlier_generation_changes_nothing(state, outcome):
    closed = Breaker(POLICY, 0.0)
    early = closed.period
    closed.settle(early, 0, Outcome.FAILURE, 0.0)
    breaker = breaker_in(state)
    period, figures = breaker.period, breaker.figures(0.0)

    assert breaker.settle(early, 0, outcome, 0.0) is None
    assert breaker.settle(early, 1, outcome, 0.0) is None

    assert breaker.period is period
    assert breaker.figures(0.0) == figures


def test_a_probe_of_an_earlier_half_open_period_has_no_say_in_the_next():
    breaker = breaker_in(State.HALF_OPEN)
    early = [breaker.admit(0.0) for _ in range(3)]
    end(breaker, early[0], Outcome.FAILURE)
    breaker.admit(1000.0)

    for late in early[1:]:
        assert end(breaker, late, Outcome.SUCCESS, 1000.0) is None

    assert breaker.period.successes == 0
    assert len(breaker.period.leases) == 1


# --- by hand -------------------------------------------------------------------------------------


def test_held_open_it_rejects_for_ever():
    breaker = breaker_in(State.FORCED_OPEN)

    assert breaker.admit(1e12) is None
    assert breaker.retry_after(1e12) == inf


def test_held_closed_it_counts_but_does_not_open():
    breaker = breaker_in(State.FORCED_CLOSED)
    for _ in range(9):
        assert breaker.settle(breaker.period, 0, Outcome.FAILURE, 0.0) is None

    assert breaker.period.state is State.FORCED_CLOSED
    assert breaker.figures(0.0).failures == 9
    assert breaker.admit(0.0) is not None


# --- trouble -------------------------------------------------------------------------------------


def test_when_trouble_was_last():
    breaker = Breaker(POLICY, 0.0)
    assert breaker.last_trouble(0.0) == -inf

    breaker.settle(breaker.period, 0, Outcome.FAILURE, 1.0)
    assert breaker.last_trouble(9.0) == 1.0

    breaker.settle(breaker.period, 0, Outcome.FAILURE, 2.0)
    assert breaker.last_trouble(9.0) == 62.0

    grant = breaker.admit(70.0)
    assert breaker.last_trouble(70.0) == 100.0
    end(breaker, grant, Outcome.NEUTRAL, 71.0)
    assert breaker.last_trouble(71.0) == 70.0

    breaker.apply(Event.FORCE_OPEN, 80.0)
    assert breaker.last_trouble(80.0) == inf


# --- whatever happens ----------------------------------------------------------------------------

steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.just(None)),
        st.tuples(st.just("settle"), st.tuples(st.integers(0, 9), st.sampled_from(Outcome))),
        st.tuples(st.just("wait"), st.floats(-100.0, 100.0)),
        st.tuples(st.just("hand"), st.sampled_from([Event.FORCE_OPEN, Event.FORCE_CLOSE, Event.RESET])),
    ),
    max_size=80,
)


@given(steps)
def test_whatever_happens_places_are_bounded_and_a_way_back_exists(script):
    breaker = Breaker(POLICY, 0.0)
    now, grants = 0.0, []
    for step, detail in script:
        generation = breaker.period.generation
        if step == "admit":
            grant = breaker.admit(now)
            if grant is not None:
                grants.append(grant)
        elif step == "settle" and grants:
            place, outcome = detail
            grant = grants[place % len(grants)]
            change = end(breaker, grant, outcome, now)
            assert change is None or grant.period.generation == generation
        elif step == "wait":
            now += detail
        elif step == "hand":
            breaker.apply(detail, now)
        period = breaker.period
        assert period.generation in (generation, generation + 1)
        assert len(period.leases) + period.successes <= POLICY.probes
        assert breaker.retry_after(now) >= 0.0
    if breaker.period.state is not State.FORCED_OPEN:
        # However it was left: after a recovery time and a lease a call is let in.
        assert breaker.admit(now) is not None or breaker.admit(now + 300.0) is not None


# --- ramp-up -------------------------------------------------------------------------------------


def ramping(seconds=10.0):
    """Return a breaker that has just closed at instant 0, and is ramping up."""
    breaker = breaker_in(State.HALF_OPEN, POLICY._replace(ramp_up=seconds))
    assert breaker.apply(Event.PROBES_SUCCEEDED, 0.0).after is State.CLOSED
    return breaker


def admitted(breaker, calls, now):
    return sum(breaker.admit(now) is not None for _ in range(calls))


def test_closed_again_it_lets_a_growing_share_pass():
    breaker = ramping()
    period = breaker.period

    assert (period.state, period.passes, period.counts) == (State.CLOSED, False, True)
    assert admitted(breaker, 1, 0.0) == 1
    for second, share in ((0.0, 10), (5.0, 50), (7.5, 75)):
        assert abs(admitted(breaker, 100, second) - share) <= 1
    assert breaker.retry_after(7.5) == 2.5
    assert not period.passes
    assert admitted(breaker, 1, 10.0) == 1
    assert period.passes
    assert breaker.period is period
    assert breaker.retry_after(10.0) == 0.0


def test_it_ramps_up_once_whatever_the_clock_does():
    breaker = ramping()
    breaker.admit(10.0)

    assert breaker.period.passes
    assert admitted(breaker, 10, -1000.0) == 10
    assert breaker.retry_after(-1000.0) == 0.0


def test_what_passes_while_it_ramps_up_is_counted_and_may_open_it():
    breaker = ramping()
    grants = [grant for grant in (breaker.admit(9.0) for _ in range(4)) if grant is not None]
    assert len(grants) >= 2
    changes = [end(breaker, grant, Outcome.FAILURE, 9.0) for grant in grants]
    assert changes[1].figures == Figures(2, 2, 0)
    assert breaker.period.state is State.OPEN


def test_a_success_while_it_ramps_up_is_counted():
    breaker = breaker_in(State.CLOSED, POLICY._replace(rule=Ratio(0.5, inf, 5, 10.0, None), ramp_up=10.0))
    breaker.apply(Event.TRIPPED, 0.0)
    breaker.apply(Event.CLOSED_ELSEWHERE, 0.0)
    end(breaker, breaker.admit(0.0), Outcome.SUCCESS)
    assert breaker.figures(0.0) == Figures(1, 0, 0)


def test_closed_by_hand_it_lets_all_pass():
    breaker = breaker_in(State.OPEN, POLICY._replace(ramp_up=10.0))
    breaker.apply(Event.RESET, 0.0)
    assert breaker.period.passes
    breaker.apply(Event.FORCE_CLOSE, 0.0)
    assert breaker.period.passes


# --- other settings ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
def test_other_settings_keep_the_state_and_the_window(state):
    breaker = breaker_in(state)
    period = breaker.period
    breaker.go_on_by(POLICY._replace(rule=InARow(7), recovery_time=9.0), 1.0)
    assert breaker.period is period
    assert breaker.policy.rule.threshold == 7


def test_a_row_goes_on_under_another_threshold():
    breaker = Breaker(POLICY._replace(rule=InARow(9)), 0.0)
    for _ in range(3):
        breaker.settle(breaker.period, 0, Outcome.FAILURE, 0.0)
    breaker.go_on_by(POLICY._replace(rule=InARow(4), recovery_time=9.0), 1.0)
    assert breaker.period.state is State.CLOSED  # no mere change opens it
    breaker.settle(breaker.period, 0, Outcome.FAILURE, 1.0)
    assert breaker.period.state is State.OPEN
    assert breaker.period.until == 10.0


@pytest.mark.parametrize("state", State)
def test_a_rule_that_counts_otherwise_begins_afresh_where_it_counts(state):
    breaker = breaker_in(state)
    period = breaker.period
    breaker.go_on_by(POLICY._replace(rule=Ratio(0.5, inf, 5, 10.0, None)), 1.0)
    after = breaker.period
    assert after.state is state
    assert (after is not period) is period.counts
    if period.counts:
        assert after.generation == period.generation + 1
        assert breaker.figures(1.0) == NOTHING
        assert after.passes


def test_a_ramp_goes_on():
    ramp = Ramp(10.0, 0.1)
    breaker = Breaker(POLICY, 0.0)
    breaker.period = Period(State.CLOSED, 5, 0.0, POLICY.rule.fresh(0.0), ramp=ramp)
    breaker.go_on_by(POLICY._replace(rule=Ratio(0.5, inf, 5, 10.0, None)), 3.0)
    assert (breaker.period.ramp, breaker.period.passes, breaker.period.began) == (ramp, False, 3.0)
