"""Write into docs/faults.md which tests there are for each line of the fault catalogue.

    python -m tests.fault_page

What each line guarantees is written by hand; only the last column of the tables is made here, from the names
of the tests. `tests/test_docs.py` compares the page with what this would write.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "faults.md"

ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.*?) ?\|$", re.MULTILINE)
TEST = re.compile(r"^(?:async )?def test_fault_(\d+)_(\w+)\(", re.MULTILINE)


def fault_tests() -> dict[int, dict[str, list[str]]]:
    """Return the names of the tests for each line, by what they are about; as sentences."""
    found: dict[int, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        about = path.stem.removeprefix("test_").replace("_", " ")
        for line, name in TEST.findall(path.read_text()):
            found[int(line)][about].append(name.replace("_", " "))
    return found


def rendered(page: str) -> str:
    """Return the page with the last column of each row as the tests have it."""
    found = fault_tests()

    def row(match: re.Match[str]) -> str:
        tests = found[int(match[1])]
        shown = "<br>".join(f"*{about}*: {'; '.join(names)}" for about, names in tests.items())
        return f"| {match[1]} | {match[2]} | {shown} |"

    return ROW.sub(row, page)


def lines_of(page: str) -> list[int]:
    """Return the numbers of the rows, in order."""
    return [int(number) for number, _, _ in ROW.findall(page)]


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text()))
