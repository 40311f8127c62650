"""A small web server for pages that programs fetch: GET and HEAD, one answer per connection, everything bounded.

It knows of HTTP/1.1 (RFC 9112) what a scraper needs and refuses the rest by its number. No request, however broken,
slow or frequent, costs more than a few KiB and a deadline; the page itself is made at most once in KEPT_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any, Final, cast

HEAD_BYTES_MAX: Final = 4 << 10  # Prometheus sends 400 bytes
CLIENTS_MAX: Final = 8  # two scrapers, a browser and some patience; the next one is told 503
CONNECTION_S: Final = 10.0  # from its first byte to its last: Prometheus' own default patience
SILENT_S: Final = 1.0  # without a whole head for so long, a client's place is another's who comes when all are taken
KEPT_S: Final = 1.0  # how long a page is given again without being made
BIND_RETRY_S: Final = 2.0  # a predecessor still holds the port while its successor loads
BACKLOG: Final = 128  # a SYN that finds it full is tried again a second later; a flood would slow down the scraper

_REASONS: Final = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
}  # fmt: skip
_PLAIN: Final = "text/plain; charset=utf-8"


class Unavailable(Exception):  # noqa: N818 - an answer, and nobody's error
    """There is no page yet, and why."""


class PageServer:
    """Answers `make()` at `path`, from `start` to `close`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listen: str,
        path: str,
        content_type: str,
        make: Callable[[], str],
        *,
        on_served: Callable[[], None],
        on_refused: Callable[[str], None],
    ) -> None:
        """`listen`: address and port. `make` may raise `Unavailable`. `on_refused` hears why it cannot listen, once for
        each reason; it is tried again until it can."""
        host, _, port = listen.rpartition(":")
        self._host, self._port = host.removeprefix("[").removesuffix("]"), int(port)
        self._loop = loop
        self._path, self._content_type, self._make = path, content_type, make
        self._on_served, self._on_refused = on_served, on_refused
        self._page: tuple[float, bytes] | None = None
        self._binding: asyncio.Task[None] | None = None
        self._server: asyncio.AbstractServer | None = None
        self.clients: set[Connection] = set()

    def start(self) -> None:
        self._binding = self._loop.create_task(self._bind())

    def close(self) -> None:
        if self._binding is not None:
            self._binding.cancel()
        if self._server is not None:
            self._server.close()
        for client in tuple(self.clients):
            client.abort()

    async def _bind(self) -> None:
        told = ""
        while True:
            try:
                sock = _bound(self._host, self._port)
                self._server = await self._loop.create_server(
                    lambda: Connection(self, self._loop), sock=sock, backlog=BACKLOG
                )
            except OSError as error:
                if told != (told := str(error)):
                    self._on_refused(told)
                await asyncio.sleep(BIND_RETRY_S)
            else:
                self._on_served()
                return

    def answer(self, head: bytes) -> bytes:
        """The response to a request's head."""
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/") or not words[1].startswith(b"/"):
            return response(400, "this is no request of HTTP\n")
        method, target, version = words
        if not version.startswith(b"HTTP/1."):
            return response(505, "HTTP/1.1 is spoken here\n")
        if method not in (b"GET", b"HEAD"):
            return response(405, "GET and HEAD are for everybody, and there is nothing else\n", "Allow: GET, HEAD")
        if target.split(b"?", 1)[0] != self._path.encode():
            return response(404, f"there is {self._path}\n")
        try:
            found = self._fresh()
        except Unavailable as error:
            return response(503, f"{error}\n")
        return found if method == b"GET" else found.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def has_room(self) -> bool:
        """For the client that has just come, if need be in place of the one that has said nothing for the longest time:
        eight of those are not to hide the page from everybody."""
        if len(self.clients) <= CLIENTS_MAX:
            return True
        now = self._loop.time()
        silent = [client for client in self.clients if not client.asked and now - client.began >= SILENT_S]
        if not silent:
            return False
        longest = min(silent, key=lambda client: client.began)
        self.clients.discard(longest)
        longest.abort()
        return True

    def _fresh(self) -> bytes:
        now = time.monotonic()
        if self._page is None or now - self._page[0] >= KEPT_S:
            self._page = now, response(200, self._make(), content_type=self._content_type)
        return self._page[1]


class Connection(asyncio.Protocol):
    """One client: a head comes in, a response goes out, the end."""

    def __init__(self, server: PageServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._head = b""
        self.asked = False
        """It has said what it wants, and has its answer."""
        self.began = loop.time()
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._deadline = self._loop.call_later(CONNECTION_S, self.abort)
        self._server.clients.add(self)
        if not self._server.has_room():
            self._end(response(503, f"{CLIENTS_MAX} others are being served\n"))

    def data_received(self, data: bytes) -> None:
        if self.asked:
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if 0 <= end <= HEAD_BYTES_MAX:
            self._end(self._server.answer(self._head))
        elif len(self._head) > HEAD_BYTES_MAX:
            self._end(response(431, f"a request's head has at most {HEAD_BYTES_MAX} bytes\n"))

    def connection_lost(self, _: Exception | None) -> None:
        self._server.clients.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self, data: bytes) -> None:
        """Write, and close when it is written; the deadline stays."""
        self.asked, self._head = True, b""
        assert self._transport is not None
        self._transport.write(data)
        with contextlib.suppress(RuntimeError):  # half closed already
            self._transport.close()


def _bound(host: str, port: int) -> socket.socket:
    """Made here: the loop's own way passes over an address family that the sandbox forbids, and listens nowhere."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def response(code: int, text: str, *headers: str, content_type: str = _PLAIN) -> bytes:
    """Head and body.

    >>> response(404, "no").split(b"\\r\\n")[0]
    b'HTTP/1.1 404 Not Found'
    """
    body = text.encode()
    lines: tuple[Any, ...] = (
        f"HTTP/1.1 {code} {_REASONS[code]}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
