"""What `make install` and `make uninstall` do to the files of a machine, broken off at any instant."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from support.tree import REPOSITORY

pytestmark = pytest.mark.system

KILLED: Final = 9
STEPS_MAX: Final = 200
NAMES: Final = ("bin/streampipectl", "lib/first.py", "lib/second.py")
BREAK_OFF: Final = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import install
root, left = Path(sys.argv[2]), int(sys.argv[3])
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.chmod", "shutil.rmtree"}
def change():
    global left
    left -= 1
    if left < 0:
        os._exit(9)
def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
    if writes or event in CHANGES:
        change()
def exchange(one, other, real=install.exchange):
    change()
    return sys.argv[4] == "exchange" and real(one, other)
sys.addaudithook(hook)
install.exchange = exchange
install.swap(root / "streampipe.new", root / "streampipe", root / "streampipe.old")
install.link(root / "command", Path("streampipe", "bin", "streampipectl"))
install.write(root / "unit", "new " * 1000)
"""
"""Puts a new program in place, and dies before its n-th change of a file."""


def tree(place: Path, version: str) -> None:
    for name in NAMES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(version)


def machine(root: Path) -> None:
    """With an old program installed, and a new one made aside."""
    shutil.rmtree(root, ignore_errors=True)
    tree(root / "streampipe", "old")
    tree(root / "streampipe.new", "new")
    (root / "command").symlink_to("streampipe/bin/streampipectl")
    (root / "unit").write_text("old " * 1000)


def broken_off(root: Path, step: int, way: str) -> int:
    command = [sys.executable, "-c", BREAK_OFF, str(REPOSITORY / "systemd"), str(root), str(step), way]
    return subprocess.run(command, check=False, timeout=60).returncode


def versions(place: Path) -> list[str]:
    return [(place / name).read_text() for name in NAMES if (place / name).exists()]


def again(root: Path, way: str) -> None:
    """The next installation, which makes its program anew first, comes to its end and leaves nothing lying about."""
    shutil.rmtree(root / "streampipe.new", ignore_errors=True)
    tree(root / "streampipe.new", "new")
    assert broken_off(root, STEPS_MAX, way) == 0
    assert versions(root / "streampipe") == ["new"] * len(NAMES)
    assert sorted(os.listdir(root)) == ["command", "streampipe", "unit"]


def can_exchange(directory: Path) -> bool:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import install; from pathlib import Path\n"
    code += "sys.exit(not install.exchange(Path(sys.argv[2]), Path(sys.argv[3])))"
    one, other = directory / "one", directory / "other"
    one.mkdir()
    other.mkdir()
    return not subprocess.run([sys.executable, "-c", code, REPOSITORY / "systemd", one, other], check=False).returncode


def test_broken_off_before_any_change_a_whole_program_is_there(tmp_path: Path) -> None:
    """An installation that dies before any one of its changes leaves a program that is whole, old or new, behind a
    command that leads to it, and a unit that is whole; the next installation comes to its end."""
    if not can_exchange(tmp_path):
        pytest.skip("this file system cannot exchange two directories")
    root = tmp_path / "lib"
    seen = set()
    for step in range(STEPS_MAX):
        machine(root)
        code = broken_off(root, step, "exchange")
        found = versions(root / "streampipe")
        assert (len(found), len(set(found))) == (len(NAMES), 1), f"before change {step}: {found}"
        assert (root / "command").read_text() == found[0]
        assert (root / "unit").read_text() in ("old " * 1000, "new " * 1000)
        seen.add((code, found[0]))
        if code == 0:
            break
        again(root, "exchange")
    assert seen == {(KILLED, "old"), (KILLED, "new"), (0, "new")}


def test_without_an_exchange_the_next_installation_mends(tmp_path: Path) -> None:
    """Where a file system has no exchange, the old program or the new one is whole under one of three names at any
    instant, and the next installation puts the new one in place."""
    root = tmp_path / "lib"
    for step in range(STEPS_MAX):
        machine(root)
        code = broken_off(root, step, "renames")
        places = (root / name for name in ("streampipe", "streampipe.new", "streampipe.old"))
        assert any(len(versions(place)) == len(NAMES) for place in places), f"before change {step}"
        if code == 0:
            break
        again(root, "renames")


def test_uninstall_without_an_environment(tmp_path: Path) -> None:
    """`make uninstall` from a checkout that has no .venv removes what was installed, the leftovers of an installation
    that was broken off too; the configuration stays."""
    library = tmp_path / "usr/local/lib"
    for name in ("streampipe", "streampipe.new", "streampipe.old"):
        tree(library / name, "old")
    for name in ("usr/local/bin/streampiped", "usr/local/bin/streampipectl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to("../lib/streampipe/bin/streampipectl")
    for name in ("usr/lib/systemd/system/streampipe.service", "etc/streampipe/streampipe.toml"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("text")
    command = ["make", "uninstall", f"DESTDIR={tmp_path}", f"VENV={tmp_path}/none", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()]
    assert left == ["etc/streampipe/streampipe.toml"]


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("opt/streampipe", "should be an absolute path"),
        ("/opt/a b", "should be an absolute path"),
        ("/opt/a%b", "should be an absolute path"),
        ("/opt/../home/me", "should be an absolute path"),
        ("/home/me/.local", "hide /home"),
        ("/tmp/streampipe", "hide /tmp"),
    ],
)
def test_prefix_that_the_service_cannot_be_executed_from(prefix: str, said: str, tmp_path: Path) -> None:
    """It is refused with the reason, and nothing is put anywhere."""
    script = REPOSITORY / "systemd" / "install.py"
    command = [sys.executable, script, "install", "--prefix", prefix, "--destdir", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("install: ")
    assert said in done.stderr
    assert not list(tmp_path.iterdir())
