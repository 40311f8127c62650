"""A journalctl that serves entries from a file, for tests: the real one's options and habits, as far as they matter."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

START = 1_700_000_000.0

PROGRAM = """#!{python}
import json, os, sys, time
place = {place!r}
options = dict(word.removeprefix("--").partition("=")[::2] for word in sys.argv[1:] if word[0] == "-")
assert options["output"] == "json" and "follow" in options and "no-tail" in options, sys.argv
open(os.path.join(place, "pids"), "a").write(f"{{os.getpid()}}\\n")
if os.path.exists(say := os.path.join(place, "stderr")):
    sys.stderr.write(open(say).read())
    sys.stderr.flush()
if os.path.exists(end := os.path.join(place, "end")):
    sys.exit(int(open(end).read()))
file = open(os.path.join(place, "entries"), "rb")
cursor = options.get("cursor")
if cursor:
    # the real one seeks to the cursor's place, and where that is gone to the next entry there is
    wanted = int(cursor.partition("i=")[2])
    while line := file.readline():
        if int(json.loads(line)["__CURSOR"].partition("i=")[2]) >= wanted:
            file.seek(-len(line), 1)
            break
else:
    sys.stdout.write("-- Boot 1 --\\n")
out = sys.stdout.buffer
while True:
    lines = file.read()
    if lines:
        out.write(lines)
        out.flush()
    elif os.path.exists(os.path.join(place, "end")):
        sys.exit(3)
    time.sleep(0.002)
"""


class Journal:
    """Entries, and the program that shows them, in `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir(parents=True)
        self._entries = root / "entries"
        self._entries.touch()
        self._count = 0
        self.install()

    def install(self) -> None:
        program = self.bin / "journalctl"
        program.write_text(PROGRAM.format(python=sys.executable, place=str(self.root)))
        program.chmod(0o755)

    def uninstall(self) -> None:
        (self.bin / "journalctl").unlink()

    def path(self) -> str:
        """A PATH on which it comes first; without it there is none at all."""
        return str(self.bin)

    def say(self, message: Any, event: str | None = "stage_output", stage: str = "trainer", **fields: Any) -> None:
        """Log an entry, as the daemon writes them, or without its fields when `event` is None."""
        self._count += 1
        entry = {
            "__CURSOR": f"s=ab;i={self._count}",
            "__REALTIME_TIMESTAMP": str(int((START + self._count) * 1e6)),
            "MESSAGE": message,
            "PRIORITY": "6",
            "_SYSTEMD_UNIT": "streampipe.service",
        }
        if event is not None:
            entry |= {"STREAMPIPE_STAGE": stage, "STREAMPIPE_EVENT": event}
        with self._entries.open("ab") as file:
            file.write(json.dumps({**entry, **fields}).encode() + b"\n")

    def raw(self, line: bytes) -> None:
        with self._entries.open("ab") as file:
            file.write(line + b"\n")

    def vacuum(self, kept: int) -> None:
        """All but the newest entries are gone."""
        lines = self._entries.read_bytes().splitlines(keepends=True)
        self._entries.write_bytes(b"".join(lines[-kept:]))

    def complain(self, text: str) -> None:
        (self.root / "stderr").write_text(text)

    def end(self, code: int | None) -> None:
        """Every journalctl ends, and those to come too; with None they live again."""
        if code is None:
            (self.root / "end").unlink()
        else:
            (self.root / "end").write_text(str(code))

    def pids(self) -> list[int]:
        """Of every journalctl there has been."""
        file = self.root / "pids"
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []


def lives(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def on_path(journal: Journal) -> dict[str, str]:
    return {**os.environ, "PATH": journal.path()}
