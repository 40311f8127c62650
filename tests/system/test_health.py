"""Health and metrics of a real pipeline: who is ill, with which reason, and well again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from streampiped.metrics import CATALOGUE
from support.daemon import Daemon, running, simple, wait_for

pytestmark = pytest.mark.system

LIMITS = """
[health]
lagging_after = "1s"
stalled_after = "2s"
clear_after = "1s"
"""
ILL_S = 20.0  # until something is noticed, on a machine that does other things


def health(daemon: Daemon) -> dict[str, dict[str, Any]]:
    """The verdicts by name; that of the pipeline under an empty one."""
    answer = daemon.call("health")
    return {"": answer, **{row["name"]: row for row in answer["stages"]}}


def becomes(daemon: Daemon, name: str, wanted: str) -> dict[str, dict[str, Any]]:
    """The verdicts as soon as that on `name` is the one that is wanted."""

    def found() -> dict[str, dict[str, Any]] | None:
        verdicts = health(daemon)
        return verdicts if verdicts[name]["health"] == wanted else None

    return wait_for(found, f"{name or 'the pipeline'} is {wanted}", ILL_S, step=0.1)


def ill(verdicts: dict[str, dict[str, Any]]) -> set[str]:
    return {name for name, verdict in verdicts.items() if name and verdict["health"] != "healthy"}


def test_a_stopped_process_is_stalled() -> None:
    """A stage under SIGSTOP is stalled, with the reason that the kernel knows; nobody else is; it is healthy again some
    time after SIGCONT, and both are in the log."""
    with running(simple(head=LIMITS)) as daemon:
        pid = daemon.pids()["middle"]
        os.kill(pid, signal.SIGSTOP)
        try:
            verdicts = becomes(daemon, "middle", "stalled")
            assert ill(verdicts) == {"middle"}
            assert verdicts["middle"]["reason"].startswith("no progress for ")
            assert "stopped by a signal (SIGSTOP or SIGTSTP" in verdicts["middle"]["reason"]
            assert (verdicts[""]["health"], verdicts[""]["cause"]) == ("stalled", "middle")
            assert verdicts[""]["live"]
            done = daemon.ctl("health")
            assert done.returncode == 3
            assert "middle: no progress for " in done.stdout
            assert daemon.ctl("health", "--live").returncode == 0
            wait_for(lambda: health(daemon)["count"]["cause"] == "middle", "count names it", ILL_S, step=0.1)
            assert json.loads(daemon.ctl("health", "count", "--json").stdout)["reason"] == "held up by middle"
        finally:
            os.kill(pid, signal.SIGCONT)
        becomes(daemon, "middle", "healthy")
        assert daemon.ctl("health").returncode == 0
        assert daemon.pids()["middle"] == pid
        assert "stopped by a signal" in daemon.wait_event("health_changed")["reason"]
        assert daemon.wait_event("health_restored")["before"] == "stalled"


def test_a_stage_that_dies_again_and_again_is_flapping(tmp_path: Path) -> None:
    """From the third death on it is flapping, whatever it does at the moment; not any more when the deaths are old."""
    flag = tmp_path / "flag"
    head = LIMITS + '[supervision]\nmax_restarts = 1000\nwindow = "6s"\nbackoff_first = "50ms"\nbackoff_max = "300ms"\n'
    with running(simple(head=head, middle=f'mischief = "raise_in_restore"\nflag = "{flag}"')) as daemon:
        flag.touch()
        os.kill(daemon.pids()["middle"], signal.SIGKILL)
        verdicts = becomes(daemon, "middle", "flapping")
        flag.unlink()
        assert ill(verdicts) == {"middle"}
        assert " times within 6 s, last: RuntimeError: restore refused on purpose" in verdicts["middle"]["reason"]
        becomes(daemon, "middle", "healthy")
        page = families(daemon.call("metrics")["text"])
        restarts = page["streampipe_stage_restarts_total"]
        assert restarts[("middle", "exception")] >= 2
        assert restarts[("middle", "signal")] == 1
        assert restarts[("count", "exception")] == 0


def test_a_slow_sink_is_lagging_and_those_before_it_are_not() -> None:
    """The last stage takes seconds for a batch: it is lagging. Those that it holds up are healthy, and name it."""
    slow = '[stages.slow]\nclass = "support.simple_stages:Mischief"\ninput = "total"\nseconds_per_record = 0.008\n'
    head = LIMITS.replace('stalled_after = "2s"', 'stalled_after = "15s"')
    with running(simple(head=head, total=slow)) as daemon:
        verdicts = becomes(daemon, "slow", "lagging")
        assert ill(verdicts) == {"slow"}
        assert verdicts["slow"]["reason"].endswith(" s old, at most 1 s are healthy")
        held = wait_for(
            lambda: (found := health(daemon))["total"]["cause"] == "slow" and found, "total names it", ILL_S
        )
        assert held["count"]["cause"] == "slow"
        assert held["count"]["reason"] == "held up by slow"
        assert ill(held) == {"slow"}


def test_a_stage_whose_restarts_are_used_up_has_failed(tmp_path: Path) -> None:
    """It is failed at once and until an operator says start; the others are healthy and wait for it by name; the
    pipeline is live and not ready."""
    flag = tmp_path / "flag"
    head = LIMITS + '[supervision]\nmax_restarts = 2\nbackoff_first = "50ms"\nbackoff_max = "100ms"\n'
    with running(simple(head=head, middle=f'mischief = "raise_in_restore"\nflag = "{flag}"')) as daemon:
        flag.touch()
        os.kill(daemon.pids()["middle"], signal.SIGKILL)
        verdicts = becomes(daemon, "middle", "failed")
        assert ill(verdicts) == {"middle"}
        assert verdicts["middle"]["reason"].startswith("given up: died 3 times in a row, last: RuntimeError: restore")
        assert verdicts["total"]["reason"] == "waits for middle, which has failed"
        assert [daemon.ctl("health", word).returncode for word in ("--live", "--ready")] == [0, 3]
        flag.unlink()
        daemon.call("start", stages=["middle"])
        becomes(daemon, "middle", "healthy")
        assert daemon.ctl("health", "--ready").returncode == 0


def test_a_failed_service_makes_the_pipeline_ill_and_not_unready(tmp_path: Path) -> None:
    """A log extractor that dies at every start is failed, with its name; the daemon has started all the same, the
    stages are ready, records flow, and `health` and `status` say that something is wrong."""
    head = LIMITS + '[supervision]\nmax_restarts = 2\nbackoff_first = "50ms"\nbackoff_max = "100ms"\n'
    config = simple(head=head).replace("[log_extractor]\nenabled = false", "[log_extractor]")
    place = tmp_path / "state" / "stages" / "log_extractor"
    place.parent.mkdir(parents=True)
    place.write_text("no directory")
    with running(config, tmp_path) as daemon:
        verdicts = becomes(daemon, "log_extractor", "failed")
        assert ill(verdicts) == {"log_extractor"}
        assert (verdicts[""]["health"], verdicts[""]["cause"]) == ("failed", "log_extractor")
        assert [daemon.ctl("health", word).returncode for word in ("--live", "--ready")] == [0, 0]
        assert daemon.ctl("health").returncode == 3
        assert daemon.ctl("status").returncode == 3
        assert daemon.events("pipeline_ready")
        daemon.wait_progress(1000)


def test_what_an_operator_has_stopped_is_healthy() -> None:
    """A stop on purpose makes nobody ill, those included that wait for it, however long; the pipeline is ready."""
    with running(simple(head=LIMITS)) as daemon:
        daemon.call("stop", stages=["middle"])
        seen = daemon.status()["uptime"]
        wait_for(lambda: daemon.status()["uptime"] > seen + 4, "four looks", ILL_S, step=0.2)
        verdicts = health(daemon)
        assert ill(verdicts) == set()
        assert verdicts["middle"]["reason"] == "stopped by an operator"
        assert verdicts["total"]["reason"] == "waits for middle, which is stopped"
        assert daemon.ctl("health", "--ready").returncode == 0


def test_a_hung_supervisor_is_not_live() -> None:
    """A daemon that does not answer is 5, for every probe."""
    with running(simple()) as daemon:
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            assert daemon.ctl("health", "--live").returncode == 5
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        wait_for(lambda: daemon.ctl("health", "--live").returncode == 0, "it makes decisions again")


def families(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """{name: {label values: value}} of every metric, all of which are in the catalogue."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert CATALOGUE[name].kind == family.type
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def fetched(port: int) -> dict[str, dict[tuple[str, ...], float]] | None:
    """The page over HTTP; None when there is none."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return families(answer.read().decode())
    return None


def page_with(port: int, condition: Callable[[dict[str, dict[tuple[str, ...], float]]], bool], what: str) -> Any:
    return wait_for(lambda: (page := fetched(port)) is not None and condition(page) and page, what, ILL_S, step=0.1)


def test_metrics_of_a_real_pipeline(tmp_path: Path) -> None:
    """Over the socket and over HTTP the same page by Prometheus' own parser; counters grow over the death of a stage
    and of the service monitor, which serves again and goes on with its history; a supervisor that hangs is seen by the
    age of what it told."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = simple().replace("[service_monitor]\nenabled = false\n", '[service_monitor]\ninterval = "500ms"\n')
    with running(f'[metrics]\nlisten = "127.0.0.1:{port}"\n{config}') as daemon:
        daemon.wait_progress(1000)
        first = page_with(port, lambda page: page["streampipe_source_records_total"][()] > 0, "records flow")
        asked = families(daemon.call("metrics")["text"])
        assert set(asked) == set(first)
        assert {name: set(samples) for name, samples in asked.items()} == {n: set(s) for n, s in first.items()}
        assert asked["streampipe_process_unique_memory_bytes"][("supervisor",)] > 1 << 20
        assert asked["streampipe_stage_latency_seconds_count"][("total",)] > 0
        counter = "streampipe_stage_records_received_total"
        before = families(daemon.call("metrics")["text"])[counter][("total",)]
        os.kill(daemon.pids()["total"], signal.SIGKILL)
        daemon.wait_running(2)
        page_with(port, lambda page: page[counter][("total",)] > before + 1000, "the counter goes on")
        os.kill(daemon.pids()["service_monitor"], signal.SIGKILL)
        page_with(
            port, lambda page: page["streampipe_stage_restarts_total"][("service_monitor", "signal")] == 1, "it is back"
        )
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            page_with(port, lambda page: page["streampipe_observation_age_seconds"][()] > 4, "it is old")
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        fresh = page_with(port, lambda page: page["streampipe_observation_age_seconds"][()] < 3, "it is fresh")
        epoch = fresh["streampipe_epoch"][()]
        page_with(port, lambda page: page["streampipe_epoch"][()] >= epoch + 5, "three more observations")
        assert daemon.stop() == 0
        with contextlib.closing(sqlite3.connect(daemon.state / "stages" / "service_monitor" / "monitor.sqlite")) as db:
            query = "SELECT name, max(records_in_per_s), max(latency_p99_s), max(epoch_s) FROM flow GROUP BY name"
            rows = {name: figures for name, *figures in db.execute(query)}
        assert set(rows) == {"count", "middle", "total", "supervisor"}
        rate, latency, _ = rows["total"]
        assert rate > 1000
        assert latency > 0
        assert rows["supervisor"][2] > 0


ANEW = """
[stages.count]
class = "support.simple_stages:Count"
max_rate = "20k/s"
[stages.anew]
class = "support.simple_stages:Shift"
input = "count"
[stages.total]
class = "support.simple_stages:Total"
input = "anew"
[log_extractor]
enabled = false
[service_monitor]
enabled = false
"""


def test_a_batch_that_was_built_anew_is_as_old_as_the_one_it_was_made_of() -> None:
    """A stage that gives no time of ingest leaves the age of its records what it was, and not that of the machine."""
    with running(ANEW) as daemon:
        wait_for(lambda: daemon.process_status("total")["latency"]["age"]["p99"] is not None, "ages are known")
        age = daemon.process_status("total")["latency"]["age"]["p99"]
        assert 0.0 < age < ILL_S
        assert health(daemon)["total"]["health"] == "healthy"
