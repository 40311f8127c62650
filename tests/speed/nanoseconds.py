"""Where each nanosecond of the five processes goes: clocks around what the shell of a stage does.

    PYTHONPATH=daemon:ctl:tests python -m speed.nanoseconds               # batches of 8,192, as fast as it goes
    PYTHONPATH=daemon:ctl:tests python -m speed.nanoseconds --rows 1 --records 5000 --rate 1000

A run of the daemon as in the head-to-head, but the stages are those of this module, which put a clock of the thread's
CPU time around the functions named in CLOCKED when they are made. What runs inside of another is not counted twice. A
clock costs a few hundred nanoseconds a call, so that small batches look dearer than they are; the sum of a stage is the
process's own, as the kernel has it.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.page import table
from speed.peer_streampipe import config
from speed.work import CHAIN, Work
from streampiped import data_path, source_reader, stage_links, stage_memory
from streampiped.saver import Saver
from streampiped.stages.base import State
from streampiped.stages.consumer import Consumer as ConsumerStage
from streampiped.stages.evaluator import Evaluator as EvaluatorStage
from streampiped.stages.generator import Generator as GeneratorStage
from streampiped.stages.normalizer import Normalizer as NormalizerStage
from streampiped.stages.trainer import Trainer as TrainerStage
from streampiped.wire.frames import FrameReader
from support.daemon import running, wait_for

PLACE: Final = "STREAMPIPE_NANOSECONDS"
"""A directory: a file of each stage, written with every snapshot."""
CLOCKED: Final[dict[str, tuple[tuple[Any, str], ...]]] = {
    "decode": ((FrameReader, "next"),),
    "copy": ((stage_memory.Sharing, "_copy_to"),),
    "encode": ((stage_links.StageLinks, "encode"), (stage_links.StageLinks, "emit_parts")),
    "pipe": ((os, "readv"), (os, "writev"), (os, "read"), (os, "write")),
    "epoch": ((Saver, "cut"), (Saver, "save"), (data_path.DataPath, "_saved"), (data_path.DataPath, "_commit")),
    "turn": ((data_path.DataPath, "_run"), (source_reader.SourceReader, "step")),
}
"""What the table calls it -> what is clocked."""
BEHIND: Final = ("arithmetic", *CLOCKED, "loop", "threads")
DEADLINE_S: Final = 300.0


class Clocks:
    """CPU time of one thread, by what it is in."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(("loop", "arithmetic", *CLOCKED), 0)
        self._inside = ["loop"]
        self._thread = threading.get_ident()
        self._since = time.thread_time_ns()

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def clocked(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread:  # one that writes a snapshot
                return call(*arguments, **named)
            self._turn_over()
            self._inside.append(name)
            try:
                return call(*arguments, **named)
            finally:
                self._turn_over()
                self._inside.pop()

        return clocked

    def found(self) -> dict[str, int]:
        """Nanoseconds so far; what other threads of the process have had is under `threads`."""
        self._turn_over()
        return {**self.spent, "threads": time.process_time_ns() - time.thread_time_ns()}

    def _turn_over(self) -> None:
        now = time.thread_time_ns()
        self.spent[self._inside[-1]] += now - self._since
        self._since = now


class Clocked:
    """A stage of which everything is clocked; the first of a process begins it."""

    _clocks: Clocks

    def __init__(self, options: Any, context: Any) -> None:
        super().__init__(options, context)  # type: ignore[call-arg]  # of the stage beside this class
        self._clocks, self._name = Clocks(), context.name
        self._before: dict[str, int] = {}
        for name, places in CLOCKED.items():
            for owner, attribute in places:
                setattr(owner, attribute, self._clocks.around(name, getattr(owner, attribute)))
        for call in ("process", "read"):
            if hasattr(self, call):
                setattr(self, call, self._clocks.around("arithmetic", getattr(self, call)))

    def restore(self, state: State | None) -> None:
        super().restore(state)  # type: ignore[misc]
        if hasattr(self, "_clocks"):
            self._before = self._clocks.found()

    def snapshot(self) -> State:
        if place := os.environ.get(PLACE):
            found = self._clocks.found()
            Path(place, self._name).write_text(json.dumps({k: v - self._before.get(k, 0) for k, v in found.items()}))
        return super().snapshot()  # type: ignore[misc, no-any-return]


class Generator(Clocked, GeneratorStage):
    pass


class Normalizer(Clocked, NormalizerStage):
    pass


class Consumer(Clocked, ConsumerStage):
    pass


class Trainer(Clocked, TrainerStage):
    pass


class Evaluator(Clocked, EvaluatorStage):
    pass


def measured(work: Work) -> dict[str, dict[str, float]]:
    """Stage -> part -> nanoseconds per record."""
    with tempfile.TemporaryDirectory(prefix="streampipe-") as place:
        return _measured(work, Path(place))


def _measured(work: Work, place: Path) -> dict[str, dict[str, float]]:
    text = config(work)
    for name in CHAIN:
        text = text.replace(f'class = "{work.kind(name)}"', f'class = "speed.nanoseconds:{name.capitalize()}"')
    os.environ[PLACE] = str(place)
    with running(text) as daemon:
        wait_for(lambda: daemon.events("pipeline_finished"), "it ends", DEADLINE_S)
    return {
        name: {part: ns / work.records for part, ns in json.loads((place / name).read_text()).items()} for name in CHAIN
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_500_000)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--rate", type=float, default=0.0, help="records per second; 0: as fast as it goes")
    wanted = parser.parse_args()
    found = measured(Work(wanted.records, batch=wanted.rows, rate=wanted.rate, linger=0.0))
    rows = [[name, *(parts[part] for part in BEHIND), sum(parts.values())] for name, parts in found.items()]
    rows.append(["sum", *(sum(float(row[place]) for row in rows) for place in range(1, len(BEHIND) + 2))])
    print(table(["ns/record", *BEHIND, "sum"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
