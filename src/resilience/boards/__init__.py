"""Boards: by which the breakers of several processes open, are tested and close together.

- `redis` and `postgres` have the boards that users make, one for each process and engine.
- `board` has the threads of both, and `exchange` what these do: report, hear, follow. `coding` is how a
  ledger is written. What a report means is worked out in `_core.ledger`, what news mean in `_core.shared`.

Rules:

- A breaker never waits for its board, nor does the board for a breaker's caller.
- An engine that cannot be reached is no error: each process goes on alone, and says so in the log.
- What is found on an engine is read with distrust, and no news keep a breaker open for longer than its own
  settings could.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from resilience._core.shared import SharedBreaker
    from resilience.breaker.gate import Gate

__all__ = ["Board"]


class Board(Protocol):
    """What a breaker asks of a board."""

    def enrol(self, gate: Gate, core: SharedBreaker) -> Callable[[], object]:
        """Let a breaker take part.

        Args:
            gate: Its driver, whose name is that of the ledger. The board does not keep it alive.
            core: Its state machine.

        Returns:
            What to call when there is something to report. It never blocks, not even in a finaliser.
        """
        ...
