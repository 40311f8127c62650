"""The commands about models: `streampipectl model ...`."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from streampipectl import render_model
from streampipectl.apis import Api, model_of, must_have_member, must_have_version
from streampipectl.changes import carry_out
from streampipectl.files import write_to
from streampipectl.output import dumped, say, width
from streampiped.errors import ExitCode, RpcError

CONVERTER: Final = "streampiped.model_export"


def listed(path: str, stage: str | None, limit: int, as_json: bool) -> int:
    answer = model_of(path, stage).ask("history", limit=limit)
    say(dumped(answer, indent=2) if as_json else render_model.list_text(answer, width()))
    return int(ExitCode.OK)


def show(path: str, version: int | None, stage: str | None, as_json: bool) -> int:
    api = model_of(path, stage)
    must_have_version(api, version)
    answer = api.ask("show", version=version)
    say(dumped(answer, indent=2) if as_json else render_model.model_text(answer))
    return int(ExitCode.OK)


def export(path: str, version: int | None, output: str | None, kind: str, stage: str | None) -> int:
    """Into a file, or to stdout, which must not be a terminal unless it is text."""
    if output is None and kind != "json" and sys.stdout.isatty():
        raise RpcError(f"a terminal shows no {kind}: --output FILE, or a pipe", ExitCode.USAGE)
    api = model_of(path, stage)
    must_have_version(api, version)
    if kind == "json":
        data = (dumped(in_text(api.ask("export", version=version)), indent=2) + "\n").encode()
    else:
        data = _whole(api, version)
        if kind != "npz":
            data = _converted(data, kind)
    write_to(output, data)
    return int(ExitCode.OK)


def in_text(value: Any) -> Any:
    """Bytes, of which JSON has none, as base64: the parameters are in them.

    >>> in_text({"data": [b"\\xff\\x00"]})
    {'data': ['/wA=']}
    """
    if isinstance(value, dict):
        return {name: in_text(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [in_text(entry) for entry in value]
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else value


def _whole(api: Api, version: int | None) -> bytes:
    """The model as npz, part after part."""
    answer = api.ask("saved", version=version)
    version, data = answer["version"], answer["data"]
    while len(data) < answer["bytes"]:
        data += api.ask("saved", version=version, offset=len(data))["data"]
    if hashlib.sha256(data).hexdigest() != answer["sha256"]:
        raise RpcError("the model has changed while it was read; try again", ExitCode.FAILED)
    whole: bytes = data
    return whole


def _converted(data: bytes, kind: str) -> bytes:
    """By a process of its own: what it needs is heavy, and neither this tool nor the stage should load it."""
    command = [sys.executable, "-m", CONVERTER, kind]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines() or ["it fails"]
        known = done.returncode == ExitCode.REFUSED
        raise RpcError(f"{kind}: {words[-1]}", ExitCode.REFUSED if known else ExitCode.FAILED)
    return done.stdout


def _change(kind: str) -> Callable[..., int]:
    def run(path: str, stage: str | None, timeout: float, wait: bool, **params: Any) -> int:
        api = model_of(path, stage)
        if "version" in params:
            must_have_version(api, params["version"])
        if "member" in params and api.ask("info")["features"]:
            must_have_member(api, params["member"])
        wanted = {"stage": api.stage, "kind": kind, "params": params}
        return carry_out(path, "change", {**wanted, "timeout": timeout, "wait": wait}, render_model.change_text)

    return run


ACTIONS: Final[Mapping[str, Callable[..., int]]] = {
    "list": listed,
    "show": show,
    "export": export,
    "promote": _change("promote"),
    "pin": _change("pin"),
    "unpin": _change("unpin"),
    "rollback": _change("rollback"),
}
