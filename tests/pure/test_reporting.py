"""reporting.py: sections of stages that may be anybody's, put around the reporter's figures."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from streampiped.errors import ExitCode, RpcError
from streampiped.reporting import SECTIONS_BYTES_MAX, Reporting, fitting, section_of
from streampiped.wire.messages import MESSAGE_BYTES_MAX

GATE = {"name": "gate", "results": {"rows": 9}, "operations": {"late": 1}}
MODEL = {"name": "model", "results": {"champion": "mean"}, "operations": {}}


class Stages:
    """As much of a supervisor as a report asks for: `answers` is stage -> method -> answer, or an error."""

    def __init__(self, answers: dict[str, dict[str, Any]]) -> None:
        self.answers = answers
        self.state: tuple[str, str | None] = ("running", None)
        self.asked: list[tuple[str, str, dict[str, Any], float]] = []
        inputs = [(), *((name,) for name in answers)]
        self.plan = SimpleNamespace(
            stages=[SimpleNamespace(name=name, inputs=before) for name, before in zip(answers, inputs, strict=False)],
            processes=[],
        )
        self.supervision = SimpleNamespace(generation=3, epochs=SimpleNamespace(committed=7), processes={})
        self.log = SimpleNamespace(counts=dict)

    async def query(self, name: str, method: str, params: dict[str, Any], timeout: float) -> Any:
        self.asked.append((name, method, params, timeout))
        answer = self.answers.get(name, {}).get(method, RpcError(f"{name} does not answer {method!r}"))
        if isinstance(answer, Exception):
            raise answer
        return answer(params) if callable(answer) else answer


def evaluator(params: dict[str, Any]) -> dict[str, Any]:
    results = params["sections"] | {"rows": 5}
    return {"text": "Good.\n", "results": results, "operations": {"crosscheck": {}}}


def reporting(stages: Stages) -> Reporting:
    async def no_log(_: str | None, since: float) -> dict[str, Any]:
        raise RpcError("no log extractor")

    view: Any = SimpleNamespace(reporter=None, started=0.0, uptime=1.0, state=lambda: stages.state)
    return Reporting(stages, view, no_log)  # type: ignore[arg-type]


def reported(answers: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], Stages]:
    stages = Stages(answers)
    return asyncio.run(reporting(stages).report()), stages


@pytest.mark.parametrize("state", ["failed", "stopped", "degraded", "running", "finished"])
def test_a_report_of_then_says_so(state: str) -> None:
    """Where nothing is being scored any more the text ends with why; the verdict still begins it."""
    stages = Stages({"evaluator": {"report": evaluator}})
    stages.state = state, "trainer failed: died 6 times"
    text = asyncio.run(reporting(stages).report())["text"]
    stands = state in ("failed", "stopped", "degraded")
    assert text.startswith("Good.")
    assert text.endswith(f"the pipeline is {state}, trainer failed: died 6 times.\n") == stands


def test_sections_of_all_stages_come_to_the_reporter() -> None:
    """Results go into the question and stand in the answer, operations beside the daemon's; who has no section is
    left out, and each is asked for a second."""
    report, stages = reported(
        {"gate": {"section": GATE}, "sink": {}, "trainer": {"section": MODEL}, "last": {"report": evaluator}}
    )
    assert report["results"] == {"gate": {"rows": 9}, "model": {"champion": "mean"}, "rows": 5}
    assert report["operations"]["gate"] == {"late": 1}
    assert "model" not in report["operations"]
    assert (report["operations"]["epoch"], report["operations"]["crosscheck"]) == (7, {})
    assert [timeout for _, method, _, timeout in stages.asked if method == "section"] == [1.0] * 4


def test_a_chain_beside_the_reporters_is_not_in_its_report() -> None:
    """Only stages that the reporter's rows come through are asked for a section."""
    stages = Stages({"other": {"section": MODEL}, "gate": {"section": GATE}, "last": {"report": evaluator}})
    stages.plan.stages[1].inputs = ()
    report = asyncio.run(reporting(stages).report())
    assert report["results"] == {"gate": {"rows": 9}, "rows": 5}
    assert "other" not in {name for name, *_ in stages.asked}


@pytest.mark.parametrize("answer", [None, 3, [], {}, {"name": 4, "results": {}}, {"name": "x", "results": []}])
def test_what_is_no_section_is_left_out(answer: Any) -> None:
    """A stage of a user's may answer anything; the report is made."""
    assert section_of(answer) is None
    report, _ = reported({"odd": {"section": answer}, "last": {"report": evaluator}})
    assert report["results"] == {"rows": 5}


def test_a_section_hides_nothing_of_the_reporter() -> None:
    """A section called as a field of the results, or as one of the daemon's, loses."""
    odd = {"name": "rows", "results": {"mine": 1}, "operations": {}}
    other = {"name": "epoch", "results": {}, "operations": {"mine": 1}}
    report, _ = reported({"odd": {"section": odd}, "other": {"section": other}, "last": {"report": evaluator}})
    assert report["results"]["rows"] == 5
    assert report["operations"]["epoch"] == 7


def test_two_sections_of_one_name_are_both_there() -> None:
    """The second is called by its stage as well."""
    report, _ = reported({"a": {"section": GATE}, "b": {"section": GATE}, "last": {"report": evaluator}})
    assert set(report["results"]) == {"rows", "gate", "gate b"}


def test_a_section_too_long_for_a_question_is_in_the_results_all_the_same() -> None:
    """The reporter is asked with what fits into a message; the rest stands in the results, and the text says so."""
    long = {"name": "gate", "results": {"columns": "x" * SECTIONS_BYTES_MAX}, "operations": {}}
    report, stages = reported({"a": {"section": long}, "b": {"section": MODEL}, "last": {"report": evaluator}})
    assert report["results"]["gate"] == long["results"]
    assert report["text"] == "Good.\n\ngate: too long, see --json\n"
    question = next(params for _, method, params, _ in stages.asked if method == "report")
    assert set(question["sections"]) == {"model"}


@pytest.mark.parametrize("sizes", [(50_000, 50_000), (200_000, 10), (40_000, 40_000, 40_000)])
def test_what_fits_is_less_than_a_message(sizes: tuple[int, ...]) -> None:
    """However long sections are, a question with those that fit can be sent."""
    kept, left = fitting({str(place): "x" * size for place, size in enumerate(sizes)})
    assert len(msgpack.packb(kept)) < MESSAGE_BYTES_MAX - 1000
    assert set(kept) | set(left) == set(map(str, range(len(sizes))))
    assert left


def test_without_a_reporter_the_refusal_says_who_was_asked() -> None:
    """No stage has a report: REFUSED, with each reason."""
    with pytest.raises(RpcError, match="sink does not answer 'report'") as refusal:
        reported({"gate": {"section": GATE}, "sink": {}})
    assert refusal.value.code == ExitCode.REFUSED
