"""What the parts of the benchmark share: who takes part, the page, what was measured, and the targets."""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.page import Page
from bench.targets import Target, at_least, at_most
from speed import contest
from speed.contest import FailedError, NotThereError, Ran
from speed.work import Work

OWN: Final = ("fused", "streampipe", "streampipe_off")
BY_VALUE: Final = ("queue", "zmq")
"""One process per stage, batches by value."""
OTHERS: Final = ("bytewax", "ray", "pathway")
EVERYBODY: Final = (*OWN, *BY_VALUE, *OTHERS)
SAME_MSE: Final = 1e-9
"""Of two sums over the same records, by the figure itself."""


def title(name: str) -> str:
    text: str = importlib.import_module(f"speed.peer_{name}").TITLE
    return f"**{text}**" if name == "streampipe" else text


class Bench:
    """One run of the benchmark."""

    def __init__(self, wanted: argparse.Namespace) -> None:
        self.quick: bool = wanted.quick
        self.long: bool = wanted.long
        self.rounds: int = 1 if self.quick else 3
        self.page = Page()
        self.targets: list[Target] = []
        self.measured: list[dict[str, Any]] = []
        self.absent: dict[str, str] = {}
        self.swept: dict[Work, dict[str, list[Ran]]] = {}
        """What a sweep has measured, for another one that has the same work."""
        if wanted.pathway and Path(wanted.pathway).exists():
            contest.PYTHONS["pathway"] = str(wanted.pathway)

    def ran(self, part: str, name: str, work: Work, function: str = "run", *, watched: bool = False) -> Ran | None:
        """None: it is not there, or did not come to its end; said once, and not tried again."""
        if name in self.absent:
            return None
        try:
            found = contest.run(name, work, function, watched=watched)
        except NotThereError:
            self.absent[name] = "not installed"
            return None
        except FailedError as error:
            self.absent[name] = str(error)
            return None
        self.keep(part, name, **asdict(work) | asdict(found))
        return found

    def keep(self, part: str, name: str, **figures: Any) -> None:
        """For the JSON."""
        self.measured.append({"part": part, "contestant": name, **figures})

    def most(self, what: str, found: float, bound: float, form: str = ".3f") -> None:
        """A target: at most `bound`."""
        self.targets.append(at_most(what, found, bound, form))

    def least(self, what: str, found: float, bound: float, form: str = ".3f") -> None:
        """A target: at least `bound`."""
        self.targets.append(at_least(what, found, bound, form))

    def alternating(self, part: str, names: Iterable[str], work: Work, rounds: int) -> dict[str, list[Ran]]:
        """Everybody once, and again, so that a machine whose speed drifts decides nothing. All must agree."""
        found: dict[str, list[Ran]] = {}
        for _ in range(rounds):
            for name in names:
                if (ran := self.ran(part, name, work)) is not None:
                    found.setdefault(name, []).append(ran)
        agreed(found)
        return found


def agreed(found: dict[str, list[Ran]]) -> None:
    """Everybody has computed the same, or the figures say nothing."""
    figures = {name: ran.mse for name, runs in found.items() for ran in runs}
    low, high = min(figures.values(), default=0.0), max(figures.values(), default=0.0)
    if high - low > SAME_MSE * high:
        raise FailedError(f"not the same arithmetic: {figures}")


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def paired(found: dict[str, list[Ran]], name: str) -> list[float]:
    """Nanoseconds per record above those of the fused loop in the same round."""
    return [ran.ns - fused.ns for ran, fused in zip(found[name], found["fused"], strict=True)]


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    return f"{min(values):{form}} to {max(values):{form}}" if len(values) > 1 else "-"
