"""Small stages for system tests: a counting source, a transform, a last stage that adds up; each can misbehave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from streampiped.records import Batch, Span
from streampiped.stages.base import Ended, SourceStage, Stage, StageContext, StageOptions, State
from streampiped.stages.consumer import Consumer, ConsumerOptions


class CountOptions(StageOptions):
    """`records` 0: unbounded."""

    records: int = 0
    batch_max: int = 256


class Count(SourceStage):
    """Gives x = 0, 1, 2, ... ."""

    Options = CountOptions

    def __init__(self, options: CountOptions, context: Any) -> None:
        self._options = options
        self._name = context.name
        self._next = 0
        self._sequence = 0

    def read(self, now: float) -> Batch | Ended:
        rows = self._options.batch_max
        if self._options.records:
            rows = min(rows, self._options.records - self._next)
        if rows <= 0:
            return Ended()
        start, self._next = self._next, self._next + rows
        self._sequence += 1
        values = np.arange(start, start + rows, dtype=np.float64)
        return Batch.build({"x": values}, sequence=self._sequence, spans=(Span(self._name, start, rows),))

    def total(self) -> int | None:
        return self._options.records or None

    def snapshot(self) -> State:
        return {"next": self._next, "sequence": self._sequence}

    def restore(self, state: State | None) -> None:
        self._next = state["next"] if state else 0
        self._sequence = state["sequence"] if state else 0


WORK_S = 0.3
"""Of CPU time, for a batch that is hard work."""


class MischiefOptions(StageOptions):
    """`mischief`: what goes wrong ("": what stands in the file `flag`); `at`: the position at which it does (for
    `process`; -1: at any); `flag`: a file that must exist for it to go wrong, so that a test can end it; `once`: a
    batch that goes wrong takes the flag with it, and no trial of it goes wrong instead; `ticks`: while there is the
    flag, or none is named."""

    mischief: str = ""
    at: int = 0
    flag: str = ""
    once: bool = False
    seconds_per_record: float = 0.0
    ticks: bool = False


class Mischief(Stage):
    """Passes batches on, and misbehaves as told."""

    Options = MischiefOptions

    def __init__(self, options: MischiefOptions, context: Any) -> None:
        self._options = options
        self._context = context
        self._pid = os.getpid()
        if self._is("raise_in_construction"):
            raise RuntimeError("construction refused on purpose")
        while self._is("wait_in_construction"):
            time.sleep(0.01)
        if self._is("ignore_sigterm"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self._is("close_stdout"):
            os.close(1)
            os.close(2)
        if self._is("grandchild"):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        if self._is("escaped_grandchild"):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)

    def _is(self, mischief: str) -> bool:
        told = ""
        if self._options.flag:
            try:
                told = Path(self._options.flag).read_text()
            except FileNotFoundError:
                return False
        return mischief == (self._options.mischief or told)

    def _is_due(self, mischief: str, batch: Batch) -> bool:
        """In this batch."""
        if not self._is(mischief) or (self._options.at >= 0 and self._options.at not in batch.positions()):
            return False
        if self._options.once:
            if os.getpid() != self._pid:
                return False
            Path(self._options.flag).unlink(missing_ok=True)
        return True

    def restore(self, state: State | None) -> None:
        if self._is("raise_in_restore"):
            raise RuntimeError("restore refused on purpose")
        if self._is("sleep_in_restore"):
            time.sleep(3600.0)

    def process(self, batch: Batch) -> Batch:
        if self._is("ignore_sigterm"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self._is_due("raise", batch):
            raise RuntimeError("process refused on purpose")
        if self._is_due("raise_surrogate", batch):
            raise RuntimeError("no such file: \udc80.csv")
        if self._is_due("raise_unsayable", batch):
            raise UnsayableError
        if self._is_due("segfault", batch):
            os.kill(os.getpid(), signal.SIGSEGV)
        if self._is_due("exit", batch):
            sys.exit(3)
        while self._is_due("loop", batch):
            pass
        if self._is_due("spin", batch):
            while True:
                pass
        if self._is_due("sleep", batch):
            time.sleep(3600.0)
        if self._is_due("read", batch):
            os.read(os.pipe()[0], 1)
        if self._is_due("work", batch):
            done = time.thread_time() + WORK_S
            while time.thread_time() < done:
                pass
        if self._is_due("nobodys_rows", batch):
            batch.spans = tuple(replace(span, source="nobody") for span in batch.spans)
        if self._is_due("fewer_rows", batch):
            batch.rows -= 1
        if self._is("spew"):
            print("spew " * 20, flush=True)
        if self._options.seconds_per_record:
            for _ in range(batch.rows):
                time.sleep(self._options.seconds_per_record)
                if self._options.ticks and (not self._options.flag or os.path.exists(self._options.flag)):
                    self._context.tick()
        return batch


class UnsayableError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise KeyError("no text")


class Total(Stage):
    """Adds up x and counts rows."""

    def __init__(self, options: Any, context: Any) -> None:
        self.restore(None)

    def process(self, batch: Batch) -> Batch:
        self._rows += batch.rows
        self._sum += int(batch["x"].sum())
        return batch

    def snapshot(self) -> State:
        return {"rows": self._rows, "sum": self._sum}

    def restore(self, state: State | None) -> None:
        self._rows = state["rows"] if state else 0
        self._sum = state["sum"] if state else 0

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        if method == "summary":
            return {"rows": self._rows, "sum": self._sum, "mse": None, "r2": None}
        if method == "report":
            return {
                "text": f"rows {self._rows} sum {self._sum}",
                "results": self.query("summary", {}),
                "operations": {},
            }
        raise KeyError(method)


class GateOptions(ConsumerOptions):
    """`flags`: a directory; while it has a file named like a step (`commit`, `restore`), that step waits there before
    it does anything, and says so with a file `STEP.waits`."""

    flags: str = ""


class Gated(Consumer):
    """The consumer with gates between the steps of the protocol, for deaths at exact places."""

    Options = GateOptions

    def __init__(self, options: GateOptions, context: StageContext) -> None:
        self._flags = Path(options.flags) if options.flags else None
        super().__init__(options, context)

    def commit(self, epoch: int) -> None:
        self._wait("commit")
        super().commit(epoch)

    def rollback(self, epoch: int | None) -> None:
        self._wait("restore")
        super().rollback(epoch)

    def _wait(self, step: str) -> None:
        while self._flags is not None and (self._flags / step).exists():
            (self._flags / f"{step}.waits").touch()
            time.sleep(0.002)


class ShiftOptions(StageOptions):
    by: int = 0


class Shift(Stage):
    """Adds `by` to every x: behind two branches that shift by different amounts the rows tell theirs."""

    Options = ShiftOptions

    def __init__(self, options: ShiftOptions, context: StageContext) -> None:
        self._by = options.by

    def process(self, batch: Batch) -> Batch:
        return Batch.build({"x": batch["x"] + self._by}, sequence=batch.sequence, spans=batch.spans)


class LongOptions(CountOptions):
    """`at`: the positions of long texts; `chars`: how long they are."""

    at: list[int]
    chars: int


class Long(Count):
    """As `Count`, with a column of texts."""

    Options = LongOptions  # type: ignore[assignment]  # a subclass has more options

    def __init__(self, options: LongOptions, context: Any) -> None:
        super().__init__(options, context)
        self._long = options

    def read(self, now: float) -> Batch | Ended:
        batch = super().read(now)
        if isinstance(batch, Ended):
            return batch
        positions = batch.positions().tolist()
        return batch.with_columns({"text": ["t" * self._long.chars if p in self._long.at else "t" for p in positions]})


class SwellOptions(StageOptions):
    """`at`: positions; `chars`: of the text that they get."""

    at: list[int]
    chars: int


class Swell(Stage):
    """Adds a column of texts, some of which are too long for a frame."""

    Options = SwellOptions

    def __init__(self, options: SwellOptions, context: StageContext) -> None:
        self._options = options

    def process(self, batch: Batch) -> Batch:
        long, positions = "t" * self._options.chars, batch.positions().tolist()
        return batch.with_columns({"text": [long if p in self._options.at else "t" for p in positions]})


class ChokeOptions(StageOptions):
    """`at`: values of x; `flag`: as in `MischiefOptions`."""

    at: list[int]
    flag: str = ""


class Choke(Stage):
    """Raises at rows whose x is one of `at`, whatever their position."""

    Options = ChokeOptions

    def __init__(self, options: ChokeOptions, context: StageContext) -> None:
        self._options = options

    def process(self, batch: Batch) -> Batch:
        if np.isin(batch["x"], self._options.at).any() and os.path.exists(self._options.flag):
            raise RuntimeError("choked on purpose")
        return batch
