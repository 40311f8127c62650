"""Python values of fitted estimators as portable state, without pickle.

Portable are None, bool, int, float, str, bytes, numeric numpy arrays, and lists and str-keyed dicts of these (the
state of `stages/base.py`). Tuples, numpy scalars, arrays in Fortran order or without dimension, RandomState and the two
optimisers and the binarizer of scikit-learn's neural networks travel as dicts with a tag. Everything else is refused by
name: a snapshot must never be able to name a class or function that we did not list here.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

import numpy as np

TAG: Final = "~"
OPTIMISERS: Final = "sklearn.neural_network._stochastic_optimizers"
BINARIZER: Final = "sklearn.preprocessing._label.LabelBinarizer"
OBJECTS: Final = frozenset({f"{OPTIMISERS}.AdamOptimizer", f"{OPTIMISERS}.SGDOptimizer", BINARIZER})
"""Classes whose instances are their `__dict__` and nothing else."""


class NotPortableError(TypeError):
    """A value has no portable form; the message says where it stands and what it is."""


def encode(value: Any, where: str) -> Any:
    """The portable form, sharing no array with `value`. `where` names the value in the error.

    >>> encode((1, 2.5), "t_")
    {'~': 'tuple', 'items': [1, 2.5]}
    """
    match value:
        case np.ndarray() | np.generic():
            return _encode_array(value, where)
        case None | bool() | int() | float() | str() | bytes():
            return value
        case list():
            return [encode(item, f"{where}[{i}]") for i, item in enumerate(value)]
        case tuple():
            return {TAG: "tuple", "items": encode(list(value), where)}
        case dict():
            return _encode_dict(value, where)
        case np.random.RandomState():
            return _encode_random(value)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if name not in OBJECTS:
        raise NotPortableError(f"{where} is a {name}")
    return {TAG: "object", "class": name, "state": _encode_dict(vars(value), where)}


def decode(data: Any) -> Any:
    """What was encoded, sharing no array with `data`."""
    match data:
        case np.ndarray():
            return data.copy()
        case list():
            return [decode(item) for item in data]
        case Mapping():
            tag = data.get(TAG)
            return {k: decode(v) for k, v in data.items()} if tag is None else _decode_tagged(tag, data)
    return data


def _encode_array(value: Any, where: str) -> Any:
    if value.dtype.kind not in "biuf":
        raise NotPortableError(f"{where} is an array of {value.dtype}")
    if isinstance(value, np.generic):
        return {TAG: "scalar", "value": np.array([value])}
    if value.ndim == 0:
        return {TAG: "point", "value": value.reshape(1).copy()}
    if value.flags.f_contiguous and not value.flags.c_contiguous:
        # The order is part of the state: BLAS adds in another order for the other one, and the last bits differ.
        return {TAG: "fortran", "value": value.T.copy()}
    return np.array(value, order="C")


def _encode_dict(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    for key in value:
        if not isinstance(key, str) or key == TAG:
            raise NotPortableError(f"{where} has the key {key!r}")
    return {key: encode(item, f"{where}.{key}") for key, item in value.items()}


def _encode_random(value: np.random.RandomState) -> dict[str, Any]:
    name, keys, place, has_gauss, gauss = value.get_state(legacy=True)
    assert name == "MT19937", name  # the only generator that RandomState has unless one is handed in
    return {
        TAG: "random",
        "keys": np.array(keys),
        "place": int(place),
        "has_gauss": int(has_gauss),
        "gauss": float(gauss),
    }


def _decode_tagged(tag: Any, data: Mapping[str, Any]) -> Any:
    match tag:
        case "tuple":
            return tuple(decode(data["items"]))
        case "scalar":
            return data["value"][0]
        case "point":
            return data["value"].reshape(()).copy()
        case "fortran":
            return data["value"].copy().T
        case "random":
            state = np.random.RandomState()
            state.set_state(("MT19937", data["keys"], data["place"], data["has_gauss"], data["gauss"]))
            return state
        case "object" if data["class"] in OBJECTS:
            return _decode_object(data)
    raise NotPortableError(f"unknown tag {tag!r} in an estimator's state")


def _decode_object(data: Mapping[str, Any]) -> Any:
    module, _, name = str(data["class"]).rpartition(".")
    cls = getattr(import_module(module), name)
    result = cls.__new__(cls)
    vars(result).update({key: decode(item) for key, item in data["state"].items()})
    return result


def to_plain(data: Any) -> Any:
    """Portable state for a reader without numpy (an API's answer): arrays become little-endian bytes with dtype and
    shape, everything else stays."""
    match data:
        case np.ndarray():
            little = data.astype(data.dtype.newbyteorder("<"))
            return {TAG: "array", "dtype": little.dtype.str, "shape": list(data.shape), "data": little.tobytes()}
        case list():
            return [to_plain(item) for item in data]
        case Mapping():
            return {key: to_plain(item) for key, item in data.items()}
    return data
