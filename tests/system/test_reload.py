"""A reload of the real daemon: what an operator edits is in effect at one place of the stream, or nothing is."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Any, Final

import pytest

from support.daemon import Daemon, chain, is_alive, running, simple, wait_for
from support.law import PATIENT, STAGES, config, family, finish

pytestmark = [pytest.mark.system]

RECORDS: Final = 60_000
SHIFTED: Final = """
[stages.count]
class = "support.simple_stages:Count"
records = {records}
max_rate = "{rate}"
[stages.shift]
class = "support.simple_stages:Shift"
input = "count"
by = {by}
[stages.consumer]
input = "shift"
[stages.total]
class = "support.simple_stages:Total"
input = "consumer"
"""
"""Rows tell by x - position which options the stage `shift` had."""
KILLS: Final = 6


def shifted(by: int, *, records: int = RECORDS, rate: str = "30k/s") -> str:
    return PATIENT.format(interval="100ms") + SHIFTED.format(records=records, rate=rate, by=by)


def edit(daemon: Daemon, old: str, new: str) -> None:
    """What an editor does to the file."""
    text = daemon.config.read_text()
    assert old in text
    daemon.config.write_text(text.replace(old, new, 1))


def shifts(daemon: Daemon) -> list[tuple[int, int, int]]:
    """(shift, first position, rows) of each run of rows with one shift, in the order of the stream."""
    path = daemon.state / "stages" / "consumer" / "records.sqlite"
    found: list[tuple[int, int, int]] = []
    with contextlib.closing(sqlite3.connect(path)) as db:
        for position, x in db.execute("SELECT position, x FROM committed_records ORDER BY position, id"):
            shift = int(x) - position
            if found and found[-1][0] == shift:
                found[-1] = (shift, found[-1][1], found[-1][2] + 1)
            else:
                found.append((shift, position, 1))
    return found


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if before[name] != after[name]}


def test_option_is_in_effect_at_one_position(tmp_path: Path) -> None:
    """Rows before one position are made with the old option and rows behind it with the new one, that position is the
    cut of the epoch behind which the sources held, no row is lost or there twice, and every other pid stays."""
    remembering = shifted(0).replace("[checkpoint]", "[checkpoint]\nretain_epochs = 1000")
    with running(remembering, tmp_path) as daemon:
        daemon.wait_progress(5000)
        before = daemon.pids()
        edit(daemon, "by = 0", "by = 7")
        done = daemon.ctl("reload")
        assert done.returncode == 0, done.stderr
        assert "stages.shift.by: 0 -> 7" in done.stdout
        assert changed(before, daemon.pids()) == {"shift"}
        held = int(daemon.events("generation_reset")[0]["origin"].removeprefix("epoch "))
        outcome = finish(daemon)
        assert outcome.rows == outcome.distinct == RECORDS
        cut = rows_until(daemon, held)
        assert 0 < cut < RECORDS
        assert shifts(daemon) == [(0, 0, cut), (7, cut, RECORDS - cut)]
        assert daemon.events("reload_applied")[0]["changes"] == "stages.shift.by: 0 -> 7"


def rows_until(daemon: Daemon, epoch: int) -> int:
    """How many rows the sink has of this epoch and those before it."""
    path = daemon.state / "stages" / "consumer" / "records.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as db:
        count: int = db.execute("SELECT last_id FROM epochs WHERE epoch = ?", (epoch,)).fetchone()[0]
    return count


def test_trainer_and_normalizer_together_under_load(tmp_path: Path) -> None:
    """Changed options of the trainer and the normalizer replace these two, behind one reset, and keep what they have
    learned; nothing is lost or doubled."""
    records = 60_000
    with running(config(records, rate="15k/s", batch=100), tmp_path) as daemon:
        daemon.wait_progress(5000)
        before, rows = daemon.pids(), daemon.call("report")["results"]["rows"]
        edit(daemon, 'class = "normalizer"', 'class = "normalizer"\nlimit = 4.5')
        edit(daemon, 'class = "trainer"', 'class = "trainer"\nretain_versions = 3')
        answer = daemon.call("reload")
        assert (answer["done"], answer["changed"]) == (True, ["normalizer", "trainer"])
        assert changed(before, daemon.pids()) == {"normalizer", "trainer"}
        assert len(daemon.events("generation_reset")) == 1
        assert daemon.call("report")["results"]["rows"] >= rows > 0
        outcome = finish(daemon)
        assert outcome.rows == outcome.distinct == records
        assert {p["restarts"] for p in daemon.status()["processes"] if p["name"] in ("normalizer", "trainer")} == {1}


def test_supervisor_killed_at_any_instant_of_a_reload(tmp_path: Path) -> None:
    """Whenever the supervisor is killed while it reloads, the next start runs what is in the file, and every row is
    there once, made with an option that was in the file at the time, the newer ones behind the older ones."""
    seed = random.Random(4)
    by = 0
    daemon = Daemon(shifted(by, rate="15k/s"), tmp_path)
    try:
        daemon.wait_running()
        for _ in range(KILLS):
            daemon.wait_progress(1500)
            edit(daemon, f"by = {by}", f"by = {by + 1}")
            by += 1
            daemon.call("reload", wait=False)
            threading.Event().wait(seed.random() * 0.2)  # instants are what this is about
            daemon.process.kill()
            daemon.process.wait(10.0)
            left = daemon.family()
            wait_for(lambda gone=left: not any(map(is_alive, gone)), "everything is gone", 5.0)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            daemon.close()
            daemon = Daemon(shifted(by, rate="15k/s"), tmp_path)
            daemon.wait_running()
        outcome = finish(daemon)
        assert outcome.rows == outcome.distinct == RECORDS
        found = [shift for shift, _, _ in shifts(daemon)]
        assert found == sorted(set(found))
        assert found[-1] == by
    finally:
        daemon.close()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_stages_killed_while_reloading(tmp_path: Path) -> None:
    """Stages, the launcher and the process that checks the file are killed while one reload comes after the other:
    every row is there once, newer options behind older ones, and in the end what is in the file is in effect."""
    chance, by = random.Random(1), 0
    with running(shifted(by, rate="10k/s"), tmp_path) as daemon:
        while daemon.status()["state"] != "finished":
            edit(daemon, f"by = {by}", f"by = {by + 1}")
            by += 1
            daemon.call("reload", wait=False)
            threading.Event().wait(chance.random() * 0.15)  # instants are what this is about
            # a launcher that dies at its start comes back late, up to 30 s: while stages wait for one it is spared, or
            # it would be all that is left to kill, each time before it is ready, and no reload would be answered
            running_now = daemon.status()["state"] == "running"
            pids = sorted(pid for pid, name in family(daemon).items() if running_now or name != "launcher")
            for pid in chance.sample(pids, min(1, len(pids))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            threading.Event().wait(chance.random() * 0.3)
        outcome = finish(daemon)
        assert outcome.rows == outcome.distinct == RECORDS
        found = [shift for shift, _, _ in shifts(daemon)]
        assert found == sorted(set(found))
        assert len(daemon.events("reload_applied")) > KILLS
        daemon.call("reload", timeout=60.0)
        assert daemon.call("reload", timeout=60.0)["changes"] == []


def test_reload_while_the_fork_server_is_gone(tmp_path: Path) -> None:
    """A reload that is asked for when the launcher has just been killed waits for the next one and comes about."""
    with running(shifted(0), tmp_path) as daemon:
        daemon.wait_progress(1000)
        edit(daemon, "by = 0", "by = 7")
        os.kill(daemon.launcher_pid(), signal.SIGKILL)
        done = daemon.ctl("reload")
        assert done.returncode == 0, done.stderr
        assert len(daemon.events("reload_applied")) == 1


def test_reload_while_the_fork_server_is_stopped(tmp_path: Path) -> None:
    """A reload that a stopped launcher keeps waiting ends that launcher, and comes about with the next one."""
    short = shifted(0).replace("[supervision]", '[supervision]\nstart_timeout = "2s"', 1)
    with running(short, tmp_path) as daemon:
        daemon.wait_progress(1000)
        edit(daemon, "by = 0", "by = 7")
        launcher = daemon.launcher_pid()
        os.kill(launcher, signal.SIGSTOP)
        done = daemon.ctl("reload")
        assert done.returncode == 0, done.stderr
        assert daemon.launcher_pid() != launcher
        assert len(daemon.events("launcher_died")) == len(daemon.events("reload_applied")) == 1


@pytest.fixture(scope="module")
def daemon() -> Any:
    """The default chain with its services, at a rate that leaves the machine to the tests."""
    with running(chain('rate = "2k/s"')) as each:
        yield each


@pytest.mark.parametrize(
    ("old", "new", "code", "said"),
    [
        ('class = "normalizer"', 'class = "normalizer"\nlimit = "much"', 7, "stages.normalizer.limit"),
        ('class = "normalizer"', 'class = "normaliser"', 7, "did you mean"),
        ("[pipeline]", "[pipeline", 7, "streampipe.toml:1"),
        ("[pipeline]", "[pipeline]\nseed = 9", 7, "pipeline.seed: 0 -> 9: needs a restart of the daemon"),
        ('class = "trainer"', 'class = "support.simple_stages:Total"', 7, "stages.trainer.class"),
        ('class = "trainer"', 'class = "trainer"\nfeatures = ["x1"]', 1, "the snapshot is of features"),
        ('class = "trainer"', 'class = "support.crash:Crash"', 1, "killed by SIGSEGV"),
    ],
    ids=["wrong value", "unknown class", "not TOML", "needs a restart", "another class", "another state", "crash"],
)
def test_refused_as_a_whole(daemon: Daemon, old: str, new: str, code: int, said: str) -> None:
    """What cannot be had is told with its reason, and with it what could be had alone is refused: no process is
    another one, the stream goes on in the same generation."""
    text = daemon.config.read_text()
    daemon.wait_progress(100)
    before, generation = daemon.pids(), daemon.status()["generation"]
    try:
        daemon.config.write_text(text.replace(old, new, 1) + '\n[checkpoint]\ninterval = "2s"\n')
        done = daemon.ctl("reload")
        assert (done.returncode, done.stdout) == (code, "")
        assert said in done.stderr
        assert said in daemon.events("reload_refused")[-1]["reason"]
    finally:
        daemon.config.write_text(text)
    daemon.wait_progress(100)
    assert changed(before, daemon.pids()) == set()
    assert daemon.status()["generation"] == generation
    assert not daemon.events("reload_applied")


def test_nothing_to_do(daemon: Daemon) -> None:
    """A file that says what is in effect changes nothing; a missing one is refused."""
    done = daemon.ctl("reload")
    assert (done.returncode, done.stdout) == (0, "reload: nothing to do, the file says what is in effect\n")
    away = daemon.config.rename(daemon.config.with_suffix(".away"))
    try:
        done = daemon.ctl("reload")
        assert done.returncode == 7
        assert "cannot be read" in done.stderr
    finally:
        away.rename(daemon.config)


def test_dry_run_says_and_does_nothing(daemon: Daemon) -> None:
    """`--dry-run` names every change and every process that would be replaced, and none is."""
    text, before = daemon.config.read_text(), daemon.pids()
    try:
        edit(daemon, 'class = "trainer"', 'class = "trainer"\nretain_versions = 3')
        done = daemon.ctl("reload", "--dry-run")
        assert done.returncode == 0, done.stderr
        assert "would be replaced: trainer" in done.stdout
        assert "stages.trainer.retain_versions" in done.stdout
        assert daemon.events("command_received")[-1]["params"] == "of the configuration (dry run)"
        assert changed(before, daemon.pids()) == set()
        assert daemon.status()["config"]["reloads"] == 0
    finally:
        daemon.config.write_text(text)


def test_services_and_settings_take_effect_without_a_pause(tmp_path: Path) -> None:
    """Options of a service replace that service; the interval of epochs and the log level are other ones at once; no
    stage is replaced and no generation begins."""
    head = '[checkpoint]\ninterval = "1h"\n[logs]\nlevel = "info"\n[service_monitor]\ninterval = "2s"\n'
    with running(chain('rate = "2k/s"') + head, tmp_path) as daemon:
        before = daemon.pids()
        edit(daemon, 'interval = "1h"', 'interval = "100ms"')
        edit(daemon, 'level = "info"', 'level = "debug"')
        edit(daemon, 'interval = "2s"', 'interval = "1s"')
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_event("reload_applied")
        daemon.wait_event("epoch_committed", 3)  # of level debug
        wait_for(lambda: daemon.process_status("service_monitor")["state"] == "running", "the service is back")
        assert changed(before, daemon.pids()) == {"service_monitor"}
        status = daemon.status()
        assert (status["generation"], status["config"]["reloads"]) == (1, 1)


def test_slow_reload_goes_on_without_its_client() -> None:
    """A client that waits no longer is told so (8); what it asked for comes about, and a second reload waits for it and
    has nothing to do."""
    slow = "seconds_per_record = 0.004\nticks = true"
    with running(simple(count="batch_max = 256", middle=slow)) as daemon:
        daemon.wait_progress(1)
        edit(daemon, "seconds_per_record = 0.004", "seconds_per_record = 0.0")
        done = daemon.ctl("reload", "--timeout", "400ms")
        assert done.returncode == 8, done
        queued = daemon.ctl("reload", "--timeout", "100ms")
        assert queued.returncode == 8, queued
        assert "the reload before it is not done" in queued.stderr
        second = daemon.ctl("reload", "--timeout", "60s")
        assert "nothing to do" in second.stdout, second
        assert len(daemon.events("reload_applied")) == 1


def test_reload_behind_one_that_reads_is_told_so(tmp_path: Path) -> None:
    """While a constructor holds up the check of the file, the reload that checks says that the file is being read, and
    the one behind it says that it waits for the other; both come to their end."""
    flag = tmp_path / "flag"
    with running(simple(middle=f'mischief = "wait_in_construction"\nflag = "{flag}"')) as daemon:
        flag.touch()
        reading = daemon.ctl("reload", "--timeout", "300ms")
        behind = daemon.ctl("reload", "--timeout", "300ms")
        flag.unlink()
        assert (reading.returncode, behind.returncode) == (8, 8)
        assert "the reload has not begun: the file is still being read" in reading.stderr
        assert "the reload has not begun: the reload before it is not done" in behind.stderr
        assert "nothing to do" in daemon.ctl("reload", "--timeout", "60s").stdout


def test_stop_beats_a_reload() -> None:
    """A stop that comes while successors load refuses the reload, and what is started again has the old options."""
    slow = "seconds_per_record = 0.004\nticks = true"
    with running(simple(count="batch_max = 256", middle=slow)) as daemon:
        daemon.wait_progress(1)
        edit(daemon, "seconds_per_record = 0.004", "seconds_per_record = 0.0")
        daemon.call("reload", wait=False)
        daemon.wait_event("reload_requested")
        wait_for(lambda: "reload" in str(daemon.call("why", stage="supervisor")["story"]), "the reload is under way")
        assert daemon.ctl("stop", "middle").returncode == 0
        refused = daemon.wait_event("reload_refused")
        assert "overtaken by stop" in refused["reason"]
        assert not daemon.events("reload_applied")


def test_stages_of_the_default_chain_are_known() -> None:
    """The names that these tests rely on are those of the chain."""
    assert {"normalizer", "trainer"} < set(STAGES)
