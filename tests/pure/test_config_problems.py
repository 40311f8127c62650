"""A wrong configuration is refused with every problem at once, each with its place and what would be right."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from streampiped.config import ConfigProblems, load
from streampiped.errors import StorageError
from support.config_files import CHAIN, SINK, SOURCE, TRANSFORM, loaded, problems, written

WRONG_KEYS = [
    ("[pipelin]\n", "pipelin", 'did you mean "pipeline"'),
    ('[pipeline]\nnmae = "x"\n', "pipeline.nmae", 'did you mean "name"'),
    ('[pipeline]\nname = "Upper"\n', "pipeline.name", "begin with a-z"),
    ("[pipeline]\nseed = -1\n", "pipeline.seed", "greater than or equal to 0"),
    ('[pipeline]\nseed = "1"\n', "pipeline.seed", "whole number"),
    ("[pipeline]\nseed = true\n", "pipeline.seed", "whole number"),
    ("pipeline = 3\n", "pipeline", "should be a table"),
    ("[checkpoint]\ninterval = 5\n", "checkpoint.interval", "a duration with a unit"),
    ('[checkpoint]\ninterval = "5 parsec"\n', "checkpoint.interval", "a duration with a unit"),
    ('[checkpoint]\ninterval = "1ms"\n', "checkpoint.interval", "greater than or equal to 0.01"),
    ("[checkpoint]\nretain_epochs = 0\n", "checkpoint.retain_epochs", "greater than or equal to 1"),
    ('[links]\npipe_bytes = "2GiB"\n', "links.pipe_bytes", "less than or equal to 1048576"),
    ('[links]\npipe_bytes = "2GB/s"\n', "links.pipe_bytes", "a size with a unit"),
    ('[logs]\nlevel = "loud"\n', "logs.level", "'debug'"),
    ('[metrics]\nlisten = "9464"\n', "metrics.listen", "should be an address and a port"),
    ('[metrics]\nlisten = "localhost:9464"\n', "metrics.listen", "should be an address and a port"),
    ('[metrics]\nlisten = "127.0.0.1:99999"\n', "metrics.listen", "a port, 1 to 65535"),
    ('[metrics]\nlisten = "0.0.0.0:9464"\n', "metrics.listen", "or anywhere = true beside it"),
    ('[metrics]\nlisten = "[::]:9464"\n', "metrics.listen", "or anywhere = true beside it"),
    ("[health]\nflapping_deaths = 1\n", "health.flapping_deaths", "greater than or equal to 2"),
    ("[control]\noperators = [1]\n", "control.operators[0]", "should be text"),
    ('[control]\noperators = "ann"\n', "control.operators", "should be a list"),
    ('[supervision]\nbackoff_first = "1h"\n', "supervision.backoff_first", "at most backoff_max, which is 30 s"),
    ("[service_monitor]\nenabled = 1\n", "service_monitor.enabled", "true or false"),
    ('[pipeline]\npython_path = ["nowhere"]\n', "pipeline.python_path", "a directory that is there"),
]

WRONG_STAGES = [
    (f"[stages.Big]\n{SOURCE}\n", "stages.Big", "begin with a-z"),
    (f"[stages.{'x' * 33}]\n{SOURCE}\n", f"stages.{'x' * 33}", "at most 32 characters"),
    (f"[stages.launcher]\n{SOURCE}\n", "stages.launcher", "the name of another process"),
    ("[stages.mine]\n", "stages.mine.class", '"package.module:Class"'),
    ('[stages.a]\nclass = "generatr"\n', "stages.a.class", 'did you mean "generator"'),
    ('[stages.a]\nclass = "no_such_module:X"\n', "stages.a.class", "no module named 'no_such_module'; [pipeline]"),
    ('[stages.a]\nclass = "streampiped.stages.base:Stag"\n', "stages.a.class", 'did you mean "Stage"'),
    ('[stages.a]\nclass = "json:JSONDecoder"\n', "stages.a.class", "a subclass of streampiped.stages.base.Stage"),
    ('[stages.a]\nclass = "streampiped.stages.base:Service"\n', "stages.a.class", "a service, not a stage"),
    ("[stages.a]\nclass = 7\n", "stages.a.class", "should be text"),
    (f'[stages.a]\n{SOURCE}\nrate = "1/s"\n', "stages.a.rate", 'did you mean "max_rate"'),
    (f"[stages.a]\n{SOURCE}\nhang_timeout = 0\n", "stages.a.hang_timeout", "greater than 0"),
    (f'[stages.a]\n{SOURCE}\nmax_rate = "10"\n', "stages.a.max_rate", "a rate such as"),
    (f"{CHAIN}[stages.more]\n{SINK}\n", "stages.more.input", "is needed"),
    (f'{CHAIN}[stages.more]\n{SOURCE}\ninput = "scale"\n', "stages.more.input", "a source has no input"),
    (f'{CHAIN}[stages.more]\n{SINK}\ninput = "scal"\n', "stages.more.input", 'did you mean "scale"'),
    (f'{CHAIN}[stages.more]\n{SINK}\ninput = "more"\n', "stages.more.input", "its own input"),
    (f'{CHAIN}[stages.more]\n{SINK}\ninput = "log_extractor"\n', "stages.more.input", "is a service"),
    (f'{CHAIN}[stages.more]\n{SINK}\ninput = ["scale", "scale"]\n', "stages.more.input", "scale more than once"),
    (f"{CHAIN}[stages.more]\n{SINK}\ninput = 3\n", "stages.more.input", "should be text or should be a list"),
    ("stages = 3\n", "stages", "should be tables"),
]


@pytest.mark.parametrize(("text", "key", "right"), WRONG_KEYS + WRONG_STAGES, ids=range(len(WRONG_KEYS + WRONG_STAGES)))
def test_names_key_and_remedy(tmp_path: Path, text: str, key: str, right: str) -> None:
    """One wrong thing gives exactly one problem, at its key and line, that says what would be right."""
    lines = text if "[stages" in text or text.startswith("stages") else text + CHAIN
    found = problems(tmp_path, lines)
    assert [problem.key for problem in found] == [key]
    assert right in found[0].right
    assert found[0].line is not None
    assert f"{tmp_path}/streampipe.toml:{found[0].line}: {key}" in str(found[0])


def test_all_at_once(tmp_path: Path) -> None:
    """The wrong things of all tables are told together, in the order of the file."""
    texts = [text for text, _, _ in WRONG_KEYS if text.startswith("[")]
    kept = {text.splitlines()[0]: text for text in texts}.values()  # one per table: a table stands once
    expected = [key for text, key, _ in WRONG_KEYS if text in kept]
    found = problems(tmp_path, "".join(kept) + CHAIN)
    assert sorted(problem.key for problem in found) == sorted(expected)
    assert [problem.line for problem in found] == sorted(problem.line or 0 for problem in found)


def test_metrics_need_who_serves_them(tmp_path: Path) -> None:
    """An address to serve metrics at is refused without the service monitor; loopback of either kind, or any address
    when that is said, is right."""
    off = "[service_monitor]\nenabled = false\n"
    (found,) = problems(tmp_path, f'[metrics]\nlisten = "[::1]:9464"\n{off}{CHAIN}')
    assert (found.key, found.right) == ("metrics.listen", "needs the service monitor, which is not enabled")
    for right in ('"127.0.0.1:9464"', '"127.8.0.1:9464"', '"[::1]:9464"', '"0.0.0.0:9464"\nanywhere = true'):
        assert loaded(tmp_path, f"[metrics]\nlisten = {right}\n{CHAIN}").metrics.listen


def test_value_as_written(tmp_path: Path) -> None:
    """A problem shows the value as it stands in the file, cut to one line."""
    (found,) = problems(tmp_path, f'[logs]\nlevel = "{"x" * 500}"\n{CHAIN}')
    assert found.value is not None
    assert found.value.startswith('"xxx')
    assert len(found.value) == 60


def test_two_stages_of_one_name(tmp_path: Path) -> None:
    """A stage declared twice is told with both lines, and the rest of the file is still checked."""
    again, other = problems(tmp_path, f"[logs]\nlevle = 1\n{CHAIN}\n[stages.scale]\n{TRANSFORM}\n")[::-1]
    assert again.right == "two stages of one name; the first is on line 6"
    assert (again.key, again.line) == ("stages.scale", 13)
    assert other.key == "logs.levle"


def test_cycle_is_named(tmp_path: Path) -> None:
    """Every cycle is told as the path it takes, downstream stages outside of it are not accused."""
    text = CHAIN
    for name, wanted in (("a", "c"), ("b", "a"), ("c", "b"), ("after", "c"), ("p", "q"), ("q", "p")):
        text += f'[stages.{name}]\n{TRANSFORM}\ninput = "{wanted}"\n'
    rights = [problem.right.partition(";")[0] for problem in problems(tmp_path, text)]
    assert rights == ["a cycle: a -> b -> c -> a", "a cycle: p -> q -> p"]


def test_full_temporary_directory_is_no_problem_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where stages cannot be tried because there is no room for it, that is said, and nothing of the file."""

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/tmp/x")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    with pytest.raises(StorageError, match=r"^stages\.numbers: No space left on device \(/tmp/x\)$"):
        loaded(tmp_path, CHAIN)


