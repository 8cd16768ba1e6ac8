"""The API's description: complete, valid, and as the routes are."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest
from openapi_spec_validator import validate
from pydantic import BaseModel

from examples.backend.api import ROUTES
from examples.backend.api.description import CONTENT_SECURITY_POLICY, STYLE, described, page
from examples.backend.api.http import Access, Reply, Route
from examples.backend.api.openapi import document, errors_of


async def _handler(_backend, _request):
    """Do something. That was the summary.

    This is the description,
    on two lines.
    """
    return Reply()


class Body(BaseModel):
    name: str


class Query(BaseModel):
    limit: int = 20
    word: str
    state: str | None = None
    either: int | str | None = None


@pytest.fixture(scope="module")
def description():
    return described("https://backend.example.com")


def operation(**route):
    described = Route(**{"method": "GET", "path": "/thing", "handler": _handler} | route)
    return document([described], "")["paths"][described.path][described.method.lower()]


def test_it_is_valid_openapi(description):
    validate(json.loads(json.dumps(description)))


def test_every_route_is_there_once(description):
    described_ones = {
        (method.upper(), path) for path, operations in description["paths"].items() for method in operations
    }
    assert described_ones == {(route.method, route.path) for route in ROUTES}
    names = Counter(route.name for route in ROUTES)
    assert names.most_common(1)[0][1] == 1
    assert all(route.answers for route in ROUTES if route.name != "socket_only")


def test_every_reference_leads_somewhere(description):
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(description)))
    assert references
    for reference in references:
        place = description
        for part in reference.split("/"):
            place = place[part]


def test_a_route_is_described_by_its_handler():
    described_route = operation()
    assert described_route["summary"] == "Do something. That was the summary"
    assert described_route["description"] == "This is the description, on two lines."
    assert described_route["operationId"] == "_handler"
    assert "requestBody" not in described_route


def test_parameters_say_what_they_look_like():
    parameters = operation(
        path="/thing/{sid}/{rest}", patterns={"sid": "a|b"}, query=Query, headers={"Range": "A part."}
    )["parameters"]
    by_name = {parameter["name"]: parameter for parameter in parameters}
    assert by_name["sid"]["schema"] == {"type": "string", "pattern": "^(?:a|b)$"}
    assert by_name["rest"]["schema"]["pattern"] == "^(?:[^/]+)$"
    assert by_name["limit"]["schema"] == {"type": "integer", "title": "Limit", "default": 20}
    assert [by_name[name]["required"] for name in ("limit", "word", "state")] == [False, True, False]
    assert by_name["state"]["schema"] == {"type": "string", "title": "State"}
    assert by_name["either"]["schema"]["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert by_name["Range"]["in"] == "header"


def test_a_body_may_also_be_a_form():
    assert operation(method="POST", body=Body)["requestBody"]["content"].keys() == {"application/json"}
    content = operation(method="POST", body=Body, form=True)["requestBody"]["content"]
    assert content.keys() == {"application/json", "application/x-www-form-urlencoded"}


def test_answers_are_of_the_kind_that_the_route_says():
    answers = {200: Body, 202: None, 206: "audio/*", 207: "application/json", 208: "application/health+json"}
    responses = operation(answers=answers)["responses"]
    assert responses["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Body")
    assert "content" not in responses["202"]
    assert responses["206"]["content"] == {"audio/*": {"schema": {}}}
    assert responses["207"]["content"]["application/json"]["schema"] == {"type": "object"}
    assert responses["208"]["content"]["application/health+json"]["schema"]["$ref"].endswith("/Health")


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ({"access": Access.ANYBODY, "limited": False}, {400, 503}),
        ({"access": Access.ANYBODY}, {400, 429, 503}),
        ({}, {400, 401, 429, 503}),
        ({"method": "POST"}, {400, 401, 403, 429, 503}),
        ({"access": Access.ADMINISTRATOR}, {400, 401, 403, 429, 503}),
        ({"access": Access.OPERATOR}, {400, 401, 403, 503}),
        ({"path": "/{a}", "errors": (409,)}, {400, 401, 404, 409, 429, 503}),
        (
            {"access": Access.ANYBODY, "limited": False, "method": "POST", "body": Body},
            {400, 408, 413, 415, 429, 503},
        ),
    ],
)
def test_errors_follow_from_the_rest_of_the_route(route, expected):
    assert errors_of(Route(**{"method": "GET", "path": "/thing", "handler": _handler} | route)) == expected


def test_refusals_say_when_to_come_back():
    responses = operation()["responses"]
    assert "Retry-After" in responses["429"]["headers"]
    assert "Retry-After" not in responses["401"]["headers"]
    assert responses["401"]["content"].keys() == {"application/json", "application/problem+json"}


def test_the_page_shows_every_route_and_runs_nothing(description):
    shown = page(description)
    assert "<script" not in shown
    assert "http://" not in shown
    for route in ROUTES:
        assert f"<h3>{route.method} {route.path}</h3>" in shown
    assert STYLE in shown
    assert "sha256-" in CONTENT_SECURITY_POLICY
