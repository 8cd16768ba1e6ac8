"""The OpenAPI 3.1 document, made from the table of routes.

What follows from a route's other fields is not written down a second time: a route with a limit may answer
429, one that needs a session 401, and so on. So a description cannot lag behind what is done. The black-box
tests send what the document allows, and what it does not, and hold the answers against it.
"""

from __future__ import annotations

import inspect
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from examples.backend.api.http import Access

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from pydantic.json_schema import JsonSchemaMode

    from examples.backend.api.http import Route

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
FORM: Final = "application/x-www-form-urlencoded"
REF: Final = "#/components/schemas/{model}"
VERSION: Final = "1.0.0"

SECURITY_SCHEMES: Final = {
    "session": {"type": "http", "scheme": "bearer", "description": "The token that logging in answers."},
    "cookie": {
        "type": "apiKey", "in": "cookie", "name": "session",
        "description": "The same, as browsers have it; over https its name is `__Host-session`.",
    },
    "operator": {"type": "http", "scheme": "bearer", "description": "`BACKEND_MONITORING_TOKEN`."},
}  # fmt: skip
SECURITY: Final[dict[Access, list[dict[str, list[str]]]]] = {
    Access.ANYBODY: [],
    Access.MEMBER: [{"session": []}, {"cookie": []}],
    Access.ADMINISTRATOR: [{"session": []}, {"cookie": []}],
    Access.OPERATOR: [{"operator": []}, {}],  # without a token, only from this machine itself
}

_COMMON: Final = {
    "code": {"type": "string", "pattern": "^[A-Z][A-Z0-9_]{0,63}$", "description": "What programs go by."},
    "requestId": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    "timestamp": {"type": "string", "format": "date-time"},
    "fields": {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "What is wrong with which field.",
    },
    "details": {"type": "object", "description": "In development only."},
}
OWN_SCHEMAS: Final[dict[str, Any]] = {
    "Error": {
        "type": "object",
        "description": "Every error has this form, or the other one for those who prefer it.",
        "required": ["error", "code", "requestId", "timestamp"],
        "properties": {"error": {"type": "string", "description": "For people."}, **_COMMON},
    },
    "Problem": {
        "type": "object",
        "description": "An error as RFC 9457 has it.",
        "required": ["type", "title", "status", "detail", "code", "requestId", "timestamp"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "For people."},
            "instance": {"type": "string"},
            **_COMMON,
        },
    },
    "Health": {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"enum": ["pass", "warn", "fail"]}, "output": {"type": "string"}},
    },
}
HEADERS: Final = {
    "X-Request-Id": {
        "description": "Names this request in the log; kept if the client has sent a harmless one.",
        "schema": {"type": "string"},
    },
    "Retry-After": {
        "description": "Seconds after which another try is worth it.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "X-RateLimit-Limit": {
        "description": "How much the limit allows that is nearest to being used up.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Remaining": {"description": "What is left of it.", "schema": {"type": "integer"}},
    "X-RateLimit-Reset": {
        "description": "When it is whole again, in Unix seconds.",
        "schema": {"type": "integer"},
    },
}
LIMITS: Final = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
SAFE_METHODS: Final = {"GET", "HEAD"}


def document(routes: Iterable[Route], public_url: str) -> dict[str, Any]:
    """Return the description of the whole interface, ready for JSON.

    Args:
        routes: The table.
        public_url: Where it is served.
    """
    routes = tuple(routes)
    schemas = _Schemas(routes)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Example backend",
            "version": VERSION,
            "summary": "Accounts, and the recordings of a telephony product's calls.",
        },
        "servers": [{"url": public_url or "/"}],
        "tags": [_tag(module) for module in dict.fromkeys(map(_module_of, routes))],
        "paths": paths,
        "components": {
            "schemas": OWN_SCHEMAS | schemas.definitions,
            "securitySchemes": SECURITY_SCHEMES,
            "headers": HEADERS,
        },
    }


