"""`logs -f`: every event once and in its order, also across the death of the daemon and the start of the next one."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from streampipectl.client import BrokenError, Client, GoingDownError
from streampipectl.output import complain
from streampipectl.values import LOG_LINES_MAX
from streampiped.errors import ExitCode, RpcError

RETRY_S: Final = 1.0  # between two attempts to reach a daemon that went; its log keeps what we miss
AWAITED: Final = (ExitCode.UNREACHABLE, ExitCode.TIMED_OUT, ExitCode.NOT_PERMITTED)
"""What a daemon that comes back answers at first."""

Record: TypeAlias = Mapping[str, Any]
_Key: TypeAlias = tuple[Any, ...]


class Shown:
    """Which events of the log have been seen. Pure.

    The daemon writes an event to its log before it tells of it, so in both they come in the same order: whatever stands
    behind the last one that was shown is new. They are known by their heads: the log cuts the rest of a long one.
    """

    def __init__(self) -> None:
        self._keys: deque[_Key] = deque(maxlen=LOG_LINES_MAX)  # an answer has no more lines
        self._before: _Key | None = None

    def add(self, record: Record) -> None:
        """It was shown."""
        self._keys.append(_key(record))

    def begin_behind(self, record: Record) -> None:
        """It stands in front of the first one that will be shown."""
        self._before = _key(record)

    def new(self, lines: Sequence[Record]) -> tuple[list[Record], bool]:
        """Those of the newest `lines` of the log that were not seen, and whether they continue what was.

        >>> shown = Shown()
        >>> shown.add({"ts": 1.0}), shown.add({"ts": 2.0})
        (None, None)
        >>> shown.new([{"ts": 1.0}, {"ts": 2.0, "cut": 1}, {"ts": 2.0}, {"ts": 1.5}])  # twins, and a clock set back
        ([{'ts': 2.0}, {'ts': 1.5}], True)
        >>> shown.new([{"ts": 7.0}])
        ([{'ts': 7.0}], False)
        """
        left = Counter(self._keys or ([self._before] if self._before is not None else []))
        first, met = 0, not left
        for place, record in enumerate(lines, 1):
            key = _key(record)
            if left[key] > 0:
                left[key] -= 1
                first, met = place, True
        return list(lines[first:]), met


def _key(record: Record) -> _Key:
    return tuple(record.get(name) for name in ("ts", "pid", "level", "event", "stage"))


class Follower:
    """Shows the events of `level` and above, of `stage` or of all, as they come."""

    def __init__(self, stage: str | None, level: str, show: Callable[[Record], None]) -> None:
        self._asked: dict[str, Any] = {"stage": stage, "level": level}
        self._show = show
        self._shown = Shown()

    def run(self, client: Client, lines: Sequence[Record]) -> None:
        """What comes behind `lines`, with which `client` was answered when it subscribed. A daemon that is killed is
        said so, and waited for; GoingDownError when one leaves in an orderly way."""
        for record in lines:
            self._shown.add(record)
        begun = bool(lines)
        while True:
            try:
                if not begun:  # behind what is there; what has been told since stands in line, and is shown below
                    for record in client.call("logs", {**self._asked, "lines": 1})["lines"]:
                        self._shown.begin_behind(record)
                    begun = True
                self._attend(client)
            except BrokenError as error:
                complain(f"{error}; waiting for it to come back")
            client.close()
            client = self._go_on(client.path)

    def _attend(self, client: Client) -> None:
        """Until the connection breaks, which raises BrokenError."""
        for notification in client.notifications(None):
            if notification.method == "log":
                self._take(notification.params)
            elif notification.method == "missed":
                complain(f"{notification.params['count']} events missed, too slow a reader")

    def _take(self, record: Record) -> None:
        self._shown.add(record)
        self._show(record)

    def _go_on(self, path: str) -> Client:
        """With the next daemon, behind the last event that was shown."""
        client, answer = self._reach(path)
        lines, met = self._shown.new(answer["lines"])
        if not met and not answer.get("complete", True):
            complain("events may be missing here: one answer looks back so far; `logs --summary` has counted them all")
        for record in lines:
            self._take(record)
        return client

    def _reach(self, path: str) -> tuple[Client, Mapping[str, Any]]:
        """The next daemon, and what it answers. Its socket is nowhere at first, and perhaps not for us yet."""
        told = ""
        while True:
            try:
                return self._asked_again(path)
            except GoingDownError:
                raise
            except RpcError as error:
                if error.code not in AWAITED:
                    raise
                if error.code == ExitCode.NOT_PERMITTED and str(error) != told:
                    told = str(error)
                    complain(told)
            time.sleep(RETRY_S)

    def _asked_again(self, path: str) -> tuple[Client, Mapping[str, Any]]:
        client = Client(path)
        try:
            return client, client.call("logs", {**self._asked, "lines": LOG_LINES_MAX, "follow": True})
        except BaseException:
            client.close()
            raise
