"""Live updates: who is told what, without a database, and without a connection."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.backend.domain.live import (
    BACKLOG,
    BATCH,
    GONE,
    MOST_MISSING,
    PATIENCE,
    TOO_SLOW,
    Ending,
    Follower,
    Hub,
    Listener,
    Live,
    LiveEvent,
    Mailbox,
)
from examples.backend.kit import drive
from resilience import ServiceError
from resilience.janitor.sockets import SocketRegistry
from resilience.testing import FakeClock

ADA = Listener("ada", "tenant a", "session a")
BOB = Listener("bob", "tenant b", "session b")


class Box(Mailbox):
    """A mailbox that counts how often it was woken, and is closed at once."""

    woken = 0

    def wake(self):
        self.woken += 1

    def close(self, code, reason):
        self.end(Ending(code, reason))


class Table:
    """Events as a database has them: numbered when they are written, there when they are committed."""

    def __init__(self):
        self.rows = {}
        self.forgotten_to = 0
        self.asked = []

    def commit(self, *ids, tenant_id="tenant a"):
        for number in ids:
            self.rows[number] = LiveEvent(id=number, tenant_id=tenant_id, at=0.0, kind="recording")

    async def newest(self):
        return max(self.rows, default=0)

    async def since(self, last, missing, limit):
        self.asked.append((last, list(missing)))
        found = [event for number, event in sorted(self.rows.items()) if number > last or number in missing]
        return found[:limit]

    async def of_tenant(self, tenant_id, after, limit):
        if after < self.forgotten_to:
            return None
        rows = sorted(self.rows.values(), key=lambda event: event.id)
        return [event for event in rows if event.tenant_id == tenant_id and event.id > after][:limit]

    async def forget(self, before):
        self.forgotten_to = before


class Sessions:
    def __init__(self, *ended):
        self._ended = ended

    async def ended(self, session_ids):
        return [session_id for session_id in session_ids if session_id in self._ended]


def event(number=1, tenant_id="tenant a"):
    return LiveEvent(id=number, tenant_id=tenant_id, at=0.0, kind="recording")


def ids(box):
    found = []
    while (one := box.take()) is not None:
        found.append(one.id)
    return found


# --- mailboxes -------------------------------------------------------------------------------------


def test_what_is_put_is_taken_in_order():
    box = Box()
    box.put(event(1))
    box.put(event(2))

    assert ids(box) == [1, 2]
    assert box.woken == 2


def test_one_that_is_too_slow_is_parted_with():
    box = Box(limit=2)
    for number in range(5):
        box.put(event(number))

    assert box.ending == TOO_SLOW
    assert box.take() is None


def test_the_first_reason_to_end_counts_and_nothing_is_told_after_it():
    box = Box()
    box.put(event())
    box.end(GONE)
    box.end(TOO_SLOW)

    assert box.ending == GONE
    assert box.take() is None
    box.put(event())
    assert box.take() is None


# --- the hub ---------------------------------------------------------------------------------------


def test_nobody_is_told_of_another_tenants_events():
    hub, ada, bob = Hub(most=10, most_of_user=10), Box(), Box()
    hub.enter(ada, ADA)
    hub.enter(bob, BOB)
    hub.deliver(event(1, "tenant a"))
    hub.deliver(event(2, "tenant b"))
    hub.deliver(event(3, "nobody's"))

    assert (ids(ada), ids(bob)) == ([1], [2])


def test_who_has_left_is_told_nothing_and_may_leave_twice():
    hub, ada = Hub(most=1, most_of_user=1), Box()
    hub.enter(ada, ADA)
    hub.leave(ada)
    hub.leave(ada)
    hub.deliver(event())

    assert len(hub) == 0
    assert ids(ada) == []
    hub.enter(ada, ADA)  # the place is free again


@pytest.mark.parametrize(
    ("most", "most_of_user", "second", "status"), [(1, 5, BOB, 503), (5, 1, ADA, 429), (1, 1, ADA, 429)]
)
def test_how_many_listen_is_bounded(most, most_of_user, second, status):
    hub = Hub(most=most, most_of_user=most_of_user)
    hub.enter(Box(), ADA)
    with pytest.raises(ServiceError) as refused:
        hub.enter(Box(), second)

    assert refused.value.status == status
    assert refused.value.retry_after
    assert len(hub) == 1


# --- the follower ----------------------------------------------------------------------------------


class Followed:
    def __init__(self):
        self.table, self.clock, self.told = Table(), FakeClock(), []
        self.follower = Follower(self.table, self.told.append, self.clock)

    def look(self):
        drive(self.follower.look())
        return [event.id for event in self.told]


def test_what_was_there_before_is_not_told():
    followed = Followed()
    followed.table.commit(1, 2, 3)
    drive(followed.follower.start())
    assert followed.look() == []
    assert followed.follower.heard == 3
    followed.table.commit(4)

    assert followed.look() == [4]
    assert followed.look() == [4]


def test_what_was_on_its_way_at_the_start_is_told():
    followed = Followed()
    followed.table.commit(1, 3)
    drive(followed.follower.start())
    assert followed.follower.heard == 1
    followed.table.commit(2)

    assert followed.look() == [2]
    assert followed.follower.heard == 3


def test_a_smaller_number_that_commits_later_is_told_once():
    followed = Followed()
    drive(followed.follower.start())
    followed.table.commit(2, 5)
    assert followed.look() == [2, 5]
    assert followed.follower.heard == 0
    assert [event.after for event in followed.told] == [0, 0]
    followed.table.commit(1, 4)
    assert followed.look() == [2, 5, 1, 4]
    assert followed.follower.heard == 2
    followed.table.commit(3)

    assert followed.look() == [2, 5, 1, 4, 3]
    assert followed.follower.heard == 5
    assert followed.told[-1].after == 3


def test_a_number_whose_transaction_was_rolled_back_is_given_up_after_a_while():
    followed = Followed()
    drive(followed.follower.start())
    followed.table.commit(2)
    followed.look()
    followed.clock.advance(PATIENCE)
    followed.look()
    assert followed.follower.heard == 0
    followed.clock.advance(0.1)
    followed.table.commit(1)  # at the last moment: it is asked for once more before it is given up

    assert followed.look() == [2, 1]
    followed.table.commit(4)
    followed.look()
    followed.clock.advance(PATIENCE + 0.1)
    followed.look()
    assert followed.follower.heard == 4
    followed.table.asked.clear()
    followed.look()
    assert followed.table.asked == [(4, [])]


def test_more_than_a_batch_is_read_at_once():
    followed = Followed()
    drive(followed.follower.start())
    followed.table.commit(*range(1, BATCH * 2 + 2))

    assert followed.look() == list(range(1, BATCH * 2 + 2))


def test_what_the_database_skipped_is_not_asked_for_without_bound():
    followed = Followed()
    drive(followed.follower.start())
    followed.table.commit(10**9, 10**9 + 500)
    followed.look()

    assert len(followed.follower._missing) == MOST_MISSING
    assert min(followed.follower._missing) > 10**9 - MOST_MISSING


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_each_event_is_told_once_in_whatever_order_transactions_commit(seed):
    chance, followed = random.Random(seed), Followed()
    drive(followed.follower.start())
    waiting, next_id, committed = [], 1, []
    for _ in range(60):
        match chance.choice(["begin", "commit", "roll back", "look", "wait"]):
            case "begin":
                waiting.append(next_id)
                next_id += 1
            case "commit" if waiting:
                committed.append(waiting.pop(chance.randrange(len(waiting))))
                followed.table.commit(committed[-1])
            case "roll back" if waiting:
                waiting.pop(chance.randrange(len(waiting)))
            case "look":
                followed.look()
                lost = [number for number in committed if number <= followed.follower.heard]
                assert set(lost) <= {event.id for event in followed.told}
            case _:
                followed.clock.advance(0.1)

    assert sorted(followed.look()) == sorted(committed)


# --- subscriptions ---------------------------------------------------------------------------------


class Listening:
    def __init__(self, *ended):
        self.table, self.sockets, self.clock = Table(), SocketRegistry(), FakeClock()
        self.live = Live(
            events=self.table,
            sessions=Sessions(*ended),
            sockets=self.sockets,
            most=10,
            clock=self.clock,
        )

    def subscribe(self, box, listener=ADA, after=None):
        return drive(self.live.subscribe(listener, box, after))


def test_a_subscription_is_told_until_it_is_given_up():
    here, box = Listening(), Box()
    drive(here.live.start())
    with here.subscribe(box) as subscription:
        assert len(here.sockets) == len(here.live.hub) == 1
        here.table.commit(1)
        drive(here.live.look())
        assert ids(subscription) == [1]
        assert subscription.begins_at == 0
    here.table.commit(2)
    drive(here.live.look())

    assert ids(subscription) == []
    assert len(here.sockets) == len(here.live.hub) == 0


def test_who_comes_back_is_told_what_happened_meanwhile_and_nothing_twice():
    here, box = Listening(), Box()
    drive(here.live.start())
    here.table.commit(1, 2)
    here.table.commit(3, tenant_id="tenant b")
    here.table.commit(4)
    subscription = here.subscribe(box, after=1)
    drive(here.live.look())  # and now all four come from here, too
    here.table.commit(5)
    drive(here.live.look())

    assert ids(subscription) == [2, 4, 5]
    assert subscription.begins_at == 1


def test_who_comes_back_goes_on_from_where_all_was_told():
    here, box = Listening(), Box()
    drive(here.live.start())
    here.table.commit(1, 2, 4)
    drive(here.live.look())
    subscription = here.subscribe(box, after=1)

    told = [subscription.take(), subscription.take()]
    assert [(event.id, event.after) for event in told] == [(2, 2), (4, 2)]  # 3 may still come


@pytest.mark.parametrize("reason", ["too much", "forgotten"])
def test_who_was_away_for_too_long_is_told_to_look(reason):
    here, box = Listening(), Box()
    here.table.commit(*range(1, BACKLOG + 3))
    drive(here.live.start())
    if reason == "forgotten":
        here.table.forgotten_to = 2
    subscription = here.subscribe(box, after=1)

    event = subscription.take()
    assert (event.kind, event.after) == ("reset", BACKLOG + 2)
    assert subscription.take() is None
    assert subscription.begins_at == BACKLOG + 2


def test_whose_session_has_ended_does_not_get_in():
    here, box = Listening("session a"), Box()
    with pytest.raises(ServiceError) as refused:
        here.subscribe(box)

    assert refused.value.status == 401
    assert len(here.sockets) == len(here.live.hub) == 0


def test_what_was_missed_is_not_told_once_the_end_has_come():
    here, box = Listening(), Box()
    here.table.commit(1, 2)
    drive(here.live.start())
    subscription = here.subscribe(box, after=0)
    box.end(GONE)

    assert subscription.take() is None


def test_the_end_of_the_session_closes_the_connection():
    here, box = Listening(), Box()
    with here.subscribe(box):
        here.sockets.end_sessions(["session a"])

    assert box.ending == Ending(1008, "session ended")


def test_a_database_that_is_away_is_told_once_and_made_up_for(caplog):
    here, box = Listening(), Box()
    drive(here.live.start())
    here.subscribe(box)
    since = here.table.since
    here.table.since = None
    caplog.set_level("INFO")
    for _ in range(3):
        drive(here.live.look())
    assert here.live.is_behind
    here.table.commit(1)
    here.table.since = since
    for _ in range(3):
        drive(here.live.look())

    assert not here.live.is_behind
    assert ids(box) == [1]
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "live updates are behind",
        "live updates have caught up",
    ]


def test_what_is_old_is_forgotten():
    here = Listening()
    drive(here.live.forget())

    assert here.table.forgotten_to == here.clock.wall() - 3600.0
