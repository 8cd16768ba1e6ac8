"""Write into docs/asvs.md which tests there are for each item of the OWASP ASVS.

    python -m tests.asvs_page

What each item asks is written by hand; only the last column of the table is made here, from the names of the
tests. `tests/examples/test_asvs.py` compares the page with what this would write.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "asvs.md"

ROW = re.compile(r"^\| (\d+\.\d+\.\d+) \| (.+?) \| (.*?) ?\|$", re.MULTILINE)
TEST = re.compile(r"^(?:async )?def test_asvs_(\d+_\d+_\d+)_(\w+)\(", re.MULTILINE)


def asvs_tests() -> dict[str, dict[str, list[str]]]:
    """Return the names of the tests for each item, by what they are about; as sentences."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        about = path.stem.removeprefix("test_").replace("_", " ")
        for item, name in TEST.findall(path.read_text()):
            found[item.replace("_", ".")][about].append(name.replace("_", " "))
    return found


def rendered(page: str) -> str:
    """Return the page with the last column of each row as the tests have it."""
    found = asvs_tests()

    def row(match: re.Match[str]) -> str:
        tests = found[match[1]]
        shown = "<br>".join(f"*{about}*: {'; '.join(names)}" for about, names in tests.items())
        return f"| {match[1]} | {match[2]} | {shown} |"

    return ROW.sub(row, page)


def items_of(page: str) -> list[str]:
    """Return the items of the rows, in order."""
    return [item for item, _, _ in ROW.findall(page)]


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text()))
