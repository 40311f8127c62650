"""`streampipectl predict`: rows from standard input, predictions to standard output.

The rows are as the stream has them: what the stages before the model make of them is asked of these stages
(`transform`), and said. Whatever has come is answered before more is waited for, so a slow writer gets its answers one
by one and a file goes in large parts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from streampipectl import render
from streampipectl.apis import Api, before, model_of, must_have_version, processes
from streampipectl.output import complain
from streampipectl.rows import Reader, Row, RowError, Writer
from streampiped.errors import ExitCode, RpcError

ROWS_MAX: Final = 4000  # of one question
VALUES_MAX: Final = 40_000  # of one question: 9 bytes each, far below the message's limit
MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none"})


def predict(path: str, stage: str | None, version: int | None, source: str, target: str, as_is: bool) -> int:
    there = processes(path)
    api = model_of(path, stage, there)
    asking = Asking(api, [] if as_is else before(path, api.stage, there), version)
    if sys.stdin.isatty():
        complain("rows from standard input: CSV with a header, or a JSON object per line; Ctrl-D ends them")
    out: list[Row] = []
    sides: list[tuple[Reader, Writer]] = []

    def answer() -> None:
        """All that has been read."""
        if out:
            reader, writer = sides[0]
            writer.check(out)
            try:
                answers = asking.ask(out)
            except AbsentError as error:
                raise reader.lacks(error.columns, error.wanted, out[0][0]) from None
            writer.write(out, answers)
            out.clear()

    try:
        reader = Reader(sys.stdin.fileno(), source, answer)
        writer = Writer(reader.kind if target == "auto" else target)
        sides.append((reader, writer))
        for row in reader:
            out.append(row)
            if len(out) >= asking.rows_max:
                answer()
        answer()
    except RowError as error:
        first = _answered_before(error, out, answer)
        complain(f"line {first.line}: {first}")
        return int(ExitCode.FAILED)
    for line in (*writer.told(), *asking.told()) if reader.found else ("no rows came in",):
        complain(line)
    return int(ExitCode.OK)


def _answered_before(error: RowError, out: list[Row], answer: Callable[[], None]) -> RowError:
    """Answer the rows in front of a mistake; the first mistake, which may be in one of these."""
    while True:
        out[:] = [row for row in out if row[0] < error.line]
        try:
            answer()
        except RowError as earlier:
            error = earlier
        else:
            return error


class AbsentError(Exception):
    """Columns that the model wants and none of the rows has."""

    def __init__(self, columns: Sequence[str], wanted: Sequence[str]) -> None:
        super().__init__(columns)
        self.columns = columns
        self.wanted = wanted


class Asking:
    """What to do with rows, and who is asked what."""

    def __init__(self, api: Api, way: Sequence[Api], version: int | None) -> None:
        self._api = api
        must_have_version(api, version)
        self._version = version
        self._features: list[str] = api.ask("info")["features"]
        if not self._features:
            raise RpcError(f"{api.stage} has no model yet: no batch has arrived", ExitCode.REFUSED)
        self._way: list[tuple[Api, list[str]]] = []
        wanted: dict[str, None] = dict.fromkeys(self._features)
        for each in way:
            takes = each.ask("transform", columns={})["takes"]
            self._way.append((each, takes))
            wanted |= dict.fromkeys(takes)
        self._wanted = list(wanted)
        self._rows = 0
        self._last: Mapping[str, Any] = {}

    @property
    def rows_max(self) -> int:
        return max(1, min(ROWS_MAX, VALUES_MAX // len(self._wanted)))

    def ask(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """The answer for these rows. RowError for what is no number, AbsentError."""
        named = rows[0][1]
        columns: dict[str, list[float | None]] = {}
        for name in self._wanted:
            if name in named or any(name in values for _, values in rows):
                columns[name] = [_number(line, name, values.get(name)) for line, values in rows]
        for api, takes in self._way:
            given = {name: columns[name] for name in takes if name in columns}
            columns |= api.ask("transform", columns=given)["columns"]
        if absent := [name for name in self._features if name not in columns]:
            raise AbsentError(absent, self._features)
        table = {name: columns[name] for name in self._features}
        self._last = self._api.ask("predict", rows=table, version=self._version)
        self._rows += len(rows)
        return self._last

    def told(self) -> Iterator[str]:
        """Which model it was, and what was made of the rows before it."""
        last = self._last
        if not last:
            return
        epoch = f"epoch {last['epoch']}" if last.get("epoch") is not None else "no epoch"
        age = f", {render.duration(last['age_s'])} old" if last.get("age_s") is not None else ""
        yield f"{self._rows} row{'s' * (self._rows != 1)}, predicted by {last.get('champion')} of {epoch}{age}"
        way = ", ".join(api.stage for api, _ in self._way)
        yield f"the rows as {way} would pass them on" if way else "the rows as they are"
        if last.get("fallback"):
            yield "a guess: no member that learned is served"


def _number(line: int, name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in MISSING:
            return None
        try:
            return float(text)
        except ValueError:
            raise RowError(line, f"column {name}: {value!r} is no number") from None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return float("inf") if value > 0 else float("-inf")
    raise RowError(line, f"column {name}: {json.dumps(value)} is no number")
