"""The manual pages that are made from the code, and where they and the completions are installed."""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from streampipectl.app import SYNTAX
from support.example_config import render
from support.tree import REPOSITORY

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, REPOSITORY / "docs" / "man" / "generate.py", directory], check=True)
    return {path.name: path for path in directory.iterdir()}


def needs(program: str) -> None:
    if shutil.which(program) is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"needs {program}")


def plain(path: Path) -> str:
    """A page as one reads it, on one endless line."""
    done = subprocess.run(["mandoc", "-T", "utf8", path], capture_output=True, text=True, check=True)
    return " ".join(re.sub(r".\x08", "", done.stdout).split())


def test_there_are_three(pages: dict[str, Path]) -> None:
    """A page for each command and one for the file."""
    assert set(pages) == {"streampipectl.1", "streampiped.8", "streampipe.toml.5"}


@pytest.mark.parametrize("name", ["streampipectl.1", "streampiped.8", "streampipe.toml.5"])
def test_they_are_well_formed(pages: dict[str, Path], name: str) -> None:
    """Neither mandoc nor groff has a word to say about them."""
    for words in (["mandoc", "-T", "lint"], ["groff", "-ww", "-man", "-T", "utf8"], ["man", "--warnings", "-l"]):
        needs(words[0])
        done = subprocess.run(
            [*words, pages[name]], capture_output=True, text=True, check=False, env={**os.environ, "MANPAGER": "cat"}
        )
        assert (done.returncode, done.stderr) == (0, ""), words
        assert words[0] != "mandoc" or done.stdout == ""


def test_every_command_is_explained(pages: dict[str, Path]) -> None:
    """Each with each of its options, as the parser knows them."""
    needs("mandoc")
    sections = dict(
        re.findall(
            r'^\.SS "(.+?)"\n(.*?)(?=^\.S)', pages["streampipectl.1"].read_text().replace("\\-", "-"), re.M | re.S
        )
    )
    assert set(sections) == set(SYNTAX)
    for command, syntax in SYNTAX.items():
        for option in syntax.options:
            assert f"\\fB{option}\\fR" in sections[command], (command, option)
    text = plain(pages["streampipectl.1"])
    assert "130 ended by Ctrl-C; a change goes on" in text
    assert "--until-finished" in plain(pages["streampiped.8"])


def test_every_option_of_the_file_is_explained(pages: dict[str, Path]) -> None:
    """Whatever stands in etc/streampipe.toml has its entry, with the default and not what is shipped instead."""
    needs("mandoc")
    text = plain(pages["streampipe.toml.5"])
    keys = set(re.findall(r"^#?([\w-]+) = ", render(), re.M)) - {"key"}
    assert len(keys) > 50
    assert [key for key in sorted(keys) if f"{key} = " not in text] == []
    assert 'duration "500ms", "1.5s", "2m", "1h", "7d", 0' in text
    assert "Here not the default" not in text


def test_the_date_can_be_set(tmp_path: Path) -> None:
    """The same SOURCE_DATE_EPOCH makes the same bytes."""
    for name in ("a", "b"):
        subprocess.run(
            [sys.executable, REPOSITORY / "docs" / "man" / "generate.py", tmp_path / name],
            env={**os.environ, "SOURCE_DATE_EPOCH": "86400"}, check=True,
        )  # fmt: skip
    for page in (tmp_path / "a").iterdir():
        assert page.read_bytes() == (tmp_path / "b" / page.name).read_bytes()
        assert " 1970-01-02 " in page.read_text().partition("\n")[0]


def test_text_is_no_request(pages: dict[str, Path]) -> None:
    """A line of ours that begins with a dot stays text, a backslash is one, and an option can be copied to a shell."""
    generate = loaded("docs/man/generate.py")
    assert generate.marked(".so /etc/passwd") == "\\&.so /etc/passwd"
    assert generate.marked(r"a\b `c`") == r"a\eb \fBc\fR"
    assert generate.quoted('a "b"') == r'"a \(dqb\(dq"'
    lines = generate.marked(f"{'x' * 77} 'y").split("\n")
    assert lines == ["x" * 77, r"\&'y"]
    assert r"\fB\-\-json\fR" in pages["streampipectl.1"].read_text()


def loaded(path: str) -> ModuleType:
    """A script of the repository as a module."""
    spec = importlib.util.spec_from_file_location(f"loaded_{Path(path).stem}", REPOSITORY / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("prefix", "zsh"), [("/usr/local", "site-functions"), ("/usr", "vendor-completions")])
def test_installed_and_removed(tmp_path: Path, prefix: str, zsh: str) -> None:
    """They are put where man and the shells look, readable for all, and nothing of them stays."""
    install = loaded("systemd/install.py")
    places = install.Places(tmp_path, Path(prefix))
    install.install_manual(places)
    install.install_completions(places)
    share = tmp_path / prefix.lstrip("/") / "share"
    expected = {
        "man/man1/streampipectl.1.gz", "man/man5/streampipe.toml.5.gz", "man/man8/streampiped.8.gz",
        "bash-completion/completions/streampipectl", f"zsh/{zsh}/_streampipectl",
        "fish/vendor_completions.d/streampipectl.fish",
    }  # fmt: skip
    files = {str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()}
    assert files == expected
    assert all((share / name).stat().st_mode & 0o777 == 0o644 for name in files)
    assert gzip.decompress((share / "man/man1/streampipectl.1.gz").read_bytes()).startswith(b'.TH "STREAMPIPECTL" 1 ')
    install.uninstall(places)
    assert not [path for path in share.rglob("*") if path.is_file()]


def test_the_shells_look_there(tmp_path: Path) -> None:
    """zsh's own search path has the directory for each prefix."""
    needs("zsh")
    shown = subprocess.run(["zsh", "-f", "-c", "print -l $fpath"], capture_output=True, text=True, check=True).stdout
    install = loaded("systemd/install.py")
    for prefix in ("/usr/local", "/usr"):
        places = install.Places(Path("/"), Path(prefix))
        assert str(install.completions(places)["zsh"].parent) in shown.split()
