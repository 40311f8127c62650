"""What the launcher imports before it forks: what the stages of this pipeline need, and no more.

scikit-learn is half of a cold start, and only the trainer wants it. The launcher is executed before the configuration
is understood, so the first one works from a guess at the file; a wrong guess costs time and nothing else. User code is
never imported there: it could start threads, and a process with threads cannot fork safely.

Lean: see `runtime/launch.py`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

COMMON: Final = ("numpy", "uvloop", "sqlite3", "streampiped.stage_process", "streampiped.stages.consumer")
STAGES: Final = ("generator", "normalizer", "consumer", "trainer", "evaluator")
SERVICES: Final = ("log_extractor", "service_monitor")
BESIDE: Final = {
    # found by import path, in `learn/estimators.py`; and for the built-in boosting, whose first fit would wait for it
    "streampiped.stages.trainer": ("sklearn.linear_model", "sklearn.ensemble"),
    "streampiped.stages.service_monitor": ("psutil",),
}
"""What a module imports only when it is used."""
LEFT_OUT: Final = {"sklearn": ("pandas", "scipy.stats")}
"""What a library imports of others, and no stage of ours uses: 40 MiB for all processes to share, and 0.4 s."""


def modules_of(classes: Iterable[str]) -> tuple[str, ...]:
    """What to preload for stages of these classes (`package.module:Class`)."""
    own = {klass.partition(":")[0] for klass in classes}
    built_in = [name for name in map(_module, (*STAGES, *SERVICES)) if name in own]
    return (*COMMON, *(extra for name in built_in for extra in (*BESIDE.get(name, ()), name)))


def guess(arguments: Sequence[str]) -> tuple[str, ...]:
    """What the configuration that a command line names will want; everything when that is not plain to see."""
    try:
        at = next(i for i, word in enumerate(arguments) if word in ("--config", "-c"))
        stages = tomllib.loads(Path(arguments[at + 1]).read_text())["stages"]
        kinds = [str(table.get("class", name)) for name, table in stages.items()]
    except (StopIteration, LookupError, OSError, ValueError, AttributeError):
        kinds = list(STAGES)
    return modules_of(_module(kind) for kind in (*kinds, *SERVICES))


def _module(kind: str) -> str:
    return kind.partition(":")[0] if ":" in kind else f"streampiped.stages.{kind}"
