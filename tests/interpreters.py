"""Run the tests on every interpreter from 3.11 up that this machine has, and print what became of each.

`make test-all` calls this. Interpreters are found on PATH, as `python3.12` or `python3.13t`, and among the
versions of pyenv; of two with the same minor version, the newer one is taken. Each gets an environment in
.venvs, made anew when pyproject changes, and a log there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
OLDEST = (3, 11)

IDENTIFY = """
import json, sys, sysconfig
threading = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print(json.dumps([sys.version_info[:3], sys.implementation.name, threading]))
"""


class Interpreter(NamedTuple):
    """A Python on this machine; they sort by version."""

    version: tuple[int, ...]
    implementation: str
    threading: str
    path: Path

    @property
    def kind(self) -> str:
        """What two of them have in common whose tests would tell the same: `3.13`, `3.13t`, `pypy3.11`."""
        family = "" if self.implementation == "cpython" else self.implementation
        return f"{family}{self.version[0]}.{self.version[1]}{self.threading}"


def main() -> int:
    """Test them all; return the exit status."""
    found = interpreters()
    rows = [(interpreter, *tested_on(interpreter)) for interpreter in found]
    print(f"\n{'interpreter':<14}{'outcome':<24}{'seconds':>7}  not run")
    for interpreter, outcome, seconds, not_run in rows:
        name = ".".join(map(str, interpreter.version)) + interpreter.threading
        print(f"{name:<14}{outcome:<24}{seconds:>7.0f}  {not_run}")
    return int(not rows or any(outcome != "passed" for _, outcome, _, _ in rows))


def interpreters() -> list[Interpreter]:
    """Return the newest interpreter of each kind, oldest first."""
    folders = [Path(folder) for folder in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders += sorted(pyenv.glob("versions/*/bin"))
    candidates = {path for folder in folders for path in folder.glob("python3.*") if is_bare(path.name)}
    found = sorted(filter(None, map(identify, candidates)))
    newest = {interpreter.kind: interpreter for interpreter in found if interpreter.version >= OLDEST}
    return list(newest.values())


def is_bare(name: str) -> bool:
    """Tell `python3.12` and `python3.13t` from `python3.12-config`."""
    return name.removeprefix("python3.").removesuffix("t").isdecimal()


def identify(path: Path) -> Interpreter | None:
    """Ask an interpreter what it is; a pyenv shim of a version that is not selected cannot say."""
    asked = subprocess.run([path, "-c", IDENTIFY], capture_output=True, text=True, check=False)
    if asked.returncode:
        return None
    version, implementation, threading = json.loads(asked.stdout)
    return Interpreter(tuple(version), implementation, threading, path)


def tested_on(interpreter: Interpreter) -> tuple[str, float, str]:
    """Build what is needed and run the tests; return the outcome, the seconds and what was not run."""
    started = time.monotonic()
    home = ROOT / ".venvs" / interpreter.kind
    log = home.with_suffix(f"{home.suffix}.log")
    print(f"{interpreter.kind}: {interpreter.path}, log in {log.relative_to(ROOT)}", flush=True)
    home.parent.mkdir(exist_ok=True)
    with log.open("w") as output:
        if not built(home, interpreter, output):
            outcome = "could not be installed"
        elif subprocess.call(
            [home / "bin" / "python", "-m", "tests.run", "--numprocesses=auto", "--maxprocesses=8"],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        ):
            outcome = "failed"
        else:
            outcome = "passed"
    lines = log.read_text().splitlines()
    if outcome != "passed":
        print(*lines[-40:], sep="\n")
    _, told, not_run = lines[-1].partition("; not run: ") if lines else ("", "", "")
    return outcome, time.monotonic() - started, not_run if told else "everything"


def built(home: Path, interpreter: Interpreter, output) -> bool:
    """Make the environment unless it is newer than pyproject; return whether it stands."""
    stamp = home / "stamp"
    project = ROOT / "pyproject.toml"
    if stamp.exists() and stamp.stat().st_mtime >= project.stat().st_mtime:
        return True
    shutil.rmtree(home, ignore_errors=True)
    pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [interpreter.path, "-m", "venv", "--upgrade-deps", home],
        [*pip, "-e", ".[examples]", "--group", "test"],
    ):
        if subprocess.call(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT):
            return False
    stamp.touch()
    return True


if __name__ == "__main__":
    sys.exit(main())
