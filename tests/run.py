"""Run every test, then hold the coverage: 100 % of the branches, and each module by its own test file.

`make test` calls this. Arguments go to pytest; with any, nothing is measured. The last line says what was
not run, and why; with RESILIENCE_NOTHING_SKIPPED=1, that is a failure.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import coverage

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "resilience"


def main(arguments: list[str]) -> int:
    """Run the tests, then the checks; return the exit status."""
    with tempfile.TemporaryDirectory() as scratch:
        noted = Path(scratch, "not-run")
        os.environ["RESILIENCE_NOT_RUN"] = str(noted)
        status = run("pytest", *arguments) if arguments else run_measured()
        not_run = noted.read_text().splitlines() if noted.exists() else ["everything: the run broke off"]
    if not_run and os.environ.get("RESILIENCE_NOTHING_SKIPPED") == "1":
        status = status or 1
    print("failed;" if status else "passed;", "not run:", "; ".join(not_run) or "nothing")
    return status


def run_measured() -> int:
    """Run all tests under coverage, then hold it."""
    for stale in ROOT.glob(".coverage*"):
        stale.unlink()
    if status := run("coverage", "run", "-m", "pytest", "--numprocesses=auto", "--maxprocesses=8"):
        return status
    run("coverage", "combine", "--quiet")
    gaps = uncovered_by_own_tests()
    for gap in gaps:
        print(gap, file=sys.stderr)
    return run("coverage", "report", "--fail-under=100") or int(bool(gaps))


def run(module: str, *arguments: str) -> int:
    """Run a module of this environment as a program in the project's folder."""
    return subprocess.call([sys.executable, "-m", module, *arguments], cwd=ROOT)


def uncovered_by_own_tests() -> list[str]:
    """Return a line for each module that its own test file does not cover to the last branch.

    What runs outside of any test, when modules are imported or in processes that tests start, counts for all.
    """
    measured = coverage.Coverage()
    measured.load()
    gaps = []
    for module in sorted(PACKAGE.rglob("*.py")):
        name = module.relative_to(ROOT)
        own = own_test_of(module).relative_to(ROOT)
        measured.get_data().set_query_contexts([rf"^({re.escape(own.as_posix())})?$"])
        _, statements, _, missing, _ = measured.analysis2(str(module))
        taken = measured.branch_stats(str(module))
        half = [line for line, (exits, left) in taken.items() if left < exits and line not in missing]
        if statements and not (ROOT / own).exists():
            gaps.append(f"{name} has no test file of its own, {own}")
        elif missing or half:
            lines = ", ".join(map(str, missing)) or "none"
            branches = ", ".join(map(str, half)) or "none"
            gaps.append(f"{own} does not cover {name}: lines {lines}; branches from lines {branches}")
    return gaps


def own_test_of(module: Path) -> Path:
    """Return the test file that mirrors `module`: src/resilience/a/b.py is tested by tests/a/test_b.py."""
    inside = module.relative_to(PACKAGE)
    name = (inside.parent.name or "public_face") if inside.name == "__init__.py" else inside.stem
    return ROOT / "tests" / inside.parent / f"test_{name}.py"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
