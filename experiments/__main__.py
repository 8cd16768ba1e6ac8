"""`python -m experiments [numbers…]`: runs the experiments, prints their marks, and draws their figures."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Final

import experiments
from resilience.simulation.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from experiments import Mark

FIGURES: Final = Path(__file__).parent.parent / "docs" / "images" / "experiments"

_PREFIX: Final = "experiment_"
_SIGNS: Final = {True: "✓", False: "✗", None: ""}


def numbers() -> list[int]:
    """Return the numbers of the experiments that there are."""
    names = (module.name for module in iter_modules(experiments.__path__))
    return sorted(int(name.removeprefix(_PREFIX)) for name in names if name.startswith(_PREFIX))


def table(marks: Sequence[Mark]) -> str:
    """Return marks as a table of Markdown, which a terminal shows as well."""
    rows = [("measured", "value", "mark", "")]
    rows += [(mark.name, mark.value, mark.mark, _SIGNS[mark.passed]) for mark in marks]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ("-" * widths[0], "-" * widths[1], "-" * widths[2], "-" * max(1, widths[3])))
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def main(arguments: list[str]) -> int:
    """Run what is asked for; return 1 if a mark was missed that is not known to be."""
    known = numbers()
    reads = ArgumentParser(prog="python -m experiments", description=__doc__)
    reads.add_argument("numbers", nargs="*", type=int, metavar="NUMBER", help=f"of {known}; all if left out")
    reads.add_argument("--short", action="store_true", help="the form that the tests run")
    reads.add_argument(
        "--figures", type=Path, default=FIGURES, metavar="FOLDER", help="where to draw; %(default)s"
    )
    options = reads.parse_args(arguments)
    chosen: list[int] = options.numbers or known
    if unknown := set(chosen) - set(known):
        reads.error(f"there is no experiment {sorted(unknown)}; there are {known}")
    missed: list[str] = []
    surprises = 0
    for number in chosen:
        experiment = import_module(f"experiments.{_PREFIX}{number:02}")
        label = f"experiment {number}"
        with Progress(label) as progress:
            marks: list[Mark] = experiment.run(not options.short, progress)
        with Progress(f"{label}, figure") as progress:
            drawing: str = experiment.figure(not options.short, progress)
        options.figures.mkdir(parents=True, exist_ok=True)
        (options.figures / f"{number:02}.svg").write_text(drawing, encoding="utf-8")
        print(f"{number}. {experiment.TITLE}\n\n{table(marks)}\n", flush=True)
        known_to_be: tuple[str, ...] = getattr(experiment, "MISSED", ())
        names = [mark.name for mark in marks if mark.passed is False]
        missed += [f"{number}, {name}" for name in names]
        surprises += len(set(names) - set(known_to_be))
    print(f"missed: {'; '.join(missed)}" if missed else "all marks reached")
    return int(surprises > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
