"""Batches in shared memory, on the real daemon: the same bits as through the pipes, and nothing is left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from streampiped.config import load
from streampiped.credentials import Credentials
from streampiped.records import Batch
from streampiped.stage_process import load as load_stage
from streampiped.stages.base import Ended, SinkStage, SourceStage, Stage
from streampiped.wire import state as wire_state
from support.daemon import Daemon, descriptors, running, wait_for
from support.law import Outcome, config, digest_of, disturbed, newest, rows_in, undisturbed

pytestmark = [pytest.mark.system, pytest.mark.slow]

RECORDS: Final = 30_000
BATCH: Final = 1024
"""74 KB: far above what stays in the pipe."""
STREAM: Final = config(RECORDS, batch=BATCH)
LINKS: Final = {
    "shared": "[links]\npoison = true\n",
    "tight": '[links]\nbuffer_bytes = "192KiB"\npoison = true\n',  # two slots of 76 KiB
    "small": '[links]\nbuffer_bytes = "96KiB"\n',  # marks and predictions have a place, the records have none
}


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The stream through pipes alone."""
    return undisturbed(STREAM + '[links]\nbuffer_bytes = "0B"\n', tmp_path_factory.mktemp("inline"))


@pytest.mark.parametrize("links", LINKS.values(), ids=LINKS)
def test_where_batches_lie_changes_nothing(links: str, inline: Outcome, tmp_path: Path) -> None:
    """By reference, with plenty of memory and with hardly any, and with every slot overwritten once it is free: rows,
    snapshots and results are those of a stream through the pipes, to the bit."""
    found = undisturbed(STREAM + links, tmp_path)
    assert found.rows == RECORDS
    assert found.differences(inline) == []


def test_one_process_has_the_same_bits(inline: Outcome, tmp_path: Path) -> None:
    """The stages called one after the other, in this process and without a link: the same snapshots and rows."""
    file = tmp_path / "streampipe.toml"
    file.write_text(STREAM)
    plan = load(str(file), state_dir=str(tmp_path / "state"), runtime_dir=str(tmp_path / "run"))
    stages: dict[str, Stage] = {}
    for spec in plan.stages:
        stage = load_stage(plan, spec, Credentials(plan.config_file), _ignore, lambda: None)
        assert isinstance(stage, Stage)
        if isinstance(stage, SinkStage):
            stage.rollback(None)
        stage.restore(None)
        stages[spec.name] = stage
    source, *others = stages.values()
    assert isinstance(source, SourceStage)
    while not isinstance(batch := source.read(0.0), Ended):
        result: Batch | None = batch if isinstance(batch, Batch) else None
        for stage in others:
            result = stage.process(result) if result is not None else None
    kinds = {spec.name: spec.klass for spec in plan.stages}
    snapshots = {name: digest_of(wire_state.pack(kinds[name], stage.snapshot())) for name, stage in stages.items()}
    assert snapshots == inline.snapshots
    consumer = stages["consumer"]
    assert isinstance(consumer, SinkStage)
    consumer.seal(1)
    consumer.prepare(1)
    consumer.commit(1)
    found = rows_in(tmp_path / "state" / "stages" / "consumer" / "records.sqlite")
    consumer.close()
    assert found == (inline.rows, inline.distinct, inline.digest)


def _ignore(event: str, /, **fields: Any) -> None:
    pass


def test_the_law_holds_by_reference(inline: Outcome, tmp_path: Path) -> None:
    """Under random SIGKILLs of stages, launcher and supervisor, and SIGSTOPs, with hardly any memory and slots that are
    overwritten once they are free: everything is stored once, bit-identically, and nothing is put aside."""
    found = disturbed(config(RECORDS, batch=BATCH, rate="25k/s") + LINKS["tight"], tmp_path, 3, 8, pause=0.15)
    assert found.done.total() >= 4, found.done
    assert found.outcome.differences(inline) == []
    assert found.letters == 0


# forwarding

HEAD: Final = """
[checkpoint]
interval = "50ms"
[supervision]
max_restarts = 1000
backoff_first = "1ms"
backoff_max = "20ms"
[log_extractor]
enabled = false
[service_monitor]
enabled = false
[links]
buffer_bytes = "{memory}"
poison = true
"""
ONE: Final = '[stages.{name}]\nclass = "support.wide_stages:{klass}"\ninput = {inputs}\n'


