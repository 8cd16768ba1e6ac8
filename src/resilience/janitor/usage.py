"""What the system says about the memory and the files of this process.

On Linux it comes from `/proc/self` and from the control groups, of both versions. macOS has no such files:
there the resident memory is the *greatest* so far (`getrusage`), so an alert is never called off. Where a
figure cannot be had at all it is None, and nothing is derived from it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Usage(NamedTuple):
    """How much memory this process uses, and of how much."""

    resident: int | None
    """Bytes of memory in use; None where the system does not say."""
    limit: int | None
    """Bytes that may be used; None where the system does not say."""


class SystemUsage:
    """Reads the system's files anew at each call, since a container may be resized.

    Args:
        root: Where the file system begins; a test puts its own tree there.

    Example:
        >>> usage = SystemUsage()()
        >>> usage.limit is None or usage.resident < usage.limit
        True
    """

    def __init__(self, root: str = "/") -> None:
        self._proc = Path(root, "proc/self")
        self._groups = Path(root, "sys/fs/cgroup")

    def __call__(self) -> Usage:
        """Return what is used now."""
        limits = [*_machine_memory(), *self._container_limits()]
        return Usage(self._resident(), min(limits, default=None))

    def _resident(self) -> int | None:
        try:
            pages = (self._proc / "statm").read_text().split()[1]
        except FileNotFoundError:
            return _greatest_resident()
        except OSError:  # no file descriptor is left, say
            return None
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _container_limits(self) -> Iterator[int]:
        """Yield the limits of the process's control groups and of all groups above: the least one counts."""
        for line in _lines(self._proc / "cgroup"):
            _, controllers, group = line.split(":", 2)
            if not controllers:  # version 2
                mount, file = self._groups, "memory.max"
            elif "memory" in controllers.split(","):  # version 1
                mount, file = self._groups / "memory", "memory.limit_in_bytes"
            else:
                continue
            innermost = mount / group.lstrip("/")  # in a container it may be a path of the host: absent here
            for folder in (innermost, *innermost.parents[: len(innermost.parts) - len(mount.parts)]):
                for limit in _lines(folder / file):
                    if limit != "max":
                        yield int(limit)


def open_files(root: str = "/") -> int | None:
    """Return how many file descriptors are open, sockets included; None where the system does not say."""
    for folder in (Path(root, "proc/self/fd"), Path(root, "dev/fd")):
        try:
            return len(os.listdir(folder)) - 1  # noqa: PTH208 - no Path for each; and without the one that lists
        except OSError:
            continue
    return None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def _machine_memory() -> Iterator[int]:
    try:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows; a system without these names
        return


def _greatest_resident() -> int | None:
    try:
        import resource  # noqa: PLC0415 - Windows has none
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
