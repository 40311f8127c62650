"""The page for Prometheus: right by its parser and its conventions, and one with its catalogue wherever it is used."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from streampiped import metrics_endpoint, status_view
from streampiped.core.causes import Cause
from streampiped.core.judgement import Health
from streampiped.metrics import CATALOGUE, CAUSES, HEALTHS, STATES, page
from streampiped.stages import pipeline_flow
from support.observations import USAGE, observation, row
from support.tree import REPOSITORY

SPECIFICATION = REPOSITORY / "docs" / "specs" / "metrics.md"
DASHBOARD = REPOSITORY / "etc" / "grafana" / "streampipe.json"
RULES = REPOSITORY / "etc" / "prometheus" / "streampipe.rules.yml"
SAMPLES_MAX = 100  # for one stage; a pipeline of ten is a thousand series, which Prometheus does not notice
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def families(text: str) -> dict[str, Family]:
    """By the name that stands in the text; the parser takes `_total` off a counter."""
    found = list(text_string_to_metric_families(text))
    return {f"{each.name}_total" if each.type == "counter" else each.name: each for each in found}


@pytest.fixture
def whole() -> dict[str, Family]:
    return families(page(observation(), {"supervisor": USAGE, "numbers": USAGE}, 2_001.5))


def value(family: Family, name: str, **labels: str) -> float:
    return next(s.value for s in family.samples if s.name == name and s.labels == labels)


def test_every_metric_of_the_catalogue_and_no_other(whole: dict[str, Family]) -> None:
    """A full observation gives every metric of the catalogue, with its kind, its text and its labels."""
    usual = {
        name: metric for name, metric in CATALOGUE.items() if "proportional" not in name
    }  # which is not known here
    assert set(whole) == set(usual)
    for name, metric in usual.items():
        assert (whole[name].type, whole[name].documentation) == (metric.kind, metric.text)
        for sample in whole[name].samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), sample
            assert ("le" in sample.labels) == sample.name.endswith("_bucket")


@pytest.mark.parametrize("name", CATALOGUE)
def test_conventions(name: str) -> None:
    """Names are as prometheus.io/docs/practices/naming wants them: one prefix, base units, `_total` for counters alone,
    a text that is a sentence; no label that Prometheus sets itself."""
    metric = CATALOGUE[name]
    assert re.fullmatch(r"streampipe(_[a-z]+)+", name)
    assert name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(ms|milliseconds|us|ns|minutes|kb|kib|mb|mib|percent|count|sum|bucket|info_total)$", name)
    assert metric.kind not in SUFFIXES or name.endswith("_seconds")
    assert metric.text.endswith(".")
    assert "\n" not in metric.text
    assert not set(metric.labels) & {"le", "quantile", "instance", "job"}


def test_figures(whole: dict[str, Family]) -> None:
    """What was observed stands in the page, in base units."""
    assert value(whole["streampipe_observation_age_seconds"], "streampipe_observation_age_seconds") == 1.5
    assert value(whole["streampipe_source_records_total"], "streampipe_source_records_total") == 1000
    restarts = whole["streampipe_stage_restarts_total"]
    name = "streampipe_stage_restarts_total"
    assert value(restarts, name, stage="kept", reason="signal") == 2
    assert value(restarts, name, stage="kept", reason="hung") == 0
    epochs = whole["streampipe_epoch_part_seconds"]
    assert value(epochs, "streampipe_epoch_part_seconds_sum", part="fsync") == pytest.approx(0.04)
    assert value(epochs, "streampipe_epoch_part_seconds_count", part="fsync") == 4
    drops = whole["streampipe_log_lines_dropped_total"]
    assert value(drops, "streampipe_log_lines_dropped_total", destination="stderr") == 7
    memory = whole["streampipe_process_unique_memory_bytes"]
    assert value(memory, "streampipe_process_unique_memory_bytes", stage="supervisor") == 40 << 20


def test_histograms(whole: dict[str, Family]) -> None:
    """Buckets are cumulative and ascending, the last one is what was counted, and every time lies where it belongs."""
    for family in whole.values():
        if family.type != "histogram":
            continue
        count = next(s for s in family.samples if s.name.endswith("_count"))
        labels = count.labels
        buckets = [(float(s.labels["le"]), s.value) for s in family.samples if s.labels.items() >= labels.items()
                   and s.name.endswith("_bucket")]  # fmt: skip
        assert all(a < b and m <= n for (a, m), (b, n) in pairwise(buckets))
        assert buckets[-1] == (float("inf"), count.value)
    latency = whole["streampipe_latency_seconds"].samples
    below = {float(s.labels["le"]): s.value for s in latency if s.name.endswith("_bucket")}
    assert below[0.001048576] == 0
    assert below[0.004194304] == 5


def test_one_of_each_state() -> None:
    """Of the states and healths of a thing exactly one is 1, the one that it has."""
    ill = observation(state="degraded", health="stalled", processes=[row("kept", "sink", health="flapping")])
    found = families(page(ill, {}, 2_000.0))
    for name, label in (("pipeline_state", "state"), ("pipeline_health", "health"), ("stage_health", "health")):
        samples = found[f"streampipe_{name}"].samples
        present = {"state": "degraded"} if label == "state" else {"health": "stalled"}
        expected = "flapping" if name == "stage_health" else present[label]
        assert [s.labels[label] for s in samples if s.value == 1] == [expected]
        assert {s.value for s in samples} == {0, 1}


def test_what_is_not_known_is_left_out() -> None:
    """A figure that is null, and the processes without a monitor, are not there; the page is still right."""
    found = families(page(observation(epoch=None, state_bytes=None, recovery_s=None), {}, 2_000.0))
    assert "streampipe_epoch" not in found
    assert not [name for name in found if name.startswith("streampipe_process_")]


def test_strange_names_stay_labels() -> None:
    """Whatever a version or a name has in it, it is one label's value."""
    found = families(page(observation(version='1"\\\n2'), {}, 2_000.0))
    assert found["streampipe_build_info"].samples[0].labels["version"] == '1"\\\n2'


