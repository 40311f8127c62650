"""What the learning has to show, each as one line that is kept, missed, or cannot be said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.causal import Ahead
from bench.defects import KEPT, Damage
from bench.memory import GROWTH_MAX_MIB, Grown
from bench.score import Figures
from bench.stationary import AFTER, COVERAGE, FOUND_WITHIN, Watched

GUESS_MAX: Final = 1.02
"""Times the squared error of the best of mean, discounted mean and last value."""
R2: Final[dict[str, tuple[float | None, float | None]]] = {
    # stream: R2 over all rows, R2 after the warm-up
    "trump": (0.32, 0.98),
    "chick": (0.755, None),
    "diabetes": (0.42, 0.48),
    "friedman_gra": (0.87, None),
}
RATE: Final = 50_000.0
BOOSTED_R2, BOOSTED_RATE = 0.91, 5_000.0


@dataclass(frozen=True, slots=True)
class Target:
    what: str
    wanted: str
    found: str
    kept: bool | None
    """None: not reported, which counts as missed."""


def at_least(what: str, found: float | None, bound: float, form: str = ".3f") -> Target:
    kept = None if found is None else found >= bound
    return Target(what, f">= {bound:{form}}", _said(found, form), kept)


def at_most(what: str, found: float | None, bound: float, form: str = ".3f") -> Target:
    kept = None if found is None else found <= bound
    return Target(what, f"<= {bound:{form}}", _said(found, form), kept)


def _said(found: float | None, form: str) -> str:
    return "not reported" if found is None else format(found, form)


def of_stream(name: str, found: Figures, best_guess: float) -> Iterator[Target]:
    """Of a stream."""
    yield at_most(f"{name}: MSE by that of the best guess", found.ratio(best_guess), GUESS_MAX)
    total, after = R2.get(name, (None, None))
    if total is not None:
        yield at_least(f"{name}: R2 over all rows", found.r2, total)
    if after is not None:
        yield at_least(f"{name}: R2 after the warm-up", found.r2_after, after)


def of_coverage(name: str, found: float | None) -> Target:
    low, high = COVERAGE
    kept = None if found is None else low <= found <= high
    return Target(f"{name}: coverage", f"{low} to {high}", _said(found, ".3f"), kept)


def of_wide(part: str, ratios: Sequence[float]) -> Iterator[Target]:
    """Of the real data sets of a part."""
    above = sum(ratio > GUESS_MAX for ratio in ratios)
    yield at_most(f"{len(ratios)} {part} data sets: with an MSE above {GUESS_MAX} x the best guess's", above, 0, "d")


def of_daemons(differing: int) -> Target:
    return at_most("real data sets: other figures through the daemon", differing, 0, "d")


def of_rate(rate: float | None) -> Target:
    return at_least("friedman_gra: records/s", rate, RATE, ",.0f")


def of_boosting(r2: float | None, rate: float | None) -> Iterator[Target]:
    yield at_least("friedman_gra with boosting: R2 over all rows", r2, BOOSTED_R2)
    yield at_least("friedman_gra with boosting: records/s", rate, BOOSTED_RATE, ",.0f")


def of_defects(damages: Sequence[Damage]) -> Iterator[Target]:
    for damage in damages:
        line = at_least(f"defect {damage.defect.name}: share of the clean R2", damage.kept, KEPT)
        found = line.found
        for count, word in ((damage.deaths, "deaths"), (damage.not_finite, "predictions not finite")):
            found += f", {count} {word}" if count else ""
        yield Target(line.what, line.wanted, found, damage.passed)
        if damage.within is not None:  # else the step's own variance makes a model look good that missed it
            what = f"defect {damage.defect.name}, within the level: share of the clean R2"
            yield at_least(what, damage.within / damage.reference, KEPT)


def of_offset_alone(damage: Damage) -> Iterator[Target]:
    """The step of the label where the stream comes row by row."""
    found = None if damage.within is None else damage.within / damage.reference
    yield at_least("defect offset row by row, within the level: share of the clean R2", found, KEPT)


def of_causality(found: Sequence[Ahead]) -> Target:
    rows = sum(len(each.rows) for each in found)
    return at_most("rows served with a label of their own or a later row", rows, 0, "d")


def of_stationary(streams: Sequence[Watched]) -> Iterator[Target]:
    low, high = COVERAGE
    for each in streams:
        if not each.changes:
            yield at_most(f"{each.name}: drift alarms in {each.rows:,} rows", each.alarms, 0, "d")
        else:
            found = None if each.delays is None else _worst(each.delays)
            yield at_most(f"{each.name}: rows to an alarm, the latest", found, FOUND_WITHIN, ".0f")
        shares: Mapping[str, float | None] = {"": each.coverage}
        if len(each.changes) > 1:
            shares = {**shares, f" in the {AFTER} rows after a drift": each.after}
        for where, share in shares.items():
            kept = None if share is None else low <= share <= high
            yield Target(f"{each.name}: coverage{where}", f"{low} to {high}", _said(share, ".3f"), kept)


def _worst(delays: Sequence[int | None]) -> float:
    return max(float("inf") if delay is None else float(delay) for delay in delays)


def of_memory(grown: Grown) -> Target:
    line = at_most("trainer's growth to 10 million records, MiB", grown.growth, GROWTH_MAX_MIB, ".1f")
    return Target(line.what, line.wanted, line.found, grown.passed)
