"""Several processes that do the same, in a parent of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from tests.examples.backend_process import PATIENCE, ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")

PRELUDE = """
import os, signal, sys, time
from pathlib import Path
from examples.backend.serving import supervisor
from examples.backend.serving.lifetime import NotStartedError
from examples.backend.serving.supervisor import Supervisor

supervisor.SHORTEST_PAUSE = 0.05
folder = Path(sys.argv[1])

def serve():
    signal.sigwait({signal.SIGTERM})

def note(what):
    (folder / f"{what}-{os.getpid()}").touch()

def run(work, processes=2, patience=5.0):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        Supervisor(work, processes, patience=patience).run()
    except NotStartedError:
        sys.exit(1)
    note("unwound")
"""


@pytest.fixture
def supervise(tmp_path):
    """Return a function that starts a parent with this work, and a `noted` list of who did what."""
    running = []

    def begin(code):
        script = PRELUDE + textwrap.dedent(code)
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture
def noted(tmp_path):
    def who(what, at_least=0):
        give_up_at = time.monotonic() + PATIENCE
        while True:
            found = [int(file.name.rpartition("-")[2]) for file in tmp_path.glob(f"{what}-*")]
            if len(found) >= at_least:
                return found
            assert time.monotonic() < give_up_at, f"{what}: {found}"
            time.sleep(0.01)

    return who


SERVE = """
    def work(has_started):
        has_started()
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        note("serving")
        try:
            time.sleep(60)
        except SystemExit:
            note("ended")

"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_end_together_and_the_parent_alone_unwinds(supervise, noted, number):
    process = supervise(SERVE + "    run(work)")
    serving = noted("serving", at_least=2)
    process.send_signal(number)
    assert process.wait(PATIENCE) == 0
    assert sorted(noted("ended")) == sorted(serving)
    assert noted("unwound") == [process.pid]


def test_one_that_dies_is_replaced(supervise, noted):
    process = supervise(SERVE + "    run(work)")
    first, second = noted("serving", at_least=2)
    os.kill(first, signal.SIGKILL)
    assert len(set(noted("serving", at_least=3)) - {first, second}) == 1
    process.terminate()
    assert process.wait(PATIENCE) == 0
    assert first not in noted("ended")
    assert "a process ended by itself (-9)" in process.stderr.read()


@pytest.mark.parametrize("fault", ["raise NotStartedError('no database')", "raise KeyError", "os._exit(7)"])
def test_first_ones_that_cannot_start_end_all(supervise, noted, fault):
    process = supervise(f"""
        def work(has_started):
            note("tried")
            {fault}

        run(work, processes=1)
        """)
    assert process.wait(PATIENCE) == 1
    assert len(noted("tried")) == 1
    assert ("no database" in process.stderr.read()) == ("database" in fault)


def test_later_ones_that_cannot_start_are_tried_again_and_the_others_serve(supervise, noted, tmp_path):
    process = supervise("""
        def work(has_started):
            if (folder / "broken").exists():
                note("tried")
                raise NotStartedError("no database")
            has_started()
            note("serving")
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
            time.sleep(60)

        run(work)
        """)
    first, second = noted("serving", at_least=2)
    (tmp_path / "broken").touch()
    os.kill(first, signal.SIGKILL)
    noted("tried", at_least=2)
    os.kill(second, 0)  # that one still serves
    (tmp_path / "broken").unlink()
    noted("serving", at_least=3)
    process.terminate()
    assert process.wait(PATIENCE) == 0


def test_one_that_does_not_end_is_killed_when_patience_is_over(supervise, noted):
    process = supervise("""
        def work(has_started):
            has_started()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            note("serving")
            while True:
                time.sleep(60)

        run(work, patience=0.2)
        """)
    serving = noted("serving", at_least=2)
    process.terminate()
    assert process.wait(PATIENCE) == 0
    for child in serving:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_a_second_ctrl_c_waits_for_nobody(supervise, noted):
    process = supervise("""
        def work(has_started):
            has_started()
            signal.signal(signal.SIGTERM, lambda *_: note("told"))
            note("serving")
            while True:
                time.sleep(60)

        run(work, patience=600.0)
        """)
    noted("serving", at_least=2)
    process.send_signal(signal.SIGINT)
    noted("told", at_least=2)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 0
