"""measure/report.py: results to text."""

from __future__ import annotations

from typing import Any

import pytest

from streampiped.measure.report import WIDTH, render, sentence, verdict_of
from streampiped.measure.sparkline import BLOCKS

SCORES = {"rows": 200_000, "mse": 7.3, "rmse": 2.7018, "mae": 2.1, "r2": 0.70612}
EMPTY: dict[str, Any] = {"rows": 0, "mse": None, "rmse": None, "mae": None, "r2": None}
BASELINES = ("running_mean", "last_value", "discounted_mean")


def a_bin(place: int, mse: float | None = 1.0, rows: int = 100) -> dict[str, Any]:
    return {"from": 100 * place, "rows": rows, "mse": mse, "running_mean": 2.0, "last_value": 4.0, "covered": 0.9}


def results(mean: float | None, last: float | None, rows: int = 10_000, p: float = 0.0, **more: Any) -> dict[str, Any]:
    skills = {"running_mean": mean, "last_value": last, "discounted_mean": 0.5}
    return {
        "verdict": verdict_of(skills, rows),
        "task": "regression",
        "judged_by": "squared_error",
        "constant": None,
        "blind": EMPTY,
        "rows": 200_000,
        "missing_target": 0,
        "unlabelled": 0,
        "quarantined": 0,
        "unpredicted": 0,
        "total": SCORES,
        "last": {**SCORES, "rows": rows},
        "recent": SCORES,
        "held_out": EMPTY,
        "learned": SCORES,
        "warm_up": SCORES,
        "after_warm_up": SCORES,
        "generation": {**SCORES, "number": 0, "since_row": 0},
        "gap": {"mse_held_out": None, "mse_learned": 7.3, "ratio": None},
        "baselines": {name: {"total": SCORES, "last": SCORES} for name in skills},
        "skill": {
            name: {"total": 0.5, "last": value, "low": value, "high": value, "p": p} for name, value in skills.items()
        },
        "coverage": {"target": 0.9, "rows": 0, "total": None, "last": None, "width": None},
        "curve": {"rows_per_bin": 100, "bins": []},
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
            "Not better than guessing: over the last 10,000 rows guessing the last value is at least as good as what",
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
    assert "mean" not in text


def test_a_difference_that_chance_could_make_is_called_that() -> None:
    """A good verdict with a p above 5 % says so, one below does not."""
    assert "chance could do that" in sentence(results(0.1, 0.2, p=0.06))
    assert "chance" not in sentence(results(0.1, 0.2, p=0.04))


def test_a_guess_that_nobody_knows_is_not_compared_with() -> None:
    """With late labels the discounted mean has no scores, and the sentence does not speak of it."""
    late = results(0.1, 0.2)
    late["baselines"]["discounted_mean"] = {"total": EMPTY, "last": EMPTY}
    assert "discounted" not in sentence(late)


def test_the_error_over_time_has_drifts_where_they_were() -> None:
    """A bar for each bin, the highest where the error was, a gap where no row was scored, a mark below the drift."""
    bins = [a_bin(place) for place in range(10)]
    bins[4] = a_bin(4, mse=9.0)
    bins[6] = a_bin(6, mse=None, rows=0)
    model = {"champion": "ridge", "drifts": [{"row": 430, "kind": "drift", "member": "ridge"}], "drift_count": 1}
    lines = render(results(0.5, 0.5, curve={"rows_per_bin": 100, "bins": bins}, model=model), {}).splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("RMSE over time, 100 rows a bar"))
    mine, marks = lines[place + 1], lines[place + 4]
    assert mine.startswith("model")
    assert mine[-10:] == "▃▃▃▃█▃ ▃▃▃"
    assert marks.startswith("drifts")
    assert marks.index("^") == mine.index("█")


def test_many_bins_are_drawn_as_half_as_many_bars() -> None:
    """128 bins fit into 80 columns, two of them in a bar."""
    text = render(results(0.5, 0.5, curve={"rows_per_bin": 100, "bins": [a_bin(p) for p in range(128)]}), {})
    line = next(line for line in text.splitlines() if line.startswith("model") and "█" in line)
    assert line.count("█") == 64
    assert len(line) == WIDTH
    assert "200 rows a bar" in text


