"""A stage's API: the socket that others ask it on, and its own questions to others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from streampiped import __version__
from streampiped.errors import ExitCode, RpcError, StreampipeError
from streampiped.host import Host
from streampiped.runtime.blackbox import PULSE
from streampiped.runtime.rpc_client import RpcClient
from streampiped.runtime.rpc_server import Peer, RpcServer
from streampiped.stages.base import ApiCall, Stage
from streampiped.wire.rpc import PROTOCOL

API_TIMEOUT_S: Final = 5.0  # for another stage's answer; nobody waits for it on the data path


class StageApi:
    """Serves `NAME.sock` between two batches, and carries questions to the sockets of other stages."""

    def __init__(self, process: Host, stage: Stage) -> None:
        self._process = process
        self._stage = stage
        self._server: RpcServer | None = None
        self._clients: dict[str, RpcClient] = {}

    def serve(self) -> None:
        """Open the socket, once. Only after the first reset: until then a predecessor may still have it."""
        if not self._process.spec.api or self._server is not None:
            return
        path = self._path(self._process.spec.name)
        server = RpcServer(path, self._handle, group=self._process.plan.control.group)
        try:
            server.start()
        except (OSError, StreampipeError) as error:
            self._process.fail("api socket", error)
        self._server = server

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for client in self._clients.values():
            client.close()

    async def ask(self, call: ApiCall) -> None:
        """Put a question and hand the stage its answer."""
        client = self._clients.get(call.stage)
        if client is None:
            client = self._clients[call.stage] = RpcClient(self._path(call.stage))
        try:
            result = await client.call(call.method, call.params, timeout=API_TIMEOUT_S)
        except RpcError as error:
            self._stage.api_answer(None, str(error))
        else:
            self._stage.api_answer(result, None)

    async def _handle(self, _peer: Peer, method: str, params: Mapping[str, Any]) -> Any:
        if method == "hello":
            return self._hello(params)
        methods = self._stage.api()
        if method not in methods:
            raise RpcError(f"no method {method!r}; there are {', '.join(sorted(methods))}", ExitCode.USAGE)
        self._process.blackbox.words[PULSE] += 1
        try:
            return methods[method](**params)
        except (TypeError, ValueError, KeyError) as error:
            raise RpcError(self._process.credentials.masked(str(error)), ExitCode.USAGE) from error

    def _hello(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The same handshake as on the control socket."""
        if params.get("protocol", PROTOCOL) != PROTOCOL:
            raise RpcError(f"this API speaks protocol {PROTOCOL}, not {params['protocol']}", ExitCode.PROTOCOL)
        plan, spec = self._process.plan, self._process.spec
        about = {"protocol": PROTOCOL, "version": __version__, "pipeline": plan.pipeline, "stage": spec.name}
        return {**about, "methods": sorted(self._stage.api())}

    def _path(self, name: str) -> str:
        return str(Path(self._process.plan.paths.runtime, f"{name}.sock"))
