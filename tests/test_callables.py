from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from functools import partial
from unittest.mock import AsyncMock, MagicMock, Mock

import pytest

from resilience.callables import Kind, innermost, kind_of, name_of


def plain(): ...


async def coroutine(): ...


def generator():
    yield


async def async_generator():
    yield


class Service:
    def plain(self): ...

    async def coroutine(self): ...

    @classmethod
    async def made(cls): ...

    @staticmethod
    async def static(): ...


class Callable:
    def __call__(self): ...


class AsyncCallable:
    async def __call__(self): ...


class PartialCallable:
    __call__ = partial(plain)


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (plain, Kind.SYNC),
        (coroutine, Kind.ASYNC),
        (generator, Kind.GENERATOR),
        (async_generator, Kind.ASYNC_GENERATOR),
        (lambda url: coroutine(), Kind.SYNC),
        (partial(partial(coroutine)), Kind.ASYNC),
        (partial(generator), Kind.GENERATOR),
        (Service().plain, Kind.SYNC),
        (Service().coroutine, Kind.ASYNC),
        (partial(Service().coroutine), Kind.ASYNC),
        (Service.made, Kind.ASYNC),
        (Service.static, Kind.ASYNC),
        (Callable(), Kind.SYNC),
        (AsyncCallable(), Kind.ASYNC),
        (partial(AsyncCallable()), Kind.ASYNC),
        (PartialCallable(), Kind.SYNC),
        (AsyncCallable, Kind.SYNC),
        (len, Kind.SYNC),
        (functools.lru_cache(plain), Kind.SYNC),
        (Mock(), Kind.SYNC),
        (MagicMock(), Kind.SYNC),
        (AsyncMock(), Kind.ASYNC),
    ],
)
def test_kind_of(fn, kind):
    assert kind_of(fn) is kind


def test_every_kind_agrees_with_inspect():
    for fn in (plain, coroutine, generator, async_generator):
        assert (kind_of(fn) is Kind.ASYNC) == inspect.iscoroutinefunction(fn)
        assert (kind_of(fn) is Kind.GENERATOR) == inspect.isgeneratorfunction(fn)
        assert (kind_of(fn) is Kind.ASYNC_GENERATOR) == inspect.isasyncgenfunction(fn)


def test_a_marked_function_is_a_coroutine_function():
    def marked():
        return asyncio.sleep(0)

    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(marked)
    else:
        marked._is_coroutine_marker = object()  # what the mark is from 3.12 on

    assert kind_of(marked) is Kind.ASYNC


@pytest.mark.parametrize("decorator", [classmethod, staticmethod])
def test_the_wrong_order_of_decorators_is_refused(decorator):
    with pytest.raises(TypeError, match=f"write @{decorator.__name__} above this decorator"):
        kind_of(decorator(plain))


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match="42 cannot be called"):
        kind_of(42)


@pytest.mark.parametrize(
    ("fn", "name"),
    [
        (plain, f"{__name__}.plain"),
        (partial(partial(plain)), f"{__name__}.plain"),
        (Service().coroutine, f"{__name__}.Service.coroutine"),
        (AsyncCallable(), f"{__name__}.AsyncCallable.__call__"),
        (Service, f"{__name__}.Service"),
        (functools.lru_cache(plain), f"{__name__}.plain"),
        (len, "builtins.len"),
    ],
)
def test_name_of(fn, name):
    assert name_of(fn) == name


def test_what_has_no_name_is_named_by_its_type():
    nameless = functools.singledispatchmethod(plain)  # without __qualname__, and with its class's __module__

    assert name_of(nameless) == "functools.singledispatchmethod"
    assert name_of(b"".join) == "builtins.bytes.join"


def test_innermost_ends_at_the_function():
    assert innermost(partial(Service().plain)) is Service.plain