def diamonds(count: int) -> str:
    """A chain in which the stream parts and joins again, so often."""
    text, before = f"[stages.j0]\n{SOURCE}\n", "j0"
    for number in range(1, count + 1):
        for side in "lr":
            text += f'[stages.{side}{number}]\n{TRANSFORM}\ninput = "{before}"\n'
        before = f"j{number}"
        text += f'[stages.{before}]\n{TRANSFORM}\ninput = ["l{number}", "r{number}"]\n'
    return text


def test_ways_are_bounded(tmp_path: Path) -> None:
    """Forks in a row double the ways of a record: eight are a pipeline, forty are refused at once, at the first stage
    that is too much."""
    assert problems(tmp_path, diamonds(8)) == []
    (found,) = problems(tmp_path, diamonds(40))
    assert found.key == "stages.j9.input"
    assert found.right.startswith("records come here over 512 ways, at most 256 are possible; ")


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("[a\n", "is no TOML"),
        ("[pipeline]\nname = \n", "is no TOML"),
        ('[pipeline]\nname = "a"\nname = "b"\n', "is no TOML"),
    ],
)
def test_broken_toml(tmp_path: Path, text: str, right: str) -> None:
    """Text that is no TOML is one problem with the parser's line."""
    (found,) = problems(tmp_path, text)
    assert found.right.startswith(right)
    assert found.line == text.count("\n")


