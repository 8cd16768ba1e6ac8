"""`python -m resilience`: what can be done without writing a programme."""

from __future__ import annotations

import sys

USAGE = """\
usage: python -m resilience simulate OUTAGE [--policy MODULE:ATTRIBUTE] [...]

  simulate   run production policies against an outage, on simulated time; --help says more
"""


def main(arguments: list[str]) -> int:
    """Run the command that `arguments` name; return the exit status."""
    if arguments[:1] == ["simulate"]:
        from resilience.simulation.command import main as simulate  # noqa: PLC0415 - loaded by who asks for it

        return simulate(arguments[1:])
    asked_for_help = arguments in (["-h"], ["--help"])
    (sys.stdout if asked_for_help else sys.stderr).write(USAGE)
    return 0 if asked_for_help else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
