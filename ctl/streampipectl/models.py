"""The commands about models: `streampipectl model ...`."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from streampipectl import render_model
from streampipectl.apis import Api, model_of
from streampipectl.changes import carry_out
from streampipectl.output import complain, dumped, say, width
from streampiped.errors import ExitCode, RpcError

ANSWER_S: Final = 30.0  # a stage answers between two batches, and a large model takes a while to be written down
CONVERTER: Final = "streampiped.model_export"


def listed(path: str, stage: str | None, limit: int, as_json: bool) -> int:
    answer = _asked(model_of(path, stage), "history", {"limit": limit})
    say(dumped(answer, indent=2) if as_json else render_model.list_text(answer, width()))
    return int(ExitCode.OK)


def show(path: str, version: int | None, stage: str | None, as_json: bool) -> int:
    answer = _asked(model_of(path, stage), "show", {"version": version})
    say(dumped(answer, indent=2) if as_json else render_model.model_text(answer))
    return int(ExitCode.OK)


def export(path: str, version: int | None, output: str | None, kind: str, stage: str | None) -> int:
    """Into a file, or to stdout, which must not be a terminal unless it is text."""
    if output is None and kind != "json" and sys.stdout.isatty():
        raise RpcError(f"a terminal shows no {kind}: --output FILE, or a pipe", ExitCode.USAGE)
    api = model_of(path, stage)
    if kind == "json":
        data = (dumped(_asked(api, "export", {"version": version}), indent=2) + "\n").encode()
    else:
        data = _whole(api, version)
        if kind != "npz":
            data = _converted(data, kind)
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return int(ExitCode.OK)
    try:
        _write(output, data)
    except OSError as error:
        complain(f"{output}: {error.strerror}")
        return int(ExitCode.FAILED)
    return int(ExitCode.OK)


def _whole(api: Api, version: int | None) -> bytes:
    """The model as npz, part after part."""
    answer = _asked(api, "saved", {"version": version})
    version, data = answer["version"], answer["data"]
    while len(data) < answer["bytes"]:
        data += _asked(api, "saved", {"version": version, "offset": len(data)})["data"]
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
        raise RpcError(f"{kind}: {words[-1]}", ExitCode.FAILED)
    return done.stdout


def _write(place: str, data: bytes) -> None:
    """Whole or not at all."""
    fresh = f"{place}.{os.getpid()}"
    try:
        with open(fresh, "xb") as file:
            file.write(data)
        os.replace(fresh, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise


def _change(kind: str) -> Callable[..., int]:
    def run(path: str, stage: str | None, timeout: float, wait: bool, **params: Any) -> int:
        wanted = {"stage": model_of(path, stage).stage, "kind": kind, "params": params}
        return carry_out(path, "change", {**wanted, "timeout": timeout, "wait": wait}, render_model.change_text)

    return run


def _asked(api: Api, method: str, params: Mapping[str, Any]) -> Any:
    return api.client.call(method, {name: value for name, value in params.items() if value is not None}, ANSWER_S)


ACTIONS: Final[Mapping[str, Callable[..., int]]] = {
    "list": listed,
    "show": show,
    "export": export,
    "promote": _change("promote"),
    "pin": _change("pin"),
    "unpin": _change("unpin"),
    "rollback": _change("rollback"),
}
