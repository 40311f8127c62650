"""The trainer: a scikit-learn regressor that predicts every row before it learns it, versioned by epoch and served.

A batch is predicted as a whole and then learned as a whole, except at the start of a stream (see WARM_UP).

Two numberings: `model_version`, in the output, counts the blocks learned by the model that predicted; a *version* of
the API is an epoch, whose model is kept immutable once the epoch is committed. `snapshot` comes before its epoch's
number is known, so it freezes the model as the candidate, and `committed(epoch)` files the candidate under that epoch.
One epoch is in flight at a time, so the two always belong together. After a restore the restored model is the
candidate: when the shell says which epoch it is (by `committed`), it is served under its number again, and until then
under none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from streampiped.errors import OptionError, StateError
from streampiped.learn.estimators import Recipe
from streampiped.learn.export import export
from streampiped.learn.features import Rows, complete, matrix_of, numbers_of
from streampiped.learn.metrics import scores_of
from streampiped.learn.model import OnlineModel
from streampiped.learn.scaling import LIMIT
from streampiped.records import Array, Batch, held_out
from streampiped.stages.base import Stage, StageContext, StageOptions, State

SGD: Final = "sklearn.linear_model.SGDRegressor"
STEP: Final = 0.01  # SGD's constant step on scaled features; 0.05 gains on trump_approval, loses on chick_weights
STEP_COLUMNS: Final = 0.5  # step times columns: beyond 2 the squared length of a row makes SGD diverge
WARM_UP: Final = 8
"""A block has at most this part of the rows seen before it. A first batch of 64 rows predicted as a whole, by a model
that knows nothing, leaves R2 -38 on a stream of 1001 rows where 0.139 is reached so (with 1 in place of 8: 0.026, with
4: 0.109). 8000 rows of warm-up cost 71 steps of about 0.6 ms."""
COUNTS: Final = ("rows", "held_out", "missing_target", "imputed", "fallbacks")


class TrainerOptions(StageOptions):
    """Options of `[stages.trainer]`."""

    estimator: str = SGD
    """Import path of a scikit-learn regressor with `partial_fit`."""
    params: dict[str, Any] | None = None
    """Parameters of its constructor. Left out: for SGDRegressor a constant step of 0.01 (less above 50 features),
    for others their own defaults."""
    target: str = "y"
    features: Literal["all"] | list[str] = "all"
    """Float columns to learn from; "all" is every one but the target and `ignore`."""
    ignore: list[str] = Field(default_factory=list)
    """Float columns that are no features when `features` is "all"."""
    scale_target: bool = True
    """Learn the target scaled to mean 0 and deviation 1 by what was seen; predictions come in its own unit."""
    limit: float = Field(default=LIMIT, ge=0)
    """Standard deviations around the target's mean that bound what is learned and predicted; 0 for no bound."""
    holdout: float = Field(default=0.02, ge=0, le=1)
    """Share of the rows that are predicted but never learned."""
    warm_up: bool = True
    """Cut the first batches into growing blocks, each predicted and then learned, so that a large first batch is
    not predicted by a model that knows nothing."""
    prediction: str = "prediction"
    """Name of the column with the predictions."""
    retain_versions: int = Field(default=3, ge=1, le=100)
    """Committed epochs whose models are served."""


