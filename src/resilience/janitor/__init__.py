"""What cleans: expired sessions, the sockets that belong to them, and a watch on memory.

- `SessionJanitor` and `AsyncSessionJanitor` sweep by a schedule.
- `SocketRegistry` knows the open sockets, and closes them with their session.
- `MemoryWatch` reads the memory of the process, and raises the alarm.
- `sessions` has what a session is, and what a janitor asks of a store; `sqlite` has a store that keeps them
  in a file. Whoever wants these imports them from there.
- `leaks` has a detector of connections that are taken and not given back, `connections` a reaper of those
  that idle in PostgreSQL, and `periodic` what does such a job again and again.
"""

from __future__ import annotations

from resilience.janitor.base import JanitorStats
from resilience.janitor.janitor import AsyncSessionJanitor, SessionJanitor
from resilience.janitor.memory import MemoryWatch
from resilience.janitor.sockets import SocketRegistry

__all__ = ["AsyncSessionJanitor", "JanitorStats", "MemoryWatch", "SessionJanitor", "SocketRegistry"]
