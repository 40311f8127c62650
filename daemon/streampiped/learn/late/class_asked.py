"""What a question of classes that waits for its label holds: the twin of `asked.py`.

Classes come one by one, so a line becomes wider at its end: behind the features, what was known of all classes and what
was served there is a group of numbers for each class. The groups stand in the order in which the form has met the
classes, which never changes, whatever numbers the model gives them after a rollback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from streampiped.aligned import aligned_empty
from streampiped.classes import UNKNOWN, Codes, Label
from streampiped.learn.class_past import MEMORIES, ClassLooks
from streampiped.records import Array

SERVED: Final = ("prediction", "probability", "score", "version", "row")
"""`prediction` is a code of the form."""
LOOKS: Final = ("count", "met", "last", "stay")
SHARES: Final = 1 + len(MEMORIES) + 1  # of each class: its share, discounted ones, and its probability as served


class ClassForm:
    """Of lines with so many `columns` of features and answers of these `members`. `labels`: by its own codes; those
    of the model are translated, as of the last `meet`."""

    def __init__(self, columns: int, members: Sequence[str]) -> None:
        self.columns = columns
        self.members = tuple(members)
        self.head = columns + len(LOOKS) + len(SERVED)
        self.labels: list[Label] = []
        self.places: Codes = np.zeros(0, dtype=np.intp)
        """By the model's code."""

    @property
    def width(self) -> int:
        return self.head + len(self.labels) * (SHARES + len(self.members))

    def meet(self, labels: Sequence[Label]) -> None:
        """These are the model's classes, by its codes. The form may become wider by it."""
        codes = {label: code for code, label in enumerate(self.labels)}
        self.places = np.array([codes.setdefault(label, len(codes)) for label in labels], dtype=np.intp)
        self.labels = list(codes)

    def own(self, codes: Codes) -> Codes:
        """The model's codes as the form's."""
        return np.append(self.places, UNKNOWN)[codes]

    def models(self, own: Array) -> Codes:
        """The form's codes, or NaN, as the model's; UNKNOWN for a class that it does not know."""
        back = np.full(len(self.labels) + 1, UNKNOWN, dtype=np.intp)
        back[self.places] = np.arange(len(self.places))
        return back[np.where(np.isnan(own), UNKNOWN, own).astype(np.intp)]

    def asked(self, table: Array) -> ClassAsked:
        return ClassAsked(table, self)

    def taken_over(self, table: Array, members: Sequence[str]) -> Array:
        if members == list(self.members):
            return np.array(table, dtype=np.float64)
        groups = table[:, self.head :].reshape(len(table), len(self.labels), SHARES + len(members))
        ours = np.full((*groups.shape[:2], SHARES + len(self.members)), np.nan)
        ours[:, :, :SHARES] = groups[:, :, :SHARES]
        for place, name in enumerate(self.members):
            if name in members:
                ours[:, :, SHARES + place] = groups[:, :, SHARES + members.index(name)]
        return np.column_stack((table[:, : self.head], ours.reshape(len(table), -1)))

    def state(self) -> dict[str, Any]:
        return {"labels": list(self.labels)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.labels, self.places = list(state["labels"]), np.zeros(0, dtype=np.intp)


class ClassAsked:
    """Lines of the table: features, looks, probabilities by each member, and what was served. What is read of them by
    class is in the order of the model's codes."""

    __slots__ = ("_form", "table")

    def __init__(self, table: Array, form: ClassForm) -> None:
        self.table = table
        self._form = form

    @classmethod
    def of(
        cls,
        form: ClassForm,
        features: Array,
        looks: ClassLooks,
        answers: Sequence[Array],
        answer: Array,
        served: Mapping[str, Any],
    ) -> ClassAsked:
        """`answers`: as the members gave them; `answer`: the probabilities that are served; `served`: SERVED by name,
        an array or one number for all."""
        rows, places = len(features), form.places
        result = cls(np.zeros((rows, form.width)), form)
        result.table[:, : form.columns] = features
        known = {"count": looks.count, "met": looks.met, "last": form.own(looks.last), "stay": looks.stay}
        for place, name in enumerate(LOOKS, form.columns):
            result.table[:, place] = known[name]
        for name in SERVED:
            result.served(name)[...] = served[name]
        groups = result._groups()
        groups[:, places, 0] = looks.shares
        groups[:, places, 1 : 1 + len(MEMORIES)] = looks.discounted.transpose(0, 2, 1)
        groups[:, places, SHARES - 1] = answer
        for place, raw in enumerate(answers, SHARES):
            groups[:, places[: raw.shape[1]], place] = raw
            if not raw.shape[1]:
                groups[:, :, place] = np.nan
        return result

    def features(self) -> Array:
        """A copy, aligned and in C order."""
        columns = self._form.columns
        result: Array = aligned_empty(len(self.table) * columns, np.float64).reshape(-1, columns)
        result[...] = self.table[:, :columns]
        return result

    def question(self) -> Array:
        """What a prediction of rows that come next needs: the features."""
        return self.table[:, : self._form.columns]

    @property
    def looks(self) -> ClassLooks:
        first = self._form.columns
        count, met, last, stay = np.ascontiguousarray(self.table[:, first : first + len(LOOKS)].T)
        groups = self._groups()[:, self._form.places]
        return ClassLooks(
            count,
            np.nan_to_num(met).astype(np.intp),
            np.ascontiguousarray(groups[:, :, 0]),
            np.ascontiguousarray(groups[:, :, 1 : 1 + len(MEMORIES)].transpose(0, 2, 1)),
            self._form.models(last),
            stay,
        )

    def answers(self) -> list[Array]:
        """Per member, as it gave them; 0 for a class that it did not know of, NaN where it knew of none."""
        groups = self._groups()[:, self._form.places]
        return [np.ascontiguousarray(groups[:, :, SHARES + place]) for place in range(len(self._form.members))]

    def probabilities(self) -> Array:
        """As they were served."""
        return np.ascontiguousarray(self._groups()[:, self._form.places, SHARES - 1])

    def served(self, name: str) -> Array:
        """A view of one of SERVED."""
        view: Array = self.table[:, self._form.head - len(SERVED) + SERVED.index(name)]
        return view

    def _groups(self) -> Array:
        """A view: rows, classes of the form, numbers of each."""
        form = self._form
        shape = len(self.table), len(form.labels), SHARES + len(form.members)
        return self.table[:, form.head :].reshape(shape)
