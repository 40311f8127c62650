"""An asynchronous MessagePack-RPC client with one kept connection: how a stage's shell asks another stage's
API.

A question may fail at any time, since the stage behind it may be dead, and nothing may follow from that: the
only exception is RpcError, and the next call connects anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any, Final

from streampiped.errors import ExitCode, RpcError
from streampiped.wire.rpc import MESSAGE_BYTES_MAX, Decoder, Notification, Request, Response, encode, unwrap

READ_BYTES: Final = 64 << 10
TIMEOUT_S: Final = 5.0  # of one call; scoring a reservoir of 10 k rows takes tens of ms


class RpcClient:
    """Calls the server at the Unix socket `path`; calls at the same time wait for each other."""

    def __init__(self, path: str | os.PathLike[str], timeout: float = TIMEOUT_S) -> None:
        self._path = os.fspath(path)
        self._timeout = timeout
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()
        self._number = 0

    async def call(self, method: str, params: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> Any:
        """The result. RpcError: with the server's code when it refused, UNREACHABLE when nobody answers,
        TIMED_OUT when the answer (the connecting and waiting for other calls included) took longer than
        `timeout` seconds. The call is never sent twice."""
        limit = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(limit), self._turn:
                return await self._exchange(method, params or {})
        except TimeoutError:
            raise RpcError(f"{self._path}: no answer to {method} after {limit:g} s", ExitCode.TIMED_OUT) from None
        except OSError as error:
            raise RpcError(f"{self._path}: {error.strerror or error}", ExitCode.UNREACHABLE) from error

    def close(self) -> None:
        """Let go of the connection; a later call makes a new one."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, method: str, params: Mapping[str, Any]) -> Any:
        self._number = (self._number + 1) & 0xFFFFFFFF
        data = encode(Request(self._number, method, params))
        reader, writer = await self._connected()
        whole = False
        try:
            writer.write(data)
            await writer.drain()
            response = await self._response(reader)
            whole = response.id == self._number
        finally:
            if not whole:  # failed, timed out or cancelled: what comes later would be taken for another answer
                self.close()
        if not whole:
            raise RpcError(f"{self._path}: answered request {response.id}, not {self._number}", ExitCode.PROTOCOL)
        return unwrap(response)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and (self._streams[0].at_eof() or self._streams[1].is_closing()):
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(self._path, limit=MESSAGE_BYTES_MAX)
        return self._streams

    async def _response(self, reader: asyncio.StreamReader) -> Response:
        decoder = Decoder()
        farewell = "the connection was closed"
        while data := await reader.read(READ_BYTES):
            for message in decoder.feed(data):
                if isinstance(message, Response):
                    return message
                if isinstance(message, Notification) and message.method == "goodbye":
                    farewell = str(message.params.get("message"))
        raise RpcError(f"{self._path}: {farewell}", ExitCode.UNREACHABLE)
