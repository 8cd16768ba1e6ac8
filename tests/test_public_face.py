"""What `from resilience import …` offers: users, documentation and checks rely on every name."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.resources
from pathlib import Path

import pytest

import resilience

PROMISED = {
    "RetryManager",
    "AsyncRetryManager",
    "with_retry",
    "RetryBudget",
    "CircuitBreaker",
    "RateLimiter",
    "AsyncRateLimiter",
    "Quota",
    "SessionJanitor",
    "AsyncSessionJanitor",
    "ErrorCode",
    "ServiceError",
    "CircuitOpenError",
    "RateLimitedError",
    "DeadlineExceeded",
    "throw_error",
    "validation_error",
    "authentication_error",
    "authorization_error",
    "not_found_error",
    "conflict_error",
    "rate_limit_error",
    "service_unavailable_error",
    "is_transient",
    "deadline",
    "remaining",
}

each_name = pytest.mark.parametrize("name", resilience.__all__)


def test_every_promised_name_is_there():
    assert set(resilience.__all__) >= PROMISED


def test_nothing_is_listed_twice_or_out_of_order():
    assert list(dict.fromkeys(resilience.__all__)) == resilience.__all__
    assert resilience.__all__ == sorted(resilience.__all__, key=lambda name: (name[0].islower(), name))


@each_name
def test_every_name_is_there_and_stays(name):
    if name in resilience._LOADED_WHEN_ASKED_FOR:
        vars(resilience).pop(name, None)

    first = getattr(resilience, name)

    assert vars(resilience)[name] is first
    assert name in dir(resilience)


def test_what_type_checkers_see_is_what_is_loaded():
    """The imports for type checkers and the table for run time say the same."""
    tree = ast.parse(Path(resilience.__file__).read_text())
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {
        alias.name: imported.module.removeprefix("resilience.")
        for imported in seen.body
        for alias in imported.names
    }

    assert told == resilience._LOADED_WHEN_ASKED_FOR


@each_name
def test_every_name_is_documented(name):
    documentation = getattr(resilience, name).__doc__

    assert documentation
    assert documentation != getattr(resilience, name).__class__.__doc__


@each_name
def test_every_name_is_told_by_the_package(name):
    assert f"`{name}`" in resilience.__doc__


def test_star_gives_the_list():
    namespace = {}

    exec("from resilience import *", namespace)

    assert set(resilience.__all__) <= set(namespace)


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Retry'"):
        resilience.Retry  # noqa: B018 - asking is the point


def test_type_checkers_find_our_types():
    assert importlib.resources.files("resilience").joinpath("py.typed").is_file()


def test_the_distribution_needs_nothing():
    needed = importlib.metadata.requires("resilience-py") or []

    assert [requirement for requirement in needed if "extra ==" not in requirement] == []
