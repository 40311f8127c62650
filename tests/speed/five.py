"""One process per stage, as somebody would write it with a library that moves messages: nobody restarts anything, and
nothing is kept."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import tempfile
from collections.abc import Callable
from typing import Any, Final, Protocol

from speed.clock import Clock
from speed.work import Reached, Work, given, reached, stage
from streampiped.records import Batch

DEPTH: Final = 8  # batches under way on a link
DEADLINE_S: Final = 60.0


class Link(Protocol):
    """From one process to the next; made before both, and sent to them. None is the end of the stream."""

    def writer(self) -> Callable[[Batch | None], None]: ...
    def reader(self) -> Callable[[], Batch | None]: ...


def run(work: Work, clock: Clock, link: Callable[[Any, str], Link]) -> Reached:
    """Fresh processes. `link` is given the context of multiprocessing, and an address of its own."""
    context = mp.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="streampipe-") as directory:
        links = [link(context, f"{directory}/{place}") for place in range(len(work.stages) - 1)]
        together, answers = context.Barrier(len(work.stages) + 1), context.Queue()
        processes = [
            context.Process(target=_work, args=(name, work, before, behind, together, answers), daemon=True)
            for name, before, behind in zip(work.stages, [None, *links], [*links, None], strict=True)
        ]
        try:
            for process in processes:
                process.start()
            together.wait(DEADLINE_S)
            with clock.running():
                found = [answers.get(timeout=DEADLINE_S) for _ in processes]
            together.wait(DEADLINE_S)
        finally:
            for process in processes:
                with contextlib.suppress(AttributeError, ValueError):  # one that was never started
                    process.kill()
    return next(Reached(*each) for each in found if each is not None)


def _work(name: str, work: Work, before: Link | None, behind: Link | None, together: Any, answers: Any) -> None:
    made = stage(name, work)
    put = behind.writer() if behind is not None else None
    get = before.reader() if before is not None else None
    together.wait(DEADLINE_S)
    for batch in given(made) if get is None else map(made.process, iter(get, None)):
        if put is not None and batch is not None:
            put(batch)
    if put is not None:
        put(None)
    answers.put(reached(made) if put is None else None)
    together.wait(DEADLINE_S)  # ZeroMQ loses what a reader has not yet taken when the writer's process ends
