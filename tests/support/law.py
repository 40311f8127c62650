"""The law on the real daemon: whatever is killed, the outcome is that of a run that nobody disturbed.

`outcome` reads what a finished run has left: the sink's rows, every stage's snapshot, and the report's results.
`Chaos` disturbs a run that is under way, by a seed, and counts what it did.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from streampiped.errors import RpcError
from support.daemon import Daemon, chain, children, comm, is_alive, wait_for

STAGES: Final = ("generator", "normalizer", "consumer", "trainer", "evaluator")
PATIENT: Final = """
[pipeline]
seed = 7
[supervision]
max_restarts = 1000000
window = "1s"
backoff_first = "1ms"
backoff_max = "20ms"
stable_after = "10ms"
[checkpoint]
interval = "{interval}"
[log_extractor]
enabled = false
[service_monitor]
enabled = false
"""
GENERATOR: Final = """
batch_max = {batch}
linger = "1s"
rate = "{rate}"
[stages.generator.source]
type = "synthetic"
records = {records}
drift_at = [{drift}]
"""

STORED: Final = """
[stages.count]
class = "support.simple_stages:Count"
records = {records}
max_rate = "{rate}"
[stages.middle]
class = "support.simple_stages:Mischief"
input = "count"
[stages.consumer]
class = "{consumer}"
input = "middle"
{options}
[stages.total]
class = "support.simple_stages:Total"
input = "consumer"
"""


def config(records: int, *, rate: str = "0/s", batch: int = 256, interval: str = "100ms") -> str:
    """The default chain over a bounded synthetic stream that changes its law in the middle. Every batch is complete: a
    `rate` gives more than `batch` records within `linger`, and where a batch is cut decides the bits."""
    options = GENERATOR.format(batch=batch, rate=rate, records=records, drift=records // 2)
    return PATIENT.format(interval=interval) + chain(options)


def stored(records: int, *, rate: str = "0/s", consumer: str = "consumer", options: str = "") -> str:
    """A bounded stream through the consumer and nothing that learns: it starts in a third of the time."""
    return PATIENT.format(interval="100ms") + STORED.format(
        records=records, rate=rate, consumer=consumer, options=options
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a finished run leaves. Digests, so that a difference is one line and not a million."""

    rows: int
    distinct: int
    digest: str
    snapshots: dict[str, str]
    results: dict[str, Any]

    def differences(self, other: Outcome) -> list[str]:
        """Empty when both are the same to the last bit."""
        found = [name for name in ("rows", "distinct", "digest") if getattr(self, name) != getattr(other, name)]
        found += [f"snapshot of {n}" for n in self.snapshots if self.snapshots[n] != other.snapshots.get(n)]
        return found + [f"results.{n}" for n in self.results if self.results[n] != other.results.get(n)]


def outcome(daemon: Daemon) -> Outcome:
    """Of a pipeline that is finished and still running."""
    return left_in(daemon.state, daemon.call("report")["results"])


def left_in(state: Path, results: dict[str, Any]) -> Outcome:
    """What a finished pipeline has left in a state directory, or a copy of one, and said in its report."""
    snapshots = {name: digest_of(data) for name, data in newest(state / "epochs").items()}
    rows, distinct, digest = rows_in(state / "stages" / "consumer" / "records.sqlite")
    return Outcome(rows, distinct, digest, snapshots, results)


def rows_in(path: Path) -> tuple[int, int, str]:
    """Number, distinct positions and digest of the visible rows, in the order of their ids; without the epoch, whose
    numbers burn."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(records)")]
        listed = ", ".join(f'"{name}"' for name in names)
        digest, rows = hashlib.sha256(), 0
        for row in db.execute(f"SELECT {listed} FROM committed_records ORDER BY id"):
            digest.update(repr(row).encode())
            rows += 1
        distinct = db.execute("SELECT count(DISTINCT position) FROM committed_records").fetchone()[0]
    return rows, distinct, digest.hexdigest()


def newest(epochs: Path) -> dict[str, bytes]:
    """Every stage's snapshot in the newest epoch."""
    last = sorted(epochs.glob("e*.manifest"), key=lambda path: int(path.name[1:].split(".")[0]))[-1]
    parts = json.loads(last.read_text())["parts"]
    return {name: (epochs / part[0]).read_bytes() for name, part in parts.items()}


def digest_of(snapshot: bytes) -> str:
    """Of a snapshot as it lies on the disk."""
    return hashlib.sha256(snapshot).hexdigest()


