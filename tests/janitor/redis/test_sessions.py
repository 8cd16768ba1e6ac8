from __future__ import annotations

import asyncio
import secrets

import pytest
import redis

from resilience.janitor.redis import AsyncRedisSessions, RedisSessions, scripts
from resilience.janitor.sessions import session_id_of
from resilience.stores import StoreUnavailable
from resilience.testing import wait_until
from tests.janitor.conformance import IDLE, Awaited, SessionConformance
from tests.janitor.places import InRedis


@pytest.fixture
def clock(redis_server):
    place = InRedis(redis_server)
    yield place
    place.close()


class TestConformance(SessionConformance):
    @pytest.fixture
    def open_store(self, clock):
        return clock.open


class TestConformanceOnALoop(SessionConformance):
    @pytest.fixture
    def open_store(self, clock):
        return clock.open_async


# --- what only Redis has -------------------------------------------------------------------------------


@pytest.fixture(params=[RedisSessions, AsyncRedisSessions], ids=["sync", "async"])
def make(request, redis_server):
    """Return what makes a store that has connections of its own, and the server's clock."""
    made = []

    def make(**options):
        prefix = f"s{secrets.token_hex(6)}"
        options = {"prefix": prefix, **options}
        if request.param is RedisSessions:
            made.append(RedisSessions(redis_server.url, **options))
        else:
            made.append(Awaited(lambda: AsyncRedisSessions(redis_server.url, **options)))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def admin(redis_server):
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def keys_of(store):
    mine = store.store if isinstance(store, Awaited) else store
    return mine._session, mine._user, mine._all


def test_sessions_expire_by_themselves(make, admin):
    store = make(idle_timeout=0.05, absolute_lifetime=0.05)
    token = store.create("ada")
    session, user, everyone = keys_of(store)
    assert 0 < admin.pttl(session(session_id_of(token))) <= 50
    assert 0 < admin.pttl(user("ada")) <= 50
    assert 86_400_000 < admin.pttl(everyone) <= 86_400_050
    wait_until(lambda: not admin.exists(session(session_id_of(token)), user("ada")))

    assert store.validate(token) is None
    assert store.count_expired(10) == 1
    assert store.delete_expired(10) == 1
    assert not admin.exists(everyone)


def test_a_renewal_makes_everything_last_longer(make, admin):
    store = make(idle_timeout=100.0)
    token = store.create("ada")
    session, user, everyone = keys_of(store)
    admin.hincrby(session(session_id_of(token)), "expires", -50_000)  # as if it had begun 50 s ago
    assert store.renew(token)

    assert admin.pttl(session(session_id_of(token))) > 99_000
    assert admin.pttl(user("ada")) > 99_000
    assert admin.zscore(user("ada"), session_id_of(token)) == admin.zscore(everyone, session_id_of(token))


def test_a_renewal_does_not_undo_a_later_one(clock):
    store = clock.open(idle_timeout=IDLE)
    token = store.create("ada")
    key = store._session(session_id_of(token))
    clock.advance(IDLE / 2)
    ends = int(clock.admin.hget(key, "expires")) + 70_000
    ask = store._ask

    def be_passed(command, *arguments):
        if command == "evalsha" and arguments[0] == scripts.RENEW.sha:
            clock.admin.hset(key, "expires", ends)
        return ask(command, *arguments)

    store._ask = be_passed
    session = store.renew(token)

    assert session.expires_at == store.validate(token).expires_at == ends / 1000


def test_a_session_logged_out_between_reading_and_writing_is_not_revived(clock):
    for store in (clock.open(idle_timeout=IDLE), clock.open_async(idle_timeout=IDLE)):
        mine = store.store if isinstance(store, Awaited) else store
        token = store.create("ada")
        clock.advance(IDLE / 2)
        read = mine._read

        def read_then_log_out(session_id, kept, mine=mine, read=read):
            clock.admin.delete(mine._session(session_id))
            return read(session_id, kept)

        mine._read = read_then_log_out
        assert store.renew(token) is None
        mine._read = read
        assert store.validate(token) is None


def test_the_list_of_a_user_has_only_sessions_that_are_alive(clock):
    store = clock.open(idle_timeout=IDLE)
    for _ in range(5):
        store.create("ada")
    clock.advance(IDLE)
    token = store.create("ada")

    assert clock.admin.zrange(store._user("ada"), 0, -1) == [session_id_of(token).encode()]


def test_without_a_janitor_the_list_of_all_keeps_a_day(clock):
    store = clock.open(idle_timeout=IDLE)
    store.create("ada")
    clock.advance(86_400.0)
    store.create("bob")
    assert store.count_expired(10) == 1
    clock.advance(IDLE + 1)
    store.create("eve")

    assert store.count_expired(10) == 1  # the first has gone by itself


def test_a_session_that_was_evicted_is_over_and_leaves_no_trace(make, admin):
    store = make()
    token, other = store.create("ada"), store.create("ada")
    session, _, everyone = keys_of(store)
    admin.delete(session(session_id_of(token)))

    assert store.validate(token) is None
    assert store.ended([session_id_of(token)]) == [session_id_of(token)]
    assert store.delete_user("ada") == [session_id_of(other)]
    assert not admin.exists(everyone)


