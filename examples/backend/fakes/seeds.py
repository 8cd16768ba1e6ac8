"""Calls to begin with, so that a page has something to show: announced by webhooks, like all others."""

from __future__ import annotations

import json
import urllib.request
from typing import Any, Final

DAY: Final = 86_400.0
CALLS: Final[tuple[dict[str, Any], ...]] = (
    {"count": 12, "ended_within": DAY},
    {"count": 2, "ended_within": DAY / 2, "status": "no-answer"},
    {"count": 1, "ended_within": DAY / 3, "status": "busy"},
    {"count": 3, "ready_after": 45.0},
)
"""Some of the last day, some that nobody answered, and some just now, whose recordings come in a minute."""
AFTER: Final = 2.0
"""Seconds from which on they are announced: the backend has to listen by then."""
WITHIN: Final = 4.0
"""Seconds in which all are announced: one can watch them come."""


def announce(provider: str, backend: str, secret: str) -> None:
    """Have the fake provider announce calls to a tenant.

    Args:
        provider: The fake provider's address.
        backend: The backend's.
        secret: The secret part of the tenant's webhooks' URL.
    """
    webhook = {"url": f"{backend}/api/webhooks/{secret}/telephony", "delay": AFTER, "spread": WITHIN}
    for calls in CALLS:
        body = json.dumps({**calls, "webhook": webhook}).encode()
        request = urllib.request.Request(f"{provider}/_control/calls", body)  # noqa: S310 - by http, to our own fake
        urllib.request.urlopen(request, timeout=10.0).close()  # noqa: S310 - likewise
