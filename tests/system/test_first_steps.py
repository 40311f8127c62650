"""README.md, "Your own data": what it says one sees is what one sees."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.tree import REPOSITORY

pytestmark = pytest.mark.system

SECTION = (REPOSITORY / "README.md").read_text().partition("## Your own data")[2].partition("\n## ")[0]


def blocks(kind: str) -> list[str]:
    """The code blocks of this kind, without their indentation."""
    found = re.findall(r"^   ```(\w*)\n(.*?)^   ```$", SECTION, re.MULTILINE | re.DOTALL)
    return [re.sub(r"^   ", "", text, flags=re.MULTILINE) for name, text in found if name == kind]


def verdict(directory: Path, config: str) -> list[str]:
    """The sentence that a run with it ends with, line by line."""
    (directory / "mine.toml").write_text(config)
    command = [sys.executable, "-m", "streampiped", "run", "--config", "mine.toml", "--fresh", "--until-finished"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    begins = next(number for number, line in enumerate(lines) if line.startswith("Good: "))
    return lines[begins : lines.index("", begins)]


def test_the_first_steps_end_as_the_readme_shows(tmp_path: Path) -> None:
    """Both configurations, with the stage of one's own, run as they are printed, and the verdicts are those printed."""
    os.symlink(REPOSITORY / "tests", tmp_path / "tests")
    (tmp_path / "my_stages").mkdir()
    (stage,), (plain, more), seen = blocks("python"), blocks("toml"), blocks("")
    (tmp_path / "my_stages" / "one_hot.py").write_text(stage)
    behind = plain.replace('[stages.consumer]\ninput = "normalizer"', '[stages.consumer]\ninput = "one_hot"')
    assert behind != plain
    for config, shown in zip((plain, f"{behind}\n{more}"), seen, strict=True):
        assert verdict(tmp_path, config) == shown.split("...\n")[1].splitlines()
