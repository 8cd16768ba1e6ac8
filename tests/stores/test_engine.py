from __future__ import annotations

import pickle

from resilience.errors import ErrorCode
from resilience.stores import StoreUnavailable
from resilience.stores.engine import Lost, Unable
from resilience.stores.remote import AsyncEngine, Engine
from resilience.testing import FakeClock
from tests.stores.scripted import AsyncScriptedEngine, ScriptedEngine, ScriptedServer


def test_a_lost_reply_is_no_answer_to_callers():
    assert not issubclass(Lost, StoreUnavailable)


def test_unable_is_a_503_like_all_that_a_store_could_not_decide():
    error = Unable("it is loading its data", retry_after=2.0)
    assert isinstance(error, StoreUnavailable)
    assert (error.code, error.retry_after) == (ErrorCode.SERVICE_UNAVAILABLE, 2.0)


def test_errors_cross_processes():
    assert str(pickle.loads(pickle.dumps(Lost("no reply")))) == "no reply"


def test_the_tests_engines_have_all_that_is_asked_of_one():
    server = ScriptedServer(FakeClock())
    for protocol, engine in ((Engine, ScriptedEngine(server)), (AsyncEngine, AsyncScriptedEngine(server))):
        methods = {name for name in vars(protocol) if not name.startswith("_")}
        assert methods == {"take", "peek", "refund", "reset", "holding", "close"}
        assert all(callable(getattr(engine, name)) for name in methods)
