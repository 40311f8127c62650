"""The report: the sections of the stages, the reporter's own figures around them, and what the daemon knows.

The reporter is the first stage from the end that answers `report`: the evaluator. The others may have a `section`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import msgpack

from streampiped.errors import ExitCode, RpcError
from streampiped.log_report import condensed, log_text
from streampiped.status_view import MONITOR, StatusView, Watched
from streampiped.topology import Plan

REPORT_TIMEOUT_S: Final = 5.0
SECTION_TIMEOUT_S: Final = 1.0  # the report does without
SERVICE_TIMEOUT_S: Final = 1.0  # of log extractor and service monitor; as above
STANDING: Final = ("failed", "stopped", "degraded")  # states in which figures are of then, and not of now
SECTIONS_BYTES_MAX: Final = 96 << 10  # in the question to the reporter; a message has at most 128 KiB

LogSummary: TypeAlias = "Callable[[str | None, float], Awaitable[dict[str, Any]]]"
"""As `control_backend.Backend.log_summary`."""


class Reporting:
    """Asks the stages, and puts together what they answer."""

    def __init__(
        self,
        supervisor: Watched,
        view: StatusView,
        log_summary: Callable[[str | None, float], Awaitable[dict[str, Any]]],
    ) -> None:
        self._supervisor = supervisor
        self._view = view
        self._log_summary = log_summary

    async def report(self) -> dict[str, Any]:
        """`{"text", "results", "operations"}`. RpcError REFUSED when no stage has one."""
        known = self._view.reporter
        candidates = [known] if known else [spec.name for spec in reversed(self._supervisor.plan.stages)]
        errors: list[str] = []
        for name in candidates:
            sections = await self._sections(name)
            results = {title: section["results"] for title, section in sections.items()}
            asked, silent = fitting(results)
            try:
                answer = await self._supervisor.query(name, "report", {"sections": asked}, REPORT_TIMEOUT_S)
                text = "\n\n".join(
                    [str(answer["text"]).rstrip(), *(f"{other}: too long, see --json" for other in silent)]
                )
                report = {"text": f"{text}\n", "results": {**results, **answer["results"]}}
                told = {other: section["operations"] for other, section in sections.items() if section["operations"]}
                operations = {**told, **answer.get("operations", {}), **self._operations()}
            except RpcError as error:
                errors.append(str(error))
            except (KeyError, TypeError, AttributeError):
                errors.append(f"{name} answers with something that is no report")
            else:
                self._view.reporter = name
                return await self._with_services({**report, "operations": operations})
        raise RpcError(f"no report: {'; '.join(errors)}", ExitCode.REFUSED)

    async def _sections(self, reporter: str) -> dict[str, dict[str, Any]]:
        """name -> `results` and `operations` of the stages that the reporter's rows come through, in their order. Of a
        chain beside it a report says nothing."""
        stages = _upstream(self._supervisor.plan, reporter)
        found: dict[str, dict[str, Any]] = {}
        for stage, section in zip(stages, await asyncio.gather(*map(self._section, stages)), strict=True):
            if section is not None:
                name = section["name"]
                found[name if name not in found else f"{name} {stage}"] = section
        return found

    async def _section(self, stage: str) -> dict[str, Any] | None:
        with contextlib.suppress(RpcError):
            return section_of(await self._supervisor.query(stage, "section", {}, SECTION_TIMEOUT_S))
        return None

    async def _with_services(self, report: dict[str, Any]) -> dict[str, Any]:
        """The report with what the log says and the processes have used, as far as there is somebody who knows. Not in
        `results`, which are the same in every run over the same records."""
        log, processes = await asyncio.gather(self._log(), self._usage())
        text = report["text"] if log is None else f"{report['text'].rstrip()}\n\n{log_text(log)}"
        state, reason = self._view.state()
        if state in STANDING:
            text = f"{text.rstrip()}\n\nThe figures do not go on: the pipeline is {state}, {reason}.\n"
        return {**report, "text": text, "operations": {**report["operations"], "log": log, "processes": processes}}

    async def _log(self) -> dict[str, Any] | None:
        with contextlib.suppress(RpcError, TimeoutError):
            return condensed(await asyncio.wait_for(self._log_summary(None, 0.0), SERVICE_TIMEOUT_S))
        return None

    async def _usage(self) -> dict[str, Any] | None:
        """CPU and memory of the processes since the daemon's start."""
        names = [spec.name for spec in self._supervisor.plan.processes]
        asked = {"processes": ["supervisor", "launcher", *names], "since": self._view.started}
        with contextlib.suppress(RpcError, KeyError):
            found: dict[str, Any] = await self._supervisor.query(MONITOR, "usage", asked, SERVICE_TIMEOUT_S)
            return found
        return None

    def _operations(self) -> dict[str, Any]:
        supervision = self._supervisor.supervision
        return {
            "generation": supervision.generation,
            "epoch": supervision.epochs.committed,
            "uptime": self._view.uptime,
            "restarts": {p.name: p.restarts for p in supervision.processes.values()},
            "log_drops": self._supervisor.log.counts(),
        }


def _upstream(plan: Plan, stage: str) -> list[str]:
    """The stage and all before it."""
    inputs = {spec.name: spec.inputs for spec in plan.stages}
    found, waiting = set(), [stage]
    while waiting:
        name = waiting.pop()
        if name not in found and name in inputs:
            found.add(name)
            waiting += inputs[name]
    return [name for name in inputs if name in found]


def section_of(answer: Any) -> dict[str, Any] | None:
    """What a stage answered to `section`, or None when that is no section: a stage may be anybody's."""
    if not isinstance(answer, Mapping):
        return None
    name, results, operations = (answer.get(key) for key in ("name", "results", "operations"))
    if not isinstance(name, str) or not name or not isinstance(results, Mapping):
        return None
    return {"name": name, "results": results, "operations": operations if isinstance(operations, Mapping) else {}}


def fitting(sections: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The sections that one message has room for, the shortest first, and the names of the others.

    >>> fitting({"model": {"champion": "mean"}, "gate": {"columns": "x" * 100_000}})
    ({'model': {'champion': 'mean'}}, ['gate'])
    """
    sizes = {name: len(msgpack.packb(section)) for name, section in sections.items()}
    room, chosen = SECTIONS_BYTES_MAX, set()
    for name in sorted(sizes, key=lambda name: sizes[name]):
        room -= sizes[name]
        if room >= 0:
            chosen.add(name)
    kept = {name: section for name, section in sections.items() if name in chosen}
    return kept, [name for name in sections if name not in chosen]
