"""What operators see: health, and the figures of every policy; the same whatever framework serves it.

An open breaker, a janitor that has stopped or much memory in use is a warning: the backend still does most
of its work, and taking it out of service would help nobody. Only a process that is about to end wants no
requests.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from examples.backend.kit import settled
from examples.backend.ports.database import EVERY
from examples.backend.schemas import timestamp
from resilience import authentication_error, authorization_error
from resilience.retry.stats import RetryStats

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.backend.assembly import Backend
    from resilience.limiter import LimiterStats

logger: Final = logging.getLogger("backend.monitoring")

WORSE: Final = ("pass", "warn", "fail")
BY_PROXIES: Final = ("forwarded", "via", "x-forwarded-for", "x-real-ip")
"""Headers that say that somebody passed the request on."""


class Monitoring:
    """The reports on one backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def require_operator(self, peer: str | None, headers: Mapping[str, str]) -> None:
        """Let operators pass: by the monitoring token, or from this machine where there is none.

        What a proxy on this machine has passed on comes from this machine only seemingly.

        Args:
            peer: The address at the other end of the connection, whatever headers say.
            headers: The request's headers, by lower-case names.

        Raises:
            ServiceError: Somebody else asks (401 or 403).
        """
        token = self._backend.settings.monitoring_token
        if token:
            given = headers.get("authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, f"Bearer {token}".encode()):
                raise authentication_error("The monitoring token is needed")
        elif not _is_loopback(peer) or any(name in headers for name in BY_PROXIES):
            raise authorization_error("Monitoring is open to this machine only, unless a token is set")

    async def health(self) -> dict[str, Any]:
        """Return the health of each part, and the worst of them as the whole's."""
        janitor = self._backend.janitor.stats()
        checks = {"database": await self._database()}
        for breaker in self._backend.breakers:
            state = breaker.snapshot().state
            checks[f"breaker:{breaker.name}"] = _check(state in {"closed", "forced-closed"}, state)
        checks["janitor"] = _check(janitor.is_running, f"{janitor.sweeps} sweeps")
        checks["memory"] = _check(not janitor.memory_high, f"{janitor.memory} in use")
        worst = max((check["status"] for check in checks.values()), key=WORSE.index)
        return {"status": worst, "checks": checks}

    async def _database(self) -> dict[str, str]:
        try:
            await self._backend.database.read(lambda db: db.execute(select(1)), tenant=EVERY)
        except SQLAlchemyError:
            logger.exception("the database does not answer")
            return {"status": "fail", "output": "does not answer"}
        return {"status": "pass", "output": "answers"}

    def cleanup_stats(self) -> dict[str, Any]:
        """Return what the janitor has done."""
        stats = self._backend.janitor.stats()
        return {**stats.as_dict(), "last_sweep_at": timestamp(stats.last_sweep_at)}

    def retry_stats(self) -> dict[str, Any]:
        """Return what was retried: in all, and by dependency."""
        stats = {name: retries.stats() for name, retries in self._backend.retries.items()}
        total = RetryStats(*map(sum, zip(*stats.values(), strict=True)))
        return {**total.as_dict(), "policies": {name: each.as_dict() for name, each in stats.items()}}

    async def rate_limit_stats(self) -> dict[str, Any]:
        """Return what each limiter counts, with its keys hashed: they are addresses of people."""
        return {
            "limiters": [
                _limiter_body(await settled(each.stats(hashed=True))) for each in self._backend.limits.all
            ]
        }

    def breakers(self) -> dict[str, Any]:
        """Return the state of each circuit breaker."""
        return {"breakers": [breaker.snapshot()._asdict() for breaker in self._backend.breakers]}


def _limiter_body(stats: LimiterStats) -> dict[str, Any]:
    entries = [
        {
            "key": "/".join(entry.key),
            "quota": str(entry.quota),
            "count": entry.count,
            "reset_at": timestamp(entry.reset_at),
            "reset_after": entry.reset_after,
        }
        for entry in stats.entries
    ]
    return {**stats._asdict(), "entries": entries}


def _check(good: bool, output: str) -> dict[str, str]:
    return {"status": "pass" if good else "warn", "output": output}


def _is_loopback(peer: str | None) -> bool:
    try:
        return peer is not None and ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False
