"""The APIs of stages: their sockets beside the control socket, and which of them has a model."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from streampipectl.client import Client
from streampipectl.render import GOOD, clean, reason_text
from streampiped.errors import ExitCode, RpcError

MODEL: Final = frozenset({"predict", "history", "export"})
"""Methods that a stage with a model has."""
ANSWER_S: Final = 30.0  # a stage answers between two batches, and a large model takes a while to be written down
CURRENT: Final = "current"  # for `pin`: the member that is served


class Api(NamedTuple):
    """A stage whose API answers, and its methods."""

    stage: str
    client: Client
    methods: Collection[str]

    def ask(self, method: str, **params: Any) -> Any:
        """The answer; what is None is not said."""
        return self.client.call(method, {name: value for name, value in params.items() if value is not None}, ANSWER_S)


def processes(path: str) -> list[Mapping[str, Any]]:
    """Of the pipeline whose control socket is at `path`, in the plan's order."""
    client = Client(path)
    try:
        found: list[Mapping[str, Any]] = client.call("status", {"usage": False})["processes"]
    finally:
        client.close()
    return found


def model_of(path: str, stage: str | None, there: Sequence[Mapping[str, Any]] | None = None) -> Api:
    """The API of `stage`, or of the one stage that has a model. RpcError NO_SUCH_STAGE, REFUSED when there is none to
    ask, with a line for each that might have one and is not up, USAGE when there are several."""
    there = processes(path) if there is None else there
    names = [str(process["name"]) for process in there]
    if stage is not None and stage not in names:
        raise RpcError(f"no stage {stage!r}; there are {', '.join(names)}", ExitCode.NO_SUCH_STAGE)
    asked = [process for process in there if stage in (None, process["name"])]
    answering, silent = _answering(path, [str(process["name"]) for process in asked])
    found = [api for api in answering if set(api.methods) >= MODEL]
    if not found:
        why = [_absence(process, silent) for process in asked if process.get("role") != "service"]
        none = f"{stage or 'no stage'} has {'no' if stage else 'a'} model to ask"
        raise RpcError("\n".join([none, *filter(None, why)]), ExitCode.REFUSED)
    if len(found) > 1:
        raise RpcError(f"{', '.join(a.stage for a in found)} have a model; --stage says which", ExitCode.USAGE)
    return found[0]


def must_have_version(api: Api, version: int | None) -> None:
    """RpcError NO_SUCH_STAGE for a version that the stage does not have; it would say so too, as of any failure."""
    there = api.ask("info")["versions"]
    if version is not None and version not in there:
        kept = ", ".join(map(str, there)) or "none"
        raise RpcError(f"no model of epoch {version} is kept; there are {kept}", ExitCode.NO_SUCH_STAGE)


def must_have_member(api: Api, member: str) -> None:
    """The same for members."""
    there = [str(row["name"]) for row in api.ask("show")["members"]]
    if member not in (*there, CURRENT):
        raise RpcError(f"no member {member!r}; there are {', '.join(there)}", ExitCode.NO_SUCH_STAGE)


def before(path: str, stage: str, there: Sequence[Mapping[str, Any]]) -> list[Api]:
    """The stages that records pass before they come to `stage`, the first one first, as far as they can tell what they
    make of rows (`transform`). RpcError REFUSED where ways join: which one a row takes is nowhere said."""
    inputs = {str(process["name"]): list(process.get("inputs") or ()) for process in there}
    way: list[str] = []
    while above := inputs.get(stage):
        if len(above) > 1:
            raise RpcError(f"several ways lead to {stage}: give it its rows --as-is", ExitCode.REFUSED)
        stage = above[0]
        way.append(stage)
    return [api for api in _answering(path, way[::-1])[0] if "transform" in api.methods]


def _answering(path: str, names: Sequence[str]) -> tuple[list[Api], list[str]]:
    """Those that answer, and those that have a socket and do not: on their way out, or in, or stuck."""
    answering: list[Api] = []
    silent: list[str] = []
    for name in names:
        socket = os.path.join(os.path.dirname(path), f"{name}.sock")
        if not os.path.exists(socket):
            continue
        try:
            client = Client(socket)
        except RpcError:
            silent.append(name)
        else:
            answering.append(Api(name, client, client.daemon.get("methods") or ()))
    return answering, silent


def _absence(process: Mapping[str, Any], silent: Collection[str]) -> str | None:
    """Why a stage cannot be asked, and what to type; None: it can."""
    name, state = clean(process["name"]), str(process["state"])
    if state == "stopped":
        return f"{name} is stopped; `streampipectl start {name}` starts it"
    if state in ("failed", "backoff") and process.get("last_reason"):
        return reason_text(process)
    if state not in GOOD:
        return f"{name} is {clean(state)}"
    return f"{name} does not answer; `streampipectl why {name}` says more" if process["name"] in silent else None
