"""Ends the servers of a process that cannot end them itself any more, and removes its folders.

    python -I -S guardian.py

It reads on its standard input what to guard: `folder PATH`, `mounted PATH`, `started PID`, `ended PID`. At
the end of the input, which comes also when that process is killed, what still runs is killed with its
children, what is mounted is unmounted, and what is left of the folders is removed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path


def main() -> None:
    """Follow what is started and ended, then end the rest."""
    for caught in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(caught, signal.SIG_IGN)  # only the end of that process ends this one
    folders: set[str] = set()
    mounted: set[str] = set()
    running: set[int] = set()
    for line in sys.stdin:
        what, _, which = line.rstrip("\n").partition(" ")
        if what == "folder":
            folders.add(which)
        elif what == "mounted":
            mounted.add(which)
        elif what == "started":
            running.add(int(which))
        else:
            running.discard(int(which))
    for pid in running:
        send(pid, signal.SIGKILL)
    for folder in filter(os.path.ismount, mounted):
        import subprocess  # noqa: PLC0415 - loaded only where it is needed: most mount nothing

        subprocess.call(["umount", "--lazy", folder])  # noqa: S603, S607 - the system's, wherever it is
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def send(pid: int, number: int) -> None:
    """Send a signal to a process and its children; the parent is stopped first, so that it starts no more."""
    deliver(pid, signal.SIGSTOP)
    for member in (*children_of(pid), pid):
        deliver(member, number)


def deliver(pid: int, number: int) -> None:
    """Send a signal to one process, if there still is one."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def children_of(pid: int) -> list[int]:
    """Return the ids of the children of a process."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if Path("/proc/self").exists():
        return [int(child) for child in listed.read_text().split()] if listed.exists() else []
    import subprocess  # noqa: PLC0415 - only on a system without /proc, such as macOS

    listing = ["ps", "-A", "-o", "ppid=,pid="]
    pairs = subprocess.check_output(listing, text=True).split()  # noqa: S603 - the system's, wherever it is
    return [int(child) for parent, child in zip(pairs[::2], pairs[1::2], strict=True) if int(parent) == pid]


if __name__ == "__main__":
    main()
