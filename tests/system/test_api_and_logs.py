"""The trainer's API and the logs of a running daemon, with clients that behave and clients that do not."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pwd
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from streampipectl.client import Client
from streampiped.errors import RpcError
from support.daemon import BIN, DEADLINE_S, Daemon, chain, descriptors, running, simple, wait_for
from support.fake_journalctl import Journal, lives

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("api and logs")]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    with running(chain('rate = "5k/s"')) as daemon:
        daemon.wait_progress(1_000)
        yield daemon


@pytest.fixture
def api(daemon: Daemon) -> Iterator[Client]:
    client = Client(str(daemon.run / "trainer.sock"))
    yield client
    client.close()


def test_predict_score_info_export(daemon: Daemon, api: Client) -> None:
    """The trainer's API predicts, scores, describes and exports the model while it learns."""
    wait_for(lambda: api.call("info", {})["versions"], "a committed epoch")
    info = api.call("info", {})
    rows = [[0.0] * len(info["features"]), [1.0] * len(info["features"])]
    version = info["versions"][-1]
    answer = api.call("predict", {"rows": rows, "version": version})
    assert len(answer["predictions"]) == 2
    assert all(math.isfinite(value) for value in answer["predictions"])
    score = api.call("score", {"rows": rows, "targets": answer["predictions"], "version": version})
    assert score["mse"] == 0.0  # the model of an epoch does not change while the stage goes on learning
    assert api.call("export", {})["format"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("predict", {"rows": [[1.0]]}),
        ("predict", {"rows": "none"}),
        ("predict", {"rows": [[0.0]], "version": 10**6}),
        ("predict", {"nonsense": 1}),
        ("no_such_method", {}),
    ],
)
def test_wrong_calls_are_answered(daemon: Daemon, api: Client, method: str, params: dict[str, object]) -> None:
    """A wrong call is answered with an error that says what is wrong; the connection and the stage live on."""
    generation = daemon.status()["generation"]
    with pytest.raises(RpcError) as error:
        api.call(method, params)
    assert len(str(error.value)) > 8
    assert api.call("info", {})["features"]
    assert daemon.status()["generation"] == generation


@pytest.mark.parametrize("name", ["trainer.sock", "control.sock"])
def test_hostile_clients_hurt_nobody(daemon: Daemon, name: str) -> None:
    """Garbage, half frames, huge lengths, silent and vanishing clients: the others are answered, nothing restarts, no
    descriptor stays."""
    path = str(daemon.run / name)
    pid = daemon.pids()["trainer"] if name == "trainer.sock" else daemon.process.pid
    before = descriptors(pid)
    generation = daemon.status()["generation"]
    attacks = [
        b"\xc1" * 100,
        b"\x94\x00\x01",
        b"\xdd" + struct.pack(">I", 2**31),
        b"\xc6" + struct.pack(">I", 2**31),
        b"",
    ]
    sockets = []
    for _ in range(6):
        for attack in attacks:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(path)
            with contextlib.suppress(OSError):
                sock.sendall(attack)
            sockets.append(sock)
    client = Client(path)
    assert client.call("info" if name == "trainer.sock" else "status", {})
    client.close()
    for sock in sockets:
        sock.close()
    wait_for(lambda: descriptors(pid) <= before, "the descriptors are back")
    assert daemon.status()["generation"] == generation


def test_crosscheck_reaches_the_evaluator(daemon: Daemon) -> None:
    """The evaluator asks the trainer's API about held-out rows after an epoch, and reports the answer."""
    wait_for(lambda: daemon.call("report")["operations"]["crosscheck"].get("answered"), "an answered cross-check")


def test_logs_of_one_stage(daemon: Daemon) -> None:
    """`logs STAGE` shows that stage's events and no others, `--json` one object a line."""
    daemon.ctl("restart", "trainer")
    done = daemon.ctl("logs", "trainer", "--json", "--lines", "50")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert records or daemon.ctl("logs", "--json").stdout
    assert {record["stage"] for record in records} <= {"trainer"}


def test_logs_follow(daemon: Daemon) -> None:
    """`logs -f` shows what happens from now on."""
    command = [BIN / "streampipectl", "--runtime-dir", str(daemon.run), "logs", "-f", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        generation = daemon.status()["generation"]
        seen = b""

        def read() -> bool:
            nonlocal seen
            with contextlib.suppress(BlockingIOError):
                seen += os.read(process.stdout.fileno(), 65536)  # type: ignore[union-attr]  # a pipe, see above
            return bool(seen)

        wait_for(read, "the lines so far")
        assert daemon.ctl("restart", "normalizer").returncode == 0
        wait_for(
            lambda: read() and f'"generation":{generation + 1}' in seen.decode().replace(" ", ""), "the new generation"
        )
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE_S)


