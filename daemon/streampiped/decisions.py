"""From a plan and what is on the disk to the decisions that run it."""

from __future__ import annotations

import random

from streampiped.core.epochs import Coordinator
from streampiped.core.intensity import Intensity
from streampiped.core.processes import Limits, Process
from streampiped.core.supervision import Supervision
from streampiped.errors import StateError
from streampiped.runtime.snapshots import Manifest
from streampiped.topology import Plan


def check_shape(plan: Plan, restored: Manifest | None) -> None:
    """StateError when the restored epoch is one of other stages."""
    shape = {spec.name: spec.klass for spec in plan.stages}
    if restored is not None and restored.shape != shape:
        raise StateError(
            f"{plan.paths.state}: epoch {restored.epoch} is of stages {restored.shape}, "
            f"the configuration has {shape}; use another --state-dir, or --fresh to discard it"
        )


def decisions_for(plan: Plan, highest: int, restored: Manifest | None) -> Supervision:
    """The decisions for a plan, from the restored epoch on; `highest` is the largest epoch number on the disk."""
    limits = plan.supervision
    processes = [
        Process(
            spec.name,
            spec.role == "service",
            spec.hang_timeout,
            Intensity(
                limits.max_restarts,
                limits.window,
                limits.backoff_first,
                limits.backoff_max,
                limits.stable_after,
                lambda: random.uniform(0.5, 1.0),
            ),
            inputs=tuple(spec.inputs),
        )
        for spec in plan.processes
    ]
    epochs = Coordinator(
        tuple(spec.name for spec in plan.stages),
        tuple(spec.name for spec in plan.stages if spec.role == "source"),
        tuple(spec.name for spec in plan.stages if spec.role == "sink"),
        plan.checkpoint.interval,
        restored.epoch if restored is not None else None,
        highest,
        restored is not None and restored.finished,
        tuple(restored.changes) if restored is not None else (),
    )
    return Supervision(
        processes,
        Limits(
            limits.start_timeout,
            limits.reset_timeout,
            limits.stop_timeout,
            limits.drain_timeout,
            limits.poison_attempts,
        ),
        epochs,
    )
