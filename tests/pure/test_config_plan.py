"""A right configuration becomes the plan that it describes."""

from __future__ import annotations

import grp
import os
from pathlib import Path

import msgpack
import pytest

from streampiped import stage_process, topology
from streampiped.config import load
from streampiped.credentials import Credentials
from streampiped.errors import OptionError
from streampiped.stages.generator import Generator
from support.config_files import CHAIN, SINK, SOURCE, TRANSFORM, loaded, problems, written


def test_untouched_sections_are_the_planned_defaults(tmp_path: Path) -> None:
    """A file that only names stages gets the defaults that the supervisor's plan has."""
    plan = loaded(tmp_path, CHAIN)
    assert plan.supervision == topology.Supervision()
    assert plan.checkpoint == topology.Checkpoint()
    assert plan.links == topology.Links()
    assert plan.control == topology.Control()
    assert plan.logs == topology.Logs()
    assert (plan.pipeline, plan.seed, plan.python_path) == ("streampipe", 0, ())


def test_values_arrive_in_plain_units(tmp_path: Path) -> None:
    """Durations become seconds, sizes bytes, rates records per second; no limit is None."""
    text = '[checkpoint]\ninterval = "500ms"\n[links]\npipe_bytes = "64KiB"\n' + CHAIN
    plan = loaded(
        tmp_path, text.replace('input = "numbers"', 'input = "numbers"\nmax_rate = "2k/s"\nhang_timeout = "2m"')
    )
    assert plan.checkpoint.interval == 0.5
    assert plan.links.pipe_bytes == 65536
    assert (plan.spec("scale").max_rate, plan.spec("scale").hang_timeout) == (2000.0, 120.0)
    assert plan.spec("store").max_rate is None


def test_role_follows_from_the_class(tmp_path: Path) -> None:
    """What a stage is, is read from its class, and both services are there."""
    plan = loaded(tmp_path, CHAIN)
    assert [(spec.name, spec.role) for spec in plan.stages] == [
        ("numbers", "source"),
        ("scale", "transform"),
        ("store", "sink"),
    ]
    assert [spec.name for spec in plan.services] == ["log_extractor", "service_monitor"]


def test_order_is_topological_and_as_written(tmp_path: Path) -> None:
    """Stages may be written in any order; each comes after its inputs, sources first."""
    text = "".join(
        f"[stages.{name}]\n{klass}\n{f'input = {wanted}' if wanted else ''}\n"
        for name, klass, wanted in (
            ("join", TRANSFORM, '["left", "right"]'),
            ("out", SINK, '"join"'),
            ("right", TRANSFORM, '"two"'),
            ("left", TRANSFORM, '["one", "two"]'),
            ("two", SOURCE, ""),
            ("one", SOURCE, ""),
        )
    )
    plan = loaded(tmp_path, text)
    assert [spec.name for spec in plan.stages] == ["two", "one", "right", "left", "join", "out"]
    assert plan.spec("join").inputs == ("left", "right")


def test_service_that_is_not_enabled(tmp_path: Path) -> None:
    """A disabled service is not in the plan, and its options are still checked."""
    plan = loaded(tmp_path, f"[service_monitor]\nenabled = false\n{CHAIN}")
    assert [spec.name for spec in plan.services] == ["log_extractor"]
    (found,) = problems(tmp_path, f"[service_monitor]\nenabled = false\nintervall = 3\n{CHAIN}")
    assert found.key == "service_monitor.intervall"


def test_log_extractor_reads_what_the_supervisor_writes(tmp_path: Path) -> None:
    """Without a path of its own the log extractor follows the events of this pipeline's logs directory."""
    plan = loaded(tmp_path, CHAIN)
    assert plan.spec("log_extractor").options["path"] == f"{plan.paths.logs}/events.jsonl"


def test_plan_travels_as_msgpack(tmp_path: Path) -> None:
    """The plan that comes back from the throw-away process is the plan that was made there."""
    plan = loaded(tmp_path, f"[control]\noperators = ['ann']\n{CHAIN}")
    assert topology.Plan.from_dict(msgpack.unpackb(msgpack.packb(plan.to_dict()))) == plan


def test_user_class_beside_the_file(tmp_path: Path) -> None:
    """A user's class is found relative to the file, its options travel as written, its API is seen."""
    (tmp_path / "classes").mkdir()
    (tmp_path / "classes" / "user_plan.py").write_text(
        "from streampiped.stages.base import Stage, StageOptions\n"
        "from streampiped.units import Duration\n"
        "class Mine(Stage):\n"
        "    class Options(StageOptions):\n"
        "        every: Duration = 1.0\n"
        "    def api(self):\n"
        "        return {'ask': lambda: 1}\n"
    )
    text = CHAIN.replace(TRANSFORM, 'class = "user_plan:Mine"\nevery = "2s"')
    plan = loaded(tmp_path, f'[pipeline]\npython_path = ["classes"]\n{text}')
    assert plan.python_path == (str(tmp_path / "classes"),)
    assert plan.spec("scale").klass == "user_plan:Mine"
    assert plan.spec("scale").options == {"every": "2s"}
    assert plan.spec("scale").api


