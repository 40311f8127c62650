"""The links of one stage in one generation: frames in from the inputs, frames out to the outputs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence

from streampiped.core.stage_side import Inlet
from streampiped.runtime.pipes import PipeWriter
from streampiped.wire.frames import Frame, FrameReader, FrameWriter


class InputLink:
    """One input."""

    __slots__ = ("fd", "inlet", "reader")

    def __init__(self, inlet: Inlet, fd: int, reader: FrameReader) -> None:
        self.inlet = inlet
        self.fd = fd
        self.reader = reader


class StageLinks:
    """All of them. `on_input()` comes when bytes of an input have been read, `on_idle()` when an output that was full
    is not any more."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        frame_bytes_max: int,
        may_read: Callable[[], bool],
        on_input: Callable[[], None],
        on_idle: Callable[[], None],
    ) -> None:
        """`may_read()` says whether the buffers may be written: a view of them may still be on its way out."""
        self._loop = loop
        self._frame_bytes_max = frame_bytes_max
        self._may_read = may_read
        self._on_input = on_input
        self._on_idle = on_idle
        self._frames = FrameWriter(0, frame_bytes_max)
        self.inputs: list[InputLink] = []
        self._outputs: list[PipeWriter] = []
        self._listening = False

    def open(self, generation: int, inlets: Sequence[Inlet], descriptors: Sequence[int]) -> None:
        """Take the ends of a generation: first one descriptor per input, then one per output."""
        self._frames = FrameWriter(generation, self._frame_bytes_max)
        for inlet, fd in zip(inlets, descriptors, strict=False):
            self.inputs.append(InputLink(inlet, fd, FrameReader(generation, self._frame_bytes_max)))
        for fd in descriptors[len(inlets) :]:
            self._outputs.append(PipeWriter(fd, self._loop, self._on_idle))

    def close(self) -> None:
        """Whatever was read or queued is forgotten."""
        self.rest()
        for link in self.inputs:
            os.close(link.fd)
        for output in self._outputs:
            output.close()
        self.inputs, self._outputs = [], []

    @property
    def idle(self) -> bool:
        """Everything that was emitted is on its way."""
        return all(output.idle for output in self._outputs)

    def emit(self, frame: Frame) -> None:
        """Queue a frame to every output before anything waits for one of them: a diamond would deadlock."""
        if self._outputs:
            buffers = self._frames.encode(frame)
            for output in self._outputs:
                output.write(buffers)

    def listen(self) -> None:
        """Read from every input that does not wait at a barrier, as soon as there is something."""
        if not self._listening:
            self._listening = True
            for link in self.inputs:
                if not link.inlet.waits:
                    self._loop.add_reader(link.fd, self._readable, link)

    def rest(self) -> None:
        """Read nothing."""
        if self._listening:
            self._listening = False
            for link in self.inputs:
                self._loop.remove_reader(link.fd)

    def _readable(self, link: InputLink) -> None:
        if link.inlet.waits:  # since this reader was added
            self._loop.remove_reader(link.fd)
            return
        if not self._may_read():
            return
        try:
            count = os.readv(link.fd, [link.reader.space()])
        except BlockingIOError:
            return
        if not count:  # the supervisor holds both ends, so this generation is over
            self.rest()
            return
        link.reader.filled(count)
        self._on_input()
