"""Runs the real daemon in a directory of its own, watches it as an operator would, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from streampipectl.client import Client
from streampiped.errors import RpcError

T = TypeVar("T")

TESTS = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
READY_S = 60.0  # a cold launcher takes a second; a loaded machine several
LIMITED = """
import os, resource, sys
resource.setrlimit(int(sys.argv[1]), (int(sys.argv[2]),) * 2)
os.execv(sys.argv[3], sys.argv[3:])
"""
DEADLINE_S = 60.0  # for what takes a second on a machine that is left alone

SIMPLE = """
[stages.count]
class = "support.simple_stages:Count"
max_rate = "{rate}"
{count}
[stages.middle]
class = "support.simple_stages:Mischief"
input = "count"
{middle}
[stages.total]
class = "support.simple_stages:Total"
input = "middle"
{total}
"""


CHAIN = """
[stages.generator]
class = "generator"
{generator}
[stages.normalizer]
class = "normalizer"
input = "generator"
[stages.consumer]
class = "consumer"
input = "normalizer"
{consumer}[stages.trainer]
class = "trainer"
input = "consumer"
{trainer}[stages.evaluator]
class = "evaluator"
input = "trainer"
"""


def wait_for(condition: Callable[[], T | None], what: str, seconds: float = DEADLINE_S, step: float = 0.02) -> T:
    """The first true value of `condition`; an assertion with `what` when there is none in time."""
    pause = threading.Event()
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        pause.wait(step)


def simple(count: str = "", middle: str = "", total: str = "", head: str = "", *, rate: str = "100k/s") -> str:
    """A configuration of three small stages, without services. `rate`: of its source, by default one that leaves the
    machine to the tests; "0/s" is as fast as it goes, which keeps two cores busy."""
    off = "\n[log_extractor]\nenabled = false\n[service_monitor]\nenabled = false\n"
    return head + SIMPLE.format(rate=rate, count=count, middle=middle, total=total) + off


def chain(generator: str = "", consumer: str = "", trainer: str = "") -> str:
    """A configuration of the five built-in stages, without end and as fast as it goes; the options of three of them,
    those of the last two in whole lines."""
    return CHAIN.format(generator=generator, consumer=consumer, trainer=trainer)


class Daemon:
    """One run of `streampiped run`."""

    def __init__(
        self, config: str, directory: Path | None = None, *arguments: str, limit: tuple[int, int] | None = None
    ) -> None:
        """`config` is TOML without [paths]; `python_path` is set to tests/. `limit`: a resource (RLIMIT_...) and how
        much of it the daemon may have."""
        self._own_directory = directory is None
        self.root = directory or Path(tempfile.mkdtemp(prefix="streampipe-"))
        self.config = self.root / "streampipe.toml"
        if "[pipeline]" not in config:
            config = "[pipeline]\n" + config
        config = config.replace("[pipeline]\n", f'[pipeline]\npython_path = ["{TESTS}"]\n', 1)
        self.config.write_text(config)
        self.state, self.run, self.logs = (self.root / name for name in ("state", "run", "log"))
        self.process = subprocess.Popen(
            [
                *([sys.executable, "-c", LIMITED, *map(str, limit)] if limit is not None else ()),
                BIN / "streampiped", "run", "--config", str(self.config),
                "--state-dir", str(self.state), "--runtime-dir", str(self.run), *arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=open(self.root / "stderr", "ab"),  # noqa: SIM115  handed to the child
            env={**os.environ, "LOGS_DIRECTORY": str(self.logs)},
            start_new_session=True,
        )  # fmt: skip
        self._client: Client | None = None
        self._seen: set[int] = set()

    # talking

    def call(self, method: str, **params: Any) -> Any:
        """One request on a kept connection."""
        if self._client is None:
            self._client = Client(str(self.run / "control.sock"))
        return self._client.call(method, params, timeout=60.0)

    def ctl(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """`streampipectl` as an operator types it."""
        return subprocess.run(
            [BIN / "streampipectl", "--runtime-dir", str(self.run), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.call("status")
        self._seen |= {p["pid"] for p in status["processes"] if p["pid"]} | {status["pid"]}
        return status

    def process_status(self, name: str) -> dict[str, Any]:
        return next(p for p in self.status()["processes"] if p["name"] == name)

    def pids(self) -> dict[str, int]:
        return {p["name"]: p["pid"] for p in self.status()["processes"] if p["pid"]}

    def launcher_pid(self) -> int:
        return next(pid for pid in children(self.process.pid) if comm(pid) == "launcher")

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The log so far."""
        path = self.logs / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        records = [json.loads(line) for line in lines]
        return [r for r in records if name is None or r["event"] == name]

    # waiting

    def wait_running(self, generation: int = 1, seconds: float = READY_S) -> dict[str, Any]:
        """Wait until a generation of at least this number runs."""

        def ready() -> dict[str, Any] | None:
            assert self.process.poll() is None, f"the daemon ended: {self.stderr()}"
            try:
                status = self.status()
            except RpcError:
                if self._client is not None:
                    raise
                return None  # the socket is not there, or not listening yet
            good = status["state"] in ("running", "finished", "degraded") and status["generation"] >= generation
            return status if good else None

        return wait_for(ready, f"generation {generation} runs", seconds)

    def wait_event(self, name: str, count: int = 1, seconds: float = DEADLINE_S) -> dict[str, Any]:
        """The count-th event of this name."""
        return wait_for(lambda: self.events(name)[count - 1 : count], f"event {name} #{count}", seconds)[0]

    def wait_degraded(self) -> dict[str, Any]:
        """The first status that says so."""
        return wait_for(lambda: (s := self.status())["state"] == "degraded" and s, "it is said to be degraded", 30.0)

    def wait_progress(self, records: int = 1) -> None:
        """Wait until the last stage has had `records` more records in the present generation."""
        last = self.status()["processes"][-1]
        start, generation = last["records_in"] or 0, self.status()["generation"]

        def moved() -> bool:
            status = self.status()
            count = status["processes"][-1]["records_in"] or 0
            return count >= start + records if status["generation"] == generation else count >= records

        wait_for(moved, "progress at the last stage")

    def stderr(self) -> str:
        return (self.root / "stderr").read_text(errors="replace")

    # ending

    def stop(self, seconds: float = 40.0) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 60.0) -> int:
        self.out = self.process.communicate(timeout=seconds)[0].decode()
        return self.process.returncode

    def family(self) -> set[int]:
        """Every living process that belongs to this run, the daemon itself included."""
        marked = {pid for pid in all_pids() if f"STREAMPIPE_RUN={self.process.pid}-".encode() in environ(pid)}
        return marked | ({self.process.pid} if is_alive(self.process.pid) else set())

    def close(self) -> None:
        """End whatever is left, by pid; without a drain, which the tests that are about it do with `stop`."""
        if self._client is not None:
            self._client.close()
        family = self.family()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10.0)
        if self.process.stdout is not None:
            self.process.stdout.close()
        for pid in family | self.family():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._own_directory:
            shutil.rmtree(self.root, ignore_errors=True)


@contextlib.contextmanager
def running(config: str, directory: Path | None = None, *arguments: str) -> Iterator[Daemon]:
    """A daemon whose first generation runs; ended afterwards, whatever happens."""
    daemon = Daemon(config, directory, *arguments)
    try:
        daemon.wait_running()
        yield daemon
    finally:
        daemon.close()


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environ(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, ppid, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid: int) -> bool:
    """Exists and is no zombie."""
    fields = stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def children(pid: int) -> list[int]:
    return [p for p in all_pids() if (fields := stat(p)) and int(fields[1]) == pid]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def thread_count(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def rss_mib(pid: int) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
