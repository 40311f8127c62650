"""How to make, freeze and thaw a model of River: the twin of `estimators.Recipe`. Needs the extra `river`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final

import numpy as np

from streampiped.errors import OptionError, StateError
from streampiped.learn.class_recipe import ClassRecipe
from streampiped.learn.estimators import SEED_BITS, equal
from streampiped.learn.object_graph import full_name, put_together
from streampiped.learn.portable import NotPortableError
from streampiped.learn.river_models import PARTS, ModelFaultError, RiverClassModel, RiverModel, is_a
from streampiped.learn.river_parts import RIVER

TRIAL_ROWS: Final = 256  # a Hoeffding tree looks at its first split after 200
TRIAL_COLUMNS: Final = 3
CLASS: Final = "class"  # in the table of a parameter that is an object of River
SEED: Final = "seed"


def is_river(path: str) -> bool:
    return path.startswith(RIVER)


class RiverRecipe(ClassRecipe):
    """Path and parameters of one model; a parameter that is a table with `class` is another object of River. Every
    `seed` that is left out or None becomes the stage's. Raises OptionError with what is wrong."""

    def __init__(self, path: str, params: Mapping[str, Any], seed: int) -> None:
        self.path = path
        self.params = dict(params)
        self.seed = seed & SEED_BITS
        self.river = _river(path)
        self._last: Mapping[str, Any] | None = None  # the newest graph of this process: it needs no check
        model = self._model()
        self.classes = is_a(model, "Classifier")
        """Whether it learns classes."""
        if not (self.classes or is_a(model, "Regressor")):
            raise OptionError(f"estimator {path} is neither a regressor nor a classifier")

    def make(self) -> RiverModel:
        """A fresh model, of a RiverClassModel when it learns classes."""
        return (RiverClassModel if self.classes else RiverModel)(self._model, _put_together)

    def freeze(self, estimator: Any) -> dict[str, Any]:
        graph = estimator.graph()
        self._last = graph
        told = {"rows": estimator.rows, "full": estimator.full, "classes": getattr(estimator, "classes", 0)}
        return {"river": self.river, **told, "graph": graph}

    def thaw(self, state: Mapping[str, Any]) -> RiverModel:
        """StateError when another version of River has made it, or something else that is no model of this recipe."""
        if state.get("river") != self.river:
            made = f"River {state['river']}" if "river" in state else "another library"
            raise StateError(
                f"the state of {self.path} was made by {made}, and here is River {self.river}: what its models are "
                f"made of changes with the version. Install river=={state.get('river', self.river)}, or begin with "
                f"`streampiped run --fresh`"
            )
        result = self._fresh(int(state["classes"]))
        trusted = self._last is state["graph"]
        try:
            result.begin(state["graph"], int(state["rows"]), bool(state["full"]), trusted=trusted)
        except NotPortableError as error:
            raise StateError(f"the state of {self.path} cannot be read: {error}") from error
        return result

    def is_full(self, estimator: Any) -> bool:
        return estimator is not None and bool(estimator.full)

    def mark(self, estimator: Any) -> Any:
        return estimator.undo(), getattr(estimator, "classes", 0)

    def back(self, mark: Any) -> RiverModel:
        """As `Recipe.back`; a fresh one when what went well before does not go well again."""
        again, classes = mark
        result = self._fresh(classes)
        try:
            again(result)
        except ModelFaultError:  # at rows that it has learned before: it is another each time, and no state is its own
            return self._fresh(classes)
        return result

    def widen(self, old: Any, features: Any, classes: int) -> Any:
        old.classes = classes
        return old

    def try_out(self) -> None:
        """As `Recipe.try_out`, with more rows: trees have to grow."""
        try:
            same = self._goes_on_equally()
        except NotPortableError as error:
            raise OptionError(
                f"estimator {self.path} cannot be put into a snapshot: {error}, which is not on the list of what a "
                f"model may be made of. docs/components/trainer.md says which can"
            ) from error
        except Exception as error:
            raise OptionError(f"estimator {self.path} with {self.params} does not learn: {error}") from error
        if not same:
            raise OptionError(f"estimator {self.path} goes on differently after a snapshot: it hides state")

    def _goes_on_equally(self) -> bool:
        generator = np.random.Generator(np.random.PCG64(0))
        rows = generator.standard_normal((TRIAL_ROWS, TRIAL_COLUMNS))
        labels: Any = rows[:, 0] + np.abs(rows[:, 1])
        if self.classes:
            labels = (labels > 0.5).astype(np.intp)
        half = TRIAL_ROWS // 2
        model: Any = self.make()
        model.partial_fit(rows[:half], labels[:half], classes=range(2))
        twin: Any = self._fresh(2)
        twin.begin(self.freeze(model)["graph"], half, False, trusted=False)
        for each in (model, twin):
            each.partial_fit(rows[half:], labels[half:])
        answers = [each.predict_proba(rows) if self.classes else each.predict(rows) for each in (model, twin)]
        return np.array_equal(*answers) and equal(self.freeze(model), self.freeze(twin))

    def _fresh(self, classes: int) -> RiverModel:
        result = self.make()
        if isinstance(result, RiverClassModel):
            result.classes = classes
        return result

    def _model(self) -> Any:
        return _made(self.path, self.params, self.seed)


def _put_together(graph: Mapping[str, Any]) -> Any:
    return put_together(graph, PARTS)


def _river(path: str) -> str:
    """River's version."""
    try:
        version: str = import_module("river").__version__
    except ImportError as error:
        raise OptionError(
            f"estimator {path!r} needs River, which is not installed: pip install 'streampipe-daemon[river]' "
            f"brings it ({error})"
        ) from error
    return version


def _made(path: str, params: Mapping[str, Any], seed: int) -> Any:
    """The object of this class, and those in its parameters."""
    cls = _class_at(path)
    known = inspect.signature(cls).parameters
    given = {name: _value(value, seed) for name, value in params.items() if name != CLASS}
    several = [name for name, one in known.items() if one.kind is one.VAR_POSITIONAL and name in given]
    positional = [item for name in several for item in given.pop(name)]
    if SEED in known and given.get(SEED) is None:
        given[SEED] = seed
    try:
        return cls(*positional, **given)
    except Exception as error:
        raise OptionError(f"estimator {path} does not take params {dict(params)}: {error}") from error


def _value(value: Any, seed: int) -> Any:
    if isinstance(value, Mapping) and CLASS in value:
        return _made(str(value[CLASS]), value, seed)
    return [_value(item, seed) for item in value] if isinstance(value, list) else value


def _class_at(path: str) -> Any:
    module, _, name = path.rpartition(".")
    if not is_river(path):
        raise OptionError(f"{path!r} is no class of River, and a model of River is made of its own alone")
    try:
        there = import_module(module)
    except ImportError as error:
        raise OptionError(f"estimator {path!r} cannot be imported: {error}") from error
    cls = getattr(there, name, None)
    if not isinstance(cls, type):
        near = get_close_matches(name, [n for n, one in vars(there).items() if isinstance(one, type)], n=1)
        raise OptionError(f"River has no {path!r}" + (f"; did you mean {module}.{near[0]}?" if near else ""))
    if not PARTS.has(cls):
        raise OptionError(f"{full_name(cls)} is not on the list of what a model may be made of")
    return cls
