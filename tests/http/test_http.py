"""The names that `resilience.http` offers."""

from __future__ import annotations

from resilience import http


def test_every_name_is_there():
    for name in http.__all__:
        assert getattr(http, name).__doc__


def test_there_are_no_others():
    modules = {"body", "headers", "identity", "mapping", "parsing", "status", "text"}
    assert {name for name in vars(http) if name[0].isalpha()} == {*http.__all__} | modules
