"""Choosing the learners' defaults on development streams alone: `make choose-defaults`.

    PYTHONPATH=daemon:ctl:tests python -m bench.choose              # what today's defaults give
    PYTHONPATH=daemon:ctl:tests python -m bench.choose --descend    # try every candidate, one constant after the other

Every setting runs over the development and published parts of the real data sets (bench/real.py) and over the
development streams of bench/streams.py, as many at a time as there are CPUs (bench/inline.py). Its *cost* is the mean
over streams of

    log(ratio) + WORSE * max(0, log(ratio / GUESS_MAX)) + (ABOVE if ratio > GUESS_MAX)

where the ratio is the own mean squared error by that of the best guess: being worse than a guess costs ABOVE, and WORSE
times what being better gains. A ratio below RATIO_MIN counts as that, or the streams that are easy would choose alone.
A constant is changed when that lowers the cost by GAIN at least: what makes no difference stays as it is.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite, log
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import real
from bench.inline import Settings, serve, stages
from bench.score import figures, guesses, quarantined
from bench.streams import DEVELOPMENT, Stream, load
from bench.targets import GUESS_MAX

WORSE: Final = 10.0
ABOVE: Final = 1.0
RATIO_MIN: Final = 0.05
GAIN: Final = 0.001
BATCH: Final = 1024
ROWS_MAX: Final = 4_000
"""Of one stream: as the real ones have them."""
REPEATS: Final = 2
"""Rounds over all constants, at most."""

Setting = Mapping[str, Any]
"""Constant -> value; a constant is `module:NAME`, or `ridge:BASIS:penalty`, of all ridges of a basis."""

CANDIDATES: Final[Mapping[str, Sequence[Any]]] = {
    "learn.champion:SIGMAS": (0.5, 1.0, 1.5, 2.0, 2.5),
    "learn.champion:TRIVIAL_SIGMAS": (0.0, 0.25, 0.5, 1.0, 1.5),
    "learn.champion:MEMORY": (250.0, 500.0, 1000.0, 2000.0),
    "learn.champion:GAIN": (0.0, 0.002, 0.005, 0.01),
    "learn.champion:LEADER_ROWS": (16, 32, 64, 128, 256),
    "learn.champion:LEADER_SIGMAS": (0.5, 1.0, 1.5, 2.0),
    "learn.champion:RENEWED": (25.0, 50.0, 100.0),
    "learn.rivals:READY_ROWS": (8, 16, 32, 64),
    "learn.rivals:GROWTH": (8, 16, 24),
    "ridge:linear:penalty": (1.0, 3.0, 10.0, 30.0),
    "ridge:squares:penalty": (3.0, 10.0, 30.0, 100.0),
    "ridge:lagged:penalty": (1.0, 3.0, 10.0, 30.0),
    "cleaning.label_gate:TOLD": (2, 3, 4),
    "cleaning.label_gate:LEVEL_LIMIT": (8.0, 12.0, 16.0),
    "cleaning.label_gate:STEP_LIMIT": (8.0, 12.0, 16.0),
    "learn.pool:MARGIN": (0.1, 0.25, 0.5),
    "learn.pool:REACH": (3.0, 4.0, 6.0, 10.0, inf),
    "learn.pool:LEAP": (0.0, 100.0, 1000.0),
}


@dataclass(frozen=True, slots=True)
class Found:
    """One stream under one setting."""

    name: str
    ratio: float
    """Own squared error by the best guess's."""
    guess: str
    """The best one."""
    champion: str
    quarantined: int

    @property
    def cost(self) -> float:
        bounded = max(self.ratio, RATIO_MIN)
        above = ABOVE if bounded > GUESS_MAX else 0.0
        return log(bounded) + WORSE * max(0.0, log(bounded / GUESS_MAX)) + above


def today(constant: str) -> Any:
    """The value that the code has."""
    module, name, *_ = constant.split(":")
    if module == "ridge":
        return next(penalty for basis, _, penalty in _lineup().RIDGES.values() if basis == name)
    return getattr(importlib.import_module(f"streampiped.{module}"), name)


def impose(setting: Setting) -> None:
    """The code has these values from here on, in this process."""
    for constant, value in setting.items():
        module, name, *_ = constant.split(":")
        if module == "ridge":
            ridges = _lineup().RIDGES
            ridges |= {n: (basis, memory, value) for n, (basis, memory, _) in ridges.items() if basis == name}
            continue
        for each in list(_holders(f"streampiped.{module}", name)):  # all of them, before one is changed
            setattr(each, name, value)


def _lineup() -> Any:
    return importlib.import_module("streampiped.learn.lineup")


def _holders(module: str, name: str) -> Iterator[Any]:
    """The module that says the constant, and those that have imported it by its name."""
    home = importlib.import_module(module)
    yield home
    for each in list(sys.modules.values()):
        path = getattr(each, "__file__", None) or ""
        if each is not home and "streampiped" in path and vars(each).get(name) is getattr(home, name):
            text = Path(path).read_text()
            if f"{module} import" in text and name in text:
                yield each


