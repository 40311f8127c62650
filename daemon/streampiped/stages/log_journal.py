"""Following the journal of systemd through a child, `journalctl --output=json --follow`.

Its cursor is the position. journalctl is asked to begin *at* the cursor, not after it: the first entry is then the one
that was handled last, and skipped; when it is another one, the journal was vacuumed in between, which nobody would
notice otherwise. (`--after-cursor` skips one entry in either case.)

`--merge`, because without it `--follow` is of this boot alone (systemd 252 overrules even `--boot=all`), and the last
words before a reboot belong to the counts; it would also show journals collected from other machines, which a match of
the machine's id leaves out.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from streampiped.events import LEVELS
from streampiped.stages.base import Emit
from streampiped.stages.log_facts import Fact, make_fact
from streampiped.stages.log_follow import Chunk, Position

PROGRAM: Final = "journalctl"
MACHINE_ID: Final = Path("/etc/machine-id")
READ_BYTES: Final = 256 << 10  # per step, as of the event file
BUFFER_BYTES_MAX: Final = 1 << 20  # beyond, journalctl waits; one entry is at most as large (`_big`)
RETRY_FIRST_S: Final = 1.0
RETRY_MAX_S: Final = 60.0  # doubled until there: what is missing is a package or a permission, nothing that comes soon
REASON_CHARS_MAX: Final = 400

FIELDS: Final = (
    "MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "_SYSTEMD_UNIT", "UNIT", "_SOURCE_REALTIME_TIMESTAMP",
    "STREAMPIPE_STAGE", "STREAMPIPE_EVENT", "STREAMPIPE_EPOCH", "STREAMPIPE_PID", "STREAMPIPE_CAUSE",
    "STREAMPIPE_REASON", "STREAMPIPE_COUNT", "STREAMPIPE_SECONDS", "STREAMPIPE_MEDIAN", "STREAMPIPE_PART",
    "STREAMPIPE_METHOD", "STREAMPIPE_PARAMS", "STREAMPIPE_WHO",
)  # fmt: skip
"""Asked for; an entry has 30 others, of 1.5 kB."""
PLAIN: Final = "message"
"""The event of an entry that has none."""

_CURSOR = re.compile(rb'"__CURSOR"\s*:\s*"([^"\\]*)"')
_BLIND: Final = (b"not seeing messages from other users", b"insufficient permissions")
"""What it says to somebody who is not in systemd-journal, before it goes on without, or ends."""
_PR_SET_PDEATHSIG: Final = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def fact_of_entry(line: bytes) -> Fact | None:
    """What an entry of the journal says: an event of ours, or a line of anybody's. None when it is no entry."""
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict):
            return None
        stamp = float(_text(entry, "_SOURCE_REALTIME_TIMESTAMP") or entry["__REALTIME_TIMESTAMP"])
        priority = int(_text(entry, "PRIORITY") or 6)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    level = LEVELS[max(0, min(len(LEVELS) - 1, 7 - priority))]
    fields = {key[11:].lower(): _text(entry, key) for key in entry if key.startswith("STREAMPIPE_")}
    text = _text(entry, "MESSAGE")
    event, stage = fields.get("event"), fields.get("stage")
    if event and stage:
        text = text.removeprefix(f"{stage}: ")
    else:
        unit = _text(entry, "_SYSTEMD_UNIT") or _text(entry, "UNIT") or _text(entry, "SYSLOG_IDENTIFIER")
        event, stage = event or PLAIN, stage or unit or "journal"
    return make_fact(stamp / 1e6, level, event, stage, text, fields)


