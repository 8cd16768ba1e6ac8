"""The rules of the house that a script can see."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

PURE = {
    "__future__",
    "bisect",
    "collections",
    "enum",
    "errno",
    "functools",
    "hashlib",
    "heapq",
    "itertools",
    "math",
    "operator",
    "re",
    "typing",
    "unicodedata",
}
"""The part of the standard library that neither reads a clock nor waits, locks, logs or does I/O."""

CONSTANTS = {"resilience._core.signs": {"socket"}}  # for the number of an error
"""Whence a module of the core takes a constant, and nothing else."""

READINGS = {  # the same clocks as the system's, read in the integers that these count in
    "resilience.stores.memory": {"time.monotonic_ns"},
    "resilience.stores.sqlite": {"time.time_ns"},
}
"""Which other modules read a clock of the machine."""

FOUNDATION = {"errors", "events", "clock", "callables", "fork", "checks"}
"""What every driver may build on."""

EXTRAS = {
    "resilience.pytest_plugin": {"pytest"},
    "resilience.boards.postgres": {"psycopg"},
    "resilience.boards.redis": {"redis"},
    "resilience.janitor.connections": {"psycopg"},
    "resilience.janitor.postgres": {"psycopg"},
    "resilience.janitor.redis": {"redis"},
    "resilience.stores.postgres": {"psycopg"},
    "resilience.stores.redis": {"redis"},
}
"""Modules that a caller has to ask for, and what is inside them; and the packages which they need."""

COSTLY = {
    "asyncio",
    "concurrent.futures",
    "dataclasses",
    "datetime",
    "email",
    "inspect",
    "json",
    "logging",
    "socket",
    "sqlite3",
}
"""What a service that does not use it must not pay for when it imports us."""


class Module:
    """A source file of the library: its dotted name, its tree, and what it imports."""

    def __init__(self, path):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        self.name = ".".join(parts).removesuffix(".__init__")
        self.is_package = path.name == "__init__.py"
        self.tree = ast.parse(path.read_text())
        self.imports = set(self._imports(inside=()))
        self.imports_at_once = set(self._imports(inside=(ast.FunctionDef, ast.AsyncFunctionDef)))

    def _imports(self, inside):
        """Yield the modules that are imported when it runs, but for those inside certain statements."""
        unseen = [self.tree]
        while unseen:
            node = unseen.pop()
            if isinstance(node, inside):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                unseen.extend(node.orelse)
            elif isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "house imports are absolute"
                yield from (self._imported(node.module, alias.name) for alias in node.names)
            else:
                unseen.extend(ast.iter_child_nodes(node))

    @staticmethod
    def _imported(package, name):
        """Tell `from package import module` from `from module import something`."""
        inside = SOURCE / package.replace(".", "/") / name
        return f"{package}.{name}" if inside.with_suffix(".py").exists() or inside.is_dir() else package

    @property
    def layer(self):
        """How high it stands; a module imports from its own layer and from lower ones."""
        if self.name == "resilience":
            return "public face"
        first = self.name.split(".")[1]
        if first in {"testing", "pytest_plugin"}:
            return "testing"
        if first == "_core":
            return "core"
        return "foundation" if first in FOUNDATION else "drivers"

    def calls(self):
        """Yield every call in it, with the text of what is called."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node, ast.unparse(node.func)


MODULES = {module.name: module for module in map(Module, sorted((SOURCE / "resilience").rglob("*.py")))}
BELOW = {
    "core": {"core"},
    "foundation": {"core", "foundation"},
    "drivers": {"core", "foundation", "drivers"},
    "testing": {"core", "foundation", "testing"},
    "public face": {"core", "foundation", "drivers"},
}

each_module = pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)


@each_module
def test_imports_run_downwards(module):
    house = {name for name in module.imports if name.split(".")[0] == "resilience"}

    upwards = {name for name in house if MODULES[name].layer not in BELOW[module.layer]}

    assert not upwards


@each_module
def test_only_the_standard_library_is_imported(module):
    others = {name.split(".")[0] for name in module.imports} - {"resilience"} - set(sys.stdlib_module_names)

    extras = [needed for asked, needed in EXTRAS.items() if f"{module.name}.".startswith(f"{asked}.")]

    assert others <= set().union(*extras)


def test_no_modules_need_each_other_to_load():
    loading = {name: module.imports_at_once & MODULES.keys() for name, module in MODULES.items()}

    TopologicalSorter(loading).prepare()  # raises for a cycle


@pytest.mark.parametrize("name", [name for name, module in MODULES.items() if module.layer == "core"])
def test_the_core_is_pure(name):
    outside = {imported for imported in MODULES[name].imports if not imported.startswith("resilience._core")}

    assert {imported.split(".")[0] for imported in outside} <= PURE | CONSTANTS.get(name, set())


@pytest.mark.parametrize("statement", ["import resilience", "from resilience import *"])
def test_importing_the_library_loads_nothing_costly(statement):
    source = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {statement};"
        f"sys.exit(' '.join(sorted({COSTLY} & set(sys.modules))) or None)"
    )

    # -I and -S: no environment, no site-packages, so that a third-party import would fail.
    subprocess.run([sys.executable, "-I", "-S", "-W", "error", "-c", source], check=True)


# --- habits --------------------------------------------------------------------------------------


@each_module
def test_locks_are_only_used_by_with(module):
    """An exception from a signal handler leaves `lock.acquire()` held, but never `with lock:`."""
    held = [called for _, called in module.calls() if called.endswith((".acquire", ".release"))]

    assert not [called for called in held if "lock" in called.lower()]


@each_module
def test_locks_are_re_entrant_and_made_after_a_fork(module):
    """A finaliser may need a lock that its own thread holds; a child process needs a fresh one."""
    makers = {"threading.RLock", "RLock", "bound_lock"}
    allowed = {"after_fork"} | ({"bound_lock"} if module.name == "resilience.fork" else set())
    made = [node for node, called in module.calls() if called in makers]
    in_after_fork = [
        node
        for function in ast.walk(module.tree)
        if isinstance(function, ast.FunctionDef) and function.name in allowed
        for node in ast.walk(function)
    ]

    assert not [called for _, called in module.calls() if called.split(".")[-1] in {"Lock", "Condition"}]
    assert all(node in in_after_fork for node in made)


@each_module
def test_only_clocks_read_the_time_and_wait(module):
    if module.name == "resilience.clock" or module.layer == "testing":
        return
    used = {ast.unparse(node) for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)}
    readings = {name for name in used if name.startswith("time.")} - {"time.gmtime", "time.strftime"}
    waits = [
        ast.unparse(node)
        for node, called in module.calls()
        if called in {"asyncio.sleep", "asyncio.wait_for"} and ast.unparse(node) != "asyncio.sleep(0)"
    ]

    assert readings <= READINGS.get(module.name, set())
    assert not waits


@each_module
def test_nothing_is_swallowed(module):
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            silent = all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
            assert not (silent and caught in {"everything", "Exception", "BaseException"}), node.lineno
    for node, called in module.calls():
        if called.split(".")[-1] == "suppress":
            assert not {ast.unparse(kind) for kind in node.args} & {"Exception", "BaseException"}, node.lineno


@each_module
def test_nothing_is_printed(module):
    assert "print" not in {called for _, called in module.calls()}
