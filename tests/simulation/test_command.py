"""`python -m resilience simulate`."""

from __future__ import annotations

import re

import pytest

from resilience.simulation.command import main
from resilience.simulation.outages import OUTAGES


def test_it_says_what_came_of_the_defaults(capsys):
    assert main(["outage", "--duration", "50"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("outage: defaults\n")
    assert "recovered " in said.out
    assert said.err == ""


def test_policies_are_compared_and_drawn(capsys, tmp_path, monkeypatch):
    (tmp_path / "chosen.py").write_text(
        "from resilience.retry import AsyncRetryManager\n"
        "def policy(clock, random, name):\n"
        "    return AsyncRetryManager(max_attempts=5, clock=clock, random=random, name=name)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    policies = ["--policy", "none", "--policy", "chosen:policy"]
    files = ["--svg", str(tmp_path / "a.svg"), "--html", str(tmp_path / "a.html")]
    assert main(["down", *policies, *files, "--duration", "60", "--load", "0.1", "--processes", "3"]) == 0
    said = capsys.readouterr().out
    assert "down: none" in said
    assert "down: chosen:policy" in said
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert "chosen:policy" in (tmp_path / "a.html").read_text()


def test_one_seed_is_one_run(capsys):
    said = []
    for seed in ("3", "3", "4"):
        main(["down", "--duration", "55", "--load", "0.05", "--seed", seed])
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != said[2]
    assert "seed 3" in said[0]


@pytest.mark.parametrize(
    ("outage", "within", "status"), [("down", "40", 0), ("down", "0.1", 1), ("outage", "40", 1)]
)
def test_its_status_can_hold_a_policy_to_a_time(outage, within, status, capsys):
    """Without a policy, 15 s are too short for the backlog."""
    short = {"down": ["--duration", "65", "--load", "0.2"], "outage": ["--duration", "45"]}[outage]
    assert main([outage, "--policy", "defaults", "--policy", "none", "--within", within, *short]) == status
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["earthquake"], "invalid choice: 'earthquake'"),
        (
            ["outage", "--policy", "nothing"],
            "--policy nothing is neither module:attribute nor one of defaults",
        ),
        (["outage", "--policy", "no.such:policy"], "there is no module"),
        (["outage", "--policy", "resilience.retry:budget_of"], "takes .*name.* and no clock"),
        (["outage", "--load", "0"], "load must be"),
        (["outage", "--duration", "25"], "after the duration of 25 s"),
        (["outage", "--processes", "0"], "processes must be at least 1"),
        (["outage", "--seed", "-1"], "seed must be at least 0"),
    ],
)
def test_what_cannot_be_used_is_said(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("usage: python -m resilience simulate")
    assert re.search(message, said)


def test_help_names_every_outage_and_policy(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    for name, outage in OUTAGES.items():
        assert name in said
        assert outage.about in said
    assert "backoff-retries" in said
