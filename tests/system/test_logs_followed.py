"""`streampipectl logs -f` across the death of the daemon and the start of the next one."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from streampiped.wire.rpc import Decoder, Notification, Request, Response, encode
from support.daemon import BIN, Daemon, simple, wait_for

pytestmark = pytest.mark.system

PIPELINE = simple(rate="500/s")
DEADLINE_S = 60.0


class Follower:
    """`logs -f --json` in a process of its own, that writes into files."""

    def __init__(self, root: Path, runtime: Path, *words: str) -> None:
        self._out, self._err = root / "followed", root / "complaints"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            command = [BIN / "streampipectl", "--runtime-dir", str(runtime), "logs", "-f", "--json", *words]
            self.process = subprocess.Popen(command, stdout=out, stderr=err)

    def shown(self) -> list[dict[str, Any]]:
        """Events so far."""
        return [json.loads(line) for line in self._out.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def complaints(self) -> list[str]:
        return self._err.read_text().splitlines()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def following(daemon: Daemon, *words: str) -> Iterator[Follower]:
    follower = Follower(daemon.root, daemon.run, *words)
    try:
        yield follower
    finally:
        follower.close()


def kill(daemon: Daemon) -> None:
    """kill -9, and nothing is left of it."""
    daemon.process.kill()
    daemon.process.wait(DEADLINE_S)
    wait_for(lambda: not daemon.family(), "its processes have gone with it", DEADLINE_S)


def wait_level(follower: Follower, daemon: Daemon, words: tuple[str, ...]) -> None:
    """Until what was shown is what stands in the log."""
    wait_for(lambda: follower.shown() == alike(daemon.events(), words), "every event, each once", DEADLINE_S)


def alike(events: list[dict[str, Any]], words: tuple[str, ...]) -> list[dict[str, Any]]:
    """What of the log a follower with these words has to show."""
    stage = words[0] if words and not words[0].startswith("-") else None
    return [event for event in events if event["level"] != "debug" and stage in (None, event["stage"])]


@pytest.mark.parametrize("words", [("--lines", "1000"), ("middle", "--since", "1h")], ids=["all", "one stage"])
def test_killed_daemon_is_followed_into_its_next_life(tmp_path: Path, words: tuple[str, ...]) -> None:
    """While it follows, the daemon is killed twice and started again, once while the follower stands still: what was
    shown is in the end the event file, every event once and in its order, and what it waits for was said."""
    with contextlib.ExitStack() as stack:
        daemon = Daemon(PIPELINE, tmp_path)
        stack.callback(daemon.close)
        daemon.wait_running()
        follower = stack.enter_context(following(daemon, *words))
        for life in (1, 2):
            wait_level(follower, daemon, words)
            if life == 2:
                follower.process.send_signal(signal.SIGSTOP)
            assert daemon.ctl("restart", "middle", "--force").returncode == 0
            kill(daemon)
            daemon.close()
            daemon = Daemon(PIPELINE, tmp_path)
            stack.callback(daemon.close)
            daemon.wait_running()
            daemon.wait_event("pipeline_ready", life + 1)
        follower.process.send_signal(signal.SIGCONT)
        wait_level(follower, daemon, words)
        assert follower.complaints()
        assert all(line.endswith("; waiting for it to come back") for line in follower.complaints())


class Lives:
    """A daemon of a few words on a real socket: each life is what `logs` is answered, request for request, and then the
    notifications; it ends without a word."""

    def __init__(self, runtime: Path, lives: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]) -> None:
        runtime.mkdir()
        self.asked: list[list[Mapping[str, Any]]] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(runtime / "control.sock"))
        self._listener.listen()
        self._listener.settimeout(DEADLINE_S)
        self._thread = threading.Thread(target=self._serve, args=(lives,))
        self._thread.start()

    def _serve(self, lives: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]]) -> None:
        with self._listener:
            for answers, notifications in lives:
                connection, _ = self._listener.accept()
                with connection:
                    connection.settimeout(DEADLINE_S)
                    self._live(connection, list(answers), notifications)

    def _live(self, connection: socket.socket, answers: list[dict[str, Any]], told: list[dict[str, Any]]) -> None:
        decoder = Decoder()
        self.asked.append([])
        while answers:
            for request in decoder.feed(connection.recv(65536)):
                assert isinstance(request, Request)
                if request.method == "hello":
                    connection.sendall(encode(Response(request.id, None, {"version": "0"})))
                    continue
                self.asked[-1].append(request.params)
                connection.sendall(encode(Response(request.id, None, answers.pop(0))))
        connection.sendall(b"".join(encode(Notification("log", each)) for each in told))

    def close(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


def event(number: int, **changes: Any) -> dict[str, Any]:
    """That happened at `number`."""
    return {
        "ts": float(number),
        "level": "info",
        "event": "stage_output",
        "stage": "a",
        "pid": 7,
        "line": "x",
    } | changes


def answer(*lines: dict[str, Any], complete: bool = True) -> dict[str, Any]:
    return {"lines": list(lines), "complete": complete}


@pytest.mark.parametrize(
    ("first", "told", "then", "expected", "complaints"),
    [
        pytest.param(
            [answer(event(1), event(2))], [event(3)], answer(event(1), event(2), event(3), event(4)), [1, 2, 3, 4], 2,
            id="written and not told",
        ),
        pytest.param([answer(event(1))], [event(2)], answer(event(1), event(2)), [1, 2], 2, id="nothing new"),
        pytest.param(
            [answer(event(8))], [event(9)], answer(event(8), event(9), event(2), event(3)), [8, 9, 2, 3], 2,
            id="a clock set back",
        ),
        pytest.param(
            [answer(event(1))], [event(2)], answer(event(1), event(2), event(2), event(2)), [1, 2, 2, 2], 2, id="twins",
        ),
        pytest.param(
            [answer(event(1))], [event(2)], answer(event(1), event(2, line="cut"), event(3)), [1, 2, 3], 2,
            id="one that the file has shorter",
        ),
        pytest.param(
            [answer(), answer(event(5))], [], answer(event(4), event(5), event(6)), [6], 2, id="nothing was shown",
        ),
        pytest.param(
            [answer(), answer(event(5))], [event(5)], answer(event(5), event(6)), [5, 6], 2, id="told while it asked",
        ),
        pytest.param([answer(), answer()], [], answer(event(1), event(2)), [1, 2], 2, id="an empty log"),
        pytest.param(
            [answer(event(1))], [], answer(event(500), event(501), complete=False), [1, 500, 501], 3, id="too many",
        ),
    ],
)  # fmt: skip
def test_where_the_next_daemon_is_taken_up(
    tmp_path: Path,
    first: list[dict[str, Any]],
    told: list[dict[str, Any]],
    then: dict[str, Any],
    expected: list[int],
    complaints: int,
) -> None:
    """Behind the last event that was shown in the order of the log, whatever its time says; what was missed for good is
    said. Ctrl-C ends it while it waits, as ever."""
    lives = Lives(tmp_path / "run", [(first, told), ([then], [])])
    follower = Follower(tmp_path, tmp_path / "run")
    try:
        lives.close()
        wait_for(lambda: len(follower.complaints()) == complaints, "it waits once more", DEADLINE_S)
        assert [each["ts"] for each in follower.shown()] == expected
        assert len(lives.asked[0]) == len(first)
        assert lives.asked[1][0]["follow"]
        follower.process.send_signal(signal.SIGINT)
        assert follower.process.wait(DEADLINE_S) == 130
    finally:
        follower.close()
