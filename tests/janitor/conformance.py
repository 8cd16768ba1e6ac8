"""What every session store must do, tested over each of them: a test module gives two fixtures.

`clock` is the store's own, made to stand still: it has `wall()` and `advance(seconds)`. `open_store` takes a
store's options, and returns one that lives by it; one for event loops is asked as if it were one for threads
(`Awaited`).
"""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from resilience.janitor import SessionJanitor
from resilience.janitor.sessions import session_id_of

IDLE, LIFETIME = 100.0, 1000.0


class Awaited:
    """A store for event loops, asked from threads: each question is awaited on one loop in its own thread."""

    def __init__(self, make):
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.store = make()

    def __getattr__(self, name):
        method = getattr(self.store, name)
        return lambda *arguments: asyncio.run_coroutine_threadsafe(method(*arguments), self.loop).result(60)

    def close(self):
        if not self.loop.is_closed():
            asyncio.run_coroutine_threadsafe(self.store.close(), self.loop).result(60)
            asyncio.run_coroutine_threadsafe(self.loop.shutdown_default_executor(), self.loop).result(60)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


def same(instant):
    return pytest.approx(instant, abs=1e-4)


class SessionConformance:
    @pytest.fixture
    def store(self, open_store):
        return open_store(idle_timeout=IDLE, absolute_lifetime=LIFETIME)

    # --- a session's life ------------------------------------------------------------------------

    def test_a_session_is_found_by_its_token(self, store, clock):
        token = store.create("ada", {"device": "laptop", "roles": ["admin"], "note": "\0 ' \\ é %s {}"})
        session = store.validate(token)

        assert session.session_id == session_id_of(token)
        assert session.user_id == "ada"
        assert session.data == {"device": "laptop", "roles": ["admin"], "note": "\0 ' \\ é %s {}"}
        assert session.created_at == same(clock.wall())
        assert session.expires_at == same(clock.wall() + IDLE)
        assert session.ends_at == same(clock.wall() + LIFETIME)

    def test_data_is_empty_where_none_was_given(self, store):
        assert store.validate(store.create("ada")).data == {}

    def test_data_must_be_what_json_can_hold(self, store):
        with pytest.raises(TypeError, match="JSON"):
            store.create("ada", {"when": object()})
        assert store.count() == 0

    @pytest.mark.parametrize(
        "user_id", ["", "ada@example.org", "' OR 1=1 --", "a\nb", "{é}", "%s", "x" * 1000]
    )
    def test_a_user_id_may_be_any_text(self, store, user_id):
        token = store.create(user_id)

        assert store.renew(token).user_id == user_id
        assert store.delete_user(user_id) == [session_id_of(token)]

    @pytest.mark.parametrize("token", ["", "no such token", "\0", "\ud800", "' OR 1=1 --"])
    def test_an_unknown_token_has_no_session(self, store, token):
        store.create("ada")

        assert store.validate(token) is None
        assert store.renew(token) is None

    @pytest.mark.parametrize("session_id", ["", "no such id", "\0", "\ud800", "' OR 1=1 --"])
    def test_an_unknown_id_has_no_session(self, store, session_id):
        store.create("ada")

        assert store.delete(session_id) is False
        assert store.ended([session_id]) == [session_id]
        assert store.delete_user("ada " + session_id) == []

    def test_an_id_is_no_token(self, store):
        session = store.validate(store.create("ada"))

        assert store.validate(session.session_id) is None

    def test_a_session_ends_idle_to_the_instant(self, store, clock):
        token = store.create("ada")
        clock.advance(IDLE - 0.001)
        assert store.validate(token) is not None
        assert store.ended([session_id_of(token)]) == []
        assert store.count_expired(10) == store.delete_expired(10) == 0

        clock.advance(0.001)

        assert store.validate(token) is None
        assert store.renew(token) is None
        assert store.ended([session_id_of(token)]) == [session_id_of(token)]
        assert store.count_expired(10) == store.delete_expired(10) == 1

    def test_a_session_ends_at_its_lifetime_however_often_it_is_renewed(self, store, clock):
        token = store.create("ada")
        lived = 0.0
        while store.renew(token):
            clock.advance(IDLE / 4)
            lived += IDLE / 4

        assert lived == LIFETIME

    def test_a_renewal_counts_only_after_a_tenth_of_the_idle_timeout(self, store, clock):
        token = store.create("ada")
        began = clock.wall()
        clock.advance(IDLE / 10 - 0.01)
        assert store.renew(token).expires_at == same(began + IDLE)
        assert store.validate(token).expires_at == same(began + IDLE)

        clock.advance(0.02)

        assert store.renew(token).expires_at == same(clock.wall() + IDLE)
        assert store.validate(token).expires_at == same(clock.wall() + IDLE)

    def test_the_last_renewal_reaches_the_very_end(self, store, clock):
        token = store.create("ada")
        while (clock.wall() + IDLE) < store.validate(token).ends_at - 1:
            clock.advance(IDLE / 2)
            store.renew(token)
        clock.advance(1)  # less than a tenth, but as far as it can go
        session = store.renew(token)

        assert session.expires_at == session.ends_at
        assert store.renew(token) == session

    # --- ending sessions -------------------------------------------------------------------------

    def test_a_session_is_deleted_once(self, store):
        token, other = store.create("ada"), store.create("ada")

        assert store.delete(session_id_of(token)) is True
        assert store.delete(session_id_of(token)) is False
        assert store.validate(token) is None
        assert store.renew(token) is None
        assert store.delete_user("ada") == [session_id_of(other)]

    def test_all_sessions_of_a_user_end_and_no_others(self, store):
        ids = {session_id_of(store.create("ada")) for _ in range(3)}
        other = store.create("bob")

        assert set(store.delete_user("ada")) == ids
        assert store.delete_user("ada") == []
        assert store.validate(other) is not None
        assert store.count() == 1

    def test_a_user_who_has_renewed_and_come_back_is_logged_out_everywhere(self, store, clock):
        renewed = store.create("ada")
        clock.advance(IDLE * 0.9)
        assert store.renew(renewed)
        clock.advance(IDLE * 0.9)  # the first one's original end is over
        begun_later = store.create("ada")

        assert set(store.delete_user("ada")) == {session_id_of(renewed), session_id_of(begun_later)}
        assert store.validate(renewed) is None

    def test_expired_sessions_go_a_batch_at_a_time(self, store, clock):
        for user in "abcde":
            store.create(user)
            clock.advance(1)
        clock.advance(IDLE)
        fresh = store.create("fresh")

        assert store.count_expired(10) == 5
        assert store.count_expired(3) == 3
        assert store.delete_expired(2) == 2
        assert store.count_expired(10) == 3
        assert store.delete_expired(10) == 3
        assert store.delete_expired(10) == 0
        assert store.count() == 1
        assert store.validate(fresh) is not None

    def test_ended_names_what_is_not_alive(self, store, clock):
        old = session_id_of(store.create("ada"))
        clock.advance(IDLE)
        alive, gone = session_id_of(store.create("ada")), session_id_of(store.create("ada"))
        store.delete(gone)

        assert store.ended([old, alive, gone, "never there"]) == [old, gone, "never there"]
        assert store.ended([]) == []

    # --- the sessions of a user ------------------------------------------------------------------

    def test_a_user_sees_their_sessions_that_are_alive_the_newest_first(self, store, clock):
        tokens = []
        for device in ("expired", "phone", "logged out", "laptop", "tablet"):
            tokens.append(store.create("ada", {"device": device}))
            clock.advance(IDLE / 5)
        store.create("bob")
        store.delete(session_id_of(tokens[2]))
        clock.advance(IDLE / 20)
        renewed = store.renew(tokens[1])  # being used makes it no newer

        seen = store.of_user("ada")

        assert [session.data["device"] for session in seen] == ["tablet", "laptop", "phone"]
        assert seen == [store.validate(token) for token in (tokens[4], tokens[3], tokens[1])]
        assert seen[-1].expires_at == same(renewed.expires_at)

    def test_of_many_sessions_the_newest_are_shown(self, store, clock):
        tokens = []
        for _ in range(5):
            tokens.append(store.create("ada"))
            clock.advance(1)
        store.renew(tokens[0])

        assert [session.session_id for session in store.of_user("ada", 2)] == [
            session_id_of(tokens[4]),
            session_id_of(tokens[3]),
        ]
        assert len(store.of_user("ada", 10**6)) == 5

    @pytest.mark.parametrize("user_id", ["", "nobody", "\0", "\ud800", "' OR 1=1 --"])
    def test_who_has_no_session_sees_none(self, store, user_id):
        store.create("ada")

        assert store.of_user(user_id) == []

    @pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
    def test_a_limit_that_makes_no_sense_is_refused(self, store, limit, error):
        with pytest.raises(error, match="limit must be"):
            store.of_user("ada", limit)

    # --- many at once ----------------------------------------------------------------------------

    def test_a_logout_during_renewals_is_final(self, store, clock):
        for _ in range(5):
            tokens = [store.create("ada") for _ in range(4)]
            clock.advance(IDLE / 2)  # so that every renewal writes
            with ThreadPoolExecutor(8) as pool:
                renewing = [pool.submit(store.renew, token) for token in tokens * 3]
                ending = [pool.submit(store.delete, session_id_of(token)) for token in tokens[:2]]
                pool.submit(store.delete_user, "ada").result()
                for outcome in (*renewing, *ending):
                    outcome.result()

            assert [store.validate(token) for token in tokens] == [None] * 4
            assert store.count() == 0
            assert store.count_expired(100) == 0

    def test_sessions_renewed_in_time_survive_sweeps_at_the_same_time(self, store, clock):
        kept = [store.create("ada") for _ in range(10)]
        clock.advance(IDLE / 2)
        lost = [store.create("bob") for _ in range(10)]
        clock.advance(IDLE / 2 - 1)
        over = threading.Event()

        def sweep():
            deleted = 0
            while not over.is_set():
                deleted += store.delete_expired(3) or 0
            return deleted

        with ThreadPoolExecutor(8) as pool:
            sweeping = [pool.submit(sweep) for _ in range(2)]
            assert all(pool.map(store.renew, kept))
            clock.advance(IDLE / 2 + 1)  # those that were not renewed are over
            assert all(pool.map(store.renew, kept))
            over.set()
            deleted = sum(outcome.result() for outcome in sweeping)

        deleted += store.delete_expired(100)
        assert deleted == len(lost)
        assert store.count() == len(kept)

    def test_several_janitors_clean_each_session_once(self, open_store, clock):
        stores = [open_store(idle_timeout=IDLE) for _ in range(3)]
        for _ in range(60):
            stores[0].create("old")
        clock.advance(IDLE)
        alive = [stores[0].create("new") for _ in range(5)]
        janitors = [SessionJanitor(Plain(one), batch=7, pause=0) for one in stores]
        with ThreadPoolExecutor(3) as pool:
            reports = list(pool.map(lambda janitor: janitor.sweep(), janitors))

        last = SessionJanitor(Plain(stores[0]), batch=7, pause=0).sweep()
        assert sum(report.sessions_cleaned for report in (*reports, last)) == 60
        assert last.complete
        assert all(stores[1].validate(token) for token in alive)

    # --- a model ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("seed", range(4))
    def test_it_does_what_a_table_in_memory_would(self, open_store, clock, seed):
        model = Model(open_store(idle_timeout=10.0, absolute_lifetime=25.0), clock, Random(seed))
        for _ in range(80):
            model.do_something()
            model.compare()

    # --- the object ------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("option", "value", "error"),
        [
            ("idle_timeout", 0, ValueError),
            ("idle_timeout", float("nan"), ValueError),
            ("idle_timeout", "30", TypeError),
            ("absolute_lifetime", -1.0, ValueError),
            ("absolute_lifetime", True, TypeError),
            ("absolute_lifetime", 60.0, ValueError),  # shorter than the idle timeout
        ],
    )
    def test_a_duration_that_makes_no_sense_is_refused(self, open_store, option, value, error):
        with pytest.raises(error, match=r"absolute_lifetime|idle_timeout"):
            open_store(**{option: value})

    @pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_a_store_is_not_copied(self, store, duplicate):
        with pytest.raises(TypeError, match="make another one for the same"):
            duplicate(store.store if isinstance(store, Awaited) else store)