class JournalFollower:
    """The entries of `unit`, with the interface of `EventFollower`. journalctl that ends or is not there is said once,
    and tried again; what it would have said is in the journal and comes later."""

    def __init__(self, unit: str, position: Position | None, emit: Emit) -> None:
        self._unit = unit
        self._emit = emit
        self._child: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
        self._taken = 0
        """Bytes of the buffer that the last chunk was made of."""
        self._found = False
        """Whether there was an entry among them."""
        self._ended = False
        self._failing = False
        self._backoff = RETRY_FIRST_S
        self._retry_at = 0.0
        self.go_to(position)

    @property
    def fd(self) -> int | None:
        """journalctl's output; None while there is none, or more than enough of it has been read."""
        if self._child is None or self._ended or len(self._buffer) >= BUFFER_BYTES_MAX:
            return None
        assert self._child.stdout is not None
        return self._child.stdout.fileno()

    def go_to(self, position: Position | None) -> None:
        """Go on behind that entry; None: from the oldest there is."""
        self._end()
        self._position = position
        self._seeking = position is not None
        self._gaps = 0

    def drain(self, now: float) -> float | None:
        """Take what journalctl has to say. When to be asked again at the latest."""
        if self._child is None:
            if now < self._retry_at:
                return self._retry_at
            self._begin(now)
        if self._child is not None and not self._ended and len(self._buffer) < BUFFER_BYTES_MAX:
            self._ended = not self._read()
            reason = self._blind()
            if reason or (self._ended and b"\n" not in self._buffer):
                self._failed(reason, now)
        return self._retry_at if self._child is None else None

    def peek(self) -> Chunk | None:
        """The next whole entries; None when there are none yet."""
        end = self._buffer.rfind(b"\n", 0, READ_BYTES) + 1 or self._buffer.find(b"\n") + 1
        if not end:
            return self._big() if len(self._buffer) >= BUFFER_BYTES_MAX else None
        lines = [line for line in bytes(self._buffer[:end]).split(b"\n") if line and not line.startswith(b"-- ")]
        self._taken = end
        self._found = bool(lines)
        if self._seeking and lines:
            assert self._position is not None
            if _cursor(lines[:1]) == self._position.head:
                lines = lines[1:]
            else:
                self._gaps = 1
        head = _cursor(lines) or (self._position.head if self._position else b"")
        return Chunk(tuple(lines), Position(head, 0), 0, self._gaps)

    def advance(self, chunk: Chunk) -> None:
        """`chunk` is handled for good."""
        if chunk.gaps:
            self._emit("journal_skipped", unit=self._unit)
        if self._failing:
            self._emit("journal_recovered", unit=self._unit)
        self._failing, self._backoff = False, RETRY_FIRST_S
        del self._buffer[: self._taken]
        self._position, self._gaps = chunk.position, 0
        self._seeking = self._seeking and not self._found

    def close(self) -> None:
        self._end()

    def _big(self) -> Chunk:
        """An entry beyond all limits: dropped, and counted as torn. Its cursor stands at its beginning."""
        head = _cursor([bytes(self._buffer[:4096])]) or (self._position.head if self._position else b"")
        self._taken, self._found = len(self._buffer), True
        return Chunk((), Position(head, 0), 1, self._gaps)

    def _begin(self, now: float) -> None:
        command = [
            PROGRAM, "--output=json", "--follow", "--all", "--no-tail", "--no-pager", "--merge",
            f"--unit={self._unit}", f"--output-fields={','.join(FIELDS)}",
        ]  # fmt: skip
        if self._position is not None and self._position.head:
            command.append(f"--cursor={self._position.head.decode(errors='replace')}")
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if re.fullmatch(r"[0-9a-f]{32}", machine := MACHINE_ID.read_text().strip()):
                command.append(f"_MACHINE_ID={machine}")
        self._seeking = self._position is not None and bool(self._position.head)
        self._gaps = 0
        self._buffer.clear()
        self._ended = False
        parent = os.getpid()
        try:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                preexec_fn=lambda: _die_with(parent),
            )
        except OSError as error:
            self._failed(f"cannot be run: {error.strerror}", now)
            return
        for pipe in (self._child.stdout, self._child.stderr):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
        self._words = b""

    def _read(self) -> bool:
        """False: it said its last."""
        assert self._child is not None
        assert self._child.stdout is not None
        with contextlib.suppress(BlockingIOError):
            while len(self._buffer) < BUFFER_BYTES_MAX:
                data = os.read(self._child.stdout.fileno(), READ_BYTES)
                if not data:
                    return False
                self._buffer += data
        return True

    def _blind(self) -> str:
        """That journalctl lives and shows nothing: it may not look at the system's journal."""
        assert self._child is not None
        assert self._child.stderr is not None
        with contextlib.suppress(BlockingIOError):
            self._words = (self._words + os.read(self._child.stderr.fileno(), 8192))[-8192:]
        if any(words in self._words for words in _BLIND):
            return "may not read the system's journal: its user needs the group systemd-journal"
        return ""

    def _failed(self, reason: str, now: float) -> None:
        if not reason:
            assert self._child is not None
            self._end_child()
            said = self._words.decode(errors="replace").strip().rpartition("\n")[2]
            reason = said or f"ended with {self._child.returncode}"
        self._end()
        self._retry_at = now + self._backoff
        if not self._failing:
            self._emit("journal_failed", reason=reason[:REASON_CHARS_MAX], seconds=self._backoff)
        self._failing = True
        self._backoff = min(self._backoff * 2, RETRY_MAX_S)

    def _end(self) -> None:
        self._end_child()
        if self._child is not None:
            for pipe in (self._child.stdout, self._child.stderr):
                assert pipe is not None
                pipe.close()
        self._child = None
        self._ended = False
        self._buffer.clear()
        self._taken = 0

    def _end_child(self) -> None:
        """It has nothing to save: what it has read is in the journal."""
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signal.SIGKILL)
            self._child.wait()


def _die_with(parent: int) -> None:
    """Between fork and exec: the kernel kills journalctl when this process ends, however it ends (prctl(2))."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _cursor(lines: Sequence[bytes]) -> bytes:
    """Of the last entry that has one; each has."""
    for line in reversed(lines):
        if found := _CURSOR.search(line):
            return found[1]
    return b""


def _text(entry: Mapping[str, Any], key: str) -> str:
    """A field as text. The journal gives bytes that are no UTF-8 as a list of numbers, a repeated field as a list of
    values, and null for what is missing."""
    value = entry.get(key)
    match value:
        case str():
            return value
        case [int(), *_] if all(isinstance(each, int) and 0 <= each < 256 for each in value):
            return bytes(value).decode("utf-8", "replace")
        case [first, *_]:
            return _text({key: first}, key)
    return ""
