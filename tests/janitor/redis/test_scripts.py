from __future__ import annotations

import hashlib

from resilience.janitor.redis import scripts
from resilience.janitor.redis.scripts import Script

ALL = [script for script in vars(scripts).values() if isinstance(script, Script)]


def test_a_script_is_known_by_its_hash():
    script = Script.of("return ", "1")

    assert script == ("return 1", hashlib.sha1(b"return 1").hexdigest())


def test_every_script_reads_the_time_once():
    assert len(ALL) == 9
    assert [script.text.count("'TIME'") for script in ALL] == [1] * 9


def test_the_server_knows_them_by_the_same_names(redis_server):
    import redis

    with redis.Redis.from_url(redis_server.url, decode_responses=True) as client:
        assert [client.script_load(script.text) for script in ALL] == [script.sha for script in ALL]
