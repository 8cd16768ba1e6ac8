"""What operators see: health, and the figures of every policy, of all processes together.

Each process tells the others about itself once a second (`ports/reports.py`), and answers for all of them
from what it has heard. So an answer waits for nobody: monitoring is most needed when nothing else answers.

- `operators` says who may look and give orders.
- `report` is what a process says of itself; `merging` makes one of many; `metrics` writes it for Prometheus.

An open breaker, a janitor that has stopped or much memory in use is a warning: the backend still does most
of its work, and taking it out of service would help nobody. Only a process that has not begun or is about to
end wants no requests.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError

from examples.backend.kit import settled
from examples.backend.monitoring import merging, metrics, operators, report
from examples.backend.ports.reports import NOTHING_FOUND, DatabaseReports, added
from examples.backend.telemetry import Recorder
from resilience import ServiceError, not_found_error
from resilience.clock import SYSTEM_CLOCK
from resilience.events import subscribe
from resilience.stores import StoreUnavailable

if TYPE_CHECKING:
    from examples.backend.api.http import Incoming
    from examples.backend.assembly import Backend
    from examples.backend.ports.reports import Report
    from resilience import CircuitBreaker
    from resilience.clock import Clock

__all__ = ["Monitoring"]

logger: Final = logging.getLogger("backend.monitoring")

PERIOD: Final = 1.0
"""Seconds from one report of a process to the next."""
SILENCE: Final = 5.0
"""Seconds without an answer after which the database counts as away."""
WORSE: Final = ("pass", "warn", "fail")
DONE_BY: Final = {"force-open": "force_open", "force-close": "force_close", "reset": "reset"}
"""What an operator may order, and the breaker's method that does it."""


