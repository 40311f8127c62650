"""Readers of trainer.sock that are slow, dead, or thousands: learning goes on, and whoever behaves is answered."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from streampipectl.client import Client
from streampiped.errors import RpcError
from streampiped.wire.rpc import MESSAGE_BYTES_MAX, Request, encode
from support.daemon import Daemon, chain, descriptors, rss_mib, running, wait_for

pytestmark = pytest.mark.system

CLIENTS_MAX = 64  # streampiped.runtime.rpc_connection.Limits


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with running(chain('rate = "5k/s"')) as daemon:
        daemon.wait_progress(1_000)
        yield daemon


def connected(path: str) -> socket.socket:
    """Blocking: where too many wait to be accepted, connect() waits as well."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return sock


def test_readers_that_are_stuck_stop_no_learning(daemon: Daemon) -> None:
    """Forty clients that read nothing of answers of a megabyte, send half a request, or one that is too large: the
    stream goes on meanwhile, others are answered, memory is bounded, and in the end they are dropped."""
    path, pid = str(daemon.run / "trainer.sock"), daemon.pids()["trainer"]
    api = Client(path, 60.0)
    wait_for(lambda: api.call("info", {})["epoch"], "a model is served")
    columns = len(api.call("info", {})["features"])
    before, memory, generation = descriptors(pid), rss_mib(pid), daemon.status()["generation"]
    question = encode(Request(1, "predict", {"rows": [[0.5] * columns] * 8_000}))
    half, huge = question[: len(question) // 2], b"\xc6\x7f\xff\xff\xff" + bytes(MESSAGE_BYTES_MAX)
    stuck = []
    for number in range(40):
        sock = connected(path)
        sock.setblocking(False)
        for data in ([question] * 4, [half], [huge], [encode(Request(1, "export", {}))] * 50)[number % 4]:
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                sock.send(data)
        stuck.append(sock)
    rows = api.call("info", {})["rows"]
    wait_for(lambda: api.call("info", {})["rows"] > rows + 10_000, "learning goes on")
    assert len(api.call("predict", {"rows": [[0.5] * columns]})["predictions"]) == 1
    wait_for(lambda: descriptors(pid) <= before, "who reads nothing is dropped")
    assert rss_mib(pid) < memory + 64
    assert (daemon.status()["generation"], daemon.pids()["trainer"]) == (generation, pid)
    for sock in stuck:
        sock.close()
    api.close()


def test_thousands_of_connections_are_bounded(daemon: Daemon) -> None:
    """Two thousand clients: 64 of them are served, the others are told to go, the stream goes on, and when they have
    gone the next one is answered."""
    path, pid = str(daemon.run / "trainer.sock"), daemon.pids()["trainer"]
    api = Client(path, 60.0)
    wait_for(lambda: api.call("info", {})["epoch"], "a model is served")
    rows, before, most = api.call("info", {})["rows"], descriptors(pid), 0
    kept = []
    for number in range(2_000):
        kept.append(connected(path))
        if number % 100 == 0:
            most = max(most, descriptors(pid))
        if len(kept) > 500:
            kept.pop(0).close()
    assert most <= before + CLIENTS_MAX
    wait_for(lambda: api.call("info", {})["rows"] > rows + 5_000, "learning goes on")
    for sock in kept:
        sock.close()

    def answered() -> bool:
        with contextlib.suppress(RpcError, OSError):
            other = Client(path, 60.0)
            try:
                return bool(other.call("info", {})["features"])
            finally:
                other.close()
        return False

    wait_for(answered, "the next one is answered")
    wait_for(lambda: descriptors(pid) <= before, "the descriptors are back")
    assert daemon.pids()["trainer"] == pid
    api.close()
