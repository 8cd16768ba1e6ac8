"""How a fake runs as a process of its own: started by somebody, and ended with them.

It prints one line when it is ready: where it listens. It ends when its standard input closes, which the
system does for whoever started it, however that one ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

PATIENCE: Final = 10.0
"""Seconds in which a fake that was told to end has ended."""


@contextmanager
def started(fake: str, *arguments: str) -> Iterator[str]:
    """Run a fake for the length of the block; yield the line that it printed, which is its address.

    Args:
        fake: Which: `telephony`, `storage` or `mail`.
        arguments: Of its command line.

    Raises:
        RuntimeError: It ended instead; what it said of it stands on standard error.
    """
    owner = os.getpid()
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", f"examples.backend.fakes.{fake}", "--with-parent", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us; we still need it while requests end
    )
    assert process.stdin is not None  # noqa: S101 - for the type checker: both are piped
    assert process.stdout is not None  # noqa: S101
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the fake {fake} did not start; see its message above")
        yield address
    finally:
        # A worker process that was forked in the block leaves it too, and must leave the fake alone.
        if os.getpid() == owner:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdin.close()
            process.stdout.close()


def options_of(parser: ArgumentParser) -> Namespace:
    """Return what the command line says, with the options that every fake has."""
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one (default: %(default)s)")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input closes")
    return parser.parse_args()


def wait_for_the_end(*, with_parent: bool) -> None:
    """Block until this process is told to end by SIGTERM or Ctrl-C, or by the end of standard input."""
    told = threading.Event()

    def note_the_end() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # sys.stdin itself would be locked when the interpreter ends
            pass
        told.set()

    signal.signal(signal.SIGTERM, lambda *_: told.set())
    if with_parent:
        threading.Thread(target=note_the_end, daemon=True).start()
    with suppress(KeyboardInterrupt):
        told.wait()
