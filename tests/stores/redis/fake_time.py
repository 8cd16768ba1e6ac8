"""A clock that a real Redis server goes by: what a script would read by TIME, it reads from a key."""

from __future__ import annotations

from contextlib import contextmanager
from unittest import mock

from resilience.stores.redis import scripts
from resilience.testing import FakeClock

START = 1_700_000_000_000_000
"""Microseconds that the server's clock is ahead of the `FakeClock`, so that it shows a time of today."""

_KEY = "time-of-the-test"
_FAKE = f"cjson.decode(redis.call('GET', '{_KEY}'))"


class ServersClock(FakeClock):
    """A clock that the server follows; `client` is None until there is a server."""

    client = None

    def advance(self, seconds):
        super().advance(seconds)
        tell(self.client, self)

    def step(self, seconds):
        super().step(seconds)
        tell(self.client, self)


def tell(client, clock):
    """Set the server's clock to what `clock` shows."""
    seconds, microseconds = divmod(round(clock.now() * 1e6) + START, 1_000_000)
    client.set(_KEY, f"[{seconds}, {microseconds}]")


@contextmanager
def fake_time():
    """Have the stores that are made meanwhile use scripts that go by the fake time."""

    def faked(script):
        source = script.source.decode()
        assert scripts.TIME in source
        return scripts.script(source.replace(scripts.TIME, _FAKE))

    single = {letter: faked(script) for letter, script in scripts.TAKE_ONE.items()}
    several = {name: faked(getattr(scripts, name)) for name in ("TAKE", "PEEK", "REFUND", "UNDO")}
    with mock.patch.multiple(scripts, TAKE_ONE=single, **several):
        yield
