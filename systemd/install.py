"""Put streampipe on this machine, or under DESTDIR for a packager: what `make install` and `make uninstall`
run.

It copies the environment that was built and tested (`.venv`) and downloads nothing, so root needs no network
and what runs is what was tested; docs/decisions/installation.md has the reasons. Run it with that
environment's Python:

    .venv/bin/python systemd/install.py install --prefix /usr/local [--destdir DIR] [--interpreter PYTHON]
"""

from __future__ import annotations

import argparse
import compileall
import ctypes
import errno
import gzip
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final

REPOSITORY: Final = Path(__file__).resolve().parent.parent
PROJECT: Final[dict[str, Any]] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
NAME: Final[str] = PROJECT["project"]["name"]
UNIT_PREFIX: Final = "/usr/local"
"""What systemd/streampipe.service says; replaced by the prefix of the installation."""
DROP_INS: Final = ("network.conf", "newer.conf", "journal.conf")
MONITORING: Final = ("grafana/streampipe.json", "prometheus/streampipe.rules.yml")
"""Put beside the program for whoever wants them; in force where an operator copies them."""
AT_FDCWD: Final = -100  # fcntl.h
RENAME_EXCHANGE: Final = 2  # linux/fs.h
HIDDEN: Final = ("/home", "/root", "/run/user")
"""The unit's ProtectHome=yes hides these: an interpreter there cannot be executed."""
EMPTIED: Final = ("/tmp", "/var/tmp")
"""The unit's PrivateTmp=yes shows the service others."""
PREFIX: Final = re.compile(r"(/[A-Za-z0-9._+-]+)+")
"""What can stand in a unit and behind `#!` without being taken for anything else."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where things go. `prefix` is as it will be at run time; every other path is under `destdir`."""

    destdir: Path
    prefix: Path

    @property
    def home(self) -> Path:
        return self.prefix / "lib" / "streampipe"

    @property
    def library(self) -> Path:
        return self.at(self.home)

    @property
    def configuration(self) -> Path:
        return self.at(Path("/etc/streampipe/streampipe.toml"))

    @property
    def unit(self) -> Path:
        return self.at(Path("/usr/lib/systemd/system/streampipe.service"))

    @property
    def sysusers(self) -> Path:
        return self.at(Path("/usr/lib/sysusers.d/streampipe.conf"))

    @property
    def tmpfiles(self) -> Path:
        return self.at(Path("/usr/lib/tmpfiles.d/streampipe.conf"))

    def at(self, path: Path) -> Path:
        return self.destdir / path.relative_to("/")

    def commands(self) -> Iterator[Path]:
        return (self.at(self.prefix / "bin" / name) for name in PROJECT["project"]["scripts"])


def install(places: Places, interpreter: Path) -> None:
    """Everything; an existing configuration is left alone. Broken off at any instant, a whole program is there, the old
    or the new one, with whole files around it; the next run finishes the work."""
    check_prefix(places.prefix)
    check_interpreter(interpreter)
    install_library(places, interpreter)
    for command in places.commands():
        link(command, Path("..", "lib", "streampipe", "bin", command.name))
    unit = (REPOSITORY / "systemd" / "streampipe.service").read_text()
    write(places.unit, unit.replace(f"{UNIT_PREFIX}/bin/", f"{places.prefix}/bin/"))
    write(places.sysusers, (REPOSITORY / "systemd" / "sysusers.d" / "streampipe.conf").read_text())
    write(places.tmpfiles, (REPOSITORY / "systemd" / "tmpfiles.d" / "streampipe.conf").read_text())
    install_manual(places)
    install_completions(places)
    if not places.configuration.exists():
        write(places.configuration, (REPOSITORY / "etc" / "streampipe.toml").read_text())
    if places.destdir == Path("/"):
        subprocess.run(["systemd-sysusers", places.sysusers], check=True)
        subprocess.run(["systemd-tmpfiles", "--create", places.tmpfiles], check=True)
        reload_systemd()


def uninstall(places: Places) -> None:
    """The program and its unit. The configuration, the state and the user that owns it stay."""
    for library in (places.library, fresh(places), aside(places)):
        shutil.rmtree(library, ignore_errors=True)
    files = (places.unit, places.sysusers, places.tmpfiles, *manual(places), *completions(places).values())
    for path in (*places.commands(), *files):
        path.unlink(missing_ok=True)
    if places.destdir == Path("/"):
        reload_systemd()


