"""A real browser without a window, spoken to over a pair of pipes: the DevTools protocol, JSON and a zero byte.

No port is opened, and nobody else on the machine can speak to it. It ends with the `with` block.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
DEADLINE_S: Final = 60.0


def program() -> str:
    """The browser's path; without one the test is skipped, and fails in CI."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed")
        pytest.skip("needs chromium")
    return found


class Browser:
    """One tab. `events` are all that came, among them whatever the page said, asked for or did wrong."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._buffer = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []

    def open_tab(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        request = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            request["sessionId"] = self._session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self._requests, data) :]
        until = time.monotonic() + DEADLINE_S
        while True:
            message = self._next(until)
            if message.get("id") == self._number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"the browser is silent for {DEADLINE_S} s"
            data = os.read(self._answers, 1 << 16)
            assert data, "the browser is gone"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def show(self, page: Path, width: int, height: int = 800, scheme: str = "light", media: str = "screen") -> None:
        """Load a file at that size and wait until it is there."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        before = len(self.events)
        self.call("Page.navigate", url=page.as_uri())
        until = time.monotonic() + DEADLINE_S
        while not any(event["method"] == "Page.loadEventFired" for event in self.events[before:]):
            self.events.append(self._next(until))

    def value(self, expression: str) -> Any:
        """Of JavaScript run in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self, place: Path, top: int, width: int, height: int) -> None:
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        answer = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        place.write_bytes(base64.b64decode(answer["data"]))

    def named(self, *methods: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event["method"] in methods]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    path = program()
    directory = tempfile.mkdtemp(prefix="streampipe-browser-")
    to_browser, from_browser = os.pipe(), os.pipe()
    # the protocol's descriptors are 3 and 4, which a shell can give when ours are neither
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (to_browser[0], from_browser[1])]
    words = f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
    process = subprocess.Popen(
        [
            "/bin/bash", "-c", words, "browser", path, "--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--remote-debugging-pipe",
            f"--user-data-dir={directory}", "about:blank",
        ],
        pass_fds=theirs,
        env={**os.environ, "HOME": directory},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    for end in (to_browser[0], from_browser[1], *theirs):
        os.close(end)
    try:
        tab = Browser(to_browser[1], from_browser[0])
        tab.open_tab()
        yield tab
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(to_browser[1])
        os.close(from_browser[0])
        shutil.rmtree(directory, ignore_errors=True)
