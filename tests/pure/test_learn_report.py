"""learn/report.py: results to text."""

from __future__ import annotations

from typing import Any

import pytest

from streampiped.learn.report import WIDTH, render, sentence, verdict_of

SCORES = {"rows": 200_000, "mse": 7.3, "rmse": 2.7018, "mae": 2.1, "r2": 0.70612}
EMPTY: dict[str, Any] = {"rows": 0, "mse": None, "rmse": None, "mae": None, "r2": None}


def results(mean: float | None, last: float | None, rows: int = 10_000, **more: Any) -> dict[str, Any]:
    skills = {"running_mean": mean, "last_value": last}
    return {
        "verdict": verdict_of(skills, rows),
        "rows": 200_000,
        "missing_target": 0,
        "unpredicted": 0,
        "total": SCORES,
        "last": {**SCORES, "rows": rows},
        "held_out": EMPTY,
        "baselines": {name: {"total": SCORES, "last": SCORES} for name in skills},
        "skill": {name: {"total": 0.5, "last": value} for name, value in skills.items()},
        **more,
    }


@pytest.mark.parametrize(
    ("mean", "last", "rows", "verdict", "begins"),
    [
        (0.7, 0.8, 10_000, "good", "Good: over the last 10,000 rows the squared error is 70.0 % below"),
        (
            0.7,
            -0.1,
            10_000,
            "not_better",
            "Not better than guessing: over the last 10,000 rows the model's R2 is 0.706",
        ),
        (0.0, 0.4, 10_000, "not_better", "Not better than guessing"),
        (None, None, 10_000, "not_better", "Not better than guessing"),
        (0.9, 0.9, 99, "not_enough_data", "Not enough data: 99 of at least 100 rows"),
    ],
)
def test_the_verdict_says_it_in_words(
    mean: float | None, last: float | None, rows: int, verdict: str, begins: str
) -> None:
    """Good is better than both guesses, over enough rows; the sentence says which."""
    assert results(mean, last, rows)["verdict"] == verdict
    assert sentence(results(mean, last, rows)).startswith(begins)


def test_the_guess_that_wins_is_named() -> None:
    """A model that only the last value beats is told so."""
    text = sentence(results(0.7, -0.1))
    assert "the last value is at least as good" in text
    assert "running mean" not in text


def test_a_report_fits_80_columns_and_lines_up() -> None:
    """No line is wider than a terminal, and the figures of the table end in the same columns."""
    check = {"epoch": 12, "rows": 512, "served": SCORES, "in_band": SCORES, "error": None}
    text = render(results(-12.5, -880.0, missing_target=12, unpredicted=3), {"crosscheck": check})
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    table = lines[lines.index("") + 1 :]
    assert len({len(line) for line in table[: table.index("")]}) == 1
    assert "12 rows without a finite target" in text
    assert "epoch 12" in text


def test_a_report_of_nothing_is_a_report() -> None:
    """With no row scored yet every figure is a dash."""
    nothing = results(None, None, 0) | {"total": EMPTY, "last": EMPTY}
    nothing["skill"] = {name: {"total": None, "last": None} for name in nothing["skill"]}
    nothing["baselines"] = {name: {"total": EMPTY, "last": EMPTY} for name in nothing["baselines"]}
    text = render(nothing, {})
    assert text.startswith("Not enough data: 0 of at least 100")
    assert "None" not in text


def test_an_unanswered_cross_check_says_why() -> None:
    """The error of the last question stands in the report."""
    assert "no such socket" in render(results(0.5, 0.5), {"crosscheck": {"error": "no such socket"}})
