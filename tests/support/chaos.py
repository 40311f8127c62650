"""A thousand real kills, and the numbers of docs/reliability.md.

PYTHONPATH=tests .venv/bin/python -m support.chaos --signals 1000 --seed 1

Runs the default chain over the same bounded stream again and again, each time disturbed by another seed, until so many
signals have been sent. Every run must end as the undisturbed one: the same rows in SQLite, the same snapshots of all
five stages, the same results of the report, bit by bit.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from support.law import config, disturbed, undisturbed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--rate", default="40k/s")
    parser.add_argument("--batch", type=int, default=1024, help="256: all of them through the pipes")
    wanted = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="streampipe-chaos-"))
    began = time.monotonic()
    try:
        return _run(wanted, root, began)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _run(wanted: argparse.Namespace, root: Path, began: float) -> int:
    calm = undisturbed(config(wanted.records, batch=wanted.batch), _fresh(root, "calm"))
    print(f"undisturbed: {calm.rows} rows, {calm.digest[:16]}", flush=True)
    done: Counter[str] = Counter()
    recoveries: list[float] = []
    failures = lost = doubled = letters = runs = signals = 0
    while signals < wanted.signals:
        seed = wanted.seed + runs
        text = config(wanted.records, rate=wanted.rate, batch=wanted.batch)
        found = disturbed(text, _fresh(root, "run"), seed, 10**9)
        differences = found.outcome.differences(calm)
        runs += 1
        done += found.done
        signals += found.signals
        recoveries += found.recoveries
        lost += wanted.records - found.outcome.distinct
        doubled += found.outcome.rows - found.outcome.distinct
        letters += found.letters
        failures += bool(differences)
        verdict = "identical" if not differences else f"DIFFERENT: {', '.join(differences)}"
        print(f"seed {seed}: {found.signals} signals, {verdict} ({signals} in all)", flush=True)
    print(f"\n{runs} runs in {time.monotonic() - began:.0f} s, {signals} signals: {dict(done)}")
    print(f"lost {lost}, doubled {doubled}, put aside {letters}, runs that were not bit-identical {failures}")
    if recoveries:
        cuts = statistics.quantiles(recoveries, n=100)
        print(
            f"recovery, death to first new batch at the last stage, {len(recoveries)} of them: "
            f"median {cuts[49] * 1e3:.0f} ms, p90 {cuts[89] * 1e3:.0f} ms, p99 {cuts[98] * 1e3:.0f} ms, "
            f"worst {max(recoveries) * 1e3:.0f} ms"
        )
    return 1 if failures or lost or doubled or letters else 0


def _fresh(root: Path, name: str) -> Path:
    """An empty directory of this name."""
    path = root / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


if __name__ == "__main__":
    sys.exit(main())
