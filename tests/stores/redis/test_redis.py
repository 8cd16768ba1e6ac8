from __future__ import annotations

import importlib
import sys
from unittest import mock

import pytest


def test_says_which_extra_brings_what_is_missing():
    without = {name: module for name, module in sys.modules.items() if "redis" not in name} | {"redis": None}
    with (
        mock.patch.dict(sys.modules, without, clear=True),
        pytest.raises(ModuleNotFoundError, match=r"pip install 'resilience-py\[redis\]'"),
    ):
        importlib.import_module("resilience.stores.redis")


def test_exports_the_stores():
    package = importlib.import_module("resilience.stores.redis")
    assert package.__all__ == ["AsyncRedisStore", "RedisStore"]
    assert package.RedisStore.blocking
