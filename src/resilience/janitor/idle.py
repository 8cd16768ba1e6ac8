"""Which PostgreSQL connections are idle and our own: the statements, and what becomes of their answers.

The rules stand in `connections.py`. Times come from the database, and go back to it, in whole microseconds,
which is how PostgreSQL counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from resilience.events import IdleConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

BOUND: Final = "SELECT set_config('statement_timeout', %s, true)"  # until the end of the transaction

WHO: Final = "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user"

_IDLE: Final = r"""
SELECT other.pid,
       (extract(epoch FROM other.backend_start) * 1000000)::bigint AS began,
       (extract(epoch FROM other.state_change) * 1000000)::bigint AS idle_since,
       other.state,
       other.application_name,
       host(other.client_addr) AS client,
       extract(epoch FROM clock_timestamp() - other.state_change)::float8 AS seconds,
       CASE
           WHEN EXISTS (SELECT FROM unnest(%(keep)s::text[]) AS kept
                        WHERE starts_with(other.application_name, kept))
               THEN 'kept by name'
           WHEN EXISTS (SELECT FROM pg_catalog.pg_locks AS lock
                        WHERE lock.pid = other.pid AND lock.locktype = 'advisory')
               THEN 'holds an advisory lock'
           WHEN other.query ~* '\m(un)?listen\M' OR other.application_name ~* 'listen'
               THEN 'may be listening'
       END AS reason
FROM pg_catalog.pg_stat_activity AS me
JOIN pg_catalog.pg_roles AS role ON role.oid = me.usesysid AND NOT role.rolsuper
JOIN pg_catalog.pg_stat_activity AS other ON other.usesysid = me.usesysid AND other.datid = me.datid
WHERE me.pid = pg_backend_pid()
  AND other.pid <> me.pid
  AND other.backend_type = 'client backend'
  AND starts_with(other.application_name, %(prefix)s)
  AND extract(epoch FROM clock_timestamp() - other.state_change) > CASE other.state
      WHEN 'idle in transaction' THEN %(idle_in_transaction)s::float8
      WHEN 'idle in transaction (aborted)' THEN %(idle_in_transaction)s::float8
      WHEN 'idle' THEN %(idle)s::float8
  END
"""
"""The idle connections of our own, and why those are spared that are; a threshold of NULL is never passed."""

LOOK: Final = _IDLE + "ORDER BY seconds DESC LIMIT 1000"  # more than a server usually takes

END: Final = f"""
SELECT idle.pid, pg_catalog.pg_terminate_backend(idle.pid)
FROM ({_IDLE}) AS idle
JOIN unnest(%(pid)s::int[], %(began)s::bigint[], %(idle_since)s::bigint[], %(state)s::text[])
     AS seen (pid, began, idle_since, state) USING (pid, began, idle_since, state)
WHERE idle.reason IS NULL
"""  # noqa: S608 - it is made of constants; values come as parameters


class Found(NamedTuple):
    """A row of what idles."""

    pid: int
    began: int
    """When the connection was made, in Unix microseconds: pids are used again."""
    idle_since: int
    """When it became what it is, in Unix microseconds: any statement since then has changed it."""
    state: str
    application_name: str
    client: str | None
    seconds: float
    reason: str | None
    """Why it is spared; None if it may be ended."""

    def told(self) -> IdleConnection:
        """Return what others are told of it."""
        return IdleConnection(self.pid, self.application_name, self.client, self.state, self.seconds)


_IDENTITY: Final = ("pid", "began", "idle_since", "state")


class Result(NamedTuple):
    """What a sweep has found and done."""

    found: list[Found]
    chosen: list[Found]
    """Those of the found that were to be ended."""
    signalled: list[tuple[int, bool]]
    """The pids of those that still were as they were found, and whether there was a process to signal."""

    def ended(self) -> list[Found]:
        """Return those that were ended."""
        pids = {pid for pid, was_there in self.signalled if was_there}
        return [each for each in self.chosen if each.pid in pids]

    def why_spared(self, found: Found) -> str:
        """Return why a connection was not ended that was not."""
        if found.reason is not None:
            return found.reason
        return "changed since it was seen" if found in self.chosen else "left for the next sweep"


def identities(found: Sequence[Found]) -> dict[str, list[Any]]:
    """Return what tells these connections, as they were found, from all others: values of `END`."""
    return {field: [getattr(each, field) for each in found] for field in _IDENTITY}
