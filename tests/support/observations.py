"""Observations of a pipeline as the supervisor makes them, for what reads them."""

from __future__ import annotations

from typing import Any

from streampiped.histograms import BUCKETS, bucket
from support.control_backend import process, status_of

QUANTILES = {"p50": 0.002, "p95": 0.008, "p99": 0.016}
USAGE = {
    "cpu_seconds": 12.5, "rss_bytes": 120 << 20, "uss_bytes": 40 << 20, "pss_bytes": None, "fds": 21, "threads": 2,
    "ctx_switches": 1234, "read_bytes": 0, "write_bytes": 4096,
}  # fmt: skip


def counts(*seconds: float) -> list[int]:
    """A histogram of these times."""
    found = [0] * BUCKETS
    for each in seconds:
        found[bucket(int(each * 1e9))] += 1
    return found


def row(name: str, role: str, **changes: Any) -> dict[str, Any]:
    latency = None if role == "service" else {"work": QUANTILES, "age": QUANTILES}
    more = {"role": role, "health": "healthy", "health_reason": None, "latency": latency}
    return process(name, **more) | changes


def stage(records: int = 1000, **changes: Any) -> dict[str, Any]:
    """The figures of a stage after so many records, in batches of ten that took 1 ms."""
    batches = records // 10
    times = [0] * BUCKETS
    times[bucket(1_000_000)] = batches
    return {
        "records_in": records, "records_out": records, "batches": batches, "work_s": batches / 1000, "work": times,
        "age_s": batches / 1000, "age": list(times), "restarts": {"signal": 2},
    } | changes  # fmt: skip


def observation(at: float = 2_000.0, records: int = 1000, epochs: int = 4, **changes: Any) -> dict[str, Any]:
    """A source, a sink and a service, which have seen so many records."""
    rows = [row("service_monitor", "service"), row("numbers", "source"), row("kept", "sink")]
    more: dict[str, Any] = {
        "health": "healthy", "health_reason": None, "latency": QUANTILES, "epoch_parts": None, "state_bytes": 1 << 20,
        "dead_letters": 3, "recovery_s": 0.06, "held": [],
    }  # fmt: skip
    figures = {
        "ready": True,
        "stages": {"service_monitor": {"restarts": {}}, "numbers": stage(records), "kept": stage(records)},
        "latency": {"seconds": 1.5, "counts": counts(*[0.003] * 5)},
        "epochs": {
            "aborted": 1, "seconds": 0.05 * epochs, "counts": counts(*[0.05] * epochs),
            "parts": dict.fromkeys(("align", "snapshot", "fsync", "manifest", "sink_commit"), 0.01 * epochs),
        },
        "log_drops": {"stderr_dropped": 7, "file_dropped": 0},
    }  # fmt: skip
    return {"at": at, "status": {**status_of(*rows), **more, **changes}, "figures": figures}
