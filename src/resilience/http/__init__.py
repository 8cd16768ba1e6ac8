"""HTTP without a framework: error bodies, mapping and parsing, rate-limit headers, identity, safe text."""

from resilience._core.retry_after import parse_retry_after
from resilience.http.body import (
    ErrorResponse,
    error_body,
    error_response,
    is_error_body,
    prefers_problem,
    problem_body,
)
from resilience.http.headers import rate_limit_headers
from resilience.http.identity import client_address, client_key
from resilience.http.mapping import ErrorMapper, to_service_error
from resilience.http.parsing import parse_error
from resilience.http.status import code_for_status
from resilience.http.text import is_request_id, one_line, request_id

__all__ = [
    "ErrorMapper",
    "ErrorResponse",
    "client_address",
    "client_key",
    "code_for_status",
    "error_body",
    "error_response",
    "is_error_body",
    "is_request_id",
    "one_line",
    "parse_error",
    "parse_retry_after",
    "prefers_problem",
    "problem_body",
    "rate_limit_headers",
    "request_id",
    "to_service_error",
]