def pipeline(memory: str, records: int, *others: tuple[str, str, str], rate: str = "0/s") -> str:
    """A wide source and stages (name, class, inputs) behind it."""
    source = f'[stages.wide]\nclass = "support.wide_stages:Wide"\nrecords = {records}\nmax_rate = "{rate}"\n'
    return (
        HEAD.format(memory=memory)
        + source
        + "".join(ONE.format(name=name, klass=klass, inputs=inputs) for name, klass, inputs in others)
    )


def state_of(daemon: Daemon, stage: str, klass: str) -> dict[str, Any]:
    """What a stage has at the end."""
    return wire_state.unpack(newest(daemon.state / "epochs")[stage], f"support.wide_stages:{klass}")


DIAMOND: Final = (
    ("first", "Add", '"wide"'),
    ("left", "Add", '"first"'),
    ("right", "Add", '"first"'),
    ("short", "Add", '"wide"'),
    ("total", "Verify", '["left", "right"]'),
    ("other", "Verify", '["short", "first"]'),
)
"""Two ways of different length, joins, and a batch that lies in the memory of three stages."""


@pytest.mark.parametrize("memory", ["1MiB", "16MiB"])
def test_forwarded_batches_are_what_was_sent(memory: str, tmp_path: Path) -> None:
    """In diamonds, with barriers 50 ms apart, three slots or many, each freed slot overwritten, and stages killed on
    the way: every record arrives once on each way with the values that were sent, and nobody waits for ever."""
    records = 400_000
    whole = sum(range(records))
    with running(pipeline(memory, records, *DIAMOND, rate="150k/s"), tmp_path) as daemon:
        for name in ("first", "total", "wide", "left"):
            daemon.wait_progress(2048)
            generation = daemon.status()["generation"]
            os.kill(daemon.pids()[name], signal.SIGKILL)
            daemon.wait_running(generation + 1)
        wait_for(lambda: daemon.status()["state"] == "finished", "the stream has ended")
        for name, ways in (("total", {"left", "right"}), ("other", {"short", "first"})):
            assert state_of(daemon, name, "Verify") == {
                "counts": dict.fromkeys(ways, records),
                "sums": dict.fromkeys(ways, whole),
            }
        assert {e["stage"] for e in daemon.events("stage_died") if "SIGKILL" not in e["reason"]} == set()


def test_a_stage_that_keeps_what_it_was_shown_is_found_out(tmp_path: Path) -> None:
    """A view of an earlier batch shows something else, however fast or slow everybody is."""
    with running(pipeline("1MiB", 200_000, ("keeper", "Keeper", '"wide"')), tmp_path) as daemon:
        wait_for(lambda: daemon.status()["state"] == "finished", "the stream has ended")
        assert state_of(daemon, "keeper", "Keeper")["changed"] >= 90


# what is left behind

GENERATIONS: Final = 50


def memories(pid: int) -> tuple[int, int]:
    """Mappings of shared memory that a process has, and open descriptors of it."""
    maps = Path(f"/proc/{pid}/maps").read_text().count("memfd:streampipe")
    links = [os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return maps, sum("memfd:streampipe" in link for link in links)


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[Daemon]:
    with running(pipeline("1MiB", 0, ("first", "Add", '"wide"'), ("last", "Verify", '"first"')), tmp_path) as daemon:
        daemon.wait_progress(10_000)
        yield daemon


def test_generations_leave_no_memory_behind(endless: Daemon) -> None:
    """After many generations every process that lives has the mappings and descriptors that it had after the first
    ones, and so has the supervisor, which maps nothing."""

    def look() -> dict[str, tuple[int, ...]]:
        pids = {**endless.pids(), "supervisor": endless.process.pid}
        return {name: (*memories(pid), descriptors(pid)) for name, pid in pids.items()}

    first: dict[str, tuple[int, ...]] = {}
    for number in range(GENERATIONS):
        before = endless.status()
        os.kill(endless.pids()["first"], signal.SIGKILL)
        endless.wait_running(before["generation"] + 1)
        endless.wait_progress(2048)
        if number == 9:
            first = look()

    def no_more() -> dict[str, tuple[int, ...]] | None:  # at any one moment a file is being written
        last = look()
        pairs = [pair for name in first for pair in zip(last[name], first[name], strict=True)]
        return last if all(now <= then for now, then in pairs) else None

    last = wait_for(no_more, f"no more than after ten generations: {first}")
    assert last["supervisor"][0] == 0
    assert [last[name][0] for name in ("wide", "first", "last")] == [1, 2, 2]
