"""What an operator may want of a model: promote, pin, unpin, rollback. Said beforehand whether it can be had, and done
directly behind a barrier (docs/specs/stage.md, changes by operators)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from streampiped.errors import ExitCode, StateError, StorageError, UnknownVersionError
from streampiped.stages.learning_tasks import AnyPool
from streampiped.stages.model_versions import Versions

KINDS: Final = {"promote": ("member",), "pin": ("member",), "unpin": (), "rollback": ("version",)}
"""And their parameters."""
CURRENT: Final = "current"
REMEMBERED: Final = 16  # acts: more between two epochs nobody can ask for


class Acts:
    """What operators have done to a model, as a part of the trainer's state: all that happened has its row. A version
    is told by its checksum, as the numbers of epochs are others in every run."""

    def __init__(self) -> None:
        self.count = 0
        self._recent: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)

    @property
    def recent(self) -> tuple[Mapping[str, Any], ...]:
        """Oldest first."""
        return tuple(self._recent)

    def add(self, kind: str, row: int, **about: Any) -> None:
        self.count += 1
        self._recent.append({"kind": kind, "row": row, **about})

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "recent": [dict(act) for act in self._recent]}

    def restore(self, state: Mapping[str, Any] | None) -> None:
        self.count = int(state["count"]) if state else 0
        self._recent = deque((dict(act) for act in state["recent"]) if state else (), maxlen=REMEMBERED)


class ModelChanges:
    """Of one trainer. `made`: a pool as it was when it was saved; StateError when it is none of this trainer's."""

    def __init__(self, versions: Versions, made: Callable[[Mapping[str, Any]], AnyPool]) -> None:
        self._versions = versions
        self._made = made

    def plan(self, pool: AnyPool | None, kind: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """What is to be recorded; `refused` says why nothing is, `code` for whom to blame (an `ExitCode`)."""
        refusal = _why_not(pool, kind, params)
        if refusal is not None:
            return {"refused": refusal.reason, "code": refusal.code, "params": None}
        if kind != "rollback":
            return {"refused": None, "params": dict(params)}
        try:
            version = int(params["version"])
            self._made(self._versions.stored(version))
            entry = self._versions.registry.get(version)
        except UnknownVersionError as error:
            return {"refused": str(error), "code": int(ExitCode.NO_SUCH_STAGE), "params": None}
        except (StateError, OSError) as error:
            return {"refused": str(error), "code": int(ExitCode.REFUSED), "params": None}
        assert entry is not None, version
        self._versions.promise(version)
        return {"refused": None, "params": {"version": version, "sha256": entry.sha256}}

    def apply(self, pool: AnyPool | None, acts: Acts, kind: str, params: Mapping[str, Any]) -> str | None:
        """Do it; why it is impossible by now, or None. StorageError when a file that was there is not any more."""
        refusal = _why_not(pool, kind, params)
        if refusal is not None:
            return refusal.reason
        assert pool is not None
        row = pool.rows
        match kind:
            case "promote":
                pool.promote(params["member"])
                acts.add(kind, row, member=params["member"])
            case "pin":
                name = pool.champion.name if params["member"] == CURRENT else params["member"]
                pool.pin(name)
                acts.add(kind, row, member=name)
            case "unpin":
                pool.unpin()
                acts.add(kind, row)
            case "rollback":
                try:
                    saved = self._made(self._versions.stored(params["version"], params["sha256"]))
                except (StateError, OSError) as error:
                    raise StorageError(f"the model cannot be rolled back: {error}") from error
                pool.go_back(saved.state())
                acts.add(kind, row, sha256=params["sha256"])
        return None


class Refusal(NamedTuple):
    reason: str
    code: int
    """An `ExitCode`."""


def _why_not(pool: AnyPool | None, kind: str, params: Mapping[str, Any]) -> Refusal | None:
    if kind not in KINDS:
        return Refusal(f"a model knows {', '.join(KINDS)}, and no {kind}", int(ExitCode.USAGE))
    if wrong := sorted(set(KINDS[kind]) ^ (params.keys() - {"sha256"})):
        takes = " and ".join(KINDS[kind]) or "nothing"
        return Refusal(f"{kind} takes {takes}, not {', '.join(wrong)}", int(ExitCode.USAGE))
    if kind == "rollback" and (not isinstance(params["version"], int) or isinstance(params["version"], bool)):
        return Refusal("version should be a number", int(ExitCode.USAGE))
    if pool is None:
        return Refusal("there is no model yet: no batch has arrived", int(ExitCode.REFUSED))
    if kind in ("promote", "pin"):
        names = [slot.name for slot in pool.slots] + ([CURRENT] if kind == "pin" else [])
        if params["member"] not in names:
            return Refusal(f"no member {params['member']!r}; there are {', '.join(names)}", int(ExitCode.NO_SUCH_STAGE))
    if kind == "promote" and pool.pinned:
        return Refusal(f"{pool.champion.name} is pinned; unpin it first, or pin another one", int(ExitCode.REFUSED))
    if kind == "unpin" and not pool.pinned:
        return Refusal("no member is pinned", int(ExitCode.REFUSED))
    return None
