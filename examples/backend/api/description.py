"""The interface's own description: for programs as OpenAPI has it, and for people as a page.

Both are for operators, as the monitoring is: they tell nobody anything that he may not know, but ASVS 13.4.5
wants that to be meant. The page is plain HTML that needs no script, and no other site's.
"""

from __future__ import annotations

import functools
import hashlib
from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING, Any, Final

from examples.backend.api.http import Access, Reply, Route
from examples.backend.api.openapi import document

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from examples.backend.api.http import Request
    from examples.backend.assembly import Backend

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color-scheme: light dark; }
h2 { margin-top: 3rem; text-transform: capitalize; }
h3 { margin: 2rem 0 0; font: 600 1rem ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; margin: .5rem 0; }
td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
"""
CONTENT_SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def show_openapi(backend: Backend, _request: Request) -> Reply:
    """Return this description, as OpenAPI 3.1 has it."""
    return Reply(content=described(backend.settings.public_url))


async def show_docs(backend: Backend, _request: Request) -> Reply:
    """Return the same as a page."""
    return Reply(
        content=page(described(backend.settings.public_url)).encode(),
        media_type="text/html; charset=utf-8",
        headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY},
    )


@functools.cache
def described(public_url: str) -> dict[str, Any]:
    """Return the description of every route; it is made when it is first asked for."""
    from examples.backend.api import ROUTES  # noqa: PLC0415 - which has ours too

    return document(ROUTES, public_url)


def page(description: dict[str, Any]) -> str:
    """Return a description as a page of HTML."""
    title = escape(description["info"]["title"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width"><style>' + STYLE + "</style>"
        f"<h1>{title}</h1><p>{escape(description['info']['summary'])}</p>"
        + "".join(_sections(description))
        + "</html>"
    )


def _sections(description: dict[str, Any]) -> Iterator[str]:
    for tag in description["tags"]:
        yield f"<h2>{escape(tag['name'])}</h2><p>{escape(tag['description'])}</p>"
        for path, operations in description["paths"].items():
            for method, operation in operations.items():
                if tag["name"] in operation["tags"]:
                    yield from _operation(method.upper(), path, operation)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h3>{method} {escape(path)}</h3><p>{escape(operation['summary'])}. "
    yield f"{escape(operation.get('description', ''))}</p>"
    rows = [
        (each["name"], each["in"], each.get("description", "")) for each in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {"content": {}})["content"]
    rows += [("body", media_type, _name_of(each["schema"])) for media_type, each in body.items()]
    for status, response in operation["responses"].items():
        kinds = ", ".join(
            f"{_name_of(each['schema'])} {media_type}"
            for media_type, each in response.get("content", {}).items()
        )
        rows.append((status, response["description"], kinds))
    yield _table(rows)


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    lines = ("".join(f"<td><code>{escape(cell)}</code>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{line}' for line in lines)}</table>"


def _name_of(schema: dict[str, Any]) -> str:
    """Return the name of a model; nothing where a schema has none."""
    name: str = schema.get("$ref", "").rpartition("/")[2]
    return name


ROUTES: Final = (
    Route(method="GET", path="/openapi.json", handler=show_openapi, access=Access.OPERATOR,
          answers={200: "application/json"}),
    Route(method="GET", path="/docs", handler=show_docs, access=Access.OPERATOR,
          answers={200: "text/html; charset=utf-8"}),
)  # fmt: skip