def hold_out(daemon: Daemon, pids: Mapping[str, int], calm: Outcome) -> None:
    """What the disk did has cost nothing: the stream ends exactly, with the processes it had, and none has died."""
    found = finish(daemon)
    assert daemon.pids() == pids
    assert found.differences(calm) == []
    assert not daemon.events("stage_died")


def finish(daemon: Daemon, seconds: float = 120.0) -> Outcome:
    """Wait until every source has ended and everything is committed."""

    wait_for(lambda: _is_finished(daemon), "the stream has ended and is committed", seconds, step=0.02)
    return outcome(daemon)


@dataclass(slots=True)
class Chaos:
    """Disturbs a run. Every choice follows from the seed; when it is carried out does not."""

    seed: int
    done: Counter[str] = field(default_factory=Counter)
    """Strikes by kind, each once, whoever it hit; none that hit nobody."""
    signals: int = 0
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def pause(self, most: float) -> None:
        """Until the next disturbance: instants are what this is about."""
        time.sleep(self.rng.random() * most)

    def strike(self, daemon: Daemon) -> str:
        """One disturbance of a stage, several, or the launcher; never of the supervisor. What it was."""
        pids = family(daemon)
        stages = [pid for pid, name in pids.items() if name in STAGES]
        launchers = [pid for pid, name in pids.items() if name == "launcher"]
        kind = self.rng.choices(("one", "several", "all", "launcher", "stop"), (50, 15, 8, 12, 15))[0]
        victims = {
            "one": self.rng.sample(stages, min(1, len(stages))),
            "several": self.rng.sample(stages, min(2, len(stages))),
            "all": stages,
            "launcher": launchers,
            "stop": self.rng.sample(stages, min(1, len(stages))),
        }[kind]
        for pid in victims:
            _signal(pid, signal.SIGSTOP if kind == "stop" else signal.SIGKILL)
        if kind == "stop":
            self.pause(0.15)
            for pid in victims:
                _signal(pid, signal.SIGCONT)
        self.done[kind] += bool(victims)
        self.signals += len(victims)
        return kind


@dataclass(slots=True)
class Disturbed:
    """A run under chaos: what it left, what was done to it, and how long it took to come back."""

    outcome: Outcome
    done: Counter[str]
    signals: int
    recoveries: list[float]
    """Seconds from a death to the first new batch at the last stage, of those that no other death interrupted."""
    letters: int


def undisturbed(text: str, directory: Path) -> Outcome:
    """What the pipeline leaves when nobody does anything to it."""
    daemon = Daemon(text, directory)
    try:
        daemon.wait_running()
        return finish(daemon)
    finally:
        daemon.close()


def disturbed(
    text: str, directory: Path, seed: int, strikes: int, *, pause: float = 0.25, masters: int = 8
) -> Disturbed:
    """Run to the end of the stream with up to `strikes` disturbances on the way, `pause` seconds apart at most; every
    `masters`-th is a SIGKILL of the supervisor, which is started again."""
    chaos = Chaos(seed)
    daemon = Daemon(text, directory)
    try:
        daemon.wait_running()
        while chaos.done.total() < strikes and not _is_finished(daemon):
            chaos.pause(pause)
            if chaos.rng.randrange(masters):
                chaos.strike(daemon)
                continue
            daemon.process.kill()
            daemon.process.wait(10.0)
            chaos.done["supervisor"] += 1
            chaos.signals += 1
            left = daemon.family()
            wait_for(lambda gone=left: not any(map(is_alive, gone)), "everything is gone with the supervisor", 5.0)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            daemon.close()
            daemon = Daemon(text, directory)
            daemon.wait_running()
        found = finish(daemon)
        letters = len(daemon.call("dead_letters", status=None)["letters"])
        times = [e["seconds"] for e in daemon.events("first_batch_seen") if str(e["since"]).endswith("died")]
        return Disturbed(found, chaos.done, chaos.signals, times, letters)
    finally:
        daemon.close()


def _is_finished(daemon: Daemon) -> bool:
    try:
        return bool(daemon.status()["state"] == "finished")
    except RpcError:
        return False


def family(daemon: Daemon) -> dict[int, str]:
    """The supervisor's children by pid, as the kernel sees them: no question is put to a daemon in trouble."""
    return {pid: comm(pid) for pid in children(daemon.process.pid)}


def _signal(pid: int, signum: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)
