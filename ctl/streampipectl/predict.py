"""`streampipectl predict`: rows from standard input, predictions to standard output.

The rows are as the stream has them: what the stages before the model make of them is asked of these stages
(`transform`), and said. Whatever has come is answered before more is waited for, so a slow writer gets its answers one
by one and a file goes in large parts.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from streampipectl import render
from streampipectl.apis import Api, before, model_of, processes
from streampipectl.output import complain, dumped
from streampiped.errors import ExitCode, RpcError

ROWS_MAX: Final = 4000  # of one question
VALUES_MAX: Final = 40_000  # of one question: 9 bytes each, far below the message's limit
ANSWER_S: Final = 30.0  # a stage answers between two batches
READ_BYTES: Final = 64 << 10
MISSING: Final = frozenset({"", "na", "n/a", "nan", "null", "none"})
ANSWERS: Final = {"prediction": "predictions", "prediction_low": "low", "prediction_high": "high"}
CLASS_ANSWERS: Final = {"prediction": "predictions", "probability": "probability"}
"""Column -> what it is called in the answer; of numbers, and of classes."""

Row = tuple[int, dict[str, Any]]
"""Its line, and its values by column as they came."""


class RowError(Exception):
    """What is wrong with the input, and on which line (from 1)."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(what)
        self.line = line


def predict(path: str, stage: str | None, version: int | None, source: str, target: str, as_is: bool) -> int:
    there = processes(path)
    api = model_of(path, stage, there)
    asking = Asking(api, [] if as_is else before(path, api.stage, there), version)
    out: list[Row] = []
    writer: list[Writer] = []

    def answer() -> None:
        """All that has been read."""
        if out:
            answers = asking.ask(out)
            writer[0].write([values for _, values in out], answers)
            out.clear()

    try:
        rows, kind = _rows(_lines(sys.stdin.fileno(), answer), source)
        writer.append(Writer(kind if target == "auto" else target))
        for row in rows:
            out.append(row)
            if len(out) >= asking.rows_max:
                answer()
        answer()
    except RowError as error:
        first = _answered_before(error, out, answer)
        complain(f"line {first.line}: {first}")
        return int(ExitCode.FAILED)
    for line in asking.told():
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


class Asking:
    """What to do with rows, and who is asked what."""

    def __init__(self, api: Api, way: Sequence[Api], version: int | None) -> None:
        self._api = api
        self._version = {"version": version} if version is not None else {}
        info = api.client.call("info", {}, ANSWER_S)
        self._features: list[str] = info["features"]
        if not self._features:
            raise RpcError(f"{api.stage} has no model yet: no batch has arrived", ExitCode.REFUSED)
        self._way: list[tuple[Api, list[str]]] = []
        wanted: dict[str, None] = dict.fromkeys(self._features)
        for each in way:
            takes = each.client.call("transform", {"columns": {}}, ANSWER_S)["takes"]
            self._way.append((each, takes))
            wanted |= dict.fromkeys(takes)
        self._wanted = list(wanted)
        self._rows = 0
        self._last: Mapping[str, Any] = {}

    @property
    def rows_max(self) -> int:
        return max(1, min(ROWS_MAX, VALUES_MAX // len(self._wanted)))

    def ask(self, rows: Sequence[Row]) -> Mapping[str, Any]:
        """The answer for these rows. RowError for what is no number."""
        named = rows[0][1]
        columns: dict[str, list[float | None]] = {}
        for name in self._wanted:
            if name in named or any(name in values for _, values in rows):
                columns[name] = [_number(line, name, values.get(name)) for line, values in rows]
        for api, takes in self._way:
            given = {name: columns[name] for name in takes if name in columns}
            columns |= api.client.call("transform", {"columns": given}, ANSWER_S)["columns"]
        if absent := [name for name in self._features if name not in columns]:
            raise RowError(rows[0][0], f"no column {', '.join(absent)}; wanted are {', '.join(self._features)}")
        table = {name: columns[name] for name in self._features}
        self._last = self._api.client.call("predict", {"rows": table, **self._version}, ANSWER_S)
        self._rows += len(rows)
        return self._last

    def told(self) -> Iterator[str]:
        """Which model it was, and what was made of the rows before it."""
        last = self._last
        if not last:
            return
        epoch = f"epoch {last['epoch']}" if last.get("epoch") is not None else "no epoch"
        age = f", {render.duration(last['age_s'])} old" if last.get("age_s") is not None else ""
        yield f"{self._rows} rows, predicted by {last.get('champion')} of {epoch}{age}"
        way = ", ".join(api.stage for api, _ in self._way)
        yield f"the rows as {way} would pass them on" if way else "the rows as they are"
        if last.get("fallback"):
            yield "a guess: nothing that was learned beats it"


class Writer:
    """CSV with a header, or JSON lines: what came in, and the answers."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._names: list[str] = []
        self._csv = csv.writer(sys.stdout, lineterminator="\n")

    def write(self, rows: Sequence[Mapping[str, Any]], answers: Mapping[str, Any]) -> None:
        names = CLASS_ANSWERS if "classes" in answers else ANSWERS
        made = zip(*(answers[key] for key in names.values()), strict=True)
        found = [{**row, **dict(zip(names, values, strict=True))} for row, values in zip(rows, made, strict=True)]
        if self._kind == "jsonl":
            for row in found:
                sys.stdout.write(dumped(row) + "\n")
        else:
            if not self._names:
                self._names = list(found[0])
                self._csv.writerow(self._names)
            self._csv.writerows([_cell(row.get(name)) for name in self._names] for row in found)
        sys.stdout.flush()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value)
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


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


def _lines(fd: int, before_waiting: Callable[[], None]) -> Iterator[str]:
    """The lines of standard input, with their ends; RowError for what is no UTF-8."""
    rest, number = b"", 0
    while True:
        before_waiting()
        data = os.read(fd, READ_BYTES)
        *whole, rest = (rest + data).split(b"\n")
        if not data and rest:
            whole, rest = [rest], b""
        for line in whole:
            number += 1
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise RowError(number, "no UTF-8") from None
            yield text + "\n"
        if not data:
            return


def _rows(lines: Iterator[str], source: str) -> tuple[Iterator[Row], str]:
    """The rows, and what they came as."""
    if source == "auto":
        blank = []
        for line in lines:
            blank.append(line)
            if line.strip():
                break
        lines = chain(blank, lines)
        source = "jsonl" if blank and blank[-1].lstrip().startswith("{") else "csv"
    return (_from_json(lines) if source == "jsonl" else _from_csv(lines)), source


def _from_json(lines: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise RowError(number, f"no JSON: {error}") from None
        if not isinstance(value, dict):
            raise RowError(number, "no JSON object")
        yield number, value


def _from_csv(lines: Iterable[str]) -> Iterator[Row]:
    reader = csv.reader(lines, strict=True)
    names: list[str] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if names is None:
                names = [cell.strip() for cell in cells]
                if len(set(names)) < len(names):
                    raise RowError(reader.line_num, "a column's name stands twice in the header")
            elif len(cells) != len(names):
                raise RowError(reader.line_num, f"{len(cells)} values, should be {len(names)}")
            else:
                yield reader.line_num, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise RowError(reader.line_num, str(error)) from None
