"""What the processes of a backend tell one another, through the database: reports, and operators' orders.

A process is there while it has been heard of within `LIVE` seconds, by the wall clocks of the machines, so
these must agree to some seconds. Some time after its last word its row is folded: its counts are added to
those of all that have ended, and the row goes. So sums never shrink, and rows do not pile up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import delete, select, update

from examples.backend.ports.database import EVERY, insert
from examples.backend.ports.tables import breaker_orders, process_reports

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection

    from examples.backend.ports.database import Database

Report = dict[str, Any]
"""What a process says of itself; JSON can hold it. See `examples.backend.monitoring.report`."""
Counts = Mapping[str, Mapping[str, int]]
"""How often, by what was counted and by its labels' values."""

LIVE: Final = 10.0
"""Seconds after its last word for which a process is believed to be there."""
FOLDED: Final = 60.0
"""Seconds after which its counts are added to those of the ended ones."""
ENDED: Final = "ended"
"""In place of a process: the row of the counts of all that have ended."""


class Order(NamedTuple):
    """The last order about a breaker."""

    breaker: str
    action: str
    """`"force-open"`, `"force-close"` or `"reset"`."""
    number: int
    """How many orders there have been about this breaker."""


class Found(NamedTuple):
    """What a process has heard."""

    others: Sequence[Report]
    """Reports of the other processes that are there."""
    counts: Counts
    """What all others have counted, ended ones included; to be added to one's own."""
    orders: Sequence[Order]


NOTHING_FOUND: Final = Found((), {}, ())


class DatabaseReports:
    """Exchanges reports and orders; each method is one transaction. For one process, one call at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._written: Counts = {}
        self._folded: Counts = {}
        """What was counted here but stands among the ended ones: this process was silent for too long."""

    async def exchange(self, process: str, report: Report, now: float) -> Found:
        """Write this process's report; return what the others have written.

        Args:
            process: Which one this is.
            report: What it says of itself.
            now: In Unix seconds.
        """

        def exchange(db: Connection) -> tuple[Found, Counts]:
            _fold(db, now - FOLDED, process)
            known = db.execute(
                select(process_reports.c.process).where(process_reports.c.process == process)
            ).first()
            folded = self._folded if known else added([self._folded, self._written])
            _write(db, process, now, {**report, "counts": added([report["counts"]], minus=folded)})
            rows = db.execute(select(process_reports).where(process_reports.c.process != process)).all()
            others = [row.report for row in rows if row.process != ENDED and row.seen_at > now - LIVE]
            counts = added([row.report["counts"] for row in rows], minus=folded)
            orders = db.execute(
                select(breaker_orders.c.breaker, breaker_orders.c.action, breaker_orders.c.number)
            )
            return Found(others, counts, [Order(*order) for order in orders]), folded

        found, folded = await self._database.write(exchange, tenant=EVERY)
        self._written, self._folded = report["counts"], folded
        return found

    async def leave(self, process: str, report: Report) -> None:
        """Write this process's last report: it is not there any more, but its counts remain."""
        last = {**report, "counts": added([report["counts"]], minus=self._folded)}
        await self._database.write(lambda db: _write(db, process, 0.0, last), tenant=EVERY)

    async def order(self, breaker: str, action: str, now: float) -> int:
        """Give all processes an order, in place of the last one about this breaker; return its number."""

        def order(db: Connection) -> int:
            new = insert(db, breaker_orders).values(breaker=breaker, action=action, number=1, ordered_at=now)
            number: int = db.execute(
                new.on_conflict_do_update(
                    index_elements=["breaker"],
                    set_={"action": action, "number": breaker_orders.c.number + 1, "ordered_at": now},
                ).returning(breaker_orders.c.number)
            ).scalar_one()
            return number

        return await self._database.write(order, tenant=EVERY)


def _write(db: Connection, process: str, seen_at: float, report: Report) -> None:
    new = insert(db, process_reports).values(process=process, seen_at=seen_at, report=report)
    db.execute(
        new.on_conflict_do_update(
            index_elements=["process"], set_={"seen_at": new.excluded.seen_at, "report": new.excluded.report}
        )
    )


def _fold(db: Connection, before: float, process: str) -> None:
    """Add what long silent processes have counted to the row of the ended ones, and remove their rows.

    That row is locked first, so of two who fold at the same time the second finds nothing left; and before
    one's own row is written, so that nobody who waits for this one holds anything that this one waits for.
    """
    is_silent = (process_reports.c.seen_at < before) & process_reports.c.process.not_in([ENDED, process])
    if db.execute(select(process_reports.c.process).where(is_silent).limit(1)).first() is None:
        return
    nobody: dict[str, Any] = {"counts": {}}
    db.execute(
        insert(db, process_reports)
        .values(process=ENDED, seen_at=0.0, report=nobody)
        .on_conflict_do_nothing(index_elements=["process"])
    )
    is_ended = process_reports.c.process == ENDED
    ended = db.execute(select(process_reports.c.report).where(is_ended).with_for_update()).scalar_one()
    silent = db.execute(
        delete(process_reports).where(is_silent).returning(process_reports.c.report)
    ).scalars()
    counts = added([ended["counts"], *(report["counts"] for report in silent)])
    db.execute(update(process_reports).where(is_ended).values(report={"counts": counts}))


def added(counted: Iterable[Counts], minus: Counts = {}) -> dict[str, dict[str, int]]:  # noqa: B006 - only read
    """Return the sums of several counts.

    Example:
        >>> added([{"sweeps": {"success": 2}}, {"sweeps": {"success": 1, "failure": 1}}])
        {'sweeps': {'success': 3, 'failure': 1}}
    """
    sums: dict[str, dict[str, int]] = {}
    for each, sign in [*((one, 1) for one in counted), (minus, -1)]:
        for family, by_labels in each.items():
            known = sums.setdefault(family, {})
            for labels, number in by_labels.items():
                known[labels] = known.get(labels, 0) + sign * number
    return sums