def test_a_user_may_have_many_sessions(make):
    store = make()
    ids = {session_id_of(store.create("ada")) for _ in range(1050)}

    newest = store.create("ada")
    ids.add(session_id_of(newest))
    assert len(store.of_user("ada", 2000)) == len(ids)
    assert len(store.of_user("ada")) == 100
    assert set(store.ended([*ids, *(f"x{n}" for n in range(600))])) == {f"x{n}" for n in range(600)}
    assert set(store.delete_user("ada")) == ids
    assert store.count() == 0


@pytest.mark.parametrize("user_id", ["a\0b", "\ud800", "x" * 100_000])
def test_a_user_id_may_be_anything(make, user_id):
    store = make()
    token = store.create(user_id)

    assert store.renew(token).user_id == user_id
    assert store.delete_user(user_id) == [session_id_of(token)]


def test_keys_of_one_store_have_one_hash_tag(make):
    store = make()
    session, user, everyone = keys_of(store)

    keys = [session("5e55"), session("}{"), user("ada"), user("a{b}c"), everyone]

    assert {key.partition(b"}")[0] for key in keys} == {everyone.partition(b"}")[0]}


def test_a_token_is_nowhere(make, admin):
    store = make()
    token = store.create("ada")
    session, *_ = keys_of(store)

    assert token.encode() not in str(admin.hgetall(session(session_id_of(token)))).encode()


def test_a_client_that_decodes_will_do(redis_server):
    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        with RedisSessions(client, prefix=f"s{secrets.token_hex(6)}") as store:
            token = store.create("ada", {"a": 1})
            assert store.renew(token).data == {"a": 1}
            assert store.delete_user("ada") == [session_id_of(token)]
        assert client.ping()  # it is not the store's to close


async def test_an_asynchronous_client_will_do(redis_server):
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        async with AsyncRedisSessions(client, prefix=f"s{secrets.token_hex(6)}") as store:
            token = await store.create("ada")
            assert await store.delete(session_id_of(token))
        assert await client.ping()


def test_a_server_that_has_lost_its_scripts_gets_them_again(make, admin):
    store = make()
    token = store.create("ada")
    admin.script_flush()

    assert store.renew(token)
    assert store.count() == 1


def test_a_key_of_somebody_else_is_said_to_be_so(make, admin):
    store = make()
    token = store.create("ada")
    session, *_ = keys_of(store)
    admin.delete(session(session_id_of(token)))
    admin.set(session(session_id_of(token)), "hello")
    with pytest.raises(StoreUnavailable, match="choose another prefix"):
        store.validate(token)


@pytest.mark.parametrize("kind", [RedisSessions, AsyncRedisSessions])
async def test_a_server_that_evicts_is_warned_about_once(kind, new_redis_server, caplog):
    server = new_redis_server("--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru")
    store = kind(server.url)
    for _ in range(2):
        counted = store.count()
        assert (await counted if asyncio.iscoroutine(counted) else counted) == 0
    closing = store.close()
    if closing is not None:
        await closing

    (record,) = caplog.records
    assert "evicts keys when it is full (maxmemory-policy volatile-lru)" in record.getMessage()


@pytest.mark.parametrize("kind", [RedisSessions, AsyncRedisSessions])
async def test_a_server_that_does_not_tell_is_not_warned_about(kind, redis_server, admin, caplog):
    admin.execute_command("ACL", "SETUSER", "limited", "on", "nopass", "~*", "+@all", "-info")
    store = kind(f"redis://limited:any@127.0.0.1:{redis_server.port}/0")
    counted = store.count()
    assert (await counted if asyncio.iscoroutine(counted) else counted) == 0
    closing = store.close()
    if closing is not None:
        await closing
    admin.execute_command("ACL", "DELUSER", "limited")

    assert caplog.records == []


def test_a_server_that_is_not_there_is_a_503(make):
    for store in (
        RedisSessions("redis://127.0.0.1:1"),
        Awaited(lambda: AsyncRedisSessions("redis://127.0.0.1:1")),
    ):
        with pytest.raises(
            StoreUnavailable, match=r"in 127\.0\.0\.1:1 are unavailable: .* cannot be reached"
        ):
            store.count()
        store.close()


def test_a_closed_store_says_so(make):
    store = make()
    store.count()
    if isinstance(store, Awaited):
        asyncio.run_coroutine_threadsafe(store.store.close(), store.loop).result(5)
    else:
        store.close()
    with pytest.raises(StoreUnavailable, match="the store was closed"):
        store.count()


@pytest.mark.parametrize("kind", [RedisSessions, AsyncRedisSessions])
@pytest.mark.parametrize(
    ("server", "options", "error", "words"),
    [
        ("http://localhost", {}, ValueError, "must say where Redis is"),
        (7, {}, TypeError, "needs a URL or a client of redis-py, not 7"),
        ("redis://localhost", {"prefix": ""}, ValueError, "prefix"),
        ("redis://localhost", {"prefix": "{shop}"}, ValueError, "prefix"),
        ("redis://localhost", {"timeout": 0}, ValueError, "timeout"),
        ("redis://localhost", {"connections": 0}, ValueError, "connections"),
    ],
)
def test_what_makes_no_sense_is_refused(kind, server, options, error, words):
    with pytest.raises(error, match=words):
        kind(server, **options)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://:secret@db.example:6380/1", "db.example:6380"),
        ("rediss://db.example", "db.example:6379"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
    ],
)
def test_a_server_has_a_name_without_a_password(url, name):
    assert RedisSessions(url)._name == name
