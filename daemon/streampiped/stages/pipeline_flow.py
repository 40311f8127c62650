"""What the supervisor has seen of the pipeline, as rows for the service monitor's history. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

PIPELINE: Final = "supervisor"
"""The name under which the pipeline as a whole is kept, as `streampipectl why` knows it."""
HEALTHS: Final = ("healthy", "lagging", "stalled", "flapping", "failed")

_EPOCH_PARTS: Final = ("align", "snapshot", "fsync", "manifest", "sink_commit")
_QUANTILES: Final = ("p50", "p95", "p99")

FLOWS: Final[Mapping[str, str]] = {
    "records_in_per_s": "1/s",
    "records_out_per_s": "1/s",
    "lag_s": "s",
    **{f"work_{name}_s": "s" for name in _QUANTILES},
    **{f"latency_{name}_s": "s" for name in _QUANTILES},
    "health": "0 healthy, 1 lagging, 2 stalled, 3 flapping, 4 failed",
    "epoch_s": "s",
    **{f"epoch_{part}_s": "s" for part in _EPOCH_PARTS},
}
"""What a history has of a stage and of the pipeline, with its unit, in the order of its columns."""
WORST: Final = ("lag_s", "latency_p99_s", "work_p99_s", "health")
"""Of these a minute keeps the largest and not the mean: the mean of what was bad for a second says nothing."""

Values = tuple[float | None, ...]


def rows(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Iterator[tuple[str, Values]]:
    """A row for each stage and one for the pipeline, of the observation `after`; rates and epochs are those since
    `before`."""
    seconds = max(after["at"] - before["at"], 1e-3) if before is not None else None
    for row in after["status"]["processes"]:
        if row["role"] != "service":
            yield row["name"], _values(_stage(row, before, after, seconds))
    yield PIPELINE, _values(_whole(before, after, seconds))


def _values(found: Mapping[str, float | None]) -> Values:
    return tuple(found.get(column) for column in FLOWS)


def _stage(
    row: Mapping[str, Any], before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float | None
) -> dict[str, float | None]:
    name = row["name"]
    latency = row["latency"] or {"work": {}, "age": {}}
    return {
        "lag_s": row["lag_s"],
        "health": HEALTHS.index(row["health"]),
        **{f"work_{q}_s": latency["work"].get(q) for q in _QUANTILES},
        **{f"latency_{q}_s": latency["age"].get(q) for q in _QUANTILES},
        **{f"{key}_per_s": _rate(key, name, before, after, seconds) for key in ("records_in", "records_out")},
    }


def _rate(
    key: str, name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float | None
) -> float | None:
    if before is None or seconds is None or name not in before["figures"]["stages"]:
        return None
    count = after["figures"]["stages"][name][key] - before["figures"]["stages"][name][key]
    return max(0.0, float(count) / seconds)


def _whole(
    before: Mapping[str, Any] | None, after: Mapping[str, Any], seconds: float | None
) -> dict[str, float | None]:
    status = after["status"]
    sources = [row["name"] for row in status["processes"] if row["role"] == "source"]
    rates = [_rate("records_out", name, before, after, seconds) for name in sources]
    found: dict[str, float | None] = {
        "lag_s": status["totals"]["lag_s"],
        "health": HEALTHS.index(status["health"]),
        "records_out_per_s": sum(rate for rate in rates if rate is not None) if before is not None else None,
        **{f"latency_{q}_s": status["latency"].get(q) for q in _QUANTILES},
    }
    epochs, last = after["figures"]["epochs"], before["figures"]["epochs"] if before is not None else None
    count = sum(epochs["counts"]) - sum(last["counts"]) if last is not None else 0
    if last is not None and count > 0:
        found["epoch_s"] = (epochs["seconds"] - last["seconds"]) / count
        for part in _EPOCH_PARTS:
            found[f"epoch_{part}_s"] = (epochs["parts"][part] - last["parts"][part]) / count
    return found
