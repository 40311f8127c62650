"""The classes of a target column: labels as codes, in the order of their appearance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streampiped.classes import UNKNOWN, Codes, Label

CLASSES_MAX: Final = 64  # each costs a column in every member; a target with more is hardly a class

Kind: TypeAlias = Literal["int", "text"]


class KnownClasses:
    """Of one column. The code of a class is its place among `labels`, for ever.

    >>> known = KnownClasses("text")
    >>> known.codes(["no", None, "yes", "no"], np.array([True, False, True, True])).tolist()
    [0, -1, 1, 0]
    >>> known.labels
    ['no', 'yes']
    """

    __slots__ = ("_codes", "kind")

    def __init__(self, kind: Kind) -> None:
        self.kind: Kind = kind
        self._codes: dict[Label, int] = {}

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def labels(self) -> list[Label]:
        """By code."""
        return list(self._codes)

    def code(self, label: object) -> int:
        """UNKNOWN for what is none of them. A number is no text, and True no number."""
        if isinstance(label, bool) or not isinstance(label, int | str):
            return UNKNOWN
        return self._codes.get(label, UNKNOWN)

    def codes(self, labels: Any, known: NDArray[np.bool_]) -> Codes:
        """Of an int array or a list of text; new classes are met where a label is `known`. UNKNOWN for what is not
        known, and for a class beyond CLASSES_MAX."""
        values = labels.tolist() if isinstance(labels, np.ndarray) else labels
        codes, get = self._codes, self._codes.get
        found = [get(value, UNKNOWN) for value in values]
        result = np.array(found, dtype=np.intp)
        result[~known] = UNKNOWN
        for row in np.flatnonzero(known & (result == UNKNOWN)).tolist():
            value = values[row]
            if value not in codes and len(codes) < CLASSES_MAX:
                codes[value] = len(codes)
            result[row] = get(value, UNKNOWN)
        return result

    def state(self) -> dict[str, Any]:
        """Portable and exact: the argument of `restore`."""
        return {"kind": self.kind, "labels": self.labels}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.kind = state["kind"]
        self._codes = {label: code for code, label in enumerate(state["labels"])}
