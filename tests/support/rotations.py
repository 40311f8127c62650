"""A program that writes numbered lines into a file, and a logrotate beside it: what they do follows from a seed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

WAYS: Final = ("dated", "numbered", "copied")
"""Rename and create with a date, the same with numbers, and copytruncate with numbers."""


class Writer:
    """Lines 0, 1, 2, ... below a header. `ways` are those in which the file is rotated."""

    def __init__(self, path: Path, rng: random.Random, header: str = "n\n", ways: tuple[str, ...] = WAYS) -> None:
        self.path = path
        self._rng = rng
        self._header = header
        self._ways = ways
        self._rotations = 0
        self._begun_lines = 0
        self._rest = ""  # what is missing of the last one
        path.write_text(header)

    @property
    def written(self) -> int:
        """Lines that are whole."""
        return self._begun_lines - bool(self._rest)

    def write(self, count: int) -> None:
        """So many lines more; of the last one perhaps a part, and the rest at the next call."""
        text = self._rest + "".join(f"{n}\n" for n in range(self._begun_lines, self._begun_lines + count))
        self._begun_lines += count
        cut = len(text)
        if count and self._rng.random() < 0.4:
            cut = self._rng.randrange(text.rfind("\n", 0, -1) + 2, len(text))
        self._rest = text[cut:]
        self._append(text[:cut])

    def rotate(self) -> Iterator[str]:
        """Step by step; what comes next. Nothing is written between the steps, nor is a line left half: who copies and
        truncates loses what is written between the two."""
        self.finish_line()
        self._tick()
        self._rotations += 1
        way = self._rng.choice(self._ways)
        if way != "dated":
            yield from self._shift()
        if way == "copied":
            yield from self._copy_and_truncate()
            return
        name = f"-{20260101 + self._rotations // 3}-{self._rotations}" if way == "dated" else ".1"
        self.path.rename(self.path.with_name(self.path.name + name))
        yield "create"
        if self._rng.random() < 0.5:
            self.path.touch()
            yield "header"
        self.path.write_text(self._header)

    def finish_line(self) -> None:
        self._append(self._rest)
        self._rest = ""

    def _append(self, text: str) -> None:
        with self.path.open("a") as file:
            file.write(text)

    def rotated(self) -> dict[int, Path]:
        """Those with numbers."""
        names = {p.name.rpartition(".")[2]: p for p in self.path.parent.glob(f"{self.path.name}.*")}
        return {int(number): path for number, path in names.items() if number.isdigit()}

    def _shift(self) -> Iterator[str]:
        for number, path in sorted(self.rotated().items(), reverse=True):
            path.rename(path.with_name(f"{self.path.name}.{number + 1}"))
            if self._rng.random() < 0.2:
                yield "shift"

    def _copy_and_truncate(self) -> Iterator[str]:
        shutil.copyfile(self.path, self.path.with_name(f"{self.path.name}.1"))
        yield "truncate"
        self._tick()
        os.truncate(self.path, 0)
        if self._rng.random() < 0.5:
            yield "header"
        self._append(self._header)

    def _tick(self) -> None:
        """Names of both kinds are told apart by time, so what comes now must be later for the file system's clock."""
        probe = self.path.with_name("clock")
        probe.touch()
        before = max(p.stat().st_mtime_ns for p in self.path.parent.iterdir() if p.is_file())
        while probe.stat().st_mtime_ns <= before:
            probe.write_text("")
