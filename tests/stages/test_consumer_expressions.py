"""The language of derived columns: what it computes, and that nothing else gets in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from streampiped.errors import OptionError
from streampiped.records import Batch
from streampiped.stages.expressions import CHARS_MAX, Expression

A = np.array([-2.0, 0.0, 0.5, 3.0, np.nan, np.inf])
B = np.array([4.0, 0.0, -1.0, 2.0, 1.0, 1.0])
BATCH = Batch.build({"a": A, "b": B, "n": np.arange(6), "odd name": B, "t": ["w"] * 6})


with np.errstate(all="ignore"):
    VALUES: list[tuple[str, Any]] = [
        ("a", A),
        ("a + b * 2 - -b / 4", A + B * 2 - -B / 4),
        ("a ** 2 + 2 ** b", A**2 + 2.0**B),
        ("b ** 0.5", B**0.5),
        ("a / b", A / B),
        ("n / 2", np.arange(6) / 2),
        ("abs(a)", np.abs(A)),
        ("log1p(a)", np.log1p(A)),
        ("sqrt(a)", np.sqrt(A)),
        ("exp(+b)", np.exp(B)),
        ("min(a, b, 1)", np.minimum(np.minimum(A, B), 1)),
        ("max(a, b)", np.maximum(A, B)),
        ("clip(a, 0, 1)", np.clip(A, 0, 1)),
        ("where(a >= b, a, 0)", np.where(A >= B, A, 0)),
        ("where(b, 1, 2)", np.where(B != 0, 1.0, 2.0)),
        ("(a < 0) + (a == 0.5) * 2 + (a != a) * 4", np.array([1, 0, 2, 0, 4, 0.0])),
        ('column("odd name") + 1', B + 1),
        ("1e3", np.full(6, 1000.0)),
        ("  a  ", A),
    ]


@pytest.mark.parametrize(("text", "expected"), VALUES)
def test_values_are_numpys(text: str, expected: Any) -> None:
    """Every operator and function gives what numpy gives, as float64, to the bit."""
    found = Expression("derived.z", text).evaluate(BATCH)
    assert found.dtype == np.float64
    assert found.tobytes() == np.asarray(expected, dtype=np.float64).tobytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a +", "derived.z: 'a \\+', character 4: invalid syntax"),
        ("foo(a)", "character 1: 'foo\\(a\\)' is no known function; there are abs, log1p"),
        ("1 + clip(a)", "character 5: 'clip\\(a\\)' has 1 arguments, should have 3"),
        ("min(a)", "should have 2 to 16"),
        ("a.b", "character 1: 'a.b' is not one of"),
        ("a[0]", "'a\\[0\\]' is not one of"),
        ("'text'", "is not one of"),
        ("True", "should be a number"),
        ("1j", "is not one of"),
        ("a if b else 1", "is not one of"),
        ("lambda: 1", "is not one of"),
        ("[x for x in a]", "is not one of"),
        ("a and b", "is not one of"),
        ("0 < a < 1", "is not one of"),
        ("a % 2", "is not one of"),
        ("a // 2", "is not one of"),
        ("~n", "is not one of"),
        ("__import__('os').system('true')", "is not one of"),
        ("abs(x=1)", "is not one of"),
        ("abs(*a)", "is not one of"),
        ("column(a)", 'should be column\\("name"\\)'),
        ("10 ** 400" + "0" * 400, "too large"),
        ("x := 1", "invalid syntax"),
        ("a; b", "invalid syntax"),
        ("", "invalid syntax"),
        ("a\0b", "null"),
        ("(" * 300 + "a" + ")" * 300, "derived.z"),
        ("-" * 900 + "a", "derived.z"),
        ("a" + "+a" * 120, "too long; derive parts"),
        ("a" * (CHARS_MAX + 1), f"at most {CHARS_MAX} characters"),
    ],
)
def test_anything_else_is_refused_with_its_place(text: str, message: str) -> None:
    """What is not of the language is an error at construction that names option, expression and place."""
    with pytest.raises(OptionError, match=message) as caught:
        Expression("derived.z", text)
    assert str(caught.value).startswith("derived.z: ")


@pytest.mark.parametrize(("text", "kind"), [("a + zz", "'zz' is not there"), ("t * 2", "'t' is text")])
def test_columns_that_are_not_there_are_told(text: str, kind: str) -> None:
    """A column that the batch lacks, or that is text, is named together with those there are."""
    with pytest.raises(OptionError, match=f"derived.z: column {kind}; columns with numbers are a, b, odd name, n"):
        Expression("derived.z", text).evaluate(BATCH)
