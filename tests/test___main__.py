"""`python -m resilience`."""

from __future__ import annotations

import runpy
import sys

import pytest

from resilience.__main__ import main


def test_it_hands_on_to_its_command(capsys):
    assert main(["simulate", "down", "--load", "0.05", "--duration", "55"]) == 0
    assert capsys.readouterr().out.startswith("down: defaults")


@pytest.mark.parametrize("asked", ["-h", "--help"])
def test_help(asked, capsys):
    assert main([asked]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m resilience simulate")


@pytest.mark.parametrize("arguments", [[], ["destroy"]])
def test_what_it_does_not_know(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: python -m resilience simulate")


def test_it_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["resilience", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(sys.modules[main.__module__].__file__, run_name="__main__")
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out
