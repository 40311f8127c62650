"""`report --html` and `--plot`: files that are whole or not there, and clear words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.control_backend import DEADLINE_S, Daemon, running
from support.report_answer import answer

pytestmark = pytest.mark.system

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path) as started:
        started.backend.reported = answer()
        yield started


def report(daemon: Daemon, *words: str, code: str | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run `streampipectl report`; `code` is run before in the same interpreter."""
    begin = ["-m", "streampipectl.app"]
    if code is not None:
        begin = ["-c", f"{code}; from streampipectl.app import main; raise SystemExit(main())"]
    line = [sys.executable, *begin, "--socket", daemon.path, "report", *words]
    return subprocess.run(line, capture_output=True, timeout=DEADLINE_S, check=False)


def test_page_is_written(daemon: Daemon, tmp_path: Path) -> None:
    """The page of what the daemon answers is in the file, nothing on stdout and nothing else in the directory; one
    that was there is replaced, and everybody may read it."""
    folder = tmp_path / "out"
    folder.mkdir()
    place = folder / "r.html"
    place.write_text("old")
    done = report(daemon, "--html", str(place))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    text = place.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.endswith("</html>\n")
    assert "<title>friedman: report</title>" in text
    assert os.listdir(folder) == ["r.html"]
    assert place.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("word", ["--html=-", "--html -"])
def test_page_on_stdout(daemon: Daemon, word: str) -> None:
    """- is stdout."""
    done = report(daemon, *word.split(" "))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"<!doctype html>")


def test_json_beside_the_page(daemon: Daemon, tmp_path: Path) -> None:
    """With --json the answer is printed too; both in one output are refused as a mistake."""
    done = report(daemon, "--json", "--html", str(tmp_path / "r.html"))
    assert json.loads(done.stdout)["results"]["verdict"] == "good"
    assert (tmp_path / "r.html").exists()
    done = report(daemon, "--json", "--html", "-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"need an output each" in done.stderr


def test_what_cannot_be_written_is_said(daemon: Daemon, tmp_path: Path) -> None:
    """A directory that is not there, a file in its place or a directory in the file's is said in a line; nothing is
    left behind."""
    (tmp_path / "file").write_text("mine")
    for place, words in (
        ("nowhere/r.html", f"there is no directory {tmp_path}/nowhere"),
        ("file/r.html", "Not a directory"),
        ("", "is a directory"),
    ):
        before = sorted(os.listdir(tmp_path))
        done = report(daemon, "--html", f"{tmp_path}/{place}")
        assert (done.returncode, done.stdout) == (7, b"")
        assert words in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1
        assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_directory_of_others(daemon: Daemon, tmp_path: Path) -> None:
    """Where one may not write, that is said, and nothing is left."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    from streampipectl.files import complaint, write_whole

    child = os.fork()
    if child == 0:  # as nobody, who can do nothing else here either
        code = 1
        try:
            os.chdir(folder)
            os.setuid(65534)
            write_whole("r.html", b"x")
        except PermissionError as error:
            code = 0 if "no permission to write in" in complaint("r.html", error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert os.listdir(folder) == []


def test_picture(daemon: Daemon, tmp_path: Path) -> None:
    """--plot writes a PNG with matplotlib."""
    pytest.importorskip("matplotlib")
    done = report(daemon, "--plot", str(tmp_path / "r.png"))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "r.png").read_bytes().startswith(PNG)


def test_picture_of_nothing() -> None:
    """What an answer lacks is said in the picture's place, and no picture fails for it."""
    pytest.importorskip("matplotlib")
    from streampipectl.plot_report import picture

    whole = answer()["results"]
    for results in ({}, {"curve": {"bins": [None, {"from": 0}]}, "sample": [[1, None, 2, 3], [1, 2, None, 3]]}, whole):
        assert picture({"results": results}).startswith(PNG)


def test_picture_without_matplotlib(daemon: Daemon, tmp_path: Path) -> None:
    """Without matplotlib --plot says what to install, writes nothing, the page neither, and the page alone is made."""
    absent = "import sys; sys.modules['matplotlib'] = None"
    words = ("--plot", str(tmp_path / "r.png"), "--html", str(tmp_path / "r.html"))
    done = report(daemon, *words, code=absent)
    assert (done.returncode, done.stdout) == (7, b"")
    assert b"pip install 'streampipe-daemon[plot]'" in done.stderr
    assert not (tmp_path / "r.html").exists()
    assert report(daemon, *words[2:], code=absent).returncode == 0


def test_text_waits_for_no_page(daemon: Daemon) -> None:
    """`report` without a file loads nothing of the page or the picture."""
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))"
    loaded = report(daemon, code=code).stderr.decode().split()
    assert "streampipectl.commands" in loaded
    names = ("html", "matplotlib", "streampipectl.html_report", "streampipectl.report_files", "streampipectl.svg_chart")
    assert not {*names} & {*loaded}
