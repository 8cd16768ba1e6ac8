from __future__ import annotations

import errno
import importlib
import re
from pathlib import Path

import pytest

from resilience._core import taxonomy
from resilience._core.taxonomy import Rule

PAGE = (Path(__file__).parent.parent.parent / "docs" / "transient.md").read_text()

# Modules that define the exceptions of a package; empty for what is not installed here.
DEFINED_IN = {
    "aiobreaker": [],
    "aiohttp": ["aiohttp"],
    "anyio": ["anyio"],
    "asyncio": ["asyncio"],
    "asyncmy": [],
    "asyncpg": [],
    "botocore": ["botocore.exceptions"],
    "builtins": ["builtins"],
    "circuitbreaker": ["circuitbreaker"],
    "concurrent": ["concurrent.futures"],
    "grpc": ["grpc"],
    "http": ["http.client"],
    "httpcore": ["httpcore"],
    "httpcore2": ["httpcore2"],
    "httpx": ["httpx"],
    "httpx2": ["httpx2"],
    "mysql": [],
    "MySQLdb": [],
    "obstore": ["obstore.exceptions"],
    "psycopg": ["psycopg.errors"],
    "psycopg2": [],
    "psycopg_pool": [],
    "pybreaker": ["pybreaker"],
    "pymysql": [],
    "redis": ["redis.exceptions"],
    "requests": ["requests.exceptions"],
    "resilience": ["resilience.errors"],
    "socket": ["socket"],
    "sqlalchemy": ["sqlalchemy.exc"],
    "sqlite3": ["sqlite3"],
    "ssl": ["ssl"],
    "subprocess": ["subprocess"],
    "tenacity": ["tenacity"],
    "urllib": ["urllib.error"],
    "urllib3": ["urllib3.exceptions"],
    "websockets": [],
}
OPTIONAL = {"httpcore2", "httpx2", "obstore", "anyio", "circuitbreaker", "pybreaker", "tenacity"}


def test_each_package_of_the_table_is_looked_at():
    assert taxonomy.TYPES.keys() == DEFINED_IN.keys()


@pytest.mark.parametrize("package", [name for name, modules in DEFINED_IN.items() if modules])
def test_each_class_of_the_table_exists_under_that_name(package):
    for name in DEFINED_IN[package]:
        module = pytest.importorskip(name) if package in OPTIONAL else importlib.import_module(name)
        for class_name in taxonomy.TYPES[package]:
            cls = getattr(module, class_name)
            assert issubclass(cls, Exception)
            assert (cls.__module__.partition(".")[0], cls.__name__) == (package, class_name)


def test_the_aws_codes_are_those_that_botocore_retries():
    standard = importlib.import_module("botocore.retries.standard")

    assert taxonomy.AWS.keys() == {
        *standard.TransientRetryableChecker._TRANSIENT_ERROR_CODES,
        *standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES,
    }


# --- the documentation says the same -------------------------------------------------------------


def rows(title):
    """Return the cells of the first table below a heading of the page, without the table's head."""
    section = re.split(rf"^#+ {re.escape(title)}$", PAGE, maxsplit=1, flags=re.MULTILINE)[1]
    table = re.search(r"^\|.*?(?=\n\n|\Z)", section, flags=re.MULTILINE | re.DOTALL).group()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def named(cell):
    return re.findall(r"`([^`]+)`", cell)


PROCESSED = {"no": False, "perhaps": True}


def test_the_page_prints_the_table_of_classes():
    printed = {
        (package, cls): rule
        for packages, classes, rule in rows("Classes")
        for package in named(packages)
        for cls in named(classes)
    }

    assert printed == {
        (package, cls): rule.value
        for package, classes in taxonomy.TYPES.items()
        for cls, rule in classes.items()
    }


def test_the_page_prints_every_rule():
    assert {rule for _, _, rule in rows("Classes")} == {rule.value for rule in Rule}


@pytest.mark.parametrize(
    ("title", "table"),
    [
        ("HTTP status", {str(status): processed for status, processed in taxonomy.HTTP_STATUS.items()}),
        ("errno", dict(taxonomy.ERRNO.values())),
        ("SQLSTATE", taxonomy.SQLSTATE),
        ("libpq's messages", taxonomy.LIBPQ_TRANSIENT),
        ("MySQL error number", {str(number): processed for number, processed in taxonomy.MYSQL.items()}),
        ("AWS error code", taxonomy.AWS),
        ("gRPC status", taxonomy.GRPC),
        ("Object store", taxonomy.OBJECT_STORE),
        ("WebSocket close code", {str(code): processed for code, processed in taxonomy.WEBSOCKET.items()}),
    ],
)
def test_the_page_prints_the_tables_of_codes(title, table):
    assert {code: PROCESSED[row[1]] for row in rows(title) for code in named(row[0])} == table


def test_the_errnos_are_those_of_this_system():
    assert {errno.errorcode[number] for number in taxonomy.ERRNO} == {
        name for name, _ in taxonomy.ERRNO.values()
    }
