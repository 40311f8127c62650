"""The evaluator's results for people: a verdict in one sentence, then an aligned table. Pure text, 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

WIDTH: Final = 80  # characters; what every terminal and every mail shows unbroken
ENOUGH_ROWS: Final = 100  # below, R2 moves by more than the differences that it should tell
GUESSES: Final = {"running_mean": "the running mean", "last_value": "the last value"}
COLUMNS: Final = ("rows", "mse", "rmse", "mae", "r2")


def verdict_of(skills: Mapping[str, float | None], rows: int) -> str:
    """ "good", "not_better" than one of the guesses, or "not_enough_data"."""
    if rows < ENOUGH_ROWS:
        return "not_enough_data"
    return "good" if all(skill is not None and skill > 0 for skill in skills.values()) else "not_better"


def render(results: Mapping[str, Any], operations: Mapping[str, Any]) -> str:
    """The report. `results` and `operations` are those of the evaluator's `report` query."""
    lines = [*_wrapped(sentence(results)), ""]
    lines += _scores_table(results)
    lines += ["", *_skill_table(results)]
    if notes := _notes(results) + _crosscheck(operations.get("crosscheck") or {}):
        lines += ["", *notes]
    return "\n".join(lines) + "\n"


def sentence(results: Mapping[str, Any]) -> str:
    """The verdict in words."""
    last = results["last"]
    rows, skills = last["rows"], {name: both["last"] for name, both in results["skill"].items()}
    if results["verdict"] == "not_enough_data":
        return f"Not enough data: {rows:,} of at least {ENOUGH_ROWS} rows could be scored so far."
    over = "all" if rows == results["total"]["rows"] else "the last"
    if results["verdict"] == "good":
        below = " and ".join(f"{_percent(skills[name])} below guessing {GUESSES[name]}" for name in GUESSES)
        return f"Good: over {over} {rows:,} rows the squared error is {below} (R2 {_cell(last['r2'])})."
    better = [GUESSES[name] for name in GUESSES if not (skills[name] or 0.0) > 0]
    return (
        f"Not better than guessing: over {over} {rows:,} rows the model's R2 is {_cell(last['r2'])}, and guessing "
        f"{' or '.join(better)} is at least as good."
    )


def _scores_table(results: Mapping[str, Any]) -> list[str]:
    recent = f"last {results['last']['rows']:,}"
    rows = {"model, all rows": results["total"], f"model, {recent}": results["last"]}
    rows["model, held-out rows"] = results["held_out"]
    for name, label in GUESSES.items():
        short = label.removeprefix("the ")
        rows[f"{short}, all rows"] = results["baselines"][name]["total"]
        rows[f"{short}, {recent}"] = results["baselines"][name]["last"]
    wide = max(map(len, rows))
    table = [" " * wide + "".join(f"{name.upper() if name != 'rows' else name:>11}" for name in COLUMNS)]
    table += [
        f"{label:<{wide}}" + "".join(f"{_cell(scores[c]):>11}" for c in COLUMNS) for label, scores in rows.items()
    ]
    return table


def _skill_table(results: Mapping[str, Any]) -> list[str]:
    recent = f"last {results['last']['rows']:,}"
    head = "skill: share of a guess's squared error avoided"
    lines = [f"{head:<50}{'all rows':>12}{recent:>16}"]
    for name, label in GUESSES.items():
        skills = results["skill"][name]
        lines.append(f"{'  against ' + label:<50}{_percent(skills['total']):>12}{_percent(skills['last']):>16}")
    return lines


def _notes(results: Mapping[str, Any]) -> list[str]:
    kinds = {"missing_target": "without a finite target", "unpredicted": "without a finite prediction"}
    return [f"{results[kind]:,} rows {words} were not scored." for kind, words in kinds.items() if results[kind]]


def _crosscheck(check: Mapping[str, Any]) -> list[str]:
    served = check.get("served")
    if not served:
        return _wrapped(f"Cross-check through the trainer's API: {check['error']}.") if check.get("error") else []
    text = (
        f"Cross-check through the trainer's API, epoch {check['epoch']}: MSE {_cell(served['mse'])} on "
        f"{check['rows']:,} held-out rows, {_cell(check['in_band']['mse'])} in band."
    )
    return _wrapped(text)


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _wrapped(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines
