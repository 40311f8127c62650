"""The half of the page that follows from the records alone: verdict, key figures, tables, charts. Pure.

Every section is a function from the results to its body, or None where the answer lacks it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from streampipectl import html_charts
from streampipectl.figures import entries, figure, mapping, number, part, percent, word
from streampipectl.markup import Html, details, facts, joined, named, table, tag

GUESSES: Final = {
    "running_mean": "the running mean",
    "last_value": "the last value",
    "discounted_mean": "the discounted mean",
    "class_prior": "the class prior",
    "last_class": "the last class",
}
SCORES: Final = {
    "mse": "MSE", "rmse": "RMSE", "mae": "MAE", "r2": "R²",
    "accuracy": "accuracy", "log_loss": "log loss", "roc_auc": "ROC AUC", "f1": "F1",
}  # fmt: skip
SPANS: Final = {
    "total": "model, all rows",
    "after_warm_up": "model, after warm-up",
    "warm_up": "model, warm-up",
    "last": "model, last rows",
    "recent": "model, recent rows, weighted",
    "generation": "model, this generation",
    "held_out": "model, held-out rows",
    "learned": "model, learned rows",
    "blind": "model, before any label",
}
VERDICTS: Final = {
    "good": ("better than guessing", "M2 7.5L5.5 11L12 3.5"),
    "not_better": ("not better than guessing", "M3 3L11 11M11 3L3 11"),
    "not_enough_data": ("not enough data", "M2 7H12"),
}
SHARES: Final = {
    "squared_error": "Share of the squared error of guessing that the model avoids",
    "log_loss": "Share of the log-loss of guessing that the model avoids",
    "errors": "Share of the wrong answers of guessing that the model avoids",
}
DEFECTS: Final = ("missing", "infinite", "imputed", "bounded", "rebased")
LONG: Final = 11  # letters of a tile's value, from which it is written smaller
COLUMNS_SHOWN: Final = 30  # of the gate's columns, those with most defects first; the rest is a click away
COUNTS: Final = {
    "rows": "rows", "scored": "scored", "missing_target": "without a finite label",
    "unlabelled": "questions, labelled later or never", "quarantined": "label quarantined",
    "unpredicted": "without a prediction", "model_version": "model version",
}  # fmt: skip


def verdict(results: Mapping[str, Any]) -> str:
    """In one sentence, as the evaluator's text has it."""
    last, skills = mapping(results, "last"), mapping(results, "skill")
    rows = number(last, "rows")
    match part(results, "verdict"):
        case "not_enough_data" if results.get("constant") is not None:
            return f"Not enough data: over the last {figure(rows)} rows neither label nor prediction changed."
        case "not_enough_data":
            return f"Not enough data: {figure(rows or 0)} rows could be scored so far."
        case "good":
            known = {name: share for name, each in skills.items() if (share := number(each, "last")) is not None}
            best = min(known, key=lambda name: known[name], default=None)
            if best is None:
                return f"Good: over the last {figure(rows)} rows the error is below that of guessing."
            below = f"{percent(known[best])} below that of the best guess, {_guess(best)}"
            loss = "log-loss" if word(results, "judged_by") == "log_loss" else "error"
            return f"Good: over the last {figure(rows)} rows the {loss} is {below}."
        case "not_better":
            better = [_guess(name) for name, each in skills.items() if (number(each, "last") or 0.0) <= 0]
            if not better and part(results, "model", "fallback") is True:
                return f"Not better than guessing: a guess, {part(results, 'model', 'champion')}, is what is served."
            worse = f"guessing {' or '.join(better)} is at least as good" if better else "the difference may be chance"
            return f"Not better than guessing: over the last {figure(rows)} rows {worse}."
    return "The report has no verdict."


def badge(results: Mapping[str, Any]) -> Html | None:
    """The verdict as a word with a sign, which colour only repeats."""
    kind = word(results, "verdict")
    if kind not in VERDICTS:
        return None
    text, path = VERDICTS[kind]
    sign = tag("path", d=path, stroke="currentColor", stroke_width="2.4", stroke_linecap="round")
    return tag("p", tag("svg", sign, viewBox="0 0 14 14", aria_hidden="true"), text, class_=f"verdict {kind}")


