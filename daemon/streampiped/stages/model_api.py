"""What the trainer answers on its socket: predict, score, info, history, show, export, saved. Read-only.

Whoever asks gets a model that was frozen at a barrier and never changes (stages/model_versions.py); what the stream
teaches meanwhile is another one. A wrong question raises ValueError, a right one about what is not there RpcError, with
a text for the one who asked.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from streampiped.errors import ExitCode, RpcError, StateError, UnknownVersionError
from streampiped.learn.class_pool import ClassPool
from streampiped.learn.export.class_formula import class_formula_of
from streampiped.learn.export.document import export
from streampiped.learn.export.formula import NoFormulaError, formula_of
from streampiped.learn.features import Rows, matrix_of
from streampiped.stages.learning_tasks import AnyPool
from streampiped.stages.model_answers import looks_of, predicted, recalled, scored
from streampiped.stages.model_versions import Frozen, Versions

PART_BYTES: Final = 512 << 10  # of a file in one answer; a message has 1 MiB at most
HISTORY_MAX: Final = 1000  # versions in one answer, some 400 bytes each
HISTORY: Final = 50


class ModelApi:
    """Of one trainer. `made`: a pool from a file's state. `about`: what `info` tells beside the model."""

    def __init__(
        self,
        name: str,
        versions: Versions,
        made: Callable[[Mapping[str, Any]], AnyPool],
        now: Callable[[], float],
        about: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._name = name
        self._versions = versions
        self._made = made
        self._now = now
        self._about = about
        self._file: tuple[Frozen, bytes] | None = None

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """As `Stage.api` wants them."""
        return {
            "predict": self.predict,
            "score": self.score,
            "info": self.info,
            "history": self.history,
            "show": self.show,
            "export": self.export,
            "saved": self.saved,
        }

    def predict(self, rows: Rows, version: int | None = None) -> dict[str, Any]:
        """Predictions and the bounds of their 90 % interval, or the probability of each of the `classes`, for rows of
        features as the trainer gets them: lists in the order of `info()["features"]`, or name -> list with any further
        columns ignored. None and NaN are missing and count as 0. `version`: one of the last epochs or a version that
        is kept; None is what is served."""
        model = self._model(version)
        return {**predicted(model.pool, matrix_of(rows, model.features)), **self._stand(model)}

    def score(
        self,
        rows: Rows | None = None,
        targets: Sequence[Any] = (),
        version: int | None = None,
        past: Mapping[str, Sequence[Any]] | None = None,
        asked: Mapping[str, Sequence[int]] | None = None,
    ) -> dict[str, Any]:
        """mse, rmse, mae and r2 over the rows whose target is finite, of classes accuracy, log_loss and f1 (the mean
        over the classes) over those whose target is not None; `rows` and `version` as for `predict`. `past`: what was
        known of the labels before each row, a list per field of `learn.past.Looks`, of numbers alone; left out, they
        come next. `asked`, instead of `rows` and `past`: where labels come late, source -> positions of labels that are
        held out, for what their questions had; `targets` in that order."""
        model = self._model(version)
        if (rows is None) == (asked is None):
            raise ValueError("give either rows or asked")
        if asked is not None:
            table, looks = recalled(model.pool, model.held, asked)
        elif rows is not None:
            table = matrix_of(rows, model.features)
            looks = looks_of(past, len(table))
        figures = scored(model.pool, table, targets, looks)
        return {**figures, **self._stand(model)}

    def info(self) -> dict[str, Any]:
        """What is being learned, how far it is, what is served, and which versions can be asked."""
        served = self._versions.served
        stand = self._stand(served) if served is not None else {"version": None, "epoch": None, "age_s": None}
        told = {name: stand[name] for name in ("version", "epoch", "age_s")}
        there = sorted(self._versions.epochs() | self._versions.files.kept())
        return {"stage": self._name, **self._about(), **told, "versions": there}

    def history(self, limit: int = HISTORY) -> dict[str, Any]:
        """The newest `limit` versions, oldest first, of `total`; `timeline`: who was served from which row to which;
        `refused`: why the disk takes none at present."""
        if not isinstance(limit, int) or not 0 <= limit <= HISTORY_MAX:
            raise ValueError(f"limit must be a number, 0 to {HISTORY_MAX}")
        rows, model = self._list(), self._versions.served
        shown = rows[len(rows) - min(limit, len(rows)) :]
        timeline = model.pool.history.timeline() if model is not None else []
        return {
            "stage": self._name,
            "versions": shown,
            "total": len(rows),
            "timeline": timeline,
            "refused": self._versions.refused,
            **self._served(model),
        }

    def show(self, version: int | None = None) -> dict[str, Any]:
        """One model: where it stands, and its members."""
        model = self._model(version)
        pool, stand = model.pool, self._stand(model)
        entries = [row for row in self._list() if row["version"] == stand["version"]]
        return {
            "stage": self._name,
            **stand,
            "pinned": pool.champion.name if pool.pinned else None,
            "fallback": pool.fallback,
            "entry": entries[0] if entries else None,
            "rows": pool.rows,
            "features": list(model.features),
            "target": model.target,
            "members": pool.info(),
        }

    def export(self, version: int | None = None) -> dict[str, Any]:
        """The champion for use elsewhere, as plain numbers; `formula` where it is one (docs/specs/models.md)."""
        model = self._model(version)
        formula: dict[str, Any] | None = None
        with contextlib.suppress(NoFormulaError):
            pool = model.pool
            formula = (class_formula_of(pool) if isinstance(pool, ClassPool) else formula_of(pool)).plain()
        named = {"features": list(model.features), "target": model.target, "formula": formula}
        return {**export(model.pool), **named, **self._stand(model)}

    def saved(self, version: int | None = None, offset: int = 0) -> dict[str, Any]:
        """The whole model as the bytes of its file (docs/specs/models.md), from `offset` on, as many as fit into one
        answer; `bytes` and `sha256` are of all. Who asks for the next part names the `version` of the first answer."""
        model = self._model(version)
        if self._file is None or self._file[0] is not model:
            self._file = model, self._versions.bytes_of(model)
        data = self._file[1]
        if not isinstance(offset, int) or not 0 <= offset <= len(data):
            raise ValueError(f"offset must be a number, 0 to {len(data)}")
        part = data[offset : offset + PART_BYTES]
        whole = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return {"version": model.epoch, "offset": offset, "data": part, **whole}

    def _list(self) -> list[dict[str, Any]]:
        try:
            return self._versions.history()
        except OSError as error:
            raise RpcError(f"the list of versions cannot be read: {error}", ExitCode.FAILED) from error

    def _served(self, model: Frozen | None) -> dict[str, Any]:
        if model is None:
            return {"champion": None, "pinned": None, "fallback": True, "version": None, "epoch": None, "age_s": None}
        pinned = model.pool.champion.name if model.pool.pinned else None
        return {**self._stand(model), "pinned": pinned, "fallback": model.pool.fallback}

    def _stand(self, model: Frozen) -> dict[str, Any]:
        """Which model it is: `epoch`, `version` (the newest one up to it), `age_s` since it was frozen (None: it comes
        from the disk), its champion, and how much it has learned."""
        return {
            "version": self._versions.newest(model.epoch),
            "epoch": model.epoch,
            "age_s": max(0.0, self._now() - model.taken) if model.taken is not None else None,
            "champion": model.pool.champion.name,
            "rows_learned": model.pool.learned,
        }

    def _model(self, version: int | None) -> Frozen:
        model = self._versions.at(version)
        if model is not None:
            return model
        if version is None:
            raise RpcError("there is no model yet: no epoch with one has been committed", ExitCode.REFUSED)
        if not isinstance(version, int) or isinstance(version, bool):
            raise ValueError("version must be the number of an epoch")
        try:
            state = self._versions.stored(version)
            model = Frozen(self._made(state), tuple(state["features"]), str(state["options"]["target"]), version)
        except UnknownVersionError as error:
            raise RpcError(str(error), ExitCode.NO_SUCH_STAGE) from error
        except (StateError, OSError) as error:
            raise RpcError(str(error), ExitCode.FAILED) from error
        self._versions.remember(version, model)
        return model