def test_unreadable_file(tmp_path: Path) -> None:
    """A file that is missing, a directory or no UTF-8 is one clear problem."""
    latin = written(tmp_path, "")
    latin.write_bytes(b'name = "\xe9"')
    for file, right in ((tmp_path / "no", "No such file"), (tmp_path, "Is a directory"), (latin, "should be UTF-8")):
        with pytest.raises(ConfigProblems, match=right) as caught:
            load(file)
        assert len(caught.value.problems) == 1


def test_no_regular_file(tmp_path: Path) -> None:
    """A pipe is refused at once, also one that nobody writes to: a reload could not read it again, and would wait."""
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    reader, writer = os.pipe()
    try:
        for file in (pipe, Path("/dev/null"), Path(f"/proc/self/fd/{reader}")):
            with pytest.raises(ConfigProblems, match="no regular file") as caught:
                load(file)
            assert len(caught.value.problems) == 1
    finally:
        os.close(reader)
        os.close(writer)


USER_STAGE = """
from pydantic import Field
from streampiped.errors import OptionError
from streampiped.stages.base import Stage, StageOptions

class Options(StageOptions):
    low: float = Field(ge=0)
    column: str = "x"

class Clip(Stage):
    Options = Options
    def __init__(self, options, context):
        if options.column == "nobody":
            raise OptionError("no column nobody")
        if options.column == "crash":
            raise RuntimeError("boom")

class Greedy(Stage):
    class Options(StageOptions):
        input: str = "mine"
"""