def tiles(results: Mapping[str, Any]) -> Html | None:
    """The key figures, as far as there are any."""
    last, cover, gap = (mapping(results, name) for name in ("last", "coverage", "gap"))
    over = f"last {figure(number(last, 'rows'))} rows"
    found = [
        _tile(SCORES[n], figure(number(last, n)), over)
        for n in ("r2", "rmse", "accuracy", "f1")
        if number(last, n) is not None
    ]
    found += [_skill_tile(*each) for each in mapping(results, "skill").items() if number(each[1], "last") is not None][
        :2
    ]
    if number(cover, "last") is not None:
        aim = f"aim {percent(number(cover, 'target'), 0)}, mean width {figure(number(cover, 'width'), 3)}"
        found.append(_tile("intervals that held", percent(number(cover, "last")), aim))
    if number(gap, "ratio") is not None:
        found.append(_tile("held-out error, to learned", f"{figure(number(gap, 'ratio'), 3)}×", "1 is no overfitting"))
    if (champion := part(results, "model", "champion")) is not None:
        says = "a guess: no model beats it" if part(results, "model", "fallback") is True else "serves now"
        found.append(_tile("champion", str(champion), says))
    if number(results, "rows") is not None:
        scored = number(results, "scored")
        found.append(
            _tile("rows", figure(number(results, "rows")), f"{figure(scored)} scored" if scored is not None else "")
        )
    return tag("dl", *found, class_="tiles") if found else None


def _tile(name: str, value: str, aside: str) -> Html:
    return tag(
        "div",
        tag("dt", name),
        tag("dd", named(value), tag("small", aside), class_="long" if len(value) > LONG else None),
    )


def _skill_tile(name: str, skill: Mapping[str, Any]) -> Html:
    low, high = number(skill, "low"), number(skill, "high")
    sure = "error avoided" if low is None or high is None else f"95 %: {percent(low)} to {percent(high)}"
    return _tile(f"below {_guess(name).removeprefix('the ')}", percent(number(skill, "last")), sure)


def scores(results: Mapping[str, Any]) -> Html | None:
    """The model's scores over each span, and those of the guesses over the same rows."""
    spans = [(text, mapping(results, name)) for name, text in SPANS.items()]
    for name, both in mapping(results, "baselines").items():
        short = _guess(name).removeprefix("the ")
        names = {"total": "all rows", "after_warm_up": "after warm-up", "last": "last rows"}
        spans += [(f"{short}, {text}", mapping(both, span)) for span, text in names.items()]
    spans = [(text, each) for text, each in spans if each]
    there = [name for name in SCORES if any(number(each, name) is not None for _, each in spans)]
    if not there:
        return None
    rows = [[text, *(figure(number(each, name)) for name in ("rows", *there))] for text, each in spans]
    return joined((table(["", "rows", *(SCORES[name] for name in there)], rows, "Scores"), _skills(results)))


def _skills(results: Mapping[str, Any]) -> Html | None:
    """The interval and the test only where somebody has computed them."""
    skills = {name: each for name, each in mapping(results, "skill").items() if isinstance(each, Mapping)}
    there = [key for key in SKILLS if any(number(each, key) is not None for each in skills.values())]
    rows = [
        [f"against {_guess(name)}", *(SKILLS[key][1](number(each, key)) for key in there)]
        for name, each in skills.items()
    ]
    head = ["error avoided", *(SKILLS[key][0] for key in there)]
    return table(head, rows, SHARES.get(word(results, "judged_by"), SHARES["squared_error"])) if there else None


def members(results: Mapping[str, Any]) -> Html | None:
    found = entries(results, "model", "members")
    if not found:
        return None
    champion = part(results, "model", "champion")
    rows = []
    for each in found:
        tags = [tag("span", "serves", class_="tag serves")] if part(each, "name") == champion else []
        tags += [tag("span", "guess", class_="tag")] if part(each, "trivial") is True else []
        tags += [tag("span", "full", class_="tag bad")] if part(each, "full") is True else []
        numbers = [figure(number(each, name)) for name in ("loss", "rows", "rollbacks", "resets")]
        rows.append(
            [
                joined((named(word(each, "name")), *(each for sign in tags for each in (" ", sign)))),
                word(each, "kind"),
                *numbers,
            ]
        )
    head = ["member", "kind", "loss, discounted", "rows", "rolled back", "begun anew"]
    counts = mapping(results, "model", "counts")
    counted = [(_words(name), figure(number(value))) for name, value in counts.items() if number(value) is not None]
    became = details("What became of the rows", facts(counted)) if counted else None
    return joined((table(head, rows, "Members", 2), _full(found), became))


