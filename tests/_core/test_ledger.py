from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience._core.ledger import KEPT, NO_NEWS, Answer, Ledger, News, Report

NOW = 1e9
OPEN = Ledger(generation=5, is_open=True, began=NOW, rest=10.0, recovery_time=8.0)
TESTED = OPEN._replace(began=NOW - 10.0)
CLOSED = Ledger(generation=5, began=NOW)


def report(ledger=CLOSED, voter="p", **said):
    """Return a report of one who knows `ledger`."""
    return Report(voter, ledger.news(NOW), **{"lease": 30.0, "probes": 2, **said})


def after(ledger, now=NOW, **said):
    return ledger.take(report(ledger, **said), now)[0]


def test_an_empty_ledger_is_no_news():
    assert Ledger().news(NOW) == NO_NEWS


def test_a_report_of_nothing_changes_nothing():
    assert CLOSED.take(report(), NOW) == (CLOSED, Answer(CLOSED.news(NOW), accepted=True, granted=()))


@pytest.mark.parametrize(
    "said", [{"opens": True}, {"closes": True}, {"succeeded": ("a",)}, {"asked": ("b",)}]
)
def test_a_report_about_a_generation_that_is_over_changes_nothing(said):
    ledger = TESTED._replace(leases={"a": NOW + 1.0})
    late = report(ledger, **said)._replace(known=CLOSED._replace(generation=4).news(NOW))

    assert ledger.take(late, NOW) == (ledger, Answer(ledger.news(NOW), accepted=False, granted=()))


# --- openings and closings -----------------------------------------------------------------------


def test_an_opening_begins_a_generation_that_is_at_least_the_clock():
    opened = after(CLOSED, opens=True, rest=10.0, recovery_time=8.0)

    assert opened == Ledger(int(NOW * 1e6), is_open=True, began=NOW, rest=10.0, recovery_time=8.0)
    assert opened.news(NOW + 4.0) == News(
        int(NOW * 1e6), is_open=True, remaining=6.0, recovery_time=8.0, successes=0
    )


def test_a_generation_grows_also_where_the_clock_was_set_back():
    ahead = CLOSED._replace(generation=1 << 60)

    assert after(ahead, opens=True).generation == (1 << 60) + 1


def test_an_open_one_opens_again_without_a_quorum_and_its_places_are_void():
    opened = after(TESTED._replace(leases={"a": NOW + 1.0}, successes=1), opens=True, rest=20.0, quorum=3)

    assert (opened.is_open, opened.rest, opened.leases, opened.successes) == (True, 20.0, {}, 0)


def test_a_closing_begins_a_generation_too():
    closed = after(OPEN, closes=True)

    assert closed == Ledger(int(NOW * 1e6), began=NOW)


def test_votes_open_it_when_there_are_enough():
    one = after(CLOSED, voter="a", opens=True, rest=10.0, quorum=2)
    assert (one.is_open, one.generation, one.votes) == (False, 5, {"a": NOW + 10.0})
    assert after(one, voter="a", opens=True, rest=10.0, quorum=2).is_open is False

    assert after(one, voter="b", opens=True, rest=10.0, quorum=2).is_open is True


def test_votes_that_are_too_old_or_withdrawn_do_not_count():
    one = after(CLOSED, voter="a", opens=True, rest=10.0, quorum=2)

    assert after(one, NOW + 10.0, voter="b", opens=True, rest=10.0, quorum=2).votes == {"b": NOW + 20.0}
    assert after(one, voter="a", closes=True) == CLOSED


def test_a_clock_that_was_set_back_makes_no_vote_last_longer():
    one = after(CLOSED, NOW + 3600.0, voter="a", opens=True, rest=10.0, quorum=3)
    two = after(one, NOW, voter="b", opens=True, rest=10.0, quorum=3)

    assert two.votes == {"a": NOW + 10.0, "b": NOW + 10.0}


# --- places --------------------------------------------------------------------------------------


def test_places_are_leased_when_the_rest_is_over():
    assert OPEN.take(report(OPEN, asked=("a",)), NOW + 9.9)[1].granted == ()
    ledger, answer = OPEN.take(report(OPEN, asked=("a", "b", "c")), NOW + 10.0)

    assert answer.granted == ("a", "b")
    assert ledger.leases == {"a": NOW + 40.0, "b": NOW + 40.0}
    assert ledger.generation == 5


def test_a_closed_one_has_no_places():
    assert CLOSED.take(report(asked=("a",)), NOW)[1].granted == ()


