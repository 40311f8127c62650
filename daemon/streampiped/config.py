"""The configuration: streampipe.toml becomes a `topology.Plan`, or every problem in it at once.

This module imports pydantic, numpy and user code: only ever use it in a process that is thrown away
(`runtime/apart.py`), never in the supervisor.
"""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from streampiped import topology
from streampiped.check import (
    SERVICES,
    Trial,
    check_holdouts,
    check_inputs,
    check_role,
    check_socket_path,
    check_ways,
    claim_directory,
    give_to_group,
    in_order,
    try_stage,
)
from streampiped.credentials import Credentials
from streampiped.errors import StreampipeError, refuse_when_short
from streampiped.faults import ABSENT, did_you_mean, report_faults
from streampiped.runtime.epoch_store import EpochStore
from streampiped.sections import (
    SECTIONS,
    MetricsSection,
    PathsSection,
    Section,
    ServiceSection,
    StageSection,
    SupervisionSection,
    as_name,
    is_loopback,
)
from streampiped.toml_text import key_lines, parse, text_of

DEFAULT_CHAIN: Final = ("generator", "normalizer", "consumer", "trainer", "evaluator")
TAKEN_NAMES: Final = ("supervisor", "launcher", "control", *SERVICES)
"""Names of other processes, and of the control socket, which stands beside the stages' sockets."""
RESERVED: Final = tuple(info.alias or name for name, info in StageSection.model_fields.items())
"""Keys of a stage that are the pipeline's and not the class's."""
VALUE_CHARACTERS_MAX: Final = 60  # of a value shown in a problem, which should stay on one line
DIRECTORIES: Final[Mapping[str, tuple[str, str]]] = {
    "state": ("STATE_DIRECTORY", "var/state"),
    "runtime": ("RUNTIME_DIRECTORY", "var/run"),
    "logs": ("LOGS_DIRECTORY", "var/log"),
}
"""Path -> systemd's variable (systemd.exec(5)), and where it is without one."""
EVENTS_FILE: Final = "events.jsonl"
"""What the supervisor writes in `paths.logs` and the log extractor reads."""

SectionT = TypeVar("SectionT", bound=Section)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to put right."""

    file: str
    line: int | None
    key: str
    value: str | None
    """As it is written in the file, cut to a line; None: there is no value."""
    right: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        shown = self.key if self.value is None else f"{self.key} = {self.value}"
        return ": ".join(part for part in (place, shown, self.right) if part)


class ConfigProblems(StreampipeError):  # noqa: N818 - it is several, and none of them is an accident
    """Everything that is wrong with a configuration, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: p.line or 0))
        super().__init__("\n".join(map(str, self.problems)))


class _Findings:
    """Collects problems; its `report` is a `faults.Report`."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: Mapping[str, int] = {}
        self.problems: list[Problem] = []

    def report(self, key: str, value: Any, right: str) -> None:
        shown = None if value is ABSENT else _shown(value)
        self.problems.append(Problem(self.file, self._line(key), key, shown, right))

    def report_syntax(self, line: int | None, key: str, right: str) -> None:
        """A `toml_text.SyntaxReport`."""
        self.problems.append(Problem(self.file, line, key, None, right))

    def _line(self, key: str) -> int | None:
        """Of the key, else of the nearest table around it."""
        while key and key not in self.lines:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.lines.get(key)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[: VALUE_CHARACTERS_MAX - 3] + "..."


def load(
    path: str | os.PathLike[str],
    *,
    state_dir: str | None = None,
    runtime_dir: str | None = None,
    environ: Mapping[str, str] = os.environ,
    keep_directories: bool = True,
    fresh: bool = False,
) -> topology.Plan:
    """The plan that the file `path` describes. Raises `ConfigProblems`. Stages are tried as those of a pipeline that
    resumes where it has committed epochs, unless these will be forgotten: `fresh`.

    `state_dir` and `runtime_dir` win over the file, the file over `environ` (systemd's STATE_DIRECTORY,
    RUNTIME_DIRECTORY, LOGS_DIRECTORY), that over ./var. Missing directories are made; with
    `keep_directories=False` they are removed again, so that a check as root leaves nothing that the service could
    not write.
    """
    findings = _Findings(str(path))
    data = _read(Path(path), findings)
    flags = {"state": state_dir, "runtime": runtime_dir, "logs": None}
    made: list[Path] = []
    try:
        plan = _plan(data, Path(path), flags, environ, findings, made, fresh=fresh)
        keep_directories &= not findings.problems
    finally:
        for directory in [] if keep_directories else reversed(made):
            directory.rmdir()
    if findings.problems:
        raise ConfigProblems(findings.problems)
    return plan


def _user() -> str:
    """The name of whom we run as: in a service rarely whoever wrote the file."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _read(file: Path, findings: _Findings) -> dict[str, Any]:
    """The file's data; without any there is nothing else to check."""
    try:
        text = text_of(file)
    except OSError as error:
        refuse_when_short(error, "it cannot be read")
        whose = f" for the user {_user()}" if isinstance(error, PermissionError) else ""
        findings.report("", ABSENT, f"cannot be read: {error.strerror}{whose}")
    except UnicodeDecodeError as error:
        findings.report("", ABSENT, f"should be UTF-8 text; byte {error.start} is not")
    else:
        findings.lines = key_lines(text)
        data = parse(text, findings.report_syntax)
        if data is not None:
            return data
    raise ConfigProblems(findings.problems)


