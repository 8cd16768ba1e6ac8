"""The HTTP interface, whatever framework speaks it: a table of routes, each a coroutine over the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from examples.backend.api import accounts, description, live, monitoring, recordings, tenants, webhooks

if TYPE_CHECKING:
    from examples.backend.api.http import Route

ROUTES: Final[tuple[Route, ...]] = (
    *accounts.ROUTES,
    *tenants.ROUTES,
    *recordings.ROUTES,
    *webhooks.ROUTES,
    *live.ROUTES,
    *monitoring.ROUTES,
    *description.ROUTES,
)
"""Every route of the backend but the WebSocket, which is no request and reply."""

PATHS: Final[dict[str, dict[str, Route]]] = {}
"""The routes of each path, by method."""
for _route in ROUTES:
    PATHS.setdefault(_route.path, {})[_route.method] = _route
