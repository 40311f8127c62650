"""The real control server on a real socket, and everything that a client may do to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from streampipectl.client import Client
from streampiped.control_server import ControlServer
from streampiped.errors import ExitCode, RpcError, StateError
from streampiped.runtime.rpc_client import RpcClient
from streampiped.runtime.rpc_server import Limits
from streampiped.wire.letters import pack
from streampiped.wire.messages import Guilty
from streampiped.wire.rpc import MESSAGE_BYTES_MAX, Notification, Request, encode
from support.control_backend import STAGES, Daemon, descriptors, process, running, until
from support.daemon import DEADLINE_S

pytestmark = pytest.mark.system

CLIENTS_MAX = 8
STALL_S = 0.2
TIGHT = Limits(clients=CLIENTS_MAX, request_bytes=64 << 10, notify_bytes=16 << 10, stall_s=STALL_S)
"""The server's own behaviour at sizes that a test reaches in milliseconds."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path) as started:
        yield started


@pytest.fixture
def tight(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path, TIGHT) as started:
        yield started


def raw(daemon: Daemon) -> socket.socket:
    """A client without manners."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(daemon.path)  # blocking, so that it waits for its place in a full backlog
    connection.settimeout(10)
    return connection


def rest_of(connection: socket.socket) -> bytes:
    """Everything until the server closes the connection."""
    data = b""
    try:
        while piece := connection.recv(1 << 16):
            data += piece
    except ConnectionResetError:
        pass
    return data


def works(daemon: Daemon) -> bool:
    """Another client is answered."""
    client = Client(daemon.path)
    answer = client.call("status", {})
    client.close()
    return bool(answer["state"] == "running")


def test_every_method_answers(daemon: Daemon) -> None:
    """hello, status, watch and logs answer a plain client; report says why it cannot."""
    client = Client(daemon.path)
    assert client.daemon == {"protocol": 1, "version": "0.1.0", "pipeline": "friedman"}
    status = client.call("status", {"usage": False})
    assert [row["name"] for row in status["processes"]] == list(STAGES)
    assert client.call("logs", {})["lines"] == []
    with pytest.raises(RpcError, match="nothing has been scored") as caught:
        client.call("report", {})
    assert caught.value.code == ExitCode.REFUSED
    assert client.call("watch", {})["pid"] == status["pid"]


@pytest.mark.parametrize("verb", ["start", "stop", "restart"])
def test_change(daemon: Daemon, verb: str) -> None:
    """A change reaches the backend with its stages and who asked, is logged, and tells how long it took."""
    answer = Client(daemon.path).call(verb, {"stages": ["trainer", "trainer"]})
    assert (answer["verb"], answer["changed"], answer["done"]) == (verb, ["trainer"], True)
    assert answer["seconds"] < 5
    assert daemon.backend.changes[0][:2] == (verb, ("trainer",))
    (event,) = daemon.emitted("command_received")
    assert (event["method"], event["params"], event["uid"]) == (verb, "trainer", os.getuid())


def test_restart_by_force(daemon: Daemon) -> None:
    """--force reaches the backend of a restart, is logged, and is no parameter of the other changes."""
    client = Client(daemon.path)
    client.call("restart", {"stages": ["trainer"]})
    assert daemon.backend.forced == []
    client.call("restart", {"stages": ["trainer"], "force": True})
    assert daemon.backend.forced == ["restart"]
    assert [event["params"] for event in daemon.emitted("command_received")] == ["trainer", "trainer by force"]
    with pytest.raises(RpcError, match="no parameter 'force'"):
        client.call("stop", {"force": True})


def test_why(daemon: Daemon) -> None:
    """The reasons of a stage come with the daemon's clock."""
    daemon.backend.story = [{"ts": 5.0, "what": "died: killed by SIGKILL", "cause": "c1"}]
    answer = Client(daemon.path).call("why", {"stage": "trainer"})
    assert (answer["stage"], answer["state"], answer["story"]) == ("trainer", "ready", daemon.backend.story)
    assert answer["now"] > 1e9