class Monitoring:
    """Tells about this backend, and takes orders about its breakers.

    Args:
        backend: Whom it is about.
        secret: What limits' keys are hashed with.
        clock: Where time comes from.
    """

    def __init__(self, backend: Backend, secret: bytes, clock: Clock = SYSTEM_CLOCK) -> None:
        self._backend = backend
        self._clock = clock
        self._recorder = Recorder(secret, clock)
        self._reports = DatabaseReports(backend.database)
        self._found = NOTHING_FOUND
        self._heard_at = -inf
        self._in_touch = True
        self._limits_counted = True
        self._obeyed: dict[str, int] = {}
        self._periodic = backend.kit.periodic(self.exchange, PERIOD, name="the exchange of reports")

    async def start(self) -> None:
        """Begin to record, and to exchange reports with the other processes."""
        self._unsubscribe = subscribe(self._recorder)
        await self.exchange()
        await settled(self._periodic.start())

    async def close(self) -> None:
        """Take leave of the other processes: what was counted here stays in their sums."""
        await settled(self._periodic.stop(timeout=1.0))
        self._unsubscribe()
        try:
            await self._reports.leave(self._recorder.process, await self._own())
        except (SQLAlchemyError, ServiceError) as error:
            logger.warning("this process could not take leave, and is shown for some seconds more: %s", error)

    def require_operator(self, incoming: Incoming) -> None:
        """Let operators pass; see `operators`.

        Raises:
            ServiceError: Somebody else asks (401 or 403).
        """
        settings = self._backend.settings
        operators.require_operator(settings.monitoring_token, settings.public_url, incoming)

    async def exchange(self) -> None:
        """Tell the other processes about this one, hear about them, and follow orders that were given there.

        Without the database each process goes on by itself; that is logged once, and shown by `health`.
        """
        self._recorder.look_at(self._backend.breakers)
        await self._look_at_limits()
        try:
            self._found = await self._reports.exchange(
                self._recorder.process, await self._own(), self._clock.wall()
            )
        except (SQLAlchemyError, ServiceError):
            if self._in_touch:
                self._in_touch = False
                logger.exception("reports cannot be exchanged: each process shows what it heard last")
            return
        is_first = self._heard_at == -inf
        self._in_touch, self._heard_at = True, self._clock.now()
        for order in self._found.orders:
            self._obey(order.breaker, order.action, order.number, is_first=is_first)

    async def _look_at_limits(self) -> None:
        """Note whether limits can be counted. The log says once when that changes, not with each request."""
        login = self._backend.limits.all[0]
        try:
            await settled(login.peek("monitoring"))
        except StoreUnavailable as error:
            if self._limits_counted:
                logger.warning("limits cannot be counted, so nobody can log in: %s", error)
            self._limits_counted = False
        else:
            if not self._limits_counted:
                logger.info("limits are counted again")
            self._limits_counted = True

    # --- orders ----------------------------------------------------------------------------------

    async def order(self, name: str, action: str) -> dict[str, Any]:
        """Force a breaker open or closed, or reset it: here at once, in the other processes within a second.

        A hold lasts until it is reset, also for processes that start later.

        Raises:
            ServiceError: There is no breaker of this name (404).
        """
        breaker = self._breaker(name)
        if breaker is None:
            raise not_found_error("Circuit breaker")
        getattr(breaker, DONE_BY[action])()
        try:
            self._obeyed[name] = await self._reports.order(name, action, self._clock.wall())
        except (SQLAlchemyError, ServiceError) as error:
            logger.warning(
                "an operator ordered %s for breaker %s, in this process only: %s", action, name, error
            )
            return {"name": name, "state": breaker.state, "everywhere": False}
        logger.warning("an operator ordered %s for breaker %s", action, name)
        return {"name": name, "state": breaker.state, "everywhere": True}

    def _obey(self, name: str, action: str, number: int, *, is_first: bool) -> None:
        breaker = self._breaker(name)
        if breaker is None or number <= self._obeyed.get(name, 0):
            return
        self._obeyed[name] = number
        if not (is_first and action == "reset"):  # of long ago: there is nothing yet that it could end
            getattr(breaker, DONE_BY[action])()

    def _breaker(self, name: str) -> CircuitBreaker | None:
        return next((breaker for breaker in self._backend.breakers if breaker.name == name), None)

    # --- reports ---------------------------------------------------------------------------------

    async def overview(self) -> dict[str, Any]:
        """Return everything, of one instant: what the dashboard shows."""
        reports = await self._all()
        try:
            limits = await self.rate_limit_stats()
        except StoreUnavailable:
            limits = {"limiters": [], "output": "the store of the limits does not answer"}
        return {
            "now": merging.instant(self._clock.wall()),
            "health": self._health_of(reports),
            "breakers": merging.breakers(reports, self._clock.wall()),
            "retries": merging.retries(reports),
            "limits": limits,
            "janitor": merging.janitor(reports),
            "processes": merging.processes(reports),
            "events": merging.events(reports),
        }

    async def health(self) -> dict[str, Any]:
        """Return the health of each part, and the worst of them as the whole's."""
        return self._health_of(await self._all())

    async def cleanup_stats(self) -> dict[str, Any]:
        """Return what the janitors have done."""
        return merging.janitor(await self._all())

    async def retry_stats(self) -> dict[str, Any]:
        """Return what was retried: in all, and by dependency."""
        return merging.retries(await self._all())

    async def breakers(self) -> dict[str, Any]:
        """Return the state of each circuit breaker, and its last ten minutes."""
        return {"breakers": merging.breakers(await self._all(), self._clock.wall())}

    async def events(self) -> dict[str, Any]:
        """Return what has happened lately, the newest first."""
        return {"events": merging.events(await self._all())}

    async def processes(self) -> dict[str, Any]:
        """Return the processes that were heard of within the last ten seconds."""
        return {"processes": merging.processes(await self._all())}

    async def rate_limit_stats(self) -> dict[str, Any]:
        """Return what each limiter counts, with its keys hashed: they are addresses of people.

        Raises:
            StoreUnavailable: The store where they are counted does not answer.
        """
        own = await report.limiters(self._backend, self._recorder)
        others = [other["limiters"] for other in self._found.others]
        refusals = merging.counts(await self._all()).get("limiter_refusals", {})
        return {"limiters": merging.limiters([own, *others], refusals)}

    async def metrics(self) -> bytes:
        """Return the figures as Prometheus reads them."""
        own = await self._own()
        counted = added([own["counts"], self._found.counts])
        return metrics.text([own, *self._found.others], counted)

    async def _all(self) -> list[Report]:
        return [await self._own(), *self._found.others]

    async def _own(self) -> Report:
        return await report.of_process(self._backend, self._recorder, self._clock.wall())

    def _health_of(self, reports: list[Report]) -> dict[str, Any]:
        """Return the health of each part.

        The database is asked once a second by the exchange of reports; nobody waits for it here.
        """
        silent = self._clock.now() - self._heard_at > SILENCE
        checks = {"database": _check(not silent, "does not answer" if silent else "answers", "fail")}
        counted = "are counted" if self._limits_counted else "cannot be counted, so nobody can log in"
        checks["limits"] = _check(self._limits_counted, counted)
        for breaker in merging.breakers(reports, self._clock.wall()):
            state = breaker["state"]
            checks[f"breaker:{breaker['name']}"] = _check(state in {"closed", "forced-closed"}, state)
        janitor = merging.janitor(reports)
        checks["janitor"] = _check(janitor["is_running"], f"{janitor['sweeps']} sweeps")
        checks["memory"] = _check(not janitor["memory_high"], f"{janitor['memory']} in use")
        worst = max((check["status"] for check in checks.values()), key=WORSE.index)
        return {"status": worst, "checks": checks}


def _check(good: bool, output: str, otherwise: str = "warn") -> dict[str, str]:
    return {"status": "pass" if good else otherwise, "output": output}
