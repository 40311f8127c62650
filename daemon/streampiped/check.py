"""What a configuration must fulfil beyond the types of its keys: classes, options, the graph, directories.

Nothing here raises on a wrong configuration: every function tells its findings to a `Report` and goes on, so
that the operator sees all of them at once. It imports user code, so it runs in a process that is thrown away
(`runtime/apart.py`).
"""

from __future__ import annotations

import contextlib
import grp
import importlib
import os
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
from pydantic import ValidationError

from streampiped.credentials import CredentialError, Credentials
from streampiped.errors import OptionError, refuse_when_short
from streampiped.faults import ABSENT, Report, did_you_mean, place_of, report_faults
from streampiped.stages.base import Service, SinkStage, SourceStage, Stage, StageContext, StageOptions
from streampiped.topology import Role

SOCKET_PATH_BYTES_MAX = 107  # sockaddr_un.sun_path has 108 bytes, one of them for the final NUL (unix(7))
WAYS_MAX = 256  # eight forks in a row that join again; each is a text in every process' memory
DIRECTORY_MODE = 0o750  # the group may reach the sockets; a umask may take that away again

BUILTIN: Mapping[str, str] = {
    "generator": "streampiped.stages.generator:Generator",
    "normalizer": "streampiped.stages.normalizer:Normalizer",
    "consumer": "streampiped.stages.consumer:Consumer",
    "trainer": "streampiped.stages.trainer:Trainer",
    "evaluator": "streampiped.stages.evaluator:Evaluator",
}
SERVICES: Mapping[str, str] = {
    "log_extractor": "streampiped.stages.log_extractor:LogExtractor",
    "service_monitor": "streampiped.stages.service_monitor:ServiceMonitor",
}


@dataclass(frozen=True, slots=True)
class Trial:
    """What importing and constructing a class has shown."""

    klass: str
    kind: str | None
    """The built-in kind that the class is or is derived from."""
    role: Role
    options: StageOptions
    """As validated, with their defaults."""
    api: bool
    retractable: bool
    isolates: bool


# --- classes ------------------------------------------------------------------------------------------------------


def try_stage(
    name: str,
    klass: str,
    options: Mapping[str, Any],
    report: Report,
    *,
    key: str,
    reserved: Iterable[str],
    resuming: bool,
    credentials: Credentials,
) -> Trial | None:
    """Import the class (`klass` as written: a built-in kind or a path), validate the options, make an object in a
    temporary directory, for a pipeline that has committed epochs if `resuming`. None: something was told, without any
    of the secrets that the options name."""
    loaded = _import(klass, f"{key}.class", report)
    if loaded is None:
        return None
    role = role_of(loaded)
    if role is None:
        report(f"{key}.class", klass, "should be a stage: a subclass of streampiped.stages.base.Stage")
        return None
    model = getattr(loaded, "Options", StageOptions)
    if not (isinstance(model, type) and issubclass(model, StageOptions)):
        report(f"{key}.class", klass, "its Options should be a subclass of streampiped.stages.base.StageOptions")
        return None
    if taken := sorted(set(model.model_fields) & set(reserved)):
        report(f"{key}.class", klass, f"its Options use names that every stage has: {', '.join(taken)}")
        return None

    def told(where: str, value: Any, right: str) -> None:
        report(where, value, credentials.masked(right))

    checked = _validate(model, options, key, told, reserved, credentials)
    return None if checked is None else _construct(loaded, role, klass, name, checked, key, told, resuming)


def role_of(loaded: Any) -> Role | None:
    """The part a class plays: by what it is derived from, else by the methods it offers; None: none."""
    if not isinstance(loaded, type):
        return None
    for base, methods, role in _ROLES:
        if issubclass(loaded, base) or all(callable(getattr(loaded, method, None)) for method in methods):
            return role
    return None


def _kind_of(loaded: type) -> str | None:
    """The built-in kind among the class and its bases, told by their paths: none is imported for it."""
    kinds = {path: kind for kind, path in BUILTIN.items()}
    paths = (f"{base.__module__}:{base.__qualname__}" for base in loaded.__mro__)
    return next((kinds[path] for path in paths if path in kinds), None)


_ROLES: tuple[tuple[type, tuple[str, ...], Role], ...] = (
    (Service, ("wake", "roster"), "service"),
    (SourceStage, ("read", "snapshot", "restore"), "source"),
    (SinkStage, ("process", "snapshot", "restore", "prepare", "commit", "rollback"), "sink"),
    (Stage, ("process", "snapshot", "restore"), "transform"),
)


