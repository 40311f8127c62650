"""Do predictions mean what they say? Predicted against actual, in bins of equally many predictions."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from streampiped.records import Array

BINS: Final = 20


def bins_of(predicted: Array, actual: Array, bins: int = BINS) -> list[dict[str, Any]]:
    """At most `bins` bins between quantiles of the predictions: `low` <= prediction < `high` (the last one <=), how
    many `rows`, and the means of what was `predicted` and what was `actual`. Equal predictions share a bin.

    >>> bins_of(np.array([1.0, 1.0, 5.0]), np.array([0.0, 2.0, 6.0]), bins=2)[0]
    {'low': 1.0, 'high': 5.0, 'rows': 3, 'predicted': 2.3333333333333335, 'actual': 2.6666666666666665}
    """
    if len(predicted) == 0:
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        edges = np.unique(np.quantile(predicted, np.linspace(0.0, 1.0, bins + 1)))
        last = max(len(edges) - 2, 0)
        place = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, last)
        rows = np.bincount(place, minlength=last + 1)
        sums = [np.bincount(place, weights=values, minlength=last + 1) for values in (predicted, actual)]
    result = []
    for number in np.flatnonzero(rows).tolist():
        means = [float(values[number] / rows[number]) for values in sums]
        if all(map(np.isfinite, means)):
            low, high = float(edges[number]), float(edges[min(number + 1, len(edges) - 1)])
            named = {"predicted": means[0], "actual": means[1]}
            result.append({"low": low, "high": high, "rows": int(rows[number]), **named})
    return result
