"""What a model of River may be made of, in a snapshot: the list of `object_graph.py`, fixed here and never read."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import partial
from importlib import import_module
from statistics import NormalDist
from typing import Any, Final

from streampiped.learn.object_graph import full_name
from streampiped.learn.portable import NotPortableError

RIVER: Final = "river."
RUST: Final = "river._river_rust."
MODULES: Final = frozenset({
    "base", "compose", "covariance", "drift", "dummy", "ensemble", "facto", "feature_extraction", "feature_selection",
    "forest", "imblearn", "linear_model", "metrics", "misc", "model_selection", "multiclass", "naive_bayes",
    "neighbors", "optim", "preprocessing", "proba", "stats", "tree", "utils",
})  # fmt: skip
"""Below `river`. Left out: what reads files and the network (datasets, stream), wraps models of others (compat), runs
experiments or learns something else than a target; and rules, which know each other by their place in memory."""
DISTRIBUTIONS: Final = "river.proba."
OTHERS: Final = {full_name(thing): thing for thing in (NormalDist, deepcopy)}
FUNCTIONS: Final = frozenset(
    {
        "river.tree.splitter.ebst_splitter.EBSTNode._update_estimator_univariate",
        "river.tree.splitter.ebst_splitter.EBSTNode._update_estimator_multivariate",
        "river.forest.online_extra_trees.ExtraTrees._detection_mode_all",
        "river.forest.online_extra_trees.ExtraTrees._detection_mode_drop",
        "river.forest.online_extra_trees.ExtraTrees._detection_mode_off",
        "river.naive_bayes.gaussian.GaussianNB._make_gaussian",
    }
)
"""Functions that models keep as values."""
VECTOR: Final = f"{RUST}vectordict.VectorDict"
STATISTICS: Final = (
    "EWMean", "EWVar", "IQR", "Kurtosis", "PeakToPeak", "Quantile", "RollingIQR", "RollingQuantile", "Skew",
)  # fmt: skip
NATIVE: Final = frozenset({f"{RUST}drift.AdaptiveWindowing"} | {f"{RUST}stats.Rs{name}" for name in STATISTICS})
"""Objects of River's Rust library that give out what they hold as bytes, and take it back. These bytes are of one
version of River. The others of that library (rolling ROC and PR curves) are not asked: no learner has them."""
PANIC: Final = "PanicException"  # what Rust raises; it is no Exception


class RiverParts:
    """See `object_graph.Allowed`."""

    def has(self, cls: type) -> bool:
        if cls is NormalDist:
            return True
        plain: Any = object.__new__
        return _is_ours(cls) and cls.__new__ is plain and all(map(_is_python, cls.__mro__))

    def idle(self, cls: type) -> Mapping[str, Callable[[], Any]]:
        """A distribution's generator is for `sample`, which no model asks; without a seed it begins anywhere."""
        return {"_rng": partial(random.Random, 0)} if cls.__module__.startswith(DISTRIBUTIONS) else {}

    def may_name(self, value: Any) -> bool:
        return full_name(value) in FUNCTIONS or value is deepcopy or (isinstance(value, type) and self.has(value))

    def resolve(self, name: str) -> Any:
        if name in OTHERS:
            return OTHERS[name]
        found = _found(name)
        if name in FUNCTIONS or (isinstance(found, type) and self.has(found)):
            return found
        raise NotPortableError(f"{name} is not on the list of what a model may be made of")

    def is_native(self, cls: type) -> bool:
        return full_name(cls) in NATIVE or full_name(cls) == VECTOR

    def native_parts(self, value: Any) -> list[Any]:
        name = full_name(type(value))
        if name == VECTOR:
            _, (items, factory, mask, _) = value.__reduce__()
            if factory is not None or mask is not None:
                raise NotPortableError(f"a {name} with a factory or a mask")
            if not all(type(part) in (bool, int, float, str) for pair in items.items() for part in pair):
                raise NotPortableError(f"a {name} of other things than numbers")
            return [part for pair in items.items() for part in pair]
        arguments = value.__getnewargs__() if hasattr(value, "__getnewargs__") else ()
        return [value.__getstate__(), *arguments]

    def native(self, name: str, parts: list[Any]) -> Any:
        if any(isinstance(part, list) for part in parts):
            raise NotPortableError(f"a {name} is made of plain values")
        if name == VECTOR:
            return _found(name)(dict(zip(parts[::2], parts[1::2], strict=True)))
        if name not in NATIVE:
            raise NotPortableError(f"{name} is not on the list of what a model may be made of")
        try:
            made = _found(name)(*parts[1:])
            made.__setstate__(parts[0])
        except BaseException as error:
            if is_panic(error):
                raise NotPortableError(f"{name} does not take these bytes: {error}") from error
            raise
        return made


def is_panic(error: BaseException) -> bool:
    """Whether it is a failure in River's Rust library, which is no Exception."""
    return type(error).__name__ == PANIC


def _is_ours(cls: type) -> bool:
    parts = cls.__module__.split(".")
    return len(parts) > 1 and parts[0] == "river" and parts[1] in MODULES and "<" not in cls.__qualname__


def _is_python(cls: type) -> bool:
    """Whether what an instance holds for this base is in its attributes: it is no class of C or Rust."""
    if cls is object or cls.__module__ in ("abc", "typing", "collections.abc", "_collections_abc"):
        return True
    return _is_ours(cls) or full_name(cls) in ("collections.UserList", "collections.UserDict")


def _found(name: str) -> Any:
    """The thing of this full name, of a module on the list."""
    parts = name.split(".")
    if parts[0] != "river" or len(parts) < 3 or (parts[1] not in MODULES and not name.startswith(RUST)):
        raise NotPortableError(f"{name} is not on the list of what a model may be made of")
    module, rest = _module_of(parts)
    for part in rest:
        module = getattr(module, part, None)
    if module is None or full_name(module) != name:
        raise NotPortableError(f"{name} is not in this version of River")
    return module


def _module_of(parts: list[str]) -> tuple[Any, list[str]]:
    """The longest module that this begins with, and what is left."""
    if parts[1] == "_river_rust":  # its modules are attributes
        return import_module("river._river_rust"), parts[2:]
    for length in range(len(parts) - 1, 1, -1):
        try:
            return import_module(".".join(parts[:length])), parts[length:]
        except ModuleNotFoundError:
            continue
    raise NotPortableError(f"{'.'.join(parts)} is not in this version of River")
