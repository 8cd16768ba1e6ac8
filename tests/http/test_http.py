"""The names that `resilience.http` offers."""

from __future__ import annotations

from resilience import http


def test_every_name_is_there():
    for name in http.__all__:
        assert getattr(http, name).__doc__


def test_there_are_no_others():
    modules = {"body", "headers", "identity", "mapping", "parsing", "propagation", "status", "text"}
    names = {name for name in vars(http) if name[0].isalpha()}  # a module is there once somebody asked for it
    assert names - modules == set(http.__all__)
