"""A bar that shows how far a long run is: on a terminal only, and only if there is time to read it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Self

from resilience.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from types import TracebackType
    from typing import TextIO

    from resilience.clock import Clock

PATIENCE: Final = 1.0
"""Seconds of real time before it shows, and a fifth of it between two pictures."""

WIDTH: Final = 40
"""Characters."""


class Progress:
    """Draws a bar: pass it to `run`, inside a `with` block that wipes it off in the end.

    Args:
        label: What is under way.
        stream: Where to draw, if that is a terminal; stderr where left out.
        clock: Real time.
    """

    def __init__(self, label: str = "", stream: TextIO | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._label = label
        self._stream = sys.stderr if stream is None else stream
        self._next = clock.now() + PATIENCE
        self._shown = 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __call__(self, done: float) -> None:
        """Show that this part is done, 0 to 1."""
        now = self._clock.now()
        if now >= self._next and self._stream.isatty():
            self._next = now + PATIENCE / 5
            full = round(done * WIDTH)
            self._draw(f"{self._label} {'█' * full}{'░' * (WIDTH - full)} {done:4.0%}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wipe it off, if it shows."""
        if self._shown:
            self._draw("")
            self._stream.write("\r")
            self._stream.flush()

    def _draw(self, line: str) -> None:
        self._stream.write(f"\r{line:{self._shown}}")
        self._stream.flush()
        self._shown = len(line)