class _Schemas:
    """The schemas of all models that the routes take and give."""

    def __init__(self, routes: tuple[Route, ...]) -> None:
        taken = [model for route in routes for model in (route.body, route.query) if model is not None]
        given = [model for route in routes for model in route.answers.values() if _is_model(model)]
        wanted: list[tuple[type[BaseModel], JsonSchemaMode]] = [
            *((model, "validation") for model in dict.fromkeys(taken)),
            *((model, "serialization") for model in dict.fromkeys(given)),
        ]
        references, schema = models_json_schema(wanted, ref_template=REF)
        self.definitions: dict[str, Any] = schema.get("$defs", {})
        self._references = references

    def taken(self, model: type[BaseModel]) -> Any:
        """Return where the schema stands of what clients send."""
        return self._references[model, "validation"]

    def given(self, model: type[BaseModel]) -> Any:
        """Return where the schema stands of what they get."""
        return self._references[model, "serialization"]

    def fields(self, model: type[BaseModel]) -> list[tuple[str, Any, bool]]:
        """Return the fields of a model: name, schema, whether it must be there."""
        schema = self.definitions[self.taken(model)["$ref"].rpartition("/")[2]]
        required = schema.get("required", ())
        return [(name, each, name in required) for name, each in schema["properties"].items()]


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    summary, _, description = inspect.cleandoc(route.handler.__doc__ or "").partition("\n\n")
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": " ".join(summary.split()).removesuffix("."),
        "description": " ".join(description.split()),
        "tags": [_tag(_module_of(route))["name"]],
        "security": SECURITY[route.access],
        "parameters": _parameters(route, schemas),
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        types = [JSON, FORM] if route.form else [JSON]
        schema = schemas.taken(route.body)
        operation["requestBody"] = {
            "required": True,
            "content": {media_type: {"schema": schema} for media_type in types},
        }
    return {name: part for name, part in operation.items() if part or name == "security"}


def _parameters(route: Route, schemas: _Schemas) -> list[dict[str, Any]]:
    in_path = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": f"^(?:{route.patterns.get(name, '[^/]+')})$"},
        }
        for name in route.parameters
    ]
    fields = schemas.fields(route.query) if route.query is not None else []
    in_query = [
        {
            "name": name,
            "in": "query",
            "required": required,
            "description": schema.get("description", ""),
            "schema": _without_null(schema),
        }
        for name, schema, required in fields
    ]
    in_headers = [
        {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}
        for name, description in route.headers.items()
    ]
    return [*in_path, *in_query, *in_headers]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter: one can be left out, but not be nothing."""
    kept = {name: part for name, part in schema.items() if name not in {"anyOf", "default", "description"}}
    if schema.get("default") is not None:
        kept["default"] = schema["default"]
    choices = [choice for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    return kept | (choices[0] if len(choices) == 1 else {"anyOf": choices} if choices else {})


def _responses(route: Route, schemas: _Schemas) -> dict[str, Any]:
    answers = route.answers or {route.status: "application/json"}
    succeeding = {str(status): _answer(route, status, kind, schemas) for status, kind in answers.items()}
    failing = {str(status): _error(route, status) for status in errors_of(route) if status not in answers}
    return dict(sorted((succeeding | failing).items()))


def errors_of(route: Route) -> set[int]:
    """Return which errors a route may answer."""
    errors = {400, 503, *route.errors}  # what cannot be read, or comes when we are about to end
    if route.access is not Access.ANYBODY:
        errors.add(401)
    if route.access in {Access.ADMINISTRATOR, Access.OPERATOR} or (
        route.access is Access.MEMBER and route.method not in SAFE_METHODS  # another site's page may send it
    ):
        errors.add(403)
    if route.parameters:
        errors.add(404)
    if route.body is not None:
        errors |= {408, 413, 415}
    if route.access is not Access.OPERATOR and (route.limited or route.body is not None):
        errors.add(429)  # what is not counted for the API's limit, and does something, has its own
    return errors


def _answer(
    route: Route, status: int, kind: type[BaseModel] | str | None, schemas: _Schemas
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "headers": _headers("X-Request-Id", *(LIMITS if route.limited else ())),
    }
    if _is_model(kind):
        answer["content"] = {JSON: {"schema": schemas.given(kind)}}
    elif isinstance(kind, str):
        answer["content"] = {kind: {"schema": _schema_of_type(kind)}}
    return answer


def _error(route: Route, status: int) -> dict[str, Any]:
    names = ["X-Request-Id", *(LIMITS if route.limited or status == HTTPStatus.TOO_MANY_REQUESTS else ())]
    if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
        names.append("Retry-After")
    return {
        "description": HTTPStatus(status).phrase,
        "headers": _headers(*names),
        "content": {
            JSON: {"schema": {"$ref": REF.format(model="Error")}},
            PROBLEM: {"schema": {"$ref": REF.format(model="Problem")}},
        },
    }


def _headers(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _schema_of_type(media_type: str) -> dict[str, Any]:
    if media_type == "application/health+json":
        return {"$ref": REF.format(model="Health")}
    if media_type == JSON:
        return {"type": "object"}
    return {"type": "string"} if media_type.startswith("text/") else {}  # bytes have no schema


def _is_model(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _module_of(route: Route) -> ModuleType:
    return sys.modules[route.handler.__module__]


def _tag(module: ModuleType) -> dict[str, str]:
    """Return what a module's routes are grouped under: its name, and what it says of itself first."""
    first = inspect.cleandoc(module.__doc__ or "").partition("\n\n")[0]
    return {"name": module.__name__.rpartition(".")[2], "description": " ".join(first.split())}