def test_a_place_that_is_given_back_or_has_run_out_is_free():
    ledger = TESTED._replace(leases={"a": NOW + 1.0, "b": NOW + 1.0})
    assert ledger.take(report(ledger, asked=("c",)), NOW)[1].granted == ()

    assert ledger.take(report(ledger, asked=("c",), returned=("a",)), NOW)[1].granted == ("c",)
    assert ledger.take(report(ledger, asked=("c", "d"), returned=("x",)), NOW + 1.0)[1].granted == ("c", "d")


def test_successes_take_places_and_the_last_closes():
    ledger = TESTED._replace(leases={"a": NOW + 1.0, "b": NOW + 1.0})
    once = after(ledger, succeeded=("a",))
    assert (once.successes, once.leases, once.is_open) == (1, {"b": NOW + 1.0}, True)
    assert once.take(report(once, asked=("c",)), NOW)[1].granted == ()

    twice = after(once, succeeded=("b",))
    assert (twice.is_open, twice.generation) == (False, int(NOW * 1e6))


def test_a_success_without_a_lease_does_not_count():
    ledger = TESTED._replace(leases={"a": NOW + 1.0})

    assert after(ledger, succeeded=("x",)).successes == 0
    assert after(ledger, NOW + 1.0, succeeded=("a",)).successes == 0


def test_a_clock_that_was_set_back_makes_no_lease_longer():
    ledger = TESTED._replace(leases={"a": NOW + 3600.0})

    assert after(ledger).leases == {"a": NOW + 30.0}
    assert after(ledger, longest_lease=60.0).leases == {"a": NOW + 60.0}


def test_who_speaks_shortens_no_lease_that_another_may_have():
    ledger = TESTED._replace(leases={"a": NOW + 40.0})

    assert after(ledger, longest_lease=60.0).leases == {"a": NOW + 40.0}


# --- time ----------------------------------------------------------------------------------------


def test_a_clock_that_was_set_back_makes_no_rest_longer():
    assert OPEN.remaining(NOW - 5.0) == 10.0
    assert OPEN.remaining(NOW - 3600.0) == 0.0
    assert CLOSED.remaining(NOW) == 0.0


def test_it_is_kept_while_something_runs_and_a_while_after():
    ledger = TESTED._replace(leases={"a": NOW + 7.0}, votes={"p": NOW + 3.0})

    assert ledger.keep_for(NOW) == 7.0 + KEPT
    assert OPEN.keep_for(NOW) == 10.0 + KEPT
    assert OPEN.keep_for(NOW + 1e6) == KEPT


# --- an engine that has lost its data --------------------------------------------------------------


def test_what_was_lost_is_written_down_again_before_the_report():
    known = TESTED._replace(successes=1).news(NOW)
    ledger, answer = Ledger().take(Report("p", known, asked=("a", "b"), lease=30.0, probes=2), NOW)

    assert answer == Answer(known, accepted=True, granted=("a",))
    assert ledger.generation == 5
    assert Ledger().take(Report("p", OPEN.news(NOW + 4.0)), NOW + 4.0)[0].remaining(NOW + 4.0) == 6.0


# --- any report ------------------------------------------------------------------------------------

names = st.lists(st.sampled_from("abcdef"), max_size=4, unique=True).map(tuple)
reports = st.builds(
    Report,
    voter=st.sampled_from("pqr"),
    known=st.just(NO_NEWS),
    opens=st.booleans(),
    closes=st.booleans(),
    rest=st.sampled_from([0.0, 5.0, 10.0]),
    quorum=st.integers(1, 3),
    succeeded=names,
    returned=names,
    asked=names,
    lease=st.just(3.0),
    probes=st.integers(1, 3),
)


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 5.0]), reports, st.booleans()), max_size=30))
def test_after_any_reports(steps):
    ledger, now = Ledger(), NOW
    for seconds, said, is_late in steps:
        now += seconds
        before = ledger
        known = ledger.news(now)._replace(generation=ledger.generation - is_late)
        ledger, answer = ledger.take(said._replace(known=known), now)

        assert answer.accepted is not is_late
        assert answer.news == ledger.news(now)
        if is_late:
            assert ledger == before
        assert (ledger.generation > before.generation) == (
            ledger.is_open is not before.is_open or (said.opens and before.is_open and not is_late)
        )
        assert set(answer.granted) <= set(said.asked)
        assert len(answer.granted) <= said.probes
        if answer.granted:
            assert len(ledger.leases) + ledger.successes <= said.probes