def test_logs_since(daemon: Daemon) -> None:
    """`logs --since` shows what is not older, as time ago or as a date, and says what would be right."""
    daemon.ctl("restart", "normalizer")
    everything = [json.loads(line) for line in daemon.ctl("logs", "--since", "1h", "--json").stdout.splitlines()]
    assert "pipeline_started" in {record["event"] for record in everything}
    stamp = datetime.fromtimestamp(everything[len(everything) // 2]["ts"], UTC).isoformat()
    moment = datetime.fromisoformat(stamp).timestamp()  # to the microsecond
    expected = [record for record in everything if record["ts"] >= moment]
    newer = [json.loads(line) for line in daemon.ctl("logs", "--since", stamp, "--json").stdout.splitlines()]
    assert newer[: len(expected)] == expected
    assert 0 < len(expected) < len(everything)
    wrong = daemon.ctl("logs", "--since", "yesterday")
    assert wrong.returncode == 2
    assert "such as 30s, 10m, 2h or 1d" in wrong.stderr


def test_summary_of_the_log(daemon: Daemon) -> None:
    """`logs --summary` tells of a restart by an operator and of a death with its reason, each counted once, and the
    report and the files say the same."""
    daemon.ctl("restart", "normalizer")
    os.kill(daemon.pids()["evaluator"], signal.SIGKILL)

    def restarts() -> dict[tuple[str, str], int]:
        found = json.loads(daemon.ctl("logs", "--summary", "--json").stdout)["restarts"]
        return {(row["stage"], row["reason"]): row["count"] for row in found}

    wait_for(lambda: restarts().get(("evaluator", "killed by SIGKILL")), "the death in the summary")
    wait_for(lambda: daemon.status()["state"] == "running", "everything runs again")
    who = pwd.getpwuid(os.getuid()).pw_name
    assert restarts()["normalizer", f"asked for by {who}"] >= 1
    text = daemon.ctl("logs", "--summary", "evaluator").stdout
    assert "killed by SIGKILL" in text
    assert max(map(len, text.splitlines())) <= 80
    assert daemon.ctl("logs", "--summary", "nobody").returncode == 4
    assert daemon.ctl("logs", "--summary", "-f").returncode == 2

    def all_counted() -> bool:
        lines = sum(len(path.read_bytes().splitlines()) for path in daemon.logs.iterdir())
        return bool(daemon.call("log_summary")["events"] == lines)

    wait_for(all_counted, "every line of the log is counted")


def test_report_has_the_log(daemon: Daemon) -> None:
    """The report has a section of the log, in its text and among its operations, and not in its results."""
    report = wait_for(lambda: _report(daemon), "a report with the log")
    assert report["operations"]["log"]["events"] > 0
    assert "\nLog\n  events " in report["text"]
    assert "log" not in report["results"]


def test_report_has_the_processes(daemon: Daemon) -> None:
    """Among its operations a report has CPU and memory of every process, in the order of `status`, since the start;
    and not in its results."""

    def seen() -> dict[str, Any] | None:
        report: dict[str, Any] = daemon.call("report")
        used = report["operations"]["processes"]
        return report if used and len(used["history"]) == len(daemon.call("status")["processes"]) + 2 else None

    report = wait_for(seen, "a history of every process")
    used = report["operations"]["processes"]
    processes = [process["name"] for process in daemon.call("status")["processes"]]
    assert list(used["history"]) == ["supervisor", "launcher", *processes]
    for points in used["history"].values():
        assert 0 < len(points) <= 120
        assert all(used["since"] <= ts <= used["until"] and cpu >= 0 and rss > 0 for ts, cpu, rss, _ in points)
    assert "processes" not in report["results"]


def _report(daemon: Daemon) -> dict[str, Any] | None:
    report: dict[str, Any] = daemon.call("report")
    return report if report["operations"]["log"] else None


def test_killed_extractor_counts_once(daemon: Daemon) -> None:
    """The extractor killed while the log grows counts every line once."""
    for _ in range(3):
        os.kill(wait_for(lambda: daemon.pids().get("log_extractor"), "an extractor"), signal.SIGKILL)
        daemon.ctl("restart", "normalizer")
    wait_for(lambda: daemon.process_status("log_extractor")["state"] == "running", "another extractor")

    def all_counted() -> bool:
        lines = sum(len(path.read_bytes().splitlines()) for path in daemon.logs.iterdir())
        with contextlib.suppress(RpcError):  # it may be on its way
            return bool(daemon.call("log_summary")["events"] == lines)
        return False

    wait_for(all_counted, "every line of the log is counted")


def test_journal_is_followed(tmp_path: Path) -> None:
    """With `from = "journal"` the extractor counts what journalctl says, across its own death and journalctl's, and
    leaves none behind."""
    journal = Journal(tmp_path / "journal")
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{journal.path()}:{before}"
    try:
        with running('[log_extractor]\nfrom = "journal"\n' + simple_with_extractor()) as daemon:
            for n in range(100):
                journal.say(f"row {n} of 100")
            wait_for(lambda: daemon.call("log_summary")["events"] == 100, "100 entries")
            os.kill(journal.pids()[-1], signal.SIGKILL)
            os.kill(daemon.pids()["log_extractor"], signal.SIGKILL)
            for n in range(100):
                journal.say(f"row {n} of 100")

            def counted() -> int:
                with contextlib.suppress(RpcError):
                    return int(daemon.call("log_summary")["events"])
                return 0

            wait_for(lambda: counted() >= 200, "200 entries")
            (template,) = daemon.call("log_summary")["templates"]
            assert (template["template"], template["count"]) == ("row <n> of <n>", 200)
            os.kill(journal.pids()[-1], signal.SIGKILL)
            wait_for(lambda: "journal_failed" in daemon.ctl("logs", "--json").stdout, "the word that it ended")
            journal.say("row 7 of 100")
            wait_for(lambda: counted() == 201, "the entry that came meanwhile")
        assert not any(map(lives, journal.pids()))
    finally:
        os.environ["PATH"] = before


def simple_with_extractor() -> str:
    return simple(rate="1k/s").replace("\n[log_extractor]\nenabled = false", "")


def test_log_extractor_counts_what_happened(daemon: Daemon) -> None:
    """The log extractor has counted the daemon's events from its log."""
    path = daemon.state / "stages" / "log_extractor"
    wait_for(lambda: path.exists() and any(path.iterdir()), "its database")
