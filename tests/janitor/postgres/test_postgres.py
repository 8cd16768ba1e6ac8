from __future__ import annotations

import importlib
import sys

import pytest

import resilience.janitor.postgres


def test_the_public_names():
    for name in resilience.janitor.postgres.__all__:
        assert hasattr(resilience.janitor.postgres, name)


def test_without_psycopg_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in [name for name in sys.modules if name.startswith("resilience.janitor.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"install the extra, resilience-py\[postgres\]"):
        importlib.import_module("resilience.janitor.postgres")
