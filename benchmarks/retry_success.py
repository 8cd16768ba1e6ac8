"""How many retried calls the example backend saves, on a stated mix of faults.

    python -m benchmarks.retry_success [--recordings 500] [--rate 0.15] [--app wsgi]

The fake provider announces calls by webhooks, and the backend's workers bring their recordings, with the
default settings but for the provider's limit of requests a minute. A share of the provider's requests goes
wrong, by seed, each kind as often as the other. What is printed is what `/api/monitoring/retry-stats` says of
`telephony` when the last recording is stored; docs/backend-figures.md keeps it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.examples.backend_process import Running

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("429", "500", "502", "503", "504", "reset", "torn")
"""What passes by itself; `examples.backend.fakes.provider.KINDS` says what each is."""
SETTINGS = {"telephony_rate": 1_000_000, "webhook_tenants": "demo"}
LONGEST = 600.0
"""Seconds after which it is given up."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retry_success", description=__doc__)
    parser.add_argument("--recordings", type=int, default=500)
    parser.add_argument("--rate", type=float, default=0.15)
    parser.add_argument("--within", type=float, default=30.0, help="seconds in which the calls are announced")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--app", choices=["asgi", "wsgi"], default="asgi")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        Running(Path(folder, "var"), options.app, **SETTINGS) as server,
    ):
        server.fault(rate=options.rate, seed=options.seed, kinds=KINDS)
        wait_for(server, announce(server, options))
        print_stats(server, options)


def announce(server: Running, options: argparse.Namespace) -> list[str]:
    """Have the provider announce the calls; return their ids."""
    webhook = {"url": f"{server.url}/api/webhooks/demo/telephony", "spread": options.within}
    answer = server.provider.post("/_control/calls", json={"count": options.recordings, "webhook": webhook})
    answer.raise_for_status()
    sids: list[str] = answer.json()["sids"]
    return sids


def wait_for(server: Running, sids: list[str]) -> None:
    """Wait until the recording of each call is stored."""
    objects = server.var / "objects"
    give_up_at = time.monotonic() + LONGEST
    while True:
        found = {path.parent.name for path in objects.rglob("*") if path.is_file()}
        if missing := set(sids) - found:
            if time.monotonic() > give_up_at:
                raise TimeoutError(
                    f"{len(missing)} of {len(sids)} recordings did not come, {min(missing)} say"
                )
            time.sleep(0.2)
        else:
            return


def print_stats(server: Running, options: argparse.Namespace) -> None:
    """Print what the retries came to."""
    stats = server.monitoring("retry-stats")["policies"]["telephony"]
    requests = sum(server.provider.get("/_control/requests").json().values())
    ended = stats["successful_retries"] + stats["failed_retries"]
    print("| shell | recordings | requests | that fail | retries | retried calls | of these saved |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    print(
        f"| {options.app} | {options.recordings} | {requests:,} | {options.rate:.0%} "
        f"| {stats['total_retries']} | {ended} | {stats['retry_success_rate']:.1%} |"
    )


if __name__ == "__main__":
    main()
