"""What the launcher imports: neither less than the stages need nor more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from streampiped.check import BUILTIN
from streampiped.check import SERVICES as SERVICE_CLASSES
from streampiped.runtime.preload import BESIDE, COMMON, SERVICES, STAGES, guess, modules_of


def test_every_built_in_kind_is_known() -> None:
    """Each kind that a configuration may name has its module preloaded."""
    assert set(STAGES) == set(BUILTIN)
    assert set(SERVICES) == set(SERVICE_CLASSES)
    everything = modules_of([*BUILTIN.values(), *SERVICE_CLASSES.values()])
    modules = {klass.partition(":")[0] for klass in (*BUILTIN.values(), *SERVICE_CLASSES.values())}
    assert modules <= set(everything)
    assert set(BESIDE) <= modules


def test_user_code_is_never_preloaded() -> None:
    """A class of the user's changes nothing: its module might start threads."""
    assert modules_of(["mine:Stage", "a.b.c:D"]) == COMMON


def test_scikit_learn_comes_with_the_trainer_alone() -> None:
    """Without a trainer a start does not wait for scikit-learn."""
    assert "sklearn.linear_model" in modules_of([BUILTIN["trainer"]])
    assert "sklearn.linear_model" not in modules_of(v for k, v in BUILTIN.items() if k != "trainer")


@pytest.mark.parametrize(
    ("text", "learns"),
    [
        ('[stages.a]\nclass = "trainer"', True),
        ('[stages.a]\nclass = "streampiped.stages.trainer:Trainer"', True),
        ("[stages.trainer]", True),
        ('[stages.a]\nclass = "mine:Trainer"', False),
        ('[stages.trainer]\nclass = "consumer"', False),
        ('[pipeline]\nname = "default chain"', True),
        ("not TOML", True),
        ("stages = 5", True),
    ],
)
def test_guess_from_the_file(text: str, learns: bool, tmp_path: Path) -> None:
    """The file's stages tell; what cannot be understood is guessed to be everything."""
    file = tmp_path / "p.toml"
    file.write_text(text)
    assert ("sklearn.linear_model" in guess(["run", "--config", str(file)])) is learns


@pytest.mark.parametrize("arguments", [["run"], ["run", "--config"], ["run", "-c", "/nowhere/p.toml"]])
def test_guess_without_a_file(arguments: list[str]) -> None:
    """Without a file to read everything is preloaded."""
    assert set(guess(arguments)) >= {"sklearn.linear_model", "psutil"}


def test_pyarrow_starts_no_thread() -> None:
    """Where pandas and pyarrow are installed, which scikit-learn imports then, the launcher can still fork."""
    pytest.importorskip("pyarrow")
    code = "import streampiped.launcher, pyarrow; from streampiped.runtime.linux import threads; assert threads() == 1"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60.0, check=False)
    assert done.returncode == 0, done.stderr
