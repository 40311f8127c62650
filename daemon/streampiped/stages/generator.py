"""The generator: reads one source by position and cuts its records into batches.

Its state is its position, the number of the next batch and whether the source has ended. A batch goes out when
`batch_max` records are there, when nothing will follow, or when the batch before it went out `linger` ago: a record
that comes alone goes at once, a thick stream is cut once per `linger`, and what piled up while the pipeline was busy
makes one large batch. A source that always has more (synthetic, a file without `speed`) is therefore always cut at the
same positions; with `rate`, `speed` or `follow` the cut depends on time, and only the cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import Field

from streampiped.errors import SourceError
from streampiped.records import ROWS_MAX, Batch
from streampiped.sources.base import Connector, Ready
from streampiped.sources.csv_file import CsvOptions, CsvSource
from streampiped.sources.jsonl_file import JsonlOptions, JsonlSource
from streampiped.sources.synthetic import SyntheticOptions, SyntheticSource
from streampiped.stages.base import Ended, Idle, SourceStage, StageContext, StageOptions, State
from streampiped.units import Duration, Rate

BURST_S: Final = 0.25
"""Seconds of `rate` that may be made up for after the pipeline was held (a checkpoint, a slow sink). More would turn
every stall into a flood; less would lose the rate to the jitter of a busy machine."""

SourceOptions: TypeAlias = Annotated[SyntheticOptions | CsvOptions | JsonlOptions, Field(discriminator="type")]


class GeneratorOptions(StageOptions):
    """Options of the generator."""

    source: SourceOptions = SyntheticOptions()
    batch_max: Annotated[int, Field(ge=1, le=ROWS_MAX)] = 1024
    """Records per batch at most."""
    linger: Duration = 0.01
    """The knob of latency: a record waits for others at most so long, and not at all when the last batch is older."""
    rate: Rate = 0.0
    """Records/s at most; 0: no limit."""


class TokenBucket:
    """Permission to emit, growing with time: `rate` records/s, saved up for `burst` records at most.

    >>> bucket = TokenBucket(rate=10.0, burst=5.0)
    >>> bucket.allowed(100.0), bucket.allowed(100.25), bucket.allowed(200.0)
    (0, 2, 5)
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = max(burst, 1.0)
        self._tokens = 0.0
        self._at: float | None = None

    def allowed(self, now: float) -> int:
        """Records that may go out now."""
        if self._at is not None:
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        return int(self._tokens + 1e-6)  # one that was waited for exactly must not miss by a rounding error

    def spend(self, count: int) -> None:
        self._tokens -= count

    def when(self, count: int, now: float) -> float | None:
        """The second at which `count` may go out, after `allowed(now)`; None: more than is ever saved up."""
        return None if count > self._burst else now + max(0.0, count - self._tokens) / self._rate


class Generator(SourceStage):
    """The source stage. `options.source` chooses the connector."""

    Options = GeneratorOptions

    def __init__(self, options: GeneratorOptions, context: StageContext) -> None:
        self._options = options
        self._source = _connect(options.source, context)
        self._sequence = 0
        self._ended = False
        self._final: State | None = None  # of an ended source whose file is gone
        self._bucket: TokenBucket | None = None
        self._cut_at: float | None = None
        self._forget_time()

    def read(self, now: float) -> Batch | Idle | Ended:
        if self._final is not None:
            return Ended()
        ready = self._source.ready(self._options.batch_max, now)
        count = ready.count if self._bucket is None else min(ready.count, self._bucket.allowed(now))
        complete = count == self._options.batch_max or ((ready.last or ready.full) and count == ready.count)
        if not ready.count:
            self._ended = ready.last
            return Ended() if ready.last else Idle(ready.wake_at)
        if not complete and not (count and now >= self._due(now)):
            return Idle(self._wake_at(ready, count, now))
        return self._emit(count, now)

    def snapshot(self) -> State:
        position = self._source.position() if self._final is None else self._final
        return {"position": position, "sequence": self._sequence, "ended": self._ended}

    def restore(self, state: State | None) -> None:
        self._sequence = int(state["sequence"]) if state else 0
        self._ended = bool(state["ended"]) if state else False
        self._final = None
        try:
            self._source.seek(state["position"] if state else None)
        except SourceError:
            if state is None or not self._ended:
                raise
            self._final = state["position"]  # nothing will be read any more, the file may be gone
        self._forget_time()

    def wake_fd(self) -> int | None:
        return self._source.wake_fd()

    def total(self) -> int | None:
        return self._source.total()

    def position(self) -> int | None:
        return self._source.given()

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        """`summary`: what was read so far, and what of it was rejected or damaged on purpose."""
        if method != "summary":
            raise KeyError(method)
        counts = self._source.summary()
        return {"source": self._options.source.type, "batches": self._sequence, "ended": self._ended, **counts}

    def close(self) -> None:
        self._source.close()

    def _forget_time(self) -> None:
        """After a restore no batch has gone out and nothing is saved up."""
        rate = self._options.rate
        self._bucket = TokenBucket(rate, rate * (self._options.linger + BURST_S)) if rate else None
        self._cut_at = None

    def _due(self, now: float) -> float:
        """The second from which an incomplete batch may go out. A new or restored stream begins as if behind a batch:
        its first ones are as large as those that follow."""
        if self._cut_at is None:
            self._cut_at = now
        return self._cut_at + self._options.linger

    def _wake_at(self, ready: Ready, count: int, now: float) -> float:
        """The second at which there is more to say of what is ready when only `count` of it may go and is no batch."""
        moments = [ready.wake_at]
        if count:
            moments.append(self._due(now))
        if self._bucket is not None:
            if not count:
                first = self._bucket.when(1, now)
                assert first is not None  # a bucket holds one at least
                moments.append(max(first, self._due(now)))
            moments.append(self._bucket.when(ready.count, now) if count < ready.count else None)
        return min(moment for moment in moments if moment is not None)

    def _emit(self, count: int, now: float) -> Batch | Idle:
        self._cut_at = now
        self._ended = False  # it had been, and has grown since
        if self._bucket is not None:
            self._bucket.spend(count)
        batch = self._source.read(count)
        if batch is None:  # all of them were rejected; ask again at once, but let the shell breathe in between
            return Idle(now)
        batch.sequence = self._sequence
        self._sequence += 1
        return batch


def _connect(options: SyntheticOptions | CsvOptions | JsonlOptions, context: StageContext) -> Connector:
    match options:
        case SyntheticOptions():
            return SyntheticSource(options, context.name, context.seed)
        case CsvOptions():
            return CsvSource(options, context.name, context.emit, resuming=context.resuming)
        case JsonlOptions():
            return JsonlSource(options, context.name, context.emit, resuming=context.resuming)