def check_prefix(prefix: Path) -> None:
    """Refuse a prefix at which the service could not be executed: systemd would try again twice a second, for ever."""
    if PREFIX.fullmatch(str(prefix)) is None or ".." in prefix.parts:
        sys.exit(f"install: PREFIX={prefix} should be an absolute path of letters, digits, '.', '_', '+' and '-'")
    for real in (prefix, prefix.resolve()):
        if hidden := next((each for each in (*HIDDEN, *EMPTIED) if real.is_relative_to(each)), None):
            sys.exit(f"install: the service cannot see PREFIX={prefix}: ProtectHome= and PrivateTmp= hide {hidden}")


def check_interpreter(interpreter: Path) -> None:
    """Refuse a Python that the service could not use: that is not there, of another version (extension modules are
    built for one), or in a directory that the unit hides."""
    if not interpreter.exists():
        sys.exit(f"install: no {interpreter}; make the environment with PYTHON=/usr/bin/python3, or say INTERPRETER=")
    ask = "import sysconfig; print(sysconfig.get_config_var('SOABI'))"
    theirs = subprocess.run([interpreter, "-I", "-c", ask], capture_output=True, text=True, check=True).stdout
    ours = sysconfig.get_config_var("SOABI")
    if theirs.strip() != ours:
        sys.exit(f"install: {interpreter} is {theirs.strip()}, but the environment was built for {ours}")
    real = str(interpreter.resolve())
    if real.startswith(tuple(f"{directory}/" for directory in HIDDEN)):
        sys.exit(
            f"install: the service cannot see {real}: its ProtectHome=yes hides {', '.join(HIDDEN)}. "
            f"Say INTERPRETER=/usr/bin/python3, or make the environment with PYTHON=/usr/bin/python3."
        )


def install_library(places: Places, interpreter: Path) -> None:
    """A virtual environment (PEP 405: a link, pyvenv.cfg and a site-packages) and what lies beside it, made aside and
    then put in place at once, so that nobody ever sees half of it."""
    made = fresh(places)
    shutil.rmtree(made, ignore_errors=True)
    site = made / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    (made / "bin").mkdir()
    (made / "bin" / "python").symlink_to(interpreter)
    write(made / "pyvenv.cfg", f"home = {interpreter.parent}\ninclude-system-site-packages = false\n")
    for name in sorted(closure()):
        copy_distribution(metadata.distribution(name), site)
    copy_project(site)
    for command, target in PROJECT["project"]["scripts"].items():
        write_script(made / "bin" / command, places.home / "bin" / "python", target)
    for name in DROP_INS:
        write(made / "systemd" / name, (REPOSITORY / "systemd" / name).read_text())
    for name in MONITORING:
        write(made / "monitoring" / Path(name).name, (REPOSITORY / "etc" / name).read_text())
    # Without .pyc every start under ProtectSystem=strict compiles everything: 16.6 s instead of 1.5 s.
    if not compileall.compile_dir(site, quiet=1, workers=0, stripdir=str(made), prependdir=str(places.home)):
        sys.exit("install: some modules do not compile")
    swap(made, places.library, aside(places))


def fresh(places: Places) -> Path:
    """Where a program is made, and after an exchange the old one is, until it is removed."""
    return places.library.with_name("streampipe.new")


def aside(places: Places) -> Path:
    """Where the old program is for an instant on a file system that cannot exchange."""
    return places.library.with_name("streampipe.old")


def closure() -> set[str]:
    """The distributions that the project needs, as installed here: the dependencies of pyproject.toml (the metadata of
    an editable installation may be older) and theirs. Extras are left out. What is not installed must have a
    marker, which excluded it from this platform; anything else is an environment that is out of date."""
    wanted: list[str] = list(PROJECT["project"]["dependencies"])
    found: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        each = canonical(requirement)
        try:
            requirements = metadata.requires(each) or []
        except metadata.PackageNotFoundError:
            if ";" in requirement:
                continue
            sys.exit(f"install: {each} is not in {sys.prefix}; run make venv first")
        if each not in found:
            found.add(each)
            wanted += [r for r in requirements if "extra ==" not in r]
    return found


def canonical(requirement: str) -> str:
    """The normalised name (PEP 503) at the beginning of a requirement."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def copy_distribution(distribution: metadata.Distribution, site: Path) -> None:
    """The files that its RECORD lists, without its console scripts. Times are kept: they are what a .pyc
    checks."""
    for file in distribution.files or []:
        if ".." not in file.parts:
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(distribution.locate_file(file)), target)


def copy_project(site: Path) -> None:
    """Our own packages from the checkout (the environment has only a link to it), and their metadata. They tell the
    version of pyproject.toml."""
    for package, directory in PROJECT["tool"]["setuptools"]["package-dir"].items():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / directory, site / package, ignore=ignored)
    version = PROJECT["project"]["version"]
    told = site / "streampiped" / "__init__.py"
    write(told, re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', told.read_text(), flags=re.MULTILINE))
    text = metadata.distribution(NAME).read_text("METADATA") or ""
    text = re.sub(r"^Version: .*$", f"Version: {version}", text, count=1, flags=re.MULTILINE)
    write(site / f"{NAME.replace('-', '_')}-{version}.dist-info" / "METADATA", text)


def write_script(path: Path, python: Path, target: str) -> None:
    """A console script. `-I`: neither PYTHONPATH nor the caller's directory decides what an operator runs."""
    module, _, function = target.partition(":")
    write(path, f"#!{python} -I\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n")
    path.chmod(0o755)


