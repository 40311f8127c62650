"""The models of a trainer by epoch: the one that is served, those of the last epochs, those that are kept on the disk.

A model is frozen at a barrier and served when its epoch is committed, by one assignment: whoever predicts has it whole,
and it never changes. `committed` also decides whether the epoch is a version (learn/registry.py). What is on the disk
belongs to no snapshot: it follows from what was committed, and is completed after a kill when the epoch is heard of
again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from streampiped.errors import StateError, UnknownVersionError
from streampiped.learn.late.held import HeldOut
from streampiped.learn.npz import to_npz
from streampiped.learn.registry import Mark, Registry, rebuilt
from streampiped.records import Array
from streampiped.stages.base import StageContext
from streampiped.stages.learning_tasks import AnyPool
from streampiped.stages.model_answers import metrics_of
from streampiped.stages.model_files import ModelFiles

FORMAT: Final = "streampipe-parameters/1"
PROMISED_MAX: Final = 8  # rollbacks that are planned and not on the list yet; one is at work at a time
LOADED_MAX: Final = 4  # versions from the disk that stay in memory: who compares two asks for each again and again


@dataclass(frozen=True, slots=True)
class Frozen:
    """A model as it was at a barrier. `taken`: when, on the clock of `StageContext.now` (None: it comes from the disk).
    `act_count`, `acts`: what operators had done (learn/registry.py). `held`: where labels come late, the questions that
    were held out; None of a model from the disk."""

    pool: AnyPool
    features: tuple[str, ...]
    target: str
    epoch: int | None = None
    taken: float | None = None
    act_count: int = 0
    acts: tuple[Mapping[str, Any], ...] = ()
    held: HeldOut | None = None

    def predict(self, table: Array) -> Any:
        return self.pool.predict(table)

    def state(self, options: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """Everything that makes it again: what goes into a file."""
        named = {"features": list(self.features), "options": dict(options), "seed": seed}
        return {"format": FORMAT, **named, "pool": self.pool.state()}


class Versions:
    """Of one trainer. Nothing is read or written before the first `committed`."""

    def __init__(self, context: StageContext, options: Mapping[str, Any], retain: int, every: int) -> None:
        """`options`: the stage's, JSON-able. `retain`, `every`: see `Registry`; as many epochs stay in memory."""
        self.files = ModelFiles(context.directory / "models")
        self._context = context
        self._options = options
        self._retain = retain
        self._every = every
        self._registry: Registry | None = None
        self.refused: str | None = None
        """Why the disk takes no version at present; None: it does, or nothing has been tried."""
        self._promised: deque[int] = deque(maxlen=PROMISED_MAX)
        self._loaded: dict[int, Frozen] = {}
        self.forget()

    def forget(self) -> None:
        """Another state is being restored."""
        self.served: Frozen | None = None
        self._candidate: Frozen | None = None
        self._memory: dict[int, Frozen] = {}
        self._is_new = True  # the next epoch that is heard of is the one that was restored

    def freeze(self, model: Frozen | None) -> None:
        """What the next epoch to be committed will serve; its pool is the caller's no more."""
        self._candidate = replace(model, taken=self._context.now()) if model is not None else None

    def committed(self, epoch: int) -> None:
        if self._candidate is None:
            return
        model = replace(self._candidate, epoch=epoch)
        self._memory[epoch] = self.served = model
        for old in sorted(self._memory)[: -self._retain]:
            del self._memory[old]
        restored, self._is_new = self._is_new, False
        try:
            self._register(epoch, model, restored=restored)
            self.refused = None
        except OSError as error:  # a full disk: a later epoch will be the version
            if self.refused is None:  # every epoch tries, and the disk may be full for a night
                self._context.emit("version_left_out", epoch=epoch, reason=str(error))
            self.refused = str(error)

    @property
    def registry(self) -> Registry:
        """As the list on the disk tells it. OSError."""
        if self._registry is None:
            records, complaints = self.files.records()
            for complaint in complaints:
                self._context.emit("registry_damaged", reason=complaint)
            self._registry = rebuilt(records, self._retain, self._every)
        return self._registry

    def newest(self, epoch: int | None) -> int | None:
        """The newest version up to `epoch`, as far as the list could be read."""
        found = self._registry.newest(epoch) if self._registry is not None else None
        return found.version if found is not None else None

    def promise(self, version: int) -> None:
        """It is about to be gone back to: its parameters stay."""
        self._promised.append(version)

    def at(self, version: int | None) -> Frozen | None:
        """The model that is served, of one of the last epochs, or of a version that is kept. None: there is none in
        memory, see `stored`."""
        return self.served if version is None else self._memory.get(version) or self._loaded.get(version)

    def epochs(self) -> set[int]:
        """Those in memory."""
        return set(self._memory)

    def remember(self, version: int, model: Frozen) -> None:
        """What was made from a file."""
        self._loaded[version] = model
        for old in list(self._loaded)[:-LOADED_MAX]:
            del self._loaded[old]

    def stored(self, version: int, sha256: str | None = None) -> dict[str, Any]:
        """The state of a version from its file, whose checksum has to be that of the list. StateError, with what is
        there instead."""
        entry = self.registry.get(version)
        if entry is None:
            kept = sorted(self._memory.keys() | self.files.kept())
            there = ", ".join(map(str, kept)) or "none"
            raise UnknownVersionError(f"no model of epoch {version} is kept; there are {there}")
        if self.files.kept_at(version) is None:
            raise UnknownVersionError(f"the parameters of version {version} are kept no longer")
        state = self.files.load(version, sha256 or entry.sha256)
        if state.get("format") != FORMAT:
            raise StateError(f"version {version} is of format {state.get('format')!r}, should be {FORMAT}")
        return state

    def bytes_of(self, model: Frozen) -> bytes:
        """Its file."""
        return to_npz(model.state(self._options, self._context.seed))

    def history(self) -> list[dict[str, Any]]:
        """The list, with `kept` (the parameters are there) and `at` (when they were written, seconds since 1970)."""
        rows = self.registry.history()
        for row in rows:
            row["at"] = self.files.kept_at(row["version"])
            row["kept"] = row["at"] is not None
        return rows

    def _register(self, epoch: int, model: Frozen, *, restored: bool) -> None:
        registry, mark = self.registry, mark_of(model)
        self._put(registry.leave(epoch))
        entry = registry.get(epoch)
        if entry is not None:
            self._mend(epoch, model)
            return
        reasons = registry.why(mark)
        if not reasons:
            return
        file = self._save(epoch, model, mark, reasons)
        try:
            self._put(registry.register(epoch, mark, reasons, file))
        except OSError:
            self.files.remove(epoch)  # a file that is on no list would stay for ever
            raise
        why = ", ".join(reasons)
        self._context.emit("version_made", epoch=epoch, reasons=why, champion=mark.champion, rows=mark.rows)
        if not restored:  # a change that is repeated may be about to go back to one that nobody else keeps
            keeps = registry.keeps(pinned=model.pool.pinned) | set(self._promised)
            for version in sorted(self.files.kept() - keeps):
                self.files.remove(version)
                self._loaded.pop(version, None)

    def _mend(self, epoch: int, model: Frozen) -> None:
        """This very epoch is a version already: write its file again if it is not what it should be."""
        if epoch not in self.registry.keeps(pinned=model.pool.pinned):
            return
        try:
            self.stored(epoch)
        except StateError as error:
            entry = self.registry.get(epoch)
            self._save(epoch, model, mark_of(model), entry.reasons if entry is not None else ())
            self._context.emit("registry_damaged", reason=f"{error}; it is written again")

    def _save(self, epoch: int, model: Frozen, mark: Mark, reasons: Sequence[str]) -> dict[str, Any]:
        about = {"stage": self._context.name, "rows": mark.rows, "champion": mark.champion, "reasons": list(reasons)}
        named = {"features": list(model.features), "target": model.target}
        return self.files.save(epoch, model.state(self._options, self._context.seed), {**about, **named})

    def _put(self, record: dict[str, Any] | None) -> None:
        if record is not None:
            self.files.append(record)
            self.registry.take(record)


def mark_of(model: Frozen) -> Mark:
    """What the registry has to know of a model."""
    pool = model.pool
    terms = pool.history.timeline()
    drifts = [drift["row"] for drift in pool.history.drifts() if drift["kind"] != "shift"]
    return Mark(
        pool.rows,
        pool.learned,
        pool.champion.name,
        int(terms[-1]["from"]) if terms else 0,
        pool.history.crown_count,
        pool.history.drift_count,
        model.act_count,
        model.acts,
        metrics_of(pool),
        int(drifts[-1]) if drifts else 0,
    )
