"""The evaluator's results for people: a verdict in one sentence, then tables, then the error over time. Pure text, 80
columns. `results` are those of docs/specs/report.md; the sections of other stages are in `report_sections.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from streampiped.classes import CLASSES_MAX
from streampiped.measure.report_sections import gate_lines, model_lines, why_a_guess
from streampiped.measure.report_text import WIDTH, cell, chance, percent, scores_table, wrapped
from streampiped.measure.report_text import name as name_of
from streampiped.measure.sparkline import bars, narrowed

ENOUGH_ROWS: Final = 100  # below, R2 moves by more than the differences that it should tell
SURE: Final = 0.05  # a difference that chance makes more often than that is called one that chance could make
NAMES: Final = {
    "running_mean": "the running mean",
    "last_value": "the last value",
    "discounted_mean": "the discounted mean",
    "class_prior": "the most frequent class",
    "last_class": "the last class",
}
LOSSES: Final = {
    "squared_error": "the squared error is", "log_loss": "the log-loss is", "errors": "errors are"
}  # fmt: skip
REGRESSION: Final = {"rows": "rows", "mse": "MSE", "rmse": "RMSE", "mae": "MAE", "r2": "R2"}
CLASSIFICATION: Final = {
    "rows": "rows", "accuracy": "accuracy", "log_loss": "log-loss", "auc": "AUC", "f1_macro": "F1 macro"
}  # fmt: skip
HEADS: Final = {
    "squared_error": "share of a guess's error avoided",
    "log_loss": "log-loss of a guess avoided",
    "errors": "share of a guess's errors avoided",
}
CURVE: Final = {"regression": ("mse", "RMSE"), "classification": ("error", "share of errors")}
SHORT: Final = {"running_mean": "mean", "last_value": "last", "class_prior": "prior", "last_class": "last"}
WORTH_A_WORD: Final = 0.01  # of all squared error
CURVE_WIDTH: Final = 64  # bars: half of the curve's bins
UNSCORED: Final = {
    "missing_target": "without a target",
    "unlabelled": "that ask and get their label in a row of its own",
    "quarantined": "whose target the gate calls bad",
    "unpredicted": "without a prediction",
}
FIGURE: Final = 9  # letters of a figure before a line of bars


def verdict_of(skills: Mapping[str, float | None], rows: int, *, exact: bool | None = None) -> str:
    """ "good", "not_better" than one of the guesses, or "not_enough_data". `exact`: the label never changed in these
    rows, and whether every prediction was that label: nothing can be told of a model then, or that it is worse than
    any guess."""
    if rows < ENOUGH_ROWS or not skills:
        return "not_enough_data"
    if exact is not None:
        return "not_enough_data" if exact else "not_better"
    return "good" if skills and all(skill is not None and skill > 0 for skill in skills.values()) else "not_better"


def render(results: Mapping[str, Any], operations: Mapping[str, Any]) -> str:
    """The report. `results` and `operations` are those of the evaluator's `report` query."""
    blocks = [
        wrapped(sentence(results)),
        _scores(results),
        _skills(results),
        _notes(results) + _crosscheck(operations.get("crosscheck") or {}),
        _curve(results),
        model_lines(results.get("model")),
        gate_lines(results.get("gate")),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def judged(verdict: str, model: Any) -> str:
    """The verdict when `model` is the trainer's section: where a guess is served, nothing is better than guessing."""
    return "not_better" if verdict == "good" and guess_served(model) else verdict


def guess_served(model: Any) -> str:
    """The guess that the trainer's section says is served; empty: none is."""
    serves = isinstance(model, Mapping) and model.get("fallback") is True
    return name_of(model.get("champion"), 40) if serves else ""


def sentence(results: Mapping[str, Any]) -> str:
    """The verdict in words."""
    last, verdict = results["last"], results["verdict"]
    rows = last["rows"]
    over = f"over {'all' if rows == results['total']['rows'] else 'the last'} {rows:,} rows"
    if rows >= ENOUGH_ROWS and results.get("constant") is not None:
        return _constant(results, over)
    skills = {name: about for name, about in results["skill"].items() if _told(results, name)}
    if verdict == "not_enough_data":
        known = f"{rows:,} of at least {ENOUGH_ROWS} rows could be scored so far"
        return f"Not enough data: {known if rows < ENOUGH_ROWS else 'no row had a label before it'}."
    figure = _figure(results)
    loss = LOSSES[results["judged_by"]]
    below = {name: about["last"] for name, about in skills.items() if (about["last"] or 0.0) > 0}
    beaten = _listed([f"{percent(share)} below guessing {NAMES[name]}" for name, share in below.items()])
    if verdict == "good":
        return f"Good: {over} {loss} {beaten} ({figure}){_doubt(skills)}{_no_oftener(results)}."
    better = [NAMES[name] for name in skills if name not in below]
    guess = guess_served(results.get("model"))
    why = (why_a_guess(results["model"]) or "as no member beats guessing") if guess else ""
    serves = f"a guess ({guess}) is what is served, {why}" if guess else ""
    if better:
        found = f"{over} guessing {' or '.join(better)} is at least as good as what was served ({figure})"
        return f"Not better than guessing: {found}{serves and '; ' + serves}."
    if not serves:
        return f"Not better than guessing: {over} there is no guess to compare with ({figure})."
    return f"Not better than guessing: {serves}; {over} {loss} {beaten} ({figure})."


def _figure(results: Mapping[str, Any]) -> str:
    """What is said in brackets. Skills leave out the rows before the first label, and R2 does not: where those are
    most of the error it would belie the sentence."""
    last, after = results["last"], results["after_warm_up"]
    if results["task"] != "regression":
        return f"accuracy {percent(last['accuracy'])}"
    if last["rows"] < results["total"]["rows"] or _blind_share(results) < WORTH_A_WORD:
        return f"R2 {cell(last['r2'])}"
    return (
        f"R2 {cell(after['r2'])} after the warm-up" if after["rows"] else f"R2 {cell(last['r2'])} with the first rows"
    )


def _constant(results: Mapping[str, Any], over: str) -> str:
    label = results["constant"]
    told = f"{over} the label was {cell(label) if isinstance(label, int | float) else name_of(label, 40)}"
    if results["verdict"] == "not_enough_data":
        return f"Not enough data: {told} and so was the prediction: what never changes says nothing of a model."
    figure = "RMSE" if results["task"] == "regression" else "accuracy"
    value = cell(results["last"]["rmse"]) if figure == "RMSE" else percent(results["last"]["accuracy"])
    return f"Not better than guessing: {told}, which any guess gets right, and the model does not ({figure} {value})."


def _no_oftener(results: Mapping[str, Any]) -> str:
    """Better probabilities need not be more right answers: a rare class is never the more probable one."""
    skills = results["skill"] if results["judged_by"] == "log_loss" else {}
    names = [NAMES[name] for name, about in skills.items() if about["errors"] is None or about["errors"] <= 0]
    return f"; its answers are right no more often than {_listed(names)}" if names else ""


def _doubt(skills: Mapping[str, Mapping[str, Any]]) -> str:
    doubtful = [NAMES[name] for name, about in skills.items() if about.get("p") is None or about["p"] > SURE]
    return f"; against {_listed(doubtful)} chance could do that" if doubtful else ""


def _told(results: Mapping[str, Any], name: str) -> bool:
    """A guess can be compared with: with late labels nobody knows what a discounted mean would have known."""
    last = results["baselines"][name]["last"]
    return last.get("mse", last.get("accuracy")) is not None


def _scores(results: Mapping[str, Any]) -> list[str]:
    whole = results["last"]["rows"] == results["total"]["rows"]  # then the window says the same as all
    rows = {"model, all rows": results["total"]}
    if not whole:
        rows[f"model, last {results['last']['rows']:,}"] = results["last"]
    rows["model, recent weighted"] = results["recent"]
    rows["model, warm-up"] = results["warm_up"]
    rows["model, after warm-up"] = results["after_warm_up"]
    if (since := results["generation"]["since_row"]) > 0:
        rows[f"model, since row {since:,}"] = results["generation"]
    rows["model, held-out rows"] = results["held_out"]
    rows["model, learned rows"] = results["learned"]
    if (results.get("blind") or {}).get("rows"):
        rows["model, before any label"] = results["blind"]
    for name, both in results["baselines"].items():
        short = NAMES[name].removeprefix("the ")
        rows[f"{short}, all"] = both["total"]
        if not whole:
            rows[f"{short}, last"] = both["last"]
    return scores_table(rows, REGRESSION if results["task"] == "regression" else CLASSIFICATION)


def _skills(results: Mapping[str, Any]) -> list[str]:
    recent = f"last {results['last']['rows']:,}"
    head = HEADS[results["judged_by"]]
    lines = [f"{head:<34}{'all':>8}{recent:>13}{'95 % interval':>17}{'p':>8}"]
    for name, about in results["skill"].items():
        low, high = about["low"], about["high"]
        between = "-" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"
        figures = f"{percent(about['total']):>8}{percent(about['last']):>13}{between:>17}{chance(about['p']):>8}"
        lines.append(f"{'  against ' + NAMES[name]:<34}{figures}"[:WIDTH])
    return lines


def _notes(results: Mapping[str, Any]) -> list[str]:
    lines = _blind(results)
    coverage, gap = results["coverage"], results["gap"]
    if coverage["rows"]:
        lines += wrapped(
            f"Intervals meant to hold {percent(coverage['target'])} held {percent(coverage['total'])} of "
            f"{coverage['rows']:,} rows, {percent(coverage['last'])} of the last; mean width {cell(coverage['width'])}."
        )
    if gap["ratio"] is not None:
        lines += wrapped(
            f"The error on held-out rows is {cell(gap['ratio'])} times that on the rows that were learned after "
            "they were predicted."
        )
    for kind, words in UNSCORED.items():
        if count := results[kind]:
            lines += wrapped(
                f"{_rows(count)} {_further(results, kind)}{words} {'was' if count == 1 else 'were'} not scored."
            )
    return lines


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _further(results: Mapping[str, Any], kind: str) -> str:
    """Rows of classes that are not counted any more are under `unpredicted`, though they have a prediction."""
    full = len(results.get("classes") or []) >= CLASSES_MAX
    return f"of a class beyond the first {CLASSES_MAX} or " if full and kind == "unpredicted" else ""


def _blind(results: Mapping[str, Any]) -> list[str]:
    """What the rows before the first label weigh, where it is worth a word."""
    share = _blind_share(results)
    if share < WORTH_A_WORD:
        return []
    count = results["blind"]["rows"]
    rows = "The first row" if count == 1 else f"{count:,} rows"
    return wrapped(f"{rows} came before any label and had to be guessed as 0: {percent(share)} of all squared error.")


def _blind_share(results: Mapping[str, Any]) -> float:
    """Of all squared error."""
    blind, total = results.get("blind") or {}, results["total"]
    if not blind.get("rows") or not total["mse"] or blind["mse"] is None:
        return 0.0
    share: float = blind["mse"] * blind["rows"] / (total["mse"] * total["rows"])
    return share


def _crosscheck(check: Mapping[str, Any]) -> list[str]:
    served = check.get("served")
    if not served:
        return wrapped(f"Cross-check through the trainer's API: {check['error']}.") if check.get("error") else []
    figure, label = ("mse", "MSE") if "mse" in check["in_band"] else ("accuracy", "accuracy")
    text = (
        f"Cross-check through the trainer's API, epoch {check['epoch']}: {label} {cell(served.get(figure))} on "
        f"{check['rows']:,} held-out rows, {cell(check['in_band'][figure])} in band."
    )
    return wrapped(text)


def _curve(results: Mapping[str, Any]) -> list[str]:
    """The error over time as bars, of the model and of two guesses, each in its own scale: beside a bad guess the
    model's line would be flat. Below them the drifts."""
    bins = results["curve"]["bins"]
    if not any(part["rows"] for part in bins):
        return []
    key, label = CURVE[results["task"]]
    weights = [part["rows"] for part in bins]
    group = -(-len(bins) // CURVE_WIDTH)
    names = [name for name in bins[0] if name not in ("from", "rows", "covered")]
    lines = {name: _heights([part[name] for part in bins], weights, key) for name in names}
    rows = results["curve"]["rows_per_bin"] * group
    drawn = [f"{label} over time, {rows:,} rows a bar; before each line its highest bar:"]
    for name, line in lines.items():
        top = max((value for value in line if value is not None), default=None)
        highest = cell(top) if len(cell(top)) <= FIGURE else f"{top:.3g}"
        drawn.append(f"{SHORT.get(name, 'model'):<5}{highest:>10} {bars(line)}".rstrip())
    model = results.get("model") or {}
    if marks := _marks(model.get("drifts") or [], rows, len(next(iter(lines.values())))):
        drawn.append(f"{'drifts':<15} {marks}")
    return drawn


def _heights(values: Sequence[float | None], weights: Sequence[int], key: str) -> list[float | None]:
    means = narrowed(values, weights, CURVE_WIDTH)
    return [None if v is None else v**0.5 for v in means] if key == "mse" else means


def _marks(drifts: Sequence[Mapping[str, Any]], rows: int, width: int) -> str:
    line = [" "] * width
    for drift in drifts:
        if 0 <= (place := drift["row"] // rows) < width:
            line[place] = "^"
    return "".join(line).rstrip()


def _listed(words: Sequence[str]) -> str:
    """
    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)
