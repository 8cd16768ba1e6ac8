"""Several breakers and one ledger, without an engine: reports and answers are carried here by hand."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from resilience._core.breaker import Event, Outcome, Policy, State
from resilience._core.ledger import NO_NEWS, Answer, Ledger, News
from resilience._core.shared import HELD, IDLE, PATIENCE, SharedBreaker
from resilience._core.trip import InARow

POLICY = Policy(
    InARow(1),
    recovery_time=10.0,
    recovery_jitter=0.0,
    recovery_growth=2.0,
    max_recovery_time=40.0,
    probes=2,
    lease=5.0,
)


class World:
    """An engine with a clock of its own, and processes that are in touch with it unless told."""

    def __init__(self, count=2, policy=POLICY, quorum=1):
        self.now = 0.0
        self.ledger = Ledger()
        self.processes = [SharedBreaker(policy, 0.0, quorum) for _ in range(count)]
        for process in self.processes:
            process.in_touch = True
        self.voters = [f"p{number}" for number in range(count)]

    @property
    def engine_now(self):
        return 1e9 + self.now

    def voter(self, process):
        return self.voters[self.processes.index(process)]

    def take(self, report):
        self.ledger, answer = self.ledger.take(report, self.engine_now)
        return answer

    def report(self, process):
        """Carry one report and its answer; return the report."""
        sent = process.report(self.voter(process), self.now)
        if sent is not None:
            process.hear(sent, self.take(sent.report), self.now)
        return sent and sent.report

    def settle(self):
        """Let everybody say all there is to say, and hear what the others have said."""
        for _ in range(20):
            before = self.ledger, self.states()
            for process in self.processes:
                if process.in_touch:
                    self.report(process)
            for process in self.processes:
                if process.in_touch:
                    self.refresh(process)
            if before == (self.ledger, self.states()):
                return
        raise AssertionError("there is no end to it")

    def refresh(self, process):
        """Let a process read the ledger."""
        news = self.ledger.news(self.engine_now)
        process.follow(news, self.now)
        if reminder := process.reminder(self.voter(process), news, self.now):
            self.take(reminder)

    def call(self, process, outcome=Outcome.SUCCESS):
        """Make a call that ends at once; return whether it was admitted."""
        grant = process.admit(self.now)
        if grant is not None:
            process.settle(grant.period, grant.ticket, outcome, self.now)
        return grant is not None

    def states(self):
        return [process.period.state.value for process in self.processes]


def opened(count=2, **options):
    """Return a world in which the first process has tripped and all have heard."""
    world = World(count, **options)
    world.call(world.processes[0], Outcome.FAILURE)
    world.settle()
    return world


def half_open(count=2, **options):
    """Return a world in which each process has found out that the recovery time is over."""
    world = opened(count, **options)
    world.now = 10.0
    for process in world.processes:
        process.admit(world.now)
    world.settle()
    assert world.states() == ["half-open"] * count
    return world


# --- openings ------------------------------------------------------------------------------------


def test_when_one_trips_all_open_for_as_long():
    world = opened(3)

    assert world.states() == ["open"] * 3
    assert [process.retry_after(4.0) for process in world.processes] == [6.0] * 3


def test_who_hears_of_an_opening_says_why_it_opened():
    world = World()
    world.call(world.processes[0], Outcome.FAILURE)
    world.report(world.processes[0])
    change = world.processes[1].follow(world.ledger.news(world.engine_now + 4.0), 4.0)

    assert (change.before, change.after, change.reason) == ("closed", "open", "opened by another process")
    assert change.retry_after == 6.0


def test_of_two_that_trip_at_once_one_opens_and_the_other_follows_without_a_change():
    world = World()
    for process in world.processes:
        world.call(process, Outcome.FAILURE)
    first, second = world.processes
    sent = second.report("p1", 0.0)
    world.report(first)
    answer = world.take(sent.report)

    assert not answer.accepted
    assert second.hear(sent, answer, 0.0) is None
    world.settle()
    assert world.states() == ["open", "open"]
    assert world.ledger.generation == int(1e15)


def test_late_news_change_nothing():
    world = opened()
    late = Ledger(generation=5, is_open=False).news(0.0)

    assert world.processes[1].follow(late, 1.0) is None
    assert world.processes[1].follow(world.ledger.news(world.engine_now), 1.0) is None
    assert world.states() == ["open", "open"]


def test_no_news_keep_it_open_for_longer_than_it_could_be_by_itself():
    process = World(policy=POLICY._replace(recovery_jitter=0.5)).processes[0]
    process.follow(News(7, is_open=True, remaining=1e9, recovery_time=1e9, successes=0), 0.0)

    assert process.retry_after(0.0) == 60.0


def test_the_recovery_time_grows_for_all():
    world = half_open()
    world.settle()
    assert world.call(world.processes[0], Outcome.FAILURE)
    world.settle()
    assert world.states() == ["open", "open"]
    assert world.processes[1].retry_after(10.0) == 20.0

    world.now = 30.0
    world.settle()
    assert world.call(world.processes[1], Outcome.FAILURE)
    world.settle()
    assert world.processes[0].retry_after(30.0) == 40.0


def test_one_that_begins_while_all_are_open_is_open_too():
    world = opened()
    world.now = 25.0
    news = world.ledger.news(world.engine_now)
    newcomer = SharedBreaker(POLICY, 25.0, 1)
    newcomer.in_touch = True
    newcomer.follow(news, 25.0)

    assert newcomer.period.state is State.OPEN
    assert newcomer.admit(25.0) is None  # its recovery time is over, but it has no place
    assert newcomer.period.state is State.HALF_OPEN


# --- places for probes ---------------------------------------------------------------------------


def test_across_all_processes_there_are_as_many_places_as_probes():
    world = half_open(4)
    for _ in range(5):
        world.settle()
        grants = [process.admit(world.now) for process in world.processes]
        if any(grants):
            break
    assert sum(grant is not None for grant in grants) <= 2
    total = sum(len(process.period.leases) for process in world.processes)
    for _ in range(5):
        world.settle()
        total += sum(process.admit(world.now) is not None for process in world.processes)

    assert total == 2


def test_a_place_is_there_when_the_recovery_time_is_over_before_anybody_calls():
    world = opened()
    assert world.processes[0].due_in(4.0) == 6.0
    world.now = 10.0
    assert world.processes[0].due_in(10.0) == 0.0
    world.settle()
    outlasting = world.engine_now + POLICY.lease + IDLE  # the lease of a caller who comes at the last moment
    assert world.ledger.leases == {"p0/1": outlasting, "p1/1": outlasting}

    assert world.call(world.processes[0])
    assert world.call(world.processes[1])
    world.settle()
    assert world.states() == ["closed", "closed"]


def test_a_place_that_nobody_uses_is_given_back_and_not_asked_for_again():
    world = opened()
    world.now = 10.0
    world.settle()
    assert world.processes[0].due_in(10.0) == IDLE
    world.now += IDLE
    world.settle()

    assert world.ledger.leases == {}
    assert world.processes[0].due_in(world.now) == inf


def test_who_comes_back_when_told_finds_a_place():
    world = half_open(1)
    process = world.processes[0]
    calls = 0
    while process.period.state is State.HALF_OPEN:
        calls += 1
        wait = 0.0 if world.call(process) else process.retry_after(world.now)
        world.settle()
        world.now += wait + 0.05
        world.settle()

    assert process.period.state is State.CLOSED
    assert calls <= 2 * POLICY.probes


@pytest.mark.parametrize("pause", [1.5, 3.0, 3.1, 4.0, 4.9, 7.0, 20.0, 60.0, 300.0])
def test_who_calls_seldom_finds_a_place_too(pause):
    world = half_open(1)
    process = world.processes[0]
    calls = 0
    while process.period.state is State.HALF_OPEN and calls < 20:
        world.call(process)
        calls += 1
        comes_back = world.now + pause
        while world.now < comes_back:  # the board looks whenever it is due, and at least every second
            world.now = min(world.now + max(0.01, min(process.due_in(world.now), 1.0)), comes_back)
            world.report(process)

    assert process.period.state is State.CLOSED


def test_a_place_that_nobody_came_for_may_be_had_by_others_for_a_while():
    world = half_open(2, policy=POLICY._replace(probes=1))
    first, second = sorted(world.processes, key=lambda process: process.retry_after(world.now))
    assert second.admit(world.now) is None
    world.report(second)
    world.now += HELD
    world.report(first)
    assert IDLE <= first.due_in(world.now) < 2 * IDLE
    assert second.due_in(world.now) == 0.0
    world.report(second)
    assert second.admit(world.now)


def test_there_is_nothing_to_report_while_another_place_still_waits_for_a_caller():
    world = half_open(2, policy=POLICY._replace(probes=4, lease=60.0))
    first, second = world.processes
    assert first.admit(world.now)
    grants = [second.admit(world.now)]
    assert second.admit(world.now) is None
    world.report(second)
    grants.append(second.admit(world.now))
    for _ in range(3):
        assert first.admit(world.now) is None
    world.report(first)  # it gets one of three: there are four, and the others are at work
    world.now += 0.9 * HELD
    for grant in grants:
        second.settle(grant.period, grant.ticket, Outcome.NEUTRAL, world.now)
    world.report(second)
    world.report(first)  # now it gets another one, which waits for longer
    world.now = 10.0 + HELD
    assert world.report(first).returned
    world.now += 2 * IDLE

    assert first.retry_after(world.now) == 0.0
    assert world.report(first) is None
    assert first.due_in(world.now) > 0.0


def test_another_who_speaks_does_not_shorten_how_long_a_place_is_leased():
    world = half_open(2, policy=POLICY._replace(probes=1))
    patient, other = sorted(world.processes, key=lambda process: process.retry_after(world.now))
    a_minute_later = world.now + 60.0
    while world.now < a_minute_later or not world.ledger.leases:  # nobody comes, again and again
        world.now += patient.due_in(world.now)
        world.report(patient)
    leased = world.ledger.leases
    assert min(leased.values()) > world.engine_now + POLICY.lease + HELD
    assert other.admit(world.now) is None
    assert world.report(other).asked

    assert world.ledger.leases == leased


def test_a_place_whose_probe_said_nothing_is_given_back():
    world = half_open(1)
    process = world.processes[0]
    grant = process.admit(world.now)
    process.settle(grant.period, grant.ticket, Outcome.NEUTRAL, world.now)
    before = set(world.ledger.leases)
    world.settle()

    assert before - set(world.ledger.leases) == {f"p0/{grant.ticket}"}
    assert world.ledger.successes == 0


def test_where_no_place_is_free_callers_are_told_to_come_soon_and_it_asks_again():
    world = half_open(2, policy=POLICY._replace(probes=1))
    first, second = sorted(world.processes, key=lambda process: process.retry_after(world.now))
    assert first.admit(world.now)
    world.settle()
    assert second.admit(world.now) is None

    assert second.retry_after(world.now) == IDLE
    assert world.report(second).asked
    assert world.report(second) is None
    assert second.due_in(world.now) == IDLE


def test_a_success_counts_for_all_and_the_last_one_closes_all():
    world = half_open()
    first, second = world.processes
    assert world.call(first)
    world.settle()
    assert world.states() == ["half-open", "half-open"]
    assert [process.period.successes for process in world.processes] == [1, 1]
    assert world.call(second)
    sent = second.report("p1", world.now)
    change = second.hear(sent, world.take(sent.report), world.now)
    assert change.reason == "probes succeeded"
    world.settle()

    assert world.states() == ["closed", "closed"]


def test_the_lease_of_a_process_that_was_killed_runs_out():
    world = half_open(2, policy=POLICY._replace(probes=1))
    killed = next(process for process in world.processes if process.admit(world.now))
    survivor = next(process for process in world.processes if process is not killed)
    killed.in_touch = False  # it is never heard of again
    survivor.admit(world.now)
    world.settle()
    assert survivor.admit(world.now) is None

    world.now += POLICY.lease + HELD
    world.settle()

    assert world.call(survivor)
    world.settle()
    assert survivor.period.state is State.CLOSED


def test_a_success_after_the_lease_is_ignored():
    world = half_open(1)
    process = world.processes[0]
    grant = process.admit(world.now)
    world.now += POLICY.lease
    process.settle(grant.period, grant.ticket, Outcome.SUCCESS, world.now)
    world.settle()

    assert world.ledger.successes == 0


def test_a_lost_answer_leaks_no_place():
    world = opened(1)
    world.now = 10.0
    process = world.processes[0]
    sent = process.report("p0", world.now)
    world.take(sent.report)
    assert len(world.ledger.leases) == 1
    process.lose_touch()
    process.in_touch = True
    process.admit(world.now)

    assert world.report(process).returned == (f"p0/{sent.asked[0]}",)


def test_places_that_come_too_late_are_given_back():
    world = opened(1)
    world.now = 10.0
    process = world.processes[0]
    sent = process.report("p0", world.now)
    answer = world.take(sent.report)
    process.apply(Event.FORCE_OPEN, world.now)
    process.hear(sent, answer, world.now)
    world.settle()

    assert world.ledger.leases == {}


# --- quorum --------------------------------------------------------------------------------------


def test_one_sick_process_is_open_alone_and_is_tested_by_its_own_probes():
    world = World(3, quorum=2)
    sick = world.processes[0]
    world.call(sick, Outcome.FAILURE)
    world.settle()
    assert world.states() == ["open", "closed", "closed"]
    world.now = 10.0
    world.settle()

    assert world.call(sick)
    assert sick.period.state is State.HALF_OPEN
    assert world.call(sick)
    assert sick.period.state is State.CLOSED
    world.settle()
    assert world.ledger.votes == {}


def test_when_a_quorum_has_tripped_within_a_recovery_time_all_open():
    world = World(3, quorum=2)
    world.call(world.processes[0], Outcome.FAILURE)
    world.settle()
    world.now = 9.0
    world.call(world.processes[1], Outcome.FAILURE)
    world.settle()

    assert world.states() == ["open"] * 3
    assert [process.retry_after(9.0) for process in world.processes] == [10.0] * 3


def test_a_vote_that_is_too_old_does_not_count():
    world = World(3, quorum=2)
    world.call(world.processes[0], Outcome.FAILURE)
    world.settle()
    world.now = 10.0
    world.call(world.processes[1], Outcome.FAILURE)
    world.settle()

    assert world.states() == ["open", "open", "closed"]


def test_one_that_found_no_quorum_before_its_recovery_time_was_over_goes_on_alone():
    world = World(2, quorum=2)
    process = world.processes[0]
    world.call(process, Outcome.FAILURE)
    sent = process.report("p0", world.now)
    answer = world.take(sent.report)
    world.now = 10.0
    assert process.admit(world.now) is None  # it may yet become the opening of all
    process.hear(sent, answer, world.now)
    world.settle()

    assert world.call(process)
    assert world.call(process)
    assert process.period.state is State.CLOSED


# --- the engine away -----------------------------------------------------------------------------


def test_out_of_touch_it_is_as_any_other_breaker():
    world = World(1)
    process = world.processes[0]
    process.lose_touch()
    world.call(process, Outcome.FAILURE)
    assert process.retry_after(0.0) == 10.0
    world.now = 10.0

    assert [process.admit(world.now) is not None for _ in range(3)] == [True, True, False]
    assert process.retry_after(world.now) == 5.0


def test_what_closed_meanwhile_closes_all_when_the_engine_is_back():
    world = opened()
    process = world.processes[0]
    process.lose_touch()
    world.now = 10.0
    assert world.call(process)
    assert world.call(process)
    assert process.period.state is State.CLOSED
    process.in_touch = True
    world.settle()

    assert world.states() == ["closed", "closed"]


def test_what_opened_meanwhile_opens_all_for_what_is_left():
    world = World()
    process = world.processes[0]
    process.lose_touch()
    world.call(process, Outcome.FAILURE)
    world.now = 7.0
    process.in_touch = True
    world.settle()

    assert world.states() == ["open", "open"]
    assert world.processes[1].retry_after(7.0) == 3.0


def test_one_that_is_being_tested_by_itself_when_the_engine_is_back_is_not_the_others_business():
    world = World()
    process = world.processes[0]
    process.lose_touch()
    world.call(process, Outcome.FAILURE)
    world.now = 10.0
    assert world.call(process)
    process.in_touch = True
    world.settle()
    assert world.states() == ["half-open", "closed"]

    assert world.call(process)
    world.settle()
    assert world.states() == ["closed", "closed"]


def test_an_engine_that_lost_its_data_is_told_again():
    world = opened()
    world.now = 4.0
    known = world.ledger.generation
    world.ledger = Ledger()
    assert world.processes[0].report("p0", world.now) is None
    reminder = world.processes[0].reminder("p0", NO_NEWS, world.now)
    world.take(reminder)

    assert world.ledger.generation == known
    assert world.ledger.news(world.engine_now).remaining == 6.0
    assert world.processes[0].reminder("p0", world.ledger.news(world.engine_now), world.now) is None


def test_a_report_to_an_engine_that_lost_its_data_brings_along_what_was_known():
    world = half_open(1)
    world.ledger = Ledger()
    assert world.call(world.processes[0])
    world.settle()
    assert world.ledger.is_open

    for _ in range(3):  # the success that the engine did not know a place for is not counted
        world.call(world.processes[0])
        world.settle()
    assert world.states() == ["closed"]


def test_who_hears_nothing_from_a_board_that_hangs_takes_places_of_its_own():
    world = opened(1)
    world.now = 10.0
    process = world.processes[0]
    assert process.admit(world.now) is None
    world.now += PATIENCE - 0.5
    assert process.admit(world.now) is None
    world.now += 0.5

    assert world.call(process)
    assert world.call(process)
    assert process.period.state is State.CLOSED


def test_after_touch_is_lost_places_that_waited_are_not_used():
    world = half_open(1)
    process = world.processes[0]
    process.lose_touch()
    grants = [process.admit(world.now) for _ in range(2)]
    process.in_touch = True
    for grant in grants:  # own places do not count for the others
        process.settle(grant.period, grant.ticket, Outcome.SUCCESS, world.now)
    world.settle()

    assert world.ledger.successes == 0
    assert world.states() == ["half-open"]


# --- by hand -------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [Event.FORCE_OPEN, Event.FORCE_CLOSE])
def test_a_hold_is_of_one_process_and_hears_but_does_not_move(event):
    world = World()
    held, other = world.processes
    held.apply(event, 0.0)
    state = held.period.state
    world.settle()
    assert world.ledger == Ledger()
    world.call(other, Outcome.FAILURE)
    world.settle()

    assert held.period.state is state
    assert other.period.state is State.OPEN


def test_a_reset_closes_all():
    world = opened(3)
    world.processes[2].apply(Event.RESET, 1.0)
    world.settle()

    assert world.states() == ["closed"] * 3


def test_a_reset_after_a_report_of_an_opening_is_told_next():
    world = World()
    process = world.processes[0]
    world.call(process, Outcome.FAILURE)
    sent = process.report("p0", 0.0)
    answer = world.take(sent.report)
    process.apply(Event.RESET, 0.0)
    process.hear(sent, answer, 0.0)
    world.settle()

    assert world.states() == ["closed", "closed"]
    assert not world.ledger.is_open


def test_a_probe_that_fails_while_a_last_success_is_on_its_way_is_late():
    world = half_open(1, policy=POLICY._replace(probes=1))
    process = world.processes[0]
    assert world.call(process)
    sent = process.report("p0", world.now)
    answer = world.take(sent.report)
    process.apply(Event.PROBE_FAILED, world.now)
    change = process.hear(sent, answer, world.now)

    assert (change.before, change.after, change.reason) == ("open", "closed", "closed by another process")


# --- what spares work ----------------------------------------------------------------------------


def test_one_that_has_nothing_to_say_or_hear_is_settled():
    world = opened()
    news = world.ledger.news(world.engine_now)
    process = world.processes[0]

    assert process.is_settled(news)
    assert not process.is_settled(news._replace(generation=news.generation + 1))
    process.lose_touch()
    assert not process.is_settled(news)


def test_after_a_fork_the_child_holds_no_place():
    world = half_open(1)
    process = world.processes[0]
    process.forget_places()

    assert world.report(process) is None
    assert process.retry_after(world.now) == IDLE


def test_one_that_is_closed_or_out_of_touch_waits_for_nothing():
    assert World().processes[0].due_in(0.0) == inf
    process = opened().processes[0]
    process.lose_touch()
    assert process.due_in(0.0) == inf


# --- any order -----------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Three processes, reports that are late or lost, an engine out of reach now and then."""

    which = st.integers(0, 2)

    def __init__(self):
        super().__init__()
        self.world = World(3)
        self.in_flight = [[], [], []]
        self.under_way = [None, None, None]
        self.apart = False
        """Whether some were ever out of touch: then the cap need not hold any more."""
        self.known = [0, 0, 0]

    @initialize(begin=st.sampled_from([World, opened, half_open, half_open]))
    def begin(self, begin):
        self.world = begin(3)

    @rule()
    def let_all_be_tested(self):
        """Go where it is interesting, which would seldom happen by chance."""
        if not any(self.under_way):
            self.world.now += POLICY.max_recovery_time
            for process in self.world.processes:
                process.in_touch = True
            self.world.settle()
            for which in range(3):
                self.begin_a_call(which)

    @rule(which=which)
    def begin_a_call(self, which):
        process = self.world.processes[which]
        grant = process.admit(self.world.now)
        if grant is not None:
            self.in_flight[which].append(grant)

    @rule(which=which, outcome=st.sampled_from(Outcome))
    def end_a_call(self, which, outcome):
        if self.in_flight[which]:
            grant = self.in_flight[which].pop(0)
            self.world.processes[which].settle(grant.period, grant.ticket, outcome, self.world.now)

    @rule(which=which)
    def send_a_report(self, which):
        process = self.world.processes[which]
        if self.under_way[which] is None and process.in_touch:
            sent = process.report(self.world.voter(process), self.world.now)
            if sent is not None:
                self.under_way[which] = (sent, self.world.take(sent.report))

    @rule(which=which)
    def hear_the_answer(self, which):
        if self.under_way[which] is not None:
            sent, answer = self.under_way[which]
            self.under_way[which] = None
            self.world.processes[which].hear(sent, answer, self.world.now)

    @rule(which=which)
    def lose_the_answer(self, which):
        if self.under_way[which] is not None:
            self.under_way[which] = None
            self.apart = True
            self.world.processes[which].lose_touch()

    @rule(which=which)
    def refresh(self, which):
        process, world = self.world.processes[which], self.world
        if self.under_way[which] is None:
            process.in_touch = True
            world.refresh(process)

    @rule(which=which)
    def carry(self, which):
        self.send_a_report(which)
        self.hear_the_answer(which)

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 5.0, 10.0]))
    def wait(self, seconds):
        self.world.now += seconds

    @rule()
    def lose_all_data(self):
        self.apart = True
        self.world.ledger = Ledger()

    @rule(which=which, event=st.sampled_from([Event.FORCE_OPEN, Event.FORCE_CLOSE, Event.RESET]))
    def by_hand(self, which, event):
        self.world.processes[which].apply(event, self.world.now)

    @rule(which=which)
    def crash(self, which):
        """Let another process take its place."""
        world = self.world
        world.processes[which] = process = SharedBreaker(POLICY, world.now, 1)
        process.in_touch = True
        world.voters[which] += "'"
        self.in_flight[which] = []
        self.under_way[which] = None
        self.known[which] = 0

    @invariant()
    def no_more_probes_than_there_are_places(self):
        if not self.apart and all(process._waiting_since == inf for process in self.world.processes):
            leases = [end for process in self.world.processes for end in process.period.leases.values()]
            assert sum(end > self.world.now for end in leases) <= POLICY.probes

    @invariant()
    def what_is_known_only_grows(self):
        known = [process._known.generation for process in self.world.processes]
        assert all(new >= old for new, old in zip(known, self.known, strict=True))
        self.known = known

    @precondition(lambda self: not any(self.under_way))
    @rule()
    def all_agree_in_the_end_and_recover(self):
        world = self.world
        for process in world.processes:
            process.in_touch = True
        world.settle()
        for process in world.processes:
            if process.period.state in {State.OPEN, State.CLOSED} and process._private is not process.period:
                assert process.period.passes is not world.ledger.is_open
        self.in_flight = [[], [], []]
        for process in world.processes:
            if process.period.state in {State.FORCED_OPEN, State.FORCED_CLOSED}:
                process.apply(Event.RESET, world.now)
        for _ in range(40):
            if all(process.period.state is State.CLOSED for process in world.processes):
                return
            world.now += 2.5
            world.settle()
            for process in world.processes:
                world.call(process)
            world.settle()
        raise AssertionError(f"it stays {world.states()}")


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(stateful_step_count=40)


def test_an_answer_need_not_be_about_what_was_asked():
    world = World(1)
    world.call(world.processes[0], Outcome.FAILURE)
    sent = world.processes[0].report("p0", 0.0)

    assert world.processes[0].hear(sent, Answer(NO_NEWS, accepted=False, granted=("x",)), 0.0) is None