@pytest.mark.parametrize(
    ("option", "key", "right"),
    [
        ("", "stages.scale.low", "is needed"),
        ("low = -1", "stages.scale.low", "greater than or equal to 0"),
        ("low = 1\nlwo = 2", "stages.scale.lwo", 'did you mean "low"'),
        ('low = 1\ncolumn = "nobody"', "stages.scale", "no column nobody"),
        ('low = 1\ncolumn = "crash"', "stages.scale", "RuntimeError: boom"),
    ],
)
def test_options_of_user_class(tmp_path: Path, option: str, key: str, right: str) -> None:
    """The options of a user's class are checked by its model and then by its constructor."""
    (tmp_path / "user_clip.py").write_text(USER_STAGE)
    text = CHAIN.replace(TRANSFORM, f'class = "user_clip:Clip"\n{option}')
    (found,) = problems(tmp_path, f'[pipeline]\npython_path = ["."]\n{text}')
    assert found.key == key
    assert right in found.right


def test_option_named_like_a_reserved_key(tmp_path: Path) -> None:
    """A class whose options would hide `input` is refused."""
    (tmp_path / "user_greedy.py").write_text(USER_STAGE)
    text = CHAIN.replace(TRANSFORM, 'class = "user_greedy:Greedy"')
    (found,) = problems(tmp_path, f'[pipeline]\npython_path = ["."]\n{text}')
    assert "names that every stage has: input" in found.right


USER_LEARNERS = """
from streampiped.stages.base import Stage, StageOptions
from streampiped.stages.evaluator import Evaluator, EvaluatorOptions
from streampiped.stages.trainer import Trainer, TrainerOptions

class Sparing(Trainer):
    class Options(TrainerOptions):
        holdout: float = 0.25

class Scoring(Evaluator):
    class Options(EvaluatorOptions):
        more: int = 0

class Apart(Stage):
    class Options(StageOptions):
        prediction: str = "prediction"
        holdout: float = 0.5
"""


def chained(*stages: tuple[str, str, str, str]) -> str:
    """A pipeline of a source and (name, class, input, options)."""
    text = f'[pipeline]\npython_path = ["."]\n[stages.numbers]\n{SOURCE}\n'
    for name, klass, inputs, options in stages:
        text += f'[stages.{name}]\nclass = "{klass}"\ninput = {inputs}\n{options}\n'
    return text


FIRST = ("one", "trainer", '"numbers"', "holdout = 0.1")
OTHER = ("two", "trainer", '"numbers"', "holdout = 0.3")


