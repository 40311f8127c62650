"""Numbers of an answer that may lack anything, and how they are written in a page. Pure.

A page shows what there is: a missing, null, infinite or strange value is None here, and MISSING in a cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from streampipectl.render import MISSING

LARGE: Final = 1e300  # from here on sums of a few overflow


def part(value: Any, *names: str) -> Any:
    """What lies at `names`, or None.

    >>> part({"a": {"b": 1}}, "a", "b"), part({"a": None}, "a", "b")
    (1, None)
    """
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def number(value: Any, *names: str) -> float | None:
    """A number that one can calculate with, or None."""
    found = part(value, *names)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return found if abs(found) < LARGE else None  # NaN is not, nor is a whole number beyond all floats


def mapping(value: Any, *names: str) -> Mapping[str, Any]:
    found = part(value, *names)
    return found if isinstance(found, Mapping) else {}


def entries(value: Any, *names: str) -> list[Mapping[str, Any]]:
    """The mappings of a list."""
    found = part(value, *names)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list | tuple) else []


def word(value: Any, *names: str) -> str:
    found = part(value, *names)
    return MISSING if found is None else str(found)


UNITS: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def figure(value: float | None, digits: int = 4) -> str:
    """For a table or a tile.

    >>> figure(1234567), figure(0.000123456), figure(12.3456), figure(-2.5e9), figure(None)
    ('1,234,567', '0.0001235', '12.35', '-2.5e+09', '-')
    """
    if value is None:
        return MISSING
    if isinstance(value, int) and abs(value) < 10**15:
        return f"{value:,}"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        return f"{value:.{digits}g}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def tick(value: float) -> str:
    """At an axis, as short as it can be.

    >>> tick(250000), tick(0.25), tick(1e-7), tick(0), tick(1500)
    ('250k', '0.25', '1e-7', '0', '1.5k')
    """
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e15 or size < 1e-3:
        mantissa, exponent = f"{value:.3g}".split("e") if "e" in f"{value:.3g}" else (f"{value:.3g}", "")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    for unit, letter in UNITS:
        if size >= unit:
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"


def percent(share: float | None, digits: int = 1) -> str:
    """Of a share.

    >>> percent(0.8765), percent(-3.2), percent(None)
    ('87.7 %', '-320.0 %', '-')
    """
    return MISSING if share is None else f"{100 * share:.{digits}f} %"
