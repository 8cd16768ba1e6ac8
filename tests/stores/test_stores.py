from __future__ import annotations

import copy
import pickle

from resilience._core.quota import Quota, counter_of
from resilience.stores import Entry, Holding, StoreUnavailable


def test_an_unavailable_store_is_a_503_and_never_a_429():
    error = StoreUnavailable("the limits are unavailable", retry_after=2.0)
    assert (error.status, error.code, error.retry_after) == (503, "SERVICE_UNAVAILABLE", 2.0)
    assert str(error) == "the limits are unavailable"
    assert error.retryable


def test_an_unavailable_store_travels():
    error = StoreUnavailable("the limits are unavailable", retry_after=2.0)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(twin), str(twin), twin.retry_after) == (StoreUnavailable, str(error), 2.0)


def test_records():
    entry = Entry(counter_of("login", Quota(6, 900)), "ada", 5, 900.0)
    assert Holding(1, (entry,)).entries[0].remaining == 5
