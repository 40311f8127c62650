"""The Debian package of the checkout, built by what `make deb` runs."""

from __future__ import annotations

import os
import py_compile
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from support.nspawn import Container
from support.tree import REPOSITORY

PYTHON: Final = Path("/usr/bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
BUILD_S: Final = 180.0
"""8 s on two idle cores."""


def require_dpkg() -> None:
    """Skip on a machine that is not Debian's, or whose Python is not the one of these tests; fail there in CI."""
    if shutil.which("dpkg-deb") is None:
        reason = "needs dpkg-deb"
    elif not PYTHON.exists():
        reason = f"needs {PYTHON}, which the package would depend on"
    else:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must run this test, and it {reason}")
    pytest.skip(reason)


def build(output: Path, version: str) -> Path:
    script = str(REPOSITORY / "systemd" / "package.py")
    command = [sys.executable, script, "--version", version, "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(done.stdout.strip())


def bumped(package: Path, version: str) -> Path:
    """The same package with another version in it. Unpacked, changed and packed again: half a second, where a build has
    to compile everything."""
    tree, made = package.with_name("tree"), package.with_name(f"streampipe_{version}.deb")
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    edited(tree / "DEBIAN" / "control", r"^Version: .*$", f"Version: {version}")
    module = next(tree.glob("usr/lib/streampipe/lib/*/site-packages/streampiped/__init__.py"))
    edited(module, r"^__version__ = .*$", f'__version__ = "{version}"')
    py_compile.compile(str(module), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    sums = tree / "DEBIAN" / "md5sums"
    sums.write_text("".join(line for line in sums.open() if "/streampiped/__" not in line))
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, made], check=True, capture_output=True)
    shutil.rmtree(tree)
    return made


def edited(path: Path, pattern: str, line: str) -> None:
    path.write_text(re.sub(pattern, line, path.read_text(), count=1, flags=re.MULTILINE))


def members(package: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Every entry of the package and what is in it."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdout is not None
        with tarfile.open(fileobj=unpacking.stdout, mode="r|") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() else None
                yield member, file.read() if file else b""


def hand_over(box: Container, package: Path) -> str:
    """Its path inside."""
    shutil.copy(package, box.root / "root" / package.name)
    return f"/root/{package.name}"


def dpkg(box: Container, *arguments: str) -> str:
    """What dpkg says. The container is gone in a minute, so nothing is synced for it."""
    return box.run("dpkg", "--force-unsafe-io", *arguments, timeout=120).stdout