def test_checkpoints(daemon: Daemon) -> None:
    """A checkpoint is made under a name, listed with it, and forgotten by it; each change is logged."""
    client = Client(daemon.path)
    made = client.call("checkpoint", {"keep": "nightly"})
    assert (made["epoch"], made["position"], made["keep"], made["done"]) == (232, 232 * 5_000, "nightly", True)
    rows = [(row["epoch"], row["names"], row["live"]) for row in client.call("checkpoints", {})["checkpoints"]]
    assert rows[1:] == [(231, [], False), (232, ["nightly"], True)]
    assert client.call("forget_checkpoint", {"name": "nightly"}) == {"name": "nightly", "epoch": 232}
    with pytest.raises(RpcError, match="no checkpoint 'nightly'") as caught:
        client.call("forget_checkpoint", {"name": "nightly"})
    assert caught.value.code == ExitCode.NO_SUCH_STAGE
    methods = [(event["method"], event["params"]) for event in daemon.emitted("command_received")]
    assert methods[:2] == [("checkpoint", "kept as nightly"), ("forget_checkpoint", "nightly")]


def test_checkpoint_nobody_waits_for(daemon: Daemon) -> None:
    """Without waiting the answer comes while the epoch is still being made, and has none."""
    hold(daemon)
    answer = Client(daemon.path).call("checkpoint", {"wait": False})
    assert (answer["done"], answer["epoch"]) == (False, None)
    release(daemon)
    until(lambda: daemon.backend.finished == ["checkpoint"], "the checkpoint is made")


def test_letters_are_listed_and_shown(daemon: Daemon) -> None:
    """Letters come in pages by id, with counts; one alone comes whole, its record as the bytes that were stored."""
    record = pack({"x": float("nan"), "who": "\ud800"})
    bury(daemon, *(guilty(position, record=record) for position in range(5)))
    client = Client(daemon.path)
    page = client.call("dead_letters", {"limit": 2, "after": 1})
    assert [letter["id"] for letter in page["letters"]] == [2, 3]
    assert (page["total"], page["counts"]) == (5, {"dead": 5, "replayed": 0, "dropped": 0})
    assert "record" not in page["letters"][0]
    assert client.call("dead_letter", {"id": 3})["record"] == record
    with pytest.raises(RpcError, match="no dead letter 9") as caught:
        client.call("dead_letter", {"id": 9})
    assert caught.value.code == ExitCode.NO_SUCH_STAGE


def test_pages_of_large_letters_fit(daemon: Daemon) -> None:
    """However large the letters are, page after page gives each of them once."""
    bury(daemon, *(guilty(position, record=pack({"x": "y" * 100_000})) for position in range(30)))
    client = Client(daemon.path)
    found: list[int] = []
    while page := client.call("dead_letters", {"whole": True, "after": found[-1] if found else 0})["letters"]:
        found += [letter["id"] for letter in page]
    assert found == list(range(1, 31))


def test_replay_and_drop(daemon: Daemon) -> None:
    """Letters are replayed and dropped by number or all of a stage, and the answer says what is still dead."""
    bury(daemon, *(guilty(position) for position in range(5)))
    client = Client(daemon.path)
    answer = client.call("replay", {"ids": [2, 2, 4]})
    assert (answer["letters"], answer["epoch"], answer["dead"], answer["done"]) == (2, 232, 3, True)
    assert client.call("drop", {"ids": [1]}) == {"verb": "drop", "letters": 1, "dead": 2}
    with pytest.raises(RpcError, match="letter 1 is dropped") as caught:
        client.call("replay", {"ids": [3, 1]})
    assert caught.value.code == ExitCode.REFUSED
    assert client.call("drop", {"all": True, "stage": "normalizer"})["letters"] == 0
    assert client.call("drop", {"all": True, "stage": "trainer"}) == {"verb": "drop", "letters": 2, "dead": 0}
    params = [event["params"] for event in daemon.emitted("command_received")]
    assert params == ["2 4", "1", "3 1", "all of normalizer", "all of trainer"]


def test_change_of_a_stage(daemon: Daemon) -> None:
    """A change that only the stage understands is handed on as it is, and the answer says what was recorded where."""
    answer = Client(daemon.path).call("change", {"stage": "trainer", "kind": "promote", "params": {"member": "ridge"}})
    assert (answer["verb"], answer["stage"], answer["params"]) == ("promote", "trainer", {"member": "ridge"})
    assert (answer["epoch"], answer["done"]) == (232, True)
    assert daemon.backend.changes[-1][:2] == ("promote", ("trainer",))
    assert daemon.emitted("command_received")[-1]["params"] == "trainer ridge"


