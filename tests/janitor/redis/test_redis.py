from __future__ import annotations

import importlib
import sys

import pytest

import resilience.janitor.redis


def test_the_public_names():
    for name in resilience.janitor.redis.__all__:
        assert hasattr(resilience.janitor.redis, name)


def test_without_redis_py_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    for name in [name for name in sys.modules if name.startswith("resilience.janitor.redis")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"install the extra, resilience-py\[redis\]"):
        importlib.import_module("resilience.janitor.redis")
