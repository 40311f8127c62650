"""The law on the real daemon: after any kills, rows, snapshots and results are those of an undisturbed run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, wait_for
from support.law import Outcome, config, disturbed, finish, stored, undisturbed

pytestmark = [pytest.mark.system, pytest.mark.slow]

RECORDS = int(os.environ.get("STREAMPIPE_LAW_RECORDS", "30000"))
STRIKES = int(os.environ.get("STREAMPIPE_LAW_STRIKES", "8"))
SEED = int(os.environ.get("STREAMPIPE_LAW_SEED", "1"))
STREAM = config(RECORDS, rate="12500/s")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The same stream without a limit of speed: how fast it runs must not matter either."""
    return undisturbed(config(RECORDS), tmp_path_factory.mktemp("calm"))


def test_nothing_lost_nothing_doubled(calm: Outcome, tmp_path: Path) -> None:
    """Under random SIGKILLs of stages, several at once, the launcher and the supervisor, and under SIGSTOPs, every
    record is stored once, and rows, snapshots and results are bit-identical; no record is put aside."""
    found = disturbed(STREAM, tmp_path, SEED, STRIKES)
    assert found.done.total() >= 3 * STRIKES // 4, found.done
    assert (found.outcome.rows, found.outcome.distinct) == (RECORDS, RECORDS)
    assert found.outcome.differences(calm) == []
    assert found.letters == 0


# deaths at exact places

GATED_RECORDS = 45_000
GATED_RATE = "15k/s"  # 3 s, for some deaths one after the other


def gated_stream(flags: Path) -> str:
    """A sink that waits for the flags of a directory."""
    return stored(GATED_RECORDS, rate=GATED_RATE, consumer="support.simple_stages:Gated", options=f'flags = "{flags}"')


@pytest.fixture(scope="module")
def calm_gated(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    stream = stored(GATED_RECORDS, consumer="support.simple_stages:Gated")
    return undisturbed(stream, tmp_path_factory.mktemp("calm-gated"))


@pytest.fixture
def gated(tmp_path: Path) -> Iterator[tuple[Daemon, Path]]:
    """A daemon, and the directory of the flags that its sink waits for."""
    flags = tmp_path / "flags"
    flags.mkdir()
    daemon = Daemon(gated_stream(flags), tmp_path)
    try:
        daemon.wait_running()
        yield daemon, flags
    finally:
        daemon.close()


def waits(flags: Path, step: str) -> None:
    """The next `step` of the sink waits at its gate."""
    (flags / step).touch()
    wait_for(lambda: (flags / f"{step}.waits").exists(), f"the sink waits before {step}")


def opened(flags: Path) -> None:
    for path in flags.iterdir():
        path.unlink(missing_ok=True)


def test_death_between_manifest_and_commit(gated: tuple[Daemon, Path], calm_gated: Outcome) -> None:
    """Whoever dies after the manifest of an epoch is there and before its sink has made it visible: the epoch stays
    committed, and the outcome is that of an undisturbed run."""
    daemon, flags = gated
    for victims in (("consumer",), ("total",), ("count", "consumer"), ("count", "middle", "consumer", "total")):
        generation = daemon.wait_running()["generation"]
        waits(flags, "commit")
        pids = daemon.pids()
        for name in victims:
            os.kill(pids[name], signal.SIGKILL)
        opened(flags)
        daemon.wait_running(generation + 1)
    assert finish(daemon).differences(calm_gated) == []


def test_death_of_the_supervisor_between_manifest_and_commit(
    gated: tuple[Daemon, Path], calm_gated: Outcome, tmp_path: Path
) -> None:
    """If the supervisor dies there, the next start makes the epoch visible."""
    daemon, flags = gated
    waits(flags, "commit")
    daemon.process.kill()
    daemon.process.wait(10.0)
    opened(flags)
    again = Daemon(gated_stream(flags), tmp_path)
    try:
        again.wait_running()
        assert finish(again).differences(calm_gated) == []
    finally:
        again.close()


def test_death_during_recovery(gated: tuple[Daemon, Path], calm_gated: Outcome) -> None:
    """A second death while everybody restores begins another generation, and changes nothing else."""
    daemon, flags = gated
    for victim in ("consumer", "total", "count"):
        generation = daemon.wait_running()["generation"]
        daemon.wait_progress(2000)
        (flags / "restore").touch()
        os.kill(daemon.pids()["middle"], signal.SIGKILL)
        waits(flags, "restore")
        os.kill(daemon.pids()[victim], signal.SIGKILL)
        opened(flags)
        daemon.wait_running(generation + 2)
    assert finish(daemon).differences(calm_gated) == []
