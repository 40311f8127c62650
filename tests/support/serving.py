"""How long a prediction takes while the model learns: `predict` on the trainer's API against a chain under load.

PYTHONPATH=tests .venv/bin/python -m support.serving --rate 20k/s --seconds 20
PYTHONPATH=tests .venv/bin/python -m support.serving --rate 0/s    # as fast as it goes

One question at a time, PAUSE_S apart, from when it is sent until its answer is read. A stage answers between two
batches: what one waits for is the batch that is being learned.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

from streampipectl.client import Client
from support.cost import cpu_seconds
from support.daemon import chain, running, wait_for

PAUSE_S = 0.01
SIZES = (1, 100, 1000)


def ask(client: Client, rows: Sequence[Sequence[float]], seconds: float) -> list[float]:
    """Seconds of each question."""
    until, times = time.monotonic() + seconds, []
    while time.monotonic() < until:
        began = time.monotonic()
        client.call("predict", {"rows": rows})
        times.append(time.monotonic() - began)
        time.sleep(PAUSE_S)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.serving", description=__doc__.splitlines()[0])
    parser.add_argument("--rate", default="20k/s", help="of the source; 0/s: as fast as it goes")
    parser.add_argument("--batch", type=int, default=1024, help="records in a batch at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="for each size of question")
    options = parser.parse_args()
    with running(chain(f'rate = "{options.rate}"\nbatch_max = {options.batch}')) as daemon:
        client = Client(str(daemon.run / "trainer.sock"), 60.0)
        wait_for(lambda: client.call("info", {})["epoch"], "a model is served", 60.0)
        columns = len(client.call("info", {})["features"])
        for size in SIZES:
            pid = daemon.pids()["trainer"]
            before, cpu, began = client.call("info", {})["rows"], cpu_seconds(pid), time.monotonic()
            times = ask(client, [[0.5] * columns] * size, options.seconds)
            spent = time.monotonic() - began
            rate = (client.call("info", {})["rows"] - before) / spent
            cuts = statistics.quantiles(times, n=100)
            p50, p95, p99 = (cuts[place] * 1e3 for place in (49, 94, 98))
            print(
                f"{size:5} rows: p50 {p50:6.2f} ms, p95 {p95:6.2f} ms, p99 {p99:6.2f} ms,"
                f" max {max(times) * 1e3:6.2f} ms of {len(times)}; learning {rate:8.0f} records/s,"
                f" trainer at {100 * (cpu_seconds(pid) - cpu) / spent:3.0f} % of a CPU"
            )


if __name__ == "__main__":
    main()
