"""What the parts of the benchmark share: who takes part, the page, what was measured, and the targets."""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from bench.page import Page, table
from bench.targets import Target, at_least, at_most
from speed import contest
from speed.contest import FailedError, NotThereError, Ran, Run, agreed
from speed.work import Work

OWN: Final = ("fused", "streampipe", "streampipe_off")
BY_VALUE: Final = ("queue", "zmq")
"""One process per stage, batches by value."""
OTHERS: Final = ("bytewax", "ray", "pathway")
EVERYBODY: Final = (*OWN, *BY_VALUE, *OTHERS)
REFERENCE: Final = "fused"
"""Without it nothing can be compared."""
PROMISED: Final = "streampipe"
"""What it does not come to the end of is a target missed."""
NOT_INSTALLED: Final = "not installed"


def title(name: str) -> str:
    text: str = importlib.import_module(f"speed.peer_{name}").TITLE
    return f"**{text}**" if name == "streampipe" else text


class Bench:
    """One run of the benchmark."""

    def __init__(self, wanted: argparse.Namespace, run: Run = contest.run) -> None:
        """`run`: how a contestant is."""
        self.run = run
        self.quick: bool = wanted.quick
        self.long: bool = wanted.long
        self.rounds: int = 1 if self.quick else 3
        self.page = Page()
        self.targets: list[Target] = []
        self.measured: list[dict[str, Any]] = []
        self.absent: dict[str, str] = {}
        """Contestant -> why it is not tried again."""
        self.failed: list[tuple[str, str, str]] = []
        """Part, contestant and reason of everything that did not come to its end."""
        self.swept: dict[Work, dict[str, list[Ran]]] = {}
        """What a sweep has measured, for another one that has the same work."""
        self._figures: dict[Work, dict[str, float]] = {}
        if wanted.pathway and Path(wanted.pathway).exists():
            contest.PYTHONS["pathway"] = str(wanted.pathway)

    def ran(self, part: str, name: str, work: Work, function: str = "run", *, watched: bool = False) -> Ran | None:
        """None: it is not there, or did not come to its end; said once, and not tried again."""
        if name in self.absent:
            return None
        try:
            found = self.run(name, work, function, watched=watched)
        except NotThereError:
            self.absent[name] = NOT_INSTALLED
            return None
        except FailedError as error:
            if name == REFERENCE:
                raise
            self.absent[name] = str(error)
            self.failed.append((part, name, str(error)))
            return None
        self.keep(part, name, **asdict(work) | asdict(found))
        if function != "recover":
            self.agree(name, work, found.figure)
        return found

    def agree(self, name: str, work: Work, figure: float) -> None:
        """With everybody who has done this work before; UnequalError else."""
        figures = self._figures.setdefault(work, {})
        agreed(figures | {f"{name}, again" if name in figures else name: figure})
        figures[name] = figure

    def is_promised(self, name: str) -> bool:
        """A target speaks of it, whether it came to its end or not; not of a peer that is not installed."""
        return name == PROMISED or self.absent.get(name) != NOT_INSTALLED

    def keep(self, part: str, name: str, **figures: Any) -> None:
        """For the JSON."""
        self.measured.append({"part": part, "contestant": name, **figures})

    def most(self, what: str, found: float | None, bound: float, form: str = ".3f") -> None:
        """A target: at most `bound`. None: streampipe has failed, so it is missed."""
        self.targets.append(_failed(at_most(what, found, bound, form)))

    def least(self, what: str, found: float | None, bound: float, form: str = ".3f", *, peer: str = "") -> None:
        """A target: at least `bound`. None: streampipe has failed, or the `peer` that it is held against."""
        self.targets.append(_failed(at_least(what, found, bound, form), peer))

    def alternating(self, part: str, names: Iterable[str], work: Work, rounds: int) -> dict[str, list[Ran]]:
        """Everybody once, and again, so that a machine whose speed drifts decides nothing. Who fails in one of its
        runs has none."""
        found: dict[str, list[Ran]] = {}
        for _ in range(rounds):
            for name in names:
                if (ran := self.ran(part, name, work)) is not None:
                    found.setdefault(name, []).append(ran)
        return {name: runs for name, runs in found.items() if name not in self.absent}

    def verdict(self) -> list[str]:
        """The targets as paragraphs: how many, the table, and who failed."""
        if not self.targets:
            return ["## Targets", "No targets in these parts.", *self._reasons()]
        rows = [[t.what, t.wanted, t.found, "kept" if t.kept else "**missed**"] for t in self.targets]
        kept = f"{sum(bool(t.kept) for t in self.targets)} of {len(self.targets)} kept."
        return ["## Targets", kept, table(["target", "wanted", "found", ""], rows), *self._reasons()]

    def _reasons(self) -> list[str]:
        said = [f"{title(name)} failed in the part {part}: {why}." for part, name, why in self.failed]
        return said + [f"{title(name)}: {why}." for name, why in self.absent.items() if why == NOT_INSTALLED]

    def told(self) -> dict[str, Any]:
        """All of it, for the JSON."""
        failed = [{"part": part, "contestant": name, "reason": why} for part, name, why in self.failed]
        targets = [asdict(target) | {"kept": bool(target.kept)} for target in self.targets]
        return {"targets": targets, "absent": self.absent, "failed": failed, "measured": self.measured}


def _failed(line: Target, peer: str = "") -> Target:
    """What nothing was found for is said to have failed."""
    if line.kept is not None:
        return line
    return replace(line, found=f"{title(peer)} failed" if peer else "failed")


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def paired(found: dict[str, list[Ran]], name: str) -> list[float]:
    """Nanoseconds per record above those of the fused loop in the same round."""
    return [ran.ns - fused.ns for ran, fused in zip(found[name], found["fused"], strict=True)]


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    return f"{min(values):{form}} to {max(values):{form}}" if len(values) > 1 else "-"
