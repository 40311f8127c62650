"""The trainer: a pool of models that predicts every row before it learns it, versioned by epoch and served.

Two numberings: `model_version`, in the output, counts the blocks learned by the model that predicted; a *version* of
the API is an epoch, whose model is kept immutable once the epoch is committed. `snapshot` comes before its epoch's
number is known, so it freezes the model as the candidate, and `committed(epoch)` files the candidate under that epoch.
One epoch is in flight at a time, so the two always belong together. After a restore the restored model is the
candidate: when the shell says which epoch it is (by `committed`), it is served under its number again, and until then
under none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from streampiped.errors import OptionError, StateError
from streampiped.holdout import held_out
from streampiped.learn.class_pool import ClassPool
from streampiped.learn.features import complete
from streampiped.learn.late.delayed import LateRows
from streampiped.learn.lineup import ESTIMATOR, NAMES, SGD, renamed
from streampiped.learn.river_recipe import is_river
from streampiped.learn.scaling import LIMIT
from streampiped.marks import LABEL_REBASED, MARKS, QUARANTINED, REBASED
from streampiped.records import Array, Batch, IntArray, origins
from streampiped.stages.base import Stage, StageContext, StageOptions, State
from streampiped.stages.label_join import LabelJoin, LabelOptions, columns_of
from streampiped.stages.learning_tasks import (
    AUTO,
    AnyPool,
    Task,
    called,
    present,
    restored,
    task_of,
    task_saved,
    try_out,
)
from streampiped.stages.model_api import ModelApi
from streampiped.stages.model_changes import Acts, ModelChanges
from streampiped.stages.model_versions import Frozen, Versions

COUNTS: Final = ("held_out", "missing_target", "quarantined", "too_many_classes", "imputed", "fallbacks")

Flags: TypeAlias = NDArray[np.bool_]


class TrainerOptions(StageOptions):
    """Options of `[stages.trainer]`."""

    members: Literal["auto"] | list[str] = "auto"
    """Who competes beside the guesses (mean, recent_mean, fast_mean, last_label and their blend, which always do):
    "auto" is all that suit the number of features, or a list of sgd (or estimator, see there), ridge, ridge_1000,
    ridge_100, squares, squares_2000, squares_500, lagged, lagged_300. Where classes are learned
    the guesses are prior, recent_prior, fast_prior and last_class, a ridge is read as a discriminant, and there is none
    that looks back."""
    boosting: bool = False
    """Let gradient-boosted trees compete as well, of numbers or of classes, fitted on a window of 10,000 rows in a
    thread: half a second of CPU for every 5,000 rows."""
    estimator: str = AUTO
    """With "auto" the member `sgd`: the built-in linear model, as scikit-learn's SGDRegressor or SGDClassifier. Or the
    import path of another regressor with `partial_fit`, or classifier with `predict_proba` as well, or of a model of
    River (extra `river`): that is the member `estimator`, and there is no `sgd`."""
    params: dict[str, Any] | None = None
    """Parameters of its constructor; of a model of River, a table with `class` is another object of River. Left
    out: for SGDRegressor a constant step of 0.01 (less above 50 features), for SGDClassifier of 0.03 (less above
    16) and the log-loss, for others their own defaults."""
    target: str = "y"
    """Column to predict."""
    task: Literal["auto", "regression", "classification"] = "auto"
    """What the target is: with "auto" a float column is a number, an int or text column a class."""
    positive: int | str | None = None
    """The class whose probability is in the column `score`; left out, the second in sorted order of those that came."""
    features: Literal["all"] | list[str] = "all"
    """Float columns to learn from; "all" is every one but the target and `ignore`."""
    ignore: list[str] = Field(default_factory=list)
    """Float columns that are no features when `features` is "all"."""
    scale_target: bool = True
    """Let the estimator learn the target scaled to mean 0 and deviation 1 by what was seen."""
    limit: float = Field(default=LIMIT, ge=0)
    """Standard deviations that bound what the estimator learns and answers; 0 for no bound."""
    holdout: float = Field(default=0.02, ge=0, le=1)
    """Share of the rows that are predicted but never learned."""
    prediction: str = "prediction"
    """Name of the column with the predictions; the interval's bounds are in NAME_low and NAME_high."""
    labels: LabelOptions | None = None
    """Labels come later than what they are of, in rows of their own, and are found by an id. Without this table every
    row brings its label."""
    retain_versions: int = Field(default=3, ge=1, le=100)
    """Versions whose parameters stay on the disk, and committed epochs whose models stay in memory."""
    version_rows: int = Field(default=1_000_000, ge=1)
    """So many rows after the last version there is another one, whatever happened."""

    @model_validator(mode="after")
    def _known(self) -> TrainerOptions:
        unknown = [] if self.members == "auto" else [name for name in self.members if name not in NAMES]
        if unknown:
            raise ValueError(f"members should be among {', '.join(NAMES)}, got {', '.join(unknown)}")
        if self.estimator != AUTO and SGD in self.members:
            raise ValueError(
                f"the member of estimator {self.estimator!r} is called {ESTIMATOR}; {SGD} is the built-in one"
            )
        return self

    @model_validator(mode="after")
    def _apart(self) -> TrainerOptions:
        """The target is neither told to the model nor covered by its predictions: either would be a perfect score."""
        features = [] if self.features == "all" else self.features
        if self.target in features:
            raise ValueError(f"features should not have the target {self.target!r}, which is not known beforehand")
        if len(set(features)) < len(features):
            raise ValueError(f"features should differ, got {', '.join(features)}")
        if self.target in [self.prediction + end for end in ("", "_low", "_high")]:
            raise ValueError(f"prediction should not be {self.prediction!r}: its columns would replace the target")
        return self


