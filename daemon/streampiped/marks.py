"""What the gate says of a row, in band: a bit set per row in the int64 column `marks`.

A batch without that column came by no gate; then only a target that is not finite is bad.
"""

from __future__ import annotations

from typing import Final

MARKS: Final = "marks"
"""Name of the column."""

QUARANTINED: Final = 1
"""The label is bad: never learned, never scored. Its value is left as it came."""
IMPUTED: Final = 2
"""A feature was missing or infinite, and has been replaced."""
BOUNDED: Final = 4
"""A feature was brought to the bounds of what is believed."""
REBASED: Final = 8
"""From this row on a feature is scaled anew: a shift has lasted."""
LABEL_REBASED: Final = 16
"""Behind this row another level of the label is believed, which its own label, quarantined like those before it that
told of it, is the first of."""
