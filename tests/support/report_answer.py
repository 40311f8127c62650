"""An answer to `report` with everything that its schema has: a model that learns, a drift, defects, a kill."""

from __future__ import annotations

import math
import random
from typing import Any

BINS = 100
WIDTH = 1000
"""Rows of a bin."""
DRIFT_ROW = 40_300
HOSTILE = '<script>alert("x")</script>'
MEMBERS = (
    ("running_mean", "mean", True, 21.4),
    ("discounted_mean", "mean", True, 20.9),
    ("last_value", "last", True, 39.8),
    ("sgd", "SGDRegressor", False, 2.41),
    ("ridge_0.999", "ridge", False, 1.37),
    ("ridge_0.99_squares", "ridge, squares and products", False, 1.06),
    ("lagged_ridge", "ridge, lagged", False, 2.2),
)
COLUMNS: dict[str, dict[str, Any]] = {
    "x0": {"missing": 812, "imputed": 812},
    "x1": {"infinite": 14, "imputed": 14, "bounded": 95},
    "x2": {"bounded": 31, "rebased": 1},
    "x3": {"state": "dead", "missing": 2230, "imputed": 2230},
    "x4": {"state": "constant"},
    "x5": {},
}


def answer(hostile: bool = False) -> dict[str, Any]:
    """`hostile`: with names that would be markup, and words without end."""
    report: dict[str, Any] = {"text": "Good.", "results": _results(), "operations": _operations()}
    if hostile:
        report["results"]["gate"]["columns"][HOSTILE] = _column("x9", {"missing": 3})
        report["results"]["gate"]["columns"]["w" * 300] = _column("x9", {})
        report["results"]["gate"]["label"]["name"] = HOSTILE
        report["results"]["model"]["members"].append(_member(HOSTILE + "'&", "</title>", False, 1.0))
        report["results"]["model"]["timeline"][-1] |= {"member": HOSTILE + "'&", "reason": "</svg></table>"}
        report["operations"]["restarts"]["</dd>" + HOSTILE] = 1
        report["operations"]["log"]["restarts"][0]["reason"] = HOSTILE * 40
        report["operations"]["processes"]["history"][HOSTILE] = [[1_700_000_000.0, 1.0, 2.0, 3.0]]
        report["operations"][HOSTILE] = {HOSTILE: HOSTILE}
    return report


def _scores(rows: int, mse: float, variance: float = 24.0) -> dict[str, Any]:
    return {"rows": rows, "mse": mse, "rmse": math.sqrt(mse), "mae": 0.8 * math.sqrt(mse), "r2": 1 - mse / variance}


def _results() -> dict[str, Any]:
    luck = random.Random(5)
    rows = BINS * WIDTH
    return {
        "schema": "streampipe-report/2",
        "verdict": "good",
        "task": "regression",
        "rows": rows,
        "scored": rows - 120,
        "missing_target": 75,
        "unlabelled": 0,
        "quarantined": 45,
        "unpredicted": 0,
        "model_version": 412,
        "total": _scores(rows - 120, 2.31),
        "last": {**_scores(1000, 1.04), "window": 1000},
        "recent": _scores(rows - 120, 1.06),
        "held_out": _scores(4981, 2.35),
        "learned": _scores(94_899, 2.309),
        "warm_up": _scores(500, 17.2),
        "after_warm_up": _scores(99_380, 2.23),
        "generation": {**_scores(59_640, 1.98), "since_row": DRIFT_ROW},
        "gap": {"mse_held_out": 2.35, "mse_learned": 2.309, "ratio": 1.018},
        "baselines": {
            name: {"total": _scores(rows, mse), "last": _scores(1000, mse * 1.01), "after_warm_up": _scores(rows, mse)}
            for name, mse in (("running_mean", 24.1), ("last_value", 47.6), ("discounted_mean", 24.5))
        },
        "skill": {
            "running_mean": {"total": 0.904, "last": 0.957, "low": 0.951, "high": 0.962, "p": 1e-80},
            "last_value": {"total": 0.951, "last": 0.978, "low": 0.974, "high": 0.982, "p": 1e-90},
            "discounted_mean": {"total": 0.906, "last": 0.958, "low": 0.95, "high": 0.963, "p": 1e-81},
        },
        "coverage": {"target": 0.9, "rows": rows - 120, "total": 0.899, "last": 0.904, "width": 3.36},
        "curve": {"rows_per_bin": WIDTH, "bins": [_bin(place, luck) for place in range(BINS)]},
        "calibration": [_calibrated(4 + 1.1 * place, luck) for place in range(20)],
        "sample": [_sampled(luck) for _ in range(256)],
        "model": _model(),
        "gate": {
            "rows": rows,
            "rows_dropped": 0,
            "columns": {name: _column(name, about) for name, about in COLUMNS.items()},
            "label": {
                "name": "y",
                "quarantined_missing": 41,
                "quarantined_spike": 4,
                "rebased": 1,
                "mean": 14.4,
                "deviation": 4.9,
            },
        },
    }