class Trainer(Stage):
    """Adds the float columns `prediction`, `prediction_low` and `prediction_high` and the int columns `model_version`
    and `model_generation`."""

    Options: ClassVar[type[StageOptions]] = TrainerOptions

    def __init__(self, options: TrainerOptions, context: StageContext) -> None:
        self._options = options
        self._context = context
        try_out(options, context.seed, options.task)
        retain = options.retain_versions
        self._versions = Versions(context, options.model_dump(mode="json"), retain, options.version_rows)
        self._acts = Acts()
        self._changes = ModelChanges(self._versions, self.saved_pool)
        self._api = ModelApi(context.name, self._versions, self.saved_pool, context.now, self._about)
        self._join = LabelJoin(options.labels, options.target) if options.labels is not None else None
        self.restore(None)

    def process(self, batch: Batch) -> Batch:
        """Predict, then learn; the batch with the predictions."""
        pool = self._pool_for(batch)
        features = self._matrix(batch)
        task, labelled = self._task, present(batch, self._options.target)
        assert task is not None
        marks = batch[MARKS] if MARKS in batch.schema.ints else np.zeros(batch.rows, dtype=np.int64)
        good = labelled & ((marks & QUARANTINED) == 0)
        if self._join is not None:
            return self._follow(self._join, batch, features, labelled, good, marks)
        targets, known = task.labels(batch, pool, good)
        learnable = known & ~held_out(self._context.pipeline_seed, batch, self._options.holdout)
        self._count(labelled, good, known, learnable)
        forecasts: list[Any] = []
        versions, generations = (np.empty(batch.rows, dtype=np.int64) for _ in range(2))
        for part in self._parts(pool, targets, marks):
            row = part.start
            while row < part.stop:
                version, generation = pool.blocks, pool.generation
                some = slice(row, part.stop)
                forecast = pool.work(features[some], targets[some], known[some], learnable[some])
                block = slice(row, row + len(forecast.prediction))
                forecasts.append(forecast)
                versions[block], generations[block] = version, generation
                self._counts["fallbacks"] += forecast.fallbacks
                row = block.stop
        self._tell_full(pool)
        numbers = {"model_version": versions, "model_generation": generations}
        return batch.with_columns({**task.columns(forecasts, pool), **numbers})

    def _follow(
        self, join: LabelJoin, batch: Batch, features: Array, labelled: Flags, good: Flags, marks: IntArray
    ) -> Batch:
        """`process` where labels come late: only a label that has a question is one."""
        pool, task = self._pool, self._task
        assert pool is not None
        assert task is not None
        joined = join.join(pool, batch)
        tells = joined.tells
        targets, known = task.labels(batch, pool, good & tells)
        learnable = known & ~held_out(self._context.pipeline_seed, batch, self._options.holdout)
        self._count(labelled[tells], good[tells], known[tells], learnable[tells])
        rows = LateRows(features, targets, known, learnable, joined.asks, tells, joined.lines)
        late = join.work(pool, rows, self._parts(pool, targets, marks))
        self._counts["fallbacks"] += late.fallbacks
        self._tell_full(pool)
        spared = np.flatnonzero(known & ~learnable)
        join.keep(pool, origins(batch, spared), joined.lines[spared])
        return batch.with_columns(columns_of(late, self._options.prediction))

    def snapshot(self) -> State:
        self._freeze()
        return {
            "model": self._pool.state() if self._pool else None,
            "features": list(self._features),
            "estimator": self._estimator,
            "counts": self._counts.copy(),
            "acts": self._acts.state(),
            "pending": self._join.state() if self._join else None,
        }

    def restore(self, state: State | None) -> None:
        self._pool: AnyPool | None = None
        self._task: Task | None = None
        self._acts.restore(state["acts"] if state else None)
        self._versions.forget()
        self._features: tuple[str, ...] = ()
        self._full: frozenset[str] = frozenset()  # that were told of
        self._counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        if self._join is not None:
            self._join.restore(None, None)
        if state is None:
            return
        if state["model"] is not None:
            self._task = self._task_saved(state["model"])
        if state["estimator"] != self._estimator:
            raise StateError(f"the snapshot is of estimator {state['estimator']}, the options say {self._estimator}")
        self._counts |= state["counts"]
        if state["model"] is not None:
            if self._options.features not in ("all", list(state["features"])):
                raise StateError(f"the snapshot is of features {state['features']}, the options have others")
            assert self._task is not None
            self._features = tuple(state["features"])
            self._pool = restored(self._task, self._options, len(self._features), state["model"])
            self._full = self._pool.full()
            if self._join is not None and (waiting := state.get("pending")) is not None:
                self._join.restore(renamed(waiting, called(self._options)), self._pool)
            self._freeze()

    def committed(self, epoch: int) -> None:
        self._versions.committed(epoch)

    def _tell_full(self, pool: AnyPool) -> None:
        if not is_river(self._estimator):  # nothing else grows, and a batch of one row has no time to ask
            return
        full = pool.full()
        for name in sorted(full - self._full):
            self._context.emit("member_full", member=name, row=pool.rows)
        self._full = full

    def query(self, method: str, params: Mapping[str, Any]) -> Any:
        if method == "summary":
            return {**self._counts, **self._progress(), "estimator": self._estimator, **self._refused()}
        if method == "plan":
            return self._changes.plan(self._pool, str(params["kind"]), params["params"])
        if method == "section":
            return {"name": "model", "results": self._section(), "operations": self._refused()}
        raise KeyError(method)

    def change(self, kind: str, params: Mapping[str, Any]) -> None:
        """promote, pin, unpin, rollback: see `ModelChanges`."""
        what = " ".join([kind, *(str(params[name]) for name in ("member", "version") if name in params)])
        reason = self._changes.apply(self._pool, self._acts, kind, params)
        if reason is not None:
            self._context.emit("change_left", what=what, reason=reason)
        elif self._pool is not None:
            self._context.emit("model_changed", what=what, row=self._pool.rows)

    def api(self) -> Mapping[str, Callable[..., Any]]:
        """See `ModelApi`."""
        return self._api.methods()

    def _freeze(self) -> None:
        """Keep the present model as the one that the next epoch to be committed serves."""
        pool, acts = self._pool, self._acts
        frozen = Frozen(pool.copy(), self._features, self._options.target) if pool is not None else None
        if frozen is not None:
            held = self._join.held if self._join is not None else None
            frozen = replace(frozen, act_count=acts.count, acts=acts.recent, held=held)
        self._versions.freeze(frozen)

    @property
    def _estimator(self) -> str:
        return self._task.estimator if self._task is not None else self._options.estimator

    def saved_pool(self, state: Mapping[str, Any]) -> AnyPool:
        """As it was when this was saved, of our members. StateError when it is of other columns."""
        if tuple(state["features"]) != (self._features or tuple(state["features"])):
            raise StateError(f"it is of features {state['features']}, the model has {list(self._features)}")
        task = self._task_saved(state["pool"])
        if self._task is not None and (task.name, task.kind) != (self._task.name, self._task.kind):
            raise StateError(f"it is of a {task.name} of {task.kind}, the model of a {self._task.name}")
        return restored(task, self._options, len(state["features"]), state["pool"])

    def _task_saved(self, pool: Mapping[str, Any]) -> Task:
        """The task that a pool's state is of. StateError when the options have another."""
        task = task_saved(pool, self._options, self._context.seed)
        if self._options.task not in (AUTO, task.name):
            raise StateError(f"the snapshot is of a {task.name}, the options say {self._options.task}")
        return task

    def _about(self) -> dict[str, Any]:
        """What `info` tells beside the model."""
        return {
            "estimator": self._estimator,
            "params": self._task.params(len(self._features)) if self._task else self._options.params,
            "task": self._task.name if self._task else None,
            "classes": self._pool.classes.labels if isinstance(self._pool, ClassPool) else None,
            "features": list(self._features),
            "target": self._options.target,
            "scale_target": self._options.scale_target,
            "holdout": self._options.holdout,
            **self._progress(),
            "members": self._pool.info() if self._pool else [],
        }

    def _pool_for(self, batch: Batch) -> AnyPool:
        """The present pool; the first batch decides on the task and the features."""
        if self._pool is None:
            task = task_of(batch, self._options, self._context.seed, self._options.task)
            self._features = self._choose(batch)
            task.recipe(len(self._features)).try_out()  # when it was made it was not known what it would learn
            self._task = task
            self._pool = self._task.pool(len(self._features))
        return self._pool

    def _choose(self, batch: Batch) -> tuple[str, ...]:
        options, there = self._options, batch.schema.floats
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

    def _count(self, labelled: Flags, good: Flags, usable: Flags, learnable: Flags) -> None:
        """Each flag is a part of the one before it; a row counts where it falls out."""
        if np.count_nonzero(learnable) == len(learnable):
            return
        lost = {"missing_target": ~labelled, "quarantined": labelled & ~good, "too_many_classes": good & ~usable}
        for name, rows in {**lost, "held_out": usable & ~learnable}.items():
            self._counts[name] += int(np.count_nonzero(rows))

    @staticmethod
    def _parts(pool: AnyPool, targets: NDArray[Any], marks: IntArray) -> Iterator[slice]:
        """The rows between two shifts; the pool is told of each when its turn has come."""
        start = 0
        rebased = marks & (REBASED | LABEL_REBASED)
        for row in map(int, np.flatnonzero(rebased)) if np.count_nonzero(rebased) else ():
            if marks[row] & REBASED:
                yield slice(start, row)
                start = row
                pool.feature_shifted()
            if marks[row] & LABEL_REBASED:
                yield slice(start, row + 1)
                start = row + 1
                pool.label_shifted(targets[row : row + 1])
        yield slice(start, len(marks))

    def _progress(self) -> dict[str, Any]:
        pool = self._pool
        return {
            "rows": pool.rows if pool else 0,
            "blocks_learned": pool.blocks if pool else 0,
            "rows_learned": pool.learned if pool else 0,
            "champion": pool.champion.name if pool else None,
            "fallback": pool.fallback if pool else True,
            "generation": pool.generation if pool else 0,
        }

    def _refused(self) -> dict[str, str]:
        """Why the disk takes no version, if it does not."""
        return {"versions_refused": self._versions.refused} if self._versions.refused else {}

    def _section(self) -> dict[str, Any]:
        """The model's part of the report; everything follows from the records."""
        pool = self._pool
        return {
            **self._progress(),
            "members": pool.info() if pool else [],
            "timeline": pool.history.timeline() if pool else [],
            "drifts": pool.history.drifts() if pool else [],
            "drift_count": pool.generation if pool else 0,
            "counts": dict(self._counts),
            "pending": self._join.told() if self._join else None,
        }