MEMBER = {
    "name": "ridge 0.99",
    "kind": "comoment",
    "trivial": False,
    "loss": 0.5,
    "rows": 9,
    "rollbacks": 0,
    "resets": 2,
}
COLUMN = {"state": "live", "seen": 9, "missing": 0, "infinite": 0, "imputed": 0, "bounded": 0, "rebased": 0}


def test_the_model_section_names_champion_members_and_drifts() -> None:
    """Who serves, all members with the champion marked, who served when, and that a fallback serves."""
    timeline = [{"from": 0, "to": 70, "member": "mean", "reason": "start"}, {"from": 70, "to": None, "member": "ridge"}]
    model = {
        "champion": "ridge 0.99", "fallback": True, "rows_seen": 99, "rows_learned": 90, "timeline": timeline,
        "members": [MEMBER, {**MEMBER, "name": "mean"}], "drifts": [{"row": 5, "kind": "label_shift", "member": "m"}],
        "drift_count": 7,
    }  # fmt: skip
    text = render(results(0.5, 0.5, model=model), {})
    for part in ("ridge 0.99 serves, for nothing beats guessing", "* ridge 0.99", "  mean ", "rows 70 to now ridge"):
        assert part in text
    assert "7 drifts: shift of the label at row 5" in text


def test_a_member_that_learns_no_more_is_told() -> None:
    """A line below the table for each member that has grown to its limit, also one that the table leaves out, and for
    no other; an older daemon does not say."""
    members = [{**MEMBER, "name": f"m{number}", "full": False} for number in range(20)]
    members += [{**MEMBER, "name": "river", "full": True}, {**MEMBER, "name": "old"}]
    model = {"champion": "m1", "rows_learned": 90, "members": members}
    lines = [line for line in render(results(0.5, 0.5, model=model), {}).splitlines() if "limit" in line]
    assert lines == ["  river has grown to its limit: it answers on, and learns no more until begun"]


@pytest.mark.parametrize("reason", ["pinned", "promoted"])
def test_a_guess_that_an_operator_wants_is_not_called_unbeaten(reason: str) -> None:
    """The sentence and the section say why it is served."""
    model = {
        "champion": "mean",
        "fallback": True,
        "timeline": [{"from": 0, "to": None, "member": "mean", "reason": reason}],
    }
    text = " ".join(render(results(0.5, 0.5, verdict="not_better", model=model), {}).split())
    assert f"a guess (mean) is what is served, as it was {reason}; over" in text
    assert f"Model: mean serves, as it was {reason};" in text
    assert "beats guessing" not in text


def test_the_gate_section_tells_of_columns_with_defects_alone() -> None:
    """A clean column has no line, a dead one and one with defects do, and so has the label."""
    columns = {"clean": COLUMN, "dead": {**COLUMN, "state": "dead"}, "torn": {**COLUMN, "missing": 12}}
    label = {"name": "y", "quarantined_missing": 0, "quarantined_spike": 3, "rebased": 0}
    gate = {"rows": 5000, "rows_dropped": 0, "columns": columns, "label": label}
    text = render(results(0.5, 0.5, gate=gate), {})
    assert "Gate: 5,000 rows." in text
    assert "clean" not in text
    assert ["dead", "dead"] in [line.split()[:2] for line in text.splitlines()]
    assert ["torn", "live", "12"] in [line.split()[:3] for line in text.splitlines()]
    assert "label y: 3 quarantined as spikes" in text
    quiet = render(results(0.5, 0.5, gate={**gate, "columns": {"clean": COLUMN}, "label": None}), {})
    assert "nothing to tell of any feature" in quiet


@pytest.mark.parametrize("wrong", [{}, [], "x", 7, {"champion": 1, "members": 3}, {"columns": {"a": 1}, "rows": None}])
def test_a_section_of_another_form_does_not_break_the_report(wrong: Any) -> None:
    """Whatever a stage of a user's calls its section, the report is made."""
    assert render(results(0.5, 0.5, model=wrong, gate=wrong), {}).startswith("Good")


