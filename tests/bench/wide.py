"""The real data sets of bench/real.py under today's defaults: the parts that nothing was chosen on, and the other.

In one process each (bench/inline.py), as some hundred daemons would take too long; DAEMONS of the unseen ones, by a
hash of their names, go through the daemon as well, and have to come out the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench import real
from bench.choose import Found, judge_all
from bench.pipeline import Ran
from bench.score import guesses
from bench.streams import Stream

DAEMONS: Final = 20
SAME: Final = 1e-9
"""Of a ratio."""


@dataclass(frozen=True, slots=True)
class Wide:
    """One part."""

    part: str
    found: list[Found]
    alone: list[Found]
    """The same with nobody who learns: what choosing among guesses costs."""
    daemons: int = 0
    """So many went through the daemon as well."""
    differing: tuple[str, ...] = ()
    """Those of them whose ratio was another there."""


def measure(part: str, through: Callable[[Stream], Ran] | None = None) -> Wide:
    """`through`: the daemon."""
    streams = list(real.streams(part))
    found, alone = judge_all({}, streams), judge_all({}, streams, learners=False)
    if through is None:
        return Wide(part, found, alone)
    by_name = {each.name: each.ratio for each in found}
    chosen = sorted((each for each in streams if each.name in by_name), key=lambda each: _hash(each.name))[:DAEMONS]
    differing = [each.name for each in chosen if not _same(_ratio(through(each)), by_name[each.name])]
    return Wide(part, found, alone, len(chosen), tuple(differing))


def _ratio(ran: Ran) -> float | None:
    known = [each.mse for each in guesses(ran.stream.labels).values() if each.mse is not None]
    return ran.figures().ratio(min(known, default=None))


def _same(one: float | None, other: float) -> bool:
    return one is not None and abs(one - other) <= SAME * other


def _hash(name: str) -> str:
    return hashlib.sha256(f"daemon {name}".encode()).hexdigest()
