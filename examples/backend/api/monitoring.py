"""What operators see and order, what load balancers ask, and the page that shows it all.

The page itself holds no secret: whoever may not see the figures sees an empty one. Where the monitoring is
open to this machine only, so is the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel

from examples.backend.api.http import Access, Reply, Route

if TYPE_CHECKING:
    from examples.backend.api.http import Request
    from examples.backend.assembly import Backend

UNAVAILABLE: Final = 503
HEALTH: Final = "application/health+json"

FOLDER: Final = Path(__file__).parent.parent / "dashboard"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FILES: Final = {file.name: file.read_bytes() for file in FOLDER.iterdir() if file.suffix in TYPES}
PAGE: Final = "index.html"
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The page loads its own files and asks its own backend; no other page shows it in a frame."""
GUARDED: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


# --- for load balancers and process managers -----------------------------------------------------


async def live(_backend: Backend, _request: Request) -> Reply:
    """Say that the process answers; depends on nothing."""
    return health({"status": "pass"})


async def ready(backend: Backend, _request: Request) -> Reply:
    """Say whether requests should be sent here: not before it has begun, nor when it is about to end."""
    if backend.draining:
        return health({"status": "fail", "output": "shutting down"}, UNAVAILABLE)
    return await startup(backend, _request)


async def startup(backend: Backend, _request: Request) -> Reply:
    """Say whether it has begun to serve."""
    if not backend.started:
        return health({"status": "fail", "output": "starting"}, UNAVAILABLE)
    return health({"status": "pass"})


def health(body: dict[str, Any], status: int = 200) -> Reply:
    """Answer in the format for health checks (draft-inadarei-api-health-check-06)."""
    return Reply(status=status, content=body, media_type=HEALTH, headers={"Cache-Control": "no-store"})


# --- for operators -------------------------------------------------------------------------------


async def show_health(backend: Backend, _request: Request) -> Reply:
    """Return the health of each part: 200 also with warnings, since most of the work is still done."""
    return health(await backend.monitoring.health())


async def show_overview(backend: Backend, _request: Request) -> Reply:
    """Return all reports at once, of one instant: what the dashboard shows."""
    return Reply(content=await backend.monitoring.overview())


async def show_cleanup_stats(backend: Backend, _request: Request) -> Reply:
    """Return what the janitors have done."""
    return Reply(content=await backend.monitoring.cleanup_stats())


async def show_retry_stats(backend: Backend, _request: Request) -> Reply:
    """Return what was retried, in all and by dependency, and what is left of the budgets."""
    return Reply(content=await backend.monitoring.retry_stats())


async def show_rate_limit_stats(backend: Backend, _request: Request) -> Reply:
    """Return what each limiter counts, with hashed keys, the fullest first."""
    return Reply(content=await backend.monitoring.rate_limit_stats())


async def show_breakers(backend: Backend, _request: Request) -> Reply:
    """Return the state of each circuit breaker, and its last ten minutes."""
    return Reply(content=await backend.monitoring.breakers())


async def show_events(backend: Backend, _request: Request) -> Reply:
    """Return what the policies have told lately, the newest first."""
    return Reply(content=await backend.monitoring.events())


async def show_processes(backend: Backend, _request: Request) -> Reply:
    """Return the processes that were heard of within the last ten seconds."""
    return Reply(content=await backend.monitoring.processes())


async def show_metrics(backend: Backend, _request: Request) -> Reply:
    """Return the figures of all processes as Prometheus reads them."""
    return Reply(content=await backend.monitoring.metrics(), media_type=CONTENT_TYPE_LATEST)


async def order_breaker(backend: Backend, request: Request) -> Reply:
    """Force a circuit breaker open or closed until it is reset, or reset it; in all processes."""
    name, action = request.parameters["name"], request.parameters["action"]
    return Reply(content=await backend.monitoring.order(name, action))


# --- the page ------------------------------------------------------------------------------------


async def show_dashboard(backend: Backend, request: Request) -> Reply:
    """Return the page."""
    return _file(backend, request, PAGE)


async def show_dashboard_file(backend: Backend, request: Request) -> Reply:
    """Return a file that the page is made of."""
    return _file(backend, request, request.parameters["file"])


def _file(backend: Backend, request: Request, name: str) -> Reply:
    if not backend.settings.monitoring_token:  # with one, the page itself asks for it
        backend.monitoring.require_operator(request.incoming)
    return Reply(content=FILES[name], media_type=TYPES[Path(name).suffix], headers=dict(GUARDED))


class Ordered(BaseModel):
    """What an order has come to."""

    name: str
    state: str
    everywhere: bool
    """Whether the other processes will follow it, too."""


PROBED: Final = {200: HEALTH, UNAVAILABLE: HEALTH}
JSON: Final = {200: "application/json"}
OTHER_FILES: Final = sorted(name for name in FILES if name != PAGE)


def _probe(path: str, handler: Any, answers: dict[int, str]) -> Route:
    return Route(
        method="GET", path=path, handler=handler, access=Access.ANYBODY, limited=False, answers=answers
    )


def _report(path: str, handler: Any, answers: dict[int, str], errors: tuple[int, ...] = ()) -> Route:
    return Route(
        method="GET", path=path, handler=handler, access=Access.OPERATOR, answers=answers, errors=errors
    )


def _part_of_page(path: str, handler: Any, answers: dict[int, str], **patterns: str) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        access=Access.ANYBODY,
        limited=False,
        patterns=patterns,
        answers=answers,
        errors=(403, 404) if patterns else (403,),
    )


ROUTES: Final = (
    _probe("/health/live", live, {200: HEALTH}),
    _probe("/health/ready", ready, PROBED),
    _probe("/health/startup", startup, PROBED),
    _report("/api/monitoring/health", show_health, {200: HEALTH}),
    _report("/api/monitoring/overview", show_overview, JSON),
    _report("/api/monitoring/cleanup-stats", show_cleanup_stats, JSON),
    _report("/api/monitoring/retry-stats", show_retry_stats, JSON),
    _report("/api/monitoring/rate-limit-stats", show_rate_limit_stats, JSON, errors=(503,)),
    _report("/api/monitoring/breakers", show_breakers, JSON),
    _report("/api/monitoring/events", show_events, JSON),
    _report("/api/monitoring/processes", show_processes, JSON),
    _report("/metrics", show_metrics, {200: CONTENT_TYPE_LATEST}),
    Route(
        method="POST",
        path="/api/monitoring/breakers/{name}/{action}",
        handler=order_breaker,
        access=Access.OPERATOR,
        patterns={"name": "[^/]{1,100}", "action": "force-open|force-close|reset"},
        answers={200: Ordered},
        errors=(404,),
    ),
    _part_of_page("/dashboard", show_dashboard, {200: TYPES[".html"]}),
    _part_of_page(
        "/dashboard/{file}",
        show_dashboard_file,
        {200: "text/*"},
        file="|".join(name.replace(".", r"\.") for name in OTHER_FILES),
    ),
)