def bury(daemon: Daemon, *verdicts: Guilty) -> None:
    daemon.do(lambda: daemon.backend.letters.add("trainer", verdicts, 1.0))


def guilty(position: int, record: bytes = b"\x80") -> Guilty:
    return Guilty(3, "", "generator", position, 0, "raised", "ValueError: no", "Traceback ...", record)


@pytest.mark.parametrize(
    ("method", "params", "code", "words"),
    [
        ("change", {"kind": "pin"}, ExitCode.USAGE, "stage should be the name of a stage"),
        ("change", {"stage": "trainer", "kind": "replay"}, ExitCode.USAGE, "kind should be a word"),
        ("change", {"stage": "zzz", "kind": "pin"}, ExitCode.NO_SUCH_STAGE, "no stage 'zzz'"),
        ("change", {"stage": "trainer", "kind": "pin", "params": {"x": []}}, ExitCode.USAGE, "params should be a map"),
        ("why", {}, ExitCode.USAGE, "stage should be the name of a stage"),
        ("why", {"stage": "zzz"}, ExitCode.NO_SUCH_STAGE, "no stage 'zzz'"),
        ("checkpoint", {"keep": "231"}, ExitCode.USAGE, "keep should be a name"),
        ("checkpoint", {"keep": "../x"}, ExitCode.USAGE, "keep should be a name"),
        ("forget_checkpoint", {}, ExitCode.USAGE, "name should be a name"),
        ("dead_letters", {"limit": 0}, ExitCode.USAGE, "limit should be a number of letters, 1 to 1000"),
        ("dead_letters", {"limit": 1001}, ExitCode.USAGE, "limit should be"),
        ("dead_letters", {"status": "gone"}, ExitCode.USAGE, "status should be one of dead, replayed, dropped, or"),
        ("dead_letters", {"stage": "zzz"}, ExitCode.NO_SUCH_STAGE, "no stage 'zzz'"),
        ("dead_letters", {"after": 2**63}, ExitCode.USAGE, "after should be"),
        ("dead_letter", {}, ExitCode.USAGE, "id should be the number of a letter"),
        ("replay", {}, ExitCode.USAGE, "should have ids, or all"),
        ("drop", {"ids": []}, ExitCode.USAGE, "should have ids, or all"),
        ("drop", {"ids": [1], "all": True}, ExitCode.USAGE, "should have ids, or all"),
        ("drop", {"ids": [1], "stage": "trainer"}, ExitCode.USAGE, "should have ids, or all"),
        ("drop", {"ids": [True]}, ExitCode.USAGE, "ids should be"),
        ("replay", {"ids": [1] * 1001}, ExitCode.USAGE, "ids should be a list of at most 1000"),
        ("replay", {"all": True, "stage": "zzz"}, ExitCode.NO_SUCH_STAGE, "no stage 'zzz'"),
        ("restart", {"stages": ["trainr"]}, ExitCode.NO_SUCH_STAGE, "did you mean trainer"),
        ("restart", {"stages": ["zzz"]}, ExitCode.NO_SUCH_STAGE, "there are monitor, generator, normalizer, trainer"),
        ("logs", {"stage": "zzz"}, ExitCode.NO_SUCH_STAGE, "no stage 'zzz'"),
        ("restart", {"stages": "trainer"}, ExitCode.USAGE, "stages should be a list"),
        ("restart", {"timeout": 0}, ExitCode.USAGE, "timeout should be seconds"),
        ("restart", {"timeout": float("nan")}, ExitCode.USAGE, "timeout should be seconds"),
        ("restart", {"wait": 1}, ExitCode.USAGE, "wait should be true or false"),
        ("logs", {"lines": -1}, ExitCode.USAGE, "lines should be a number"),
        ("logs", {"level": ["info"]}, ExitCode.USAGE, "level should be one of debug"),
        ("status", {"colour": True}, ExitCode.USAGE, "no parameter 'colour'"),
        ("hello", {"protocol": 2}, ExitCode.PROTOCOL, "speaks protocol 1, the client 2"),
        ("os.system", {}, ExitCode.PROTOCOL, "no method 'os.system'"),
    ],
)
def test_refusals(daemon: Daemon, method: str, params: dict[str, Any], code: ExitCode, words: str) -> None:
    """What cannot be done is said with its code and with what would be right; the connection stays."""
    client = Client(daemon.path)
    with pytest.raises(RpcError, match=words) as caught:
        client.call(method, params)
    assert caught.value.code == code
    assert client.call("status", {})["pipeline"] == "friedman"
    assert daemon.backend.changes == []