def _import(klass: str, key: str, report: Report) -> Any:
    module_name, colon, class_name = BUILTIN.get(klass, klass).partition(":")
    if not (module_name and colon and class_name):
        right = 'should be "package.module:Class" or a built-in kind'
        report(key, klass, f"{right}{did_you_mean(klass, BUILTIN)}")
        return None
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missed = error.name or ""
        hint = "; [pipeline] python_path lists where to look" if f"{module_name}.".startswith(f"{missed}.") else ""
        report(key, klass, f"cannot be imported: no module named {missed!r}{hint}")
        return None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's module does is an answer
        report(key, klass, f"cannot be imported: {_blame(error)}")
        return None
    if not hasattr(module, class_name):
        classes = [name for name, value in vars(module).items() if role_of(value) and value.__module__ == module_name]
        report(key, klass, f"{module.__file__} has no {class_name}{did_you_mean(class_name, classes)}")
    return getattr(module, class_name, None)


def _validate(
    model: type[StageOptions],
    options: Mapping[str, Any],
    key: str,
    report: Report,
    reserved: Iterable[str],
    credentials: Credentials,
) -> StageOptions | None:
    try:
        checked = credentials.options(model, options)
    except ValidationError as error:
        report_faults(error, model, dict(options), key, report, also=reserved)
        return None
    except CredentialError as error:
        for loc, right in error.missing:
            report(*place_of(loc, dict(options), key), right)
        return None
    for name, value in options.items():
        try:
            msgpack.packb(value)
        except (TypeError, ValueError, OverflowError):  # TOML has dates and integers of any size
            report(
                f"{key}.{name}",
                value,
                "should be text, a number of 64 bits, true or false, or lists or tables of these",
            )
            return None
    return checked


def _construct(
    loaded: Any, role: Role, klass: str, name: str, options: StageOptions, key: str, report: Report, resuming: bool
) -> Trial | None:
    """An option may be valid by its type and still impossible; only the constructor knows. StorageError when the
    machine is short of something."""
    with _try_out(key) as directory:
        try:
            made = loaded(options, StageContext(name=name, directory=Path(directory), resuming=resuming))
            api = bool(made.api()) if hasattr(made, "api") else False
            made.close()
        except OptionError as error:
            report(key, ABSENT, str(error))
            return None
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a user's class does is an answer
            refuse_when_short(error, key)
            report(key, ABSENT, f"{klass} cannot be made with these options: {_blame(error)}")
            return None
    isolates = role != "sink" or getattr(loaded, "isolate", SinkStage.isolate) is not SinkStage.isolate
    return Trial(
        klass=BUILTIN.get(klass, klass),
        kind=_kind_of(loaded),
        role=role,
        options=options,
        api=api,
        retractable=bool(getattr(loaded, "retractable", True)),
        isolates=isolates,
    )


@contextlib.contextmanager
def _try_out(key: str) -> Iterator[str]:
    """A directory to be a stage in."""
    try:
        directory = tempfile.TemporaryDirectory(prefix="streampipe-check-")
    except OSError as error:
        refuse_when_short(error, key)
        raise
    with directory as path:
        yield path