class Model:
    """A table of sessions in memory, beside a store that is told the same."""

    def __init__(self, store, clock, random):
        self.store, self.clock, self.random = store, clock, random
        self.kept = {}  # token -> [user, expires, ends]

    def is_alive(self, token):
        return self.kept[token][1] > self.clock.wall()

    def do_something(self):
        rules = [self.create, self.create, self.wait, self.renew, self.delete, self.delete_user, self.sweep]
        rule = self.random.choice(rules)
        if rule in {self.renew, self.delete}:
            if self.kept:
                rule(self.random.choice(sorted(self.kept)))
        else:
            rule()

    def create(self):
        user, now = self.random.choice("ab"), self.clock.wall()
        self.kept[self.store.create(user)] = [user, now + 10.0, now + 25.0]

    def wait(self):
        self.clock.advance(self.random.choice([0.5, 1.5, 6.0, 11.0]))

    def renew(self, token):
        session = self.store.renew(token)
        assert (session is not None) == self.is_alive(token)
        if session is not None:
            kept = self.kept[token]
            latest = min(self.clock.wall() + 10.0, kept[2])
            if latest - kept[1] >= 1.0 or kept[1] < latest == kept[2]:
                kept[1] = latest
            assert session.expires_at == same(kept[1])

    def delete(self, token):
        assert self.store.delete(session_id_of(token)) or not self.is_alive(token)
        del self.kept[token]

    def delete_user(self):
        user = self.random.choice("ab")
        theirs = {session_id_of(token): token for token, kept in self.kept.items() if kept[0] == user}
        alive = {session_id for session_id, token in theirs.items() if self.is_alive(token)}
        ended = set(self.store.delete_user(user))
        assert alive <= ended <= theirs.keys()  # a store may not have known that some had expired
        for session_id in ended:
            del self.kept[theirs[session_id]]

    def sweep(self):
        expired = [token for token in self.kept if not self.is_alive(token)]
        assert self.store.delete_expired(100) <= len(expired)
        for token in expired:
            del self.kept[token]

    def compare(self):
        alive = {token: self.is_alive(token) for token in self.kept}
        assert self.store.count() == sum(alive.values())
        for user in "ab":
            theirs = [token for token, lives in alive.items() if lives and self.kept[token][0] == user]
            assert {one.session_id for one in self.store.of_user(user)} == set(map(session_id_of, theirs))
        ended = [session_id_of(token) for token, lives in alive.items() if not lives]
        assert self.store.ended(list(map(session_id_of, alive))) == ended


class Plain:
    """The five methods that a janitor asks for, whatever is behind them."""

    def __init__(self, store):
        self._store = store

    def delete(self, session_id):
        return self._store.delete(session_id)

    def delete_user(self, user_id):
        return self._store.delete_user(user_id)

    def delete_expired(self, limit):
        return self._store.delete_expired(limit)

    def count_expired(self, limit):
        return self._store.count_expired(limit)

    def ended(self, session_ids):
        return self._store.ended(session_ids)
