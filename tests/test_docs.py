"""What the documentation shows works: every Python block of every page, and every example of a docstring."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

from resilience import CircuitOpenError, RateLimitedError
from tests import fault_page

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODULES = [
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "src" / "resilience").rglob("*.py"))
]


def python_blocks(page):
    """Yield the code of each Python block, after so many empty lines that line numbers are the page's."""
    text = page.read_text()
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield "\n" * (text.count("\n", 0, block.start()) + 1) + block[1]


def run_blocks(page):
    """Run the Python blocks of a page in order, in one namespace; return it."""
    namespace = {"__name__": page.stem}
    with asyncio.Runner() as runner:
        for block in python_blocks(page):
            code = compile(block, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            result = eval(code, namespace)
            if inspect.iscoroutine(result):
                runner.run(result)
    return namespace


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    run_blocks(page)


async def test_the_handlers_of_the_readme_share_a_breaker():
    shown = await asyncio.to_thread(run_blocks, ROOT / "README.md")
    upload, download, storage = shown["handle_upload"], shown["handle_download"], shown["storage"]
    assert upload("ada", "notes", b"hello") == "saved notes"
    assert await download("notes") == b"hello"

    while storage.is_closed:
        with contextlib.suppress(ConnectionError), storage.guard():
            raise ConnectionError("storage is down")

    with pytest.raises(CircuitOpenError) as sync_rejection:
        upload("ada", "notes", b"hello")
    with pytest.raises(CircuitOpenError) as async_rejection:
        await download("notes")
    assert [error.value.name for error in (sync_rejection, async_rejection)] == ["storage"] * 2

    storage.reset()
    assert await download("notes") == b"hello"
    uploads = shown["uploads"]
    while uploads.try_acquire("ada"):
        pass
    with pytest.raises(RateLimitedError):
        upload("ada", "notes", b"hello")
    assert upload("eve", "notes", b"hello") == "saved notes"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)

    assert result.failed == 0, f"{result.failed} of {result.attempted} examples fail: see the output"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_inside_the_project_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://|mailto:|#)([^)#\s]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_page_of_faults_has_the_tests_that_there_are():
    page = fault_page.PAGE.read_text()
    tests = fault_page.fault_tests()

    assert page == fault_page.rendered(page), "say python -m tests.fault_page"
    assert set(fault_page.lines_of(page)) == tests.keys()


def test_the_index_names_every_page():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}

    assert (
        set(re.findall(r"^\| \[.*?\]\((.*?)\)", (ROOT / "docs" / "README.md").read_text(), re.MULTILINE))
        == pages
    )


PARTS = ["About", "Usage", "Defaults", "Telemetry", "How it decides", "Anti-patterns"]
WITHOUT_PARTS = {
    "README.md",
    "asvs.md",
    "backend-figures.md",
    "benchmarks.md",
    "design.md",
    "experiments.md",
    "faults.md",
    "glossary.md",
}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in WITHOUT_PARTS], ids=lambda page: page.name
)
def test_a_page_has_its_parts_in_order(page):
    headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)

    assert [part for heading in headings for part in PARTS if heading.startswith(part)] == PARTS


def test_the_plan_of_the_house_is_the_house():
    (plan,) = re.findall(
        r"^src/resilience/\n(.*?)^```$", (ROOT / "docs" / "design.md").read_text(), re.DOTALL | re.MULTILINE
    )
    house = {
        path.name + "/" * path.is_dir()
        for path in (ROOT / "src" / "resilience").iterdir()
        if path.name not in {"__pycache__", "py.typed"}
    }

    assert set(re.findall(r"^  (\S+)", plan, re.MULTILINE)) == house
