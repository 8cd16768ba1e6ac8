"""What the session stores say to PostgreSQL, and what they make of its answers.

The rules:

- Time is the database's: `clock_timestamp()`, and never `now()`, which stands still in a transaction. It
  stands in a subquery, which is asked once, so that an index can be used.
- A renewal is an UPDATE that checks whether it found the row. Only CREATE inserts, so what was logged out
  stays so. A renewal that waits for a logout finds no row when the wait is over.
- A sweep takes only rows that nobody holds (`SKIP LOCKED`) and looks at each again once it has it: a session
  whose renewal is in flight is left alone, and nobody waits for anybody. What it has found is materialised,
  or else the planner may look for it again and again, and delete more than was asked for.
- One node cleans at a time: each batch asks for an advisory lock, which ends with its transaction and so
  cannot be left behind on a connection that a proxy gives to somebody else.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, LiteralString, NamedTuple

from resilience.janitor.sessions import Session, is_unicode

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_USER_ID: Final = (
    2000  # bytes; PostgreSQL's index takes up to 2704, and says so only for what it cannot compress
)

SCHEMA: Final[LiteralString] = """
CREATE TABLE IF NOT EXISTS resilience_sessions (
    session_id text COLLATE "C" PRIMARY KEY,
    user_id    text COLLATE "C" NOT NULL,
    data       text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ends_at    timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX IF NOT EXISTS resilience_sessions_by_user ON resilience_sessions (user_id, created_at);
CREATE INDEX IF NOT EXISTS resilience_sessions_by_expiry ON resilience_sessions (expires_at);
"""
"""The table as SQL. It is an ordinary, logged one: sessions outlive a crash of the database."""

BOUNDS: Final[LiteralString] = "SET LOCAL statement_timeout = %s; SET LOCAL lock_timeout = %s; "
"""In milliseconds; what both bound is the rest of the query, which is one transaction."""

# Two nodes that begin at once may both find no table, and one of them then fails to make it.
CREATE_SCHEMA: Final[LiteralString] = (
    "SELECT pg_advisory_xact_lock(hashtext('resilience_sessions'));" + SCHEMA
)

_SESSION: Final[LiteralString] = """
    session_id, user_id, data,
    extract(epoch FROM created_at)::float8,
    extract(epoch FROM expires_at)::float8,
    extract(epoch FROM ends_at)::float8,
    extract(epoch FROM clock_timestamp())::float8
"""

# The id is random: if it is there, this very statement has put it there, and its reply was lost.
CREATE: Final[LiteralString] = """
INSERT INTO resilience_sessions (session_id, user_id, data, created_at, expires_at, ends_at)
SELECT %s, %s, %s, now, now + make_interval(secs => %s), now + make_interval(secs => %s)
FROM (SELECT clock_timestamp() AS now) AS clock
ON CONFLICT (session_id) DO NOTHING
"""

READ: Final[LiteralString] = (
    "SELECT"
    + _SESSION
    + "FROM resilience_sessions WHERE session_id = %s AND expires_at > (SELECT clock_timestamp())"
)

OF_USER: Final[LiteralString] = (
    "SELECT"
    + _SESSION
    + """FROM resilience_sessions WHERE user_id = %s AND expires_at > (SELECT clock_timestamp())
ORDER BY created_at DESC LIMIT %s"""
)

RENEW: Final[LiteralString] = (
    """
UPDATE resilience_sessions
SET expires_at = greatest(expires_at, least(clock_timestamp() + make_interval(secs => %s), ends_at))
WHERE session_id = %s AND expires_at > (SELECT clock_timestamp())
RETURNING"""
    + _SESSION
)

DELETE: Final[LiteralString] = "DELETE FROM resilience_sessions WHERE session_id = %s RETURNING session_id"

DELETE_USER: Final[LiteralString] = "DELETE FROM resilience_sessions WHERE user_id = %s RETURNING session_id"

# The lock is asked for once, before the first row is looked at. Its second number is the table's own, so that
# tables in several schemas are cleaned side by side; the first is "sess" in ASCII.
DELETE_EXPIRED: Final[LiteralString] = """
WITH turn AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(1936028531, 'resilience_sessions'::regclass::oid::int) AS is_ours
), dead AS MATERIALIZED (
    SELECT session_id FROM resilience_sessions
    WHERE (SELECT is_ours FROM turn) AND expires_at <= (SELECT clock_timestamp())
    ORDER BY expires_at LIMIT %s
    FOR UPDATE SKIP LOCKED
), gone AS (
    DELETE FROM resilience_sessions AS kept USING dead WHERE kept.session_id = dead.session_id RETURNING 1
)
SELECT is_ours, (SELECT count(*) FROM gone) FROM turn
"""

COUNT: Final[LiteralString] = (
    "SELECT count(*) FROM resilience_sessions WHERE expires_at > (SELECT clock_timestamp())"
)

COUNT_EXPIRED: Final[LiteralString] = """
SELECT count(*) FROM (
    SELECT FROM resilience_sessions WHERE expires_at <= (SELECT clock_timestamp()) LIMIT %s
) AS expired
"""

ALIVE: Final[LiteralString] = """
SELECT session_id FROM resilience_sessions
WHERE session_id = ANY(%s) AND expires_at > (SELECT clock_timestamp())
"""

BLOAT: Final[LiteralString] = """
SELECT n_live_tup, n_dead_tup, pg_total_relation_size(relid), extract(epoch FROM last_autovacuum)::float8
FROM pg_stat_user_tables WHERE relid = 'resilience_sessions'::regclass
"""


class Bloat(NamedTuple):
    """What the table carries along: PostgreSQL's own estimate, a second or so behind."""

    live: int
    """Rows that are sessions, expired ones included."""
    dead: int
    """Rows that are deleted or overwritten, and not cleared away yet."""
    size: int
    """Bytes of the table with its indexes."""
    last_autovacuum: float | None
    """When the database has last cleared away by itself, in Unix seconds; None if it never has."""

    @property
    def share(self) -> float:
        """The share of the dead among all rows, 0 to 1."""
        return self.dead / max(1, self.live + self.dead)


def session_of(row: Sequence[Any]) -> tuple[Session, float]:
    """Return the session in a row, and the database's clock."""
    session_id, user_id, data, created_at, expires_at, ends_at, now = row
    return Session(session_id, user_id, json.loads(data), created_at, expires_at, ends_at), now


def storable(text: str) -> bool:
    """Return whether PostgreSQL can hold the text: it takes no NUL and no half of a surrogate pair."""
    return "\0" not in text and is_unicode(text)


def checked_user_id(user_id: Any) -> str:
    """Return the user id if it can be stored.

    Raises:
        TypeError: It is no text.
        ValueError: It holds what PostgreSQL cannot, or is too long for its index.
    """
    if not isinstance(user_id, str):
        raise TypeError(f"user_id must be a str, not {user_id!r}")
    if not storable(user_id):
        raise ValueError(f"user_id must be text without NUL and lone surrogates, not {user_id[:100]!r}")
    if (size := len(user_id.encode())) > _LONGEST_USER_ID:
        raise ValueError(f"user_id must have at most {_LONGEST_USER_ID} bytes, not {size}: take its hash")
    return user_id