def test_refused_by_state(daemon: Daemon) -> None:
    """The backend's refusal reaches the client with its code, also with --no-wait, and is logged."""
    daemon.backend.refusal = RpcError("the pipeline is draining", ExitCode.REFUSED)
    for wait in (True, False):
        with pytest.raises(RpcError, match="draining") as caught:
            Client(daemon.path).call("start", {"wait": wait})
        assert caught.value.code == ExitCode.REFUSED
    assert len(daemon.emitted("command_refused")) == 2


def hold(daemon: Daemon) -> None:
    daemon.backend.hold = daemon.do(asyncio.Event)


def release(daemon: Daemon) -> None:
    assert daemon.backend.hold is not None
    daemon.do(daemon.backend.hold.set)


def test_timed_out_change_goes_on(daemon: Daemon) -> None:
    """A change that takes longer than the client waits answers 8 and is finished later."""
    hold(daemon)
    client = Client(daemon.path)
    with pytest.raises(RpcError, match="still going on") as caught:
        client.call("restart", {"timeout": 0.05})
    assert caught.value.code == ExitCode.TIMED_OUT
    assert daemon.backend.finished == []
    release(daemon)
    until(lambda: daemon.backend.finished == ["restart"], "the change finishes")
    assert daemon.emitted("command_refused") == []


def test_change_survives_its_client(daemon: Daemon) -> None:
    """A change whose client vanishes goes on to its end."""
    hold(daemon)
    connection = raw(daemon)
    connection.sendall(encode(Request(1, "stop", {})))
    until(lambda: daemon.backend.changes, "the change begins")
    connection.close()
    assert works(daemon)
    release(daemon)
    until(lambda: daemon.backend.finished == ["stop"], "the change finishes")


def test_no_wait_answers_at_once(daemon: Daemon) -> None:
    """Without waiting the answer says that the change goes on."""
    hold(daemon)
    assert Client(daemon.path).call("stop", {"wait": False})["done"] is False
    release(daemon)
    until(lambda: daemon.backend.finished == ["stop"], "the change finishes")


def test_failure_that_nobody_waits_for_is_logged(daemon: Daemon) -> None:
    """A change that fails after its client stopped waiting is found in the log."""
    hold(daemon)
    Client(daemon.path).call("stop", {"wait": False})
    daemon.backend.finished = None  # type: ignore[assignment] # the backend breaks
    release(daemon)
    until(lambda: daemon.emitted("request_failed"), "the failure is logged")


def test_broken_handler_is_an_answer(daemon: Daemon) -> None:
    """An exception in the backend becomes code 1 and a log line; the next request is answered."""
    daemon.backend.processes = None  # type: ignore[assignment] # the backend breaks
    client = Client(daemon.path)
    with pytest.raises(RpcError, match="TypeError") as caught:
        client.call("status", {})
    assert caught.value.code == ExitCode.FAILED
    assert daemon.emitted("request_failed")
    assert client.call("hello", {})["protocol"] == 1


AS_NOBODY = "import os, sys\nfrom streampipectl.app import main\nos.setgid(65534); os.setuid(65534)\n"
"""The beginning of a program that speaks as a user whom nobody has named."""


@contextlib.contextmanager
def open_to_all(directory: Path) -> Iterator[Daemon]:
    """A daemon whose socket any user may open."""
    if os.getuid() != 0:
        pytest.skip("needs root to speak as somebody else")
    with running(directory) as daemon:
        os.chmod(daemon.path, 0o666)
        opened_for(directory)
        yield daemon


