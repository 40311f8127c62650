"""The trainer's API and the logs of a running daemon, with clients that behave and clients that do not."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from streampipectl.client import Client
from streampiped.errors import RpcError
from support.daemon import BIN, Daemon, chain, descriptors, running, wait_for

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
        process.communicate(timeout=10)


def test_log_extractor_counts_what_happened(daemon: Daemon) -> None:
    """The log extractor has counted the daemon's events from its log."""
    path = daemon.state / "stages" / "log_extractor"
    wait_for(lambda: path.exists() and any(path.iterdir()), "its database")
