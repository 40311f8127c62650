"""The command `streampiped`, as an operator types it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from streampiped import __version__
from streampiped.errors import ExitCode
from support.command_line import typed
from support.config_files import CHAIN, SOURCE, TRANSFORM, written

pytestmark = pytest.mark.system

EXAMPLE = Path(__file__).parents[2] / "etc" / "streampipe.toml"
CHECK_CPU_SECONDS_MAX = 4.0  # 1.4 measured, 1.1 of them scikit-learn's import; CPU time, for a busy machine is slow
Check: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = ("pydantic", "numpy", "sklearn", "psutil", "rich", "typer")


@pytest.fixture
def check(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """`streampiped check` in `tmp_path`, without an interpreter of its own."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.endswith("_DIRECTORY")]:
        monkeypatch.delenv(name)
    return lambda *arguments: typed(capfd, "check", *arguments)


def _streampiped(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.endswith("_DIRECTORY")}
    command = [sys.executable, "-m", "streampiped", *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=False)


def test_version(tmp_path: Path) -> None:
    """`--version` prints the version and nothing else."""
    done = _streampiped("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"streampiped {__version__}\n", "")


def test_check_of_a_right_file(tmp_path: Path, check: Check) -> None:
    """A right file is one line on stdout and the notes, exit 0, and nothing is left on the disk."""
    file = written(tmp_path, CHAIN)
    done = check("--config", file)
    assert (done.returncode, done.stderr) == (ExitCode.OK, "")
    services = "(services: log_extractor, service_monitor)"
    told, *notes = done.stdout.splitlines()
    assert told == f'OK {file}: pipeline "streampipe": numbers -> scale -> store {services}'
    assert [note.partition(": ")[0] for note in notes] == ["note"]
    assert list(tmp_path.iterdir()) == [file]


def test_check_of_a_graph(tmp_path: Path, check: Check) -> None:
    """What is no chain is shown stage by stage, each with what it reads."""
    more = f'[stages.other]\n{SOURCE}\n[stages.both]\n{TRANSFORM}\ninput = ["other", "scale"]\n'
    done = check("--config", written(tmp_path, CHAIN + more))
    assert "numbers; other; numbers -> scale; scale -> store; other + scale -> both" in done.stdout


def test_check_tells_of_a_sink_that_cannot_be_tried(tmp_path: Path, check: Check) -> None:
    """A sink without `isolate` is right, and one line says what a record that kills it would take along; one with it is
    not told of."""
    text = "from streampiped.stages.base import SinkStage\nclass Able(SinkStage):\n    def isolate(self): pass\n"
    (tmp_path / "able.py").write_text(text)
    more = '[stages.able]\nclass = "able:Able"\ninput = "scale"\n'
    done = check("--config", written(tmp_path, f'[pipeline]\npython_path = ["."]\n{CHAIN}{more}'))
    assert done.returncode == 0, done
    (note,) = done.stdout.splitlines()[1:]
    assert note.startswith("note: stages.store: streampiped.stages.base:SinkStage has no isolate()")


def test_check_of_a_wrong_file(tmp_path: Path, check: Check) -> None:
    """Every problem is one line on stderr with file, line, key, value and remedy; exit 78."""
    file = written(tmp_path, f'[logs]\nlevel = "loud"\n[pipeline]\nnmae = "x"\n{CHAIN}')
    done = check("--config", file)
    assert (done.returncode, done.stdout) == (ExitCode.CONFIG, "")
    levels = "'debug', 'info', 'notice', 'warning', 'error' or 'critical'"
    assert done.stderr.splitlines() == [
        f'{file}:2: logs.level = "loud": should be {levels}',
        f'{file}:4: pipeline.nmae = "x": no such key; did you mean "name"?',
    ]


def test_run_of_a_wrong_file(tmp_path: Path) -> None:
    """`run` says the same, exits 78 and starts nothing."""
    file = written(tmp_path, "[stages.a]\nclass = 1\n")
    done = _streampiped("run", "--config", file, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.CONFIG, "")
    assert "stages.a.class = 1: should be text" in done.stderr
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("command", ["check", "run"])
def test_missing_file(tmp_path: Path, command: str) -> None:
    """A configuration that is not there is one clear line and exit 78."""
    done = _streampiped(command, "--config", "no.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (ExitCode.CONFIG, "no.toml: cannot be read: No such file or directory\n")


@pytest.mark.skipif(Path("/etc/streampipe/streampipe.toml").exists(), reason="streampipe is installed here")
def test_no_file_given(tmp_path: Path, check: Check) -> None:
    """Without a file and without the system's one, the message says where it would be."""
    done = check()
    assert done.returncode == ExitCode.CONFIG
    assert done.stderr == "no configuration: give --config FILE, or put one at /etc/streampipe/streampipe.toml\n"


def test_wrong_option(tmp_path: Path) -> None:
    """An option that does not exist is a usage error, exit 2."""
    assert _streampiped("check", "--nonsense", cwd=tmp_path).returncode == ExitCode.USAGE


def test_class_that_kills_its_process(tmp_path: Path, check: Check) -> None:
    """A class that crashes the interpreter at import is a clear line and exit 78, not a crash of the command."""
    (tmp_path / "user_crash.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
    text = CHAIN.replace(TRANSFORM, 'class = "user_crash:X"')
    file = written(tmp_path, f'[pipeline]\npython_path = ["."]\n{text}')
    done = check("--config", file)
    assert done.returncode == ExitCode.CONFIG
    assert "the configuration could not be checked: the process was killed by SIGSEGV" in done.stderr


def test_check_that_somebody_kills(tmp_path: Path, check: Check) -> None:
    """A check that was killed from outside, as by the OOM killer, says nothing of the file: exit 1, which systemd tries
    again, where 78 would keep the service down for good."""
    (tmp_path / "user_killed.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    text = CHAIN.replace(TRANSFORM, 'class = "user_killed:X"')
    done = check("--config", written(tmp_path, f'[pipeline]\npython_path = ["."]\n{text}'))
    assert done.returncode == ExitCode.FAILED
    assert "the configuration could not be checked: the process was killed by SIGKILL" in done.stderr


def test_machine_that_is_short_of_something(tmp_path: Path, check: Check) -> None:
    """A full disk that a stage's constructor meets is not the file's fault: a clear line and exit 1, tried again."""
    (tmp_path / "user_full.py").write_text(
        "import errno\nfrom streampiped.stages.base import Stage\nclass X(Stage):\n"
        "    def __init__(self, options, context): raise OSError(errno.ENOSPC, 'No space left on device', '/data')\n"
    )
    text = CHAIN.replace(TRANSFORM, 'class = "user_full:X"')
    file = written(tmp_path, f'[pipeline]\npython_path = ["."]\n{text}')
    done = check("--config", file)
    assert (done.returncode, done.stdout) == (ExitCode.FAILED, "")
    assert done.stderr == f"{file}: stages.scale: No space left on device (/data)\n"


def test_class_that_prints(tmp_path: Path) -> None:
    """What a user's module prints while it is imported is not taken for the answer of the command."""
    (tmp_path / "user_prints.py").write_text(
        "from streampiped.stages.base import Stage\nclass X(Stage): pass\nprint('noise', flush=True)\n"
    )
    text = CHAIN.replace(TRANSFORM, 'class = "user_prints:X"')
    done = _streampiped(
        "check", "--config", written(tmp_path, f'[pipeline]\npython_path = ["."]\n{text}'), cwd=tmp_path
    )
    assert done.stdout.startswith("OK ")
    assert (done.stderr, "noise" in done.stdout) == ("noise\n", False)


SUPERVISED = """
import sys, types
config, heavy = sys.argv[1:]
def run(plan, *, fresh, until_finished, early, directories):
    loaded = {name.partition('.')[0] for name in sys.modules}
    print(plan.pipeline, fresh, until_finished, sorted(loaded & set(heavy.split(','))))
    return 0
sys.modules['streampiped.start'] = types.ModuleType('streampiped.start')
sys.modules['streampiped.start'].run = run
sys.argv[1:] = ['run', '--config', config, '--until-finished']
from streampiped.cli import main
main()
"""
"""`streampiped run` with a supervisor that only looks at what was imported before it."""


def test_process_that_runs_stays_lean(tmp_path: Path) -> None:
    """After a plan was made, with the shipped file, the process that will supervise has imported nothing heavy."""
    command = [sys.executable, "-c", SUPERVISED, str(EXAMPLE), ",".join(HEAVY)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "streampipe False True []\n", "")


def test_check_is_quick(tmp_path: Path) -> None:
    """The shipped configuration is checked with little CPU time, scikit-learn's import included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = _streampiped("check", "--config", EXAMPLE, cwd=tmp_path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == ExitCode.OK, done.stderr
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < CHECK_CPU_SECONDS_MAX
