"""What a server answers by itself, without the application: in the library's form, as all errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resilience import ServiceError
from resilience.http import code_for_status, error_response, request_id

if TYPE_CHECKING:
    from examples.backend.api.standing import StandingHeaders
    from resilience.http import ErrorResponse


def refusal(status: int, standing: StandingHeaders) -> ErrorResponse:
    """Return the answer to a request that cannot even be read."""
    return last_answer(ServiceError(code=code_for_status(status)), standing)


def last_answer(
    error: ServiceError, standing: StandingHeaders, *, own_id: str | None = None, accept: str | None = None
) -> ErrorResponse:
    """Return an answer after which the connection is closed.

    Args:
        error: What it tells.
        standing: The headers that all answers have.
        own_id: The request's id, where it has one.
        accept: The request's `Accept` header.
    """
    response = error_response(error, request_id=request_id(own_id), accept=accept)
    return response._replace(headers=[*response.headers, *standing.all, ("Connection", "close")])
