"""How fakes run as processes of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from examples.backend.fakes.process import started
from resilience.testing import wait_until

ROOT = Path(__file__).parent.parent.parent


def is_open(address):
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_fake_ends_with_the_block():
    with started("telephony") as address:
        assert is_open(address)
    assert not is_open(address)


def test_a_fake_that_cannot_start_says_why(capfd):
    with pytest.raises(RuntimeError, match="telephony did not start"), started("telephony", "--wrong"):
        pass
    assert "unrecognized arguments: --wrong" in capfd.readouterr().err


def test_a_port_that_somebody_has_is_said_to_be_in_use(capfd):
    with (
        started("telephony") as address,
        pytest.raises(RuntimeError, match="did not start"),
        started("telephony", "--port", address.rpartition(":")[2]),
    ):
        pass
    assert "Address already in use" in capfd.readouterr().err


OWNER = """
import os, sys, time
from examples.backend.fakes.process import started
with started("telephony") as address:
    if sys.argv[1] == "fork":
        if not os.fork():
            sys.exit(0)  # leaves the block, as a worker of gunicorn does
        os.wait()
    print(address, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_fake_ends_when_its_owner_is_killed_and_not_when_a_fork_leaves(how):
    command = [sys.executable, "-c", OWNER, how]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        address = owner.stdout.readline().strip()
        assert is_open(address)
        owner.kill()
        wait_until(lambda: not is_open(address), 10.0)
