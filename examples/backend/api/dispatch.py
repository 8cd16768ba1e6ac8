"""What is the same for every request: who asks, whether they may, what it costs, and how it is answered.

The order matters. Nobody's body is read before they are known to be allowed; a limit is charged before
anything costly is done; and a request that a browser sends across sites on somebody's behalf is refused.

A client that leaves stops nothing, under either shell: what it has begun is done to its end, within its
deadline. WSGI would not even notice, and half of a registration is worse than a whole one that nobody waits
for. Only what is sent in pieces ends with whoever reads it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from examples.backend.api import strict_json
from examples.backend.api.http import PRIVATE, Access, Reply, Request
from resilience import ErrorCode, ServiceError, authorization_error, validation_error
from resilience.http import client_address, client_key, code_for_status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.backend.api.http import Incoming, Route
    from examples.backend.assembly import Backend

METHOD_NOT_ALLOWED: Final = 405
UNSUPPORTED_MEDIA_TYPE: Final = code_for_status(415)
SAFE_METHODS: Final = {"GET", "HEAD"}
JSON_TYPES: Final = re.compile(r"application/([\w.-]+\+)?json")
FORM: Final = "application/x-www-form-urlencoded"
MOST_FIELDS: Final = 100
"""Of a form or a query; a real one has some ten."""


async def answer_at(backend: Backend, routes: Mapping[str, Route], incoming: Incoming) -> Reply:
    """Answer a request to a path, of which these are the routes by method. Errors go up, to the adapter.

    HEAD is answered as GET is, without the body.

    Raises:
        ServiceError: Whatever is wrong with the request, or with us.
    """
    if next(iter(routes.values())).path.format_map(incoming.parameters) != incoming.path:
        raise ServiceError(code=ErrorCode.NOT_FOUND)  # a router let a line's end or a second slash through
    route = routes.get("GET" if incoming.method == "HEAD" else incoming.method)
    if route is None:  # the adapter writes the body
        methods = {*routes, "HEAD"} if "GET" in routes else {*routes}
        return Reply(status=METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(sorted(methods))}, content=b"")
    reply = await answer(backend, route, incoming)
    if incoming.method == "HEAD" and hasattr(reply.content, "aclose"):
        await reply.content.aclose()
        reply.content = None
    return reply


async def answer(backend: Backend, route: Route, incoming: Incoming) -> Reply:
    """Answer one request. Errors go up, to the adapter.

    Raises:
        ServiceError: Whatever is wrong with the request, or with us.
    """
    _check_parameters(route, incoming)
    request = Request(
        incoming=incoming, address=address_of(backend, incoming), token=token_of(backend, incoming)
    )
    await _admit(backend, route, request)
    if route.admit is not None:
        await route.admit(backend, request)
    if route.query is not None:
        request.query = route.query.model_validate(once_each(incoming.query))
    if route.body is not None and not route.raw:
        request.content = await _content(route, incoming)
    reply = await route.handler(backend, request)
    if route.access is not Access.ANYBODY or reply.cookies:
        reply.headers = PRIVATE | reply.headers
    return reply


def address_of(backend: Backend, incoming: Incoming) -> str:
    """Return the client's network address, in the form that limits count by."""
    proxies = backend.settings.trusted_proxies
    return client_key(client_address(incoming.peer, incoming.headers.items(), proxies))


def token_of(backend: Backend, incoming: Incoming) -> str | None:
    """Return the session token that came with the request, as a bearer token or in the cookie."""
    bearer = bearer_of(incoming)
    return cookie_of(incoming, cookie_name(backend)) if bearer is None else bearer


def bearer_of(incoming: Incoming) -> str | None:
    """Return the bearer token that came with the request."""
    scheme, _, token = (incoming.headers.get("authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def cookie_of(incoming: Incoming, name: str) -> str | None:
    """Return a cookie's value; None if it is not there, or if there are two: one is somebody else's then."""
    lines = [value for header, value in incoming.headers.items() if header.lower() == "cookie"]
    cookies = [cookie.strip().partition("=") for line in lines for cookie in line.split(";")]
    values = {value for found, _, value in cookies if found == name}
    return values.pop() if len(values) == 1 else None


def cookie_name(backend: Backend) -> str:
    """Return the cookie's name; browsers take `__Host-` only over https, from this very host."""
    return "__Host-session" if backend.settings.secure_cookies else "session"


async def _admit(backend: Backend, route: Route, request: Request) -> None:
    """Find out who asks, charge them, and let them in or not."""
    if route.access is Access.OPERATOR:
        backend.monitoring.require_operator(request.incoming)
        return
    if route.access is not Access.ANYBODY:
        refuse_other_sites(backend, request.incoming)
        if request.token is not None:
            request.authenticated = await backend.accounts.member_of(request.token)
    if route.limited:
        member = request.authenticated
        await backend.limits.api(f"user:{member.user.id}" if member else f"address:{request.address}")
    if route.access is not Access.ANYBODY:
        member = request.member
        if route.access is Access.ADMINISTRATOR and not member.user.is_administrator:
            raise authorization_error("Only an administrator may do this")


def refuse_other_sites(backend: Backend, incoming: Incoming) -> None:
    """Refuse what another site has a browser send: the browser says so, and adds the cookie by itself."""
    # No browser adds a bearer token by itself; a login by HTTP Basic, for a proxy of ours say, it does.
    if incoming.method in SAFE_METHODS or bearer_of(incoming) is not None:
        return
    site, origin = incoming.headers.get("sec-fetch-site"), incoming.headers.get("origin")
    if site in {"same-origin", "none"} or origin in backend.settings.origins:
        return
    if site is None and origin is None:  # no browser
        return
    raise authorization_error("This request came from another site")


def _check_parameters(route: Route, incoming: Incoming) -> None:
    for name, pattern in route.patterns.items():
        if not re.fullmatch(pattern, incoming.parameters[name], re.ASCII):
            raise ServiceError(code=ErrorCode.NOT_FOUND)


async def _content(route: Route, incoming: Incoming) -> Any:
    assert route.body is not None  # noqa: S101 - for the type checker: see the caller
    body = await incoming.read()
    media_type = (incoming.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if route.form and media_type == FORM:
        try:
            return route.body.model_validate(once_each(body.decode("utf-8")))
        except UnicodeDecodeError:
            raise validation_error("The form is not valid UTF-8") from None
    if media_type and not JSON_TYPES.fullmatch(media_type):
        raise ServiceError(code=UNSUPPORTED_MEDIA_TYPE)
    return route.body.model_validate(strict_json.parse(body))


def once_each(text: str) -> dict[str, str]:
    """Return a query's or a form's fields.

    Raises:
        ServiceError: One is there twice, there are too many, or they cannot be read (400).
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict")
    except ValueError:
        raise validation_error("The query or form cannot be read") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise validation_error("A field of the query or form is there twice")
    return fields
