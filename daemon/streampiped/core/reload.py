"""What differs between the plan that runs and the one that the configuration file says now. Pure.

Some of it can be taken over as it is, some needs another process for the stage that it concerns, and some can only be
had by a start of the daemon: such a reload is refused as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final

from streampiped.topology import Metrics, Plan, StageSpec, Thresholds

LIVE: Final = frozenset(
    {
        "checkpoint.interval",
        "checkpoint.retain_epochs",
        "control.operators",
        "logs.level",
        *(f"health.{field.name}" for field in fields(Thresholds)),
        *(f"metrics.{field.name}" for field in fields(Metrics)),
        *(
            f"supervision.{name}"
            for name in (
                "start_timeout", "reset_timeout", "stop_timeout", "drain_timeout", "max_restarts", "window",
                "backoff_first", "backoff_max", "stable_after", "poison_attempts",
            )
        ),
    }
)  # fmt: skip
"""Settings that the supervisor alone needs, or one service. All others are in processes, sockets or pipes already."""
SECTIONS: Final = ("paths", "supervision", "checkpoint", "links", "control", "logs", "health", "metrics")
METRICS_SERVER: Final = "service_monitor"
PROCESS_KEYS: Final = ("max_rate", "api", "retractable")
"""Of a stage, beside its options: what its process has been told."""
RESTART: Final = "needs a restart of the daemon (systemctl restart)"
OTHER_STATE: Final = "the kept state is of other stages: needs another state directory, or --fresh"
"""A start says the same (`decisions.check_shape`)."""
VALUE_CHARACTERS_MAX: Final = 60  # of a value shown in a change, which should stay on one line


@dataclass(frozen=True, slots=True)
class Difference:
    """`changes`: every setting that differs, a line for each, for people. `replaced`: the processes that must be others
    for it, in the order of the plan. `refused`: why it cannot be had without a restart, a line for each."""

    changes: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


def aligned(old: Plan, new: Plan) -> Plan:
    """`new` with its processes in the order of `old`, if they are the same and read the same: a table that was moved in
    the file is no change, and a stage's place in the plan is its name in other processes."""
    if _graph(old) != _graph(new):
        return new
    specs = {spec.name: spec for spec in new.processes}
    return replace(
        new,
        stages=tuple(specs[spec.name] for spec in old.stages),
        services=tuple(specs[spec.name] for spec in old.services),
    )


def compare(old: Plan, new: Plan) -> Difference:
    """From the plan that runs to the `aligned` new one."""
    settings = list(_settings(old, new))
    changes = [f"{key}: {_shown(was)} -> {_shown(now)}" for key, was, now in settings]
    refused = [f"{line}: {RESTART}" for line, (key, *_) in zip(changes, settings, strict=True) if key not in LIVE]
    replaced: set[str] = set()
    if "checkpoint.retain_epochs" in {key for key, *_ in settings}:  # how far back a sink must be able to go
        replaced |= {spec.name for spec in new.stages if spec.role == "sink"}
    if any(key.startswith("metrics.") for key, *_ in settings):
        replaced |= {spec.name for spec in new.services if spec.name == METRICS_SERVER}
    before, after = ({spec.name: spec for spec in plan.processes} for plan in (old, new))
    for name in [*before, *(name for name in after if name not in before)]:
        was, now = before.get(name), after.get(name)
        if was is None or now is None:
            spec = was or now
            changes.append(f"{_table(spec)}: {'removed' if now is None else 'added'}")
            refused.append(f"{changes[-1]}: {RESTART if spec and spec.role == 'service' else OTHER_STATE}")
            continue
        for key, reason, line in _stage(was, now):
            changes.append(line)
            if reason is not None:
                refused.append(f"{line}: {reason}")
            elif key != "hang_timeout":  # the supervisor's own
                replaced.add(name)
    return Difference(tuple(changes), tuple(name for name in after if name in replaced), tuple(refused))


def _graph(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {spec.name: spec.inputs for spec in plan.processes}


def _settings(old: Plan, new: Plan) -> Iterator[tuple[str, Any, Any]]:
    """(key, old value, new value) of what belongs to no process."""
    for name in ("pipeline", "seed", "python_path", "config_file"):
        key = {"pipeline": "pipeline.name", "config_file": "the file"}.get(name, f"pipeline.{name}")
        yield from _differing(key, getattr(old, name), getattr(new, name))
    for section in SECTIONS:
        was, now = asdict(getattr(old, section)), asdict(getattr(new, section))
        for name in was:
            yield from _differing(f"{section}.{name}", was[name], now[name])


def _differing(key: str, was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if was != now:
        yield key, was, now


def _stage(was: StageSpec, now: StageSpec) -> Iterator[tuple[str, str | None, str]]:
    """(key, why it cannot be had, line) of what differs."""
    table = _table(now)
    if was.klass != now.klass or was.role != now.role:
        yield "class", OTHER_STATE, f"{table}.class: {was.klass} -> {now.klass}"
    if was.inputs != now.inputs:
        yield "input", RESTART, f"{table}.input: {_shown(was.inputs)} -> {_shown(now.inputs)}"
    for key in (*PROCESS_KEYS, "hang_timeout"):
        for _, old, new in _differing(key, getattr(was, key), getattr(now, key)):
            yield key, None, f"{table}.{key}: {_shown(old)} -> {_shown(new)}"
    for key in sorted({*was.options, *now.options}):
        for _, old, new in _differing(key, was.options.get(key, _UNSET), now.options.get(key, _UNSET)):
            yield f"options.{key}", None, f"{table}.{key}: {_shown(old)} -> {_shown(new)}"


def _table(spec: StageSpec | None) -> str:
    assert spec is not None
    return spec.name if spec.role == "service" else f"stages.{spec.name}"


class _Unset:
    def __repr__(self) -> str:
        return "unset"


_UNSET: Final = _Unset()


def _shown(value: Any) -> str:
    if value is None:  # a setting that may be left out, and is
        value = _UNSET
    text = repr(list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 3] + "..."