def _full(members: Sequence[Mapping[str, Any]]) -> Html | None:
    """What the sign in the table means, where there is one."""
    full = [word(each, "name") for each in members if part(each, "full") is True]
    if not full:
        return None
    return tag("p", f"Grown to the limit: {_and(full)}. A full member answers on, and learns no more until begun anew.")


def defects(results: Mapping[str, Any]) -> Html | None:
    """What the gate did, per column, with a bar for the share of the column's values."""
    columns = {name: each for name, each in mapping(results, "gate", "columns").items() if isinstance(each, Mapping)}
    label = mapping(results, "gate", "label")
    if not columns and not label:
        return None
    worst = max((number(each, name) or 0.0 for each in columns.values() for name in DEFECTS), default=0.0)
    order = sorted(columns, key=lambda name: -sum(number(columns[name], d) or 0.0 for d in DEFECTS))
    if len(order) <= COLUMNS_SHOWN:
        order = list(columns)
    head = ["column", "state", "values", *DEFECTS, "mean", "deviation"]
    rows = [_column(name, columns[name], worst) for name in order]
    parts = [_label(label), table(head, rows[:COLUMNS_SHOWN], "Defects per column", 2) if rows else None]
    if more := rows[COLUMNS_SHOWN:]:
        parts.append(details(f"{len(more)} more columns", table(head, more, "More columns", 2)))
    return joined(parts)


def _column(name: str, each: Mapping[str, Any], worst: float) -> list[str]:
    state = word(each, "state")
    cells = [state if state == "live" else tag("span", state, class_="tag bad"), figure(number(each, "seen"))]
    for defect in DEFECTS:
        value = number(each, defect)
        share = 100 * value / worst if value and worst else 0.0
        cells.append(
            joined((figure(value), tag("span", class_="bar" if share else "bar none", style=f"width:{share:.1f}%")))
        )
    return [name, *cells, *(figure(number(each, n)) for n in ("mean", "deviation"))]


def _label(label: Mapping[str, Any]) -> Html | None:
    if not label:
        return None
    kinds = {"quarantined_missing": "were missing", "quarantined_spike": "were spikes"}
    bad = [f"{figure(number(label, key))} {text}" for key, text in kinds.items() if number(label, key)]
    moved = number(label, "rebased")
    if bad:
        text = f"Of the label, {word(label, 'name')}, {_and(bad)}; those rows are neither learned nor scored."
    else:
        text = f"No value of the label, {word(label, 'name')}, was set aside."
    return tag(
        "p",
        text + (f" Its level was believed anew {'once' if moved == 1 else f'{figure(moved)} times'}." if moved else ""),
    )


def counts(results: Mapping[str, Any]) -> Html | None:
    found = [
        (text, figure(number(results, name))) for name, text in COUNTS.items() if number(results, name) is not None
    ]
    return facts(found) if found else None


def _guess(name: str) -> str:
    return GUESSES.get(name, _words(name))


def _words(name: str) -> str:
    return name.replace("_", " ")


def _and(parts: Sequence[str]) -> str:
    return " and ".join(parts) if len(parts) < 3 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _chance(p: float | None) -> str:
    return "< 0.001" if p is not None and p < 0.001 else figure(p, 2)


SKILLS: Final[Mapping[str, tuple[str, Callable[[float | None], str]]]] = {
    "total": ("all rows", percent),
    "last": ("last rows", percent),
    "low": ("95 % from", percent),
    "high": ("to", percent),
    "p": ("p", _chance),
}
SECTIONS: Final[Sequence[tuple[str, str, str, Callable[[Mapping[str, Any]], Html | None]]]] = (
    (
        "error-over-time",
        "Error over time",
        "The model's error beside that of guessing. Lower is better.",
        html_charts.error,
    ),
    ("scores-of-spans", "Scores", "The same rows for model and guesses.", scores),
    (
        "predicted",
        "Predicted against actual",
        "Newest rows that were held out: predicted in the stream, never learned.",
        html_charts.scatter,
    ),
    ("means", "Calibration", "On the line, what is predicted comes on average.", html_charts.calibration),
    ("covered", "Interval coverage", "The share of rows whose interval held what came.", html_charts.coverage),
    ("served", "Champion timeline", "Which member's predictions were served.", html_charts.champions),
    ("members", "Members", "All of them learn from every row; one serves.", members),
    ("defects", "Defects per column", "What the gate found and did before anything was learned.", defects),
    ("counts", "Rows", "What became of them.", counts),
)
"""In the page's order."""