def test_reader_may_not_change(tmp_path: Path) -> None:
    """A user who is not root, the daemon's user or an operator may read and is refused changes by name."""
    with open_to_all(tmp_path) as daemon:
        script = AS_NOBODY + (
            "path = sys.argv[1]\n"
            "reading = ['status', 'why trainer', 'checkpoints', 'dlq list', 'dlq show 1', 'dlq export']\n"
            "changing = ['restart', 'checkpoint', 'checkpoints --forget a', 'dlq replay --all', 'dlq drop 1']\n"
            "def code(line): return main(['--socket', path, *line.split()])\n"
            "sys.exit([*map(code, reading), *map(code, changing)] != [0] * len(reading) + [6] * len(changing))"
        )
        bury(daemon, guilty(1))
        done = run_python(script, daemon.path)
        assert done == 0
        refused = daemon.emitted("command_refused")
        methods = [event["method"] for event in refused]
        assert methods == ["restart", "checkpoint", "forget_checkpoint", "replay", "drop"]
        assert {event["uid"] for event in refused} == {65534}
        assert daemon.backend.changes == []
        assert daemon.backend.letters.counts()["dead"] == 1


def test_operators_of_a_reload_are_known_at_once(tmp_path: Path) -> None:
    """A user whom a reload has made an operator may change things from then on, and one whom it has struck off may
    not."""
    with open_to_all(tmp_path) as daemon:
        script = AS_NOBODY + ("sys.exit(main(['--socket', sys.argv[1], 'restart']))")
        assert run_python(script, daemon.path) == ExitCode.NOT_PERMITTED
        before = daemon.backend.identity
        daemon.backend.identity = replace(before, operators=("somebody",), uids=frozenset({65534}))
        assert run_python(script, daemon.path) == ExitCode.OK
        daemon.backend.identity = replace(before, uids=frozenset())
        assert run_python(script, daemon.path) == ExitCode.NOT_PERMITTED


def opened_for(directory: Path) -> None:
    """Let everybody through to the socket: pytest's directories are for their user alone."""
    for place in (directory, *directory.parents):
        if place == Path("/tmp"):
            break
        os.chmod(place, 0o755)


def run_python(script: str, *arguments: str) -> int:
    import subprocess
    import sys

    return subprocess.run([sys.executable, "-c", script, *arguments], timeout=DEADLINE_S, check=False).returncode


def test_log_tail_and_follow(daemon: Daemon) -> None:
    """Following gives the tail and then every event of that stage and level, in order and once."""
    for number in range(5):
        daemon.backend.log("stage_output", "trainer", line=str(number))
    client = Client(daemon.path)
    answer = client.call("logs", {"stage": "trainer", "lines": 2, "level": "info", "follow": True})
    assert [record["line"] for record in answer["lines"]] == ["3", "4"]

    def emit() -> None:
        daemon.backend.log("stage_output", "generator", line="other")
        daemon.backend.log("stage_output", "trainer", line="5")
        daemon.backend.log("stage_ready", "trainer", level="debug", line="quiet")
        daemon.backend.log("stage_output", "trainer", line="6")

    daemon.do(emit)
    got = client.notifications(10)
    assert [next(got).params["line"] for _ in range(2)] == ["5", "6"]
    client.close()
    until(lambda: daemon.backend.subscribers["logs"] == [], "the subscription ends with its client")


def test_long_log_is_cut_at_the_old_end(daemon: Daemon) -> None:
    """A tail that does not fit into one message keeps the newest events."""
    for number in range(300):
        daemon.backend.log("stage_output", "trainer", line="x" * 10_000, number=number)
    lines = Client(daemon.path).call("logs", {"lines": 300})["lines"]
    assert 50 < len(lines) < 300
    assert lines[-1]["number"] == 299


def test_watch_tells_changes(daemon: Daemon) -> None:
    """A watcher gets a status after a change of state, and a second one, without any, soon after."""
    client = Client(daemon.path)
    client.call("watch", {})
    until(lambda: daemon.backend.subscribers["status"], "the server subscribes")
    daemon.backend.processes = [process("trainer", state="failed")]
    daemon.do(lambda: daemon.backend.subscribers["status"][0]({}))
    got = client.notifications(10)
    assert next(got).params["processes"][0]["state"] == "failed"
    assert next(got).method == "status"
    client.close()
    until(lambda: daemon.backend.subscribers["status"] == [], "nobody watches any more")


# clients without manners

HOSTILE = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "noise": bytes(range(256)) * 64,
    "reserved byte": b"\x94\xc1",
    "by position": msgpack.packb([0, 1, "status", [1, 2, 3]]),
    "nesting bomb": b"\x94\x00\x01\xa1m" + b"\x91" * 5000,
    "oversized": b"\x94\x00\x01\xa1m\xc6\x7f\xff\xff\xff" + bytes(70 << 10),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_garbage_ends_its_client_alone(tight: Daemon, data: bytes) -> None:
    """Who talks garbage is told, dropped and logged; the others are answered."""
    connection = raw(tight)
    connection.sendall(data)
    assert b"goodbye" in rest_of(connection)
    assert tight.emitted("client_dropped")
    assert works(tight)


