"""Requests, replies and routes, as the interface sees them: no framework's.

A shell turns what its framework has into an `Incoming`, and a `Reply` into what its framework sends. What a
request means, who may make it and what it costs of which limit is said by its `Route`, and done once for
both shells by `dispatch`.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from resilience import authentication_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping

    from pydantic import BaseModel

    from examples.backend.assembly import Backend
    from examples.backend.domain.accounts import Member

    Handler = Callable[["Backend", "Request"], Coroutine[Any, Any, "Reply"]]

PRIVATE: Final = {"Cache-Control": "no-store", "Vary": "Cookie, Authorization"}
"""Headers that have no cache keep the answer, nor give it to anybody else."""
PARAMETER: Final = re.compile(r"{(\w+)}")


class Access(enum.Enum):
    """Who may make a request."""

    ANYBODY = "anybody"
    MEMBER = "whoever is logged in"
    ADMINISTRATOR = "an administrator of the tenant"
    OPERATOR = "who runs the backend"


class Headers(Protocol):
    """A request's headers: names without regard to case."""

    def get(self, name: str, /) -> str | None:
        """Return a header's value; None if it is not there."""
        ...

    def items(self) -> Iterable[tuple[str, str]]:
        """Return all names and values."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request as a shell has it: nothing of it is believed or read yet."""

    method: str
    path: str
    parameters: Mapping[str, str]
    """The parts of the path that the route leaves open."""
    query: str
    """What stands behind the question mark, as it was sent."""
    headers: Headers
    peer: str | None
    """The address at the other end of the connection."""
    read: Callable[[], Awaitable[bytes]]
    """Returns the body; whoever is not admitted has none read."""


@dataclass(slots=True, kw_only=True)
class Request:
    """A request that has been admitted."""

    incoming: Incoming
    address: str
    """The client's network address, in the form that limits count by."""
    token: str | None
    """The session token that came with it."""
    authenticated: Member | None = None
    tenant: str = ""
    """Whose webhook it is."""
    content: Any = None
    """The body, as the route's model has it."""
    query: Any = None
    """The query, as the route's model has it."""

    @property
    def member(self) -> Member:
        """Who is logged in.

        Raises:
            ServiceError: Nobody is (401).
        """
        if self.authenticated is None:
            raise authentication_error()
        return self.authenticated

    @property
    def parameters(self) -> Mapping[str, str]:
        """The parts of the path that the route leaves open."""
        return self.incoming.parameters


@dataclass(slots=True, kw_only=True)
class Reply:
    """What is answered. A status of 400 and above is raised as an error instead."""

    status: int = 200
    content: Any = None
    """What JSON can hold; or bytes; or an asynchronous iterator over them, which is closed in the end."""
    media_type: str | None = "application/json"
    """None where there is no content to be of a type."""
    headers: dict[str, str] = field(default_factory=dict)
    cookies: list[str] = field(default_factory=list)
    """Values of Set-Cookie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One kind of request. The handler's docstring is its description."""

    method: str
    path: str
    """Such as `/api/recordings/{call_sid}`."""
    handler: Handler
    access: Access = Access.MEMBER
    admit: Callable[[Backend, Request], Coroutine[Any, Any, object]] | None = None
    """What else is asked before the body is read."""
    limited: bool = True
    """Whether it counts for the API's limit. What has a limit of its own does not."""
    patterns: Mapping[str, str] = field(default_factory=dict)
    """What the open parts of the path look like; anything else is not found."""
    body: type[BaseModel] | None = None
    form: bool = False
    """Whether the body may also be a form, as browsers send it."""
    raw: bool = False
    """Whether the handler reads the body by itself."""
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of its own that it reads, and what they say; for the API's description."""
    status: int = 200
    """When all goes well."""
    answers: Mapping[int, type[BaseModel] | str | None] = field(default_factory=dict)
    """What is answered, by status: a model of JSON, a media type, or nothing; for the API's description.
    The errors that follow from the rest of the route need not be named."""
    errors: tuple[int, ...] = ()
    """Which other errors may be answered."""

    @property
    def name(self) -> str:
        """The handler's name."""
        return self.handler.__name__

    @property
    def parameters(self) -> list[str]:
        """The names of the open parts of the path."""
        return PARAMETER.findall(self.path)


def body_of(content: Any) -> bytes:
    """Return what is sent for `content`."""
    if isinstance(content, bytes):
        return content
    return b"" if content is None else json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
