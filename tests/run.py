"""Run every test, then hold the coverage: 100 % of the branches, and each module by its own test file.

`make test` calls this; further arguments go to pytest. With arguments that select tests, only pytest runs.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import coverage

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "resilience"


def main(arguments: list[str]) -> int:
    """Run the tests, then the two coverage checks; return the exit status."""
    if arguments:
        return subprocess.call([sys.executable, "-m", "pytest", *arguments], cwd=ROOT)
    for stale in ROOT.glob(".coverage*"):
        stale.unlink()
    tests = subprocess.call([sys.executable, "-m", "coverage", "run", "-m", "pytest", "-n", "2"], cwd=ROOT)
    if tests:
        return tests
    subprocess.check_call([sys.executable, "-m", "coverage", "combine", "--quiet"], cwd=ROOT)
    gaps = list(uncovered_by_own_tests())
    for gap in gaps:
        print(gap, file=sys.stderr)
    whole = subprocess.call([sys.executable, "-m", "coverage", "report", "--fail-under=100"], cwd=ROOT)
    return whole or bool(gaps)


def uncovered_by_own_tests() -> list[str]:
    """Return a line for each module whose own test file leaves some of its branches out."""
    measured = coverage.Coverage()
    measured.load()
    gaps = []
    for module in sorted(PACKAGE.rglob("*.py")):
        if module.name == "__init__.py" and not module.read_text().partition('"""\n')[2].strip():
            continue  # a package that is only a docstring
        own = own_test_of(module)
        if not own.exists():
            gaps.append(f"{module.relative_to(ROOT)} has no test file of its own, {own.relative_to(ROOT)}")
            continue
        dotted = ".".join(own.relative_to(ROOT).with_suffix("").parts)
        measured.get_data().set_query_contexts([rf"^({re.escape(dotted)}\..*)?$"])
        _, _, _, missing, text = measured.analysis2(str(module))
        if missing:
            gaps.append(f"{own.relative_to(ROOT)} leaves lines {text} of {module.relative_to(ROOT)} out")
    return gaps


def own_test_of(module: Path) -> Path:
    """Return the test file that mirrors `module`: src/resilience/a/b.py is tested by tests/a/test_b.py."""
    inside = module.relative_to(PACKAGE)
    name = (inside.parent.name or "public_face") if inside.name == "__init__.py" else inside.stem
    return ROOT / "tests" / inside.parent / f"test_{name}.py"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