@pytest.mark.parametrize(
    ("stages", "wrong"),
    [
        ([FIRST, ("eva", "evaluator", '"one"', "holdout = 0.1")], []),
        ([FIRST, ("eva", "evaluator", '"one"', "")], ["is 0.02 when left out, should be 0.1 as in stages.one"]),
        ([FIRST, ("eva", "evaluator", '"one"', "holdout = 0")], ["should be 0.1 as in stages.one, or 0.0 there too"]),
        ([("one", "trainer", '"numbers"', ""), ("eva", "evaluator", '"one"', "holdout = 0.1")],
         ["should be 0.02 as in stages.one, or 0.1 there too"]),
        # the trainer of another branch is none of its, one further up is, and two that come together both are
        ([FIRST, OTHER, ("eva", "evaluator", '"two"', "holdout = 0.3")], []),
        ([FIRST, ("mid", "streampiped.stages.base:Stage", '"one"', ""), ("eva", "evaluator", '"mid"', "holdout = 0.3")],
         ["should be 0.1 as in stages.one"]),
        ([FIRST, OTHER, ("eva", "evaluator", '["one", "two"]', "holdout = 0.1")], ["should be 0.3 as in stages.two"]),
        # of two in a row it scores the one whose column it reads
        ([FIRST, ("two", "trainer", '"one"', 'prediction = "p"\nholdout = 0.3'),
          ("eva", "evaluator", '"two"', "holdout = 0.1"), ("evb", "evaluator", '"two"', 'prediction = "p"')],
         ["is 0.02 when left out, should be 0.3 as in stages.two"]),
        # a class of one's own that is derived from them, and one that only has options of these names
        ([("one", "learners:Sparing", '"numbers"', ""), ("eva", "learners:Scoring", '"one"', "")],
         ["is 0.02 when left out, should be 0.25 as in stages.one, or 0.02 there too"]),
        ([("one", "learners:Apart", '"numbers"', ""), ("eva", "evaluator", '"one"', "")], []),
    ],
)  # fmt: skip
def test_held_out_rows_are_the_same_to_both(
    tmp_path: Path, stages: list[tuple[str, str, str, str]], wrong: list[str]
) -> None:
    """An evaluator whose `holdout` is not that of a trainer before it whose predictions it scores is refused, with both
    stages and both values; whose values are equal, written or not, and who has no such trainer is not."""
    (tmp_path / "learners.py").write_text(USER_LEARNERS)
    found = problems(tmp_path, chained(*stages))
    assert [problem.right.startswith(right) for problem, right in zip(found, wrong, strict=True)] == [True] * len(wrong)
    assert {problem.key.rpartition(".")[2] for problem in found} <= {"holdout"}
    assert all(problem.key.startswith("stages.ev") and problem.line for problem in found)


def test_class_that_fails_to_import(tmp_path: Path) -> None:
    """An exception, or sys.exit, in a user's module is a problem of that class, with the line that raised."""
    for name, code, right in (
        ("user_raises", "1 / 0", "ZeroDivisionError"),
        ("user_exits", "exit(3)", "SystemExit: 3"),
    ):
        (tmp_path / f"{name}.py").write_text(code)
        text = CHAIN.replace(TRANSFORM, f'class = "{name}:X"')
        (found,) = problems(tmp_path, f'[pipeline]\npython_path = ["."]\n{text}')
        assert found.key == "stages.scale.class"
        assert right in found.right


def test_option_that_no_message_can_carry(tmp_path: Path) -> None:
    """A TOML date as an option of a class that would take anything is refused, for it cannot travel to the stage."""
    (tmp_path / "user_any.py").write_text(
        "from typing import Any\nfrom streampiped.stages.base import Stage, StageOptions\n"
        "class A(Stage):\n    class Options(StageOptions):\n        when: Any\n"
    )
    text = CHAIN.replace(TRANSFORM, 'class = "user_any:A"\nwhen = 2020-01-01')
    (found,) = problems(tmp_path, f'[pipeline]\npython_path = ["."]\n{text}')
    assert found.key == "stages.scale.when"
    assert found.value == '"2020-01-01"'


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """A state directory below a file, or on a file system that takes no files, is refused, whoever asks."""
    (tmp_path / "file").write_text("")
    (found,) = problems(tmp_path, CHAIN, state_dir=str(tmp_path / "file" / "state"))
    assert found.key == "paths.state"
    assert "Not a directory" in found.right
    (found,) = problems(tmp_path, CHAIN, state_dir="/proc")  # there, and not even root can make a file in it
    assert found.key == "paths.state"


def test_runtime_directory_too_long_for_a_socket(tmp_path: Path) -> None:
    """A runtime directory whose sockets would not fit into an address says by how much."""
    (found,) = problems(tmp_path, CHAIN, runtime_dir=str(tmp_path / ("d" * 100)))
    over = len(str(tmp_path / ("d" * 100) / "control.sock")) - 107
    assert found.key == "paths.runtime"
    assert f"{over} bytes shorter" in found.right