def test_class_that_only_offers_the_methods(tmp_path: Path) -> None:
    """A class need not be derived from the contract; the methods it offers say what it is."""
    (tmp_path / "user_duck.py").write_text(
        "class Duck:\n"
        "    def __init__(self, options, context): pass\n"
        "    def process(self, batch): return batch\n"
        "    def snapshot(self): return {}\n"
        "    def restore(self, state): pass\n"
        "    def close(self): pass\n"
    )
    plan = loaded(tmp_path, '[pipeline]\npython_path = ["."]\n' + CHAIN.replace(TRANSFORM, 'class = "user_duck:Duck"'))
    assert plan.spec("scale").role == "transform"


def test_where_directories_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag wins over the file, the file over systemd's variables, these over ./var; all become absolute."""
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path, CHAIN)
    plan = load(file, environ={})
    assert plan.paths == topology.Paths(*(str(tmp_path / "var" / name) for name in ("state", "run", "log")))
    systemd = {"STATE_DIRECTORY": f"{tmp_path}/s1:{tmp_path}/s2", "RUNTIME_DIRECTORY": f"{tmp_path}/r"}
    plan = load(file, environ=systemd)
    assert (plan.paths.state, plan.paths.runtime) == (str(tmp_path / "s1"), str(tmp_path / "r"))
    file = written(tmp_path, f'[paths]\nstate = "from_file"\n{CHAIN}')
    assert load(file, environ=systemd).paths.state == str(tmp_path / "from_file")
    assert load(file, environ=systemd, state_dir="flag").paths.state == str(tmp_path / "flag")


def test_accepted_directories_are_there(tmp_path: Path) -> None:
    """The directories of an accepted plan exist; a mere check, or a refused file, leaves none behind."""
    paths = [tmp_path / "STATE_DIRECTORY", tmp_path / "deep" / "run"]
    loaded(tmp_path, CHAIN, keep_directories=False, runtime_dir=str(paths[1]))
    problems(tmp_path, f"{CHAIN}nonsense = 1", runtime_dir=str(paths[1]))
    assert [path.parent.name for path in tmp_path.iterdir()] == [tmp_path.name]  # the file alone
    loaded(tmp_path, CHAIN, runtime_dir=str(paths[1]))
    assert all(path.is_dir() for path in paths)
    assert not any(child for path in paths for child in path.iterdir())


def test_ways_of_a_plan() -> None:
    """A way is the input by which a row has come at each stage with several: one way where there is none, and every
    combination behind two of them in a row."""

    def ways(**inputs: tuple[str, ...]) -> tuple[str, ...]:
        stages = tuple(topology.StageSpec(name, "m:C", "transform", given) for name, given in inputs.items())
        return topology.Plan("p", 0, "", topology.Paths("", "", ""), stages).ways()

    diamond = {"s": (), "a": ("s",), "b": ("s",), "join": ("a", "b"), "behind": ("join",)}
    assert ways(s=(), a=("s",), b=("s",)) == ("",)
    assert ways(**diamond) == ("", "a", "b")
    assert ways(**diamond, outer=("behind", "join", "s")) == (
        "", "a", "a/behind", "a/join", "b", "b/behind", "b/join", "s",
    )  # fmt: skip


def test_a_resumed_pipeline_may_lack_its_file(tmp_path: Path) -> None:
    """With a committed epoch its position decides about the file, at the restore; a new pipeline, or one that begins
    afresh, is told before it starts."""
    text = f'[stages.in]\nclass = "generator"\nsource = {{ type = "csv", path = "{tmp_path}/gone.csv" }}\n'
    assert "does not exist" in problems(tmp_path, text)[0].right
    epochs = tmp_path / "STATE_DIRECTORY" / "epochs"
    epochs.mkdir(parents=True)
    (epochs / "e00000003.manifest.damaged").touch()
    assert problems(tmp_path, text)
    (epochs / "e00000002.manifest").touch()
    plan = loaded(tmp_path, text)
    assert problems(tmp_path, text, fresh=True)
    credentials = Credentials(plan.config_file)
    stage = stage_process.load(plan, plan.spec("in"), credentials, lambda *_, **__: None, lambda: None)
    assert isinstance(stage, Generator)
    (epochs / "e00000002.manifest").unlink()
    with pytest.raises(OptionError, match="does not exist"):
        stage_process.load(plan, plan.spec("in"), credentials, lambda *_, **__: None, lambda: None)


def other_group() -> grp.struct_group | None:
    """A group that we may give files to and that they would not have anyway."""
    ours = [g for g in grp.getgrall() if g.gr_gid != os.getegid()]
    return next((g for g in ours if os.geteuid() == 0 or g.gr_gid in os.getgroups()), None)


@pytest.mark.skipif(other_group() is None, reason="neither root nor a member of a second group")
def test_the_way_to_the_sockets_is_open_to_the_group(tmp_path: Path) -> None:
    """Every directory that is made on the way to the sockets is the control group's and lets it through; what was there
    before keeps its group, and so does the state."""
    group = other_group()
    assert group is not None
    there = tmp_path / "there"
    there.mkdir()
    made = [there / "new", there / "new" / "run"]
    plan = loaded(tmp_path, f'[control]\ngroup = "{group.gr_name}"\n{CHAIN}', runtime_dir=str(made[-1]))
    assert [path.stat().st_gid for path in made] == [group.gr_gid, group.gr_gid]
    assert all(path.stat().st_mode & 0o010 for path in made)
    assert {there.stat().st_gid, Path(plan.paths.state).stat().st_gid} == {tmp_path.stat().st_gid}