def development() -> Iterator[Stream]:
    """On which defaults are chosen."""
    for name in DEVELOPMENT:
        yield load(name).head(ROWS_MAX)
    yield from real.streams("development")
    yield from real.streams("published")


_STREAMS: list[Stream] = []
"""For the processes that are forked."""


def _judge(place: int, learners: bool) -> Found | None:
    """None: the labels allow no ratio."""
    return judge(_STREAMS[place], learners=learners)


def judge(stream: Stream, *, learners: bool = True) -> Found | None:
    """What the default pipeline makes of one stream, in this process; without `learners` the guesses are alone."""
    by_guess = {name: each.mse for name, each in guesses(stream.labels).items() if each.mse is not None}
    if not by_guess:
        return None
    best = min(by_guess, key=lambda name: by_guess[name])
    settings: Settings = {} if learners else {"trainer": {"members": []}}
    chain = stages(stream.target, settings, names=("normalizer", "trainer"))
    served, _ = serve(chain, stream, BATCH)
    ratio = figures(served, stream.labels, warm_up=stream.warm_up).ratio(by_guess[best])
    if ratio is None:
        return None
    champion = str(chain["trainer"].query("summary", {})["champion"])
    withheld = int(quarantined(served, stream.rows).sum() - np.count_nonzero(~np.isfinite(stream.labels)))
    return Found(stream.name, ratio if isfinite(ratio) else inf, best, champion, withheld)


def judge_all(setting: Setting, streams: Sequence[Stream], *, learners: bool = True) -> list[Found]:
    """Every stream under a setting; in as many processes as there are CPUs. See `judge`."""
    _STREAMS[:] = sorted(streams, key=lambda each: -each.rows)
    context = multiprocessing.get_context("fork")
    with context.Pool(os.cpu_count(), impose, (setting,)) as pool:
        found = pool.starmap(_judge, [(place, learners) for place in range(len(_STREAMS))], chunksize=4)
    return [each for each in found if each is not None]


def cost(found: Sequence[Found]) -> float:
    return sum(each.cost for each in found) / len(found)


def shares(found: Sequence[Found]) -> list[tuple[str, float]]:
    """Where the ratio is: its quantiles, each the least ratio that so many are at or below."""
    ratios = sorted(each.ratio for each in found)
    quantiles = (0.5, 0.9, 0.95, 0.99)
    return [(f"{share:.0%}", ratios[ceil(share * len(ratios)) - 1]) for share in quantiles] + [("worst", ratios[-1])]


def worse(found: Sequence[Found]) -> list[Found]:
    """Those above GUESS_MAX, the worst first."""
    return sorted((each for each in found if each.ratio > GUESS_MAX), key=lambda each: -each.ratio)


def summary(found: Sequence[Found]) -> str:
    """The distribution of the ratio, and the streams above GUESS_MAX."""
    above = worse(found)
    said = ", ".join(f"{share} {ratio:.3f}" for share, ratio in shares(found))
    lines = [f"{len(found)} streams, cost {cost(found):.5f}; ratio: {said}; above {GUESS_MAX}: {len(above)}"]
    lines += [
        f"  {each.ratio:8.3f}  {each.name} (best {each.guess}; {each.champion}; {each.quarantined} quarantined)"
        for each in above
    ]
    return "\n".join(lines)


def descend(setting: dict[str, Any], constants: Sequence[str], streams: Sequence[Stream]) -> dict[str, Any]:
    """Coordinate descent from a setting; what was tried is printed."""
    best = cost(judge_all(setting, streams))
    print(f"{best:.5f}  at first", flush=True)
    for _ in range(REPEATS):
        before = dict(setting)
        for constant in constants:
            now = setting.get(constant, today(constant))
            costs = {now: best}
            for value in CANDIDATES[constant]:
                if value != now:
                    costs[value] = cost(judge_all(setting | {constant: value}, streams))
            chosen = min(costs, key=lambda value: costs[value])
            if chosen != now and costs[chosen] < best - GAIN:
                setting, best = setting | {constant: chosen}, costs[chosen]
            shown = ", ".join(f"{value}: {costs[value]:.5f}" for value in sorted(costs))
            print(f"{best:.5f}  {constant} = {setting.get(constant, now)}  ({shown})", flush=True)
        if setting == before:
            break
    return setting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], metavar="CONSTANT=VALUE", help="begin with that")
    parser.add_argument("--descend", action="store_true")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th stream, to be quicker")
    parser.add_argument("--only", nargs="*", help="constants that are varied", choices=list(CANDIDATES))
    wanted = parser.parse_args()
    chosen_on = list(development())[:: wanted.every]
    setting = {name: json.loads(value) for name, _, value in (each.partition("=") for each in wanted.set)}
    if wanted.descend:
        setting = descend(setting, wanted.only or list(CANDIDATES), chosen_on)
        print(json.dumps(setting))
    print(summary(judge_all(setting, chosen_on)))


if __name__ == "__main__":
    main()
