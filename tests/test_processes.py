"""The processes that tests start together."""

from __future__ import annotations

import os
import time

import pytest

from tests.processes import WorkerError, workers


def one_after_all_are_ready(number, ready, base):
    before = time.monotonic()
    ready()
    print("this is no answer")
    return base + number, before, time.monotonic(), os.getpid()


def fail(number, ready):
    raise ValueError(f"number {number}")


def test_workers_go_on_when_all_are_ready():
    with workers(3) as team:
        results = team.at_once(one_after_all_are_ready, 10)
        assert [result for result, _, _, _ in results] == [10, 11, 12]
        assert max(before for _, before, _, _ in results) <= min(after for _, _, after, _ in results)
        assert {pid for _, _, _, pid in results} == {process.pid for process in team.processes}
        assert len(team.at_once(one_after_all_are_ready, 0)) == 3
        processes = team.processes
    assert all(process.returncode is not None for process in processes)


def test_what_goes_wrong_in_a_worker_is_heard():
    with workers(2) as team:
        with pytest.raises(WorkerError, match="number 0"):
            team.at_once(fail)
        assert len(team.at_once(one_after_all_are_ready, 0)) == 2


def test_one_that_is_killed_is_missed():
    with workers(2) as team:
        team.prepare(one_after_all_are_ready, 10)
        team.processes[0].kill()
        team.processes[0].wait()
        with pytest.raises(BrokenPipeError):
            team.go()
