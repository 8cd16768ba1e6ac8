"""Processes that begin together, for the tests of what they share.

    with workers(4) as team:
        results = team.at_once(function, *arguments)

Each worker calls `function(number, ready, *arguments)`, which prepares itself, calls `ready()`, and then goes
on at the same moment as the others. Functions are sent by their name, so they must be found by importing
their module; what they return must be picklable. A team can be given one thing after the other to do: its
processes start once.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent


@contextmanager
def workers(count):
    """Start so many processes, and end them."""
    team = Team(count)
    try:
        yield team
    finally:
        team.close()


class Team:
    """Some processes that do the same at the same time; `processes` are theirs."""

    def __init__(self, count):
        self.count = count
        self.processes = []

    def at_once(self, function, *arguments):
        """Let all call `function` at once, and return what each of them returned."""
        self.prepare(function, *arguments)
        self.go()
        return self.results()

    def prepare(self, function, *arguments):
        """Let all come to where they are ready."""
        self.processes = self.processes or [
            subprocess.Popen(
                [sys.executable, "-c", "from tests import processes; processes.work()"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            for _ in range(self.count)
        ]
        for number, process in enumerate(self.processes):
            send(process.stdin, (function, number, arguments))
        for process in self.processes:
            assert self.received(process) == "ready"

    def go(self):
        """Let all go on from there."""
        for process in self.processes:
            send(process.stdin, "go")

    def results(self):
        """Wait for all, and return what each returned, in order."""
        return [self.received(process) for process in self.processes]

    def received(self, process):
        """Return what a worker says; after a failure all begin anew, since each is somewhere else."""
        kind, what = pickle.load(process.stdout)
        if kind == "failed":
            self.close()
            raise WorkerError(what)
        return what

    def close(self):
        """End all."""
        for process in self.processes:
            process.kill()
            process.communicate()
        self.processes = []


class WorkerError(Exception):
    """What went wrong in a worker, as text."""


def send(stream, what):
    """Write one thing to a stream."""
    pickle.dump(what, stream)
    stream.flush()


def work():
    """Do what is asked on standard input, until it ends."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what somebody prints is no answer

    def ready():
        send(answers, ("said", "ready"))
        assert pickle.load(asked) == "go"

    while True:
        try:
            function, number, arguments = pickle.load(asked)
        except EOFError:
            return
        try:
            send(answers, ("said", function(number, ready, *arguments)))
        except Exception:  # noqa: BLE001 - whoever asked is told
            send(answers, ("failed", traceback.format_exc()))
