"""Sessions in PostgreSQL, shared by all processes on all machines. Needs psycopg 3: the extra `postgres`.

- `PostgresSessions` and `AsyncPostgresSessions` are the stores.
- `SCHEMA` is the table as SQL, to run in migrations of one's own; `create_schema()` of a store runs it.
- `Bloat` is what a store tells of the rows that are deleted and not cleared away.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("psycopg") is None:
    raise ImportError(
        "resilience.janitor.postgres needs psycopg 3: install the extra, resilience-py[postgres]"
    )

from resilience.janitor.postgres.sessions import AsyncPostgresSessions, PostgresSessions
from resilience.janitor.postgres.statements import SCHEMA, Bloat

__all__ = ["SCHEMA", "AsyncPostgresSessions", "Bloat", "PostgresSessions"]
