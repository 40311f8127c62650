"""An operator's changes of the model in a running pipeline, and what kills do to them: nothing."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from streampipectl.client import Client
from streampiped.errors import ExitCode, RpcError
from streampiped.records import Batch
from streampiped.stages.base import StageContext
from streampiped.stages.generator import Generator
from streampiped.stages.normalizer import Normalizer
from streampiped.stages.trainer import Trainer
from streampiped.wire.state import pack
from support.daemon import BIN, Daemon, chain, is_alive, running, wait_for
from support.law import config, finish

pytestmark = [pytest.mark.system, pytest.mark.slow]

RECORDS = 60_000
BATCH = 256
RETAINED = 50
SEED = 7  # of support.law.PATIENT
KIND = "streampiped.stages.trainer:Trainer"


def changed(daemon: Daemon, kind: str, *what: str) -> None:
    done = daemon.ctl("model", kind, *what)
    assert done.returncode == 0, done.stderr


def versions(daemon: Daemon) -> list[dict[str, Any]]:
    """As `model list` has them; a stage that comes back is waited for."""

    def listed() -> Any:
        done = daemon.ctl("model", "list", "--json")
        return json.loads(done.stdout)["versions"] if done.returncode == 0 else None

    found: list[dict[str, Any]] = wait_for(listed, "there are versions", 60.0)
    return found


def newest(daemon: Daemon) -> int:
    """The version whose parameters are kept for longest."""
    return int(max(version["version"] for version in versions(daemon) if version["kept"]))


def killed(daemon: Daemon, victim: str, text: str) -> Daemon:
    """SIGKILL of a stage, or of the supervisor, which is started again."""
    if victim != "supervisor":
        pid = daemon.pids()[victim]
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: daemon.pids().get(victim, pid) != pid, f"{victim} has a successor", 60.0)
        wait_for(lambda: daemon.ctl("model", "show").returncode == 0, "it serves a model", 60.0)
        return daemon
    daemon.process.kill()
    daemon.process.wait(10.0)
    left = daemon.family()
    wait_for(lambda: not any(map(is_alive, left)), "everything is gone with the supervisor", 60.0)
    daemon.close()
    again = Daemon(text, daemon.root)
    again.wait_running(seconds=60.0)
    return again


def snapshot(daemon: Daemon) -> bytes:
    """The trainer's, of the newest epoch."""
    epochs = daemon.state / "epochs"
    newest = max(epochs.glob("e*.manifest"), key=lambda path: int(path.name[1:].split(".")[0]))
    return (epochs / json.loads(newest.read_text())["parts"]["trainer"][0]).read_bytes()


