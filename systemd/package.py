"""Build a Debian package of streampipe: what `make deb` runs. It packs what install.py puts under a DESTDIR, so that
the package, `make install` and the tests run the same files; docs/decisions/installation.md has the reasons.

    .venv/bin/python systemd/package.py [--version VERSION] [--output DIR]

The environment and SOURCE_DATE_EPOCH (or the time of the last commit) decide every byte of it.
"""

from __future__ import annotations

import argparse
import compileall
import email.utils
import gzip
import hashlib
import os
import py_compile
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import install

PYTHON: Final = f"python{sys.version_info.major}.{sys.version_info.minor}"
MAINTAINER: Final = "The streampipe authors <streampipe@packages.invalid>"
SCRIPTS: Final = install.REPOSITORY / "systemd" / "debian"
COMPRESSION: Final = ("-Zzstd", "-z3")
"""320 MB become 88 MB in a second; xz at its fastest needs 13 s of CPU for 76 MB. dpkg reads it since Debian 12."""


def build(places: install.Places, version: str, output: Path) -> Path:
    """The package, made in the empty directory `places.destdir`."""
    install.PROJECT["project"]["version"] = version
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch())  # for dpkg-deb, and the date of the manual pages
    install.install(places, Path("/usr/bin", PYTHON))
    compile_all(places)
    document(places, version)
    control(places, version)
    settle(places.destdir)
    package = output / f"streampipe_{version}_{architecture()}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", *COMPRESSION, "--build", places.destdir, package],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return package


def compile_all(places: install.Places) -> None:
    """All modules anew. A .pyc of install.py checks the time of its source, which a package changes, and knows the
    directory in which it was built; these check nothing, since dpkg replaces both together."""
    library = places.library
    if not compileall.compile_dir(
        library / "lib",
        quiet=1,
        force=True,
        workers=0,
        stripdir=str(library),
        prependdir=str(places.home),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    ):
        sys.exit("package: some modules do not compile")


def document(places: install.Places, version: str) -> None:
    """What Debian's policy wants in /usr/share/doc, and why lintian is overruled."""
    doc = places.at(Path("/usr/share/doc/streampipe"))
    install.write(doc / "copyright", (SCRIPTS / "copyright").read_text())
    entry = f"streampipe ({version}) stable; urgency=medium\n\n  * CHANGELOG.md tells what is new.\n\n"
    entry += f" -- {MAINTAINER}  {email.utils.formatdate(epoch())}\n"
    compress(doc / "changelog.gz", entry)
    compress(doc / "CHANGELOG.md.gz", (install.REPOSITORY / "CHANGELOG.md").read_text())
    overrides = places.at(Path("/usr/share/lintian/overrides/streampipe"))
    install.write(overrides, (SCRIPTS / "lintian-overrides").read_text())


def compress(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    path.chmod(0o644)


def control(places: install.Places, version: str) -> None:
    """The directory DEBIAN: what the package is, which files are the operator's, sums, maintainer scripts."""
    paths = sorted(path for path in places.destdir.rglob("*") if path.is_file() and not path.is_symlink())
    kilobytes = sum(-(-path.stat().st_size // 1024) for path in paths)
    fields = {
        "Package": "streampipe",
        "Version": version,
        "Architecture": architecture(),
        "Maintainer": MAINTAINER,
        "Installed-Size": str(kilobytes),
        "Depends": f"{PYTHON}, systemd (>= 252), libc6 (>= {glibc(places)}), libgcc-s1, libstdc++6",
        "Section": "misc",
        "Priority": "optional",
        "Description": "always-on online-learning stream pipeline\n"
        + " A supervisor and a process for every step of a pipeline that learns from a\n"
        + " stream of records; nothing is lost and nothing doubled, whatever dies. It runs\n"
        + " as the service streampipe, and streampipectl shows and changes it.",
    }
    directory = places.destdir / "DEBIAN"
    sums = "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}  {path.relative_to(places.destdir)}\n"
        for path in paths
        if path != places.configuration  # dpkg keeps the sums of these itself
    )
    install.write(directory / "control", "".join(f"{name}: {value}\n" for name, value in fields.items()))
    install.write(directory / "conffiles", f"/{places.configuration.relative_to(places.destdir)}\n")
    install.write(directory / "md5sums", sums)
    for name in ("postinst", "prerm", "postrm"):
        install.write(directory / name, (SCRIPTS / name).read_text())
        (directory / name).chmod(0o755)


def glibc(places: install.Places) -> str:
    """The newest that a wheel was built for, by its tag. What else a manylinux wheel may use of the system (PEP 600)
    is libgcc, libstdc++ and what Python itself needs; the rest it brings."""
    found = {match for text in wheels(places) for match in re.findall(r"manylinux_(\d+)_(\d+)_", text)}
    return "{}.{}".format(*max((int(major), int(minor)) for major, minor in {*found, ("2", "17")}))


def wheels(places: install.Places) -> Iterator[str]:
    return (path.read_text() for path in places.library.rglob("*.dist-info/WHEEL"))


def architecture() -> str:
    done = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@cache
def epoch() -> int:
    """Seconds since 1970: SOURCE_DATE_EPOCH, else of the last commit, else (a source archive) now."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(install.REPOSITORY), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 else int(time.time())


def settle(tree: Path) -> None:
    """Modes and times that do not tell of this machine."""
    for path in [tree, *tree.rglob("*")]:
        if ".so" in path.suffixes:
            path.chmod(0o644)
        os.utime(path, (epoch(), epoch()), follow_symlinks=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build a Debian package of streampipe.")
    parser.add_argument("--version", default=install.PROJECT["project"]["version"], help="default: pyproject.toml's")
    parser.add_argument("--output", type=Path, default=install.REPOSITORY / "build", help="the package's directory")
    arguments = parser.parse_args()
    os.umask(0o022)
    tree = arguments.output.resolve() / "deb"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    package = build(install.Places(tree, Path("/usr")), arguments.version, arguments.output)
    shutil.rmtree(tree)
    print(package)


if __name__ == "__main__":
    main()
