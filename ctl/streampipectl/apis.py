"""The APIs of stages: their sockets beside the control socket, and which of them has a model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from streampipectl.client import Client
from streampiped.errors import ExitCode, RpcError

MODEL: Final = frozenset({"predict", "history", "export"})
"""Methods that a stage with a model has."""


class Api(NamedTuple):
    """A stage whose API answers, and its methods."""

    stage: str
    client: Client
    methods: Collection[str]


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
    ask, USAGE when there are several."""
    names = [str(process["name"]) for process in (processes(path) if there is None else there)]
    if stage is not None and stage not in names:
        raise RpcError(f"no stage {stage!r}; there are {', '.join(names)}", ExitCode.NO_SUCH_STAGE)
    found = [api for api in _answering(path, names if stage is None else [stage]) if set(api.methods) >= MODEL]
    if not found:
        raise RpcError(f"{stage or 'no stage'} has {'no' if stage else 'a'} model to ask", ExitCode.REFUSED)
    if len(found) > 1:
        raise RpcError(f"{', '.join(a.stage for a in found)} have a model; --stage says which", ExitCode.USAGE)
    return found[0]


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
    return [api for api in _answering(path, way[::-1]) if "transform" in api.methods]


def _answering(path: str, names: Sequence[str]) -> Iterator[Api]:
    for name in names:
        socket = os.path.join(os.path.dirname(path), f"{name}.sock")
        if os.path.exists(socket):
            with contextlib.suppress(RpcError):  # a process on its way out, or in
                client = Client(socket)
                yield Api(name, client, client.daemon.get("methods") or ())