class Reference:
    """The same stages, called one after the other in this process."""

    def __init__(self, directory: Path) -> None:
        source = {"type": "synthetic", "records": RECORDS, "drift_at": [RECORDS // 2]}
        self._generator = made(Generator, directory, {"batch_max": BATCH, "source": source})
        self._normalizer = made(Normalizer, directory, {})
        self.trainer: Trainer = made(Trainer, directory, {"retain_versions": RETAINED})
        self.rows = 0

    def feed(self, rows: int) -> None:
        """Up to this row of the stream."""
        while self.rows < rows:
            batch = self._generator.read(0.0)
            assert isinstance(batch, Batch)
            self.trainer.process(self._normalizer.process(batch))
            self.rows += batch.rows
        assert self.rows == rows


def made(klass: Any, directory: Path, options: Mapping[str, Any]) -> Any:
    name = klass.__name__.lower()
    (directory / name).mkdir(parents=True, exist_ok=True)
    context = StageContext(name, zlib.crc32(f"{SEED}:{name}".encode()), SEED, directory / name)
    return klass(klass.Options.model_validate(options), context)


@pytest.mark.parametrize("victim", ["trainer", "supervisor"])
def test_changes_survive_kills(tmp_path: Path, victim: str) -> None:
    """promote, pin and rollback in a pipeline under load, each with a SIGKILL right behind it: at the end the trainer's
    snapshot, champion history included, is bit for bit that of stages that nobody killed and that were changed at the
    same rows."""
    text = config(RECORDS, rate="6k/s").replace('class = "trainer"', f'class = "trainer"\nretain_versions = {RETAINED}')
    (tmp_path / "daemon").mkdir()
    daemon = Daemon(text, tmp_path / "daemon")
    try:
        daemon.wait_running(seconds=60.0)
        wait_for(lambda: versions(daemon), "a first version", 60.0)
        first = versions(daemon)[0]
        for kind, *what in (("promote", "ridge_100"), ("pin", "current"), ("rollback", str(first["version"]))):
            changed(daemon, kind, *what)
            daemon = killed(daemon, victim, text)
            daemon.wait_running(seconds=60.0)
        finish(daemon)
        applied = [(e["what"].split()[0], int(e["row"])) for e in daemon.events("model_changed")]
        told = daemon.call("report")
        found, listed = snapshot(daemon), versions(daemon)
    finally:
        daemon.close()

    places = list(dict.fromkeys(applied))  # a restore says it again
    assert [kind for kind, _ in places] == ["promote", "pin", "rollback"]
    reference = Reference(tmp_path / "reference")
    reference.feed(first["rows"])
    reference.trainer.snapshot()
    reference.trainer.committed(first["version"])
    wanted: dict[str, dict[str, Any]] = {
        "promote": {"member": "ridge_100"},
        "pin": {"member": "current"},
        "rollback": {"version": first["version"]},
    }
    for kind, row in places:
        reference.feed(row)
        planned = reference.trainer.query("plan", {"kind": kind, "params": wanted[kind]})
        assert planned["refused"] is None
        reference.trainer.change(kind, planned["params"])
    reference.feed(RECORDS)
    assert pack(KIND, reference.trainer.snapshot()) == found
    assert listed[0]["reasons"] == ["first"]
    assert {"promote", "pin", "rollback"} <= {reason for row in listed for reason in row["reasons"]}
    assert told["results"]["rows"] == RECORDS


# the commands


@pytest.fixture(scope="module")
def daemon() -> Any:
    with running(chain('rate = "5k/s"')) as found:
        wait_for(lambda: versions(found), "a first version", 60.0)
        yield found


def predicted(daemon: Daemon, text: str | bytes, *options: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [BIN / "streampipectl", "--runtime-dir", str(daemon.run), "predict", *options],
        input=text.encode() if isinstance(text, str) else text,
        capture_output=True,
        check=False,
        timeout=60.0,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def features(daemon: Daemon) -> list[str]:
    names: list[str] = json.loads(daemon.ctl("model", "show", "--json").stdout)["features"]
    return names


def test_rows_in_rows_out(daemon: Daemon) -> None:
    """CSV and JSON lines give the same predictions, each row with its own columns, missing values included; what the
    normalizer makes of the rows is asked of it, and said."""
    names = features(daemon)
    rows: list[dict[str, Any]] = [{"id": f"r{n}", **dict.fromkeys(names, n / 7)} for n in range(5)]
    rows[3][names[0]] = None
    header = ["id", *reversed(names)]
    lines = [",".join("" if row[name] is None else str(row[name]) for name in header) for row in rows]
    version = str(newest(daemon))
    csv = predicted(daemon, "\n".join([",".join(header), *lines]) + "\n", "--model", version, "--to", "jsonl")
    jsonl = predicted(daemon, "".join(json.dumps(row) + "\n" for row in rows), "--model", version, "--as-is")
    assert csv.returncode == jsonl.returncode == 0
    found = [json.loads(line) for line in csv.stdout.splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert all(row["prediction_low"] <= row["prediction"] <= row["prediction_high"] for row in found)
    assert "as normalizer would pass them on" in csv.stderr
    assert "as they are" in jsonl.stderr
    assert [json.loads(line)["id"] for line in jsonl.stdout.splitlines()] == [row["id"] for row in rows]


def test_large_input_goes_in_parts(daemon: Daemon) -> None:
    """More rows than a message holds come out in their order, each once."""
    names = features(daemon)
    text = (
        ",".join(["n", *names]) + "\n" + "".join(f"{n}," + ",".join(["0.25"] * len(names)) + "\n" for n in range(20000))
    )
    done = predicted(daemon, text)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == ",".join(["n", *names, "prediction", "prediction_low", "prediction_high"])
    assert [int(line.partition(",")[0]) for line in lines[1:]] == list(range(20000))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("0.5", "high", 1), "line 2: column x1: 'high' is no number"),
        (lambda text: text + "1,2\n", "line 4: 2 values, should be"),
        (lambda text: text.replace("x2", "x1", 1), "line 1: a column's name stands twice"),
        (lambda text: text.replace("x2", "other", 1), "line 1: no column x2; wanted are x1"),
        (lambda text: text.replace(",", ";"), "the only one of this header has ';' in it"),
        (lambda text: "\n" + text.replace(",", "\t"), "line 2: no column x1, x2"),
        (lambda text: text.replace(",", "\t"), "the only one of this header has a tab in it"),
        (lambda text: '[{"x1": 1}]', "line 1: a JSON array; give an object per line"),
        (lambda text: '\n[\n{"x1": 1}\n]\n', "line 2: a JSON array"),
        (lambda text: '{"x1": 1, "x1": 2}\n', "line 1: no JSON: x1 stands twice in an object"),
        (lambda text: text + '"', "line 4: unexpected end of data"),
        (lambda text: text.encode() + b"\xff\n", "line 4: no UTF-8"),
        (lambda text: '{"x1": 1}\n{"x1"\n', "line 1: no column"),
        (lambda text: '{"x1": [1]}\n', "line 1: column x1: [1] is no number"),
        (lambda text: "\n{broken\n", "line 2: no JSON"),
    ],
)
def test_mistakes_name_their_line(daemon: Daemon, change: Any, words: str) -> None:
    """What is wrong with the input is said with its line, exit code 1; rows before it are answered."""
    names = features(daemon)
    good = ",".join(names) + "\n" + (",".join(["0.5"] * len(names)) + "\n") * 2
    done = predicted(daemon, change(good))
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    if "line 4" in words:
        assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize("text", ["", "\n", "x1,x2\n", "x1,x2\n\n"])
def test_no_rows_are_said(daemon: Daemon, text: str) -> None:
    """Nothing came in, nothing goes out, and that is said: the pipe before it may be broken."""
    done = predicted(daemon, text)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "streampipectl: no rows came in\n")