@pytest.mark.parametrize("data", [b"\x94", b"\x94\x00\x01\xa6stat", b"\x94\x00\x01\xdb\xff\xff\xff\xff"])
def test_half_message_is_dropped(tight: Daemon, data: bytes) -> None:
    """A message that is begun and not finished, of whatever announced length, ends with its deadline."""
    connection = raw(tight)
    connection.sendall(data)
    assert works(tight)
    assert b"not complete" in rest_of(connection)
    assert works(tight)


def test_drip_is_no_progress(tight: Daemon) -> None:
    """A byte now and then does not move the deadline of a message."""
    connection = raw(tight)
    connection.settimeout(STALL_S / 10)
    connection.sendall(b"\x94\x00\x01\xdb\x00\x00\xff\xff")
    for _ in range(200):
        try:
            connection.send(b"x")
            if b"not complete" in connection.recv(4096):
                break
        except TimeoutError:
            continue
        except (BrokenPipeError, ConnectionResetError):
            break
    else:
        pytest.fail("the server waits for ever")
    assert works(tight)


def test_idle_client_may_stay(tight: Daemon) -> None:
    """A client that is connected and silent is not in anybody's way and is left alone."""
    idle = Client(tight.path)
    half = raw(tight)
    half.sendall(b"\x94")
    rest_of(half)
    assert idle.call("status", {})["state"] == "running"


def test_pipelined_requests_in_order(daemon: Daemon) -> None:
    """Requests sent in one go, and cut anywhere, are answered in their order."""
    connection = raw(daemon)
    data = b"".join(encode(Request(number, "hello", {})) for number in range(200))
    connection.sendall(data[:701])
    connection.sendall(data[701:])
    unpacker = msgpack.Unpacker()
    answers: list[Any] = []
    while len(answers) < 200:
        unpacker.feed(connection.recv(1 << 16))
        answers.extend(unpacker)
    assert [answer[1] for answer in answers] == list(range(200))
    assert all(answer[2] is None for answer in answers)


def test_one_request_at_a_time(daemon: Daemon) -> None:
    """A request behind one that takes long is answered after it, and other clients are answered meanwhile."""
    hold(daemon)
    connection = raw(daemon)
    connection.sendall(encode(Request(1, "restart", {})) + encode(Request(2, "hello", {})))
    until(lambda: daemon.backend.changes, "the change begins")
    assert works(daemon)
    release(daemon)
    connection.shutdown(socket.SHUT_WR)
    unpacker = msgpack.Unpacker()
    unpacker.feed(rest_of(connection))
    assert [answer[1] for answer in unpacker] == [1, 2]


def test_half_closed_client_is_answered(daemon: Daemon) -> None:
    """A client that sends its request and closes its sending side still gets the answer."""
    connection = raw(daemon)
    connection.sendall(encode(Request(5, "hello", {})))
    connection.shutdown(socket.SHUT_WR)
    assert msgpack.unpackb(rest_of(connection))[:3] == [1, 5, None]


def test_client_that_never_reads(tight: Daemon) -> None:
    """Who asks and does not read is dropped after its deadline; the server does no more than fill its
    socket."""
    connection = raw(tight)
    connection.setblocking(False)
    request = encode(Request(1, "status", {}))
    with pytest.raises(BlockingIOError):
        flood(connection, request)
    assert works(tight)
    until(lambda: any("does not read" in e["reason"] for e in tight.emitted("client_dropped")), "the client is dropped")
    assert works(tight)


def flood(connection: socket.socket, data: bytes) -> None:
    """Send until the other side takes no more."""
    while True:
        connection.send(data)


def test_follower_that_never_reads(tight: Daemon) -> None:
    """A follower that is too slow loses events and not the daemon's memory; it is dropped in the end."""
    client = Client(tight.path)
    client.call("logs", {"follow": True, "lines": 0})

    def log_much() -> None:
        for number in range(2000):
            tight.backend.log("stage_output", "trainer", line="x" * 1000, number=number)

    tight.do(log_much)
    assert works(tight)
    until(lambda: any("does not read" in e["reason"] for e in tight.emitted("client_dropped")), "the client is dropped")
    until(lambda: tight.backend.subscribers["logs"] == [], "its subscription is gone")