def _blame(error: BaseException) -> str:
    """The error and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


# --- the graph ----------------------------------------------------------------------------------------------------


def check_inputs(inputs: Mapping[str, Sequence[str]], services: Iterable[str], report: Report) -> None:
    """Every input names another stage, once."""
    for name, wanted in inputs.items():
        key = f"stages.{name}.input"
        for source in dict.fromkeys(wanted):
            if source == name:
                report(key, source, "a stage cannot be its own input")
            elif source in services:
                report(key, source, "is a service; services stand beside the stream and have no output")
            elif source not in inputs:
                report(key, source, f"no such stage{did_you_mean(source, inputs.keys() - {name})}")
        for source in {s for s in wanted if wanted.count(s) > 1}:
            report(key, list(wanted), f"names {source} more than once")


def check_role(name: str, role: Role, inputs: Sequence[str], report: Report) -> None:
    """Sources have no input, all others have one; a service is no stage."""
    key = f"stages.{name}"
    if role == "service":
        report(
            f"{key}.class",
            ABSENT,
            "is a service, not a stage; log_extractor and service_monitor are the services",
        )
    elif role == "source" and inputs:
        report(f"{key}.input", list(inputs), "a source has no input; remove the key")
    elif role != "source" and not inputs:
        report(
            f"{key}.input",
            ABSENT,
            'is needed: the name of the stage to read from, such as input = "normalizer"',
        )


def in_order(inputs: Mapping[str, Sequence[str]], report: Report) -> tuple[str, ...]:
    """The stages such that every one comes after its inputs, sources first, else as written. Cycles are told; their
    stages come last. Inputs that are no stages do not count, `check_inputs` tells them."""
    left = {name: {s for s in wanted if s in inputs and s != name} for name, wanted in inputs.items()}
    order: list[str] = []
    while left:
        ready = [name for name, wanted in left.items() if not wanted & left.keys()]
        if not ready:
            ready = _cycle(left)
            path = " -> ".join([*ready, ready[0]])
            report(f"stages.{ready[0]}.input", ABSENT, f"a cycle: {path}; a stream must not come back to a stage")
        order += ready
        for name in ready:
            del left[name]
    return tuple(order)


def check_ways(order: Iterable[str], inputs: Mapping[str, Sequence[str]], report: Report) -> None:
    """Every row is named by its way (docs/decisions/ways.md), and each fork that joins again doubles the ways of all
    that stands behind. Told of the first stage that has too many; `order` as by `in_order`."""
    ways: dict[str, int] = {}
    for name in order:
        ways[name] = sum(ways.get(source, 1) for source in inputs[name]) or 1
        if ways[name] > WAYS_MAX:
            return report(
                f"stages.{name}.input",
                list(inputs[name]),
                f"records come here over {ways[name]} ways, at most {WAYS_MAX} are possible; join branches that part "
                "from the same stage once, or put fewer such forks in a row",
            )
    return None


def check_holdouts(trials: Mapping[str, Trial], inputs: Mapping[str, Sequence[str]], report: Report) -> None:
    """An evaluator takes the rows that its own `holdout` chooses for those that were never learned: it has to be that
    of every trainer before it whose predictions it scores. Stages of other classes are not looked at."""
    for name, trial in trials.items():
        if trial.kind != "evaluator":
            continue
        ours, scored = (getattr(trial.options, option, None) for option in ("holdout", "prediction"))
        given = "holdout" in trial.options.model_fields_set
        left_out = "" if given else f"is {ours} when left out, "
        for before in _upstream(name, inputs):
            other = trials.get(before)
            if other is None or other.kind != "trainer" or getattr(other.options, "prediction", None) != scored:
                continue
            theirs = getattr(other.options, "holdout", None)
            if ours is not None and theirs is not None and ours != theirs:
                right = f"{left_out}should be {theirs} as in stages.{before}, or {ours} there too"
                why = "else what is scored as held out is not what was never learned"
                report(f"stages.{name}.holdout", ours if given else ABSENT, f"{right}: {why}")


def _upstream(name: str, inputs: Mapping[str, Sequence[str]]) -> list[str]:
    """The stages that the rows of this one come through, the nearest first."""
    found = list(inputs[name])
    for each in found:  # which grows meanwhile
        found += [further for further in inputs.get(each, ()) if further not in found]
    return found


def _cycle(left: Mapping[str, set[str]]) -> list[str]:
    """Some cycle, in the direction of the stream, from the stage that is written first. Every stage of `left` has
    an input in it, so that going from input to input must come back."""
    walk = [next(iter(left))]
    while (source := min(left[walk[-1]] & left.keys())) not in walk:
        walk.append(source)
    found = walk[walk.index(source) :][::-1]
    first = min(found, key=list(left).index)
    return found[found.index(first) :] + found[: found.index(first)]


# --- directories --------------------------------------------------------------------------------------------------


def claim_directory(path: Path, key: str, report: Report) -> list[Path]:
    """Make the directory where it is missing and write a file into it; the directories made, outermost first.

    Trying is the only honest test: permission bits say nothing to root, nor of a read-only mount. StorageError
    when the machine is short of something: no edit of the file would help.
    """
    made: list[Path] = []
    try:
        for directory in reversed([path, *path.parents]):
            if not directory.exists():
                directory.mkdir(mode=DIRECTORY_MODE)
                made.append(directory)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        refuse_when_short(error, key)
        report(key, str(path), f"should be a directory that can be written: {error.strerror} ({error.filename})")
    return made


def give_to_group(directories: Iterable[Path], group: str) -> None:
    """Where the group exists and we may: else its members have to be let in by who runs the daemon."""
    with contextlib.suppress(KeyError, PermissionError):
        gid = grp.getgrnam(group).gr_gid
        for directory in directories:
            if directory.stat().st_gid != gid:
                os.chown(directory, -1, gid)


def check_socket_path(runtime: Path, names: Iterable[str], report: Report) -> None:
    longest = max((os.fsencode(runtime / f"{name}.sock") for name in names), key=len)
    if (over := len(longest) - SOCKET_PATH_BYTES_MAX) > 0:
        right = f"should be {over} bytes shorter: the path of a Unix socket has at most {SOCKET_PATH_BYTES_MAX} bytes"
        report("paths.runtime", str(runtime), f"{right} and {os.fsdecode(longest)} is needed")