def test_what_does_not_come_out_as_it_came_is_said(daemon: Daemon) -> None:
    """What JSON does not have is null, and a column that is called as the answer is gives way; both are counted out."""
    row = dict.fromkeys(features(daemon), 0.5)
    lines = json.dumps({**row, "x1": float("nan"), "note": float("inf")}) + "\n" + json.dumps({**row, "prediction": 3})
    done = predicted(daemon, lines)
    assert done.returncode == 0
    assert [json.loads(line)["x1"] for line in done.stdout.splitlines()] == [None, 0.5]
    assert "2 values that JSON does not have (NaN, infinities) are null" in done.stderr
    assert "prediction of the input has made way for that of the model" in done.stderr


def test_a_column_that_comes_late(daemon: Daemon) -> None:
    """A header that is written has no room for it: that is a mistake with its line, and JSON lines keep it."""
    row = dict.fromkeys(features(daemon), 0.5)
    lines = [json.dumps(row), json.dumps({**row, "x1": None}), json.dumps({**row, "late": 7}), json.dumps(row)]
    done = predicted(daemon, "\n".join(lines), "--to", "csv")
    assert done.returncode == 1
    assert "line 3: late: a column that the first row has not" in done.stderr
    assert len(done.stdout.splitlines()) == 3
    done = predicted(daemon, "\n".join(lines))
    assert [json.loads(line).get("late") for line in done.stdout.splitlines()] == [None, None, 7, None]