def test_slow_follower_is_told_what_it_missed(daemon: Daemon) -> None:
    """Events delivered and events reported as missed are all there were; delivered ones keep their order."""
    client = Client(daemon.path)
    client.call("logs", {"follow": True, "lines": 0})
    logged = 3000

    def log_much() -> None:
        for number in range(logged):
            daemon.backend.log("stage_output", "trainer", line="x" * 1000, number=number)

    daemon.do(log_much)
    numbers: list[int] = []
    missed = 0
    for notification in client.notifications(10):
        if notification.method == "missed":
            missed += notification.params["count"]
        else:
            numbers.append(notification.params["number"])
        if len(numbers) + missed == logged:
            break
    assert missed > 0
    assert numbers == sorted(numbers)


def test_too_many_clients(tight: Daemon) -> None:
    """Beyond the limit a client is refused at once and told; when one leaves, the next is served."""
    crowd = [Client(tight.path) for _ in range(CLIENTS_MAX)]
    for _ in range(100):
        with pytest.raises(RpcError, match="clients already") as caught:
            Client(tight.path)
        assert caught.value.code == ExitCode.UNREACHABLE
    assert all(client.call("status", {})["state"] == "running" for client in crowd)
    assert len(tight.emitted("client_dropped")) == 1
    crowd.pop().close()
    until(lambda: served(tight), "the place is free")


def served(daemon: Daemon) -> bool:
    try:
        return works(daemon)
    except RpcError:
        return False


def test_a_hundred_connections(tmp_path: Path) -> None:
    """64 of 100 connections at once are served, the others refused, and none leaves a descriptor behind."""
    with running(tmp_path) as daemon:
        before = descriptors()
        connections = [raw(daemon) for _ in range(100)]
        for connection in connections:
            with contextlib.suppress(BrokenPipeError):  # refused already
                connection.sendall(encode(Request(1, "hello", {})))
        answers = [connection.recv(4096) for connection in connections]
        assert sum(b"clients already" in answer for answer in answers) == 36
        assert sum(b"friedman" in answer for answer in answers) == 64
        for connection in connections:
            connection.close()
        until(lambda: descriptors() <= before, "every descriptor is closed")


def test_no_descriptor_is_left(daemon: Daemon) -> None:
    """Clients that vanish before, in and after a request leave nothing open."""
    before = descriptors()
    request = encode(Request(1, "status", {}))
    for number in range(200):
        connection = raw(daemon)
        connection.send(request[: number % (len(request) + 1)] or b"\x94")
        connection.close()
    until(lambda: descriptors() <= before, "every descriptor is closed")
    assert works(daemon)


