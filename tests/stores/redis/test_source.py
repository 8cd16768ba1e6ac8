from __future__ import annotations

import pytest
import redis
import redis.asyncio
from redis.credentials import UsernamePasswordCredentialProvider
from redis.sentinel import Sentinel, SentinelConnectionPool

from resilience.stores.redis.source import Source
from resilience.stores.redis.wire import packed


def source(server):
    return Source(server, redis.Redis, "redis.Redis")


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://cache", "cache:6379"),
        ("redis://user:secret@cache:7000/3", "cache:7000"),
        ("rediss://cache:7000", "cache:7000"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
    ],
)
def test_a_server_is_called_by_its_address_and_not_by_its_password(url, name):
    assert source(url).name == name


@pytest.mark.parametrize("server", [None, 6379, object(), redis.asyncio.Redis()])
def test_refuses_what_is_no_server(server):
    with pytest.raises(TypeError, match="a store needs a URL such as 'redis:"):
        source(server)


def test_connections_are_made_as_the_client_makes_them_but_do_not_retry_or_wait():
    client = redis.Redis(
        host="cache",
        port=7000,
        db=3,
        socket_timeout=60,
        decode_responses=True,
        health_check_interval=5,
        protocol=3,
    )
    made = source(client).connection(None, 0.25)
    assert (made.host, made.port, made.db) == ("cache", 7000, 3)
    assert (made.socket_timeout, made.socket_connect_timeout) == (0.25, 0.25)
    assert made.retry.get_retries() == 0
    assert made.health_check_interval == 0
    assert made.protocol == 2


def test_another_node_of_a_cluster_is_reached_in_the_same_way():
    made = source("rediss://user:secret@cache:7000").connection(("other", 7001), 1)
    assert isinstance(made, redis.SSLConnection)
    assert (made.host, made.port, made.username) == ("other", 7001, "user")


def test_sentinel_is_asked_where_the_primary_is():
    sentinel = Sentinel([("sentinel", 26379)])
    client = redis.Redis(connection_pool=SentinelConnectionPool("limits", sentinel))
    assert source(client).name == "limits"
    assert source(client).connection(None, 1).connection_pool is not None


@pytest.mark.parametrize(
    ("url", "commands"),
    [
        ("redis://cache", []),
        ("redis://:secret@cache", [(b"AUTH", b"secret")]),
        (
            "redis://user:secret@cache/3?client_name=web",
            [(b"AUTH", b"user", b"secret"), (b"SELECT", b"3"), (b"CLIENT", b"SETNAME", b"web")],
        ),
    ],
)
def test_greets_by_password_database_and_name(url, commands):
    one = source(url)
    assert one.greeting(one.connection(None, 1), None) == [packed(*words) for words in commands]


def test_a_provider_of_credentials_goes_first():
    one = source(redis.Redis(credential_provider=UsernamePasswordCredentialProvider("user", "secret")))
    assert one.greeting(one.connection(None, 1), ("user", "new")) == [packed(b"AUTH", b"user", b"new")]


def test_a_client_that_greets_by_itself_is_left_to_it():
    greeted = []
    one = source(redis.Redis(host="cache", db=3, redis_connect_func=greeted.append))
    made = one.connection(None, 1)
    assert one.greeting(made, None) == []
    made.redis_connect_func(made)
    assert greeted == [made]


def test_redis_py_says_nothing_by_itself():
    made = source("redis://:secret@cache").connection(None, 1)
    assert made.redis_connect_func(made) is None
