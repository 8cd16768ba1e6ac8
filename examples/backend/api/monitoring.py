"""What operators see, and what load balancers ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from examples.backend.api.http import Access, Reply, Route

if TYPE_CHECKING:
    from examples.backend.api.http import Request
    from examples.backend.assembly import Backend

UNAVAILABLE: Final = 503


async def live(_backend: Backend, _request: Request) -> Reply:
    """Say that the process answers; depends on nothing."""
    return Reply(content={"status": "pass"})


async def ready(backend: Backend, _request: Request) -> Reply:
    """Say whether requests should be sent here: not any more once the process is about to end."""
    if backend.draining:
        return health({"status": "fail", "output": "shutting down"}, UNAVAILABLE)
    return health({"status": "pass"})


async def show_health(backend: Backend, _request: Request) -> Reply:
    """Return the health of each part: 200 also with warnings, since most of the work is still done."""
    return health(await backend.monitoring.health())


async def show_cleanup_stats(backend: Backend, _request: Request) -> Reply:
    """Return what the janitor has done."""
    return Reply(content=backend.monitoring.cleanup_stats())


async def show_retry_stats(backend: Backend, _request: Request) -> Reply:
    """Return what was retried, in all and by dependency."""
    return Reply(content=backend.monitoring.retry_stats())


async def show_rate_limit_stats(backend: Backend, _request: Request) -> Reply:
    """Return what each limiter counts, with hashed keys."""
    return Reply(content=await backend.monitoring.rate_limit_stats())


async def show_breakers(backend: Backend, _request: Request) -> Reply:
    """Return the state of each circuit breaker."""
    return Reply(content=backend.monitoring.breakers())


def health(body: dict[str, Any], status: int = 200) -> Reply:
    """Answer in the format for health checks (draft-inadarei-api-health-check-06)."""
    return Reply(
        status=status,
        content=body,
        media_type="application/health+json",
        headers={"Cache-Control": "no-store"},
    )


def _probe(path: str, handler: Any) -> Route:
    return Route(method="GET", path=path, handler=handler, access=Access.ANYBODY, limited=False)


def _report(path: str, handler: Any) -> Route:
    return Route(method="GET", path=f"/api/monitoring{path}", handler=handler, access=Access.OPERATOR)


ROUTES: Final = (
    _probe("/health/live", live),
    _probe("/health/ready", ready),
    _report("/health", show_health),
    _report("/cleanup-stats", show_cleanup_stats),
    _report("/retry-stats", show_retry_stats),
    _report("/rate-limit-stats", show_rate_limit_stats),
    _report("/breakers", show_breakers),
)
