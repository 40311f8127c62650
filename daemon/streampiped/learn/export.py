"""A model as plain numbers for use elsewhere: no numpy, no pickle. docs/components/trainer.md has the formula."""

from __future__ import annotations

from typing import Any

import numpy as np

from streampiped.learn.model import OnlineModel
from streampiped.learn.portable import to_plain


def export(model: OnlineModel, columns: int) -> dict[str, Any]:
    """format, the target's scaling, and either the coefficients of a linear model (`streampipe-linear/1`) or all that
    the estimator has learned (`streampipe-estimator/1`; arrays as dtype, shape and little-endian bytes)."""
    common = {
        "estimator": model.recipe.path,
        "target_mean": model.mean,
        "target_deviation": model.spread,
        "scale_target": model.scale_target,
        "limit": model.limit,
        "rows_learned": model.rows,
    }
    learned = vars(model.estimator)
    coefficients, intercept = learned.get("coef_"), learned.get("intercept_")
    if isinstance(coefficients, np.ndarray) and coefficients.shape == (columns,) and intercept is not None:
        linear = {"coefficients": coefficients.tolist(), "intercept": float(np.ravel(intercept)[0])}
        return {"format": "streampipe-linear/1", **common, **linear}
    state = to_plain(model.recipe.freeze(model.estimator))
    return {"format": "streampipe-estimator/1", **common, "params": model.recipe.params, "state": state}