MANUAL: Final = ("streampipectl.1", "streampiped.8", "streampipe.toml.5")


def manual(places: Places) -> Iterator[Path]:
    """Where the pages of docs/man/generate.py go, in the order of `MANUAL`."""
    shared = places.at(places.prefix / "share" / "man")
    return (shared / f"man{name.rpartition('.')[2]}" / f"{name}.gz" for name in MANUAL)


def install_manual(places: Places) -> None:
    """Compressed, as Debian's policy has it, and without a time in the archive: a build can be repeated."""
    with tempfile.TemporaryDirectory() as made:
        subprocess.run([sys.executable, REPOSITORY / "docs" / "man" / "generate.py", made], check=True)
        for name, path in zip(MANUAL, manual(places), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress((Path(made) / name).read_bytes(), mtime=0))
            path.chmod(0o644)


def completions(places: Places) -> dict[str, Path]:
    """Shell -> where it looks for the completion of a command under this prefix. zsh has no directory for vendors
    outside /usr."""
    shared = places.at(places.prefix / "share")
    zsh = "vendor-completions" if places.prefix == Path("/usr") else "site-functions"
    return {
        "bash": shared / "bash-completion" / "completions" / "streampipectl",
        "zsh": shared / "zsh" / zsh / "_streampipectl",
        "fish": shared / "fish" / "vendor_completions.d" / "streampipectl.fish",
    }


def install_completions(places: Places) -> None:
    paths = os.pathsep.join(str(REPOSITORY / name) for name in ("ctl", "daemon"))
    code = "import sys; from streampipectl.app import main; sys.exit(main())"
    for shell, path in completions(places).items():
        printed = subprocess.run(
            [sys.executable, "-c", code, "completion", shell],
            env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip
        write(path, printed)


def write(path: Path, text: str) -> None:
    """A file that everyone may read, whatever the caller's umask, with the directories it needs; there whole or not at
    all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.new")
    made.write_text(text)
    made.chmod(0o644)
    made.replace(path)


def link(path: Path, target: Path) -> None:
    """A link, in the place of whatever is there, without an instant at which there is nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.new")
    made.unlink(missing_ok=True)
    made.symlink_to(target)
    made.replace(path)


def swap(made: Path, place: Path, old: Path) -> None:
    """Put `made` at `place` and remove what was there. By one exchange of both, so that at every instant there is a
    whole program; a file system that has no exchange (NFS, an overlay's lower files) gets two renames, and whoever
    breaks off between these runs the installation again."""
    if place.exists() and not exchange(made, place):
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
    if not place.exists():
        made.rename(place)
    for left in (made, old):
        shutil.rmtree(left, ignore_errors=True)


def exchange(one: Path, other: Path) -> bool:
    """Each in the other's place, at once: renameat2(2) with RENAME_EXCHANGE. False where that cannot be."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # glibc before 2.28
        return False
    done: int = rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    if done == 0:
        return True
    if (error := ctypes.get_errno()) in (errno.EINVAL, errno.ENOSYS, errno.EXDEV):
        return False
    raise OSError(error, os.strerror(error), str(one), None, str(other))


def reload_systemd() -> None:
    if Path("/run/systemd/system").is_dir():  # as sd_booted(3)
        subprocess.run(["systemctl", "daemon-reload"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Install or remove streampipe.")
    parser.add_argument("action", choices=("install", "uninstall"))
    parser.add_argument("--destdir", default="/", help="everything goes below it; nothing of this machine is told")
    parser.add_argument("--prefix", type=Path, default=Path(UNIT_PREFIX), help="where it will be at run time")
    parser.add_argument("--interpreter", type=Path, help="the Python of the service; default: this environment's")
    arguments = parser.parse_args()
    os.umask(0o022)
    places = Places(Path(arguments.destdir or "/"), arguments.prefix)
    if not places.prefix.is_absolute():
        sys.exit(f"install: PREFIX={places.prefix} should be an absolute path")
    if arguments.action == "uninstall":
        uninstall(places)
    else:
        default = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        install(places, arguments.interpreter or default)


if __name__ == "__main__":
    main()
