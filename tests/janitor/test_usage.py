from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from resilience.janitor.usage import SystemUsage, open_files

PAGE = os.sysconf("SC_PAGE_SIZE")
MACHINE = os.sysconf("SC_PHYS_PAGES") * PAGE
UNLIMITED = 9223372036854771712  # what version 1 says


def tree(folder, files):
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return SystemUsage(str(folder))


def test_resident_memory_is_the_second_figure_in_pages(tmp_path):
    usage = tree(tmp_path, {"proc/self/statm": "765 438 410 5 0 123 0\n"})()

    assert usage.resident == 438 * PAGE


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, MACHINE),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, MACHINE),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "500000\n"}, 500_000),
        (  # of all groups above, the least counts
            {
                "proc/self/cgroup": "0::/app/web\n",
                "sys/fs/cgroup/app/memory.max": "300000\n",
                "sys/fs/cgroup/app/web/memory.max": "400000\n",
            },
            300_000,
        ),
        (  # a path of the host, seen from inside a container
            {"proc/self/cgroup": "0::/docker/abc\n", "sys/fs/cgroup/memory.max": "700000\n"},
            700_000,
        ),
        (  # version 1, beside controllers that do not matter and names with colons
            {
                "proc/self/cgroup": "12:cpu,cpuacct:/x\n5:name=a:/b:c\n4:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "600000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{UNLIMITED}\n",
            },
            600_000,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{UNLIMITED}\n",
            },
            MACHINE,
        ),
    ],
)
def test_the_limit_is_the_containers_or_the_machines(tmp_path, files, limit):
    assert tree(tmp_path, files)().limit == limit


def test_with_no_descriptor_left_nothing_is_told(monkeypatch):
    def fail(*args):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "read_text", fail)
    monkeypatch.setattr(os, "listdir", fail)

    assert SystemUsage()() == (None, MACHINE)
    assert open_files() is None


def test_open_files_are_counted_without_the_one_that_counts(tmp_path):
    tree(tmp_path, {"proc/self/fd/0": "", "proc/self/fd/1": "", "proc/self/fd/2": ""})
    tree(tmp_path / "mac", {"dev/fd/0": "", "dev/fd/1": ""})

    assert open_files(str(tmp_path)) == 2
    assert open_files(str(tmp_path / "mac")) == 1


def test_a_file_more_is_a_file_more():
    before = open_files()
    with Path(os.devnull).open():
        assert open_files() == before + 1


# --- other systems ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("platform", "unit"), [("darwin", 1), ("freebsd14", 1024)])
def test_without_proc_the_greatest_memory_so_far_is_told(tmp_path, monkeypatch, platform, unit):
    import resource

    monkeypatch.setattr(sys, "platform", platform)
    greatest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert SystemUsage(str(tmp_path))().resident >= greatest * unit


def test_on_windows_nothing_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.delattr(os, "sysconf")

    assert SystemUsage(str(tmp_path))() == (None, None)
