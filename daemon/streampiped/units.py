"""Durations, sizes and rates as people write them, as pydantic types.

>>> parse_duration("500ms"), parse_duration("2m"), parse_size("64MiB"), parse_rate("10k/s")
(0.5, 120.0, 67108864, 10000.0)
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
BYTES: Final = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9,
    "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
}  # fmt: skip
FACTORS: Final = {"": 1.0, "k": 1e3, "M": 1e6}

_QUANTITY = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-z/]*)\s*")


def parse_duration(value: Any) -> float:
    """Seconds from "500ms", "1.5s", "2m", "1h", "7d"; a bare 0 is allowed, another bare number is not."""
    return _parse(value, SECONDS, 'a duration with a unit, such as "500ms", "10s" or "2m"')


def parse_size(value: Any) -> int:
    """Bytes from "64MiB", "10kB", "512B"; a bare 0 is allowed, another bare number is not."""
    return int(_parse(value, BYTES, 'a size with a unit, such as "64MiB" or "512kB"'))


def parse_rate(value: Any) -> float:
    """Records/s from "10/s", "10k/s", "1.5M/s"; 0 means no limit."""
    factors = {f"{prefix}/s": factor for prefix, factor in FACTORS.items()}
    return _parse(value, factors, 'a rate such as "100/s", "10k/s" or "1.5M/s"; 0 means no limit')


def _parse(value: Any, units: dict[str, Any], wanted: str) -> float:
    if value == 0 and not isinstance(value, bool):
        return 0.0
    match = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if match is None or match[2] not in units:
        raise ValueError(f"should be {wanted}")
    return float(match[1]) * float(units[match[2]])


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
"""Seconds."""
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
"""Bytes."""
Rate = Annotated[float, BeforeValidator(parse_rate), Field(ge=0)]
"""Records per second; 0 means no limit."""