def _plan(
    data: Mapping[str, Any],
    file: Path,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    findings: _Findings,
    made: list[Path],
    *,
    fresh: bool,
) -> topology.Plan:
    """Everything is looked at, whatever was wrong before; what could not be understood has its default."""
    tables = [*SECTIONS, "stages", *SERVICES]
    for name in data.keys() - set(tables):
        findings.report(name, ABSENT, f"no such table{did_you_mean(name, tables)}")
    sections: dict[str, Any] = {
        name: _section(model, data.get(name, {}), name, findings) for name, model in SECTIONS.items()
    }
    _check_backoff(sections["supervision"], findings)
    paths = _paths(sections["paths"], flags, environ, findings, made, sections["control"].group)
    python_path = _python_path(sections["pipeline"].python_path, file, findings)
    credentials = Credentials(file, environ)
    with _searched(python_path), credentials.masking():
        resuming = not fresh and EpochStore(Path(paths.state, "epochs")).is_begun()
        stages = _stages(data.get("stages", {}), findings, resuming, credentials)
        services = _services(data, paths, findings, credentials)
    _check_metrics(sections["metrics"], services, findings)
    names = ["control", *(spec.name for spec in stages if spec.api)]
    check_socket_path(Path(paths.runtime), names, findings.report)
    return topology.Plan(
        pipeline=sections["pipeline"].name,
        seed=sections["pipeline"].seed,
        config_file=str(file.absolute()),
        paths=paths,
        stages=stages,
        services=services,
        supervision=topology.Supervision(**sections["supervision"].model_dump()),
        checkpoint=topology.Checkpoint(**sections["checkpoint"].model_dump()),
        links=topology.Links(**sections["links"].model_dump()),
        control=topology.Control(**sections["control"].model_dump()),
        logs=topology.Logs(**sections["logs"].model_dump()),
        health=topology.Thresholds(**sections["health"].model_dump()),
        metrics=topology.Metrics(**sections["metrics"].model_dump()),
        python_path=python_path,
    )


def _section(model: type[SectionT], data: Any, key: str, findings: _Findings) -> SectionT:
    """The table as its model. What is wrong is told and gets its default, so that the rest can be checked."""
    if not isinstance(data, dict):
        findings.report(key, data, f"should be a table, [{key}]")
        data = {}
    try:
        return model.model_validate(data)
    except ValidationError as error:
        wrong = report_faults(error, model, data, key, findings.report)
        return model.model_validate({name: value for name, value in data.items() if name not in wrong})


def _check_backoff(supervision: SupervisionSection, findings: _Findings) -> None:
    if supervision.backoff_first > supervision.backoff_max:
        right = f"should be at most backoff_max, which is {supervision.backoff_max:g} s"
        findings.report("supervision.backoff_first", f"{supervision.backoff_first:g}s", right)


def _check_metrics(metrics: MetricsSection, services: Iterable[topology.StageSpec], findings: _Findings) -> None:
    if metrics.listen is None:
        return
    if not (metrics.anywhere or is_loopback(metrics.listen)):
        right = "other machines reach that; should be 127.0.0.1 or [::1], or anywhere = true beside it"
        findings.report("metrics.listen", metrics.listen, right)
    if not any(spec.name == "service_monitor" for spec in services):
        findings.report("metrics.listen", metrics.listen, "needs the service monitor, which is not enabled")


# --- processes ----------------------------------------------------------------------------------------------------


