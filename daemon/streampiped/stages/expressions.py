"""Small safe expressions over columns, compiled to numpy: `log1p(abs(x1)) / clip(x2, 1, 10)`.

The text is parsed by `ast` and only listed nodes become functions; nothing of it is ever evaluated as Python. All
arithmetic is float64 and elementwise, so a value depends on its row alone, and division by zero or the logarithm of a
negative number is infinite or NaN, as in numpy, and no error.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from streampiped.errors import OptionError
from streampiped.records import Array, Batch

CHARS_MAX: Final = 1000  # of one expression; people write a line
NODES_MAX: Final = 200  # of its syntax tree; bounds the depth of the recursion below

Columns: TypeAlias = Mapping[str, Array]
Value: TypeAlias = Any  # an array of the batch's rows, or a number
Compiled: TypeAlias = Callable[[Columns], Value]

OPERATORS: Final[Mapping[type[ast.AST], Callable[..., Value]]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.UAdd: np.positive,
    ast.USub: np.negative,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}

FUNCTIONS: Final[Mapping[str, tuple[Callable[..., Value], int, int]]] = {
    # name: (function, arguments at least, at most)
    "abs": (np.abs, 1, 1),
    "log1p": (np.log1p, 1, 1),
    "sqrt": (np.sqrt, 1, 1),
    "exp": (np.exp, 1, 1),
    "min": (lambda *values: _fold(np.minimum, values), 2, 16),
    "max": (lambda *values: _fold(np.maximum, values), 2, 16),
    "clip": (lambda value, low, high: np.minimum(np.maximum(value, low), high), 3, 3),
    "where": (lambda condition, yes, no: np.where(np.not_equal(condition, 0), yes, no), 3, 3),
}


class Expression:
    """One expression. Raises OptionError that names it and the place when it cannot be compiled.

    >>> Expression("ratio", "where(b > 0, a / b, 0)").evaluate(Batch.build({"a": [6.0, 1.0], "b": [3.0, 0.0]})).tolist()
    [2.0, 0.0]
    """

    def __init__(self, name: str, text: str) -> None:
        """`name` is the option it stands in, for messages."""
        self.name = name
        self.text = text
        self._wanted: dict[str, None] = {}
        self._compiled = self._compile(self._parse())

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it reads."""
        return tuple(self._wanted)

    def evaluate(self, batch: Batch) -> Array:
        """A value per row, float64. Raises OptionError when the batch has not the columns, or they are text."""
        columns = {}
        for column in self._wanted:
            if column not in batch or column in batch.texts:
                kind = "text" if column in batch else "not there"
                numeric = ", ".join(batch.schema.floats + batch.schema.ints)
                raise OptionError(f"{self.name}: column {column!r} is {kind}; columns with numbers are {numeric}")
            columns[column] = batch[column].astype(np.float64, copy=False)
        with np.errstate(all="ignore"):
            value = self._compiled(columns)
        return np.broadcast_to(np.asarray(value, dtype=np.float64), (batch.rows,))

    def _parse(self) -> ast.expr:
        if len(self.text) > CHARS_MAX:
            raise OptionError(f"{self.name}: an expression has at most {CHARS_MAX} characters, not {len(self.text)}")
        try:
            tree = ast.parse(self.text.strip(), mode="eval").body
        except SyntaxError as error:
            place = error.offset or len(self.text) + 1  # 0 when the text ends too early
            raise OptionError(f"{self._at(place)}: {error.msg}") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise OptionError(f"{self.name}: cannot be read: {error or 'nested too deeply'}") from error
        if sum(1 for _ in ast.walk(tree)) > NODES_MAX:
            raise OptionError(f"{self.name}: too long; derive parts of it under names of their own")
        return tree

    def _compile(self, node: ast.expr) -> Compiled:
        match node:
            case ast.Constant(value=bool()):
                raise self._refusal(node, "should be a number")
            case ast.Constant(value=int() | float() as number):
                constant = self._number(node, number)
                return lambda columns: constant
            case ast.Name(id=column):
                self._wanted[column] = None
                return lambda columns: columns[column]
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
                return _apply(OPERATORS[type(op)], [self._compile(operand)])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return _apply(OPERATORS[type(op)], [self._compile(left), self._compile(right)])
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in OPERATORS:
                return _apply(OPERATORS[type(op)], [self._compile(left), self._compile(right)])
            case ast.Call(func=ast.Name(id=name), keywords=[]):
                return self._compile_call(node, name)
        raise self._refusal(node, "is not one of: numbers, columns, + - * / **, a single comparison, calls")

    def _compile_call(self, node: ast.Call, name: str) -> Compiled:
        if name == "column":  # for names that are no identifier: column("flow rate")
            match node.args:
                case [ast.Constant(value=str() as column)]:
                    self._wanted[column] = None
                    return lambda columns: columns[column]
            raise self._refusal(node, 'should be column("name")')
        if name not in FUNCTIONS:
            raise self._refusal(node, f"is no known function; there are {', '.join(FUNCTIONS)} and column")
        function, least, most = FUNCTIONS[name]
        if not least <= len(node.args) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise self._refusal(node, f"has {len(node.args)} arguments, should have {wanted}")
        return _apply(function, [self._compile(argument) for argument in node.args])

    def _number(self, node: ast.expr, number: float) -> float:
        try:
            return float(number)
        except OverflowError as error:
            raise self._refusal(node, "is too large") from error

    def _refusal(self, node: ast.expr, reason: str) -> OptionError:
        part = ast.get_source_segment(self.text.strip(), node) or "it"
        return OptionError(f"{self._at(node.col_offset + 1)}: {part!r} {reason}")

    def _at(self, place: int) -> str:
        return f"{self.name}: {self.text!r}, character {place}"


def _apply(function: Callable[..., Value], arguments: list[Compiled]) -> Compiled:
    if len(arguments) == 1:
        only = arguments[0]
        return lambda columns: function(only(columns))
    return lambda columns: function(*(argument(columns) for argument in arguments))


def _fold(function: Callable[[Value, Value], Value], values: tuple[Value, ...]) -> Value:
    result = values[0]
    for value in values[1:]:
        result = function(result, value)
    return result