def whole(value: Any) -> Any:
    """What an exported JSON file has, with its arrays as bytes again."""
    if isinstance(value, list):
        return [whole(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if value.get("~") == "array":
        return {**value, "data": base64.b64decode(value["data"], validate=True)}
    return {name: whole(entry) for name, entry in value.items()}


@pytest.mark.parametrize("kind", ["json", "npz", "onnx", "skops"])
def test_exports_are_written_whole(daemon: Daemon, tmp_path: Path, kind: str) -> None:
    """Every format comes as a file, and answers as the version does."""
    version = str(newest(daemon))
    path = tmp_path / f"model.{kind}"
    done = daemon.ctl("model", "export", version, "--format", kind, "--output", str(path))
    assert done.returncode == 0, done.stderr
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    if kind == "npz":
        kept = daemon.state / "stages" / "trainer" / "models" / f"v{int(version):08d}.npz"
        assert path.read_bytes() == kept.read_bytes()
    if kind == "json":
        shown = json.loads(path.read_text())
        assert shown["epoch"] == int(version)
        there = Client(str(daemon.run / "trainer.sock")).call("export", {"version": int(version)})
        assert whole(shown["state"]) == there["state"]
        assert whole(shown["frame"]) == there["frame"]
    done = daemon.ctl("model", "export", version, "--format", kind, "--output", str(tmp_path / "no" / "file"))
    assert done.returncode == 7
    assert "there is no directory" in done.stderr


def test_what_cannot_be_had_is_refused(daemon: Daemon) -> None:
    """With the exit code and the words that an operator needs, and nothing recorded."""
    for line, code, words in (
        ("promote zzz", 4, "no member 'zzz'; there are blend"),
        ("pin zzz", 4, "no member 'zzz'; there are blend"),
        ("rollback 99999", 4, "no model of epoch 99999 is kept"),
        ("unpin", 7, "no member is pinned"),
        ("list --stage normalizer", 7, "normalizer has no model"),
        ("list --stage zzz", 4, "no stage 'zzz'"),
        ("show 99999", 4, "no model of epoch 99999 is kept"),
        ("export 99999", 4, "no model of epoch 99999 is kept"),
    ):
        done = daemon.ctl("model", *line.split())
        assert (done.returncode, words in done.stderr) == (code, True), (line, done.returncode, done.stderr)
    done = predicted(daemon, "x1\n1\n", "--model", "99999")
    assert (done.returncode, "no model of epoch 99999 is kept" in done.stderr) == (4, True)


def test_the_interfaces_themselves_have_the_codes(daemon: Daemon) -> None:
    """Whoever asks without `streampipectl`, the trainer or the daemon, is answered with the codes of control.md."""
    for method, params, code in (
        ("predict", {"rows": [], "version": 99999}, ExitCode.NO_SUCH_STAGE),
        ("show", {"version": 99999}, ExitCode.NO_SUCH_STAGE),
        ("show", {"version": "x"}, ExitCode.USAGE),
        ("history", {"limit": -1}, ExitCode.USAGE),
        ("history", {"nonsense": 1}, ExitCode.USAGE),
        ("nonsense", {}, ExitCode.USAGE),
    ):
        with pytest.raises(RpcError) as caught:
            Client(str(daemon.run / "trainer.sock")).call(method, params)
        assert (method, caught.value.code) == (method, code), caught.value
    for kind, params, code in (
        ("pin", {"member": "zzz"}, ExitCode.NO_SUCH_STAGE),
        ("rollback", {"version": 99999}, ExitCode.NO_SUCH_STAGE),
        ("rollback", {"version": "x"}, ExitCode.USAGE),
        ("unpin", {}, ExitCode.REFUSED),
        ("frob", {}, ExitCode.USAGE),
    ):
        asked = {"stage": "trainer", "kind": kind, "params": params}
        with pytest.raises(RpcError) as caught:
            Client(str(daemon.run / "control.sock")).call("change", asked)
        assert (kind, caught.value.code) == (kind, code), caught.value


def test_no_process_is_restarted_for_a_change(daemon: Daemon) -> None:
    """A change takes effect directly behind a barrier: all processes live on, and it is in the manifest."""
    pids = daemon.pids()
    changed(daemon, "pin", "current")
    changed(daemon, "unpin")
    assert daemon.pids() == pids
    wait_for(lambda: len(daemon.events("model_changed")) >= 2, "both are applied", 60.0)
    assert not daemon.events("stage_died")