class Trainer(Stage):
    """Adds the float column `prediction` and the int column `model_version`."""

    Options: ClassVar[type[StageOptions]] = TrainerOptions

    def __init__(self, options: TrainerOptions, context: StageContext) -> None:
        self._options = options
        self._context = context
        Recipe(options.estimator, self._params(1), context.seed).try_out()
        self.restore(None)

    def process(self, batch: Batch) -> Batch:
        """Predict, then learn; the batch with the predictions."""
        model = self._model_for(batch)
        features = self._matrix(batch)
        targets = np.asarray(batch[self._options.target], dtype=np.float64)
        learnable = self._learnable(batch, targets)
        predictions = np.empty(batch.rows)
        versions = np.empty(batch.rows, dtype=np.int64)
        for block in self._blocks(batch.rows):
            versions[block] = model.version
            predictions[block], fallbacks = model.predict(features[block])
            self._counts["fallbacks"] += fallbacks
            keep = learnable[block]
            if keep.any():
                model.learn(features[block][keep], targets[block][keep])
        return batch.with_columns({self._options.prediction: predictions, "model_version": versions})

    def snapshot(self) -> State:
        self._freeze()
        return {
            "model": self._model.state() if self._model else None,
            "features": list(self._features),
            "estimator": self._options.estimator,
            "counts": self._counts.copy(),
        }

    def restore(self, state: State | None) -> None:
        self._model: OnlineModel | None = None
        self._freeze()
        self._epochs: dict[int, OnlineModel] = {}
        self._features: tuple[str, ...] = ()
        self._counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        if state is None:
            return
        if state["estimator"] != self._options.estimator:
            raise StateError(
                f"the snapshot is of estimator {state['estimator']}, the options say {self._options.estimator}"
            )
        self._counts |= state["counts"]
        if state["model"] is not None:
            if self._options.features not in ("all", list(state["features"])):
                raise StateError(f"the snapshot is of features {state['features']}, the options have others")
            self._features = tuple(state["features"])
            self._model = self._new_model()
            self._model.restore(state["model"])
            self._freeze()

    def committed(self, epoch: int) -> None:
        if self._candidate is not None:
            self._epochs[epoch] = self._candidate
        for old in sorted(self._epochs)[: -self._options.retain_versions]:
            del self._epochs[old]

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        if method != "summary":
            raise KeyError(method)
        return {**self._counts, **self._progress(), "estimator": self._options.estimator}

    def api(self) -> Mapping[str, Callable[..., Any]]:
        """predict, score, info, export. Wrong arguments raise ValueError with a text for the caller."""
        return {"predict": self.predict, "score": self.score, "info": self.info, "export": self.export}

    def predict(self, rows: Rows, version: int | None = None) -> dict[str, Any]:
        """Predictions for rows of features as the trainer gets them, which is normalised: lists in the order of
        `info()["features"]`, or name -> list with any further columns ignored. None and NaN are missing and count as
        0. `version` is a committed epoch; None is the present model."""
        model = self._served(version)
        predictions, _ = model.predict(matrix_of(rows, self._features))
        return {"predictions": predictions.tolist(), "version": version, "rows_learned": model.rows}

    def score(self, rows: Rows, targets: Sequence[float | None], version: int | None = None) -> dict[str, Any]:
        """mse, rmse, mae and r2 over the rows whose target is finite; `rows` and `version` as for `predict`."""
        model = self._served(version)
        table = matrix_of(rows, self._features)
        wanted = numbers_of(targets, "targets")
        if wanted.shape != (len(table),):
            raise ValueError(f"targets must be one list of {len(table)} numbers, one per row")
        finite = np.isfinite(wanted)
        predictions, _ = model.predict(table)
        return {**scores_of(wanted[finite], predictions[finite]).values(), "version": version}

    def info(self) -> dict[str, Any]:
        """What is being learned, how far it is, and which versions are served."""
        return {
            "estimator": self._options.estimator,
            "params": self._params(len(self._features)),
            "features": list(self._features),
            "target": self._options.target,
            "scale_target": self._options.scale_target,
            "holdout": self._options.holdout,
            "versions": sorted(self._epochs),
            **self._progress(),
            "last_fault": self._model.last_fault if self._model else "",
        }

    def export(self, version: int | None = None) -> dict[str, Any]:
        """The model for use elsewhere, as plain numbers (docs/components/trainer.md has the formula)."""
        model = self._served(version)
        named = {"features": list(self._features), "target": self._options.target, "version": version}
        return {**export(model, len(self._features)), **named}

    def _freeze(self) -> None:
        """Keep the present model as the candidate for the next epoch to be committed."""
        self._candidate: OnlineModel | None = self._model.copy() if self._model else None

    def _params(self, columns: int) -> dict[str, Any]:
        if self._options.params is not None:
            return dict(self._options.params)
        if self._options.estimator != SGD:
            return {}
        return {"learning_rate": "constant", "eta0": min(STEP, STEP_COLUMNS / max(columns, 1))}

    def _new_model(self) -> OnlineModel:
        options = self._options
        recipe = Recipe(options.estimator, self._params(len(self._features)), self._context.seed)
        return OnlineModel(recipe, scale_target=options.scale_target, limit=options.limit)

    def _model_for(self, batch: Batch) -> OnlineModel:
        """The present model; the first batch decides on the features."""
        if self._model is None:
            self._features = self._choose(batch)
            self._model = self._new_model()
        return self._model

    def _choose(self, batch: Batch) -> tuple[str, ...]:
        options, there = self._options, batch.schema.floats
        if options.target not in there + batch.schema.ints:
            raise OptionError(f"trainer: no numeric column {options.target!r} (target); there are {list(there)}")
        out = {options.target, options.prediction, *options.ignore}
        chosen = tuple(n for n in there if n not in out) if options.features == "all" else tuple(options.features)
        absent = [name for name in chosen if name not in there]
        if absent or not chosen:
            raise OptionError(
                f"trainer: no float column {absent or 'to learn from'} in the stream; there are {list(there)}"
            )
        return chosen

    def _matrix(self, batch: Batch) -> Array:
        try:
            columns = batch.matrix(self._features)
        except KeyError as error:
            raise OptionError(f"trainer: the stream has lost the feature {error}") from error
        matrix, imputed = complete(columns)
        self._counts["imputed"] += imputed
        return matrix

    def _learnable(self, batch: Batch, targets: Array) -> NDArray[np.bool_]:
        """Which rows may be learned, with the others counted."""
        finite = np.isfinite(targets)
        spared = held_out(self._context.pipeline_seed, batch, self._options.holdout)
        self._counts["held_out"] += int(np.count_nonzero(spared))
        self._counts["missing_target"] += int(np.count_nonzero(~finite))
        return finite & ~spared

    def _blocks(self, rows: int) -> Iterator[slice]:
        """The parts of a batch that are predicted and learned in turn: one, once enough was seen (see WARM_UP)."""
        start = 0
        while start < rows:
            size = max(1, self._counts["rows"] // WARM_UP) if self._options.warm_up else rows
            stop = min(rows, start + size)
            self._counts["rows"] += stop - start
            yield slice(start, stop)
            start = stop

    def _progress(self) -> dict[str, Any]:
        model = self._model
        names = ("version", "rows", "rollbacks", "resets")
        values = [getattr(model, name) if model else 0 for name in names]
        return dict(zip(("blocks_learned", "rows_learned", "rollbacks", "resets"), values, strict=True))

    def _served(self, version: int | None) -> OnlineModel:
        model = self._model if version is None else self._epochs.get(version)
        if model is not None:
            return model
        if version is None:
            raise ValueError("there is no model yet: no batch has arrived")
        raise ValueError(f"no model of epoch {version!r} is kept; there are {sorted(self._epochs)}")
