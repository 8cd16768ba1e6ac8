from __future__ import annotations

import pytest

from resilience.errors import ErrorCode
from resilience.stores.engine import Unable
from resilience.stores.redis.answers import failure
from resilience.stores.redis.wire import ErrorReply


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("READONLY You can't write against a read only replica.", "name the primary"),
        (
            "ERR Error running script (call to f_1): @user_script: 7: -READONLY You can't write",
            "name the primary",
        ),
        ("LOADING Redis is loading the dataset in memory", "it is starting"),
        ("MASTERDOWN Link with MASTER is down", "has lost its primary"),
        ("NOREPLICAS Not enough good replicas to write.", "too few replicas"),
        ("CLUSTERDOWN The cluster is down", "is not whole"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "moving these keys"),
        ("BUSY Redis is busy running a script.", "somebody's script"),
        ("ERR max number of clients reached", "raise its maxclients"),
    ],
)
def test_what_a_server_cannot_do_at_the_moment_counts_as_an_outage(text, advice):
    error = failure(ErrorReply(text), "cache:6379", b"key")
    assert type(error) is Unable
    assert error.code is ErrorCode.SERVICE_UNAVAILABLE
    assert "cache:6379" in error.message
    assert advice in error.message
    assert text in error.message


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "what no limiter wrote"),
        ("FOREIGN data", "what no limiter wrote"),
        ("NOPERM this user has no permissions to run the 'evalsha' command", "ACL SETUSER"),
        ("ERR The user executing the script can't run this command or subcommand", "ACL SETUSER"),
        ("NOAUTH Authentication required.", "give one in the URL"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "no such user and password"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "raise its maxmemory"),
        ("MISCONF Redis is configured to save RDB snapshots", "cannot save to its disk"),
        ("ERR unknown command 'EVALSHA'", "Redis 6.2 or Valkey 7.2"),
        ("ERR DB index is out of range", "no database of that number"),
        ("NOSCRIPT No matching script. Please use EVAL.", "forgets scripts"),
        ("ERR something new", "ERR something new"),
    ],
)
def test_other_errors_say_what_to_do(text, advice):
    for key in (None, b"limits:login:{ada}"):
        error = failure(ErrorReply(text), "cache:6379", key)
        assert not isinstance(error, Unable)
        assert advice in error.message
        assert ("{ada}" in error.message) == (key is not None)
