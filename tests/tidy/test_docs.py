"""The documentation says what is there: links resolve, code compiles, configuration parses."""

from __future__ import annotations

import doctest
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.tree import REPOSITORY, files, shown

PAGES: Final = tuple(files(".md"))
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
BLOCK: Final = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
NAMED_FILE: Final = re.compile(r"`([\w./-]+\.(?:py|toml|md|service|conf|sh))`")
ROOTS: Final = ("", "daemon/streampiped", "ctl/streampipectl", "docs", "tests", "etc", "systemd")
"""Where a file that a page names in backticks is looked for."""
MACHINE_PATH: Final = re.compile(r"(?<![\w}])/(?:work|root)/[\w.]")
"""A path of the machine that something was written on. Somebody else's has another."""

pages = pytest.mark.parametrize("page", PAGES, ids=shown)


@pages
def test_links_resolve(page: Path) -> None:
    """Every relative link of a page leads to a file, and its anchor to a heading there."""
    for link in LINK.findall(_without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{shown(page)}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in _anchors(target), f"{shown(page)}: no heading for {link}"


@pages
def test_code_blocks_are_code(page: Path) -> None:
    """Every fenced block marked python compiles, and every one marked toml parses."""
    for language, text in BLOCK.findall(page.read_text()):
        if language == "python":
            for source in _sources(text):
                compile(source, shown(page), "exec")
        elif language == "toml":
            tomllib.loads(text)


@pages
def test_named_files_exist(page: Path) -> None:
    """A file that a page names by its path in backticks exists; the parts of a path are as in the
    repository."""
    missing = [
        name
        for name in NAMED_FILE.findall(_without_blocks(page.read_text()))
        if "/" in name and not name.startswith("/") and not _found(page, name)
    ]
    assert not missing


def test_readme_names_the_two_commands() -> None:
    """README.md says how to run and how to test, and the Makefile has both."""
    readme = (REPOSITORY / "README.md").read_text()
    makefile = (REPOSITORY / "Makefile").read_text()
    for command in ("run", "test"):
        assert f"make {command}" in readme
        assert re.search(rf"^{command}:", makefile, re.MULTILINE)
    assert "make test" in (REPOSITORY / ".ci" / "run").read_text()


def test_no_path_of_one_machine() -> None:
    """No file names a directory of the machine that it was written on."""
    texts = files(".py", ".md", ".toml", ".service", ".conf", ".sh", ".csv", ".jsonl", "")
    wrong = [shown(path) for path in texts if MACHINE_PATH.search(path.read_text(errors="replace"))]
    assert not wrong


def test_the_default_configuration_parses() -> None:
    """Every file in etc/ is TOML."""
    found = sorted((REPOSITORY / "etc").glob("*.toml"))
    assert found
    for path in found:
        tomllib.loads(path.read_text())


def _sources(text: str) -> Iterator[str]:
    if ">>>" in text:
        return (example.source for example in doctest.DocTestParser().get_examples(text))
    return iter((text,))


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", _without_blocks(text))


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub and others give to headings."""
    headings = re.findall(r"^#+ +(.+)$", _without_blocks(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _found(page: Path, name: str) -> bool:
    return any((REPOSITORY / root / name).exists() for root in ROOTS) or (page.parent / name).exists()
