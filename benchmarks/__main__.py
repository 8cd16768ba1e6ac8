"""Measure, and print the table: `make bench`, or `python -m benchmarks [part of a title]` for some rows.

`python -m benchmarks servers` measures the rows on Redis and PostgreSQL alone."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from benchmarks.harness import measure
from benchmarks.rows import rows
from benchmarks.servers import on_servers
from benchmarks.wholes import wholes

if TYPE_CHECKING:
    from collections.abc import Mapping


def main(part: str) -> None:
    """Print one Markdown table of ratios, and one of the other figures."""
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}\n")
    print("| row | floor | resilience | reach | peers |")
    print("|---|--:|--:|--:|---|")
    for row in rows():
        if part in row.title:
            measured = measure(row.floor, row.candidates)
            ours = measured.ratios["resilience"]
            reach = "" if row.reach is None else f"{row.reach:.2f} {mark(ours <= row.reach)}"
            peers = peers_of(measured.ratios)
            print(
                f"| {row.title} | {measured.floor_ns:.0f} ns | {ours:.2f} | {reach} | {peers} |", flush=True
            )
    if not part:
        print("\n| figure | measured | reach |")
        print("|---|--:|--:|")
        for whole in wholes():
            reach = "" if whole.reach is None else f"{whole.reach:g} {mark(bool(whole.met))}"
            print(f"| {whole.title} | {whole.value:.2f} {whole.unit} | {reach} |", flush=True)
    if part in ("", "servers"):
        print("\n| on a server | floor | resilience | reach | peers |")
        print("|---|--:|--:|--:|---|")
        for row in on_servers():
            ours = row.ratios["resilience"]
            reach = f"{row.reach:g} {mark(row.met)}"
            print(
                f"| {row.title} | {row.floor} | {ours:.2f} | {reach} | {peers_of(row.ratios)} |", flush=True
            )


def mark(met: bool) -> str:
    """Return the sign for a mark that was reached or missed."""
    return "✓" if met else "✗"


def peers_of(ratios: Mapping[str, float]) -> str:
    """Return the ratios of all but ours, for a cell of the table."""
    return ", ".join(f"{name} {ratio:.1f}" for name, ratio in ratios.items() if name != "resilience")


main(" ".join(sys.argv[1:]))
