"""Log lines as services write them, each with the statement that wrote it: what a miner of templates is measured by."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

NAMES: Final = ("alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy")
TOPICS: Final = ("orders", "payments", "clicks", "sensors", "users")
STAGES: Final = ("generator", "normalizer", "consumer", "trainer", "evaluator")
HOSTS: Final = ("db1.example.org", "db2.example.org", "cache-7", "edge-12", "mail.example.com")
PHASES: Final = ("starting", "loading", "ready", "draining", "stopped")

FORMS: Final[tuple[str, ...]] = (
    "worker {n} failed after {f} s",
    "worker-{n}: heartbeat missed, {n} in a row",
    "loss {f} after epoch {n}",
    "accuracy {f} after epoch {n}",
    "Connection from {ip} port {n} closed",
    "Accepted publickey for {name} from {ip} port {n}",
    "Failed password for {name} from {ip} port {n}",
    "Failed password for invalid user {name} from {ip} port {n}",
    "session opened for user {name} by (uid={n})",
    "session closed for user {name}",
    "user {name} logged in",
    "{name} joined the group {topic}",
    "GET {path} {n} {n} {f}",
    "POST {path} {n} {n} {f}",
    "opened {path} in {f} ms",
    "could not open {path}: Permission denied",
    "could not open {path}: No such file or directory",
    "partition {n} of topic {topic} assigned to consumer {hex}",
    "partition {n} of topic {topic} revoked from consumer {hex}",
    "committed offset {n} for topic {topic}",
    "retrying request {uuid} to {host} in {f} s",
    "retry budget of {host} exhausted",
    "connected to {host}",
    "disconnected from {host}",
    "stage={stage} state={phase} took={f}ms",
    "cache hit ratio {f} over the last {n} requests",
    "cache evicted {n} entries to free {n} bytes",
    "{path}:{n}: ConvergenceWarning: Maximum number of iteration reached before convergence.",
    "{path}:{n}: RuntimeWarning: invalid value encountered in divide",
    "{path}:{n}: RuntimeWarning: overflow encountered in exp",
    "ValueError: could not convert string to float: '{name}'",
    "ValueError: Input X contains NaN.",
    "KeyError: '{name}'",
    "sqlite3.OperationalError: database is locked",
    "sqlite3.OperationalError: disk I/O error",
    "TimeoutError: no answer from {host} within {f} s",
    "ConnectionResetError: [Errno 104] Connection reset by peer",
    '  File "{path}", line {n}, in {stage}',
    "Traceback (most recent call last):",
    "block blk_{n} replicated to {ip}:{n} with size {n}",
    "Deleting block blk_{n} file {path}",
    "checkpoint {n} written to {path} ({n} bytes) at {time}",
    "token {hex} of {name} expires at {time}",
    "object at 0x{hex} leaked {n} references",
    "queue depth {n}",
    "queue drained",
    "shutting down",
    "reloaded configuration from {path}",
    "mounted {uuid} at {path}",
)
"""The statements: what is in braces varies."""


def labelled(count: int, seed: int) -> list[tuple[int, str]]:
    """`count` lines with the number of their statement, common ones and rare ones mixed."""
    chance = random.Random(seed)
    weights = [1 / (1 + rank % 17) for rank in range(len(FORMS))]
    chosen = [*range(len(FORMS)), *chance.choices(range(len(FORMS)), weights, k=count - len(FORMS))]
    return [(form, _filled(FORMS[form], chance)) for form in chosen]


def accuracy(found: Sequence[object], true: Sequence[object]) -> float:
    """Grouping accuracy (Zhu et al., Tools and Benchmarks for Automated Log Parsing, ICSE-SEIP 2019): the share of
    lines whose group has exactly the lines that it should have.

    >>> accuracy("aabb", "xxyz"), accuracy("aabb", "xxyy")
    (0.5, 1.0)
    """
    groups: dict[object, set[int]] = {}
    wanted: dict[object, set[int]] = {}
    for number, (ours, theirs) in enumerate(zip(found, true, strict=True)):
        groups.setdefault(ours, set()).add(number)
        wanted.setdefault(theirs, set()).add(number)
    return sum(groups[ours] == wanted[theirs] for ours, theirs in zip(found, true, strict=True)) / len(true)


def _filled(form: str, chance: random.Random) -> str:
    values: dict[str, Callable[[], str]] = {
        "n": lambda: str(chance.randrange(10 ** chance.randint(1, 6))),
        "f": lambda: chance.choice(["1", "{:.1f}", "{:.3f}", "{:.1e}"]).format(chance.expovariate(1)),
        "ip": lambda: ".".join(str(chance.randrange(256)) for _ in range(4)),
        "name": lambda: chance.choice(NAMES),
        "topic": lambda: chance.choice(TOPICS),
        "stage": lambda: chance.choice(STAGES),
        "phase": lambda: chance.choice(PHASES),
        "host": lambda: chance.choice(HOSTS),
        "hex": lambda: f"{chance.getrandbits(48):012x}",
        "uuid": lambda: "-".join(f"{chance.getrandbits(4 * k):0{k}x}" for k in (8, 4, 4, 4, 12)),
        "path": lambda: "/".join(["", *chance.choices(["var", "srv", "data", "lib", "x.csv", "run-7"], k=3)]),
        "time": lambda: f"2024-05-{chance.randint(1, 28):02}T{chance.randrange(24):02}:{chance.randrange(60):02}:07Z",
    }
    parts = form.split("{")
    return parts[0] + "".join(values[name]() + rest for name, rest in (part.split("}", 1) for part in parts[1:]))
