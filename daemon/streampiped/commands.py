"""What `streampiped` can be asked: the command line and its answers. Runs apart, see `cli.py`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from streampiped import __version__
from streampiped.errors import ExitCode, StorageError
from streampiped.runtime.event_log import complain
from streampiped.topology import Plan

SYSTEM_CONFIG: Final = Path("/etc/streampipe/streampipe.toml")

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback in the journal should be a plain one
    help="The daemon of streampipe: an always-on online-learning pipeline.",
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        readable=False,  # a file that cannot be read is a wrong configuration (78), and no wrong command line
        help=f"Default: {SYSTEM_CONFIG} if it is there.",
    ),
]
StateDir = Annotated[str | None, typer.Option(metavar="DIR", help="Instead of `paths.state` in the file.")]
RuntimeDir = Annotated[str | None, typer.Option(metavar="DIR", help="Instead of `paths.runtime` in the file.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Forget the state of earlier runs and begin anew.")]
UntilFinished = Annotated[
    bool, typer.Option("--until-finished", help="End when every source has ended; else wait to be stopped.")
]


def understand(arguments: list[str]) -> dict[str, Any]:
    """Parse, and do everything but running. `plan` (`Plan.to_dict`), `fresh` and `until_finished` say what is to be
    run, `task` what is to be done to the state directory (`state_commands.perform`); without either everything was said
    already and `code` is the exit code."""
    answer: dict[str, Any] = {"plan": None, "task": None, "code": int(ExitCode.OK)}
    try:
        app(arguments, prog_name="streampiped", obj=answer)
    except SystemExit as left:
        answer["code"] = left.code or int(ExitCode.OK)
    return answer


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"streampiped {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def check(config: Config = None, state_dir: StateDir = None, runtime_dir: RuntimeDir = None) -> None:
    """Validate the configuration without starting or leaving anything; every problem on stderr, exit 78."""
    file = _chosen(config)
    plan = _plan_of(file, state_dir, runtime_dir, keep_directories=False)
    print(f"OK {file}: {summary(plan)}")
    for line in remarks(plan):
        print(f"note: {line}")


@app.command()
def run(
    context: typer.Context,
    config: Config = None,
    state_dir: StateDir = None,
    runtime_dir: RuntimeDir = None,
    fresh: Fresh = False,
    until_finished: UntilFinished = False,
) -> None:
    """Run the pipeline in the foreground until SIGTERM or Ctrl-C, which drain it."""
    plan = _plan_of(_chosen(config), state_dir, runtime_dir, keep_directories=True, fresh=fresh)
    directories = {"state_dir": state_dir, "runtime_dir": runtime_dir}
    context.obj |= {"plan": plan.to_dict(), "fresh": fresh, "until_finished": until_finished, **directories}


@app.command()
def restore(
    context: typer.Context,
    wanted: Annotated[
        str, typer.Option("--from", metavar="EPOCH|NAME", help="The epoch, or the name it is kept under.")
    ],
    config: Config = None,
    state_dir: StateDir = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Make an older epoch the one that the next start goes on from, while no daemon runs. Says what it discards."""
    plan = _plan_of(_chosen(config), state_dir, None, keep_directories=False)
    context.obj["task"] = {"verb": "restore", "plan": plan.to_dict(), "wanted": wanted, "yes": yes}


@app.command()
def fsck(
    context: typer.Context,
    config: Config = None,
    state_dir: StateDir = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended; no whole epoch is removed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A list of findings for programs.")] = False,
) -> None:
    """Check a state directory whose daemon is stopped. Exit 0: clean, 1: findings, 78: not a state directory."""
    pipeline = None
    if config is not None or state_dir is None:
        plan = _plan_of(_chosen(config), state_dir, None, keep_directories=False)
        state_dir, pipeline = plan.paths.state, plan.pipeline
    options = {"state_dir": state_dir, "pipeline": pipeline, "repair": repair, "json": as_json}
    context.obj["task"] = {"verb": "fsck", **options}


def remarks(plan: Plan) -> list[str]:
    """What is right, and may be worth knowing before it matters."""
    return [
        f"stages.{spec.name}: {spec.klass} has no isolate(); of a batch that kills it again and again all records are "
        "put aside, and not the guilty ones alone"
        for spec in plan.stages
        if not spec.isolates
    ]


def summary(plan: Plan) -> str:
    """The pipeline in one line: `a -> b -> c` for a chain, else every stage with what it reads."""
    names = [spec.name for spec in plan.stages]
    if all(spec.inputs == (before,) for before, spec in zip(names, plan.stages[1:], strict=False)):
        graph = " -> ".join(names)
    else:
        graph = "; ".join(
            f"{' + '.join(spec.inputs)} -> {spec.name}" if spec.inputs else spec.name for spec in plan.stages
        )
    services = ", ".join(spec.name for spec in plan.services) or "none"
    return f'pipeline "{plan.pipeline}": {graph} (services: {services})'


def _chosen(config: Path | None) -> Path:
    if config is not None:
        return config
    if SYSTEM_CONFIG.exists():
        return SYSTEM_CONFIG
    complain(f"no configuration: give --config FILE, or put one at {SYSTEM_CONFIG}")
    raise typer.Exit(ExitCode.CONFIG)


def _plan_of(
    file: Path, state_dir: str | None, runtime_dir: str | None, *, keep_directories: bool, fresh: bool = False
) -> Plan:
    from streampiped.config import ConfigProblems, load  # --help need not wait for numpy

    try:
        with _stdout_on_stderr():
            return load(
                file, state_dir=state_dir, runtime_dir=runtime_dir, keep_directories=keep_directories, fresh=fresh
            )
    except ConfigProblems as found:
        complain(str(found))
        raise typer.Exit(ExitCode.CONFIG) from None
    except StorageError as error:
        complain(f"{file}: {error}")
        raise typer.Exit(ExitCode.FAILED) from None


@contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """What user code prints while it is imported is not the answer of this command."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
