"""Measure, and print the table: `make bench`, or `python -m benchmarks [part of a title]` for some rows."""

from __future__ import annotations

import platform
import sys

from benchmarks.harness import measure
from benchmarks.rows import rows
from benchmarks.wholes import wholes


def main(part: str) -> None:
    """Print one Markdown table of ratios, and one of the other figures."""
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}\n")
    print("| row | floor | resilience | reach | peers |")
    print("|---|--:|--:|--:|---|")
    for row in rows():
        if part in row.title:
            measured = measure(row.floor, row.candidates)
            ours = measured.ratios["resilience"]
            peers = [f"{name} {ratio:.1f}" for name, ratio in measured.ratios.items() if name != "resilience"]
            reach = "" if row.reach is None else f"{row.reach:.2f} {mark(ours <= row.reach)}"
            print(
                f"| {row.title} | {measured.floor_ns:.0f} ns | {ours:.2f} | {reach} | {', '.join(peers)} |",
                flush=True,
            )
    if not part:
        print("\n| figure | measured | reach |")
        print("|---|--:|--:|")
        for whole in wholes():
            reach = "" if whole.reach is None else f"{whole.reach:g} {mark(bool(whole.met))}"
            print(f"| {whole.title} | {whole.value:.2f} {whole.unit} | {reach} |", flush=True)


def mark(met: bool) -> str:
    """Return the sign for a mark that was reached or missed."""
    return "✓" if met else "✗"


main(" ".join(sys.argv[1:]))
