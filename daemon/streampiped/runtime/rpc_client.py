"""An asynchronous MessagePack-RPC client with one kept connection: how a stage's shell asks another stage's
API.

A question may fail at any time, since the stage behind it may be dead, and nothing may follow from that: the
only exception is RpcError, and the next call connects anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any, Final, cast

from streampiped.errors import ExitCode, RpcError
from streampiped.wire.rpc import ID_MAX, Decoder, Notification, Request, Response, encode, unwrap

TIMEOUT_S: Final = 5.0  # of one call; scoring a reservoir of 10 k rows takes tens of ms


class RpcClient:
    """Calls the server at the Unix socket `path`; calls at the same time wait for each other."""

    def __init__(self, path: str | os.PathLike[str], timeout: float = TIMEOUT_S) -> None:
        self._path = os.fspath(path)
        self._timeout = timeout
        self._link: _Link | None = None
        self._turn = asyncio.Lock()
        self._number = 0

    async def call(self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> Any:
        """The result. RpcError: with the server's code when it refused, UNREACHABLE when nobody answers,
        TIMED_OUT when the answer (the connecting and waiting for other calls included) took longer than
        `timeout` seconds. The call is never sent twice."""
        limit = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit), self._turn:
                response = await self._exchange(method, params or {})
        except TimeoutError:
            raise RpcError(f"{self._path}: no answer to {method} after {limit:g} s", ExitCode.TIMED_OUT) from None
        except OSError as error:
            raise RpcError(f"{self._path}: {error.strerror or error}", ExitCode.UNREACHABLE) from error
        return unwrap(response)

    def close(self) -> None:
        """Let go of the connection; a later call makes a new one."""
        if self._link is not None:
            self._link.close()
            self._link = None

    async def _exchange(self, method: str, params: Mapping[str, Any]) -> Response:
        self._number = (self._number + 1) & ID_MAX
        data = encode(Request(self._number, method, params))
        if self._link is None or self._link.lost:
            _, self._link = await asyncio.get_running_loop().create_unix_connection(
                lambda: _Link(self._path), self._path
            )
        try:
            response = await self._link.ask(data)
            if response.id != self._number:
                raise RpcError(f"{self._path}: an answer to another question", ExitCode.PROTOCOL)
        except BaseException:  # cancelled too: what comes later would be taken for the answer to the next question
            self.close()
            raise
        return response


class _Link(asyncio.Protocol):
    """One connection, at most one question at a time. Own protocol and not a StreamReader: that one says that
    the server is gone only after everything it sent, its goodbye included, has been read."""

    def __init__(self, path: str) -> None:
        self.lost = False
        self._decoder = Decoder()
        self._answer: asyncio.Future[Response] | None = None
        self._farewell = RpcError(f"{path}: the connection was closed", ExitCode.UNREACHABLE)
        self._path = path

    async def ask(self, data: bytes) -> Response:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await self._answer

    def close(self) -> None:
        self.lost = True
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from asyncio's

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._decoder.feed(data):
                if isinstance(message, Response) and self._answer is not None and not self._answer.done():
                    self._answer.set_result(message)
                elif isinstance(message, Notification) and message.method == "goodbye":
                    self._farewell = RpcError(f"{self._path}: {message.params.get('message')}", ExitCode.UNREACHABLE)
        except RpcError as error:
            self._farewell = RpcError(f"{self._path}: {error}", error.code)
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self._farewell)
