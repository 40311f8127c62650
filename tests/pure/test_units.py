"""Durations, sizes and rates are read as people write them, and nothing else is."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from streampiped.units import BYTES, SECONDS, Duration, Rate, Size, parse_duration, parse_rate, parse_size

RIGHT: list[tuple[Callable[[Any], float], Any, float]] = [
    (parse_duration, "500ms", 0.5),
    (parse_duration, "1.5s", 1.5),
    (parse_duration, " 2 m ", 120.0),
    (parse_duration, "2min", 120.0),
    (parse_duration, "1h", 3600.0),
    (parse_duration, "7d", 604800.0),
    (parse_duration, "250us", 250e-6),
    (parse_duration, ".5s", 0.5),
    (parse_duration, 0, 0.0),
    (parse_size, "64MiB", 64 << 20),
    (parse_size, "10kB", 10_000),
    (parse_size, "512B", 512),
    (parse_size, "1.5KiB", 1536),
    (parse_size, 0, 0),
    (parse_rate, "100/s", 100.0),
    (parse_rate, "10k/s", 10_000.0),
    (parse_rate, "1.5M/s", 1.5e6),
    (parse_rate, 0, 0.0),
]
WRONG: list[Any] = [
    "",
    "5",
    5,
    0.5,
    "-1s",
    "s",
    "1 s s",
    "1e3s",
    "1,5s",
    "5 parsec",
    "nan",
    None,
    True,
    False,
    [],
]


@pytest.mark.parametrize(("parse", "text", "value"), RIGHT)
def test_reads(parse: Callable[[Any], float], text: Any, value: float) -> None:
    """What people write means what they mean."""
    assert parse(text) == value


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_rate])
@pytest.mark.parametrize("text", WRONG, ids=repr)
def test_refuses(parse: Callable[[Any], float], text: Any) -> None:
    """A number without a unit, another unit, a sign or a switch is refused with examples of what is right."""
    with pytest.raises(ValueError, match=r'should be a .* "'):
        parse(text)


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_rate])
def test_units_do_not_mix(parse: Callable[[Any], float]) -> None:
    """Of a duration, a size and a rate each parser takes its own only."""
    taken = []
    for text in ("1s", "1B", "1/s"):
        try:
            taken.append(parse(text))
        except ValueError:
            continue
    assert taken == [1]


@given(st.decimals(0, 10**6, places=3), st.sampled_from(sorted(SECONDS)))
def test_any_number_of_any_duration(number: Any, unit: str) -> None:
    """A duration is its number times its unit."""
    assert math.isclose(parse_duration(f"{number}{unit}"), float(number) * SECONDS[unit])


@given(st.integers(0, 10**6), st.sampled_from(sorted(BYTES)))
def test_any_number_of_any_size(number: int, unit: str) -> None:
    """A whole number of a unit is exactly that many bytes."""
    assert parse_size(f"{number}{unit}") == number * BYTES[unit]


class _Options(BaseModel):
    wait: Duration = 1.0
    room: Size = 1
    rate: Rate = 0.0


def test_as_option_types() -> None:
    """Models take the written form, keep plain numbers, and name the wrong key."""
    options = _Options.model_validate({"wait": "2s", "room": "1KiB", "rate": "3/s"})
    assert (options.wait, options.room, options.rate) == (2.0, 1024, 3.0)
    with pytest.raises(ValidationError, match="wait"):
        _Options.model_validate({"wait": 2})
