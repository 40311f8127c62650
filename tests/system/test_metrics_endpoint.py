"""The web server of the metrics: right for a scraper, and unmoved by everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest
import uvloop

from streampiped.runtime import http_server
from streampiped.runtime.http_server import CLIENTS_MAX, HEAD_BYTES_MAX, PageServer, Unavailable
from support.control_backend import descriptors, until

pytestmark = pytest.mark.system

DEADLINE_S = 10.0
LARGE = "x" * (8 << 20)  # more than the buffers of a socket take


class Served:
    """A server on a uvloop loop in a thread. `page` is what it serves; None: there is none yet."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.page: str | None = "x 1\n"
        self.made = 0
        self.served: list[str] = []
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server = self.do(self.make)

    def do(self, action: Callable[[], object]) -> object:
        async def run() -> object:
            return action()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(DEADLINE_S)

    def stop(self) -> None:
        self.do(self.server.close)
        self.do(lambda: None)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()

    def connect(self) -> socket.socket:
        found = socket.create_connection(("127.0.0.1", self.port), DEADLINE_S)
        found.settimeout(DEADLINE_S)
        return found

    def ask(self, request: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(request)
            return received(client)

    def make(self) -> PageServer:
        server = PageServer(
            self._loop, f"127.0.0.1:{self.port}", "/metrics", "text/plain; version=0.0.4", self._text,
            on_served=lambda: self.served.append("served"), on_refused=self.served.append,
        )  # fmt: skip
        server.start()
        return server

    def _text(self) -> str:
        self.made += 1
        if self.page is None:
            raise Unavailable("nothing has been observed yet")
        return self.page


def received(client: socket.socket) -> bytes:
    """Everything until the end."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := client.recv(1 << 16):
            data += more
    return data


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    until(lambda: found.served == ["served"], "it listens")
    yield found
    found.stop()


def test_a_scraper_gets_the_page(served: Served) -> None:
    """What any HTTP client asks for it gets, whole, with its type and its length."""
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics?x=1", timeout=DEADLINE_S) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
        assert answer.read() == b"x 1\n"
    head = served.ask(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 4\r\n" in head
    assert head.endswith(b"\r\n\r\n")


def test_a_request_in_pieces(served: Served) -> None:
    """A head that comes byte by byte is a head."""
    with served.connect() as client:
        for byte in b"GET /metrics HTTP/1.1\r\n\r\n":
            client.sendall(bytes([byte]))
        assert received(client).endswith(b"\r\n\r\nx 1\n")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics2 HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 505),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET http://x/metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\xff\xfe\r\n\r\n", 400),
        (b"\x00" * 16 + b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * HEAD_BYTES_MAX, 431),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n", 431),
    ],
)
def test_bad_requests(served: Served, request_: bytes, code: int) -> None:
    """What is no request for the page is answered with its number, and the next client is served."""
    assert served.ask(request_).startswith(b"HTTP/1.1 %d " % code)
    assert served.ask(b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_no_page_yet(served: Served) -> None:
    """Before there is anything to tell it says so with 503."""
    served.page = None
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=DEADLINE_S)
    assert caught.value.code == 503
    assert caught.value.read() == b"nothing has been observed yet\n"
    caught.value.close()


def test_many_requests_make_few_pages(served: Served) -> None:
    """However often it is asked, the page is made at most once in a second."""
    for _ in range(200):
        assert served.ask(b"GET /metrics HTTP/1.1\r\n\r\n").endswith(b"x 1\n")
    assert served.made <= DEADLINE_S


def test_silent_clients_are_ended(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who say nothing, or nothing to the end, use up the places until their deadline and not longer; meanwhile
    further ones are told so at once."""
    monkeypatch.setattr(http_server, "CONNECTION_S", 1.0)
    silent = [served.connect() for _ in range(CLIENTS_MAX)]
    for client in silent:
        client.sendall(b"GET /metr")
    until(lambda: len(served.server.clients) == CLIENTS_MAX, "all are connected")
    assert served.ask(b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 503 ")
    for client in silent:
        assert received(client) == b""
        client.close()
    until(lambda: not served.server.clients, "all are gone")
    assert served.ask(b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_silent_clients_make_room(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who have said nothing whole for a while have to give their place to who comes, one for one, long before
    their deadline; those who wait for their answer keep it."""
    monkeypatch.setattr(http_server, "SILENT_S", 0.0)
    served.page = LARGE
    lazy = served.connect()
    lazy.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    until(lambda: served.made, "the page is made")
    silent = [served.connect() for _ in range(CLIENTS_MAX - 1)]
    for number, client in enumerate(silent, 2):
        client.sendall(b"GET /metr")
        until(lambda number=number: len(served.server.clients) >= number, "it is connected")
    assert served.ask(b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert len(received(lazy)) > len(LARGE)
    lazy.close()
    ended = [client for client in silent if select.select([client], [], [], 0)[0]]
    assert len(ended) == 1
    for client in silent:
        client.close()


def test_a_client_that_does_not_read(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not take the answer is dropped at the deadline; others are served meanwhile."""
    monkeypatch.setattr(http_server, "CONNECTION_S", 1.0)
    served.page = LARGE
    with served.connect() as lazy:
        lazy.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        until(lambda: served.made, "the page is made")
        assert len(served.ask(b"GET /metrics HTTP/1.1\r\n\r\n")) > len(LARGE)
        until(lambda: not served.server.clients, "it is dropped")


def test_a_flood_leaves_nothing(served: Served) -> None:
    """Hundreds of clients that come and go, half of them without a word, leave no descriptor behind."""
    served.ask(b"GET /metrics HTTP/1.1\r\n\r\n")
    until(lambda: not served.server.clients, "the first is gone")
    before = descriptors()
    for number in range(300):
        with served.connect() as client:
            if number % 2:
                client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    until(lambda: not served.server.clients and descriptors() <= before, "all descriptors are closed")


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says once that it cannot listen, and does as soon as the port is free."""
    monkeypatch.setattr(http_server, "BIND_RETRY_S", 0.05)
    with socket.socket() as other:
        found = Served()
        try:
            until(lambda: found.served, "it tries")
            found.do(found.server.close)
            other.bind(("127.0.0.1", found.port))
            other.listen()
            found.served.clear()
            found.server = found.do(found.make)
            until(lambda: found.served, "it is refused")
            other.close()
            until(lambda: found.served[-1] == "served", "it listens")
            assert len(found.served) == 2
        finally:
            found.stop()
