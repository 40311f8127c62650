"""Runs one contestant over one work in a process of its own, which says what it found in a line of JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from speed import usage
from speed.clock import Clock
from speed.work import Reached, Work, wanted
from support.daemon import TESTS

DEADLINE_S: Final = 600.0
PINNED: Final = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Threads of a library for linear algebra would compete with the processes of whoever has several."""
MARK: Final = "ran "
PYTHONS: Final[dict[str, str]] = {}
"""Contestant -> the interpreter of an environment of its own; the others have this one."""
LIBRARIES: Final = {"zmq": "zmq", "bytewax": "bytewax", "ray": "ray", "pathway": "pathway"}
"""What a contestant imports that need not be installed."""
SAME: Final = 1e-9
"""Of two sums over the same records, by the figure itself."""


def python_of(name: str) -> str:
    return PYTHONS.get(name, sys.executable)


@dataclass(frozen=True, slots=True)
class Ran:
    """One contestant, once over the work."""

    records: int
    figure: float
    """See `work.Reached`."""
    seconds: float
    """Wall time."""
    cpu: float
    """Seconds on the CPU of all processes that took part."""
    parts: dict[str, float]
    began_ns: int
    """CLOCK_MONOTONIC, when the process was started."""
    peak_mib: float
    """Sum of PSS; 0 when it was not watched."""

    @property
    def ns(self) -> float:
        """On the CPU for each record."""
        return self.cpu / self.records * 1e9

    @property
    def rate(self) -> float:
        """Records per second of wall time."""
        return self.records / self.seconds


class Run(Protocol):
    """As `run`."""

    def __call__(self, name: str, work: Work, function: str = "run", *, watched: bool = False) -> Ran: ...


class NotThereError(Exception):
    """The contestant's library is not installed."""


class FailedError(Exception):
    """It did not come to its end, with the last lines that it said."""


class UnequalError(Exception):
    """Somebody has not done the same work as the others: no figure of the run says anything."""


def agreed(figures: Mapping[str, float]) -> None:
    """Everybody has computed the same number, or UnequalError."""
    first = next(iter(figures.values()), 0.0)
    if not all(math.isfinite(each) and math.isclose(each, first, rel_tol=SAME) for each in figures.values()):
        raise UnequalError(f"not the same arithmetic: {dict(figures)}")


def arrived(name: str, work: Work, found: Reached) -> None:
    """All records have come to the last stage, and where it only counts, as they were; or UnequalError."""
    if found.records != work.records:
        raise UnequalError(f"{name}: {found.records:,} of {work.records:,} records came to the last stage")
    if work.passes:
        agreed({name: found.figure, "the source": wanted(work.records, work.batch, work.columns).figure})


def run(name: str, work: Work, function: str = "run", *, watched: bool = False, deadline: float = DEADLINE_S) -> Ran:
    """A fresh process, ended with everything below it. `function`: of the contestant's module. `watched`: also its
    memory."""
    began = time.monotonic_ns()
    process = subprocess.Popen(
        [python_of(name), "-W", "ignore", "-m", "speed.contest", name, function, json.dumps(dataclasses.asdict(work))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **PINNED, "PYTHONPATH": f"{TESTS}:{os.environ.get('PYTHONPATH', '')}"},
        start_new_session=True,
    )
    peak = usage.Peak(process.pid, without_root=name.startswith("streampipe")) if watched else None
    family: list[int] = []
    try:
        with peak or contextlib.nullcontext():
            try:
                out, err = process.communicate(timeout=deadline)
            except subprocess.TimeoutExpired:
                family = usage.family(process.pid)
                raise FailedError(f"{name}: not within {deadline:.0f} s") from None
    finally:
        for pid in (*family, process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()
    return _read(name, work, out, err, began, peak.mib if peak else 0.0)


def _read(name: str, work: Work, out: str, err: str, began: int, peak: float) -> Ran:
    line = next((line for line in out.splitlines() if line.startswith(MARK)), None)
    if line is None:
        if name in LIBRARIES and f"No module named '{LIBRARIES[name]}'" in err:
            raise NotThereError(name)
        raise FailedError(f"{name}: " + " | ".join(err.splitlines()[-4:]))
    found: dict[str, Any] = json.loads(line.removeprefix(MARK))
    there = Reached(*found.pop("reached"))
    arrived(name, work, there)
    found["began_ns"] = found["began_ns"] or began
    return Ran(records=there.records, figure=there.figure, peak_mib=peak, **found)


def main() -> None:
    name, function, text = sys.argv[1:]
    fields = json.loads(text)
    work, clock = Work(**{**fields, "members": tuple(fields["members"])}), Clock()
    reached = getattr(importlib.import_module(f"speed.peer_{name}"), function)(work, clock)
    print(MARK + json.dumps({"reached": reached, **dataclasses.asdict(clock)}), flush=True)


if __name__ == "__main__":
    main()