def test_out_of_descriptors(tmp_path: Path) -> None:
    """Without free descriptors new clients wait, and are served when there are some again; nothing spins or
    dies."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with running(tmp_path) as daemon:
        waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(4)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        fillers: list[int] = []
        try:
            with pytest.raises(OSError, match="Too many open files"):
                fill(fillers)
            for connection in waiting:
                connection.connect(daemon.path)
                connection.sendall(encode(Request(1, "hello", {})))
            until(lambda: daemon.emitted("client_dropped"), "the shortage is noticed")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for filler in fillers:
                os.close(filler)
        assert all(b"friedman" in connection.recv(4096) for connection in waiting)
        assert len(daemon.emitted("client_dropped")) < 20


def fill(fillers: list[int]) -> None:
    """Open descriptors until there are no more."""
    while True:
        fillers.append(os.dup(0))


# the socket's file


def test_permissions(daemon: Daemon) -> None:
    """The socket is for its owner, and for the group only when that group was given."""
    mode = stat.S_IMODE(os.stat(daemon.path).st_mode)
    assert mode in (0o600, 0o660)
    if mode == 0o660:
        import grp

        assert grp.getgrgid(os.stat(daemon.path).st_gid).gr_name == "streampipe"


def test_stale_socket_is_replaced(tmp_path: Path) -> None:
    """The socket of a killed daemon does not keep the next one from starting."""
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stale.bind(str(tmp_path / "control.sock"))
    stale.close()
    with running(tmp_path) as daemon:
        assert works(daemon)


def second(daemon: Daemon, path: str | None = None) -> ControlServer:
    return ControlServer(path or daemon.path, daemon.backend, lambda event, /, **fields: None)


def test_live_socket_is_refused(daemon: Daemon) -> None:
    """A second daemon at the same path refuses to start and leaves the first alone."""
    with pytest.raises(StateError, match="a running daemon"):
        daemon.do(lambda: second(daemon).start())
    assert works(daemon)


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    """Something that is no socket is not removed."""
    (tmp_path / "control.sock").write_text("mine")
    (tmp_path / "other").mkdir()
    with running(tmp_path / "other") as daemon, pytest.raises(StateError, match="no socket"):
        daemon.do(lambda: second(daemon, str(tmp_path / "control.sock")).start())
    assert (tmp_path / "control.sock").read_text() == "mine"


def test_path_too_long(tmp_path: Path, daemon: Daemon) -> None:
    """A path that no Unix socket can have is named, with its limit."""
    with pytest.raises(StateError, match="107 bytes"):
        daemon.do(lambda: second(daemon, str(tmp_path / ("d" * 120))).start())


def test_close_says_goodbye_and_cleans_up(tmp_path: Path) -> None:
    """At the end clients are told, and the socket's file is gone; one that another daemon put there is
    kept."""
    with running(tmp_path) as daemon:
        client = Client(daemon.path)
        daemon.do(daemon.server.close)
        with pytest.raises(RpcError, match="going down"):
            next(client.notifications(10))
        assert not os.path.exists(daemon.path)
    with running(tmp_path) as daemon:
        os.unlink(daemon.path)
        successor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        successor.bind(daemon.path)
        daemon.do(daemon.server.close)
        assert os.path.exists(daemon.path)
        successor.close()


# the asynchronous client


def test_async_client_reconnects(tmp_path: Path) -> None:
    """A kept connection serves many calls; after the server was away the next call connects anew."""
    client = RpcClient(tmp_path / "control.sock", timeout=DEADLINE_S)

    async def session() -> None:
        with pytest.raises(RpcError) as caught:
            await client.call("hello")
        assert caught.value.code == ExitCode.UNREACHABLE
        for _ in range(2):
            daemon = await asyncio.to_thread(start)
            answers = await asyncio.gather(*(client.call("hello", {"protocol": 1}) for _ in range(20)))
            assert {answer["pipeline"] for answer in answers} == {"friedman"}
            with pytest.raises(RpcError, match="no method"):
                await client.call("nonsense")
            await asyncio.to_thread(daemon.stop)
        with pytest.raises(RpcError) as caught:
            await client.call("hello")
        assert caught.value.code == ExitCode.UNREACHABLE
        client.close()

    def start() -> Daemon:
        daemon = Daemon(tmp_path)
        daemon.start()
        return daemon

    asyncio.run(session())


def test_async_client_times_out(daemon: Daemon) -> None:
    """A call without an answer ends with its time, and the late answer is not taken for that of the next
    call."""
    hold(daemon)
    client = RpcClient(daemon.path)

    async def session() -> None:
        with pytest.raises(RpcError) as caught:
            await client.call("restart", timeout=0.05)
        assert caught.value.code == ExitCode.TIMED_OUT
        release(daemon)
        assert (await client.call("hello"))["protocol"] == 1
        client.close()

    asyncio.run(session())


def test_async_client_survives_nonsense(tmp_path: Path) -> None:
    """A server that answers garbage, the wrong request, nothing or too much gives an RpcError each time."""
    path = str(tmp_path / "x.sock")
    answers = [b"HTTP/1.1 400\r\n", encode(Notification("log", {})), msgpack.packb([1, 99, None, 1]), b"", bytes(9)]
    answers.append(b"\x94\x01\x01\xc0\xc6\x7f\xff\xff\xff" + bytes(MESSAGE_BYTES_MAX))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answers[0])
        writer.close()

    async def session() -> None:
        server = await asyncio.start_unix_server(serve, path)
        client = RpcClient(path, timeout=DEADLINE_S)
        while answers:
            with pytest.raises(RpcError):
                await client.call("score", {"version": 1})
            answers.pop(0)
        client.close()
        server.close()

    asyncio.run(session())
