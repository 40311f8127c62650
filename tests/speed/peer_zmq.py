"""One process per stage on ZeroMQ: PUSH and PULL over a Unix socket.

Every block is a frame of its own, as the documentation advises for arrays: sent from where it is, and read where it was
received.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np

from speed import five
from speed.clock import Clock
from speed.work import Reached, Work, put_together, taken_apart
from streampiped.records import Batch

TITLE = "ZeroMQ"


class ZmqLink:
    """A socket at each end; both bound their messages."""

    def __init__(self, context: Any, address: str) -> None:
        self._address = f"ipc://{address}"

    def _socket(self, kind: str) -> Any:
        zmq = importlib.import_module("zmq")
        socket = zmq.Context.instance().socket(getattr(zmq, kind))
        socket.set_hwm(five.DEPTH // 2)
        socket.rcvtimeo = socket.sndtimeo = int(five.DEADLINE_S * 1000)
        return socket

    def writer(self) -> Callable[[Batch | None], None]:
        socket = self._socket("PUSH")
        socket.bind(self._address)

        def put(batch: Batch | None) -> None:
            if batch is None:
                socket.send(b"")
                return
            about, floats, ints = taken_apart(batch)
            socket.send_multipart([pickle.dumps(about), floats, ints], copy=False)

        return put

    def reader(self) -> Callable[[], Batch | None]:
        socket = self._socket("PULL")
        socket.connect(self._address)

        def get() -> Batch | None:
            parts = socket.recv_multipart(copy=False)
            if len(parts) == 1:
                return None
            floats, ints = np.frombuffer(parts[1].buffer, "f8"), np.frombuffer(parts[2].buffer, "i8")
            return put_together(pickle.loads(parts[0].bytes), floats, ints)

        return get


def run(work: Work, clock: Clock) -> Reached:
    return five.run(work, clock, ZmqLink)