def _stages(
    tables: Any, findings: _Findings, resuming: bool, credentials: Credentials
) -> tuple[topology.StageSpec, ...]:
    """Those that are right, in topological order."""
    if not isinstance(tables, dict):
        findings.report("stages", tables, "should be tables, [stages.NAME]")
        return ()
    if not tables:
        tables = {DEFAULT_CHAIN[0]: {}, **{name: {"input": before} for before, name in pairwise(DEFAULT_CHAIN)}}
    sections = {name: _section(StageSection, table, f"stages.{name}", findings) for name, table in tables.items()}
    inputs = {name: section.inputs for name, section in sections.items()}
    check_inputs(inputs, SERVICES, findings.report)
    made = {
        name: _stage(name, tables[name], section, findings, resuming, credentials) for name, section in sections.items()
    }
    order = in_order(inputs, findings.report)
    check_ways(order, inputs, findings.report)
    check_holdouts({name: both[1] for name, both in made.items() if both}, inputs, findings.report)
    return tuple(both[0] for name in order if (both := made[name]))


def _stage(
    name: str, table: Any, section: StageSection, findings: _Findings, resuming: bool, credentials: Credentials
) -> tuple[topology.StageSpec, Trial] | None:
    key = f"stages.{name}"
    _check_name(name, key, findings)
    if section.klass is None and "class" in table:  # of a wrong type, and told
        return None
    options = section.model_extra or {}
    klass = section.klass or name
    trial = try_stage(
        name,
        klass,
        options,
        findings.report,
        key=key,
        reserved=RESERVED,
        resuming=resuming,
        credentials=credentials,
    )
    if trial is None:
        return None
    if section.inputs or not table.get("input"):  # else its type was wrong, and told
        check_role(name, trial.role, section.inputs, findings.report)
    spec = topology.StageSpec(
        name=name,
        klass=trial.klass,
        role=trial.role,
        inputs=section.inputs,
        options=options,
        api=trial.api,
        max_rate=section.max_rate or None,
        hang_timeout=section.hang_timeout,
        retractable=trial.retractable,
        isolates=trial.isolates,
    )
    return spec, trial


def _check_name(name: str, key: str, findings: _Findings) -> None:
    try:
        as_name(name)
    except ValueError as error:
        findings.report(key, name, str(error))
    if name in TAKEN_NAMES:
        findings.report(key, name, "is the name of another process")


def _services(
    data: Mapping[str, Any], paths: topology.Paths, findings: _Findings, credentials: Credentials
) -> tuple[topology.StageSpec, ...]:
    specs: list[topology.StageSpec] = []
    for name, klass in SERVICES.items():
        section = _section(ServiceSection, data.get(name, {}), name, findings)
        options = dict(section.model_extra or {})
        if name == "log_extractor":
            options["path"] = options.get("path") or str(Path(paths.logs) / EVENTS_FILE)
        reserved = ServiceSection.model_fields
        trial = try_stage(
            name,
            klass,
            options,
            findings.report,
            key=name,
            reserved=reserved,
            resuming=False,
            credentials=credentials,
        )
        if trial and section.enabled:
            specs.append(topology.StageSpec(name=name, klass=klass, role="service", options=options))
    return tuple(specs)


# --- directories --------------------------------------------------------------------------------------------------


def _paths(
    section: PathsSection,
    flags: Mapping[str, str | None],
    environ: Mapping[str, str],
    findings: _Findings,
    made: list[Path],
    group: str,
) -> topology.Paths:
    """Directories that are made on the way to the sockets are the `group`'s, as the sockets are."""
    chosen: dict[str, str] = {}
    for name, (variable, fallback) in DIRECTORIES.items():
        given = environ.get(variable, "").split(":")[0]  # systemd lists all of a StateDirectory= with several
        path = Path(flags[name] or getattr(section, name) or given or fallback).absolute()
        chosen[name] = str(path)
        made += claim_directory(path, f"paths.{name}", findings.report)
    give_to_group([d for d in made if Path(chosen["runtime"]).is_relative_to(d)], group)
    return topology.Paths(**chosen)


def _python_path(entries: Iterable[str], file: Path, findings: _Findings) -> tuple[str, ...]:
    """Absolute. Relative to the file: classes belong to the configuration that names them, wherever it is used."""
    found = tuple(os.path.normpath(file.absolute().parent / entry) for entry in entries)
    for entry in found:
        if not Path(entry).is_dir():
            findings.report("pipeline.python_path", entry, "should be a directory that is there")
    return found


@contextmanager
def _searched(directories: Iterable[str]) -> Iterator[None]:
    """Imports look there first, as they do in the stage's process."""
    before = list(sys.path)
    sys.path[:0] = directories
    try:
        yield
    finally:
        sys.path[:] = before