def test_cardinality(whole: dict[str, Family]) -> None:
    """One stage more is a bounded number of series, and no label has free values."""
    samples = [s for family in whole.values() for s in family.samples if s.labels.get("stage") == "kept"]
    assert len(samples) < SAMPLES_MAX


def test_label_values_are_the_codes_own() -> None:
    """The catalogue's healths, causes and states are those that there are."""
    assert tuple(health.value for health in Health) == HEALTHS == pipeline_flow.HEALTHS
    assert {cause.value for cause in Cause} == set(CAUSES)
    tree = ast.parse((REPOSITORY / "daemon/streampiped/status_view.py").read_text())
    state = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "state")
    answers = [n.value for n in ast.walk(state) if isinstance(n, ast.Return)]
    first = [answer.elts[0] for answer in answers if isinstance(answer, ast.Tuple)]
    assert {word.value for word in first if isinstance(word, ast.Constant)} == set(STATES)
    assert metrics_endpoint.SERVED_BY == status_view.MONITOR == "service_monitor"


def test_the_specification_lists_the_catalogue() -> None:
    """docs/specs/metrics.md has a line for every metric, with its kind, labels and text, and no other."""
    lines = re.findall(
        r"^\| `(streampipe_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", SPECIFICATION.read_text(), re.MULTILINE
    )
    listed = {name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text) for name, kind, labels, text in lines}
    assert listed == {name: (metric.kind, metric.labels, metric.text) for name, metric in CATALOGUE.items()}


def _expressions() -> Iterator[tuple[str, str]]:
    """(where, query) of the dashboard and of the alerts."""
    board = json.loads(DASHBOARD.read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", variable["definition"]
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


EXPRESSIONS = tuple(_expressions())


def _metric(name: str) -> tuple[str, str]:
    """The entry of the catalogue that a series belongs to, and what the series has behind that name."""
    for base, metric in CATALOGUE.items():
        if metric.kind in SUFFIXES and name.removeprefix(base) in SUFFIXES[metric.kind]:
            return base, name.removeprefix(base)
        if metric.kind not in SUFFIXES and name == base:
            return base, ""
    raise AssertionError(f"no metric {name}")


@pytest.mark.parametrize(("where", "query"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_queries_name_what_there_is(where: str, query: str) -> None:
    """Every query of the dashboard and of the alerts names series that the daemon gives, selects by labels and values
    that those have, and takes rates of counters alone."""
    names = re.findall(r"(streampipe_\w+)(?:\{([^}]*)\})?", query)
    assert names
    assert query.count("(") == query.count(")")
    for name, selector in names:
        base, suffix = _metric(name)
        rated = re.search(rf"(?:rate|increase)\({name}\b", query) is not None
        assert not rated or CATALOGUE[base].kind != "gauge", name
        assert rated == (CATALOGUE[base].kind != "gauge"), f"{name} grows for ever: only its rate says something"
        assert rated == bool(suffix) or CATALOGUE[base].kind == "counter"
        for label, text in re.findall(r'(\w+)\s*[!=]~?\s*"([^"]*)"', selector):
            assert label in (*CATALOGUE[base].labels, "instance")
            known = {"health": HEALTHS, "reason": CAUSES, "state": STATES}.get(label)
            assert known is None or set(text.split("|")) <= set(known)


def test_alerts_say_what_to_do() -> None:
    """Every alert has a severity, a summary and what to do about it."""
    rules: list[dict[str, Any]] = [r for g in yaml.safe_load(RULES.read_text())["groups"] for r in g["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "what_to_do"}


def test_dashboard_is_whole() -> None:
    """Panels have titles and numbers of their own and do not lie over one another; what most of the catalogue is there
    for can be seen."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for g in (panel["gridPos"] for panel in panels)
        for x in range(g["x"], g["x"] + g["w"])
        for y in range(g["y"], g["y"] + g["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