def test_a_hostile_name_stays_in_its_cell() -> None:
    """Names of columns and members come with the data: control characters and lengths harm no terminal."""
    hostile = "\x1b[2J" + "n" * 300
    gate = {"rows": 1, "columns": {hostile: {**COLUMN, "missing": 1}}, "label": {"name": hostile, "rebased": 1}}
    model = {"champion": hostile, "members": [{**MEMBER, "name": hostile}], "timeline": [], "drifts": []}
    text = render(results(0.5, 0.5, gate=gate, model=model), {})
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_report_fits_80_columns_and_lines_up() -> None:
    """No line is wider than a terminal, and the figures of the table end in the same columns."""
    check = {"epoch": 12, "rows": 512, "served": SCORES, "in_band": SCORES, "error": None}
    text = render(results(-12.5, -880.0, missing_target=12, unpredicted=3), {"crosscheck": check})
    lines = text.splitlines()
    assert max(map(len, lines)) <= WIDTH
    table = lines[lines.index("") + 1 :]
    assert len({len(line) for line in table[: table.index("")]}) == 1
    assert "12 rows without a target were" in text
    assert "epoch 12" in text


def test_a_report_of_nothing_is_a_report() -> None:
    """With no row scored yet every figure is a dash."""
    nothing = results(None, None, 0) | {"total": EMPTY, "last": EMPTY}
    nothing["skill"] = {n: dict.fromkeys(("total", "last", "low", "high", "p")) for n in nothing["skill"]}
    nothing["baselines"] = {name: {"total": EMPTY, "last": EMPTY} for name in nothing["baselines"]}
    text = render(nothing, {})
    assert text.startswith("Not enough data: 0 of at least 100")
    assert "None" not in text


def test_an_unanswered_cross_check_says_why() -> None:
    """The error of the last question stands in the report."""
    assert "no such socket" in render(results(0.5, 0.5), {"crosscheck": {"error": "no such socket"}})


def test_the_figure_in_the_sentence_does_not_belie_it() -> None:
    """Where the rows before the first label are most of the squared error the sentence, whose shares leave them out,
    has the R2 of what came after the warm-up; where they are not, that of the window."""
    total, blind = {**SCORES, "rows": 400, "mse": 2.5e27, "r2": -6.7e26}, {**EMPTY, "rows": 1, "mse": 1e30}
    after = {**SCORES, "rows": 300, "r2": 0.996}
    told = results(0.9, 0.9, 400, total=total, blind=blind, after_warm_up=after) | {"last": total}
    assert sentence(told).endswith("(R2 0.996 after the warm-up).")
    assert sentence(told | {"after_warm_up": EMPTY}).endswith("(R2 -6.7e+26 with the first rows).")
    assert sentence(told | {"blind": {**blind, "mse": 1e20}}).endswith("(R2 -6.7e+26).")


def test_before_the_first_row_nobody_serves() -> None:
    """A trainer without a model is no guess that wins."""
    text = render(results(None, None, 0, model={"champion": None, "fallback": True, "rows_learned": 0}), {})
    assert "Model: there is none yet" in text
    assert "None" not in text
    assert "beats guessing" not in text


def test_rows_of_too_many_classes_are_told() -> None:
    """What the model left out has a line with what to do about it, and what the evaluator left out is not said to have
    had no prediction."""
    many = [{"class": n, "rows": 1, "predicted": 0, "right": 0, "f1": 0.0} for n in range(100)]
    model = {"champion": "ridge", "rows_learned": 9, "counts": {"too_many_classes": 294}}
    text = " ".join(render(results(0.5, 0.5, classes=many, unpredicted=237, model=model), {}).split())
    assert "237 rows of a class beyond the first 100 or without a prediction were not scored." in text
    assert (
        '294 rows of further classes than can be learned were left out; ints are learned as numbers with task = "reg'
        in text
    )
    text = " ".join(render(results(0.5, 0.5, classes=many[1:], unpredicted=1), {}).split())
    assert "1 row without a prediction was not scored." in text


@pytest.mark.parametrize("mse", [1.234e-302, 1.234e300, 0.0])
def test_bars_begin_in_one_column(mse: float) -> None:
    """Also where the figure before them is a long one."""
    text = render(results(0.5, 0.5, curve={"rows_per_bin": 100, "bins": [a_bin(n, mse) for n in range(64)]}), {})
    drawn = [line for line in text.splitlines() if line.startswith(("model ", "mean ", "last ")) and line[-1] in BLOCKS]
    assert [line.index(" ", 6 + len(line[6:]) - len(line[6:].lstrip())) for line in drawn] == [15, 15, 15]
    assert max(map(len, drawn)) <= WIDTH