def _bin(place: int, luck: random.Random) -> dict[str, Any]:
    since = place if place < 40 else place - 40
    error = (1.0 + 16 * math.exp(-since / (1.2 if place < 40 else 2.2))) * luck.uniform(0.93, 1.07)
    held = 0.9 + luck.gauss(0, 0.009) - (0.17 if place == 40 else 0.0)
    return {
        "from": place * WIDTH,
        "rows": WIDTH if place != 7 else 880,
        "mse": error,
        "running_mean": 24 * luck.uniform(0.94, 1.06) + (6 if place == 40 else 0),
        "last_value": 47 * luck.uniform(0.94, 1.06),
        "covered": held,
    }


def _calibrated(predicted: float, luck: random.Random) -> dict[str, Any]:
    return {
        "low": predicted - 0.5,
        "high": predicted + 0.5,
        "rows": 250,
        "predicted": predicted,
        "actual": predicted + luck.gauss(0, 0.18),
    }


def _sampled(luck: random.Random) -> list[float]:
    predicted = luck.gauss(14.4, 4.8)
    return [predicted, predicted + luck.gauss(0, 1.02), predicted - 1.68, predicted + 1.68]


def _member(name: str, kind: str, trivial: bool, loss: float) -> dict[str, Any]:
    about = {"name": name, "kind": kind, "trivial": trivial, "loss": loss}
    return {**about, "rows": 94_899, "rollbacks": int(name == "sgd"), "resets": 1}


def _model() -> dict[str, Any]:
    spans = [
        (0, 180, "running_mean", "nothing beats it yet"),
        (180, 2_600, "sgd", "beats running_mean by 2 sigma"),
        (2_600, 40_380, "ridge_0.999", "beats sgd by 2 sigma"),
        (40_380, 41_900, "discounted_mean", "falls back: nothing beats it after the drift"),
        (41_900, None, "ridge_0.99_squares", "beats discounted_mean by 2 sigma"),
    ]
    return {
        "champion": "ridge_0.99_squares",
        "fallback": False,
        "generation": 2,
        "rows_seen": BINS * WIDTH,
        "rows_learned": 94_899,
        "members": [_member(*each) for each in MEMBERS],
        "timeline": [{"from": begin, "to": end, "member": name, "reason": why} for begin, end, name, why in spans],
        "drifts": [
            {"row": DRIFT_ROW, "kind": "drift", "member": "ridge_0.999"},
            {"row": 71_000, "kind": "shift", "member": "x2"},
            {"row": 86_500, "kind": "label_shift", "member": "y"},
        ],
        "drift_count": 3,
        "interval": {"target": 0.9, "coverage": 0.899},
        "counts": {"held_out": 4981, "missing_target": 75, "quarantined": 45, "imputed": 3056, "fallbacks": 2},
        "pending": None,
    }


def _column(name: str, about: dict[str, Any]) -> dict[str, Any]:
    nothing = dict.fromkeys(("missing", "infinite", "imputed", "bounded", "rebased"), 0)
    place = int(name[1:])
    return {"state": "live", "seen": BINS * WIDTH, **nothing, "mean": 0.5 + place / 7, "deviation": 0.288, **about}


def _operations() -> dict[str, Any]:
    luck = random.Random(7)
    names = ("supervisor", "launcher", "generator", "normalizer", "consumer", "trainer", "evaluator", "log_extractor",
             "service_monitor")  # fmt: skip
    heavy = {"trainer": 46.0, "consumer": 21.0, "evaluator": 14.0, "normalizer": 9.0, "generator": 12.0}
    began, until = 1_700_000_000.0, 1_700_003_600.0
    history = {
        name: [
            [began + 30 * step, max(0.0, luck.gauss(heavy.get(name, 0.8), 0.1 * heavy.get(name, 1.0))),
             104e6 + luck.gauss(0, 2e5), (8e6 if name not in heavy else 13e6) + 3e4 * step]
            for step in range(120)
        ]
        for name in names
    }  # fmt: skip
    restarts = [{"stage": "trainer", "reason": "killed by SIGKILL", "count": 2, "last_seen": 1_700_002_000.0}]
    return {
        "generation": 3,
        "epoch": 3581,
        "uptime": 3600.0,
        "restarts": {name: 2 * (name == "trainer") for name in names if name not in ("supervisor", "launcher")},
        "log_drops": {"written": 420, "dropped": 0},
        "log": {
            "events": 420,
            "since": began,
            "levels": {"info": 380, "warning": 36, "error": 4},
            "restarts": restarts,
            "bursts": 0,
            "slow_epochs": 2,
            "drops": {},
            "garbage": 0,
            "gaps": 0,
        },
        "processes": {"since": began, "until": until, "history": history},
        "crosscheck": {
            "asked": 3580, "answered": 3579, "error": None, "epoch": 3580, "rows": 256, "served": {"mse": 1.02},
            "in_band": {"mse": 1.03}, "mse_difference": -0.01,
        },
        "model": {"fits": 3, "budget": {"cpu_seconds": 12.4}},
    }  # fmt: skip
